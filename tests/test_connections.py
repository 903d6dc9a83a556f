"""How many connections there may be, in all and from one address."""

import socket

import pytest
from harness import half_close, read_response, refused, run, wait_until

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    """A connection from an address of this machine, which is answered, waits, or was closed."""

    def __init__(self, csrd, address: str = "127.0.0.1"):
        self.socket = socket.create_connection(csrd.host_and_port, timeout=5, source_address=(address, 0))

    def get(self, seconds: float = 5.0) -> str:
        """Asks for something: "answered", "waits", or "closed"."""
        self.socket.settimeout(seconds)
        try:
            self.socket.sendall(GET)
            response = read_response(self.socket)
        except TimeoutError:
            return "waits"
        except OSError:
            return "closed"
        return "closed" if response is None else "answered" if response[0] == 200 else str(response)

    def close(self) -> None:
        half_close(self.socket)
        self.socket.close()


def test_beyond_the_most_connections_clients_wait_until_another_leaves(new_csrd):
    csrd = new_csrd("--max-connections", "3", "--workers", "0").start()
    csrd.client.close()
    clients = [Client(csrd) for _ in range(3)]
    wait_until(lambda: all(client.get() == "answered" for client in clients), "the three are served")
    fourth = Client(csrd)
    assert fourth.get(1.0) == "waits"
    clients.pop().close()
    fourth.socket.settimeout(30)
    assert read_response(fourth.socket)[0] == 200
    for client in [*clients, fourth]:
        client.close()


def test_beyond_the_most_of_one_address_a_connection_is_closed_at_once_and_others_are_served(new_csrd):
    csrd = new_csrd("--max-connections-per-address", "4", "--workers", "0").start()
    csrd.client.close()
    clients = [Client(csrd) for _ in range(4)]
    # The client that saw the service become ready may still count.
    wait_until(lambda: [client.get() for client in clients] == ["answered"] * 4 or renew(csrd, clients), "four are served")
    for _ in range(10):
        assert Client(csrd).get(30.0) == "closed"
    other = Client(csrd, "127.0.0.2")
    assert other.get() == "answered"
    clients.pop().close()
    wait_until(lambda: Client(csrd).get() == "answered", "there is room again")
    assert [client.get() for client in clients] == ["answered"] * 3
    for client in [*clients, other]:
        client.close()
    csrd.client = csrd.new_client()
    wait_until(csrd.is_up, "none is counted that is gone")
    assert csrd.stop() == 0


def renew(csrd, clients) -> bool:
    for client in clients:
        client.close()
    clients[:] = [Client(csrd) for _ in range(4)]
    return False


@pytest.mark.parametrize("setting", ["--max-connections", "--max-connections-per-address"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "5000000000"])
def test_a_number_that_cannot_be_is_one_line_that_names_the_setting(setting, value):
    refused(run("serve", "--listen", "127.0.0.1:0", setting, value), 2, setting)


def test_a_trusted_proxy_may_have_as_many_connections_as_there_are(new_csrd):
    csrd = new_csrd("--max-connections-per-address", "2", "--trusted-proxies", "127.0.0.3,10.0.0.0/8", "--workers", "0").start()
    clients = [Client(csrd, "127.0.0.3") for _ in range(8)]
    assert [client.get(30.0) for client in clients] == ["answered"] * 8
    others = [Client(csrd, "127.0.0.4") for _ in range(8)]
    assert [client.get(30.0) for client in others] == ["answered"] * 2 + ["closed"] * 6
    for client in [*clients, *others]:
        client.close()
