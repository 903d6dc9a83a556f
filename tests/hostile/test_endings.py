"""Processes that are stopped, killed, frozen or started at a bad moment: what was accepted stays, and the next start goes on."""

import itertools
import shutil
import signal
import socket
import threading
import time
from collections import Counter

import httpx
import pytest
from attack import chance
from harness import Tenant, binary, read_response, subject, wait_until
from test_faults import HASTE, check_nothing_lost, new_cluster, post, postgres, settle  # noqa: F401


class Load:
    """Clients that create custom CSRs, each request on a connection of its own, until they are told to stop."""

    def __init__(self, tenant: Tenant, clients: int = 6):
        self.tenant, self.numbers, self.over = tenant, itertools.count(), threading.Event()
        self.accepted: dict[str, str] = {}
        self.others: Counter = Counter()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {self.tenant.token}", "Connection": "close"}
        while not self.over.is_set():
            number = next(self.numbers)
            body = subject(name=f"request {number}", key_type="rsa2048" if number % 40 == 0 else "p256v1")
            try:
                answer = httpx.post(self.tenant.service.url + self.tenant.path, json=body, headers=headers, trust_env=False, timeout=30)
            except httpx.TransportError as error:
                cause = error.__cause__.__cause__ if error.__cause__ else None
                self.others[f"{type(error).__name__} {cause or error}"] += 1
                # Nobody is there.
                self.over.wait(0.05)
                continue
            if answer.status_code == 201:
                self.accepted[answer.json()["result"]["id"]] = body["name"]
            else:
                self.others[f"{answer.status_code} {answer.text}"] += 1

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def end_under_load(new_csrd, rounds: int) -> str:
    csrd = new_csrd("--shutdown-timeout", "20s").start()
    zone, random = csrd.tenant(quota=100_000), chance("sigterm")
    accepted, others, took = {}, Counter(), []
    for _ in range(rounds):
        load = Load(zone)
        wait_until(lambda load=load: len(load.accepted) > 20, "the load is on")
        time.sleep(random.uniform(0, 0.3))
        began = time.monotonic()
        csrd.terminate()
        status = csrd.wait(60)
        took.append(time.monotonic() - began)
        load.stop()
        assert status == 0, csrd.log()[-2000:]
        accepted |= load.accepted
        others += load.others
        csrd.start()
    rows = {row["id"]: row for row in settle(zone)}
    figures = f"{len(accepted)} accepted, ends took {min(took):.1f} to {max(took):.1f} s; else {dict(others)}"
    assert {row["status"] for row in rows.values()} == {"active"} and set(accepted) <= set(rows)
    assert f"used={len(rows)}" in next(line for line in csrd.ok("zone", "list").splitlines() if line.startswith(zone.id))
    # Who came too late was not let in; what becomes of those that were let in at the last moment has a test of its own.
    unanswered = {kind: count for kind, count in others.items() if not kind.startswith("ConnectError")}
    assert {kind.split()[0] for kind in unanswered} <= {"RemoteProtocolError", "ReadError"}, others
    assert len(rows) - len(accepted) <= sum(unanswered.values()), figures
    return figures


def test_sigterm_under_load_answers_what_was_taken_and_loses_nothing(new_csrd, record_property):
    record_property("figures", end_under_load(new_csrd, 2))


@pytest.mark.slow
def test_sigterm_under_load_for_many_rounds_loses_nothing(new_csrd, record_property):
    record_property("figures", end_under_load(new_csrd, 20))


def test_requests_that_wait_in_the_listeners_queue_at_sigterm_are_answered(new_csrd):
    """They came before it: their clients cannot know whether they were done."""
    answers: Counter = Counter()
    for attempt in range(3):
        csrd = new_csrd(name=f"queue {attempt}").start()
        # Whole requests arrive, and nobody takes them yet.
        csrd.process.send_signal(signal.SIGSTOP)
        clients = [socket.create_connection(csrd.host_and_port, timeout=20) for _ in range(30)]
        try:
            for client in clients:
                client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            csrd.terminate()
            csrd.process.send_signal(signal.SIGCONT)
            for client in clients:
                try:
                    response = read_response(client)
                    answers[response and response[0]] += 1
                except ConnectionError as error:
                    answers[repr(error)] += 1
        finally:
            for client in clients:
                client.close()
        assert csrd.wait(60) == 0
    assert answers == {200: 90}


def kill_under_load(new_cluster, rounds: int) -> str:  # noqa: F811
    """On PostgreSQL: two API processes and two workers, all at the same moment."""
    cluster, random = new_cluster(apis=2, workers=2), chance("sigkill")
    tenant, numbers, outcomes = cluster.apis[0].tenant(quota=100_000), itertools.count(), []
    for _ in range(rounds):
        over = threading.Event()

        def load(on: Tenant, over=over) -> None:
            while not over.is_set():
                number = next(numbers)
                outcome = post(on, f"request {number}", key_type="rsa2048" if number % 20 == 0 else "p256v1")
                outcomes.append(outcome)
                if outcome.kind.startswith("no answer"):
                    return

        threads = [threading.Thread(target=load, args=(cluster.on(number % 2, tenant),)) for number in range(8)]
        before = len(outcomes)
        for thread in threads:
            thread.start()
        wait_until(lambda before=before: len(outcomes) > before + 50, "the load is on")
        time.sleep(random.uniform(0, 0.3))
        for api in cluster.apis:
            api.process.send_signal(signal.SIGKILL)
        for worker in list(cluster.workers):
            cluster.replace(worker)
        for thread in threads:
            thread.join()
        over.set()
        for api in cluster.apis:
            api.wait()
            api.start()
    # A request without an answer may have been done.
    for outcome in outcomes:
        if outcome.kind.startswith("no answer"):
            outcome.kind, outcome.told_unknown = "503/1471", True
    rows = settle(tenant)
    assert cluster.number(f"SELECT used FROM scopes WHERE scope = 'zones/{tenant.id}'") == len(rows)
    return check_nothing_lost(outcomes, rows)


def test_sigkill_of_every_process_under_load_loses_nothing(new_cluster, record_property):  # noqa: F811
    record_property("figures", kill_under_load(new_cluster, 2))


@pytest.mark.slow
def test_sigkill_of_every_process_under_load_for_many_rounds_loses_nothing(new_cluster, record_property):  # noqa: F811
    record_property("figures", kill_under_load(new_cluster, 15))


@pytest.mark.slow
def test_after_forty_first_starts_that_were_killed_the_next_ones_work(new_csrd):
    random = chance("first starts")
    for number in range(40):
        csrd = new_csrd(name=f"start {number}", env={"CSRD_KEY_POOL_SIZE": "0"})
        csrd.spawn()
        time.sleep(random.uniform(0, 0.8))
        csrd.kill()
        key = csrd.data_dir / "master.key"
        # Whole, or not there.
        content = key.read_bytes() if key.exists() else None
        assert content is None or len(content) == 45
        csrd.start()
        assert content in (None, key.read_bytes())
        zone = csrd.tenant()
        zone.wait_active(zone.create()["id"])
        assert "all 1 sealed records" in csrd.ok("keys", "check")
        left = [path.name for path in csrd.data_dir.iterdir() if path.suffix == ".tmp"]
        assert csrd.stop() == 0 and len(left) <= 1, left
        shutil.rmtree(csrd.directory)


@pytest.mark.slow
def test_a_lock_of_migrations_that_nobody_gives_back_is_named_by_every_command_that_waits_for_it(new_csrd, postgres):  # noqa: F811
    name, lock = postgres.create_database(), 0x6373_7264
    holder = threading.Thread(target=lambda: postgres.sql(name, f"SELECT pg_advisory_lock({lock}); SELECT pg_sleep(80)"))
    holder.start()
    held = f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {lock} AND granted"
    wait_until(lambda: postgres.sql(name, held), "the lock is held", 60)
    env = {"CSRD_DATABASE_URL": postgres.url(name)}
    stopped = new_csrd(name="stopped", env=env).spawn()
    waiting = [new_csrd(name="serve", env=env).spawn()]
    for command in ("worker", "migrate"):
        csrd = new_csrd(name=command, env=env)
        waiting.append(csrd.spawn(binary(), command, "--data-dir", csrd.data_dir))
    wait_until(lambda: "waiting for another process that migrates the database" in stopped.log(), "one says what it waits for", 60)
    assert stopped.stop() == 0
    for csrd in waiting:
        assert csrd.wait(120) == 1
        line = csrd.log().splitlines()[-1]
        assert line.startswith("csrd: ") and f"end the session that holds the advisory lock {lock}" in line, line
    holder.join()
    assert "migrations" in new_csrd(name="after", env=env).run("migrate", env=env).stdout


def test_a_process_that_was_frozen_for_longer_than_a_worker_may_be_silent_works_on(new_csrd):
    csrd = new_csrd(env=HASTE).start()
    zone = csrd.tenant()
    ids = {zone.create(key_type="rsa2048")["id"] for _ in range(6)}
    csrd.process.send_signal(signal.SIGSTOP)
    # Twice as long as others would wait before they take its jobs.
    time.sleep(6)
    csrd.process.send_signal(signal.SIGCONT)
    wait_until(lambda: csrd.is_up("/health/ready"), "it is ready again", 90)
    ids.add(zone.create()["id"])
    rows = settle(zone)
    assert {row["id"] for row in rows if row["status"] == "active"} == ids
    assert len({row["csr"] for row in rows}) == len(ids)


def test_sighup_again_and_again_under_load_ends_nothing(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant(quota=100_000)
    load = Load(zone)
    try:
        for _ in range(50):
            csrd.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        wait_until(lambda: len(load.accepted) > 50, "the load goes on")
    finally:
        load.stop()
    assert csrd.check_runs() and not load.others
    assert {row["id"] for row in settle(zone) if row["status"] == "active"} == set(load.accepted)


def test_a_process_that_is_told_to_end_twice_and_more_ends_once_and_well(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant()
    made = [zone.create(key_type="rsa2048")["id"] for _ in range(6)]
    for _ in range(5):
        csrd.terminate()
        csrd.process.send_signal(signal.SIGINT)
    assert csrd.wait(60) in (0, 1)
    csrd.start()
    assert {row["id"] for row in settle(zone) if row["status"] == "active"} == set(made)
