"""The memory of a live process, read as root can: no private key is in it once its custom CSR is active."""

import base64
import itertools
import os
import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness import Csrd, wait_until
from test_certificate_export import Uploaded


def patterns(key) -> dict[str, bytes]:
    """The secret numbers of a private key, as bytes in both orders; those of limbs are little-endian."""
    numbers = key.private_numbers()
    if hasattr(numbers, "p"):
        named = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qinv": numbers.iqmp}
    else:
        named = {"scalar": numbers.private_value}
    made = {}
    for name, number in named.items():
        size = (number.bit_length() + 7) // 8
        made |= {f"{name}, {order}": number.to_bytes(size, order) for order in ("big", "little")}
    return made


PAGE = os.sysconf("SC_PAGE_SIZE")
# Of an entry in `pagemap`: the page is in memory, or in swap space.
THERE = 0b11 << 62


def memory(pid: int) -> list[bytes]:
    """What the process has written into memory that it can write to: runs of pages that are there."""
    contents = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            begin, end = (int(value, 16) for value in addresses.split("-"))
            pagemap.seek(begin // PAGE * 8)
            entries = struct.unpack(f"={(end - begin) // PAGE}Q", pagemap.read((end - begin) // PAGE * 8))
            for there, run in itertools.groupby(range(len(entries)), lambda page: bool(entries[page] & THERE)):
                pages = list(run)
                if not there:
                    continue
                file.seek(begin + pages[0] * PAGE)
                # What was there a moment ago may be gone by now.
                with suppress(OSError):
                    contents.append(file.read(len(pages) * PAGE))
    return contents


def found(contents: list[bytes], wanted: dict[str, bytes]) -> dict[str, int]:
    """How often each is there: whole, or either half of it, since buffers and pages are cut anywhere."""
    counts, whole = {}, b"|".join(contents)
    for name, pattern in wanted.items():
        half = len(pattern) // 2
        counts[name] = whole.count(pattern[:half]) + whole.count(pattern[half:])
    return {name: count for name, count in counts.items() if count}


def pool_keys(csrd: Csrd) -> int:
    with closing(sqlite3.connect(f"file:{csrd.data_dir}/csrd.db?mode=ro", uri=True, timeout=15)) as database:
        return database.execute("SELECT count(*) FROM pool_keys").fetchone()[0]


def search(csrd: Csrd, directory: Path, kinds: list[str]) -> str:
    """Has keys of these kinds made and exported, then looks for them in the memory of the process that made them."""
    wanted = {}
    for number, key_type in enumerate(kinds):
        uploaded, out = Uploaded(csrd, key_type), directory / f"out {number}"
        # Another process opens it, and not this one.
        assert uploaded.export(out).returncode == 0
        key = load_pem_private_key(next(out.rglob("privkey.pem")).read_bytes(), None)
        wanted |= {f"{number} {key_type} {name}": pattern for name, pattern in patterns(key).items()}
    assert len(wanted) == sum(12 if key_type == "rsa2048" else 2 for key_type in kinds)
    contents = memory(csrd.process.pid)
    # What is there for certain is found: the search looks into the right places.
    master_key = base64.b64decode((csrd.data_dir / "master.key").read_text())
    assert found(contents, {"master key": master_key}), "the master key is in memory while the process seals"
    hits = found(contents, wanted)
    assert hits == {}
    outside = Path(f"/proc/{csrd.process.pid}/cmdline").read_bytes() + Path(f"/proc/{csrd.process.pid}/environ").read_bytes()
    assert master_key not in outside and base64.b64encode(master_key) not in outside
    return f"{sum(map(len, contents)) / 2**20:.0f} MiB, {len(wanted)} secret numbers of {len(kinds)} keys: {len(hits)} found"


@pytest.mark.parametrize("pool", [0, 3], ids=["fresh keys", "keys from the pool"])
def test_no_private_key_is_in_the_memory_of_the_process_that_made_it(new_csrd, tmp_path, record_property, pool):
    csrd = new_csrd("--key-pool-size", str(pool)).start()
    wait_until(lambda: pool_keys(csrd) == pool, "the key pool is full", 120)
    record_property("figures", search(csrd, tmp_path, ["rsa2048"] * 3 + ["p256v1"] * 4))


@pytest.mark.slow
def test_none_of_many_private_keys_is_in_the_memory_of_the_process_that_made_them(new_csrd, tmp_path, record_property):
    record_property("figures", search(new_csrd().start(), tmp_path, ["rsa2048", "p256v1"] * 12))


def test_the_search_finds_what_is_planted():
    """In this process: numbers in both orders, whole and half."""
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())):
        wanted = patterns(key)
        planted = bytearray(b"x".join(wanted.values()))
        assert set(found(memory(os.getpid()), wanted)) == set(wanted) and planted
        (name, pattern), *_ = wanted.items()
        for half in (pattern[: len(pattern) // 2], pattern[len(pattern) // 2 :]):
            assert set(found([b"x" + half + b"y"], wanted)) == {name}
        assert found([pattern[: len(pattern) // 2 - 1], b"nothing"], wanted) == {}
