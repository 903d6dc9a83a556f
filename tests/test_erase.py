"""`csrd erase`: everything of a tenant goes, nothing of others, and a receipt says what."""

import hashlib
import json
import sqlite3
import subprocess
from contextlib import closing

from ca import Authority, Certificates, active
from databases import either, new_service  # noqa: F401
from harness import binary, codes, environment, run, subject, wait_until
from test_secrets import database_files


def erase(csrd, *arguments: str) -> dict:
    receipt = json.loads(csrd.ok("erase", "--yes", *arguments))
    assert receipt.pop("erased_at").endswith("Z")
    return receipt


def sha256_of(*ids: str) -> str:
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(ids)).encode()).hexdigest()


def test_all_of_a_zone_is_destroyed_and_nothing_of_others(either):  # noqa: F811
    zone, other = either.tenant(), either.tenant()
    certificates, authority = Certificates(zone), Authority()
    first, second, kept = active(zone), active(zone), active(other)
    stored = certificates.upload(first["id"], authority.issue(first["csr"]))
    kept_certificate = Certificates(other).upload(kept["id"], authority.issue(kept["csr"]))

    receipt = erase(either, "--zone", zone.id)
    ids = [first["id"], second["id"], stored["id"]]
    assert receipt == {"zone": zone.id, "custom_csrs": 2, "custom_certificates": 1, "handovers": 0, "ids_sha256": sha256_of(*ids)}
    assert zone.request("GET").result == [] and certificates.all() == []
    entries = [json.loads(line) for line in either.ok("audit", "--zone", zone.id, "--action", "delete").splitlines()]
    assert sorted(entry["resource"].split("/")[1] for entry in entries) == sorted(ids)

    assert Certificates(other).get(kept_certificate["id"])["status"] == "active"
    assert other.get(kept["id"])["status"] == "active"
    # Nothing new comes, and a repeat finds nothing.
    assert codes(zone.request("POST", json=subject()).envelope) == [1404]
    assert erase(either, "--zone", zone.id) == {"zone": zone.id, "custom_csrs": 0, "custom_certificates": 0, "handovers": 0, "ids_sha256": sha256_of()}


def test_what_uses_an_account_goes_with_it(either):  # noqa: F811
    account = either.tenant("account")
    zone = either.tenant()
    either.ok("zone", "grant", zone.id, "--account", account.id, "--quota", "5")
    shared, own = active(account), active(zone)
    authority, certificates = Authority(), Certificates(zone)
    stored = certificates.upload(shared["id"], authority.issue(shared["csr"]))
    kept = certificates.upload(own["id"], authority.issue(own["csr"]))

    receipt = erase(either, "--account", account.id)
    expected = {"account": account.id, "custom_csrs": 1, "custom_certificates": 1, "handovers": 0, "ids_sha256": sha256_of(shared["id"], stored["id"])}
    assert receipt == expected
    assert [row["id"] for row in certificates.all()] == [kept["id"]]
    assert zone.get(own["id"])["status"] == "active"


def test_it_asks_first_and_names_what_it_cannot_erase(either):  # noqa: F811
    zone = either.tenant()
    kept = active(zone)

    def answer(text: str) -> subprocess.CompletedProcess:
        command = [binary(), "erase", "--zone", zone.id, "--data-dir", either.data_dir]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, env=environment(**settings), check=False)

    settings = {name: value for name, value in either.env.items() if name.startswith("CSRD_")}
    for text in ("", "yes\n"):
        done = answer(text)
        assert done.returncode == 1 and done.stdout == "" and "nothing was erased" in done.stderr, done
        assert "1 custom CSRs" in done.stderr, done
    assert zone.get(kept["id"])["status"] == "active"
    done = answer(f"{zone.id}\n")
    assert done.returncode == 0 and json.loads(done.stdout)["custom_csrs"] == 1, done
    done = either.run("erase", "--yes", "--zone", "never-granted")
    assert done.returncode == 1 and "never granted" in done.stderr, done
    assert run("erase", "--yes").returncode == 2


def test_neither_the_database_nor_the_log_holds_what_was_destroyed(new_csrd):
    csrd = new_csrd().start()
    zone, other = csrd.tenant(), csrd.tenant()
    erased, kept = active(zone, key_type="rsa2048"), active(other)

    def sealed(csr_id: str) -> bytes:
        with closing(sqlite3.connect(f"file:{csrd.data_dir}/csrd.db?mode=ro", uri=True)) as database:
            return database.execute("SELECT sealed_private_key FROM custom_csrs WHERE id = ?", [csr_id]).fetchone()[0]

    def pieces(blob: bytes) -> list[bytes]:
        """Long values are cut into pages."""
        return [blob[at : at + 32] for at in range(0, len(blob) - 32, 32)]

    gone, there = pieces(sealed(erased["id"])), pieces(sealed(kept["id"]))
    assert erase(csrd, "--zone", zone.id)["custom_csrs"] == 1
    assert csrd.stop() == 0
    with closing(sqlite3.connect(csrd.data_dir / "csrd.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = b"".join(database_files(csrd.data_dir).values())
    assert any(piece in files for piece in there)
    log = csrd.log_path.read_bytes()
    assert not any(piece in files or piece in log or piece.hex().encode() in log for piece in gone)


def test_hand_over_links_go_with_their_custom_csr_and_are_counted(either):  # noqa: F811
    zone, other = either.tenant(), either.tenant()
    csr, kept = active(zone), active(other)
    links = [zone.request("POST", f"/{csr['id']}/handover").result for _ in range(2)]
    link = other.request("POST", f"/{kept['id']}/handover").result
    receipt = erase(either, "--zone", zone.id)
    ids = [csr["id"], *(link["id"] for link in links)]
    assert receipt == {"zone": zone.id, "custom_csrs": 1, "custom_certificates": 0, "handovers": 2, "ids_sha256": sha256_of(*ids)}
    assert [row[0] for row in either.sql("SELECT id FROM handovers WHERE scope IN " + f"('zones/{zone.id}', 'zones/{other.id}')")] == [link["id"]]


def test_what_the_webhooks_of_its_account_were_told_goes_with_a_zone(either):  # noqa: F811
    account, zone = either.tenant("account"), either.tenant()
    either.ok("zone", "grant", zone.id, "--account", account.id, "--quota", "5")
    webhooks = account.path.replace("custom_csrs", "webhooks")
    # Nobody takes them.
    body = {"url": "https://hooks.acme-widgets.example/", "events": ["*"]}
    hook = wait_until(lambda: either.request("POST", webhooks, token=account.token, json=body).result, "it is made")

    def told() -> list[str]:
        return [one["event"] for one in either.request("GET", f"{webhooks}/{hook['id']}/deliveries", token=account.token).result]

    csr = active(zone, sans=["erased.acme-widgets.com"])
    Certificates(zone).upload(csr["id"], Authority().issue(csr["csr"]))
    assert sorted(told()) == ["custom_certificate.uploaded", "custom_csr.active"]
    erase(either, "--zone", zone.id)
    assert told() == ["custom_certificate.deleted"]
