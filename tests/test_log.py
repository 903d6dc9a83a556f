"""The log and the process: whoever reads it holds nothing up, no line of it is two, and no core file is left."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from harness import Csrd, Tenant, binary, environment, send_raw, wait_until
from postgres import free_port


class Unread:
    """A csrd whose standard error, and standard output, are pipes that nobody reads."""

    def __init__(self, directory, *arguments: str):
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [binary(), "serve", "--data-dir", directory / "data", "--listen", self.url.removeprefix("http://"), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=directory
        )

    def __enter__(self):
        self.client = httpx.Client(trust_env=False, timeout=5)
        wait_until(self.is_up, "it answers")
        return self

    def is_up(self) -> bool:
        with suppress(httpx.TransportError):
            return self.client.get(self.url + "/health/live").status_code == 200
        return False

    def __exit__(self, *_):
        self.client.close()
        self.process.kill()
        self.process.communicate()


def test_a_reader_of_the_log_that_stops_reading_holds_up_no_request_and_not_the_end(tmp_path):
    with Unread(tmp_path) as csrd:
        # Far more than a pipe and a queue of lines hold.
        begin = time.monotonic()
        for _ in range(25_000):
            assert csrd.client.get(csrd.url + "/nix").status_code == 404
            assert time.monotonic() - begin < 300, "it answers, but slowly"
        assert csrd.is_up()
        csrd.process.send_signal(signal.SIGTERM)
        assert csrd.process.wait(60) == 0


def test_lines_that_nobody_read_are_counted_once_somebody_reads(tmp_path):
    with Unread(tmp_path, "--log-format", "json") as csrd:
        for _ in range(25_000):
            csrd.client.get(csrd.url + "/nix")
        csrd.process.send_signal(signal.SIGTERM)
        _, log = csrd.process.communicate(timeout=60)
        lines = [json.loads(line) for line in log.decode().splitlines()]
        dropped = [line["message"] for line in lines if "lines dropped" in line.get("message", "")]
        assert dropped, lines[-1]
        count = sum(int(message.split()[0]) for message in dropped)
        answered = sum(line.get("message") == "answered" for line in lines)
        assert answered + count >= 25_000


def test_a_log_whose_reader_went_away_holds_nothing_up(tmp_path):
    with Unread(tmp_path) as csrd:
        csrd.process.stderr.close()
        csrd.process.stdout.close()
        for _ in range(200):
            assert csrd.client.get(csrd.url + "/nix").status_code == 404
        csrd.process.send_signal(signal.SIGTERM)
        assert csrd.process.wait(60) == 0
        csrd.process.stderr = csrd.process.stdout = None


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_of_the_log_is_one_line_of_printable_characters_whatever_a_path_has(new_csrd, form):
    csrd = new_csrd("--log-format", form, "--key-pool-size", "0").start()
    csrd.stop()
    csrd.start()
    odd = "\u009b31m\u0085\u2028\u2029\u202e\u2066\ufeff\u00ad"
    for path in (odd.encode(), "ü日本".encode(), b"\x80\xff", ("x" * 5000).encode()):
        send_raw(csrd, b"GET /" + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    csrd.request("GET", "/last")
    wait_until(lambda: "/last" in csrd.log_of_this_start(), "the last line is written")
    log = csrd.log_of_this_start()
    assert [hex(ord(c)) for c in odd + "\x1b" if not c.isprintable() and c in log] == []
    assert log.splitlines() == log.split("\n")[:-1]
    assert max(map(len, log.splitlines())) < 2000
    if form == "json":
        assert all(json.loads(line) for line in log.splitlines())


def test_a_start_says_what_runs_where_and_warns_of_the_demo_identity(new_csrd):
    csrd = new_csrd("--workers", "1", "--key-pool-size", "3").start()
    (line,) = [line for line in csrd.log().splitlines() if " starting " in line]
    for part in ("version=", str(csrd.data_dir), "csrd.db", csrd.address, "key_threads=1", "key_pool_size=3", "the demo identity"):
        assert part in line, line
    assert "WARN the demo identity is accepted" in csrd.log()
    assert "/health/ready" not in csrd.log(), "a probe is no news"


def test_a_process_leaves_no_core_file_and_no_file_that_others_can_read(new_csrd):
    csrd: Csrd = new_csrd().start()
    pid = csrd.process.pid
    (limit,) = [line for line in open(f"/proc/{pid}/limits") if line.startswith("Max core file size")]
    assert limit.split()[4:6] == ["0", "0"], limit
    with open(f"/proc/{pid}/status") as status:
        assert "Umask:\t0077\n" in status.read()
    # A process that is not dumpable belongs to root there, whoever runs it.
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0


@pytest.fixture
def of_nobody():
    """A directory that belongs to a user without any right, with csrd in it."""
    assert os.getuid() == 0, "this test becomes another user: run it as root"
    with tempfile.TemporaryDirectory(prefix="csrd-nobody-") as name:
        directory = Path(name)
        shutil.copy(binary(), directory / "csrd")
        shutil.chown(directory, "nobody")
        yield directory


def test_a_process_needs_neither_root_nor_a_capability_and_lets_nobody_of_its_user_look_into_it(of_nobody):
    def as_nobody(*command) -> list:
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--bounding-set=-all", "--no-new-privs", *command]

    def looked_into(pid: int) -> bool:
        # Reading the memory takes what attaching a debugger takes.
        return subprocess.run(as_nobody("head", "--bytes=0", f"/proc/{pid}/mem"), capture_output=True, check=False).returncode == 0

    csrd = Csrd(of_nobody)
    try:
        csrd.spawn(*as_nobody(of_nobody / "csrd", "serve", "--data-dir", csrd.data_dir, "--listen", "127.0.0.1:0")).wait_listening()
        issue = as_nobody(of_nobody / "csrd", "token", "issue", "--zone", "demo", "--data-dir", csrd.data_dir)
        zone = Tenant(csrd, "zone", "demo", subprocess.check_output(issue, text=True, env=environment()).strip())
        for key_type in ("rsa2048", "p256v1"):
            zone.wait_active(zone.create(key_type=key_type)["id"])
        status = Path(f"/proc/{csrd.process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+65534\s", status, re.MULTILINE) and re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert "WARN the master key" not in csrd.log() and "core file" not in csrd.log()
        assert not looked_into(csrd.process.pid)
        with subprocess.Popen(as_nobody("sleep", "60")) as other:
            try:
                wait_until(lambda: looked_into(other.pid), "another process of the user can be looked into")
            finally:
                other.kill()
        assert csrd.stop() == 0
    finally:
        csrd.close()
