"""Several master keys: the one that seals changes beside running workers, and no record and no custom CSR is lost on the way."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from harness import binary, environment, refused, run, wait_until
from test_cli import master_key_id
from test_faults import HASTE, new_cluster, post, postgres  # noqa: F401

KEY_FILE = re.compile(r"master-([0-9a-f]{16})\.key")


def new_key(csrd) -> str:
    """Makes another master key; its ID."""
    said = csrd.ok("keys", "new")
    (key_id,) = set(KEY_FILE.findall(said))
    assert f"csrd keys use {key_id}" in said and (csrd.data_dir / f"master-{key_id}.key").stat().st_mode & 0o777 == 0o600
    return key_id


def status(csrd) -> dict[str, dict]:
    return {row["id"]: row for row in map(json.loads, csrd.ok("keys", "status", "--json").splitlines())}


def make(tenant, count: int, *, seconds: float = 120, **changes) -> list[str]:
    """Custom CSRs that are active at the end, so many seconds after the last was accepted."""
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda number: post(tenant, f"csr-{number}", **changes), range(count)))
    assert {outcome.kind for outcome in outcomes} == {"201"}, outcomes[0]
    ids = [outcome.id for outcome in outcomes]
    tenant.wait_active(ids[-1], seconds)
    wait_until(lambda: tenant.total(status="pending") == 0, "all are decided", seconds)
    assert tenant.total(status="failed") == 0
    return ids


def readiness(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=30)


class Machine:
    """Commands of csrd on the machine of a worker."""

    def __init__(self, cluster, data_dir: Path):
        self.cluster, self.data_dir = cluster, data_dir

    def run(self, *arguments: str, seconds: float = 60):
        url = self.cluster.postgres.url(self.cluster.database)
        return run(*arguments, "--data-dir", str(self.data_dir), env={"CSRD_DATABASE_URL": url}, seconds=seconds)

    def ok(self, *arguments: str, seconds: float = 60) -> str:
        done = self.run(*arguments, seconds=seconds)
        assert done.returncode == 0, done
        return done.stdout


@pytest.mark.parametrize("hangs_up", [True, False])
def test_one_command_changes_the_master_key_beside_the_running_service(new_csrd, tmp_path, hangs_up):
    csrd = new_csrd("--key-pool-size", "2", env=HASTE).start()
    zone = csrd.tenant("zone")
    before, old = make(zone, 20), master_key_id(csrd)
    csrd.ok("backup", str(tmp_path / "backup.db"))
    rotating = subprocess.Popen(
        [binary(), "keys", "rotate", "--data-dir", csrd.data_dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        if hangs_up:
            wait_until(lambda: list(csrd.data_dir.glob("master-*.key")), "there is a new master key")
            csrd.process.send_signal(signal.SIGHUP)
        during = make(zone, 20)
        said, progress = rotating.communicate(timeout=60)
    finally:
        rotating.kill()
    assert rotating.returncode == 0, (said, progress)
    (current,) = [key_id for key_id, row in status(csrd).items() if row["current"]]
    assert current != old and set(status(csrd)) == {current}, "the old one is forgotten"
    assert status(csrd)[current]["sealed_records"] == 40 and f"{socket.gethostname()}:{csrd.process.pid}" in status(csrd)[current]["workers"]
    assert f"the master key {old} is forgotten" in said and "records anew" in progress, (said, progress)
    after = make(zone, 2)
    make(zone, 1, key_type="rsa2048")
    assert csrd.stop() == 0

    # The file of the old one is of no use any more, but for a backup from before.
    kept = (csrd.data_dir / "master.key").rename(tmp_path / "kept.key")
    csrd.start()
    assert zone.get(before[0])["csr"] and zone.get(during[0])["csr"] and zone.get(after[0])["csr"]
    assert "all 43 sealed records" in csrd.ok("keys", "check")
    actions = [json.loads(line)["action"] for line in csrd.ok("audit").splitlines()]
    assert [action for action in actions if action.startswith("key_")] == ["key_new", "key_use", "key_reseal", "key_retire"]
    restored = new_csrd(name="restored")
    restored.data_dir.mkdir(mode=0o700)
    shutil.copy(tmp_path / "backup.db", restored.data_dir / "csrd.db")
    shutil.copy(kept, restored.data_dir / "master.key")
    shutil.copy(csrd.data_dir / "signing.key", restored.data_dir)
    assert "all 20 sealed records" in restored.ok("keys", "check")
    restored.start()


def test_a_rotation_goes_on_where_it_was_stopped_and_begins_no_second_one(new_csrd):
    csrd = new_csrd(env=HASTE).start()
    zone = csrd.tenant("zone")
    make(zone, 5)
    assert csrd.stop() == 0
    first, made = master_key_id(csrd), new_key(csrd)
    csrd.ok("keys", "rotate")
    assert set(status(csrd)) == {made}, "the one that was made and not used yet, and no other"
    again = new_key(csrd)
    csrd.ok("keys", "use", again)
    csrd.ok("keys", "rotate")
    assert set(status(csrd)) == {again} and status(csrd)[again]["sealed_records"] == 5
    csrd.ok("keys", "rotate")
    (current,) = status(csrd)
    assert current not in (first, made, again), "a forgotten one is not taken for a new one"
    assert "all 5 sealed records" in csrd.ok("keys", "check")


def test_what_would_lose_keys_is_refused(new_csrd):
    csrd = new_csrd(env=HASTE)
    csrd.ok("migrate")
    refused(csrd.run("keys", "new"), 1, "csrd keys init")
    refused(csrd.run("keys", "rotate"), 1, "csrd keys init")
    csrd.ok("keys", "init")
    csrd.start()
    make(csrd.tenant("zone"), 2)
    old, nobody = master_key_id(csrd), "0123456789abcdef"
    for command in (["use", nobody], ["use", nobody, "--force"], ["retire", nobody]):
        refused(csrd.run("keys", *command), 1, nobody)
    for command in ("use", "retire"):
        refused(csrd.run("keys", command, "../../etc"), 2, "16 hexadecimal digits")
    refused(csrd.run("keys", "retire", old), 1, "seals")
    new = new_key(csrd)
    wait_until(lambda: status(csrd)[new]["workers"], "the service has it")
    csrd.ok("keys", "use", new)
    refused(csrd.run("keys", "retire", old), 1, "csrd keys reseal")
    assert csrd.stop() == 0

    path = csrd.data_dir / f"master-{new}.key"
    misnamed = path.rename(csrd.data_dir / "master-other.key")
    refused(csrd.run("keys", "check"), 1, f"rename it to master-{new}.key")
    misnamed.rename(csrd.directory / "kept.key")
    done = csrd.run("serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 1 and new in done.stderr.splitlines()[-1], done


def test_a_record_that_no_master_key_here_opens_is_named_everywhere_and_kept(new_csrd):
    csrd = new_csrd(env=HASTE).start()
    zone = csrd.tenant("zone")
    made = make(zone, 3)
    old, new = master_key_id(csrd), new_key(csrd)
    assert csrd.stop() == 0
    csrd.ok("keys", "use", new)
    kept = (csrd.data_dir / "master.key").rename(csrd.directory / "kept.key")
    csrd.start()
    named = wait_until(lambda: (body := readiness(f"{csrd.url}/health/ready").json()) and old in json.dumps(body) and body, "it is named")
    assert named["result"]["status"] == "degraded" and old in named["result"]["problem"]
    assert any("ERROR" in line and old in line for line in csrd.log_of_this_start().splitlines())
    done = csrd.run("keys", "check")
    assert done.returncode == 1 and f"needs the master key {old}" in done.stdout and "3 of 3" in done.stdout
    done = csrd.run("keys", "reseal")
    assert done.returncode == 1 and old in done.stderr and "3 records do not open and stay as they are" in done.stderr
    make(zone, 1)
    # It comes back, and the service takes it without a new start.
    shutil.copy(kept, csrd.data_dir / f"master-{old}.key")
    wait_until(lambda: readiness(f"{csrd.url}/health/ready").json()["result"]["status"] == "ready", "all is well")
    csrd.ok("keys", "reseal")
    csrd.ok("keys", "retire", old)
    assert "all 4 sealed records" in csrd.ok("keys", "check") and all(zone.get(csr_id)["csr"] for csr_id in made)


def test_a_master_key_that_comes_while_the_database_is_away_is_not_forgotten(new_csrd):
    csrd = new_csrd(env=HASTE | {"CSRD_LOG_LEVEL": "debug"}).start()
    make(csrd.tenant("zone"), 1)

    def rename(table: str, other: str) -> None:
        with closing(sqlite3.connect(csrd.data_dir / "csrd.db", timeout=30)) as database:
            # Without it, what refers to the table would follow.
            database.execute("PRAGMA legacy_alter_table = ON")
            database.execute(f"ALTER TABLE {table} RENAME TO {other}")

    def failed_looks() -> int:
        return csrd.log_of_this_start().count("the master keys were not compared with the database")

    rename("master_keys", "away")
    secret = os.urandom(32)
    new = hashlib.sha256(secret).digest()[:8].hex()
    path = csrd.data_dir / f"master-{new}.key"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(base64.b64encode(secret).decode())
    before = failed_looks()
    wait_until(lambda: failed_looks() >= before + 2, "it looks for master keys, and the database does not answer")
    rename("away", "master_keys")
    wait_until(lambda: status(csrd)[new]["workers"], "the worker has it")
    csrd.ok("keys", "use", new)


def test_the_credentials_of_a_systemd_unit_come_first(new_csrd, tmp_path):
    csrd = new_csrd(env=HASTE)
    csrd.ok("keys", "init")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (csrd.data_dir / "master.key").rename(credentials / "master.key")
    done = csrd.run("serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 1 and "restore that key" in done.stderr, done
    csrd.env["CREDENTIALS_DIRECTORY"] = str(credentials)
    csrd.start()
    make(csrd.tenant("zone"), 1)
    assert "all 1 sealed records" in csrd.run("keys", "check", env={"CREDENTIALS_DIRECTORY": str(credentials)}).stdout
    assert not list(csrd.data_dir.glob("master*.key"))


def test_a_worker_without_the_new_master_key_leaves_all_work_to_the_others(new_cluster):  # noqa: F811
    cluster = new_cluster(apis=1, workers=3)
    zone = cluster.apis[0].tenant("zone", quota=100_000)
    machine, (one, two, lacks) = Machine(cluster, cluster.workers[0].directory), cluster.workers
    for worker in cluster.workers:
        wait_until(worker.is_ready, "the worker is ready")
    make(zone, 30)
    (old,), new = status(machine), new_key(machine)
    shutil.copy(one.directory / f"master-{new}.key", two.directory)
    name = f"{socket.gethostname()}:{lacks.process.pid}"
    wait_until(lambda: len(status(machine)[new]["workers"]) == 2, "two have it")
    refused(machine.run("keys", "use", new), 1, f"the worker {name} lacks the master key {new}")

    with ThreadPoolExecutor(4) as threads:
        load = threads.submit(make, zone, 150)
        done = machine.run("keys", "use", new, "--force")
        assert done.returncode == 0 and name in done.stderr, done
        assert len(load.result(timeout=120)) == 150
    ready = wait_until(lambda: (got := readiness(lacks.health)).status_code == 503 and got, "it is not ready")
    assert new in ready.text and ready.json()["errors"][0]["code"] == 1471
    assert any("ERROR" in line and new in line for line in lacks.log_path.read_text().splitlines())
    # Each process looks in its own time, so that one may be ahead of the others.
    sealing = f"SELECT count(*) FROM key_holders WHERE sealing_id = '{new}'"
    wait_until(lambda: cluster.number(sealing) == 3, "every worker knows which master key is the current one")
    sealed_by_old = status(machine)[old]["sealed_records"]
    make(zone, 60)
    assert status(machine)[old]["sealed_records"] == sealed_by_old, "who knows the new one seals with no other"

    shutil.copy(one.directory / f"master-{new}.key", lacks.directory)
    lacks.process.send_signal(signal.SIGHUP)
    wait_until(lacks.is_ready, "it has the master key now")
    machine.ok("keys", "reseal")
    machine.ok("keys", "retire", old)
    assert "all 240 sealed records" in machine.ok("keys", "check")
    assert cluster.number("SELECT sum(attempts) FROM custom_csrs") == 0
    assert cluster.number("SELECT count(DISTINCT spki_sha256) FROM custom_csrs") == 240
    make(zone, 30)


class Gate:
    """Lets the transactions that seal records anew through one by one: each waits in the database until it may go on."""

    LOCK = 4711

    def __init__(self, cluster):
        self.cluster = cluster
        cluster.postgres.sql(
            cluster.database,
            "CREATE FUNCTION test_gate() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN PERFORM pg_advisory_xact_lock_shared({self.LOCK}); RETURN NEW; END $$;"
            "CREATE TRIGGER test_gate BEFORE UPDATE ON custom_csrs FOR EACH ROW "
            "WHEN (OLD.master_key_id IS DISTINCT FROM NEW.master_key_id AND OLD.master_key_id IS NOT NULL) EXECUTE FUNCTION test_gate()",
        )
        url = cluster.postgres.url(cluster.database)
        self.psql = subprocess.Popen([cluster.postgres.bin / "psql", "-At", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask(f"SELECT pg_advisory_lock({self.LOCK})")

    def ask(self, statement: str) -> str:
        self.psql.stdin.write(f"{statement};\n\\echo end\n")
        self.psql.stdin.flush()
        lines = []
        while (line := self.psql.stdout.readline().strip()) != "end":
            assert self.psql.poll() is None, lines
            lines.append(line)
        return "\n".join(lines)

    def waiting(self) -> int:
        return int(self.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))

    def step(self) -> None:
        """Lets through what waits; what comes afterwards queues behind."""
        self.ask(f"SELECT pg_advisory_unlock({self.LOCK}), pg_advisory_lock({self.LOCK})")

    def close(self) -> None:
        self.psql.kill()
        self.psql.wait()
        self.cluster.postgres.sql(self.cluster.database, "DROP FUNCTION test_gate() CASCADE")


@contextmanager
def gate(cluster):
    gate = Gate(cluster)
    try:
        yield gate
    finally:
        gate.close()


@pytest.mark.parametrize("records", [1_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_sealing_anew_is_killed_five_times_while_the_api_serves_and_every_record_opens_afterwards(new_cluster, record_property, records):  # noqa: F811
    cluster = new_cluster(apis=1, workers=2)
    zone = cluster.apis[0].tenant("zone", quota=2 * records)
    # A batch has 50 records: the kills are spread over all of them.
    patience, batches = 60 + records // 50, records // 300
    machine, made = Machine(cluster, cluster.workers[0].directory), make(zone, records, seconds=60 + patience)
    (old,), new = status(machine), new_key(machine)
    shutil.copy(cluster.workers[0].directory / f"master-{new}.key", cluster.workers[1].directory)
    wait_until(lambda: len(status(machine)[new]["workers"]) == 2, "all have it")
    machine.ok("keys", "use", new)
    left = [cluster.number(f"SELECT count(*) FROM custom_csrs WHERE master_key_id = '{old}'")]
    command = [binary(), "keys", "reseal", "--data-dir", str(machine.data_dir)]
    with gate(cluster) as held:
        for round_number in range(5):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=cluster.worker_env)
            try:
                for batch in range(batches):
                    wait_until(held.waiting, "a transaction waits", 60)
                    if batch < batches - 1:
                        held.step()
                assert process.poll() is None
            finally:
                process.kill()
                process.wait()
            # The last ones are sealed anew at the end: nobody has them yet.
            assert zone.request("DELETE", f"/{made.pop()}").status == 200
            make(zone, 2)
            wait_until(lambda: held.step() or not held.waiting(), "nothing of the dead process is left", 60)
            left.append(cluster.number(f"SELECT count(*) FROM custom_csrs WHERE master_key_id = '{old}'"))
            assert 0 < left[-1] < left[-2], left
        refused(machine.run("keys", "retire", old), 1, "csrd keys reseal")
    began = time.monotonic()
    machine.ok("keys", "reseal", seconds=patience)
    resealed = time.monotonic()
    machine.ok("keys", "retire", old)
    assert f"all {records + 5} sealed records" in machine.ok("keys", "check", seconds=patience), left
    record_property("figures", f"left after each kill {left}; the rest in {resealed - began:.1f} s, all opened in {time.monotonic() - resealed:.1f} s")
    assert cluster.number("SELECT count(DISTINCT spki_sha256) FROM custom_csrs") == zone.total() == records + 5
    assert {row["id"] for row in zone.all()} >= set(made)
