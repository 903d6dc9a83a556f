"""A database that falls silent: frozen, gone, or behind a network that swallows everything and says nothing."""

import shutil
import socket
import threading
import time

import pytest
from harness import Tenant, wait_until
from postgres import Postgres
from test_faults import HASTE, Api, check_nothing_lost, new_cluster, post, postgres, settle, tally  # noqa: F401


class SwallowingProxy:
    """Passes bytes on to a port until told to swallow: from then on nothing comes through in either direction, and no connection ends.
    Once it passes on again, it does so for new connections: the old ones stay silent, as they do behind a router that forgot them."""

    def __init__(self, target: int):
        self.target, self.open, self.lock, self.swallowing = target, [], threading.Lock(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        with self.lock:
            self.swallowing.set()

    def pass_on(self) -> None:
        with self.lock:
            self.swallowing = threading.Event()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
                with self.lock:
                    self.open.append(client)
                    swallowing = self.swallowing
            except OSError:
                return
            if swallowing.is_set():
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self.lock:
                self.open.append(server)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, swallowing), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, swallowing: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                if not swallowing.is_set():
                    sink.sendall(data)
            if not swallowing.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self.listener.close()
        with self.lock:
            for connection in self.open:
                connection.close()


@pytest.fixture
def proxy(postgres):  # noqa: F811
    made = SwallowingProxy(postgres.port)
    yield made
    made.close()


def behind(proxy: SwallowingProxy, cluster, *arguments: str) -> Api:
    """A process with an API and workers, whose database is behind the proxy."""
    env = {name: value for name, value in cluster.apis[0].env.items() if name.startswith("CSRD_")}
    env |= {"CSRD_DATABASE_URL": cluster.postgres.url(cluster.database, proxy.port), "CSRD_KEY_POOL_SIZE": "0"}
    csrd = Api(cluster.directory / "behind", *arguments, env=env)
    csrd.data_dir.mkdir(mode=0o700)
    shutil.copy(cluster.master_key, csrd.data_dir / "master.key")
    cluster.apis.append(csrd.start())
    return csrd


class Load:
    """POSTs of one tenant by two threads, until told to stop."""

    def __init__(self, tenant: Tenant, name: str):
        self.tenant, self.name, self.outcomes, self.begun, self.over = tenant, name, [], [], threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(2)]
        for thread in self.threads:
            thread.start()

    def _run(self, thread: int) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            began = time.monotonic()
            key_type = "rsa2048" if number % 10 == 0 else "p256v1"
            self.outcomes.append(post(self.tenant, f"{self.name} {thread} {number}", key_type=key_type))
            self.begun.append(began)
            time.sleep(0.02)

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def test_a_network_that_swallows_everything_stops_one_process_and_no_other_and_is_found_out(new_cluster, proxy, record_property):  # noqa: F811
    cluster = new_cluster(apis=1, workers=1)
    cut_off = behind(proxy, cluster, "--workers", "2", "--shutdown-timeout", "3s")
    tenant = cluster.apis[0].tenant(quota=100_000)
    # One zone for both: what the process that is cut off keeps locked, the other one needs.
    loads = [Load(cluster.on(1, tenant), "cut off"), Load(tenant, "direct")]
    lost, direct = loads
    try:
        wait_until(lambda: all(len(load.outcomes) > 50 for load in loads), "the load is on")
        proxy.swallow()
        swallowed = time.monotonic()
        wait_until(lambda: not cut_off.is_up("/health/ready"), "the process that is cut off is not ready", 20)

        def accepted_since(moment: float) -> int:
            return sum(began > moment and outcome.kind == "201" for began, outcome in zip(direct.begun, direct.outcomes, strict=False))

        wait_until(lambda: accepted_since(swallowed + 1) > 20, "the other process goes on", 15)
        wait_until(lambda: "notifications from other processes were interrupted" in cut_off.log(), "the silence is noticed", 60)
        assert cluster.apis[0].is_up("/health/ready")
        before = len(lost.outcomes)
        proxy.pass_on()
        began = cluster.postgres.sql(cluster.database, "SELECT now()")
        wait_until(lambda: cut_off.is_up("/health/ready"), "it is ready again", 60)
        wait_until(lambda: any(outcome.kind == "201" for outcome in lost.outcomes[before:]), "it accepts again")

        def listens_again() -> bool:
            # A name alone: whoever listens says so on that connection every five seconds.
            present = [pid for pid, payload in cluster.postgres.notifications(cluster.database, "csrd", 6) if "," not in payload]
            new = f"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (ARRAY{present}::int[]) AND backend_start > '{began.strip()}'"
            return cluster.number(new) > 0

        wait_until(listens_again, "it listens again", 60)
    finally:
        for load in loads:
            load.stop()
    late = [began - swallowed for began, outcome in zip(direct.begun, direct.outcomes, strict=False) if outcome.kind != "201"]
    slowest = max(outcome.seconds for outcome in lost.outcomes)
    rows = settle(tenant, 300)
    figures = check_nothing_lost(lost.outcomes + direct.outcomes, rows)
    record_property("figures", f"{figures}; slowest answer {slowest:.1f} s; of the other process: {tally(direct.outcomes)}, last refusal after {max(late, default=0):.1f} s")
    assert any(outcome.kind == "503/1471" for outcome in lost.outcomes) and slowest < 5
    assert max(late, default=0) < 10


def fall_silent(outage: str, server: Postgres, proxy: SwallowingProxy) -> None:
    match outage:
        case "frozen":
            server.freeze()
        case "gone":
            server.stop("immediate")
        case "swallowed":
            proxy.swallow()


def come_back(outage: str, server: Postgres, proxy: SwallowingProxy) -> None:
    match outage:
        case "frozen":
            server.thaw()
        case "gone":
            server.start()
        case "swallowed":
            proxy.pass_on()


@pytest.mark.parametrize("jobs", [0, 16], ids=["idle", "busy"])
@pytest.mark.parametrize("outage", ["frozen", "gone", "swallowed"])
def test_sigterm_ends_a_process_whose_database_is_silent_and_its_jobs_are_not_lost(new_cluster, proxy, outage, jobs):  # noqa: F811
    cluster = new_cluster(apis=1, workers=0)
    server, csrd = cluster.postgres, behind(proxy, cluster, "--workers", "1", "--shutdown-timeout", "3s")
    tenant = csrd.tenant(quota=100)
    made = {tenant.create(key_type="rsa2048")["id"] for _ in range(jobs)}
    # The worker has jobs in hand, and more wait.
    wait_until(lambda: not jobs or tenant.total(status="active") > 0, "the worker has begun")
    fall_silent(outage, server, proxy)
    try:
        if not jobs:
            wait_until(lambda: not csrd.is_up("/health/ready"), "it is not ready", 20)
        began = time.monotonic()
        csrd.terminate()
        # Where it had jobs in hand, something was cut.
        assert csrd.wait(60) == (1 if jobs else 0), csrd.log()[-2000:]
        seconds = time.monotonic() - began
        assert seconds < 3 + 4, f"{seconds:.1f} s"
    finally:
        come_back(outage, server, proxy)
    csrd.start()
    rows = settle(tenant, 300)
    assert {row["id"] for row in rows if row["status"] == "active"} == made
    assert csrd.stop() == 0
