"""Accepted is kept: a process that is killed again and again loses no custom CSR and uses no key twice."""

import threading
import time

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import Csrd, subject, wait_until

WANTED = 200
KILLS = 20
# One in so many is RSA: those take long enough for every kill to hit some.
RSA_EVERY = 3


class Clients:
    """Threads that create custom CSRs until enough are accepted, through restarts of the service."""

    def __init__(self, csrd: Csrd, path: str, token: str):
        self.csrd, self.path = csrd, path
        self.headers = {"Authorization": f"Bearer {token}"}
        self.changed = threading.Condition()
        self.accepted: dict[str, dict] = {}
        self.lost = 0
        self.sent = 0
        self.allowed = 0
        self.surprises: list[str] = []
        self.up = threading.Event()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.create, daemon=True) for _ in range(4)]
        for thread in self.threads:
            thread.start()

    def enough(self) -> bool:
        return len(self.accepted) >= WANTED

    def next_body(self) -> dict:
        with self.changed:
            number = self.sent
            self.sent += 1
        return subject(name=f"n{number}", key_type="rsa2048" if number % RSA_EVERY == 0 else "p256v1", sans=[f"n{number}.acme-widgets.com"])

    def create(self) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not self.enough() and not self.over.is_set():
                if not self.up.wait(0.1):
                    continue
                self.post(client, self.next_body())

    def post(self, client: httpx.Client, body: dict) -> None:
        try:
            response = client.post(self.csrd.url + self.path, json=body, headers=self.headers)
        except httpx.ConnectError:
            return  # It never arrived.
        except httpx.TransportError:
            with self.changed:
                self.lost += 1
            return
        with self.changed:
            if response.status_code == 201:
                self.accepted[response.json()["result"]["id"]] = body
            else:
                self.surprises.append(response.text)
            self.changed.notify_all()

    def wait_accepted(self, number: int) -> None:
        deadline = time.monotonic() + 60
        with self.changed:
            while len(self.accepted) < number:
                assert self.csrd.check_runs() and not self.surprises and time.monotonic() < deadline, (len(self.accepted), self.surprises)
                self.changed.wait(0.5)

    def join(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def test_no_custom_csr_is_lost_and_no_key_is_used_twice_through_twenty_kills(new_csrd, record_property):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone", quota=10 * WANTED)
    clients = Clients(csrd, zone.path, zone.token)
    hit = 0
    for kill in range(1, KILLS + 1):
        clients.up.set()
        # The last kill comes when the last is accepted, the others evenly before.
        clients.wait_accepted(kill * WANTED // KILLS)
        clients.up.clear()
        csrd.kill()
        csrd.start()
        hit += zone.total(status="pending") > 0
    clients.join()
    accepted = clients.accepted
    assert len(accepted) >= WANTED and not clients.surprises

    started = time.monotonic()
    wait_until(lambda: zone.total(status="pending") == 0, "none is pending any more", 180)
    rows = {row["id"]: row for row in zone.all()}
    by_status = {status: sum(row["status"] == status for row in rows.values()) for status in ("active", "failed", "pending")}
    missing = accepted.keys() - rows.keys()
    figures = (
        f"{KILLS} kills, {hit} of them with custom CSRs in the making: {len(accepted)} accepted, {len(missing)} of them missing, "
        f"{by_status['active']} active, {by_status['failed']} failed, {clients.lost} answers lost "
        f"({len(rows) - len(accepted)} of them with a row); settled {time.monotonic() - started:.1f} s after the last start"
    )
    record_property("figures", figures)
    assert not missing
    assert by_status == {"active": len(rows), "failed": 0, "pending": 0}
    # Otherwise the kills came at the wrong moments and prove nothing.
    assert hit >= KILLS // 2

    keys = set()
    for row in rows.values():
        csr = x509.load_pem_x509_csr(row["csr"].encode())
        assert csr.is_signature_valid
        keys.add(csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        if body := accepted.get(row["id"]):
            names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == body["sans"] == row["sans"]
            assert row["key_type"] == body["key_type"] and row["name"] == body["name"]
    assert len(keys) == len(rows)
    assert f"used={len(rows)}" in next(line for line in csrd.ok("zone", "list").splitlines() if line.startswith(zone.id))
    csrd.ok("keys", "check")
