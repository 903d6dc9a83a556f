"""SIGTERM: what is in flight is answered, what is in the making is finished or given back."""

import json

from harness import check_envelope, read_response, subject, wait_until


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
