"""Traces: requests, operations of the storage and jobs are joined, over processes too, tell no secret, and cost nobody a request."""

import re
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ca import Authority
from databases import blocked, new_service  # noqa: F401
from harness import ROOT, binary, refused, run, subject, wait_until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from postgres import Postgres, free_port
from test_faults import Api
from test_jwks_url import server_context

# Each batch goes soon.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
LEAN = ("--key-pool-size", "0")
TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RECORDED, NOT_RECORDED = f"00-{TRACE}-{CLIENT}-01", f"00-{TRACE}-{CLIENT}-00"
KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client", Span.SPAN_KIND_CONSUMER: "consumer"}


def value(attribute):
    return getattr(attribute.value, attribute.value.WhichOneof("value"))


def attributes(span) -> dict:
    return {attribute.key: value(attribute) for attribute in span.attributes}


class Collector:
    """Takes traces by OTLP over HTTP; answers as a test wants it to."""

    def __init__(self, tls: ssl.SSLContext | None = None):
        self.bodies, self.requests, self.headers, self.status = [], [], [], 200
        self.is_open = threading.Event()
        self.is_open.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.headers.append((self.path, dict(self.headers)))
                collector.is_open.wait(60)
                if collector.status == 200:
                    collector.bodies.append(body)
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self, name: str | None = None, **wanted) -> list:
        """The spans of this name that have these attributes."""
        scopes = [scope for request in list(self.requests) for resource in request.resource_spans for scope in resource.scope_spans]
        found = [span for scope in scopes for span in scope.spans if name in (None, span.name)]
        return [span for span in found if wanted.items() <= {key.replace(".", "_"): of for key, of in attributes(span).items()}.items()]

    def wait(self, name: str, **wanted):
        """The one span of this name with these attributes, once it is there."""
        (span,) = wait_until(lambda: self.spans(name, **wanted), f"there is a span {name} {wanted}", 60)
        return span

    def close(self) -> None:
        self.is_open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def new_collector():
    made = []

    def make(tls: ssl.SSLContext | None = None) -> Collector:
        made.append(Collector(tls))
        return made[-1]

    yield make
    for collector in made:
        collector.close()


def documented() -> dict[str, set[str]]:
    """The attributes of each kind of span."""
    table = (ROOT / "docs/metrics.md").read_text().split("## Traces")[1]
    rows = re.findall(r"^\| `[A-Za-z ]+` \| (\w+) \|[^|]*\|([^|]*)\|", table, re.MULTILINE)
    found = {}
    for kind, names in rows:
        found.setdefault(kind, set()).update(re.findall(r"`([a-z_.]+)`", names))
    return found


def check_joined(request, job, operations: list) -> None:
    """The request is a part of its client's trace; the job a trace of its own that links to it, with operations of its own."""
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CLIENT)
    assert request.name == "POST /api/v4/zones/{zone_id}/custom_csrs" and request.kind == Span.SPAN_KIND_SERVER
    ((link_trace, link_span),) = [(link.trace_id, link.span_id) for link in job.links]
    assert (link_trace, link_span) == (request.trace_id, request.span_id)
    assert job.parent_span_id == b"" and job.trace_id != request.trace_id and job.kind == Span.SPAN_KIND_CONSUMER
    assert attributes(job) == {"csrd.scope_kind": "zone", "csrd.key_type": "p256v1", "csrd.outcome": "active"}
    parents = {attributes(span)["db.operation.name"]: span.parent_span_id for span in operations}
    assert parents["accept_custom_csr"] == request.span_id and parents["complete_generation"] == job.span_id, parents
    for span in (request, job, *operations):
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano


def test_one_process_joins_a_request_with_its_operations_and_its_job_and_tells_no_name_and_no_secret(new_csrd, new_collector, tmp_path):
    authority = Authority("Root of the collector")
    (ca_file := tmp_path / "ca.pem").write_text(authority.pem)
    collector = new_collector(server_context(authority, tmp_path))
    settings = SOON | {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20collect", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
    csrd = new_csrd("--otlp-endpoint", collector.url, "--outbound-ca-file", str(ca_file), *LEAN, env=settings).start()
    zone = csrd.tenant()
    made = zone.request("POST", json=subject(), headers={"traceparent": RECORDED, "tracestate": "vendor=1", "X-Request-Id": "mine"})
    zone.wait_active(made.result["id"])
    request = collector.wait("POST /api/v4/zones/{zone_id}/custom_csrs", csrd_request_id="mine")
    job = collector.wait("generate")
    accepted, completed = collector.wait("accept_custom_csr"), collector.wait("complete_generation")
    check_joined(request, job, [accepted, completed])
    assert request.trace_state == "vendor=1" and attributes(request)["http.response.status_code"] == 201
    assert attributes(accepted)["db.system.name"] == "sqlite"
    path, headers = collector.headers[0]
    assert (path, headers["content-type"], headers["authorization"]) == ("/v1/traces", "application/x-protobuf", "Bearer collect")
    resource = {attribute.key: value(attribute) for attribute in collector.requests[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "csrd" and resource["service.version"] in run("--version").stdout
    assert resource["service.instance.id"] and resource["deployment.environment.name"] == "test"

    # What names no span begins a trace; what its client does not record is not recorded, nor is its job, nor is a probe.
    for number, named in enumerate(("nonsense", RECORDED.upper(), f"00-{'0' * 32}-{CLIENT}-01", None)):
        headers = {"X-Request-Id": f"root{number}"} | ({"traceparent": named} if named else {})
        assert zone.request("GET", headers=headers).status == 200
        root = collector.wait("GET /api/v4/zones/{zone_id}/custom_csrs", csrd_request_id=f"root{number}")
        assert root.parent_span_id == b"" and root.trace_id.hex() not in (TRACE, "0" * 32)
    unseen = zone.request("POST", json=subject(), headers={"traceparent": NOT_RECORDED, "X-Request-Id": "unseen"})
    zone.wait_active(unseen.result["id"])
    assert csrd.is_up("/health/ready")

    # Errors have their codes, and no route is none.
    zone.request("POST", json=subject(country="Q1", sans=[]), headers={"X-Request-Id": "bad"})
    csrd.request("GET", "/nowhere/secret-name", headers={"X-Request-Id": "nowhere"})
    assert csrd.stop() == 0
    assert attributes(collector.wait("POST /api/v4/zones/{zone_id}/custom_csrs", csrd_request_id="bad"))["csrd.error_codes"] == "1411,1460"
    assert attributes(collector.wait("GET", csrd_request_id="nowhere"))["http.response.status_code"] == 404
    assert collector.spans(csrd_request_id="unseen") == [] and len(collector.spans("generate")) == 1
    assert all("health" not in span.name for span in collector.spans())
    sent = b"".join(collector.bodies)
    for secret in (zone.id, zone.token, made.result["id"], "Acme", "acme-widgets", "secret-name"):
        assert secret.encode() not in sent, secret
    table = documented()
    assert set(table) == {"server", "client", "consumer"}
    for span in collector.spans():
        assert set(attributes(span)) <= table[KINDS[span.kind]], span


@contextmanager
def worker(api: Api, name: str, *arguments: str):
    """A `csrd worker` on the database of an API process."""
    csrd = Api(api.directory / name, env={key: text for key, text in api.env.items() if key.startswith(("CSRD_DATABASE", "OTEL_"))})
    csrd.data_dir.mkdir(mode=0o700)
    (key := csrd.data_dir / "master.key").write_bytes((api.data_dir / "master.key").read_bytes())
    key.chmod(0o600)
    csrd.spawn(binary(), "worker", "--data-dir", csrd.data_dir, *LEAN, *arguments)
    try:
        yield csrd
    finally:
        csrd.close()


def test_a_job_in_another_process_links_to_its_request_however_late_and_some_requests_are_not_recorded(tmp_path, new_collector):
    collector, server = new_collector(), Postgres()
    settings = SOON | {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    env = {"CSRD_DATABASE_URL": server.url(server.create_database())} | settings
    api = Api(tmp_path / "api", "--workers", "0", "--otlp-endpoint", collector.url, env=env)
    try:
        api.data_dir.mkdir(mode=0o700)
        api.ok("keys", "init")
        zone = api.start().tenant()
        unseen = zone.create()["id"]
        made = zone.request("POST", json=subject(), headers={"traceparent": RECORDED}).result["id"]
        with worker(api, "worker", "--otlp-endpoint", collector.url) as other:
            for csr_id in (unseen, made):
                zone.wait_active(csr_id)
            assert other.stop() == 0
        assert api.stop() == 0
        request, job = collector.wait("POST /api/v4/zones/{zone_id}/custom_csrs"), collector.wait("generate")
        check_joined(request, job, collector.spans("accept_custom_csr") + collector.spans("complete_generation"))
        assert {attributes(span)["db.system.name"] for span in collector.spans("accept_custom_csr")} == {"postgresql"}
    finally:
        api.close()
        server.close()


@pytest.mark.parametrize("kind", ["down", "refusing", "silent"])
def test_a_collector_that_takes_nothing_costs_spans_and_no_request_and_no_end(new_csrd, new_collector, kind):
    collector = new_collector()
    url = f"http://127.0.0.1:{free_port()}" if kind == "down" else collector.url
    if kind == "refusing":
        collector.status = 503
    elif kind == "silent":
        collector.is_open.clear()
    # Few spans may wait: most are lost at once.
    csrd = new_csrd("--otlp-endpoint", url, *LEAN, env={"OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_BSP_MAX_QUEUE_SIZE": "8"}).start()
    zone = csrd.tenant()
    for _ in range(20):
        zone.wait_active(zone.create()["id"])
    if kind != "silent":
        wait_until(lambda: "spans are lost: --otlp-endpoint did not take them" in csrd.log(), "the log tells of it")
    began = time.monotonic()
    assert csrd.stop() == 0
    # Two seconds, on a machine that others use too.
    assert time.monotonic() - began < 20
    assert csrd.log().count("spans are lost") <= 1 and "panicked" not in csrd.log()
    assert collector.requests == []


def test_an_endpoint_that_is_none_is_named(tmp_path):
    where = ("serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))
    for url in ("127.0.0.1:4318", "ftp://collector.example", "https://user:pass@collector.example", "https://collector.example?key=1"):
        refused(run(*where, "--otlp-endpoint", url), 2, "--otlp-endpoint")
    assert not (tmp_path / "data").exists()


def test_the_spans_of_an_error_are_marked(new_service, new_collector):  # noqa: F811
    collector = new_collector()
    csrd = new_service("sqlite", "--otlp-endpoint", collector.url, *LEAN, env=SOON)
    zone = csrd.tenant()
    with blocked(csrd):
        assert zone.request("POST", json=subject()).status == 500
    operation, request = collector.wait("accept_custom_csr"), collector.wait("POST /api/v4/zones/{zone_id}/custom_csrs")
    assert operation.status.code == request.status.code == Status.STATUS_CODE_ERROR
    assert attributes(operation)["error.type"] == "internal" and attributes(request)["error.type"] == "500"
