"""What the attacks have in common: chance that can be repeated, a look at the process, raw requests."""

import os
import random
import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import Csrd, Tenant, check_envelope, half_close, read_response, wait_until

# Another seed makes other attacks: `HOSTILE_SEED=7`.
SEED = int(os.environ.get("HOSTILE_SEED", "1"))


def chance(name: str) -> random.Random:
    """Random choices that are the same in every run with the same seed, which is printed if the test fails."""
    print(f"{name}: repeat with HOSTILE_SEED={SEED}")
    return random.Random(f"{SEED} {name}")


def memory_mib(csrd: Csrd) -> float:
    """What the process holds in memory, in MiB."""
    (line,) = [line for line in Path(f"/proc/{csrd.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def cpu_secs(csrd: Csrd) -> float:
    """The processor time that the process has used."""
    fields = Path(f"/proc/{csrd.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_unharmed(csrd: Csrd, began: int = 0) -> None:
    """The process runs and is ready; since the log had `began` bytes nothing panicked and no request was answered with 5xx."""
    assert csrd.check_runs() and csrd.is_up("/health/ready")
    log = csrd.log_path.read_bytes()[began:]
    assert b"panicked" not in log, log[-4000:]
    assert not (failed := re.findall(rb'.*status"?[=:]5\d\d.*', log)), failed[:5]


@contextmanager
def under_attack(directory: Path) -> Iterator[Csrd]:
    """A csrd with a zone, `zone`. What is done to it leaves it unharmed, and its memory about as it was."""
    csrd = Csrd(directory, "--key-pool-size", "0", "--max-pending", "100000", "--auth-failure-limit", "0").start()
    try:
        csrd.zone = csrd.tenant(quota=100_000)
        for _ in range(20):
            csrd.zone.create()
        before = memory_mib(csrd)
        yield csrd
        check_unharmed(csrd)
        wait_until(lambda: csrd.is_up() and memory_mib(csrd) < before + 50, f"memory is about the {before:.0f} MiB that it was", 60)
    finally:
        csrd.close()


def can_work(zone: Tenant) -> None:
    """The service still makes a custom CSR and deletes it."""
    csr_id = zone.create()["id"]
    zone.wait_active(csr_id)
    assert zone.request("DELETE", f"/{csr_id}").status == 200


def exchange(csrd: Csrd, *pieces: bytes, expected: int = 1, seconds: float = 60.0) -> list[tuple[int, object, bytes]]:
    """
    Sends pieces as they are; returns every response until the server closes the connection.

    It closes when the client has said that nothing more comes, which is not before the `expected` responses are there: what a client asked
    for that leaves is not answered. With none expected, what comes within a moment is taken, and what does not is not waited for.
    """
    with csrd.connection(seconds) as connection:
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        # A stream of its own for all: a response's reader would take bytes of the next with it.
        reader, responses = Unclosed(connection), []
        while True:
            if not reader.has_more(seconds / 2 if len(responses) < expected else 0.3 if expected == 0 else 0.1):
                half_close(connection)
            if (response := read_response(reader)) is None:
                return responses
            # An interim response is none (RFC 9110, 15.2): the reader passes over it.
            responses.append(response)


class Unclosed:
    """A socket whose reader outlives the response that is read with it."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.file = connection.makefile("rb")
        self.file.close = lambda: None

    def makefile(self, *_):
        return self.file

    def has_more(self, seconds: float) -> bool:
        """Whether something comes within so many seconds, the end of the connection too."""
        timeout = self.connection.gettimeout()
        # The stream may have read it already; `peek` would wait for a whole buffer's worth otherwise.
        self.connection.setblocking(False)
        try:
            if self.file.peek(1):
                return True
        finally:
            self.connection.settimeout(timeout)
        return bool(select.select([self.connection], [], [], seconds)[0])


def check_refusal(response: tuple[int, object, bytes]) -> dict | None:
    """A refusal is in the envelope, unless it is the HTTP parser's own, which has no body; returns the envelope."""
    status, headers, content = response
    assert 400 <= status < 500, response
    if not content:
        assert status in (400, 414, 431), response
        return None
    return check_envelope(status, headers, content)
