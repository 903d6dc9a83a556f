"""Webhooks: events reach their receivers, signed, at least once, and nothing else than a public address where none other is allowed."""

import json
import os
import ssl
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ca import Authority
from harness import Csrd, Tenant, wait_until
from standardwebhooks import Webhook
from test_clocks import Clock
from test_faults import Worker, new_cluster, postgres  # noqa: F401
from test_jwks_url import server_context

LEAN = ("--key-pool-size", "0")
DAY = 24 * 3600


class Receiver:
    """Receives events over HTTPS, and verifies every signature; answers as a test wants it to."""

    def __init__(self, tls: ssl.SSLContext | None):
        self.secret, self.bad, self.events, self.ids = None, [], [], Counter()
        # The statuses of the next answers, then 204.
        self.statuses, self.headers, self.is_open = [], {}, threading.Event()
        self.is_open.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.is_open.wait(60)
                status = receiver.statuses.pop(0) if receiver.statuses else 204
                receiver.take(dict(self.headers), body, status)
                self.send_response(status)
                for name, value in ({"Content-Length": "0"} | receiver.headers).items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.request_queue_size = 128
        if tls:
            # Within the thread of the connection: a client that is slow to shake hands holds up nobody else.
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "https" if tls else "http"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, headers: dict, body: bytes, status: int) -> None:
        try:
            event = Webhook(self.secret).verify(body, {name.lower(): value for name, value in headers.items()})
        except Exception as error:  # noqa: BLE001
            self.bad.append(repr(error))
            return
        self.ids[headers["webhook-id"]] += 1
        if status < 300:
            self.events.append(event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}/hook"

    def of(self, kind: str) -> list[dict]:
        return [event["data"] for event in self.events if event["type"] == kind]

    def close(self) -> None:
        self.is_open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("Root of the webhooks")


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_text(authority.pem)
    return file


@pytest.fixture
def new_receiver(authority, tmp_path):
    made = []

    def make(*, tls: bool = True) -> Receiver:
        made.append(Receiver(server_context(authority, tmp_path) if tls else None))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


def hooks(tenant: Tenant) -> str:
    return tenant.path.replace("custom_csrs", "webhooks")


def ask(tenant: Tenant, method: str, suffix: str = "", **arguments):
    return tenant.service.request(method, hooks(tenant) + suffix, token=tenant.token, **arguments)


def hook(tenant: Tenant, receiver: Receiver, *events: str, **members) -> dict:
    """Makes a webhook that leads to the receiver."""
    answer = ask(tenant, "POST", json={"url": receiver.url, "events": list(events) or ["*"]} | members)
    assert answer.status == 201, answer
    receiver.secret = answer.result["secret"]
    return answer.result


def deliveries(tenant: Tenant, made: dict) -> list[dict]:
    return ask(tenant, "GET", f"/{made['id']}/deliveries").result


def ended(tenant: Tenant, made: dict) -> dict:
    """The last delivery, once it is no longer pending."""
    return wait_until(lambda: next((one for one in deliveries(tenant, made)[:1] if one["status"] != "pending"), None), "it has ended", 60)


@pytest.fixture
def allowed(new_csrd, ca_file) -> Csrd:
    """A service whose webhooks may lead to this machine."""
    return new_csrd("--outbound-allow-private", "--outbound-ca-file", str(ca_file), "--sweep-interval", "1s", *LEAN).start()


def upload(tenant: Tenant, authority: Authority, made: dict, days: float = 90, method: str = "POST", suffix: str = "") -> dict:
    certificate = authority.issue(made["csr"], ends=timedelta(days=days))
    path = tenant.path.replace("custom_csrs", "custom_certificates") + suffix
    answer = tenant.service.request(method, path, token=tenant.token, json={"certificate": certificate, "custom_csr_id": made["id"]})
    assert answer.status in (200, 201), answer
    return answer.result


def test_events_come_signed_and_show_what_get_shows(allowed, new_receiver, authority):
    receiver, tenant = new_receiver(), allowed.tenant()
    made = hook(tenant, receiver)
    csr = tenant.wait_active(tenant.create()["id"])
    certificate = upload(tenant, authority, csr)
    upload(tenant, authority, csr, method="PATCH", suffix=f"/{certificate['id']}")
    path = tenant.path.replace("custom_csrs", "custom_certificates")
    allowed.request("DELETE", f"{path}/{certificate['id']}", token=tenant.token)
    assert ask(tenant, "POST", f"/{made['id']}/ping").result["event"] == "ping"
    wait_until(lambda: len(receiver.events) >= 5, "five events came", 60)
    kinds = ["custom_csr.active", "custom_certificate.uploaded", "custom_certificate.replaced", "custom_certificate.deleted", "ping"]
    assert sorted(event["type"] for event in receiver.events) == sorted(kinds) and receiver.bad == []
    assert receiver.of("custom_csr.active") == [{name: value for name, value in csr.items() if name != "csr"}]
    assert receiver.of("custom_certificate.uploaded") == [{name: value for name, value in certificate.items() if name != "chain"}]
    wait_until(lambda: all(one["status"] == "delivered" for one in deliveries(tenant, made)), "all are delivered", 60)
    assert {one["response_status"] for one in deliveries(tenant, made)} == {204}


def test_a_receiver_that_fails_is_tried_again_and_one_that_is_gone_is_disabled(allowed, new_receiver):
    receiver, tenant = new_receiver(tls=False), allowed.tenant()
    made = hook(tenant, receiver)
    receiver.statuses = [500]
    ask(tenant, "POST", f"/{made['id']}/ping")
    failed = wait_until(lambda: next((one for one in deliveries(tenant, made) if one["attempts"]), None), "an attempt ended", 30)
    assert (failed["status"], failed["response_status"]) == ("pending", 500) and failed["next_attempt_at"]
    assert ended(tenant, made)["attempts"] == 2
    assert receiver.ids[failed["id"]] == 2, "the ID is that of the first attempt"
    # A redirect is an answer like any other: nobody follows it.
    elsewhere = new_receiver(tls=False)
    receiver.statuses, receiver.headers = [307], {"Location": elsewhere.url}
    ask(tenant, "POST", f"/{made['id']}/ping")
    wait_until(lambda: deliveries(tenant, made)[0]["response_status"] == 307, "it was redirected", 30)
    receiver.headers, receiver.statuses = {}, [410]
    ask(tenant, "POST", f"/{made['id']}/ping")

    def disabled():
        now = ask(tenant, "GET", f"/{made['id']}").result
        return now if not now["enabled"] else None

    assert "410" in wait_until(disabled, "it is disabled", 30)["disabled_reason"]
    assert elsewhere.ids == {} and elsewhere.bad == [] and receiver.bad == []
    tenant.wait_active(tenant.create()["id"])
    enabled = ask(tenant, "PATCH", f"/{made['id']}", json={"enabled": True}).result
    assert enabled["enabled"] and enabled["disabled_reason"] is None
    csr = tenant.wait_active(tenant.create()["id"])
    wait_until(lambda: receiver.of("custom_csr.active"), "the next event came", 60)
    assert [data["id"] for data in receiver.of("custom_csr.active")] == [csr["id"]], "what happened meanwhile is not told"


def test_a_certificate_of_an_unknown_authority_or_for_another_host_is_not_spoken_to(allowed, new_csrd, new_receiver):
    receiver = new_receiver()
    # The server's certificate is for 127.0.0.1.
    elsewhere = receiver.url.replace("127.0.0.1", "localhost")
    untrusting = new_csrd("--outbound-allow-private", *LEAN, name="untrusting").start()
    for csrd, url in [(allowed, elsewhere), (untrusting, receiver.url)]:
        tenant = csrd.tenant()
        made = hook(tenant, receiver, url=url)
        ask(tenant, "POST", f"/{made['id']}/ping")
        failed = wait_until(lambda: next((one for one in deliveries(tenant, made) if one["attempts"]), None), "an attempt ended", 30)  # noqa: B023
        assert (failed["status"], failed["response_status"]) == ("pending", None)
    assert receiver.ids == {} and receiver.bad == []


def test_private_targets_are_refused_when_they_are_told_and_when_they_are_connected_to(new_csrd, new_receiver, ca_file):
    receiver = new_receiver()
    settings = ("--outbound-ca-file", str(ca_file), *LEAN)
    csrd = new_csrd("--outbound-allow-private", *settings).start()
    tenant = csrd.tenant()
    made = hook(tenant, receiver, url=receiver.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"))
    by_name = hook(tenant, receiver, url=receiver.url.replace("127.0.0.1", "localhost"))
    csrd.stop()
    # Allowed no longer: what was registered before is judged anew.
    csrd.arguments.remove("--outbound-allow-private")
    csrd.start()
    tenant.service = csrd
    for one in (made, by_name):
        ask(tenant, "POST", f"/{one['id']}/ping")
        failed = wait_until(lambda: next((it for it in deliveries(tenant, one) if it["attempts"]), None), "an attempt ended", 30)  # noqa: B023
        assert (failed["status"], failed["response_status"]) == ("pending", None)
    assert receiver.ids == {} and receiver.bad == []
    port = receiver.server.server_port
    for host in ("127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0x7f.1"):
        answer = ask(tenant, "POST", json={"url": f"https://{host}:{port}/", "events": ["*"]})
        assert (answer.status, answer.envelope["errors"][0]["code"]) == (400, 1490), host
    for url in (f"http://127.0.0.1:{port}/", "http://hooks.acme-widgets.com/", "hooks.acme-widgets.com"):
        assert ask(tenant, "POST", json={"url": url, "events": ["*"]}).envelope["errors"][0]["code"] == 1490, url


def test_an_expiry_is_told_when_its_time_comes(new_csrd, new_receiver, authority, ca_file, tmp_path):
    clock = Clock(tmp_path, 0)
    arguments = ("--outbound-allow-private", "--outbound-ca-file", str(ca_file), "--sweep-interval", "1s", *LEAN)
    csrd = new_csrd(*arguments, env=clock.env).start()
    # The receiver's clock stays, and it would refuse what comes from tomorrow: only the arrival counts here.
    receiver, tenant = new_receiver(tls=False), csrd.tenant()
    tenant.token = csrd.token("--zone", tenant.id, "--ttl", "100d")
    told = []
    receiver.take = lambda _headers, body, _status: told.append(json.loads(body))
    hook(tenant, receiver, "custom_certificate.expiring", "custom_certificate.expired")
    csr = tenant.wait_active(tenant.create()["id"])
    certificate = upload(tenant, authority, csr, days=48)
    for day, left in [(33, 15), (41, 7), (45, 3), (47.5, 1), (49, None)]:
        clock.set(int(day * DAY))
        expected = len(told) + 1
        wait_until(lambda: len(told) >= expected, f"day {day} is told of", 60)  # noqa: B023
        assert told[-1]["data"]["id"] == certificate["id"] and told[-1]["data"].get("days_left") == left, (day, told[-1])
    assert [event["type"].split(".")[1] for event in told] == ["expiring"] * 4 + ["expired"]


def burst(tenant: Tenant, made: dict, number: int) -> list[str]:
    return [ask(tenant, "POST", f"/{made['id']}/ping").result["id"] for _ in range(number)]


# So many custom CSRs become active; the figures of a release come from 10,000.
EVENTS = int(os.environ.get("TEST_EVENTS", "300"))


def test_no_event_is_lost_while_workers_are_killed(new_cluster, new_receiver, ca_file, record_property):  # noqa: F811
    cluster = new_cluster(apis=1, workers=0)
    cluster.apis[0].stop()
    cluster.apis[0].arguments += ["--outbound-allow-private"]
    cluster.apis[0].start()
    cluster.worker_env |= {"CSRD_OUTBOUND_ALLOW_PRIVATE": "true", "CSRD_OUTBOUND_CA_FILE": str(ca_file)}
    receiver, tenant = new_receiver(), cluster.apis[0].tenant()
    tenant.token = cluster.apis[0].token("--zone", tenant.id, "--ttl", "1d")
    # No worker has made the key for its secret yet.
    assert ask(tenant, "POST", json={"url": receiver.url, "events": ["*"]}).envelope["errors"][0]["code"] == 1471
    cluster.workers = [Worker(cluster, f"first{number}") for number in range(3)]
    wait_until(lambda: all(worker.is_ready() for worker in cluster.workers), "the workers are ready", 120)
    made = hook(tenant, receiver)
    first = tenant.create()
    tenant.wait_active(first["id"])
    # Like it, and without a job: the sweep gives them some.
    cluster.postgres.sql(
        cluster.database,
        "INSERT INTO custom_csrs SELECT (jsonb_populate_record(c, jsonb_build_object('id', CAST(gen_random_uuid() AS TEXT), 'job_id', 'none', "
        "'status', 'pending', 'csr_pem', NULL, 'master_key_id', NULL, 'sealed_private_key', NULL, 'spki_sha256', NULL, 'starts', 0))).* "
        f"FROM custom_csrs c, generate_series(2, {EVENTS}) WHERE c.id = '{first['id']}'",
    )
    began, kills = time.monotonic(), 0

    def active() -> set[str]:
        return {data["id"] for data in receiver.of("custom_csr.active")}

    while len(active()) < EVENTS:
        assert time.monotonic() - began < 120 + EVENTS / 10, f"{len(active())} of {EVENTS} came, after {kills} kills"
        # One after the other, while it delivers.
        before = len(receiver.ids)
        with suppress(AssertionError):
            wait_until(lambda: len(receiver.ids) >= min(before + EVENTS // 12, EVENTS), "some came", 60)  # noqa: B023
        if kills < 10:
            cluster.replace(cluster.workers[0])
            kills += 1
    seconds = time.monotonic() - began
    assert receiver.bad == [] and cluster.number("SELECT COUNT(*) FROM custom_csrs WHERE status = 'active'") == EVENTS
    twice = sum(receiver.ids.values()) - len(receiver.ids)
    record_property("figures", f"{EVENTS} events, {kills} kills of workers, 0 lost, {twice} told twice, {seconds:.0f} s")
    assert len(receiver.ids) == EVENTS
    wait_until(lambda: all(one["status"] == "delivered" for one in deliveries(tenant, made)), "the last ones are delivered", 60)


def test_one_receiver_that_lets_wait_holds_up_no_other(allowed, new_receiver):
    slow, quick, tenant = new_receiver(tls=False), new_receiver(tls=False), allowed.tenant()
    slow.is_open.clear()
    waiting, other = hook(tenant, slow), hook(tenant, quick)
    burst(tenant, waiting, 40)
    began = time.monotonic()
    burst(tenant, other, 5)
    wait_until(lambda: len(quick.events) == 5, "the other one is told", 60)
    assert slow.events == [], f"after {time.monotonic() - began:.1f} s"
