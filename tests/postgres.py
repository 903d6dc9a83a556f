"""A PostgreSQL of the tests' own, which they may stop, and a proxy to it that cuts connections."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """A server in a directory of its own, on a free port, run by a user who is not root."""

    def __init__(self, *, tls: tuple[Path, Path] | None = None):
        """With `tls`, a certificate and its key, it takes no connection without TLS."""
        self.bin = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])).parent
        self.directory = Path(tempfile.mkdtemp(prefix="csrd-postgres-"))
        self.port = free_port()
        if os.getuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        self._run("initdb", "--pgdata", "data", "--username", "csrd", "--auth", "trust")
        self.settings = ""
        if tls:
            for source, name in zip(tls, ("server.crt", "server.key"), strict=True):
                shutil.copy(source, self.directory / name)
                (self.directory / name).chmod(0o600)
                if os.getuid() == 0:
                    shutil.chown(self.directory / name, "postgres", "postgres")
            self.settings = f" -c ssl=on -c ssl_cert_file={self.directory}/server.crt -c ssl_key_file={self.directory}/server.key"
            (self.directory / "data/pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\nlocal all all trust\n")
        self.start()

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self.bin / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "--user", "postgres", "--", *command]
        # A server inherits the streams of pg_ctl: a pipe would stay open as long as it runs.
        with (self.directory / "commands.log").open("a+") as log:
            begin = log.tell()
            done = subprocess.run(command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=90, check=False)
            log.seek(begin)
            output = log.read()
        assert done.returncode == 0, output
        return output

    def start(self) -> None:
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c max_connections=200{self.settings}"
        self._run("pg_ctl", "--pgdata", "data", "--log", "log", "--wait", "--options", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "--pgdata", "data", "--mode", mode, "--wait", "stop")

    def freeze(self) -> None:
        """Stops it from answering, with all its connections open."""
        postmaster = int((self.directory / "data/postmaster.pid").read_text().splitlines()[0])
        # It first: awake it might start others.
        os.kill(postmaster, signal.SIGSTOP)
        children = subprocess.run(["pgrep", "--parent", str(postmaster)], capture_output=True, text=True, check=True).stdout.split()
        self.frozen = [postmaster, *map(int, children)]
        for process in self.frozen[1:]:
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in reversed(self.frozen):
            os.kill(process, signal.SIGCONT)

    def create_database(self) -> str:
        """The name of a new database."""
        name = f"test_{uuid.uuid4().hex}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name

    def url(self, name: str, port: int | None = None, *, role: str = "csrd") -> str:
        return f"postgres://{role}@127.0.0.1:{port or self.port}/{name}"

    def sql(self, name: str, statement: str, *, role: str = "csrd") -> str:
        """What a statement gives, without decoration and without the server's remarks."""
        database = f"dbname={name} options='-c client_min_messages=error'"
        return self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", role, "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc", statement)

    def notifications(self, name: str, channel: str, seconds: int) -> list[tuple[int, str]]:
        """What a channel gets within this time: the server process that sent it, and the payload."""
        statements = ["-c", f"LISTEN {channel}", "-c", f"SELECT pg_sleep({seconds})"]
        told = self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "csrd", "-d", name, "-At", *statements)
        return [(int(pid), payload) for payload, pid in re.findall(r'with payload "(.*)" received from server process with PID (\d+)', told)]

    def close(self) -> None:
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


class CuttingProxy:
    """Passes bytes on to a port and cuts a connection after a random number of them; and one COMMIT in ten before its answer, so that
    the server has done it (or does it) and the client does not know."""

    def __init__(self, target: int, seed: int = 1):
        self.target, self.random, self.cuts, self.commits_cut, self.cutting = target, random.Random(seed), 0, 0, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            # From the handshake to some hundred statements.
            budget = [self.random.randrange(500, 60_000)]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink, budget), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, budget: list[int]) -> None:
        try:
            while data := source.recv(4096):
                budget[0] -= len(data)
                if self.cutting and budget[0] < 0:
                    self.cuts += 1
                    break
                # Without TLS, statements can be read: this one is a simple query.
                is_cut_commit = self.cutting and b"COMMIT\0" in data and self.random.random() < 0.1
                if is_cut_commit:
                    # The other direction ends as well, or the answer may come through.
                    self.commits_cut += 1
                    source.shutdown(socket.SHUT_WR)
                sink.sendall(data)
                if is_cut_commit:
                    # The server reads on what it was sent before the end.
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        self.listener.close()
