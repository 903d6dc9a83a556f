"""Sealed records that somebody who can write to the database moves or changes: none opens in another place, and the commands say so."""

import base64
import os
import shutil
import sqlite3
from contextlib import closing

import pytest
from attack import chance
from ca import Authority, Certificates, active
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_csr
from harness import Csrd, Tenant, subject, wait_until
from test_secrets import PRIVATE_KEY_MARKS, find_secrets

ROOT = Authority("Root of the sealed records")


class Vault:
    """A data directory with records of two zones and an account, and what may be done to a copy of it."""

    def __init__(self, directory, original: "Vault | None" = None):
        self.csrd = Csrd(directory, "--key-pool-size", "2")
        if original:
            shutil.copytree(original.csrd.data_dir, self.csrd.data_dir)
            self.__dict__ |= {name: value for name, value in original.__dict__.items() if name != "csrd"}
            return
        self.csrd.start()
        self.zone, self.other, self.account = self.csrd.tenant(), self.csrd.tenant(), self.csrd.tenant("account")
        self.a, self.b, self.foreign = active(self.zone)["id"], active(self.zone)["id"], active(self.other)["id"]
        self.of_account, self.rsa = active(self.account)["id"], active(self.zone, key_type="rsa2048")["id"]
        self.total = 5
        row = self.zone.get(self.a)
        self.certificate = Certificates(self.zone).upload(self.a, ROOT.issue(row["csr"]) + ROOT.pem)["id"]
        wait_until(lambda: self.sql("SELECT count(*) FROM pool_keys WHERE lease_id IS NULL") == [(2,)], "the key pool is full", 120)
        assert self.csrd.stop() == 0

    def sql(self, *statements: str, parameters: tuple = ()) -> list[tuple]:
        with closing(sqlite3.connect(self.csrd.data_dir / "csrd.db", timeout=15)) as database, database:
            # As somebody would who writes into the file itself.
            database.execute("PRAGMA foreign_keys = OFF")
            return [database.execute(statement, parameters).fetchall() for statement in statements][-1]

    def set(self, csr_id: str, **columns) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        self.sql(f"UPDATE custom_csrs SET {assignments} WHERE id = ?", parameters=(*columns.values(), csr_id))

    def get(self, csr_id: str, column: str):
        return self.sql(f"SELECT {column} FROM custom_csrs WHERE id = ?", parameters=(csr_id,))[0][0]

    def exchange(self, first: str, second: str, *columns: str) -> None:
        """Exchanges columns of two rows; no two rows may have the same public key, not even for a moment."""
        values = {csr_id: {column: self.get(csr_id, column) for column in columns} for csr_id in (first, second)}
        if "spki_sha256" in columns:
            self.set(second, spki_sha256=os.urandom(32))
        self.set(first, **values[second])
        self.set(second, **values[first])

    def check_names(self, *broken: str) -> None:
        """`keys check` finds just these."""
        done = self.csrd.run("keys", "check")
        said = done.stdout + done.stderr
        assert done.returncode == 1 and f"{len(broken)} of {self.total}" in said and "panicked" not in said, done
        named = {csr_id for csr_id in (self.a, self.b, self.foreign, self.of_account, self.rsa, *broken) if csr_id in said}
        assert named == set(broken), done
        assert not find_secrets(said.encode(), PRIVATE_KEY_MARKS)

    def check_whole(self) -> None:
        assert f"all {self.total} sealed records" in self.csrd.ok("keys", "check")

    def refuses_export(self, directory, *options: str) -> str:
        done = self.csrd.run("certificate", "export", self.certificate, "--out", str(directory), *options)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "panicked" not in done.stderr, done
        written = [path for path in directory.rglob("*") if path.is_file()] if directory.exists() else []
        assert not any(path.suffix == ".pem" for path in written), written
        assert not any(find_secrets(path.read_bytes(), PRIVATE_KEY_MARKS) for path in written)
        return done.stderr


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    vault = Vault(tmp_path_factory.mktemp("vault"))
    yield vault
    vault.csrd.close()


@pytest.fixture
def vault(original, tmp_path):
    vault = Vault(tmp_path / "vault", original)
    vault.check_whole()
    yield vault
    vault.csrd.close()


def test_a_record_opens_where_it_belongs(vault, tmp_path):
    """Else the rest would prove nothing."""
    assert vault.csrd.ok("certificate", "export", vault.certificate, "--out", str(tmp_path / "out")) is not None
    key = load_pem_private_key(next((tmp_path / "out").rglob("privkey.pem")).read_bytes(), None)
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    csr = load_pem_x509_csr(vault.get(vault.a, "csr_pem").encode())
    assert key.public_key().public_bytes(*spki) == csr.public_key().public_bytes(*spki)


RECORD = ("sealed_private_key",)
WITH_KEY = ("sealed_private_key", "spki_sha256")
ALL = ("sealed_private_key", "spki_sha256", "csr_pem")


@pytest.mark.parametrize("columns", [RECORD, WITH_KEY, ALL], ids=["record", "record and public key", "record, public key and CSR"])
@pytest.mark.parametrize("other", ["b", "foreign", "of_account", "rsa"])
def test_a_record_of_another_row_does_not_open(vault, tmp_path, other, columns):
    """Of the same zone, of another zone, of an account, of another kind of key."""
    second = getattr(vault, other)
    vault.exchange(vault.a, second, *columns)
    vault.check_names(vault.a, second)
    vault.refuses_export(tmp_path / "out")
    vault.exchange(vault.a, second, *columns)
    vault.check_whole()


def test_a_record_whose_row_is_another_tenants_does_not_open(vault, tmp_path):
    vault.set(vault.a, scope=f"zones/{vault.other.id}")
    vault.check_names(vault.a)
    vault.refuses_export(tmp_path / "zone")
    vault.set(vault.a, scope=f"accounts/{vault.zone.id}")
    vault.check_names(vault.a)
    vault.refuses_export(tmp_path / "account")


def test_a_record_whose_row_has_another_id_or_public_key_does_not_open(vault, tmp_path):
    spki = vault.get(vault.a, "spki_sha256")
    vault.set(vault.a, spki_sha256=bytes([spki[0] ^ 1]) + spki[1:])
    vault.check_names(vault.a)
    vault.refuses_export(tmp_path / "key")
    renamed = vault.a[:-1] + ("0" if vault.a[-1] != "0" else "1")
    vault.set(vault.a, spki_sha256=spki, id=renamed)
    vault.sql("UPDATE custom_certificates SET custom_csr_id = ?", parameters=(renamed,))
    vault.check_names(renamed)
    vault.refuses_export(tmp_path / "id")


def test_a_record_of_the_key_pool_is_no_record_of_a_custom_csr(vault, tmp_path):
    ((record, spki),) = vault.sql("SELECT sealed_private_key, spki_sha256 FROM pool_keys LIMIT 1")
    vault.set(vault.a, sealed_private_key=record, spki_sha256=spki)
    vault.check_names(vault.a)
    vault.refuses_export(tmp_path / "out")


def test_a_record_of_a_custom_csr_in_the_key_pool_is_used_for_nobody(vault):
    """Another tenant's key would be handed out a second time."""
    records = [(vault.get(csr_id, "sealed_private_key"), vault.get(csr_id, "spki_sha256")) for csr_id in (vault.rsa, vault.foreign)]
    vault.csrd.start()
    wait_until(lambda: vault.sql("SELECT count(*) FROM pool_keys WHERE lease_id IS NULL") == [(2,)], "the key pool is full", 120)
    ids = [pool_id for (pool_id,) in vault.sql("SELECT id FROM pool_keys")]
    for pool_id, (record, spki) in zip(ids, records, strict=False):
        vault.sql("UPDATE pool_keys SET sealed_private_key = ?, spki_sha256 = ? WHERE id = ?", parameters=(record, spki, pool_id))
    zone = Tenant(vault.csrd, "zone", vault.zone.id, vault.zone.token)
    made = [zone.wait_active(zone.create(key_type="rsa2048")["id"], 120) for _ in range(4)]
    taken = {bytes(spki) for _, spki in records}
    assert not any(vault.get(row["id"], "spki_sha256") in taken for row in made)
    assert vault.csrd.is_up("/health/ready") and "panicked" not in vault.csrd.log()
    vault.total += 4
    vault.check_whole()


def test_a_certificate_that_points_at_another_custom_csr_is_not_exported(vault, tmp_path):
    for other in (vault.foreign, vault.of_account, vault.b, vault.rsa):
        vault.sql("UPDATE custom_certificates SET custom_csr_id = ?", parameters=(other,))
        vault.refuses_export(tmp_path / "out")
    # The records are as they were.
    vault.check_whole()


def test_a_certificate_whose_chain_was_changed_is_not_exported(vault, tmp_path):
    ((chain,),) = vault.sql("SELECT chain_pem FROM custom_certificates")
    stranger, other = Authority("A stranger"), vault.get(vault.foreign, "csr_pem")
    for number, changed in enumerate([stranger.pem, ROOT.issue(other) + ROOT.pem, ROOT.pem + chain, "", "text", chain + "text\n", "text\n" + chain, chain[:100], chain.replace("CERTIFICATE", "PRIVATE KEY")]):
        vault.sql("UPDATE custom_certificates SET chain_pem = ?", parameters=(changed,))
        vault.refuses_export(tmp_path / f"out {number}")
    vault.check_whole()


def test_no_bit_of_a_record_can_be_flipped_nor_a_byte_be_left_out_or_added(vault, tmp_path):
    """The version, the ID of the master key, the wrapped data key, the nonce, the ciphertext and the tag."""
    random = chance("sealed bits")
    vault.csrd.start()
    zone = Tenant(vault.csrd, "zone", vault.zone.id, vault.zone.token)
    made = [zone.create(**subject())["id"] for _ in range(72)]
    for csr_id in made:
        zone.wait_active(csr_id)
    assert vault.csrd.stop() == 0
    vault.total += len(made)
    vault.check_whole()
    parts = [(0, 1), (1, 9), (9, 49), (49, 61), (61, -16), (-16, 0)]
    for number, csr_id in enumerate(made):
        record = bytearray(vault.get(csr_id, "sealed_private_key"))
        if number < 60:
            begin, end = parts[number % len(parts)]
            place = random.randrange(begin % len(record), (end or len(record)) % len(record) or len(record))
            record[place] ^= 1 << random.randrange(8)
        else:
            match number % 4:
                case 0:
                    record = record[: random.randrange(len(record))]
                case 1:
                    record += random.randbytes(random.randint(1, 40))
                case 2:
                    del record[random.randrange(len(record))]
                case 3:
                    record = record * 2
        vault.set(csr_id, sealed_private_key=bytes(record))
    done = vault.csrd.run("keys", "check")
    assert done.returncode == 1 and f"{len(made)} of {vault.total}" in done.stdout + done.stderr, done
    # The one of the certificate, bit by bit of a few places.
    good = vault.get(vault.a, "sealed_private_key")
    for number, place in enumerate([0, 4, 20, 50, 70, len(good) - 1]):
        vault.set(vault.a, sealed_private_key=good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        vault.refuses_export(tmp_path / f"out {number}")


def master_keys(right: bytes) -> dict[str, bytes]:
    key = base64.b64decode(right)
    flipped = bytes([key[0] ^ 1]) + key[1:]
    return {
        "another": base64.b64encode(os.urandom(32)) + b"\n", "one bit off": base64.b64encode(flipped) + b"\n", "zeros": base64.b64encode(bytes(32)) + b"\n",
        "doubled": right + right, "two on one line": right.strip() * 2 + b"\n", "of 31 bytes": base64.b64encode(key[:31]) + b"\n", "of 33 bytes": base64.b64encode(key + b"x") + b"\n",
        "of 64 bytes": base64.b64encode(key + key) + b"\n", "raw": key, "hexadecimal": key.hex().encode() + b"\n", "empty": b"", "a newline": b"\n", "cut": right[:20],
        "base64url": base64.urlsafe_b64encode(b"\xff" * 32) + b"\n", "quoted": b'"' + right.strip() + b'"\n', "text after it": right.strip() + b" x\n",
    }  # fmt: skip


NAMES = list(master_keys(base64.b64encode(bytes(range(32))) + b"\n"))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_master_key_opens_nothing_and_changes_nothing(vault, tmp_path, name):
    path = vault.csrd.data_dir / "master.key"
    right = path.read_bytes()
    before = vault.sql("SELECT * FROM custom_csrs ORDER BY id"), vault.sql("SELECT * FROM master_keys")
    path.write_bytes(master_keys(right)[name])
    wrong = path.read_bytes()
    done = vault.csrd.run("keys", "check")
    assert done.returncode == 1 and "panicked" not in done.stderr and "all " not in done.stdout, done
    vault.refuses_export(tmp_path / "out")
    done = vault.csrd.run("serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 1 and "master" in done.stderr.splitlines()[-1] and "panicked" not in done.stderr, done
    assert path.read_bytes() == wrong and (vault.sql("SELECT * FROM custom_csrs ORDER BY id"), vault.sql("SELECT * FROM master_keys")) == before
    for text in (right.strip(), base64.b64decode(right).hex().encode()):
        assert text not in done.stderr.encode()
    # The right one opens all of it again.
    path.write_bytes(right)
    vault.check_whole()


def test_reads_go_on_while_no_record_opens(vault):
    vault.sql("UPDATE custom_csrs SET sealed_private_key = zeroblob(200)")
    vault.csrd.start()
    zone = Tenant(vault.csrd, "zone", vault.zone.id, vault.zone.token)
    assert zone.get(vault.a)["status"] == "active" and len(zone.all()) == 3
    zone.wait_active(zone.create()["id"])
    assert zone.request("DELETE", f"/{vault.b}").status == 200
    assert "panicked" not in vault.csrd.log()
