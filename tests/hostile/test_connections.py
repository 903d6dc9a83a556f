"""2,000 connections of clients that do not read, do not write, or leave: others are served, memory comes back, and they are gone."""

import os
import resource
import socket
import statistics
import threading
import time
from contextlib import suppress

import httpx
import pytest
from attack import memory_mib
from databases import new_service  # noqa: F401
from harness import Csrd, subject, wait_until

EACH = 250
BODY = b"POST /api/v4/zones/%s/custom_csrs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
DOCS = b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(csrd: Csrd, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect(csrd.host_and_port)
    return client


def open_sockets(csrd: Csrd) -> int:
    directory = f"/proc/{csrd.process.pid}/fd"
    count = 0
    for name in os.listdir(directory):
        with suppress(OSError):
            count += os.readlink(f"{directory}/{name}").startswith("socket:")
    return count


def test_2000_hostile_connections_cost_others_nothing_and_are_gone_within_a_minute(new_csrd, record_property):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    csrd = new_csrd("--key-pool-size", "0", "--max-connections-per-address", "5000").start()
    zone = csrd.tenant("zone")
    for _ in range(20):
        zone.create()
    sockets, before = open_sockets(csrd), memory_mib(csrd)
    body = BODY % (zone.id.encode(), zone.token.encode())

    clients: list[socket.socket] = []
    drip: list[socket.socket] = []

    def add(sent: bytes, *, dripping: bool = False, receive_buffer: int | None = None) -> None:
        for _ in range(EACH):
            client = connect(csrd, receive_buffer)
            with suppress(OSError):
                client.sendall(sent)
            clients.append(client)
            if dripping:
                drip.append(client)

    add(b"")
    add(b"GET /health/live HTTP/1.1\r\nHost:")
    add(b"GET /health/live HTTP/1.1\r\nX: ", dripping=True)
    add(body + b"{")
    add(body + b"{", dripping=True)
    add(DOCS * 8, receive_buffer=2048)
    add(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    for _ in range(EACH):
        # Leaves in the middle of its request.
        with connect(csrd) as client:
            client.sendall(body + b"{")

    latencies: list[float] = []
    failures: list[object] = []
    done = threading.Event()

    def serve_others() -> None:
        while not done.is_set():
            start = time.monotonic()
            answer = zone.request("GET", params={"per_page": 5})
            latencies.append(time.monotonic() - start)
            if answer.status != 200:
                failures.append(answer)
            time.sleep(0.01)

    def trickle() -> None:
        while not done.is_set():
            for client in drip:
                with suppress(OSError):
                    client.send(b" ")
            done.wait(1)

    begin = time.monotonic()
    threads = [threading.Thread(target=serve_others), threading.Thread(target=trickle)]
    for thread in threads:
        thread.start()
    try:
        during = memory_mib(csrd)
        # Those of the server count: a client that does not read does not see that it was closed.
        wait_until(lambda: open_sockets(csrd) <= sockets + 1, "all hostile connections are gone", 60)
        gone_after = time.monotonic() - begin
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
    assert zone.request("POST", json=subject()).status == 201
    assert failures == []

    def memory_after() -> float:
        # An idle process may keep freed pages until its threads allocate again.
        assert zone.request("GET", params={"per_page": 5}).status == 200
        return (now := memory_mib(csrd)) <= before + 30 and now

    after = wait_until(memory_after, f"memory comes back to about {before:.0f} MiB", 120)
    p99 = statistics.quantiles(latencies, n=100)[98]
    record_property(
        "figures",
        f"{len(clients) + EACH} connections, gone after {gone_after:.1f} s; memory {before:.0f} MiB before, {during:.0f} during, "
        f"{after:.0f} after; {len(latencies)} requests of others, p99 {p99 * 1000:.0f} ms",
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_without_file_descriptors_the_open_connections_are_served_and_the_log_says_it_once(new_service, kind):  # noqa: F811
    csrd = new_service(kind, "--key-pool-size", "0")
    zone = csrd.tenant("zone")
    assert zone.total() == 0
    resource.prlimit(csrd.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    clients = [connect(csrd) for _ in range(120)]
    try:
        wait_until(lambda: "cannot be accepted" in csrd.log(), "it says so")
        # On the connection that it has. Files and connections to the database are opened meanwhile.
        created = [zone.create() for _ in range(30)]
        for csr in created:
            assert zone.wait_active(csr["id"])["id"] == csr["id"]
        assert zone.total(status="active") == 30
        assert csrd.is_up("/health/ready")
        assert csrd.log().count("cannot be accepted") == 1
    finally:
        for client in clients:
            client.close()
    csrd.client.close()
    csrd.client = httpx.Client(trust_env=False, timeout=5)
    wait_until(csrd.is_up, "new connections are taken again")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_however_few_file_descriptors_there_are_one_client_after_the_other_is_served(new_service, kind):  # noqa: F811
    csrd = new_service(kind, "--key-pool-size", "0")
    zone = csrd.tenant("zone")
    used = max(int(number) for number in os.listdir(f"/proc/{csrd.process.pid}/fd"))
    resource.prlimit(csrd.process.pid, resource.RLIMIT_NOFILE, (used + 12, used + 12))
    for _ in range(6):
        csrd.client.close()
        csrd.client = httpx.Client(trust_env=False, timeout=20)
        assert zone.total() == 0
