"""What happens when processes die and databases go away: nothing that was accepted is lost."""

import base64
import concurrent.futures
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import Csrd, Tenant, binary, environment, subject, wait_until
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

    def __init__(self, postgres: Postgres, directory: Path, *, apis: int, workers: int, api_port: int | None = None):
        self.postgres, self.directory, self.database = postgres, directory, postgres.create_database()
        secret = directory / "secret"
        secret.write_text(base64.b64encode(os.urandom(48)).decode())
        key_dir = directory / "keys"
        subprocess.run([binary(), "keys", "init", "--data-dir", key_dir], check=True, capture_output=True, env=environment())
        self.master_key = key_dir / "master.key"
        self.worker_env = environment(CSRD_DATABASE_URL=postgres.url(self.database), **HASTE)
        api_env = {"CSRD_DATABASE_URL": postgres.url(self.database, api_port), "CSRD_JWT_SECRET_FILE": str(secret)}
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


def post(tenant: Tenant, **changes) -> httpx.Response | None:
    """One POST; none where no answer came."""
    try:
        headers = {"Authorization": f"Bearer {tenant.token}"}
        return tenant.service.client.post(tenant.service.url + tenant.path, headers=headers, json=subject(**changes))
    except httpx.TransportError:
        return None


def public_keys(rows: list[dict]) -> set[bytes]:
    keys = (x509.load_pem_x509_csr(row["csr"].encode()).public_key() for row in rows)
    return {key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys}


def settle(tenant: Tenant, seconds: float = 90) -> list[dict]:
    """All custom CSRs once none is pending."""
    wait_until(lambda: tenant.total(status="pending") == 0, "nothing is pending", seconds)
    return tenant.all()


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

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: post(cluster.on(n % 2, tenant), key_type=kinds[n]), range(len(kinds))))
        wait_until(lambda: tenant.total(status="pending") < 200, "most are made while workers are killed", 120)
    finally:
        done.set()
        killer.join()
    accepted = [answer.json()["result"]["id"] for answer in answers if answer is not None and answer.status_code == 201]
    rows = settle(tenant)
    active = {row["id"] for row in rows if row["status"] == "active"}
    failed = [row for row in rows if row["status"] == "failed"]
    record_property("figures", f"{kills} kills: accepted {len(accepted)}, active {len(active)}, failed {len(failed)}, lost {len(set(accepted) - active)}")
    assert len(accepted) == len(kinds) and set(accepted) == active and not failed
    assert len(public_keys(rows)) == len(rows)


def test_an_outage_of_the_database_is_1471_in_time_and_nothing_accepted_is_lost(postgres, new_cluster, record_property):
    cluster = new_cluster(apis=1, workers=1)
    api, worker = cluster.apis[0], cluster.workers[0]
    tenant = api.tenant(quota=100_000)
    wait_until(worker.is_ready, "the worker is ready")
    answers, done = [], threading.Event()

    def load():
        while not done.is_set():
            began = time.monotonic()
            answer = post(tenant)
            answers.append((time.monotonic() - began, answer))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(answers) > 50, "the load is on")
        postgres.stop()
        wait_until(lambda: not api.is_up("/health/ready") and not worker.is_ready(), "both say that they are not ready", 10)
        time.sleep(10)
        postgres.start()
        wait_until(lambda: api.is_up("/health/ready") and worker.is_ready(), "both are ready again", 60)
        before = len(answers)
        wait_until(lambda: len(answers) > before + 50, "the load goes on")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    statuses = [answer.status_code if answer else None for _, answer in answers]
    accepted = {answer.json()["result"]["id"] for _, answer in answers if answer and answer.status_code == 201}
    rows = settle(tenant)
    active = {row["id"] for row in rows if row["status"] == "active"}
    slowest = max(seconds for seconds, _ in answers)
    record_property(
        "figures",
        f"outage: accepted {len(accepted)}, refused {statuses.count(503)}, active {len(active)}, "
        f"failed {len(rows) - len(active)}, lost {len(accepted - active)}, slowest answer {slowest:.1f} s",
    )
    assert set(statuses) == {201, 503}
    assert all(answer.json()["errors"][0]["code"] == 1471 for _, answer in answers if answer.status_code == 503)
    assert slowest < 5
    assert accepted <= active and len(active) == len(rows)


def test_connections_that_are_cut_at_random_leave_at_most_one_custom_csr_a_request(postgres, new_cluster, record_property):
    proxy = CuttingProxy(postgres.port)
    proxy.cutting = False
    cluster = new_cluster(apis=1, workers=1, api_port=proxy.port)
    tenant = cluster.apis[0].tenant(quota=100_000)
    proxy.cutting = True
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: post(tenant, name=f"request {n}"), range(1_200)))
    proxy.cutting = False
    wait_until(lambda: cluster.apis[0].is_up("/health/ready"), "the API is ready again")
    rows = settle(tenant)
    proxy.close()
    accepted = {answer.json()["result"]["id"] for answer in answers if answer is not None and answer.status_code == 201}
    names = [row["name"] for row in rows]
    orphans = cluster.number(
        "SELECT count(*) FROM apalis.jobs WHERE status IN ('Pending', 'Queued', 'Running') "
        "AND NOT EXISTS (SELECT 1 FROM custom_csrs WHERE custom_csrs.job_id = jobs.id)"
    )
    record_property("figures", f"{proxy.cuts} cuts: accepted {len(accepted)} of {len(answers)}, rows {len(rows)}, jobs without a row {orphans}")
    assert proxy.cuts > 20
    assert {answer.status_code for answer in answers} <= {201, 503}
    assert accepted <= {row["id"] for row in rows}
    assert len(names) == len(set(names)), "no request made two"
    assert all(row["status"] == "active" for row in rows) and orphans == 0
    unknown = {row["name"] for row in rows if row["id"] not in accepted}
    told = {f"request {n}" for n, answer in enumerate(answers) if answer.headers.get("x-should-retry") == "false"}
    assert unknown <= told, "a row without a 201 belongs to an answer that says so"


def test_a_worker_that_was_stopped_and_goes_on_finds_its_result_discarded(new_cluster, record_property):
    cluster = new_cluster(apis=1, workers=1)
    tenant, stopped = cluster.apis[0].tenant(quota=100), cluster.workers[0]
    wait_until(stopped.is_ready, "the worker is ready")
    ids = [tenant.create(key_type="rsa2048")["id"] for _ in range(20)]
    wait_until(lambda: tenant.total(status="active") > 0, "the worker has begun")
    stopped.process.send_signal(signal.SIGSTOP)
    cluster.workers.append(Worker(cluster, "second"))
    before = {row["id"]: row["csr"] for row in settle(tenant)}
    stopped.process.send_signal(signal.SIGCONT)
    wait_until(stopped.is_ready, "the stopped worker goes on")
    last = tenant.create()["id"]
    tenant.wait_active(last)
    rows = settle(tenant)
    discarded = stopped.log_path.read_text().count("stored=false")
    record_property("figures", f"stopped: accepted {len(ids) + 1}, active {len(rows)}, run twice and discarded {discarded}")
    assert {row["id"]: row["csr"] for row in rows if row["id"] != last} == before
    assert set(before) == set(ids) and len(public_keys(rows)) == len(rows)


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
