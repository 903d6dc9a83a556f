"""What the attacks have in common: chance that can be repeated, a look at the process, raw requests."""

import os
import random
import re
import socket
from contextlib import suppress
from pathlib import Path

from harness import Csrd, Tenant, check_envelope, read_response

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


def check_unharmed(csrd: Csrd, began: int = 0) -> None:
    """The process runs and is ready; since the log had `began` bytes nothing panicked and no request was answered with 5xx."""
    assert csrd.check_runs() and csrd.is_up("/health/ready")
    log = csrd.log_path.read_bytes()[began:]
    assert b"panicked" not in log, log[-4000:]
    assert not (failed := re.findall(rb'.*status"?[=:]5\d\d.*', log)), failed[:5]


def can_work(zone: Tenant) -> None:
    """The service still makes a custom CSR and deletes it."""
    csr_id = zone.create()["id"]
    zone.wait_active(csr_id)
    assert zone.request("DELETE", f"/{csr_id}").status == 200


def exchange(csrd: Csrd, *pieces: bytes, seconds: float = 15.0) -> list[tuple[int, object, bytes]]:
    """Sends pieces as they are, then reads responses until the server closes the connection, which it has to in time."""
    with csrd.connection(seconds) as connection:
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        responses = []
        # A stream of its own for all: a response's reader would take bytes of the next with it.
        reader = Unclosed(connection)
        while response := read_response(reader):
            responses.append(response)
        return responses


class Unclosed:
    """A socket whose reader outlives the response that is read with it."""

    def __init__(self, connection: socket.socket):
        self.file = connection.makefile("rb")
        self.file.close, self.close = lambda: None, self.file.close

    def makefile(self, *_):
        return self.file


def check_refusal(response: tuple[int, object, bytes]) -> dict | None:
    """A refusal is in the envelope, unless it is the HTTP parser's own, which has no body; returns the envelope."""
    status, headers, content = response
    assert 400 <= status < 500, response
    if not content:
        assert status in (400, 414, 431), response
        return None
    return check_envelope(status, headers, content)
