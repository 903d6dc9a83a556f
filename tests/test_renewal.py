"""Renewal policies: what is due is told once, with a CSR and a link, whatever is killed, and what comes back takes the place of the old one."""

import json
import subprocess
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import httpx
from ca import Authority, Certificates, active
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from databases import either, new_service  # noqa: F401
from harness import Csrd, Tenant, binary, codes, environment, faults, wait_until
from test_clocks import Clock
from test_faults import Worker, new_cluster, postgres  # noqa: F401
from test_webhooks import DAY, LEAN, Receiver, authority, ca_file, hook, new_receiver  # noqa: F401

PUBLIC_URL = "https://csrd.platform.example"
DUE = "custom_certificate.renewal_due"


def policy(zone: Tenant, method: str, body: dict | None = None, **arguments):
    path = zone.path.replace("custom_csrs", "renewal_policy")
    arguments.setdefault("token", zone.token)
    return zone.service.request(method, path, **({} if body is None else {"json": body}), **arguments)


def listening(receiver: Receiver) -> list[tuple[str, dict]]:
    """The IDs and bodies of what comes: a receiver whose clock stays would refuse what comes from next month."""
    told = []
    receiver.take = lambda headers, body, _status: told.append((headers["webhook-id"], json.loads(body)))
    return told


def of_renewals(told: list[tuple[str, dict]]) -> list[dict]:
    """The data of each event once: a webhook is told at least once."""
    seen = {}
    for event_id, event in list(told):
        if event["type"] == DUE:
            seen.setdefault(event_id, event["data"])
    return list(seen.values())


def spki(pem: str | bytes) -> bytes:
    pem = pem.encode() if isinstance(pem, str) else pem
    return x509.load_pem_x509_certificate(pem).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def bring(service: Csrd, url: str, certificate: str) -> httpx.Response:
    """As a browser sends the form of a hand-over link."""
    assert url.startswith(f"{PUBLIC_URL}/handover/"), url
    return httpx.post(service.url + url.removeprefix(PUBLIC_URL), files={"certificate": (None, certificate)}, trust_env=False, timeout=30)


def test_a_policy_is_set_read_and_deleted_and_every_fault_has_its_code(either):  # noqa: F811
    zone = either.tenant()
    assert codes(policy(zone, "GET").envelope) == codes(policy(zone, "DELETE").envelope) == [1512]
    made = policy(zone, "PUT", {"key": "new"}).result
    assert (made["zone_id"], made["key"], made["at"]) == (zone.id, "new", 1 / 3)
    changed = policy(zone, "PUT", {"key": "REUSE", "at": 0.25}).result
    assert (changed["key"], changed["at"], changed["created_at"]) == ("reuse", 0.25, made["created_at"])
    assert policy(zone, "GET").result == changed
    for body, expected in [
        ({}, [(1510, "/key")]),
        ({"key": "both", "at": 1}, [(1510, "/key"), (1511, "/at")]),
        ({"key": "new", "at": 0}, [(1511, "/at")]),
        ({"key": "new", "at": "0.5"}, [(1400, "/at")]),
    ]:
        assert faults(policy(zone, "PUT", body).envelope) == expected, body
    reader = either.token("--zone", zone.id, "--scope", "custom_certificates:read")
    assert policy(zone, "GET", token=reader).result == changed
    for method, body in (("PUT", {"key": "new"}), ("DELETE", None)):
        assert codes(policy(zone, method, body, token=reader).envelope) == [1404], method
        assert codes(policy(zone, method, body, token=either.tenant().token).envelope) == [1404], method
    assert policy(zone, "DELETE").result == {"zone_id": zone.id}
    assert codes(policy(zone, "GET").envelope) == [1512]
    entries = [json.loads(line) for line in either.ok("audit", "--zone", zone.id).splitlines()]
    actions = [entry["action"] for entry in entries if entry["resource"] == f"renewal_policy/{zone.id}"]
    assert actions == ["edit", "edit", "delete"]


YEAR, LIFE = 365, 47


def test_a_year_of_a_47_day_certificate(new_csrd, new_receiver, tmp_path):  # noqa: F811
    clock, authority = Clock(tmp_path, 0), Authority()  # noqa: F811
    arguments = ("--outbound-allow-private", "--sweep-interval", "1s", "--public-url", PUBLIC_URL, "--workers", "2", *LEAN)
    csrd = new_csrd(*arguments, env=clock.env).start()
    zone = csrd.tenant(quota=2)
    zone.token = csrd.token("--zone", zone.id, "--ttl", "500d")
    receiver = new_receiver(tls=False)
    told = listening(receiver)
    hook(zone, receiver)
    certificates, day = Certificates(zone), 0.0

    def issued(csr: dict) -> str:
        # By the service's clock.
        return authority.issue(csr["csr"], begins=timedelta(days=day) - timedelta(seconds=60), ends=timedelta(days=day + LIFE))

    csr = active(zone)
    pem = issued(csr)
    stored = certificates.upload(csr["id"], pem)
    assert (stored["renewal"], stored["renew_after"]) == ("none", None)
    policy(zone, "PUT", {"key": "new"})
    root = tmp_path / "exports"
    command = [binary(), "certificate", "sync", "--data-dir", csrd.data_dir, "--out-root", root, "--every", "100ms", "--exec", "echo $CSRD_DIR >> renewed"]
    with (tmp_path / "sync.log").open("w") as log:
        sync = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=environment(**clock.env))
    exported = root / stored["id"]

    def is_exported(pem: str) -> bool:
        chain = exported / "fullchain.pem"
        return chain.exists() and chain.read_text() == pem

    try:
        wait_until(lambda: is_exported(pem), "the certificate is exported", 60)
        keys, renewals = [spki(pem)], 0
        while day + LIFE * 2 / 3 < YEAR:
            day, renewals, ends = day + LIFE * 2 / 3 + 0.1, renewals + 1, day + LIFE
            clock.set(int(day * DAY))
            # Now or a moment later: between any two steps.
            time.sleep(0.15 * (renewals % 4))
            csrd.kill()
            csrd.start(ready=False)
            wait_until(lambda: len(of_renewals(told)) >= renewals, f"renewal {renewals} is told of", 60)  # noqa: B023
            data = of_renewals(told)[-1]
            assert (data["id"], data["renewal"], data["custom_csr_id"]) == (stored["id"], "csr_ready", csr["id"]), data
            new = zone.get(data["custom_csr"]["id"])
            assert new["status"] == "active" and new["replaces"] == csr["id"]
            assert {name: value for name, value in new.items() if name != "csr"} == data["custom_csr"]
            assert certificates.get(stored["id"])["renewal"] == "csr_ready"
            pem = issued(new)
            if renewals % 2:
                answer = bring(csrd, data["handover_url"], pem)
                assert answer.status_code == 201, answer.text
                assert bring(csrd, data["handover_url"], pem).status_code == 410
            else:
                assert certificates.patch(stored["id"], certificate=pem, custom_csr_id=new["id"]).status == 200
            csrd.kill()
            csrd.start(ready=False)
            now = certificates.get(stored["id"])
            assert (now["renewal"], now["custom_csr_id"], now["status"]) == ("done", new["id"], "active")
            assert day < ends, "there is no gap"
            wait_until(lambda: is_exported(pem), "the export follows", 60)  # noqa: B023
            assert zone.request("DELETE", f"/{csr['id']}").status == 200, "the custom CSR that was replaced is free"
            csr = new
            keys.append(spki(pem))
        assert renewals >= 8 and len(set(keys)) == len(keys) == renewals + 1, "no key is used again"
        assert [row["id"] for row in certificates.all()] == [stored["id"]], "in its place"
    finally:
        sync.terminate()
        ended = sync.wait(30)
    assert ended == 0
    # Nothing more comes.
    csrd.stop()
    csrd.start()
    wait_until(lambda: not [one for one in deliveries_of(zone) if one["status"] == "pending"], "all is delivered", 60)
    counted = Counter(data["custom_csr"]["id"] for data in of_renewals(told))
    assert len(counted) == renewals and set(counted.values()) == {1}, counted
    commands = (tmp_path / "renewed").read_text().splitlines()
    assert commands == [str(exported)] * (renewals + 1), "the command ran once for each"
    assert "PRIVATE" not in (tmp_path / "sync.log").read_text()


def deliveries_of(zone: Tenant) -> list[dict]:
    path = zone.path.replace("custom_csrs", "webhooks")
    (made,) = zone.service.request("GET", path, token=zone.token).result
    return zone.service.request("GET", f"{path}/{made['id']}/deliveries", token=zone.token).result


CERTIFICATES = 12


def test_the_certificate_that_is_to_be_renewed_does_not_end_the_link_that_renews_it(new_csrd, new_receiver):  # noqa: F811
    csrd = new_csrd("--public-url", PUBLIC_URL, "--outbound-allow-private", "--sweep-interval", "1s", *LEAN).start()
    zone, receiver, authority = csrd.tenant(), new_receiver(tls=False), Authority()  # noqa: F811
    hook(zone, receiver, DUE)
    policy(zone, "PUT", {"key": "reuse", "at": 0.5})
    csr, certificates = active(zone), Certificates(zone)
    old = authority.issue(csr["csr"], begins=timedelta(days=-80), ends=timedelta(days=10))
    stored = certificates.upload(csr["id"], old)
    url = wait_until(lambda: receiver.of(DUE), "the renewal is told of", 60)[0]["handover_url"]
    # It has the same key: whoever picks the wrong file is told so, and still has the link.
    for again in (old, old + authority.pem):
        refused = bring(csrd, url, again)
        assert refused.status_code == 422 and "stored already" in refused.text and "bring the new one" in refused.text
    assert certificates.get(stored["id"])["renewal"] == "csr_ready"
    assert bring(csrd, url, authority.issue(csr["csr"])).status_code == 201
    assert certificates.get(stored["id"])["renewal"] == "done"


def test_renewals_go_on_while_workers_are_killed_and_each_is_told_once(new_cluster, new_receiver):  # noqa: F811
    cluster = new_cluster(apis=1, workers=0)
    cluster.apis[0].stop()
    cluster.apis[0].arguments += ["--outbound-allow-private"]
    cluster.apis[0].start()
    cluster.worker_env |= {"CSRD_OUTBOUND_ALLOW_PRIVATE": "true", "CSRD_PUBLIC_URL": PUBLIC_URL, "CSRD_KEY_POOL_SIZE": "0"}
    cluster.workers = [Worker(cluster, f"first{number}") for number in range(2)]
    wait_until(lambda: all(worker.is_ready() for worker in cluster.workers), "the workers are ready", 120)
    zone, receiver, authority = cluster.apis[0].tenant(quota=CERTIFICATES * 2), new_receiver(tls=False), Authority()  # noqa: F811
    told = listening(receiver)
    hook(zone, receiver, DUE)
    certificates = Certificates(zone)
    made = [zone.create()["id"] for _ in range(CERTIFICATES)]
    stored = [certificates.upload(csr, authority.issue(zone.wait_active(csr)["csr"], begins=-timedelta(days=40), ends=timedelta(days=7))) for csr in made]
    policy(zone, "PUT", {"key": "new", "at": 0.5})
    for wanted in range(2, CERTIFICATES, 3):
        wait_until(lambda: len(of_renewals(told)) >= wanted, f"{wanted} are told of", 120)  # noqa: B023
        cluster.replace(cluster.workers[0])
    wait_until(lambda: len(of_renewals(told)) >= CERTIFICATES, "all are told of", 120)
    data = of_renewals(told)
    assert sorted(one["id"] for one in data) == sorted(one["id"] for one in stored), "each once"
    rekeyed = {row["replaces"]: row["id"] for row in zone.all() if row["replaces"]}
    assert zone.total() == CERTIFICATES * 2 and sorted(rekeyed) == sorted(made), "no custom CSR was made twice"
    assert {one["custom_csr_id"]: one["custom_csr"]["id"] for one in data} == rekeyed
    # The quota is used up: the next one is told so.
    other = certificates.upload(made[0], authority.issue(zone.get(made[0])["csr"], begins=-timedelta(days=40), ends=timedelta(days=6)))
    wait_until(lambda: len(of_renewals(told)) > CERTIFICATES, "the refusal is told of", 120)
    refused = of_renewals(told)[-1]
    assert (refused["id"], refused["renewal"], refused["custom_csr"]) == (other["id"], "due", None) and "quota" in refused["renewal_error"]
