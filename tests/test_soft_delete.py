"""`--delete-grace`: a deleted custom CSR is hidden, comes back or is destroyed."""

import json
import re
import signal
import sqlite3
from contextlib import closing

import pytest
from ca import Authority, Certificates, active
from databases import new_service  # noqa: F401
from harness import codes, subject, wait_until
from test_erase import erase, sha256_of
from test_secrets import database_files

CA = Authority("CA of what is deleted")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def patient(request, new_service):  # noqa: F811
    """A service on each database that keeps what is deleted for an hour."""
    return new_service(request.param, "--delete-grace", "1h")


def quota_used(tenant) -> int:
    return tenant.request("GET", "/quota").result["used"]


def test_a_deleted_custom_csr_is_found_nowhere_until_it_is_restored(patient):
    zone = patient.tenant()
    certificates = Certificates(zone)
    body = subject()
    made = zone.request("POST", json=body, headers={"Idempotency-Key": "one"}).result
    there, other = zone.wait_active(made["id"]), active(zone)
    answer = zone.request("DELETE", f"/{there['id']}")
    assert answer.status == 200 and answer.result == {"id": there["id"]}
    (hint,) = answer.envelope["messages"]
    assert hint["code"] == 2100 and re.search(r"Until \d{4}-\S+Z, POST /api/v4/zones/\S+/restore brings it back", hint["message"])

    one = f"/{there['id']}"
    refused = [
        zone.request("GET", one), zone.request("DELETE", one), zone.request("PATCH", one, json={"name": "n"}), zone.request("POST", f"{one}/rekey"),
        zone.request("POST", json=body, headers={"Idempotency-Key": "one"}),
    ]  # fmt: skip
    assert [codes(answer.envelope) for answer in refused] == [[1419]] * 5
    assert [row["id"] for row in zone.all()] == [other["id"]] and zone.total() == 1 and quota_used(zone) == 2
    chain = CA.issue(there["csr"])
    assert codes(certificates.post(certificate=chain, custom_csr_id=there["id"]).envelope) == [1431]
    assert codes(certificates.post(certificate=chain).envelope) == [1472]

    stranger = patient.tenant()
    assert codes(stranger.request("POST", f"{one}/restore").envelope) == [1419]
    assert codes(zone.request("POST", f"{one}/restore", token=stranger.token).envelope) == [1404]
    restored = zone.request("POST", f"{one}/restore")
    assert restored.status == 200 and restored.result == there and restored.envelope["messages"] == []
    assert zone.request("POST", f"{one}/restore").result == there, "one that is there stays as it is"
    assert zone.get(there["id"]) == there and zone.total() == 2
    replayed = zone.request("POST", json=body, headers={"Idempotency-Key": "one"})
    assert replayed.result == there and replayed.headers["Idempotent-Replayed"] == "true"
    stored = certificates.upload(there["id"], chain)
    assert codes(zone.request("DELETE", one).envelope) == [1420] and codes(zone.request("DELETE", f"{one}?now=true").envelope) == [1420]
    patient.ok("certificate", "export", stored["id"], "--out", str(patient.directory / f"tls-{zone.id}"))

    actions = [json.loads(line)["action"] for line in patient.ok("audit", "--zone", zone.id).splitlines()]
    assert [action for action in actions if action in ("delete", "restore", "purge")] == ["delete", "restore"]


def test_it_is_destroyed_at_once_on_request_also_when_it_was_deleted_before(patient):
    zone = patient.tenant(quota=2)
    first, second = active(zone), zone.create()
    assert zone.request("DELETE", f"/{first['id']}?now=false").status == 200
    refused = zone.request("POST", json=subject())
    assert codes(refused.envelope) == [1465] and "deleted ones that can still be restored" in refused.envelope["messages"][0]["message"]
    for query in ("now=", "now=1", "now=yes", "now=true&now=false"):
        answer = zone.request("DELETE", f"/{second['id']}?{query}")
        assert codes(answer.envelope) == [1464] and answer.envelope["errors"][0]["source"] == {"parameter": "now"}, query
        assert codes(zone.request("DELETE", f"/{first['id']}?{query}").envelope) == [1419], query
    for one in (first, second):
        answer = zone.request("DELETE", f"/{one['id']}?now=true")
        assert answer.status == 200 and answer.envelope["messages"] == []
        assert codes(zone.request("DELETE", f"/{one['id']}?now=true").envelope) == [1419]
        assert codes(zone.request("POST", f"/{one['id']}/restore").envelope) == [1419]
    assert quota_used(zone) == 0
    assert codes(zone.request("POST", "/nonsense/restore").envelope) == [1418]
    patient.ok("zone", "revoke", zone.id)
    assert codes(zone.request("POST", f"/{first['id']}/restore").envelope) == [1404]


def test_an_erased_tenant_leaves_nothing_hidden(patient):
    zone, other = patient.tenant(), patient.tenant()
    hidden, there, kept = active(zone), active(zone), active(other)
    for tenant, one in ((zone, hidden), (other, kept)):
        assert tenant.request("DELETE", f"/{one['id']}").status == 200
    receipt = erase(patient, "--zone", zone.id)
    expected = {"custom_csrs": 2, "custom_certificates": 0, "ids_sha256": sha256_of(hidden["id"], there["id"])}
    assert receipt.items() >= expected.items() and quota_used(zone) == 0
    assert patient.sql(f"SELECT COUNT(*) FROM hidden_custom_csrs WHERE scope = 'zones/{zone.id}'")[0][0] in (0, "0")
    assert other.request("POST", f"/{kept['id']}/restore").result == kept


def test_hidden_keys_are_sealed_anew_with_all_others(patient):
    zone = patient.tenant()
    there = active(zone)
    assert zone.request("DELETE", f"/{there['id']}").status == 200
    old = {row["id"] for row in map(json.loads, patient.ok("keys", "status", "--json").splitlines())}
    (new,) = set(re.findall(r"master-([0-9a-f]{16})\.key", patient.ok("keys", "new")))
    patient.process.send_signal(signal.SIGHUP)
    wait_until(lambda: patient.run("keys", "use", new).returncode == 0, "the service has the new master key")
    patient.ok("keys", "reseal")
    for key_id in old:
        patient.ok("keys", "retire", key_id)
    patient.ok("keys", "check")
    assert zone.request("POST", f"/{there['id']}/restore").result == there
    stored = Certificates(zone).upload(there["id"], CA.issue(there["csr"]))
    patient.ok("certificate", "export", stored["id"], "--out", str(patient.directory / f"tls-{zone.id}"))


def test_what_was_hidden_is_gone_from_the_database_file_once_it_is_destroyed(new_csrd):
    csrd = new_csrd("--delete-grace", "1s", "--sweep-interval", "1s").start()
    zone, other = csrd.tenant(), csrd.tenant()
    # One that is destroyed in its time, one by an erasure, and one that stays.
    swept, erased, kept = active(zone, key_type="rsa2048"), active(other, key_type="rsa2048"), active(csrd.tenant())

    def pieces(csr_id: str) -> list[bytes]:
        """Of a sealed key; long values are cut into pages."""
        with closing(sqlite3.connect(f"file:{csrd.data_dir}/csrd.db?mode=ro", uri=True)) as database:
            (blob,) = database.execute("SELECT sealed_private_key FROM custom_csrs WHERE id = ?", [csr_id]).fetchone()
        return [blob[at : at + 32] for at in range(0, len(blob) - 32, 32)]

    gone, there = pieces(swept["id"]) + pieces(erased["id"]), pieces(kept["id"])
    assert zone.request("DELETE", f"/{swept['id']}").status == 200
    assert other.request("DELETE", f"/{erased['id']}").status == 200
    erase(csrd, "--zone", other.id)
    wait_until(lambda: quota_used(zone) == 0, "the sweep destroys it")
    assert codes(zone.request("POST", f"/{swept['id']}/restore").envelope) == [1419]
    (entry,) = [json.loads(line) for line in csrd.ok("audit", "--zone", zone.id, "--action", "purge").splitlines()]
    assert (entry["who"], entry["via"], entry["resource"]) == ("sweep", "worker", f"custom_csr/{swept['id']}")
    assert csrd.stop() == 0
    with closing(sqlite3.connect(csrd.data_dir / "csrd.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files, log = b"".join(database_files(csrd.data_dir).values()), csrd.log_path.read_bytes()
    assert any(piece in files for piece in there)
    assert not any(piece in files or piece in log or piece.hex().encode() in log for piece in gone)
