"""A disk that fills up: clean refusals, nothing accepted is lost, nothing half-written stays, and room is all that is needed to go on."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from harness import Csrd, binary, codes, environment, subject, wait_until
from test_faults import settle


class Disk:
    """A small file system in a mount namespace of its own: nobody else sees it, and it goes with its last process."""

    def __init__(self, path: Path, size: str):
        assert os.getuid() == 0, "this test mounts a file system: run it as root"
        path.mkdir()
        self.path = path
        script = 'mount -t tmpfs -o "size=$2,mode=0700" tmpfs "$1" && echo mounted && exec sleep 300'
        self.holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", path, size], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "mounted\n"
        # The same files, seen from here.
        self.outside = Path(f"/proc/{self.holder.pid}/root{path}")

    def inside(self, *command) -> list:
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", *map(str, command)]

    def fill(self, keep: int = 0) -> None:
        """Leaves no room, or so many bytes."""
        with (self.outside / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        if keep:
            os.truncate(self.outside / "filler", max(0, (self.outside / "filler").stat().st_size - keep))

    def make_room(self) -> None:
        (self.outside / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


@pytest.fixture
def new_disk(tmp_path):
    made = []

    def make(size: str) -> Disk:
        made.append(Disk(tmp_path / f"disk {len(made)}", size))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


class OnDisk(Csrd):
    """A csrd whose data is on the small disk, and its log elsewhere."""

    def __init__(self, disk: Disk, directory: Path, *arguments: str):
        # A result that could not be stored is made again after the next sweep.
        super().__init__(directory, "--key-pool-size", "0", "--sweep-interval", "1s", *arguments)
        self.disk, self.data_dir = disk, disk.path / "data"

    def spawn(self, *command) -> "OnDisk":
        return super().spawn(*(command or self.disk.inside(binary(), "serve", "--data-dir", self.data_dir, *self.arguments)))

    def run(self, *arguments: str, env=None, data_dir=True) -> subprocess.CompletedProcess:
        command = self.disk.inside(binary(), *arguments, "--data-dir", self.data_dir)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.env | (env or {}), cwd=self.directory, check=False)

    def check_integrity(self) -> None:
        script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1], timeout=15).execute('PRAGMA integrity_check').fetchall())"
        command = self.disk.inside(sys.executable, "-c", script, self.data_dir / "csrd.db")
        assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "[('ok',)]\n"


@pytest.fixture
def new_on_disk(new_disk, tmp_path):
    made = []

    def make(size: str, *arguments: str) -> OnDisk:
        made.append(OnDisk(new_disk(size), tmp_path / f"csrd {len(made)}", *arguments))
        return made[-1]

    yield make
    for csrd in made:
        csrd.close()


def test_a_database_that_grows_until_the_disk_is_full_loses_nothing(new_on_disk, record_property):
    """Nothing fills it but what is accepted."""
    csrd = new_on_disk("5m").start()
    zone = csrd.tenant(quota=100_000)
    accepted, refused = set(), 0
    for _ in range(5000):
        answer = zone.request("POST", json=subject(description="x" * 1024, name="y" * 255))
        if answer.status == 201:
            accepted.add(answer.result["id"])
            continue
        assert codes(answer.envelope) == [1471] and "Retry-After" in answer.headers, answer
        refused += 1
        if refused == 3:
            break
    assert accepted and refused == 3
    # Who only reads notices nothing.
    assert zone.total() >= len(accepted) and zone.get(sorted(accepted)[0])["id"] in accepted
    assert csrd.is_up("/health/live")
    csrd.check_runs()
    # More room than was needed: the same disk, larger.
    subprocess.run(csrd.disk.inside("mount", "-o", "remount,size=64m", csrd.disk.path), check=True)
    wait_until(lambda: csrd.is_up("/health/ready"), "it is ready again", 90)
    rows = {row["id"]: row for row in settle(zone)}
    assert accepted <= set(rows) and {row["status"] for row in rows.values()} == {"active"}
    record_property("figures", f"{len(accepted)} accepted before the disk was full, all active; {len(rows) - len(accepted)} rows of refused requests")
    zone.wait_active(zone.create()["id"])
    csrd.check_integrity()
    assert "panicked" not in csrd.log() and csrd.stop() == 0


def test_a_disk_that_is_full_while_keys_are_made_fails_no_row(new_on_disk):
    csrd = new_on_disk("8m").start()
    zone = csrd.tenant(quota=1000)
    made = {zone.create(key_type="rsa2048" if number % 4 == 0 else "p256v1")["id"] for number in range(24)}
    csrd.disk.fill()
    answers = [zone.request("POST", json=subject()) for _ in range(3)]
    assert all(answer.status == 201 or codes(answer.envelope) == [1471] for answer in answers)
    made |= {answer.result["id"] for answer in answers if answer.status == 201}
    csrd.disk.make_room()
    rows = {row["id"]: row["status"] for row in settle(zone)}
    assert set(rows) >= made and set(rows.values()) == {"active"}
    assert "panicked" not in csrd.log() and csrd.stop() == 0


def test_a_process_that_is_killed_while_the_disk_is_full_goes_on_when_there_is_room(new_on_disk):
    csrd = new_on_disk("8m").start()
    zone = csrd.tenant(quota=1000)
    made = [zone.create()["id"] for _ in range(10)]
    csrd.disk.fill()
    zone.request("POST", json=subject())
    # The service itself, and not what entered the namespace for it: that became it.
    csrd.process.send_signal(signal.SIGKILL)
    csrd.wait()
    # Without room it says what is wrong, or works as far as it can.
    csrd.spawn()
    wait_until(lambda: csrd.process.poll() is not None or "listening on" in csrd.log_of_this_start(), "it starts or refuses to", 60)
    if csrd.process.poll() is not None:
        assert csrd.process.returncode == 1 and "panicked" not in csrd.log_of_this_start()
        csrd.wait()
    else:
        csrd.kill()
    csrd.disk.make_room()
    csrd.start()
    rows = {row["id"]: row["status"] for row in settle(zone)}
    assert set(rows) >= set(made) and set(rows.values()) == {"active"}
    csrd.ok("keys", "check")


SIZES = [0, 4096, *(pytest.param(size, marks=pytest.mark.slow) for size in (8192, 16_384, 32_768, 49_152)), 65_536, *(pytest.param(size, marks=pytest.mark.slow) for size in (98_304, 131_072, 524_288)), 262_144]


@pytest.mark.parametrize("command", ["serve", "keys init"])
@pytest.mark.parametrize("room", SIZES)
def test_a_first_start_on_a_full_disk_leaves_nothing_that_stands_in_its_way_later(new_on_disk, command, room):
    csrd = new_on_disk("2m")
    csrd.disk.fill(keep=room)
    if command == "serve":
        csrd.spawn()
        wait_until(lambda: csrd.process.poll() is not None or "listening on" in csrd.log(), "it starts or refuses to", 60)
        if csrd.process.poll() is None:
            csrd.kill()
        else:
            assert csrd.process.returncode == 1 and csrd.log().splitlines()[-1].startswith("csrd: "), csrd.log()
            csrd.wait()
    else:
        done = csrd.run("keys", "init")
        assert done.returncode in (0, 1) and "panicked" not in done.stderr, done
    data = csrd.disk.outside / "data"
    for name, size in (("master.key", 45), ("signing.key", 45)):
        if (data / name).exists():
            assert (data / name).stat().st_size == size, f"{name} is whole, or not there"
    key = (data / "master.key").read_bytes() if (data / "master.key").exists() else None
    csrd.disk.make_room()
    subprocess.run(csrd.disk.inside("mount", "-o", "remount,size=16m", csrd.disk.path), check=True)
    csrd.start()
    assert key in (None, (data / "master.key").read_bytes()), "a master key that was made is kept"
    zone = csrd.tenant()
    zone.wait_active(zone.create()["id"])
    assert "all 1 sealed records" in csrd.ok("keys", "check")
    assert [path.name for path in data.iterdir() if path.suffix == ".tmp"] == []
    assert csrd.stop() == 0


def test_a_backup_onto_a_full_disk_leaves_no_half_of_one(new_disk, new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant(quota=1000)
    for _ in range(20):
        zone.create(description="x" * 1024)
    disk = new_disk("100k")
    command = disk.inside(binary(), "backup", disk.path / "copy.db", "--data-dir", csrd.data_dir)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert done.returncode == 1 and "panicked" not in done.stderr and done.stderr.count("\n") == 1, done
    assert [path.name for path in disk.outside.iterdir()] == []
    assert csrd.check_runs() and settle(zone)


def test_a_log_on_a_full_disk_stops_nothing(new_disk, tmp_path):
    disk = new_disk("64k")
    csrd = Csrd(tmp_path / "csrd", "--log-level", "debug")
    # Opened here, it is the small disk's file all the same.
    csrd.log_path = disk.outside / "stderr.log"
    csrd.start()
    try:
        zone = csrd.tenant(quota=1000)
        disk.fill()
        made = [zone.create()["id"] for _ in range(100)]
        assert {row["id"] for row in settle(zone) if row["status"] == "active"} == set(made)
        assert csrd.stop() == 0
    finally:
        csrd.close()
