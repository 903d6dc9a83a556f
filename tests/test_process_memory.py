"""What lies in the memory of a serving process after it made keys: none of them, and the master key once, where it is locked."""

import base64
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_der_private_key
from harness import bearer, subject, wait_until
from test_secrets import new_keys

PAGE = os.sysconf("SC_PAGE_SIZE")
# Pages that are read at once: a process reserves much more memory than it uses.
RUN_PAGES = 4096
# Of each secret this much is looked for, at its end: what comes first in freed memory is overwritten by an allocator's notes.
PIECE = 16
# What one line of PEM holds.
LINE_BYTES = 48


@dataclass
class Mapping:
    """A part of a process' memory that can be written to."""

    start: int
    end: int
    is_locked: bool


def writable_mappings(pid: int) -> list[Mapping]:
    mappings = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(address, 16) for address in words[0].split("-"))
            is_readable = words[1].startswith("rw")
            name = words[5] if len(words) > 5 else ""
            current = Mapping(start, end, False)
            if is_readable and name not in ("[vvar]", "[vsyscall]"):
                mappings.append(current)
        elif words[0] == "VmFlags:":
            current.is_locked = "lo" in words
    return mappings


def memory(pid: int, mapping: Mapping) -> Iterator[bytes]:
    """What is in it, piece by piece, without the pages that were never used."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap, open(f"/proc/{pid}/mem", "rb", buffering=0) as content:
        first, count = mapping.start // PAGE, (mapping.end - mapping.start) // PAGE
        pagemap.seek(first * 8)
        entries = pagemap.read(count * 8)
        # Bits 63 and 62 of an entry: the page is in memory, or in swap space.
        used = [entries[8 * page + 7] & 0xC0 != 0 for page in range(len(entries) // 8)]
        page = 0
        while page < len(used):
            if not used[page]:
                page += 1
                continue
            end = page
            while end < len(used) and used[end] and end - page < RUN_PAGES:
                end += 1
            content.seek(mapping.start + page * PAGE)
            piece = content.read((end - page) * PAGE)
            assert len(piece) == (end - page) * PAGE
            yield piece
            page = end


def find_in_memory(pid: int, secrets: dict[str, bytes]) -> dict[str, list[bool]]:
    """Where secrets are found: for each place, whether it is locked in memory."""
    assert os.geteuid() == 0, "only root may read the memory of csrd: run this test as root"
    found = {}
    # What is read stays as it is, and where it is.
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: re.search(r"^State:\s+T", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE), "it stands still")
        for mapping in writable_mappings(pid):
            for content in memory(pid, mapping):
                for name, secret in secrets.items():
                    found.setdefault(name, []).extend([mapping.is_locked] * content.count(secret))
    finally:
        os.kill(pid, signal.SIGCONT)
    return {name: places for name, places in found.items() if places}


def number(name: str, value: int, size: int) -> dict[str, bytes]:
    """As files have a number, and as libraries have it in memory: its last octets, since files leave zeros at its front out."""
    return {f"{name}, big endian": value.to_bytes(size, "big")[-PIECE:], f"{name}, little endian": value.to_bytes(size, "little")[:PIECE]}


def secrets_of(name: str, der: bytes) -> dict[str, bytes]:
    """What betrays a private key. Its encodings hold the numbers too, in big endian, or as base64 in PEM."""
    key = load_der_private_key(der, None)
    if isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        numbers = {"p": (private.p, 128), "q": (private.q, 128), "d": (private.d, 256)}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        numbers = {"scalar": (key.private_numbers().private_value, key.key_size // 8)}
    else:
        numbers = {"seed": (int.from_bytes(key.private_bytes_raw(), "big"), 32)}
    found = {}
    for label, (value, size) in numbers.items():
        found |= number(f"{name}: {label}", value, size)
    # The end of a line of PEM that lies in the first of the numbers, which DER has in its full length.
    value, size = next(iter(numbers.values()))
    end = -(-(der.index(value.to_bytes(size, "big")) + PIECE * 3 // 4) // LINE_BYTES) * LINE_BYTES
    return found | {f"{name}: PEM": base64.b64encode(der)[: end * 4 // 3][-PIECE:]}


def unseal(master_key: bytes, table: str, row_id: str, scope: str, spki_sha256: bytes, record: bytes) -> bytes:
    """Opens a sealed record, as `docs/security.md` describes it."""
    version, master_key_id, wrapped, nonce, sealed = record[:1], record[1:9], record[9:49], record[49:61], record[61:]
    assert (version, master_key_id) == (b"\x01", sha256(master_key).digest()[:8])
    parts = [version, master_key_id, table.encode(), row_id.encode(), b"sealed_private_key", scope.encode(), spki_sha256]
    binding = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return AESGCM(aes_key_unwrap_with_padding(master_key, wrapped)).decrypt(nonce, sealed, binding)


def database_rows(csrd, query: str) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{csrd.data_dir}/csrd.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_the_search_finds_a_private_key_in_the_memory_of_another_process_in_every_form(kind):
    key = new_keys()[kind]
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    secrets = secrets_of("key", der)
    # It keeps what it reads, the DER backwards too: its numbers are little endian then.
    program = "import sys; kept = sys.stdin.buffer.read(); more = kept[::-1]; print(flush=True); import signal; signal.pause()"
    for planted, forms in [(der, ("big endian", "little endian")), (pem, ("PEM",)), (b"nothing", ())]:
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            process.stdin.write(planted)
            process.stdin.close()
            assert process.stdout.readline() == b"\n"
            assert set(find_in_memory(process.pid, secrets)) == {name for name in secrets if name.endswith(forms)}
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def test_memory_holds_no_private_key_once_it_is_sealed_and_the_master_key_in_locked_memory_alone(new_csrd):
    # Without keys made ahead: while one is sealed, the master key is at work.
    csrd = new_csrd("--key-pool-size", "0", "--key-types", "rsa2048,p256v1,p384,ed25519").start()
    zone = csrd.tenant("zone")
    key_types = ["rsa2048"] * 10 + ["p256v1"] * 20 + ["p384", "ed25519"] * 10
    # The OpenAPI document in the repository, which answers are checked against elsewhere, has the usual key types alone.
    made = [csrd.client.post(csrd.url + zone.path, json=subject(key_type=key_type), headers=bearer(zone)) for key_type in key_types]
    assert {answer.status_code for answer in made} == {201}
    active = "SELECT COUNT(*) FROM custom_csrs WHERE status = 'active'"
    wait_until(lambda: database_rows(csrd, active) == [(len(made),)], "all keys are made", 300)
    master_key = base64.b64decode((csrd.data_dir / "master.key").read_text())
    rows = database_rows(csrd, "SELECT id, spki_sha256, sealed_private_key FROM custom_csrs")
    assert sorted(csr_id for csr_id, _, _ in rows) == sorted(answer.json()["result"]["id"] for answer in made)
    secrets = {"master key": master_key}
    for csr_id, spki_sha256, record in rows:
        der = unseal(master_key, "custom_csrs", csr_id, f"zones/{zone.id}", spki_sha256, record)
        public = load_der_private_key(der, None).public_key()
        assert sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest() == spki_sha256
        secrets |= secrets_of(csr_id, der)
    # The organization is there: the search reads the memory that the requests went through.
    found = find_in_memory(csrd.process.pid, secrets | {"organization": b"Acme Widgets"})
    assert found.pop("organization")
    assert found == {"master key": [True]}
