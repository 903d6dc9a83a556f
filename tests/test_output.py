"""What commands say: whoever reads it may stop, or never read at all; what cannot be written is an error."""

import fcntl
import os
import resource
import signal
import sqlite3
import stat
import subprocess
from contextlib import closing

import pytest
from harness import binary, environment, refused, run, wait_until

COMMANDS = [
    ["openapi"], ["migrate"], ["keys", "init"], ["keys", "check"], ["zone", "list"], ["zone", "grant", "z", "--quota", "1"],
    ["zone", "revoke", "demo"], ["account", "list"], ["audit"], ["token", "issue", "--zone", "demo"], ["backup", "copy.db"],
]  # fmt: skip


@pytest.fixture
def stopped(new_csrd):
    """A data directory that has everything, without a process on it."""
    csrd = new_csrd("--key-pool-size", "0").start()
    csrd.ok("account", "grant", "a", "--quota", "1")
    assert csrd.stop() == 0
    return csrd


def run_on(csrd, command, **streams) -> subprocess.CompletedProcess:
    where = [] if command == ["openapi"] else ["--data-dir", csrd.data_dir]
    return subprocess.run([binary(), *command, *where], env=environment(), cwd=csrd.directory, timeout=60, text=True, **streams)


def pipe_without_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more, since nobody reads it."""
    reading, writing = os.pipe()
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    fcntl.fcntl(writing, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    for size in (4096, 1):
        try:
            while True:
                os.write(writing, b"x" * size)
        except BlockingIOError:
            pass
    fcntl.fcntl(writing, fcntl.F_SETFL, flags)
    return reading, writing


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_whose_reader_left_does_its_work_and_ends_quietly(stopped, command):
    stdout = pipe_without_reader()
    done = run_on(stopped, command, stdout=stdout, stderr=subprocess.PIPE)
    os.close(stdout)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(stopped, command):
    with open("/dev/full", "w") as stdout:
        done = run_on(stopped, command, stdout=stdout, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "standard output" in done.stderr, done


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["serve", "--listen", "nonsense"], 2), (["--no-such-option"], 2), (["zone", "list"], 1), (["zone", "revoke", "z"], 1)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
@pytest.mark.parametrize("reader", ["left", "stopped"])
def test_an_error_that_nobody_reads_ends_the_process_with_its_status_all_the_same(tmp_path, arguments, status, reader):
    reading, stderr = (None, pipe_without_reader()) if reader == "left" else full_pipe()
    done = subprocess.run([binary(), *arguments], stderr=stderr, stdout=subprocess.PIPE, env=environment(), cwd=tmp_path, timeout=20)
    for end in (reading, stderr):
        if end is not None:
            os.close(end)
    assert (done.returncode, done.stdout) == (status, b"")


def test_a_service_whose_first_lines_nobody_can_read_goes_on_without_a_panic(new_csrd):
    csrd = new_csrd()
    stdout, log = pipe_without_reader(), csrd.directory / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [binary(), "serve", "--data-dir", csrd.data_dir, "--listen", "127.0.0.1:0"], stdout=stdout, stderr=stderr, env=environment()
        )
    os.close(stdout)
    try:
        wait_until(lambda: "listening on" in log.read_text(), "it listens")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert "panicked" not in log.read_text()


def test_an_error_shows_what_a_terminal_would_act_on(tmp_path):
    done = run("keys", "check", "--data-dir", tmp_path / "\x1b[31m\u202ered")
    refused(done, 1, "\\u001b[31m\\u202ered")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["sreve"], "serve"),
        (["zone", "gran"], "grant"),
        (["serve", "--data-dri", "x"], "--data-dir"),
        (["serve", "--log-format", "jsn"], "json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_slip_of_the_keyboard_is_told_what_was_meant(tmp_path, arguments, meant):
    refused(run(*arguments, cwd=tmp_path), 2, f"did you mean {meant}?")


# Backups


def limit_files(size: int, on_excess):
    """A limit for the files that a command writes: beyond it, it is killed, or is told that there is no room."""

    def limit():
        signal.signal(signal.SIGXFSZ, on_excess)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


@pytest.mark.parametrize("end", ["killed", "no room"])
def test_a_backup_that_does_not_come_to_its_end_leaves_no_file_of_its_name(stopped, end):
    # More than SQLite's files beside the database, less than the database.
    size = 64 * 1024
    assert (stopped.data_dir / "csrd.db").stat().st_size > size
    backups = stopped.directory / "backups"
    backups.mkdir()
    limit = limit_files(size, signal.SIG_DFL if end == "killed" else signal.SIG_IGN)
    done = run_on(stopped, ["backup", backups / "copy.db"], capture_output=True, preexec_fn=limit)
    if end == "killed":
        assert done.returncode == -signal.SIGXFSZ, done
        assert not (backups / "copy.db").exists()
    else:
        refused(done, 1, "copy.db")
        assert list(backups.iterdir()) == []
    # Nothing is in the way of the next one.
    assert run_on(stopped, ["backup", backups / "copy.db"], capture_output=True).returncode == 0
    assert stat.S_IMODE((backups / "copy.db").stat().st_mode) == 0o600
    with closing(sqlite3.connect(backups / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT COUNT(*) FROM scopes").fetchone()[0] > 0


def test_a_backup_never_overwrites_a_file_nor_follows_a_link(stopped):
    for name in ("there", "link"):
        (stopped.directory / "there").write_text("mine")
        if name == "link":
            (stopped.directory / name).symlink_to("elsewhere")
        refused(run_on(stopped, ["backup", name], capture_output=True), 1, name)
    assert (stopped.directory / "there").read_text() == "mine" and not (stopped.directory / "elsewhere").exists()
    refused(run_on(stopped, ["backup", "none/copy"], capture_output=True), 1, "none/copy")


# Places


@pytest.mark.parametrize("command", [["serve", "--listen", "127.0.0.1:0"], ["migrate"], ["zone", "list"]], ids=" ".join)
def test_a_data_directory_whose_name_is_not_utf_8_is_a_bad_setting_and_nothing_is_made(tmp_path, command):
    place = os.fsencode(tmp_path) + b"/\xff\xfe"
    done = subprocess.run([binary(), *command, "--data-dir", place], env=environment(), capture_output=True, text=True, timeout=60)
    refused(done, 2, "--data-dir")
    assert list(tmp_path.iterdir()) == []


def test_a_database_and_a_data_directory_that_others_can_change_are_warned_of(stopped):
    database = stopped.data_dir / "csrd.db"
    stopped.start()
    assert "chmod" not in stopped.log_of_this_start()
    assert stopped.stop() == 0
    for path, mode, command in [
        (stopped.data_dir, 0o777, "chmod 700"), (stopped.data_dir, 0o770, "chmod 700"),
        (database, 0o666, "chmod 600"), (database, 0o604, "chmod 600"), (database, 0o620, "chmod 600"),
    ]:  # fmt: skip
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        stopped.start()
        assert any("WARN" in line and f"{command} {path}" in line for line in stopped.log_of_this_start().splitlines()), oct(mode)
        assert stopped.stop() == 0
        path.chmod(before)


def test_a_secret_that_its_group_can_read_is_warned_of_once_however_often_it_is_read(new_csrd, secret_file):
    secret_file.chmod(0o640)
    csrd = new_csrd("--jwt-secret-file", str(secret_file), "--log-level", "info").start()
    for secret in ("1" * 40, "2" * 40):
        secret_file.write_text(secret)
        csrd.process.send_signal(signal.SIGHUP)
        wait_until(lambda: csrd.log().count("loaded anew") == int(secret[0]), "the keys are loaded anew")
    assert csrd.log().count("the group of a file with a secret can read it") == 1


# The master key in memory


def locked_kib(csrd) -> int:
    with open(f"/proc/{csrd.process.pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmLck:")]
    return int(line.split()[1])


def test_the_master_key_is_locked_in_memory_where_the_limit_allows(new_csrd):
    csrd = new_csrd().start()
    assert locked_kib(csrd) > 0
    assert "locked in memory" not in csrd.log_of_this_start()
    assert csrd.stop() == 0
    # Root may lock whatever the limit says, unless it lacks the capability.
    bounded = ["setpriv", "--bounding-set=-ipc_lock"] if os.getuid() == 0 else []
    command = [*bounded, "prlimit", "--memlock=0", binary(), "serve", "--data-dir", csrd.data_dir, "--listen", "127.0.0.1:0"]
    csrd.spawn(*command).wait_listening()
    assert locked_kib(csrd) == 0
    (warning,) = [line for line in csrd.log_of_this_start().splitlines() if "locked in memory" in line]
    assert "WARN" in warning and "memlock" in warning.lower()
