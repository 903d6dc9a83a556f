"""First starts: several at once, and those that are killed."""

import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from harness import Csrd, binary, wait_until
from postgres import Postgres
from test_faults import HASTE, Api, postgres  # noqa: F401

KEY_ID = re.compile(r"the database has the master key ([0-9a-f]{16})")


@pytest.fixture
def new_process(tmp_path):
    """Makes processes on one database, with an API or with workers alone."""
    made = []

    def make(name: str, *arguments: str, data_dir: Path | None = None, **env: str) -> Api:
        process = Api(tmp_path / name, *arguments, env={"CSRD_KEY_POOL_SIZE": "0"} | HASTE | env)
        process.data_dir = data_dir or process.data_dir
        made.append(process)
        return process

    yield make
    for process in made:
        process.close()


def new_database(kind: str, server: Postgres) -> dict[str, str]:
    """The setting for a database of its own: on SQLite none, it is a file in the data directory."""
    return {"CSRD_DATABASE_URL": server.url(server.create_database())} if kind == "postgres" else {}


def race(processes: list[Csrd]) -> tuple[list[Csrd], list[Csrd]]:
    """Starts all at once. Those that stay, and those that have refused: in one line each, with status 1."""
    for process in processes:
        process.spawn()

    def decided(process: Csrd) -> bool:
        return process.process.poll() is not None or "listening on" in process.log_of_this_start()

    wait_until(lambda: all(map(decided, processes)), "each listens or has refused", 120)
    staying = [process for process in processes if process.process.poll() is None]
    refused = [process for process in processes if process not in staying]
    for process in refused:
        assert process.wait() == 1, process.log()
        assert process.log().splitlines()[-1].startswith("csrd: ") and "panicked" not in process.log(), process.log()
    for process in staying:
        process.wait_listening()
    return staying, refused


def check_serves(process: Csrd) -> None:
    """The demo identity of a first start has a zone, and keys are made and sealed."""
    token = process.token("--zone", "demo")
    body = {"country": "US", "state": "California", "locality": "San Francisco", "organization": "Demo", "key_type": "p256v1"}
    body |= {"common_name": "www.csrd-demo.com", "sans": ["www.csrd-demo.com"]}
    answer = process.request("POST", "/api/v4/zones/demo/custom_csrs", token=token, json=body)
    assert answer.status == 201, answer
    path = f"/api/v4/zones/demo/custom_csrs/{answer.result['id']}"
    wait_until(lambda: process.request("GET", path, token=token).result["status"] == "active", "the custom CSR is active", 60)
    assert re.search(r"ok, all \d+ sealed records were opened", process.ok("keys", "check"))


def test_of_four_first_starts_at_once_in_one_directory_on_sqlite_one_stays_and_any_can_start_after_it(new_process):
    processes = [new_process("start 0")]
    processes += [new_process(f"start {number}", data_dir=processes[0].data_dir) for number in range(1, 4)]
    (stays,), refused = race(processes)
    assert all("in use by another csrd process" in process.log() for process in refused)
    check_serves(stays)
    assert stays.stop() == 0
    check_serves(refused[0].start())


def test_four_first_starts_at_once_on_one_postgresql_with_one_directory_share_its_master_key(postgres, new_process):  # noqa: F811
    name = postgres.create_database()
    url = {"CSRD_DATABASE_URL": postgres.url(name)}
    processes = [new_process("start 0", **url)]
    processes += [new_process(f"start {number}", data_dir=processes[0].data_dir, **url) for number in range(1, 4)]
    staying, refused = race(processes)
    assert not refused, refused[0].log()
    assert postgres.sql(name, "SELECT count(*) FROM master_keys").strip() == "1"
    check_serves(staying[0])
    check_serves(staying[-1])


def test_of_four_first_starts_at_once_on_one_postgresql_with_directories_of_their_own_one_stays(postgres, new_process):  # noqa: F811
    name = postgres.create_database()
    processes = [new_process(f"start {number}", CSRD_DATABASE_URL=postgres.url(name)) for number in range(4)]
    (stays,), refused = race(processes)
    current = postgres.sql(name, "SELECT id FROM master_keys").split()
    assert len(current) == 1
    for process in refused:
        assert KEY_ID.findall(process.log().splitlines()[-1]) == current, process.log()
        # One of its own would be in the way of the right one.
        assert not (process.data_dir / "master.key").exists()
    check_serves(stays)
    # It lacks nothing else.
    shutil.copy(stays.data_dir / "master.key", refused[0].data_dir / "master.key")
    check_serves(refused[0].start())


def test_a_worker_that_starts_beside_a_first_start_elsewhere_makes_no_master_key_of_its_own(postgres, new_process):  # noqa: F811
    name = postgres.create_database()
    worker = new_process("worker", "--health-listen", "127.0.0.1:0", CSRD_DATABASE_URL=postgres.url(name))
    serve = new_process("serve", CSRD_DATABASE_URL=postgres.url(name))
    worker.spawn(binary(), "worker", "--data-dir", worker.data_dir, *worker.arguments[2:])
    serve.start()
    assert worker.wait() == 1
    assert "master.key" in worker.log().splitlines()[-1] and not (worker.data_dir / "master.key").exists()
    check_serves(serve)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_after_a_first_start_that_was_killed_the_next_one_works(kind, postgres, new_process):  # noqa: F811
    chance = random.Random(kind)
    whole = new_process("whole", **new_database(kind, postgres))
    began = time.monotonic()
    whole.start()
    takes = time.monotonic() - began
    whole.close()
    for number in range(4):
        process = new_process(f"start {number}", **new_database(kind, postgres)).spawn()
        # From one moment to the next, as far as a whole start goes.
        time.sleep(takes * (number + chance.random()) / 4)
        process.kill()
        key = process.data_dir / "master.key"
        content = key.read_bytes() if key.exists() else None
        assert content is None or len(content) == 45
        check_serves(process.start())
        assert content in (None, key.read_bytes())
        process.close()


def holds_or_takes_sigterm(process: Csrd) -> bool:
    """Whether SIGTERM no longer ends it by itself; false once it has ended."""
    try:
        status = Path(f"/proc/{process.process.pid}/status").read_text()
    except FileNotFoundError:
        return False
    return any(int(mask, 16) & 1 << signal.SIGTERM - 1 for mask in re.findall(r"^Sig(?:Blk|Cgt):\s*([0-9a-f]+)$", status, re.MULTILINE))


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "worker"])
def test_a_first_start_that_is_told_to_stop_ends_in_order_at_any_moment(kind, postgres, new_process):  # noqa: F811
    arguments = []
    if kind == "worker":
        # What it needs is there.
        made = new_process("made", **new_database("postgres", postgres))
        made.ok("keys", "init")
        arguments = [binary(), "worker", "--data-dir", made.data_dir, "--database-url", made.env["CSRD_DATABASE_URL"]]
    for number, after in enumerate([0, 0.005, 0.02, 0.1] if kind == "sqlite" else [0, 0.05]):
        process = new_process(f"start {number}", **new_database(kind, postgres)).spawn(*arguments)
        deadline = time.monotonic() + 60
        # Until the first line of `main`, nobody but the kernel decides.
        while not holds_or_takes_sigterm(process):
            assert process.check_runs() and time.monotonic() < deadline
        time.sleep(after)
        assert process.stop() == 0, process.log()
        assert "panicked" not in process.log()
        if kind != "worker":
            secrets = {name: 45 for name in ("master.key", "signing.key") if (process.data_dir / name).exists()}
            assert {name: len((process.data_dir / name).read_bytes()) for name in secrets} == secrets
            assert not list(process.data_dir.glob(".*.tmp"))
    if kind != "worker":
        check_serves(process.start())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_first_start_that_was_killed_while_it_wrote_a_secret_is_in_nobody_s_way(kind, postgres, new_process):  # noqa: F811
    process = new_process("killed", **new_database(kind, postgres))
    process.data_dir.mkdir(mode=0o700)
    for name in ("signing.key", "master.key"):
        (process.data_dir / f".{name}.0123456789abcdef0123456789abcdef.tmp").write_bytes(b"ha")
    check_serves(process.start())
