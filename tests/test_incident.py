"""`csrd incident`: many custom CSRs are rekeyed at once, each exactly once, whatever happens to the workers meanwhile."""

import concurrent.futures
import json
import os
import time
from contextlib import suppress
from datetime import timedelta

import pytest
from ca import Authority, Certificates, active
from databases import either, new_service  # noqa: F401
from harness import Tenant, codes, refused, subject, wait_until
from test_faults import Worker, new_cluster, postgres, public_keys  # noqa: F401
from test_webhooks import authority, ca_file, hook, new_receiver  # noqa: F401

# How many custom CSRs are rekeyed while workers are killed. The figures in benches/INCIDENT.md are of 10,000.
SIZE = int(os.environ.get("TEST_INCIDENT", "200"))
# Those that come with a certificate of their own; the others of a large test are copied in the database.
SEEDED = min(SIZE, 200)
ZONES = 4
WORKERS = 3
# Rekeys a second: slow enough that workers are killed throughout, fast enough to be over soon.
RATE = 25 if SIZE <= 1_000 else 150


def plan(csrd, *filters: str) -> dict:
    return json.loads(csrd.ok("incident", "plan", "--json", *filters))


def status(csrd, made: dict) -> dict:
    return json.loads(csrd.ok("incident", "status", made["id"], "--json"))


def rekeys(csrd, made: dict) -> list[dict]:
    return [json.loads(line) for line in csrd.ok("incident", "status", made["id"], "--list", "--json").splitlines()]


def settled(csrd, made: dict, seconds: float = 90) -> dict:
    """The plan once it is done and none of its keys is being made."""
    return wait_until(lambda: (shown := status(csrd, made))["status"] == "done" and shown["pending"] == 0 and shown, "the plan is done", seconds)


def used(csrd, tenant: Tenant) -> int:
    grants = [json.loads(line) for line in csrd.ok(tenant.kind, "list", "--json").splitlines()]
    return next(grant["used"] for grant in grants if grant["id"] == tenant.id)


def certified(tenant: Tenant, authority: Authority, **changes) -> tuple[dict, dict]:  # noqa: F811
    """A custom CSR and the certificate for it."""
    csr = active(tenant, **changes)
    return csr, Certificates(tenant).upload(csr["id"], authority.issue(csr["csr"]))


def test_a_plan_lists_what_fits_its_filters_and_start_rekeys_it_once_without_the_quota(either, tmp_path):  # noqa: F811
    bad, good = Authority("Bad Root", organization="Distrusted Trust"), Authority("Good Root", organization="Other CA")
    tenant, other = either.tenant(quota=2), either.tenant()
    shop, shop_certificate = certified(tenant, bad, sans=["shop.acme-widgets.com"])
    blog, blog_certificate = certified(tenant, good, sans=["blog.acme-widgets.com"])
    theirs, their_certificate = certified(other, bad, sans=["www.other-widgets.com"])
    assert codes(tenant.request("POST", json=subject()).envelope) == [1465]

    def found(*filters: str) -> set[str]:
        made = plan(either, *filters)
        assert made["custom_csrs"] == len({row["custom_csr"] for row in made["certificates"]})
        return {row["id"] for row in made["certificates"]} & {shop_certificate["id"], blog_certificate["id"], their_certificate["id"]}

    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    mine, all_three = {shop_certificate["id"], blog_certificate["id"]}, {shop_certificate["id"], blog_certificate["id"], their_certificate["id"]}
    of_bad = {shop_certificate["id"], their_certificate["id"]}
    assert found("--issuer", "distrusted TRUST") == of_bad
    assert found("--issuer", "Distrusted Trust", "--host", "*.acme-widgets.com") == {shop_certificate["id"]}
    assert found("--spki-file", file("root.pem", bad.pem)) == of_bad
    assert found("--spki-file", file("leaf.pem", Certificates(tenant).get(blog_certificate["id"])["chain"])) == {blog_certificate["id"]}
    assert found("--host", "*.acme-widgets.com") == mine
    assert found("--issued-before", "1h") == found("--key-age", "1h") == found("--issuer", "Nobody") == set()
    assert found("--issued-before", "2999-01-01") == found("--key-age", "0s") == all_three
    refused(either.run("incident", "plan"), 2, "--issuer", "--spki-file", "--issued-before", "--key-age", "--host")
    refused(either.run("incident", "plan", "--spki-file", str(tmp_path / "none")), 2, "--spki-file")
    refused(either.run("incident", "plan", "--spki-file", file("text", "no key")), 2, "--spki-file")

    made = plan(either, "--issuer", "Distrusted Trust")
    assert {(row["id"], row["custom_csr"], row["scope"]) for row in made["certificates"] if row["id"] in all_three} == {
        (shop_certificate["id"], shop["id"], f"zones/{tenant.id}"),
        (their_certificate["id"], theirs["id"], f"zones/{other.id}"),
    }
    assert status(either, made)["status"] == "planned" and tenant.total() == 2 and other.total() == 1
    quota = used(either, tenant)
    either.ok("incident", "start", made["id"])
    done = settled(either, made)
    assert (done["rekeyed"], done["active"], done["skipped"], done["left"], done["failed"]) == (made["custom_csrs"], made["custom_csrs"], 0, 0, 0)
    # Again, and nothing more happens.
    assert "nothing is left" in either.ok("incident", "start", made["id"])
    (new,) = [row for row in tenant.all() if row["replaces"]]
    old = tenant.get(shop["id"])
    assert new["replaces"] == shop["id"] and new["status"] == "active" and len(public_keys([new, old])) == 2
    same = ("country", "state", "locality", "organization", "common_name", "sans", "key_type", "name", "description")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert used(either, tenant) == quota == 2 and tenant.total() == 3
    assert {"custom_csr": shop["id"], "scope": f"zones/{tenant.id}", "state": "rekeyed", "reason": None, "new_custom_csr": new["id"]} in rekeys(either, made)
    (entry,) = [json.loads(line) for line in either.ok("audit", "--zone", tenant.id, "--action", "rekey").splitlines()]
    assert (entry["via"], entry["resource"], entry["request_id"]) == ("cli", f"custom_csr/{new['id']}", made["id"])
    assert entry["who"].startswith("os:")

    # The tenant brings the new certificate, and deletes the old custom CSR: its place in the quota is the new one's.
    answer = Certificates(tenant).patch(shop_certificate["id"], certificate=good.issue(new["csr"]), custom_csr_id=new["id"])
    assert answer.status == 200, answer
    assert tenant.request("DELETE", f"/{shop['id']}").status == 200
    assert used(either, tenant) == 2
    assert plan(either, "--issuer", "Distrusted Trust", "--host", "shop.acme-widgets.com")["certificates"] == []
    assert Certificates(tenant).request("DELETE", f"/{shop_certificate['id']}").status == 200
    assert tenant.request("DELETE", f"/{new['id']}").status == 200
    assert used(either, tenant) == 1
    assert tenant.get(blog["id"])["status"] == "active"


def test_a_plan_is_stopped_and_goes_on_and_commands_say_what_they_did(either):  # noqa: F811
    tenant, authority = either.tenant(), Authority("Slow Root", organization="Slow CA")  # noqa: F811
    for number in range(4):
        certified(tenant, authority, sans=[f"n{number}.acme-widgets.com"])
    made = plan(either, "--issuer", "Slow CA")
    assert "does not run" in either.ok("incident", "stop", made["id"])
    # So slow that only the first is due.
    either.ok("incident", "start", made["id"], "--rate", "0.001")
    wait_until(lambda: status(either, made)["rekeyed"] == 1, "the first is rekeyed", 60)
    assert status(either, made)["rate"] == 0.001
    assert "is stopped" in either.ok("incident", "stop", made["id"])
    stopped = status(either, made)
    assert (stopped["status"], stopped["rekeyed"], stopped["left"]) == ("stopped", 1, 3)
    text = either.ok("incident", "status", made["id"])
    assert "stopped" in text and "3 left" in text and "issuer=Slow CA" in text
    assert any(line.startswith(made["id"]) and "left=3" in line for line in either.ok("incident", "status").splitlines())
    either.ok("incident", "start", made["id"], "--rate", "0")
    done = settled(either, made)
    assert (done["rekeyed"], done["active"], done["rate"]) == (4, 4, None)
    assert len(tenant.all()) == 8
    for command in (["start", "x"], ["start", made["id"], "--rate", "-1"], ["start", made["id"], "--rate", "fast"], ["status", "x"]):
        refused(either.run("incident", *command), 2)
    unknown = "0190163d-8694-7739-aea5-966c26f8ad91"
    for command in ("start", "stop", "status"):
        refused(either.run("incident", command, unknown), 1, unknown)
    # What plans say of a tenant goes with it.
    either.ok("erase", "--yes", "--zone", tenant.id)
    assert status(either, made)["custom_csrs"] == 0 and rekeys(either, made) == []


def seed(accounts: list[Tenant], count: int, issuer: Authority) -> None:
    """Custom CSRs with certificates, evenly over the zones."""

    def make(number: int) -> None:
        zone = accounts[number % len(accounts)]
        client = zone.service.client
        headers = {"Authorization": f"Bearer {zone.token}"}
        body = subject(name=f"n{number}", sans=[f"n{number}.acme-widgets.com"])
        # Not through the checks of each answer, which take longer than the answer.
        csr = client.post(zone.service.url + zone.path, json=body, headers=headers | {"Prefer": "wait=30"}).json()["result"]
        if csr["status"] == "pending":
            csr = zone.wait_active(csr["id"])
        path = zone.path.replace("custom_csrs", "custom_certificates")
        chain = issuer.issue(csr["csr"], ends=timedelta(days=90))
        answer = client.post(zone.service.url + path, json={"certificate": chain, "custom_csr_id": csr["id"]}, headers=headers)
        assert answer.status_code == 201, answer.text

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(count)))


def multiply(cluster) -> None:
    """Copies of the first custom CSR of each zone, whose keys workers make, with copies of its certificate: what is in the chain decides nothing."""
    cluster.postgres.sql(
        cluster.database,
        "INSERT INTO custom_csrs SELECT made.* FROM custom_csrs c "
        f"JOIN generate_series({SEEDED}, {SIZE - 1}) number ON c.name = 'n' || number % {ZONES} "
        "CROSS JOIN LATERAL jsonb_populate_record(c, jsonb_build_object('id', CAST(gen_random_uuid() AS TEXT), 'name', 'n' || number, "
        "'sans', '[\"n' || number || '.acme-widgets.com\"]', 'job_id', 'none', 'status', 'pending', 'csr_pem', NULL, 'master_key_id', NULL, "
        "'sealed_private_key', NULL, 'spki_sha256', NULL, 'starts', 0)) made",
    )
    cluster.postgres.sql(cluster.database, "UPDATE scopes SET used = (SELECT COUNT(*) FROM custom_csrs WHERE custom_csrs.scope = scopes.scope)")
    wait_until(lambda: cluster.number("SELECT COUNT(*) FROM custom_csrs WHERE status = 'pending'") == 0, "all are active", 60 + SIZE / 5)
    cluster.postgres.sql(
        cluster.database,
        "INSERT INTO custom_certificates SELECT made.* FROM custom_certificates t CROSS JOIN custom_csrs c CROSS JOIN LATERAL "
        "jsonb_populate_record(t, jsonb_build_object('id', replace(CAST(gen_random_uuid() AS TEXT), '-', ''), 'scope', c.scope, "
        "'custom_csr_id', c.id, 'hosts', '[\"' || c.name || '.acme-widgets.com\"]')) made "
        "WHERE t.id = (SELECT MIN(id) FROM custom_certificates) AND c.id NOT IN (SELECT custom_csr_id FROM custom_certificates)",
    )


@pytest.mark.timeout(400 + SIZE // 3)
def test_every_custom_csr_is_rekeyed_once_while_workers_are_killed_and_another_plan_overlaps(
    new_cluster, new_receiver, ca_file, record_property  # noqa: F811
):
    cluster = new_cluster(apis=1, workers=0)
    api = cluster.apis[0]
    api.stop()
    api.arguments += ["--outbound-allow-private", "--max-connections-per-address", "10000"]
    api.start()
    settings = {"CSRD_OUTBOUND_ALLOW_PRIVATE": "true", "CSRD_OUTBOUND_CA_FILE": str(ca_file), "CSRD_PUBLIC_URL": "https://csrd.example"}
    cluster.worker_env |= settings
    cluster.workers = [Worker(cluster, f"first{number}") for number in range(WORKERS)]
    wait_until(lambda: all(worker.is_ready() for worker in cluster.workers), "the workers are ready", 120)
    account = api.tenant("account")
    zones = [api.tenant(quota=SIZE) for _ in range(ZONES)]
    for tenant in [account, *zones]:
        tenant.token = api.token(f"--{tenant.kind}", tenant.id, "--ttl", "1d")
    for zone in zones:
        api.ok("zone", "grant", zone.id, "--account", account.id, "--quota", str(SIZE // ZONES))
    receiver = new_receiver()
    hook(account, receiver, "custom_csr.incident_rekeyed")
    bad = Authority("Bad Root", organization="Distrusted Trust")
    began = time.monotonic()
    seed(zones, SEEDED, bad)
    if SIZE > SEEDED:
        multiply(cluster)
    seeding = time.monotonic() - began

    every, odd = plan(api, "--issuer", "Distrusted Trust"), plan(api, "--host", "n*1.acme-widgets.com")
    assert (every["custom_csrs"], len(every["certificates"])) == (SIZE, SIZE) and 0 < odd["custom_csrs"] < SIZE
    began, kills = time.monotonic(), 0
    api.ok("incident", "start", every["id"], "--rate", str(RATE))
    api.ok("incident", "start", odd["id"])

    def left() -> int:
        return cluster.number("SELECT COUNT(*) FROM incident_rekeys WHERE state = 'planned'")

    # One after the other, as long as there is something left.
    while (planned := left()) > 0:
        assert time.monotonic() - began < 240 + SIZE / 10, f"{planned} are left after {kills} kills"
        cluster.replace(cluster.workers[0])
        kills += 1
        with suppress(AssertionError):
            wait_until(lambda: left() <= planned - SIZE // 12, "some were rekeyed", 2 if SIZE <= 1_000 else 5)  # noqa: B023
    rekeying = time.monotonic() - began
    done = [settled(api, one, 120 + SIZE / 20) for one in (every, odd)]
    seconds = time.monotonic() - began
    rows = [row for zone in zones for row in zone.all()]
    old, new = [row for row in rows if not row["replaces"]], [row for row in rows if row["replaces"]]
    twice = len(new) - len({row["replaces"] for row in new})
    lost = SIZE - len({row["replaces"] for row in new if row["status"] == "active"})
    figures = (
        f"{SIZE} custom CSRs rekeyed by two plans that overlap in {odd['custom_csrs']}, the one at {RATE} a second; {kills} kills of {WORKERS} workers; "
        f"{lost} lost, {twice} twice; all rekeyed after {rekeying:.1f} s, all active after {seconds:.1f} s; seeded in {seeding:.0f} s"
    )
    record_property("figures", figures)
    assert (lost, twice, len(old), len(new)) == (0, 0, SIZE, SIZE), figures
    assert kills >= 3 and len(public_keys(rows)) == 2 * SIZE, figures
    assert done[0]["rekeyed"] + done[1]["rekeyed"] == SIZE and done[0]["skipped"] + done[1]["skipped"] == odd["custom_csrs"], figures
    assert [used(api, zone) for zone in zones] == [SIZE // ZONES] * ZONES
    # Each was told, with a link of its own.
    wait_until(lambda: len({data["id"] for data in receiver.of("custom_csr.incident_rekeyed")}) == SIZE, "all are told", 120 + SIZE / 10)
    told = {data["id"]: data for data in receiver.of("custom_csr.incident_rekeyed")}
    assert receiver.bad == [] and told.keys() == {row["id"] for row in new}
    links = {data["handover_url"] for data in told.values()}
    assert len(links) == SIZE and all(link.startswith("https://csrd.example/handover/") for link in links)
    page = api.client.get(api.url + links.pop().removeprefix("https://csrd.example"))
    assert page.status_code == 200 and "BEGIN CERTIFICATE REQUEST" in page.text


@pytest.mark.timeout(400 + SIZE // 3)
def test_all_workers_together_keep_to_the_rate(new_cluster, record_property):  # noqa: F811
    cluster = new_cluster(apis=1, workers=WORKERS)
    api = cluster.apis[0]
    wait_until(lambda: all(worker.is_ready() for worker in cluster.workers), "the workers are ready", 120)
    zone, count = api.tenant(), 60 if SIZE <= 1_000 else 600
    seed([zone], count, Authority("Bad Root", organization="Distrusted Trust"))
    made, rate = plan(api, "--issuer", "Distrusted Trust"), 20
    api.ok("incident", "start", made["id"], "--rate", str(rate))
    settled(api, made, 240)
    first, last = times(cluster, made)
    measured = (count - 1) / (last - first)
    record_property("figures", f"{count} rekeys by {WORKERS} workers at --rate {rate}: {measured:.2f} a second, {measured / rate - 1:+.1%}")
    # Never faster, however busy this machine is; not slower, unless it is so busy that nothing runs for seconds.
    assert measured < rate * 1.1
    assert measured > rate * (0.9 if SIZE > 1_000 else 0.5)


def times(cluster, made: dict) -> tuple[float, float]:
    """When the first and the last custom CSR of a plan were rekeyed, in seconds."""
    row = cluster.postgres.sql(cluster.database, f"SELECT MIN(rekeyed_at), MAX(rekeyed_at) FROM incident_rekeys WHERE incident_id = '{made['id']}'")
    first, last = row.split("|")
    return int(first) / 1e6, int(last) / 1e6
