"""What happens when processes die and databases go away: nothing that was accepted is lost."""

import base64
import concurrent.futures
import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import Answer, Csrd, Tenant, binary, environment, subject, wait_until
from postgres import CuttingProxy, Postgres, free_port

# Short, so that the tests are: a worker is taken for dead after 3 s.
HASTE = {"CSRD_HEARTBEAT_INTERVAL": "1s", "CSRD_ORPHAN_AFTER": "3s", "CSRD_SWEEP_INTERVAL": "1s"}


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    yield server
    server.close()


class Worker:
    """A `csrd worker` with a copy of the master key."""

    def __init__(self, cluster: "Cluster", name: str):
        self.directory = cluster.directory / name
        self.directory.mkdir()
        shutil.copy(cluster.master_key, self.directory / "master.key")
        self.health = f"http://127.0.0.1:{free_port()}/health/ready"
        self.log_path = cluster.directory / f"{name}.log"
        command = [binary(), "worker", "--data-dir", self.directory, "--health-listen", self.health.split("/")[2]]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=cluster.worker_env)

    def is_ready(self) -> bool:
        try:
            return httpx.get(self.health, trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class Api(Csrd):
    """A `csrd serve --workers 0`."""

    def run(self, *arguments, env=None, data_dir=True):
        settings = {name: value for name, value in self.env.items() if name.startswith("CSRD_")}
        return super().run(*arguments, env={name: settings[name] for name in settings} | (env or {}), data_dir=data_dir)


class Cluster:
    """API and worker processes on one database."""

    def __init__(
        self, postgres: Postgres, directory: Path, *, apis: int, workers: int, api_port: int | None = None, pool_size: int = 10
    ):
        self.postgres, self.directory, self.database = postgres, directory, postgres.create_database()
        secret = directory / "secret"
        secret.write_text(base64.b64encode(os.urandom(48)).decode())
        secret.chmod(0o600)
        key_dir = directory / "keys"
        subprocess.run([binary(), "keys", "init", "--data-dir", key_dir], check=True, capture_output=True, env=environment())
        self.master_key = key_dir / "master.key"
        self.worker_env = environment(CSRD_DATABASE_URL=postgres.url(self.database), **HASTE)
        api_env = {"CSRD_DATABASE_URL": postgres.url(self.database, api_port), "CSRD_JWT_SECRET_FILE": str(secret)}
        # Far more may wait for a worker here than a tenant would have.
        api_env |= {"CSRD_POOL_SIZE": str(pool_size), "CSRD_MAX_PENDING": "100000"}
        self.apis = [Api(directory / f"api{n}", "--workers", "0", env=api_env | HASTE).start() for n in range(apis)]
        self.workers = [Worker(self, f"worker{n}") for n in range(workers)]
        self.started = workers

    def replace(self, worker: Worker) -> None:
        worker.kill()
        self.workers.remove(worker)
        self.workers.append(Worker(self, f"worker{self.started}"))
        self.started += 1

    def on(self, number: int, tenant: Tenant) -> Tenant:
        """The same tenant, asking another API process."""
        return Tenant(self.apis[number], tenant.kind, tenant.id, tenant.token)

    def number(self, query: str) -> int:
        return int(self.postgres.sql(self.database, query))

    def close(self) -> None:
        for process in [*self.workers, *self.apis]:
            if isinstance(process, Worker):
                process.kill()
            else:
                process.close()


@pytest.fixture
def new_cluster(postgres, tmp_path):
    made = []

    def make(**options) -> Cluster:
        made.append(Cluster(postgres, tmp_path, **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@dataclass
class Outcome:
    """What became of one POST."""

    name: str
    kind: str  # 201, 503/1471, another status with its code, or why no answer came
    seconds: float
    id: str | None = None
    told_unknown: bool = False  # the answer says that the custom CSR may have been made all the same

    @property
    def is_refused(self) -> bool:
        """A clean 503/1471: nothing was made, and the request may be made again."""
        return self.kind == "503/1471" and not self.told_unknown


def post(tenant: Tenant, name: str, **changes) -> Outcome:
    """One POST, its name its mark."""
    began = time.monotonic()
    try:
        headers = {"Authorization": f"Bearer {tenant.token}"}
        answer = tenant.service.client.post(tenant.service.url + tenant.path, headers=headers, json=subject(name=name, **changes))
    except httpx.TransportError as error:
        return Outcome(name, f"no answer: {error!r}", time.monotonic() - began)
    seconds, envelope = time.monotonic() - began, answer.json()
    if answer.status_code == 201:
        return Outcome(name, "201", seconds, envelope["result"]["id"])
    kind = f"{answer.status_code}/{envelope['errors'][0]['code']}"
    return Outcome(name, kind, seconds, told_unknown=answer.headers.get("x-should-retry") == "false")


def post_until_accepted(tenants: list[Tenant], name: str, **changes) -> list[Outcome]:
    """A POST, repeated by another process where it is cleanly refused, as `Retry-After` asks for."""
    outcomes = []
    for tenant in itertools.islice(itertools.cycle(tenants), 20):
        outcomes.append(post(tenant, name, **changes))
        if not outcomes[-1].is_refused:
            break
        time.sleep(1)
    return outcomes


def tally(outcomes: list[Outcome]) -> str:
    """How many there were of each kind."""
    kinds = Counter(f"{outcome.kind}, outcome unknown" if outcome.told_unknown else outcome.kind for outcome in outcomes)
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))


def check_nothing_lost(outcomes: list[Outcome], rows: list[dict]) -> str:
    """Every accepted request has its active row, every other row belongs to an answer that says so, and no key is there twice."""
    accepted = {outcome.id for outcome in outcomes if outcome.id}
    active = {row["id"] for row in rows if row["status"] == "active"}
    figures = f"answers {tally(outcomes)}; accepted {len(accepted)}, active {len(active)}, lost {len(accepted - active)}, failed {len(rows) - len(active)}"
    assert {outcome.kind for outcome in outcomes} <= {"201", "503/1471"}, figures
    assert len(active) == len(rows) and accepted <= active, figures
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)), f"no request made two: {figures}"
    told = {outcome.name for outcome in outcomes if outcome.told_unknown}
    assert {row["name"] for row in rows if row["id"] not in accepted} <= told, figures
    assert len(public_keys(rows)) == len(rows), figures
    return figures


def public_keys(rows: list[dict]) -> set[bytes]:
    keys = (x509.load_pem_x509_csr(row["csr"].encode()).public_key() for row in rows)
    return {key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys}


def settle(tenant: Tenant, seconds: float = 90) -> list[dict]:
    """All custom CSRs once none is pending. Clients repeat a read that is answered 503: a connection to the database that has just ended
    is noticed by whoever uses it next."""

    def page(**query) -> Answer:
        answer = wait_until(lambda: (answer := tenant.request("GET", params=query)).status != 503 and answer, "lists are answered", seconds)
        assert answer.status == 200, answer
        return answer

    wait_until(lambda: page(per_page=5, status="pending").envelope["result_info"]["total_count"] == 0, "nothing is pending", seconds)
    return tenant.all(page)


def test_worker_processes_that_are_killed_every_second_lose_nothing_and_make_no_key_twice(new_cluster, record_property):
    cluster = new_cluster(apis=2, workers=3)
    tenant = cluster.apis[0].tenant(quota=5000)
    kinds = ["p256v1"] * 2000 + ["rsa2048"] * 40
    random.Random(1).shuffle(kinds)
    done, kills = threading.Event(), 0

    def kill_workers():
        nonlocal kills
        while not done.wait(1):
            cluster.replace(random.choice(cluster.workers))
            kills += 1

    def create(number: int) -> list[Outcome]:
        tenants = [cluster.on(number % 2, tenant), cluster.on((number + 1) % 2, tenant)]
        return post_until_accepted(tenants, f"request {number}", key_type=kinds[number])

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            outcomes = [outcome for made in pool.map(create, range(len(kinds))) for outcome in made]
        wait_until(lambda: tenant.total(status="pending") < 200, "most are made while workers are killed", 120)
    finally:
        done.set()
        killer.join()
    rows = settle(tenant)
    record_property("figures", f"{kills} kills: {check_nothing_lost(outcomes, rows)}, slowest answer {max(o.seconds for o in outcomes):.1f} s")
    unknown = {outcome.name for outcome in outcomes if outcome.told_unknown}
    assert {row["name"] for row in rows} | unknown == {f"request {n}" for n in range(len(kinds))}


@pytest.mark.parametrize("outage", ["stopped", "frozen"])
def test_an_outage_of_the_database_is_1471_in_time_and_nothing_accepted_is_lost(postgres, new_cluster, outage, record_property):
    """A stopped server refuses connections, a frozen one keeps them open and never answers."""
    cluster = new_cluster(apis=1, workers=1)
    api, worker = cluster.apis[0], cluster.workers[0]
    tenant = api.tenant(quota=100_000)
    wait_until(worker.is_ready, "the worker is ready")
    outcomes, numbers, done = [], itertools.count(), threading.Event()

    def load():
        while not done.is_set():
            outcomes.append(post(tenant, f"request {next(numbers)}"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(outcomes) > 50, "the load is on")
        postgres.stop() if outage == "stopped" else postgres.freeze()
        try:
            wait_until(lambda: not api.is_up("/health/ready") and not worker.is_ready(), "both say that they are not ready", 60)
            time.sleep(10)
        finally:
            postgres.start() if outage == "stopped" else postgres.thaw()
        wait_until(lambda: api.is_up("/health/ready") and worker.is_ready(), "both are ready again", 60)
        before = len(outcomes)
        wait_until(lambda: len(outcomes) > before + 50, "the load goes on")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    rows = settle(tenant)
    slowest = max(outcome.seconds for outcome in outcomes)
    record_property("figures", f"{outage}: {check_nothing_lost(outcomes, rows)}, slowest answer {slowest:.1f} s")
    assert any(outcome.kind == "503/1471" for outcome in outcomes)
    # Without a bound of its own a request would last as long as the outage.
    assert slowest < 10


def test_connections_that_are_cut_at_random_leave_at_most_one_custom_csr_a_request(postgres, new_cluster, record_property):
    proxy = CuttingProxy(postgres.port)
    proxy.cutting = False
    cluster = new_cluster(apis=1, workers=1, api_port=proxy.port)
    tenant = cluster.apis[0].tenant(quota=100_000)
    proxy.cutting = True
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: post(tenant, f"request {n}"), range(1_200)))
    proxy.cutting = False
    wait_until(lambda: cluster.apis[0].is_up("/health/ready"), "the API is ready again")
    rows = settle(tenant)
    proxy.close()
    orphans = cluster.number(
        "SELECT count(*) FROM apalis.jobs WHERE status IN ('Pending', 'Queued', 'Running') "
        "AND NOT EXISTS (SELECT 1 FROM custom_csrs WHERE custom_csrs.job_id = jobs.id)"
    )
    figures = check_nothing_lost(outcomes, rows)
    record_property("figures", f"{proxy.cuts} cuts and {proxy.commits_cut} of commits: {figures}, jobs without a row {orphans}")
    assert proxy.cuts > 20 and proxy.commits_cut > 20 and orphans == 0


def test_a_worker_that_was_stopped_and_goes_on_finds_its_result_discarded(new_cluster, record_property):
    cluster = new_cluster(apis=1, workers=1)
    tenant, stopped = cluster.apis[0].tenant(quota=100), cluster.workers[0]
    wait_until(stopped.is_ready, "the worker is ready")
    ids = [tenant.create(key_type="rsa2048")["id"] for _ in range(40)]
    wait_until(lambda: tenant.total(status="active") > 0, "the worker has begun")
    stopped.process.send_signal(signal.SIGSTOP)
    cluster.workers.append(Worker(cluster, "second"))
    before = {row["id"]: row["csr"] for row in settle(tenant)}
    stopped.process.send_signal(signal.SIGCONT)
    wait_until(stopped.is_ready, "the stopped worker goes on")
    # What it had in the making when it was stopped comes to its end only now.
    wait_until(lambda: "stored=false" in stopped.log_path.read_text(), "its late result is discarded")
    last = tenant.create()["id"]
    tenant.wait_active(last)
    rows = settle(tenant)
    discarded = stopped.log_path.read_text().count("stored=false")
    record_property("figures", f"stopped: accepted {len(ids) + 1}, active {len(rows)}, run twice and discarded {discarded}")
    assert {row["id"]: row["csr"] for row in rows if row["id"] != last} == before
    assert set(before) == set(ids) and len(public_keys(rows)) == len(rows)


@pytest.mark.parametrize("attempt", range(3))
def test_jobs_of_a_worker_that_was_stopped_within_a_transaction_go_to_another_in_time(new_cluster, attempt, record_property):
    cluster = new_cluster(apis=1, workers=1)
    # As by default, so that a look which comes with each sign of life comes late.
    cluster.worker_env |= {"CSRD_HEARTBEAT_INTERVAL": "10s", "CSRD_ORPHAN_AFTER": "20s"}
    cluster.replace(cluster.workers[0])
    tenant, stopped = cluster.apis[0].tenant(quota=1_000), cluster.workers[0]
    wait_until(stopped.is_ready, "the worker is ready")
    for _ in range(40):
        tenant.create(key_type="rsa2048")
    wait_until(lambda: tenant.total(status="active") > 0, "the worker has begun")
    in_hand = "SELECT count(*) FROM apalis.jobs WHERE status IN ('Queued', 'Running')"
    # The API is idle meanwhile: a transaction that stays open is the worker's.
    in_transaction = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    for _ in range(50):
        stopped.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        caught = cluster.number(in_transaction) > 0 and cluster.number(in_hand) > 0
        if caught or tenant.total(status="pending") < 10:
            break
        stopped.process.send_signal(signal.SIGCONT)
        time.sleep(random.uniform(0.005, 0.05))
    holder = cluster.postgres.sql(cluster.database, "SELECT max(lock_by) FROM apalis.jobs WHERE status IN ('Queued', 'Running')")
    assert holder, "the stopped worker has jobs in hand"
    cluster.workers.append(Worker(cluster, "second"))
    wait_until(lambda: cluster.number(f"{in_hand} AND lock_by = '{holder}'") == 0, "its jobs are given to another", seconds=90)
    record_property("figures", f"within a transaction: {caught}, given to another after {time.monotonic() - began:.1f} s")
    settle(tenant, 150)
    assert tenant.total(status="failed") == 0


class Alone:
    """One process on SQLite, with what a cluster has."""

    def __init__(self, csrd: Csrd):
        self.apis = [csrd.start()]

    def on(self, number: int, tenant: Tenant) -> Tenant:
        return tenant

    def number(self, query: str) -> int:
        with closing(sqlite3.connect(self.apis[0].data_dir / "csrd.db")) as database:
            return database.execute(query.replace("apalis.jobs", "Jobs")).fetchone()[0]


@pytest.fixture(params=["postgres", "sqlite"])
def service_of(request, new_cluster, new_csrd):
    """The service on each database: two API processes and two workers, or one process."""
    return new_cluster(apis=2, workers=2) if request.param == "postgres" else Alone(new_csrd())


def test_a_delete_that_races_with_generation_leaves_nothing_or_an_active_row(service_of, record_property):
    tenant = service_of.apis[0].tenant(quota=1000)
    chance = random.Random(2)
    pauses = [chance.uniform(0, 0.06) for _ in range(500)]

    def create_and_delete(number: int) -> tuple[str, int, str | None]:
        """Its ID, what DELETE answered, and in which state it was just before."""
        here, there = service_of.on(number % 2, tenant), service_of.on((number + 1) % 2, tenant)
        csr_id = here.create(name=f"request {number}", key_type="rsa2048" if number % 10 == 0 else "p256v1")["id"]
        time.sleep(pauses[number])
        before = there.get(csr_id)["status"]
        return csr_id, there.request("DELETE", f"/{csr_id}").status, before

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = list(pool.map(create_and_delete, range(500)))
    deleted = {csr_id for csr_id, status, _ in made if status == 200}
    rows = settle(tenant)
    live = "SELECT count(*) FROM apalis.jobs WHERE status IN ('Pending', 'Queued', 'Running')"
    wait_until(lambda: service_of.number(live) == 0, "no job is live", 60)
    pending = sum(before == "pending" for _, _, before in made)
    record_property("figures", f"500 deletes, {pending} of them of pending ones: {len(deleted)} answered 200, {len(rows)} rows left")
    assert {status for _, status, _ in made} <= {200, 503}
    # What was not deleted is active; what was is gone, with its key, and stays so.
    assert {row["id"] for row in rows} == {csr_id for csr_id, _, _ in made} - deleted
    assert all(row["status"] == "active" for row in rows)
    assert service_of.number("SELECT count(*) FROM custom_csrs") == len(rows)
    assert service_of.number(f"SELECT used FROM scopes WHERE scope = 'zones/{tenant.id}'") == len(rows)
    assert 0 < pending < 500, "the deletes came too early or too late to race"


def test_four_hundred_creates_at_once_never_get_one_more_than_the_quota_of_fifty(service_of, record_property):
    tenant = service_of.apis[0].tenant(quota=50)

    def create(number: int) -> list[Outcome]:
        return post_until_accepted([service_of.on(number % 2, tenant), service_of.on((number + 1) % 2, tenant)], f"request {number}")

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        outcomes = [outcome for made in pool.map(create, range(400)) for outcome in made]
    record_property("figures", f"quota of 50: {tally(outcomes)}")
    kinds = Counter(outcome.kind for outcome in outcomes if not outcome.is_refused)
    assert kinds == {"201": 50, "403/1465": 350}
    rows = settle(tenant)
    assert {row["id"] for row in rows if row["status"] == "active"} == {outcome.id for outcome in outcomes if outcome.id}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    assert os.getuid() == 0, "this test mounts a file system: run it as root"
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_is_1471_and_the_service_recovers_when_there_is_room(small_disk):
    csrd = Csrd(small_disk / "csrd").start()
    try:
        tenant = csrd.tenant(quota=1000)
        tenant.wait_active(tenant.create()["id"])
        filler = small_disk / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        answers = [tenant.request("POST", json=subject()) for _ in range(5)]
        assert {(answer.status, answer.envelope["errors"][0]["code"]) for answer in answers if answer.status != 201} == {(503, 1471)}
        assert answers[-1].status == 503
        filler.unlink()
        wait_until(lambda: tenant.request("POST", json=subject()).status == 201, "there is room again")
        assert all(row["status"] == "active" for row in settle(tenant))
    finally:
        csrd.close()


def test_a_disk_that_is_full_at_the_first_start_leaves_no_part_of_a_secret_and_is_in_nobody_s_way(small_disk, tmp_path):
    # The database has room elsewhere: it would fail first.
    csrd = Csrd(small_disk / "csrd", "--database-url", f"sqlite:{tmp_path}/csrd.db")
    csrd.data_dir.mkdir(mode=0o700)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    for command, name in ((["keys", "init"], "master.key"), (["serve", "--listen", "127.0.0.1:0"], "signing.key")):
        done = csrd.run(*command, "--database-url", f"sqlite:{tmp_path}/csrd.db")
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and f"{name} cannot be created: No space left" in last, done
        assert list(csrd.data_dir.iterdir()) == []
    filler.unlink()
    try:
        csrd.start()
        assert (csrd.data_dir / "master.key").stat().st_size == 45
    finally:
        csrd.close()


def test_a_read_only_database_is_a_clear_error_at_the_start_and_none_once_it_is_writable(small_disk):
    csrd = Csrd(small_disk / "csrd").start()
    try:
        tenant = csrd.tenant(quota=10)
        tenant.wait_active(tenant.create()["id"])
        assert csrd.stop() == 0
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        command = [binary(), "serve", "--data-dir", csrd.data_dir, "--listen", "127.0.0.1:0"]
        done = subprocess.run(command, env=csrd.env, capture_output=True, text=True, timeout=60, check=False)
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert done.returncode == 1, done
        last = done.stderr.splitlines()[-1]
        assert last.startswith("csrd: ") and "csrd.db" in last and "ead-only" in last, done.stderr
        csrd.start()
        tenant.wait_active(tenant.create()["id"])
    finally:
        csrd.close()


def test_a_database_file_that_was_moved_is_not_ready(new_csrd):
    csrd = new_csrd().start()
    (csrd.data_dir / "csrd.db").rename(csrd.data_dir / "elsewhere.db")
    wait_until(lambda: not csrd.is_up("/health/ready"), "the process is not ready")
    answer = httpx.get(f"{csrd.url}/health/ready", trust_env=False, timeout=5)
    assert answer.status_code == 503 and answer.json()["errors"][0]["code"] == 1471
    assert "moved or deleted" in answer.json()["errors"][0]["message"]
    (csrd.data_dir / "elsewhere.db").rename(csrd.data_dir / "csrd.db")
    wait_until(lambda: csrd.is_up("/health/ready"), "the process is ready again")


def test_an_api_process_without_a_live_worker_says_that_it_is_degraded(new_cluster):
    cluster = new_cluster(apis=1, workers=0)
    api = cluster.apis[0]
    result = httpx.get(f"{api.url}/health/ready", trust_env=False, timeout=5).json()["result"]
    assert (result["status"], result["workers"], result["pending"]) == ("degraded", 0, 0)
    assert "no worker is alive" in api.log()
    cluster.workers.append(Worker(cluster, "late"))
    ready = lambda: httpx.get(f"{api.url}/health/ready", trust_env=False, timeout=5).json()["result"]["status"] == "ready"  # noqa: E731
    wait_until(ready, "the worker is seen", 90)
    (line,) = [line for line in cluster.workers[0].log_path.read_text().splitlines() if " working " in line]
    said = ("version=", f"data_dir={cluster.workers[0].directory}", 'database="postgres://', "listener=127.0.0.1:", "key_threads=", "key_pool_size=")
    assert all(part in line for part in said), line
