"""ARI (RFC 9773): issuers are asked when they want certificates renewed. The ACME server here is one of our own, behind the RFC's wire format."""

import base64
import json
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ca import Authority, Certificates, active
from cryptography import x509
from harness import run, wait_until
from test_clocks import HOUR, Clock
from test_renewal import listening, of_renewals, policy
from test_webhooks import DAY, LEAN, authority, ca_file, hook, new_receiver  # noqa: F401

RENEW_NOW = "custom_certificate.renew_now"


class Issuer:
    """An ACME server that knows ARI, and nothing else."""

    def __init__(self):
        self.asked, self.status, self.retry_after, self.window, self.directories = [], 200, None, None, 0
        # Whether it answers at all.
        self.is_open = threading.Event()
        self.is_open.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/directory":
                    issuer.directories += 1
                    self.answer(200, {"newNonce": f"{issuer.url}/nonce", "renewalInfo": f"{issuer.url}/renewal-info"})
                elif self.path.startswith("/renewal-info/"):
                    issuer.asked.append(self.path.removeprefix("/renewal-info/"))
                    issuer.is_open.wait(60)
                    start, end = (moment.isoformat().replace("+00:00", "Z") for moment in issuer.window)
                    self.answer(issuer.status, {"suggestedWindow": {"start": start, "end": end}, "explanationURL": "https://acme.example/why"})
                else:
                    self.answer(404, {})

            def answer(self, status: int, body: dict):
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if issuer.retry_after:
                    self.send_header("Retry-After", issuer.retry_after)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.is_open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def new_issuer():
    made = []

    def make() -> Issuer:
        made.append(Issuer())
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def issuer(new_issuer):
    return new_issuer()


def certificate_id(pem: str) -> str:
    """As the RFC has it (4.1)."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = certificate.serial_number.to_bytes(certificate.serial_number.bit_length() // 8 + 1, "big")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (identifier, serial))


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def test_an_issuer_is_asked_in_time_and_its_window_renews(new_csrd, new_receiver, issuer, tmp_path):  # noqa: F811
    clock, authority = Clock(tmp_path, 0), Authority(organization="Acme Trust, Inc.")  # noqa: F811
    settings = ("--ari-directories", f"Acme Trust, Inc.={issuer.url}/directory", "--outbound-allow-private", "--sweep-interval", "1s", *LEAN)
    csrd = new_csrd(*settings, env=clock.env).start()
    zone, receiver = csrd.tenant(), new_receiver(tls=False)
    zone.token = csrd.token("--zone", zone.id, "--ttl", "100d")
    told = listening(receiver)
    hook(zone, receiver)
    certificates = Certificates(zone)
    start = now()
    window = issuer.window = (start + timedelta(days=20), start + timedelta(days=21))
    issuer.retry_after = "3600"
    csr = active(zone)
    pem = authority.issue(csr["csr"], authority_key=True)
    stored = certificates.upload(csr["id"], pem)
    foreign = Authority(organization="Another")
    other = certificates.upload(csr["id"], foreign.issue(csr["csr"], authority_key=True))
    bare = certificates.upload(csr["id"], authority.issue(csr["csr"]))

    def shown() -> dict:
        return certificates.get(stored["id"])

    def moment() -> datetime | None:
        at = shown()["renew_after"]
        return at and datetime.fromisoformat(at)

    wait_until(moment, "the issuer was asked", 60)
    first = moment()
    assert window[0] <= first <= window[1] and shown()["renewal_explanation_url"] == "https://acme.example/why"
    assert issuer.asked == [certificate_id(pem)]
    assert [certificates.get(one["id"])["renew_after"] for one in (other, bare)] == [None, None]

    def asked_again(hours: float, **changes) -> None:
        for name, value in changes.items():
            setattr(issuer, name, value)
        count = len(issuer.asked)
        clock.set(int(hours * HOUR))
        wait_until(lambda: len(issuer.asked) > count, f"asked again after {hours} hours", 60)

    def settled(hours: float) -> None:
        """Waits until csrd has stored all answers: it reads its clock when one has come, and must not find there what the test sets next."""
        due = "SELECT COUNT(*) FROM custom_certificates WHERE ari_next_at < ?"

        def none_is_due() -> bool:
            with closing(sqlite3.connect(csrd.data_dir / "csrd.db", timeout=15)) as database:
                # One that is being asked about is due again within minutes; one that was answered, after hours.
                return database.execute(due, [int((time.time() + (hours + 1) * HOUR) * 1e6)]).fetchone() == (0,)

        wait_until(none_is_due, "all answers are stored", 60)

    # Not within six hours, whatever it says; and the moment stays as long as the window does.
    clock.set(5 * HOUR)
    csrd.kill()
    csrd.start()
    policy(zone, "PUT", {"key": "reuse", "at": 0.01})
    assert certificates.upload(csr["id"], authority.issue(csr["csr"], authority_key=True))["renew_after"] is None
    wait_until(lambda: len(issuer.asked) == 2, "the new one is asked about", 60)
    assert issuer.asked.count(certificate_id(pem)) == 1 and moment() == first
    asked_again(6.1)
    settled(6.1)
    assert moment() == first
    # An error changes nothing, and is tried again after a minute.
    asked_again(12.5, status=500)
    wait_until(lambda: "an issuer does not say" in csrd.log(), "the log tells of it", 60)
    assert moment() == first
    asked_again(12.6, status=200, retry_after="259200")
    settled(12.6)
    # Another window has another moment, and none later than three days is believed.
    moved = (start + timedelta(days=2), start + timedelta(days=4))
    issuer.window, issuer.retry_after = moved, "99999999"
    clock.set(int(85 * HOUR))
    wait_until(lambda: moved[0] <= moment() <= moved[1], "the new window counts", 60)
    # It has begun: that is told once, and the policy renews.
    wait_until(lambda: RENEW_NOW in [event["type"] for _, event in told], "it is told", 60)
    wait_until(lambda: shown()["renewal"] == "csr_ready", "the renewal has begun", 60)
    wait_until(lambda: stored["id"] in [data["id"] for data in of_renewals(told)], "and is told of", 60)
    csrd.kill()
    csrd.start()
    renewed = certificates.patch(stored["id"], certificate=authority.issue(csr["csr"], begins=timedelta(days=3), ends=timedelta(days=60), authority_key=True))
    assert renewed.result["renewal"] == "done" and renewed.result["renew_after"] is None
    issuer.window = (start + timedelta(days=50), start + timedelta(days=51))
    wait_until(lambda: moment() and moment() >= issuer.window[0] or None, "of the new leaf it is asked at once", 60)
    events = {event_id: event for event_id, event in list(told)}.values()
    about = [event["data"] for event in events if event["type"] == RENEW_NOW and event["data"]["id"] == stored["id"]]
    assert len(about) == 1 and datetime.fromisoformat(about[0]["renew_after"]) >= moved[0]
    assert shown()["renewal"] == "done"


def test_an_issuer_that_lets_wait_holds_up_no_other(new_csrd, new_receiver, new_issuer):  # noqa: F811
    silent, other = new_issuer(), new_issuer()
    silent.is_open.clear()
    settings = [f"{name}={server.url}/directory" for name, server in [("Silent Trust", silent), ("Other Trust", other)]]
    csrd = new_csrd("--outbound-allow-private", "--sweep-interval", "1s", *LEAN, *(part for value in settings for part in ("--ari-directories", value)))
    csrd.start()
    zone, receiver = csrd.tenant(), new_receiver(tls=False)
    hook(zone, receiver, RENEW_NOW)
    certificates, authority = Certificates(zone), Authority(organization="Silent Trust")  # noqa: F811
    for _ in range(4):
        csr = active(zone)
        for _ in range(20):
            certificates.upload(csr["id"], authority.issue(csr["csr"], authority_key=True))
    csr = active(zone)
    other.window = (now() - timedelta(days=1), now() + timedelta(days=1))
    stored = certificates.upload(csr["id"], Authority(organization="Other Trust").issue(csr["csr"], authority_key=True))
    # Of the silent one, those that are asked about at once wait for ten seconds; eighty, one after the other, would take minutes.
    wait_until(lambda: [data["id"] for data in receiver.of(RENEW_NOW)] == [stored["id"]], "the other one is asked, and its window told of", 45)
    assert 0 < len(silent.asked) < 40


@pytest.mark.parametrize(
    ("value", "reason"),
    [("Acme", "NAME=URL"), ("Acme=http://127.0.0.1:1/", "https://"), ("Acme=https://10.0.0.1/directory", "not public")],
)
def test_a_directory_that_may_not_be_asked_is_a_bad_setting(tmp_path, value, reason):
    refused = run("serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--ari-directories", value)
    assert refused.returncode == 2 and reason in refused.stderr and len(refused.stderr.splitlines()) == 1, refused
    assert not (tmp_path / "data").exists()
