"""How many connections there may be, in all and from one address."""

import socket

import pytest
from harness import read_response, refused, run, wait_until

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    """A connection from an address of this machine."""

    def __init__(self, csrd, address: str = "127.0.0.1"):
        self.socket = socket.create_connection(csrd.host_and_port, timeout=30, source_address=(address, 0))

    def get(self, request: bytes = GET, seconds: float = 30.0) -> str:
        """Asks for something, and is "answered", "waits", or is "closed"."""
        self.socket.settimeout(seconds)
        try:
            self.socket.sendall(request)
            response = read_response(self.socket)
        except TimeoutError:
            return "waits"
        except OSError:
            return "closed"
        return "closed" if response is None else "answered" if response[0] == 200 else str(response)

    def close(self) -> None:
        self.socket.close()


class Holders:
    """Clients that keep their connections: each waits for a custom CSR that nobody makes, and so is not idle."""

    def __init__(self, csrd):
        self.csrd = csrd
        self.zone = csrd.tenant()
        path = f"{self.zone.path}/{self.zone.create()['id']}"
        self.request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.zone.token}\r\nPrefer: wait=30\r\n\r\n".encode()
        self.clients: list[Client] = []
        csrd.client.close()

    def hold(self, number: int) -> bool:
        """Sees to it that so many are connected, as far as they can tell by now."""
        for client in list(self.clients):
            if client.get(b"", 0.05) != "waits":
                client.close()
                self.clients.remove(client)
        while len(self.clients) < number:
            self.clients.append(Client(self.csrd))
            self.clients[-1].socket.sendall(self.request)
        return True

    def close(self) -> None:
        for client in self.clients:
            client.close()


def test_beyond_the_most_connections_clients_wait_until_another_leaves(new_csrd):
    csrd = new_csrd("--max-connections", "3", "--workers", "0").start()
    holders = Holders(csrd)

    def waiting() -> Client | None:
        holders.hold(3)
        client = Client(csrd)
        return client if client.get(GET, 1.0) == "waits" else client.close()

    fourth = wait_until(waiting, "three are served, and the fourth waits")
    holders.clients.pop().close()
    fourth.socket.settimeout(30)
    assert read_response(fourth.socket)[0] == 200
    holders.close()
    fourth.close()


def test_beyond_the_most_of_one_address_a_connection_is_closed_at_once_and_others_are_served(new_csrd):
    csrd = new_csrd("--max-connections-per-address", "4", "--workers", "0").start()
    holders = Holders(csrd)

    def is_closed() -> bool:
        return Client(csrd).get() == "closed"

    wait_until(lambda: holders.hold(4) and all(is_closed() for _ in range(5)), "four are served and no more")
    assert Client(csrd, "127.0.0.2").get() == "answered"
    holders.clients.pop().close()
    wait_until(lambda: not is_closed(), "there is room again")
    holders.close()
    csrd.client = csrd.new_client()
    wait_until(csrd.is_up, "none is counted that is gone")
    assert csrd.stop() == 0


def test_a_trusted_proxy_may_have_as_many_connections_as_there_are(new_csrd):
    csrd = new_csrd("--max-connections-per-address", "2", "--trusted-proxies", "127.0.0.3,10.0.0.0/8", "--workers", "0").start()
    clients = [Client(csrd, "127.0.0.3") for _ in range(8)]
    assert [client.get() for client in clients] == ["answered"] * 8
    others = [Client(csrd, "127.0.0.4") for _ in range(8)]
    assert [client.get() for client in others] == ["answered"] * 2 + ["closed"] * 6
    for client in [*clients, *others]:
        client.close()


@pytest.mark.parametrize("setting", ["--max-connections", "--max-connections-per-address"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "5000000000"])
def test_a_number_that_cannot_be_is_one_line_that_names_the_setting(setting, value):
    refused(run("serve", "--listen", "127.0.0.1:0", setting, value), 2, setting)
