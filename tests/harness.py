"""Runs the csrd binary and speaks to it, as an operator and as a client."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import document
import httpx

ROOT = Path(__file__).resolve().parent.parent
TABLE = {row["code"]: row for row in json.loads((ROOT / "shared/tests/data/status-codes.json").read_text())}
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The shared secret of tests with one.
SECRET = "0123456789abcdef0123456789abcdef"


def binary() -> Path:
    """The csrd under test."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Path(os.environ.get("CSRD_BIN", target / "debug/csrd")).resolve()


def environment(**extra: str) -> dict[str, str]:
    """The environment without settings of csrd, but for those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CSRD_", "RUST_"))}
    return kept | extra


def wait_until(condition, what: str, seconds: float = 30.0):
    """Polls until `condition` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def subject(**changes) -> dict:
    """The body of a valid request for a custom CSR; a member changed to `...` is left out."""
    body = {
        "country": "US",
        "state": "California",
        "locality": "San Francisco",
        "organization": "Acme Widgets",
        "common_name": "www.acme-widgets.com",
        "sans": ["www.acme-widgets.com"],
        "key_type": "p256v1",
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


def check_envelope(status: int, headers, content: bytes) -> dict:
    """What the contract says of every response, whatever its status; returns the envelope."""
    assert ID.fullmatch(headers.get("X-Request-Id") or ""), dict(headers)
    assert headers.get("Content-Type", "").split(";")[0] == "application/json", dict(headers)
    envelope = json.loads(content)
    assert set(envelope) - {"result_info"} == {"success", "errors", "messages", "result"}, envelope
    assert envelope["success"] is (status < 400), envelope
    for entry in envelope["errors"] + envelope["messages"]:
        assert set(entry) - {"source"} == {"code", "message"}, entry
        assert set(entry.get("source", {"pointer": ""})) in ({"pointer"}, {"parameter"}, {"header"}), entry
        assert isinstance(entry["code"], int) and isinstance(entry["message"], str), entry
    if envelope["success"]:
        assert envelope["errors"] == [], envelope
    else:
        assert envelope["errors"] and envelope["result"] is None and "result_info" not in envelope, envelope
        assert [e["code"] for e in envelope["errors"]] == sorted(e["code"] for e in envelope["errors"]), envelope
        first = envelope["errors"][0]["code"]
        if first in TABLE:
            assert status == TABLE[first]["status"], envelope
    for error in envelope["errors"]:
        check_message(error)
    return envelope


def check_message(error: dict) -> None:
    """The documented texts, to the letter."""
    row = TABLE.get(error["code"])
    if row is None:
        return
    if "reasons" in row:
        reasons = "|".join(re.escape(reason).replace("%q", '"[^"]*"') for reason in row["reasons"])
        pattern = re.escape(row["message"]).replace(":reason", f"({reasons})")
    else:
        pattern = re.escape(row["message"].replace("%d", str(row.get("d"))))
    assert re.fullmatch(pattern, error["message"]), error


def codes(envelope: dict) -> list[int]:
    """The numbers of the errors."""
    return [error["code"] for error in envelope["errors"]]


def faults(envelope: dict) -> list[tuple[int, str | None]]:
    """The numbers of the errors, with what they point at."""
    return [(error["code"], error.get("source", {}).get("pointer")) for error in envelope["errors"]]


@dataclass
class Answer:
    """A response that was checked to be in the envelope."""

    status: int
    headers: httpx.Headers
    content: bytes
    envelope: dict

    @property
    def result(self):
        return self.envelope["result"]


class Tenant:
    """A zone or an account that was granted custom CSRs, with a token for it."""

    def __init__(self, service: "Csrd", kind: str, tenant_id: str, token: str, prefix: str = "/api/v4"):
        self.service, self.kind, self.id, self.token = service, kind, tenant_id, token
        self.path = f"{prefix}/{kind}s/{tenant_id}/custom_csrs"

    def request(self, method: str, suffix: str = "", **arguments) -> Answer:
        arguments.setdefault("token", self.token)
        return self.service.request(method, self.path + suffix, **arguments)

    def create(self, **changes) -> dict:
        """Creates a custom CSR, which has to be accepted."""
        answer = self.request("POST", json=subject(**changes))
        assert answer.status == 201, answer
        assert answer.result["status"] == "pending", answer
        return answer.result

    def get(self, csr_id: str) -> dict:
        answer = self.request("GET", f"/{csr_id}")
        assert answer.status == 200, answer
        return answer.result

    def wait_active(self, csr_id: str, seconds: float = 60.0) -> dict:
        """Reads a custom CSR until it is no longer pending: it has to be active then."""

        def decided():
            result = self.get(csr_id)
            return result if result["status"] != "pending" else None

        result = wait_until(decided, f"{csr_id} is no longer pending", seconds)
        assert result["status"] == "active", result
        return result

    def total(self, **query) -> int:
        return self.page(per_page=5, **query).envelope["result_info"]["total_count"]

    def all(self, page: Callable[..., Answer] | None = None) -> list[dict]:
        """Every custom CSR, oldest first, so that new ones do not shift pages; `page` reads one in another way."""
        rows, number, page = [], 1, page or self.page
        while found := page(per_page=50, page=number, direction="asc").result:
            rows, number = rows + found, number + 1
        return rows

    def page(self, **query) -> Answer:
        answer = self.request("GET", params=query)
        assert answer.status == 200, answer
        return answer


class Csrd:
    """A csrd process with a data directory of its own, which outlives the process."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        listen: str | None = "127.0.0.1:0",
        env: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data_dir = directory / "data"
        self.arguments = [*(["--listen", listen] if listen else []), *arguments]
        self.env = environment(**(env or {}))
        # Log of every start, one after the other.
        self.log_path = directory / "stderr.log"
        self.stdout_path = directory / "stdout.log"
        self.process: subprocess.Popen | None = None
        self.address = ""
        # What a client needs to trust it, if it serves HTTPS.
        self.tls = tls
        self.client = self.new_client()

    def new_client(self, **options) -> httpx.Client:
        """A client without connections; without `http2` it speaks HTTP/1.1."""
        return httpx.Client(trust_env=False, timeout=30.0, verify=self.tls or False, **options)

    def start(self, *, ready: bool = True, seconds: float = 60.0) -> "Csrd":
        """Starts `csrd serve` and waits until it listens, and is ready too unless told otherwise."""
        return self.spawn().wait_listening(ready=ready, seconds=seconds)

    def spawn(self, *command) -> "Csrd":
        """Starts a process: `csrd serve`, unless another command is given."""
        assert self.process is None, "already running"
        self.start_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        command = command or (binary(), "serve", "--data-dir", self.data_dir, *self.arguments)
        with self.log_path.open("ab") as stderr, self.stdout_path.open("ab") as stdout:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=self.env, cwd=self.directory
            )
        return self

    def wait_listening(self, *, ready: bool = True, seconds: float = 60.0) -> "Csrd":
        def listening():
            self.check_runs()
            return re.search(rf"listening on {self.scheme}://([0-9A-Za-z.:\[\]]+)", self.log_of_this_start())

        self.address = wait_until(listening, "csrd names its address", seconds).group(1)
        if ready:
            wait_until(lambda: self.check_runs() and self.is_up("/health/ready"), "csrd is ready", seconds)
        return self

    def check_runs(self) -> bool:
        """Fails at once where the process has ended by itself, or was ended by somebody else."""
        assert self.process.poll() is None, f"csrd ended with {self.process.returncode}: {self.log_of_this_start()[-2000:]}"
        return True

    def is_up(self, path: str = "/health/live") -> bool:
        try:
            return self.client.get(self.url + path).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_of_this_start(self) -> str:
        return self.log_path.read_bytes()[self.start_offset :].decode(errors="replace")

    def output(self) -> str:
        """Everything that was printed, on both streams."""
        return self.stdout_path.read_text(errors="replace") + self.log()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 60.0) -> int:
        """Waits for the end; returns the exit status."""
        status = self.process.wait(seconds)
        self.process = None
        self.client.close()
        self.client = self.new_client()
        return status

    def stop(self) -> int:
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def close(self) -> None:
        """Ends whatever still runs."""
        if self.process is not None:
            self.kill()
        self.client.close()

    def run(self, *arguments: str, env: dict[str, str] | None = None, data_dir: bool = True) -> subprocess.CompletedProcess:
        """Runs another command of csrd on the same data directory."""
        where = ["--data-dir", str(self.data_dir)] if data_dir else []
        return run(*arguments, *where, cwd=self.directory, env=env)

    def ok(self, *arguments: str) -> str:
        """Runs a command that has to succeed; returns its standard output."""
        done = self.run(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def token(self, *arguments: str) -> str:
        return self.ok("token", "issue", *arguments).strip()

    def tenant(self, kind: str = "zone", quota: int | None = 1000, **arguments) -> Tenant:
        """Grants custom CSRs to a new zone or account and issues a token for it."""
        tenant_id = f"{kind}-{uuid.uuid4().hex}"
        self.ok(kind, "grant", tenant_id, *([] if quota is None else ["--quota", str(quota)]))
        return Tenant(self, kind, tenant_id, self.token(f"--{kind}", tenant_id), **arguments)

    def request(self, method: str, path: str, *, token: str | None = None, headers: dict | None = None, **arguments) -> Answer:
        """One request, whose answer has to be in the envelope, and such as the OpenAPI document tells of."""
        headers = dict(headers or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        response = self.client.request(method, self.url + path, headers=headers, **arguments)
        envelope = check_envelope(response.status_code, response.headers, response.content)
        document.committed(ROOT / "openapi.yaml").check(method, path, response.status_code, response.headers, envelope)
        return Answer(response.status_code, response.headers, response.content, envelope)

    @contextmanager
    def connection(self, seconds: float = 30.0):
        """A bare connection."""
        with socket.create_connection(self.host_and_port, timeout=seconds) as connection:
            yield connection


def run(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None, seconds: float = 60) -> subprocess.CompletedProcess:
    """Runs the binary to its end."""
    command = [str(binary()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment(**(env or {})), cwd=cwd, check=False)


def half_close(connection: socket.socket) -> None:
    """Says that nothing more comes; the server may have closed the connection already."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def read_response(connection: socket.socket, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes] | None:
    """Reads one HTTP response; none where the server closed the connection without one."""
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        return response.status, response.headers, response.read()
    except (http.client.BadStatusLine, http.client.IncompleteRead, ConnectionError):
        return None
    finally:
        response.close()


def send_raw(service: Csrd, request: bytes, method: str = "GET", *, half: bool = False) -> tuple[int, http.client.HTTPMessage, bytes] | None:
    """Sends bytes as they are, half of a request if so told, and reads one response. A server may answer before it has read everything."""
    with service.connection() as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        if half:
            half_close(connection)
        return read_response(connection, method)


def send(service: Csrd, method: str, target: str, *, headers: dict | None = None, body: bytes = b"") -> Answer:
    """A request as it stands, with no client between; its answer has to be in the envelope."""
    fields = {"Host": service.address, "Connection": "close"} | (headers or {})
    if body:
        fields.setdefault("Content-Length", str(len(body)))
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    response = send_raw(service, head.encode() + body, method)
    assert response is not None, "the connection was closed without an answer"
    return Answer(response[0], response[1], response[2], check_envelope(*response))


def bearer(tenant: Tenant) -> dict[str, str]:
    """The header that authenticates."""
    return {"Authorization": f"Bearer {tenant.token}"}


def refused(done: subprocess.CompletedProcess, status: int | None, *words: str) -> None:
    """One clear line on standard error, which has one of the words, and nothing on standard output."""
    assert done.stdout == "" and done.stderr.endswith("\n") and done.stderr.count("\n") == 1, done
    assert not words or any(word in done.stderr for word in words), done
    assert "panicked" not in done.stderr, done
    assert done.returncode == status if status is not None else done.returncode not in (0, 101), done
