"""Many clients at once on the same few rows of one PostgreSQL, through two processes: what is left fits together, and nothing accepted is lost."""

import concurrent.futures
import itertools
import json
import threading
import time
from collections import Counter

import httpx
import pytest
from attack import chance
from ca import Authority, Certificates
from harness import Tenant, subject, wait_until
from test_faults import Cluster, check_nothing_lost, new_cluster, post, postgres, settle  # noqa: F401

ROOT = Authority("Root of the races")
CLIENTS = 16
QUOTA = 12


class Rows:
    """A few custom CSRs and certificates that everybody wants to change."""

    def __init__(self, cluster: Cluster):
        self.cluster, self.tenant = cluster, cluster.apis[0].tenant(quota=QUOTA)
        self.lock, self.csrs, self.certificates = threading.Lock(), {}, set()
        for _ in range(4):
            made = self.tenant.wait_active(self.tenant.create()["id"])
            self.csrs[made["id"]] = made

    def check(self) -> tuple[int, int]:
        """What is left fits together; returns how many rows and certificates there are."""
        number, zone = self.cluster.number, self.tenant.id
        rows = {row["id"]: row for row in settle(self.tenant)}
        assert {row["status"] for row in rows.values()} <= {"active"}
        certificates = Certificates(self.tenant).all()
        assert {row["custom_csr_id"] for row in certificates} <= set(rows)
        named = sorted((csr, certificate) for csr, row in rows.items() for certificate in row["custom_certificate_ids"])
        assert named == sorted((row["custom_csr_id"], row["id"]) for row in certificates)
        assert number(f"SELECT used FROM scopes WHERE scope = 'zones/{zone}'") == len(rows) <= QUOTA
        assert number(f"SELECT count(*) FROM custom_csrs WHERE scope = 'zones/{zone}'") == len(rows)
        assert number("SELECT count(*) FROM custom_certificates WHERE custom_csr_id NOT IN (SELECT id FROM custom_csrs)") == 0
        return len(rows), len(certificates)


ALLOWED = {
    "create": {(201,), (403, 1465)},
    "rekey": {(201,), (403, 1465), (404, 1419), (409, 1474)},
    "rename": {(200,), (404, 1419)},
    "delete": {(200,), (404, 1419), (409, 1420)},
    "list": {(200,)},
    "upload": {(201,), (404, 1431), (409, 1474), (409, 1483)},
    "replace": {(200,), (404, 1431), (404, 1481), (400, 1429)},
    "move": {(200,), (404, 1431), (404, 1481), (409, 1474), (409, 1483)},
    "remove": {(200,), (404, 1481)},
}


RACED = [
    ("create", (403, 1465)),
    ("delete", (200,)),
    ("delete", (409, 1420)),
    ("upload", (201,)),
    ("move", (200,)),
    ("replace", (200,)),
    ("rekey", (201,)),
]


class Client:
    """Does one thing after the other, asking one process and then the other."""

    def __init__(self, rows: Rows, number: int, requests: int):
        self.rows, self.number, self.requests, self.random = rows, number, requests, chance(f"client {number}")
        self.http = httpx.Client(trust_env=False, timeout=30, headers={"Authorization": f"Bearer {rows.tenant.token}"})
        self.answers: Counter = Counter()
        self.surprises: list = []

    def ask(self, what: str, method: str, path: str, **arguments) -> dict | None:
        api = self.rows.cluster.apis[self.random.randrange(2)]
        answer = self.http.request(method, api.url + path, **arguments)
        found = (answer.status_code, *(error["code"] for error in answer.json()["errors"]))
        self.answers[what, found] += 1
        if found not in ALLOWED[what]:
            self.surprises.append((what, found, answer.text))
        return answer.json()["result"] if answer.status_code < 300 else None

    def run(self) -> None:
        tenant, rows = self.rows.tenant, self.rows
        certificates = Certificates(tenant).path
        for _ in range(self.requests):
            what = self.random.choice(list(ALLOWED))
            with rows.lock:
                csr = self.random.choice(list(rows.csrs.values()) or [None])
                certificate = self.random.choice(sorted(rows.certificates) or ["0" * 32])
            if csr is None:
                what = "create"
            match what:
                case "create" | "rekey":
                    path, body = (tenant.path, subject()) if what == "create" else (f"{tenant.path}/{csr['id']}/rekey", None)
                    made = self.ask(what, "POST", path, json=body, headers={"Prefer": "wait=10"})
                    if made and made["status"] == "active":
                        with rows.lock:
                            rows.csrs[made["id"]] = made
                case "rename":
                    self.ask(what, "PATCH", f"{tenant.path}/{csr['id']}", json={"name": f"by {self.number}"})
                case "delete":
                    if self.ask(what, "DELETE", f"{tenant.path}/{csr['id']}"):
                        with rows.lock:
                            rows.csrs.pop(csr["id"], None)
                case "list":
                    self.ask(what, "GET", tenant.path, params={"per_page": 50})
                case "upload":
                    made = self.ask(what, "POST", certificates, json={"custom_csr_id": csr["id"], "certificate": ROOT.issue(csr["csr"]) + ROOT.pem})
                    if made:
                        with rows.lock:
                            rows.certificates.add(made["id"])
                case "replace":
                    self.ask(what, "PATCH", f"{certificates}/{certificate}", json={"certificate": ROOT.issue(csr["csr"]) + ROOT.pem})
                case "move":
                    self.ask(what, "PATCH", f"{certificates}/{certificate}", json={"custom_csr_id": csr["id"], "certificate": ROOT.issue(csr["csr"]) + ROOT.pem})
                case "remove":
                    if self.ask(what, "DELETE", f"{certificates}/{certificate}"):
                        with rows.lock:
                            rows.certificates.discard(certificate)


def race(new_cluster, requests: int) -> str:  # noqa: F811
    cluster = new_cluster(apis=2, workers=1)
    rows = Rows(cluster)
    clients = [Client(rows, number, requests) for number in range(CLIENTS)]
    over, most = threading.Event(), []

    def watch() -> None:
        """The quota holds at every moment."""
        while not over.wait(0.1):
            most.append(cluster.number(f"SELECT count(*) FROM custom_csrs WHERE scope = 'zones/{rows.tenant.id}'"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            # Until everything that they race for has happened.
            for _ in range(10):
                for done in [pool.submit(client.run) for client in clients]:
                    done.result()
                answers = sum((client.answers for client in clients), Counter())
                if all(answers[happened] for happened in RACED):
                    break
    finally:
        over.set()
        watcher.join()
        for client in clients:
            client.http.close()
    assert [surprise for client in clients for surprise in client.surprises][:3] == []
    left = rows.check()
    assert max(most) <= QUOTA
    assert [happened for happened in RACED if not answers[happened]] == [], "this was no race"
    for api in cluster.apis:
        assert "deadlock" not in api.log() and "panicked" not in api.log()
    return f"{sum(answers.values())} requests, {left[0]} rows and {left[1]} certificates left"


def test_sixteen_clients_on_four_rows_leave_what_fits_together_and_the_quota_exact(new_cluster, record_property):  # noqa: F811
    record_property("figures", race(new_cluster, 25))


@pytest.mark.slow
def test_sixteen_clients_on_four_rows_for_minutes_leave_what_fits_together(new_cluster, record_property):  # noqa: F811
    record_property("figures", race(new_cluster, 600))


def test_fifty_equal_posts_at_once_with_one_key_make_one_row_each_time(new_cluster, record_property):  # noqa: F811
    cluster = new_cluster(apis=2, workers=1)
    tenant = cluster.apis[0].tenant(quota=1000)
    rounds, at_once, made = 15, 50, set()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool, httpx.Client(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=at_once)) as client:

        def create(number: int, start: threading.Barrier, body: bytes, key: str) -> tuple[int, str]:
            start.wait(60)
            headers = {"Authorization": f"Bearer {tenant.token}", "Content-Type": "application/json", "Idempotency-Key": key}
            url = cluster.apis[number % 2].url + tenant.path
            answer = client.post(url, content=body, headers=headers)
            # On a busy machine a turn may not come in time: nothing was done, and the client asks again.
            while answer.status_code == 503 and "x-should-retry" not in answer.headers:
                answer = client.post(url, content=body, headers=headers)
            return answer.status_code, answer.text if answer.status_code != 201 else answer.json()["result"]["id"]

        for number in range(rounds):
            start, body = threading.Barrier(at_once), json.dumps(subject(name=f"round {number}")).encode()
            answers = list(pool.map(create, range(at_once), itertools.repeat(start), itertools.repeat(body), itertools.repeat(f"round-{number}")))
            assert len(set(answers)) == 1 and answers[0][0] == 201, Counter(answers).most_common(3)
            made.add(answers[0][1])
    rows = settle(tenant)
    record_property("figures", f"{rounds} rounds of {at_once} equal requests: {len(rows)} rows")
    assert {row["id"] for row in rows} == made and len(made) == rounds
    assert cluster.number(f"SELECT used FROM scopes WHERE scope = 'zones/{tenant.id}'") == rounds


def terminate(new_cluster, seconds: float) -> str:  # noqa: F811
    cluster = new_cluster(apis=2, workers=1)
    tenant = cluster.apis[0].tenant(quota=100_000)
    wait_until(cluster.workers[0].is_ready, "the worker is ready")
    outcomes, numbers, over = [], itertools.count(), threading.Event()

    def load(on: Tenant) -> None:
        while not over.is_set():
            outcomes.append(post(on, f"request {next(numbers)}"))

    threads = [threading.Thread(target=load, args=(cluster.on(number % 2, tenant),)) for number in range(8)]
    for thread in threads:
        thread.start()
    killed = 0
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            # One of them at a time, whatever it does.
            killed += cluster.number(
                f"SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE datname = '{cluster.database}' AND pid <> pg_backend_pid() "
                "ORDER BY random() LIMIT 2) AS chosen"
            )
    finally:
        over.set()
        for thread in threads:
            thread.join()
    wait_until(lambda: all(api.is_up("/health/ready") for api in cluster.apis), "both are ready again", 60)
    rows = settle(tenant)
    figures = f"{killed} connections ended: {check_nothing_lost(outcomes, rows)}"
    assert killed > 20 and any(outcome.id for outcome in outcomes), figures
    assert cluster.number(f"SELECT used FROM scopes WHERE scope = 'zones/{tenant.id}'") == len(rows), figures
    assert all("panicked" not in api.log() for api in cluster.apis)
    return figures


def test_connections_that_postgresql_ends_under_load_cost_nothing_that_was_accepted(new_cluster, record_property):  # noqa: F811
    record_property("figures", terminate(new_cluster, 6))


@pytest.mark.slow
def test_connections_that_postgresql_ends_for_minutes_cost_nothing_that_was_accepted(new_cluster, record_property):  # noqa: F811
    record_property("figures", terminate(new_cluster, 90))
