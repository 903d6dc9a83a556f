"""No private key, master key or token is anywhere in the clear: not in the database, a log or a response."""

import base64
import json
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from harness import run, subject

RSA_ALGORITHM = "300d06092a864886f70d0101010500"
P256_ALGORITHM = "301306072a8648ce3d020106082a8648ce3d030107"
# Bytes that every private key of ours begins with, and no public key or CSR has.
PRIVATE_KEY_MARKS = {
    "PrivateKeyInfo, RSA (RFC 5958)": bytes.fromhex("020100" + RSA_ALGORITHM + "048204"),
    "OneAsymmetricKey v2, RSA (RFC 5958)": bytes.fromhex("020101" + RSA_ALGORITHM + "048204"),
    "RSAPrivateKey, 2048 bit (RFC 8017)": bytes.fromhex("0201000282010100"),
    "PrivateKeyInfo, P-256 (RFC 5958)": bytes.fromhex("020100" + P256_ALGORITHM + "04"),
    "OneAsymmetricKey v2, P-256 (RFC 5958)": bytes.fromhex("020101" + P256_ALGORITHM + "04"),
    "ECPrivateKey in PrivateKeyInfo, P-256 (RFC 5915)": bytes.fromhex("306b0201010420"),
    "ECPrivateKey, P-256 (RFC 5915)": bytes.fromhex("30770201010420"),
    "PEM label (RFC 7468)": b"PRIVATE KEY-----",
}


def base64_cores(secret: bytes) -> set[bytes]:
    """What base64 of any text with `secret` in it has in common, at each of the three alignments."""
    cores = set()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        first = (8 * before + 5) // 6
        cores.add(encoded[first : (8 * (before + len(secret))) // 6])
    return cores | {core.translate(bytes.maketrans(b"+/", b"-_")) for core in cores}


def forms(secret: bytes) -> set[bytes]:
    """How bytes show up in files and logs: as they are, hexadecimal, base64, as a list of numbers."""
    pairs = [f"{byte:02x}" for byte in secret]
    numbers = [str(byte) for byte in secret]
    texts = ["".join(pairs), "".join(pairs).upper(), ":".join(pairs), " ".join(pairs), ", ".join(numbers), ",".join(numbers)]
    return {secret} | {text.encode() for text in texts} | base64_cores(secret)


def find_secrets(content: bytes, secrets: dict[str, bytes]) -> list[str]:
    """The names of the secrets that are in `content`; base64 may be broken into lines."""
    contents = [content, re.sub(rb"(\\[rn]|\s)+", b"", content)]
    return [name for name, secret in secrets.items() if any(form in text for form in forms(secret) for text in contents)]


def new_keys():
    return {"rsa": rsa.generate_private_key(65537, 2048), "p256": ec.generate_private_key(ec.SECP256R1())}


@pytest.mark.parametrize("kind", ["rsa", "p256"])
@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
@pytest.mark.parametrize("layout", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_the_scanner_finds_a_planted_private_key_in_every_form(tmp_path, kind, encoding, layout):
    key = new_keys()[kind].private_bytes(encoding, layout, NoEncryption())
    # A database cuts long values into pages.
    planted = [key, key.hex().encode(), key.hex().upper().encode(), str(list(key)).encode(), json.dumps(list(key)).encode(), key[:500]]
    planted += [json.dumps(list(key), separators=(",", ":")).encode()]
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + key)
        planted += [encoded, base64.urlsafe_b64encode(b"x" * before + key)]
        planted += [b"\n".join(encoded[n : n + 64] for n in range(0, len(encoded), 64))]
    for number, form in enumerate(planted):
        path = tmp_path / str(number)
        path.write_bytes(bytes(range(256)) * 20 + form + b"\0" * 999)
        assert find_secrets(path.read_bytes(), PRIVATE_KEY_MARKS), (number, form[:80])


def test_the_scanner_finds_a_planted_secret_wherever_it_stands():
    secret = bytes(range(200, 232))
    assert find_secrets(base64.b64encode(b"ab" + secret + b"c"), {"it": secret}) == ["it"]
    assert find_secrets(b"--" + secret, {"it": secret}) == ["it"]
    assert find_secrets(b"--" + secret[:-1], {"it": secret}) == []


@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_the_scanner_takes_no_public_key_for_a_private_one(kind):
    public = new_keys()[kind].public_key()
    for encoding in (Encoding.DER, Encoding.PEM):
        found = public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        assert not find_secrets(found + found.hex().encode() + base64.b64encode(found), PRIVATE_KEY_MARKS)


def key_file_secrets(path: Path) -> dict[str, bytes]:
    """What a key file holds: its lines, and what they are base64 of."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("-----")]
    secrets = {f"{path.name} line {number}": line.encode() for number, line in enumerate(lines)}
    raw = base64.b64decode("".join(lines))
    return secrets | {path.name: raw}


def database_files(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(data_dir.iterdir()) if path.name.startswith("csrd.db")}


def whole_run(csrd) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Everything that a run leaves behind or says, and the secrets that are not to be in it."""
    zone = csrd.tenant("zone", quota=4)
    forged = zone.token[:-8] + "forgedXY"
    tokens = {"the token": zone.token, "a token with a wrong signature": forged}
    answers = []

    def ask(method, suffix="", **arguments):
        answers.append(zone.request(method, suffix, **arguments))
        return answers[-1]

    ids = [ask("POST", json=subject(key_type=key_type)).result["id"] for key_type in ("rsa2048", "p256v1") * 2]
    for csr_id in ids:
        zone.wait_active(csr_id)
        ask("GET", f"/{csr_id}")
    for status, arguments in [
        (403, {"json": subject()}),
        (400, {"json": subject(country="UK", sans=["-"])}),
        (400, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        (401, {"json": subject(), "token": forged}),
        (401, {"json": subject(), "token": f"{zone.token} twice"}),
        (400, {"json": subject(), "token": None}),
        (413, {"json": subject(description="x" * 70_000)}),
    ]:
        assert ask("POST", **arguments).status == status
    assert ask("GET", "/none").status == 400
    assert ask("DELETE", f"/{ids[0]}").status == 200
    assert ask("GET", f"/{ids[0]}").status == 404
    assert len(ask("GET", params={"per_page": 50}).result) == 3
    csrd.ok("keys", "check")

    # The token in the printed curl line is the one that is meant to be seen.
    said = {"responses": b"\n".join(answer.content + repr(answer.headers.multi_items()).encode() for answer in answers)}
    said |= {f"{name} while it runs": content for name, content in database_files(csrd.data_dir).items()}
    assert csrd.stop() == 0
    said |= database_files(csrd.data_dir) | {"log": csrd.log_path.read_bytes(), "standard output": csrd.stdout_path.read_bytes()}
    secrets = dict(PRIVATE_KEY_MARKS)
    for name, token in tokens.items():
        # The signature is what makes a token valid; header and claims are harmless, and alike in others.
        secrets |= {name: token.encode(), f"{name}: signature": token.rsplit(".", 1)[1].encode()}
    return said, secrets


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_whole_run_leaves_no_secret_in_the_clear(new_csrd, log_format):
    csrd = new_csrd("--log-level", "trace", "--log-format", log_format).start()
    said, secrets = whole_run(csrd)
    secrets |= key_file_secrets(csrd.data_dir / "master.key") | key_file_secrets(csrd.data_dir / "signing.key")
    # What is not secret is found: the scan looks into the right files.
    database = b"".join(content for name, content in said.items() if name.startswith("csrd.db"))
    for content in (database, said["responses"]):
        assert b"www.acme-widgets.com" in content and b"CERTIFICATE REQUEST" in content
    assert b"custom_csrs" in said["log"]
    assert {name: found for name, content in said.items() if (found := find_secrets(content, secrets))} == {}


def test_a_deleted_private_key_is_gone_from_the_database_file(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    kept, deleted = [zone.wait_active(zone.create(key_type=key_type)["id"])["id"] for key_type in ("p256v1", "rsa2048")]

    def sealed(csr_id):
        with closing(sqlite3.connect(f"file:{csrd.data_dir}/csrd.db?mode=ro", uri=True)) as database:
            return database.execute("SELECT sealed_private_key FROM custom_csrs WHERE id = ?", [csr_id]).fetchone()[0]

    blobs = {csr_id: sealed(csr_id) for csr_id in (kept, deleted)}
    assert zone.request("DELETE", f"/{deleted}").status == 200
    assert csrd.stop() == 0
    # Moves what may still be in the write-ahead log into the database, and empties it.
    with closing(sqlite3.connect(csrd.data_dir / "csrd.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = b"".join(database_files(csrd.data_dir).values())
    # Long values are cut into pages: pieces are looked for.
    pieces = {csr_id: [blob[n : n + 32] for n in range(0, len(blob) - 32, 32)] for csr_id, blob in blobs.items()}
    assert any(piece in content for piece in pieces[kept])
    assert not any(piece in content for piece in pieces[deleted])


def test_only_the_owner_may_read_the_data_directory_and_the_keys(new_csrd):
    csrd = new_csrd().start()
    mode = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [csrd.data_dir, *csrd.data_dir.iterdir()]}
    assert mode["data"] == 0o700
    assert mode["master.key"] == 0o600
    assert mode["signing.key"] == 0o600


def test_the_master_key_is_one_line_of_base64(new_csrd):
    csrd = new_csrd()
    csrd.ok("keys", "init")
    content = (csrd.data_dir / "master.key").read_text()
    assert content.count("\n") == 1 and content.endswith("\n")
    assert len(base64.b64decode(content.removesuffix("\n"), validate=True)) == 32


@pytest.mark.parametrize("command", [["serve"], ["worker"], ["migrate"], ["zone", "grant"], ["token", "issue"]], ids=" ".join)
def test_the_help_shows_no_value_of_a_setting(command):
    shown = run(*command, "--help").stdout
    variables = set(re.findall(r"\[env:\s+(CSRD_\w+)", shown))
    assert "CSRD_DATABASE_URL" in variables
    done = run(*command, "--help", env=dict.fromkeys(variables, "postgres://me:hushhush@db.example/csrd"))
    assert (done.returncode, done.stdout) == (0, shown)
