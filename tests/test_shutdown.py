"""SIGTERM: what is in flight is answered, what is in the making is finished or given back."""

import json
import subprocess
from contextlib import ExitStack

import pytest
from harness import check_envelope, read_response, run, subject, wait_until


def refuses_connections(csrd) -> bool:
    try:
        with csrd.connection(1):
            return False
    except OSError:
        return True


def test_a_request_in_flight_is_answered(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    body = json.dumps(subject()).encode()
    head = (
        f"POST {zone.path} HTTP/1.1\r\nHost: {csrd.address}\r\nAuthorization: Bearer {zone.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with csrd.connection() as connection:
        # An answer on this connection first: the server has it, and not only the kernel's queue.
        connection.sendall(f"GET /health/live HTTP/1.1\r\nHost: {csrd.address}\r\n\r\n".encode())
        assert read_response(connection)[0] == 200
        connection.sendall(head + body[:20])
        # Nothing tells from outside that the head was read, so an answered request on a later connection has to do.
        assert csrd.is_up()
        csrd.terminate()
        wait_until(lambda: refuses_connections(csrd), "no new connections are taken")
        assert csrd.process.poll() is None
        connection.sendall(body[20:])
        status, headers, content = read_response(connection)
    assert status == 201
    created = check_envelope(status, headers, content)["result"]
    assert csrd.wait() == 0

    csrd.start()
    assert zone.wait_active(created["id"], 120)["id"] == created["id"]


def test_a_request_that_never_ends_keeps_the_process_no_longer_than_the_shutdown_timeout(new_csrd):
    csrd = new_csrd("--shutdown-timeout", "1s").start()
    zone = csrd.tenant("zone")
    head = f"POST {zone.path} HTTP/1.1\r\nHost: {csrd.address}\r\nAuthorization: Bearer {zone.token}\r\nContent-Length: 100\r\n\r\n"
    with csrd.connection() as connection:
        connection.sendall(f"GET /health/live HTTP/1.1\r\nHost: {csrd.address}\r\n\r\n".encode())
        assert read_response(connection)[0] == 200
        connection.sendall(head.encode())
        assert csrd.is_up()
        csrd.terminate()
        # A body has 30 seconds to arrive, and the default timeout is as long.
        # Something was cut off.
        assert csrd.wait(25) == 1
    assert "still unanswered" in csrd.log()


def test_keys_in_the_making_are_finished_or_given_back(new_csrd):
    csrd = new_csrd("--workers", "2").start()
    zone = csrd.tenant("zone")
    made = {zone.create(key_type="rsa2048")["id"] for _ in range(40)}
    assert csrd.stop() == 0

    csrd.start()
    assert {row["id"] for row in zone.all()} == made
    wait_until(lambda: zone.total(status="pending") == 0, "none is pending any more", 180)
    assert zone.total(status="active") == len(made)


def test_a_stop_leaves_no_write_ahead_log(new_csrd):
    # It would hold the sealed form of deleted private keys while the service is down, and a copy of csrd.db alone would be stale.
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    zone.request("DELETE", f"/{zone.wait_active(zone.create()['id'])['id']}")
    assert csrd.stop() == 0
    assert not (wal := csrd.data_dir / "csrd.db-wal").exists() or wal.stat().st_size == 0


def test_an_idle_process_ends_at_once_even_with_a_connection_kept_alive(new_csrd):
    csrd = new_csrd().start()
    with csrd.connection() as idle:
        idle.sendall(f"GET /health/live HTTP/1.1\r\nHost: {csrd.address}\r\n\r\n".encode())
        assert read_response(idle)[0] == 200
        csrd.terminate()
        # Without it, it would wait for the connection as long as the default timeout says: 30 seconds.
        assert csrd.wait(25) == 0


def test_connections_in_the_queue_get_the_places_of_idle_ones_and_are_served(new_csrd):
    csrd = new_csrd("--max-connections", "2").start()
    request = f"GET /health/live HTTP/1.1\r\nHost: {csrd.address}\r\n\r\n".encode()
    with ExitStack() as stack:
        idle, queued = ([stack.enter_context(csrd.connection()) for _ in range(2)] for _ in range(2))
        for connection in idle:
            connection.sendall(request)
            assert read_response(connection)[0] == 200
        for connection in queued:
            connection.sendall(request)
        csrd.terminate()
        assert [read_response(connection)[0] for connection in queued] == [200, 200]
        assert csrd.wait() == 0


def test_a_worker_that_ended_in_order_does_not_count_as_live(new_csrd):
    csrd = new_csrd().start()

    def live() -> int:
        return csrd.request("GET", "/health/ready").result["workers"]

    assert wait_until(live, "a worker is live") == 1
    assert csrd.stop() == 0
    csrd.start()
    assert wait_until(live, "a worker is live") == 1


# Says that it ran, and gives threads that are still there a second to run into what the other handlers have taken down.
EXIT_HANDLER = r"""
#include <time.h>
#include <unistd.h>
static void __attribute__((destructor)) run(void) {
    struct timespec second = {1, 0};
    (void)!write(2, "exit handlers run\n", 18);
    nanosleep(&second, 0);
}
"""


@pytest.fixture
def exit_handler(tmp_path) -> str:
    """A library with an exit handler, for `LD_PRELOAD`."""
    source, library = tmp_path / "handler.c", tmp_path / "handler.so"
    source.write_text(EXIT_HANDLER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return str(library)


def test_threads_that_still_make_keys_do_not_run_into_the_exit_handlers_of_c_libraries(new_csrd, exit_handler):
    """aws-lc aborts a process when a thread asks for its first random bytes after the exit handlers: the end was SIGABRT, now and then."""
    assert "exit handlers run" in subprocess.run(["/bin/true"], env={"LD_PRELOAD": exit_handler}, capture_output=True, text=True, check=True).stderr
    csrd = new_csrd("--workers", "4", env={"LD_PRELOAD": exit_handler}).start()
    zone = csrd.tenant("zone")
    for _ in range(8):
        zone.create(key_type="rsa2048")
    assert csrd.stop() == 0
    assert "stopped" in csrd.log() and "exit handlers run" not in csrd.log()
    for command in (("serve", "--help"), ("--version",), ("openapi",)):
        done = run(*command, env={"LD_PRELOAD": exit_handler})
        assert done.returncode == 0 and done.stderr == "" and done.stdout.endswith("\n"), done
