"""Metrics: what the document lists is there, the figures are right, and the dashboard and the alerts work with a real Prometheus."""

import json
import math
import re
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from harness import ROOT, Csrd, Tenant, binary, refused, run, subject, wait_until
from postgres import Postgres, free_port
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus
from test_faults import Api
from test_jwks_url import Key, Provider

DOCUMENT = ROOT / "docs/metrics.md"
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/csrd.json"
LISTEN = ("--metrics-listen", "127.0.0.1:0")
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def metrics_url(log: str) -> str:
    return re.search(r"metrics at (http://\S+/metrics)", log).group(1)


def scrape(csrd: Csrd, **headers: str) -> httpx.Response:
    answer = httpx.get(metrics_url(csrd.log_of_this_start()), headers=headers, trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def families(csrd: Csrd) -> dict:
    """The metrics of a scrape in OpenMetrics, whose parser is strict."""
    text = scrape(csrd, Accept=OPEN_METRICS).text
    return {family.name: family for family in read_open_metrics(text)}


class Samples:
    """What one scrape in Prometheus' text format says."""

    def __init__(self, csrd: Csrd):
        lines = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", scrape(csrd).text, re.MULTILINE)
        self.lines = [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(number)) for name, labels, number in lines]

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of this name that have these labels; none without any."""
        found = [number for other, of, number in self.lines if other == name and labels.items() <= of.items()]
        return sum(found) if found else None


def value(csrd: Csrd, name: str, **labels: str) -> float | None:
    return Samples(csrd).value(name, **labels)


@pytest.fixture(scope="module")
def key() -> Key:
    return Key()


@pytest.fixture(scope="module")
def busy(tmp_path_factory, key):
    """A csrd that has had requests of every kind, and gets its keys for tokens from a provider."""
    provider = Provider(key)
    csrd = Csrd(tmp_path_factory.mktemp("busy"), *LISTEN, "--jwt-jwks-url", provider.url, "--key-types", "rsa2048,p256v1,ed25519").start()
    csrd.ok("zone", "grant", "z", "--quota", "100000")
    zone = Tenant(csrd, "zone", "z", key.token())
    ids = [zone.create(key_type=key_type)["id"] for key_type in ("p256v1", "p256v1", "rsa2048", "ed25519")]
    for csr_id in ids:
        zone.wait_active(csr_id)
    assert zone.request("GET", "/0190163d-8694-6739-aea5-966c26f8ad91").status == 404
    assert zone.request("POST", json=subject(country="Q1", sans=[])).status == 400
    assert zone.request("GET", token="x").status == 401
    yield csrd
    csrd.close()
    provider.close()


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of each metric in the document."""
    table = DOCUMENT.read_text().split("\n## Traces")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", table, re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_each_documented_metric_is_there_with_its_type_and_labels_and_no_other(busy):
    def served():
        found = {}
        for family in families(busy).values():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        return found

    assert len(documented()) > 20
    assert served() == documented()


def test_the_text_format_of_prometheus_says_the_same_as_openmetrics(busy):
    def samples(parse, text: str):
        return {(s.name, tuple(sorted(s.labels.items()))) for family in parse(text) for s in family.samples}

    def scraped():
        return scrape(busy, Accept="*/*"), scrape(busy, Accept=f"{OPEN_METRICS};q=0.5,text/plain;q=0.2")

    def says_the_same() -> bool:
        plain, open_metrics = scraped()
        return samples(read_prometheus, plain.text) == samples(read_open_metrics, open_metrics.text)

    plain, open_metrics = scraped()
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert open_metrics.text.endswith("# EOF\n") and "# EOF" not in plain.text
    # Between two scrapes something may happen for the first time.
    wait_until(says_the_same, "both have the same samples")
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", plain.text, re.MULTILINE))
    assert types == {name: kind for name, (kind, _) in documented().items()}


def test_what_happened_is_counted_and_timed(busy, key):
    zone = Tenant(busy, "zone", "z", key.token())
    routes = {"route": "/api/v4/zones/{zone_id}/custom_csrs", "method": "POST"}
    one = {"route": "/api/v4/zones/{zone_id}/custom_csrs/{custom_csr_id}", "method": "GET"}
    counters = [
        ("csrd_http_requests_total", routes | {"status": "201"}, 1),
        ("csrd_http_requests_total", routes | {"status": "400"}, 1),
        ("csrd_http_requests_total", routes | {"status": "401"}, 1),
        ("csrd_http_requests_total", one | {"status": "404"}, 1),
        ("csrd_http_requests_total", {"route": "none", "status": "404"}, 1),
        ("csrd_http_request_duration_seconds_count", routes, 3),
        ("csrd_http_errors_total", {"code": "1411"}, 1),
        ("csrd_http_errors_total", {"code": "1460"}, 1),
        ("csrd_http_errors_total", {"code": "7000"}, 1),
        ("csrd_auth_failures_total", {"code": "1001"}, 1),
        ("csrd_custom_csrs_accepted_total", {"key_type": "p256v1"}, 1),
        ("csrd_generations_total", {"key_type": "p256v1", "outcome": "active"}, 1),
        ("csrd_generations_total", {"outcome": "failed"}, 0),
        ("csrd_generation_duration_seconds_count", {"key_type": "p256v1", "source": "fresh"}, 1),
        ("csrd_time_to_active_seconds_count", {"key_type": "p256v1"}, 1),
        ("csrd_store_duration_seconds_count", {"operation": "accept_custom_csr"}, 1),
        ("csrd_store_errors_total", {}, 0),
    ]
    before = Samples(busy)
    zone.wait_active(zone.create()["id"])
    zone.request("POST", json=subject(country="Q1", sans=[]))
    zone.request("POST", token="x", json=subject())
    zone.request("GET", "/0190163d-8694-6739-aea5-966c26f8ad91")
    busy.request("GET", "/nowhere")
    after = Samples(busy)
    more = [(name, labels, (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0)) for name, labels, _ in counters]
    assert more == counters
    assert after.value("csrd_http_requests_in_flight") == 0
    assert after.value("csrd_http_requests_total", route="/metrics") is None


def test_the_process_and_the_build_are_described(busy):
    samples = Samples(busy)
    ((labels, number),) = [(labels, number) for name, labels, number in samples.lines if name == "csrd_build_info"]
    assert (number, labels["version"]) == (1, re.search(r"[\d.]+", run("--version").stdout).group())
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", labels["rustc"]) and labels["rsa"] in ("aws-lc", "openssl")
    process = Path(f"/proc/{busy.process.pid}")
    assert abs(samples.value("process_open_fds") - len(list((process / "fd").iterdir()))) < 20
    resident = int((process / "statm").read_text().split()[1]) * 4096
    assert 0.5 < samples.value("process_resident_memory_bytes") / resident < 2
    assert abs(samples.value("process_start_time_seconds") - process.stat().st_mtime) < 120
    assert 0 < samples.value("process_cpu_seconds_total") < 600
    assert 0 <= samples.value("csrd_jwks_age_seconds") < 600


def test_nothing_is_served_on_the_api_or_without_the_setting_and_a_bad_address_is_named(service, busy):
    assert service.request("GET", "/metrics").status == 404
    assert busy.request("GET", "/metrics").status == 404
    assert "metrics at" not in service.log()
    url = metrics_url(busy.log_of_this_start())
    wrong = httpx.get(url.replace("/metrics", "/"), trust_env=False)
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (404, 7000)
    taken = url.split("/")[2]
    for address in ("nowhere", taken):
        refused(run("serve", "--listen", "127.0.0.1:0", "--metrics-listen", address, "--data-dir", str(busy.directory / "other")), 2, "--metrics-listen")


@contextmanager
def worker(api: Api, name: str):
    """A `csrd worker` on the database of an API process, with metrics."""
    csrd = Api(api.directory / name, env={key: text for key, text in api.env.items() if key.startswith("CSRD_DATABASE")})
    (directory := csrd.data_dir).mkdir(mode=0o700)
    (directory / "master.key").write_bytes((api.data_dir / "master.key").read_bytes())
    (directory / "master.key").chmod(0o600)
    csrd.spawn(binary(), "worker", "--data-dir", directory, *LISTEN)
    try:
        wait_until(lambda: csrd.check_runs() and "metrics at" in csrd.log_of_this_start(), "the worker serves metrics")
        yield csrd
    finally:
        csrd.close()


FIGURES = ("csrd_queue_depth", "csrd_queue_oldest_pending_seconds", "csrd_key_pool_keys", "csrd_certificates_expiring")


def test_the_figures_of_the_database_are_the_same_from_every_process_and_missing_while_it_is_away(tmp_path):
    server = Postgres()
    api = Api(tmp_path / "api", *LISTEN, "--workers", "0", env={"CSRD_DATABASE_URL": server.url(server.create_database())})
    try:
        api.data_dir.mkdir(mode=0o700)
        api.ok("keys", "init")
        api.start()
        zone = api.tenant()
        ids = [zone.create()["id"] for _ in range(3)]
        wait_until(lambda: value(api, "csrd_queue_depth", state="pending") == 3, "three wait for a worker")
        assert value(api, "csrd_queue_depth", state="running") == 0
        wait_until(lambda: value(api, "csrd_queue_oldest_pending_seconds") >= 1, "the oldest grows older")
        with worker(api, "worker") as other:
            for csr_id in ids:
                zone.wait_active(csr_id)
            for process in (api, other):
                wait_until(lambda process=process: value(process, "csrd_queue_depth") == 0, "nothing is pending")
                samples = Samples(process)
                assert samples.value("csrd_queue_oldest_pending_seconds") == 0
                assert samples.value("csrd_db_connections", pool="store") > 0
                assert all(samples.value(name) is not None for name in FIGURES)
            accepting, making = Samples(api), Samples(other)
            assert accepting.value("csrd_custom_csrs_accepted_total", key_type="p256v1") == 3
            assert making.value("csrd_generations_total", key_type="p256v1", outcome="active") == 3
            assert making.value("csrd_time_to_active_seconds_sum", key_type="p256v1") >= 1
            assert accepting.value("csrd_generations_total") == 0, "the API process makes none"
            server.stop("immediate")
            for process in (api, other):
                wait_until(lambda process=process: all(value(process, name) is None for name in FIGURES), "the figures are gone", 60)
            assert zone.request("GET").status == 503
            kinds = {labels["kind"] for name, labels, count in Samples(api).lines if name == "csrd_store_errors_total" and count > 0}
            assert kinds and kinds <= {"unavailable", "ambiguous", "abandoned"}
            server.start()
            for process in (api, other):
                wait_until(lambda process=process: value(process, "csrd_queue_depth") == 0, "the figures are back", 60)
    finally:
        api.close()
        server.close()


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_alerts_are_sound_and_each_says_what_to_do():
    promtool("check", "rules", str(ALERTS))
    promtool("test", "rules", str(ALERTS.parent / "alerts_test.yaml"))
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert all(rule["annotations"]["summary"] and rule["annotations"]["action"] for rule in rules)
    tests = yaml.safe_load((ALERTS.parent / "alerts_test.yaml").read_text())["tests"]
    raised = [test["promql_expr_test"][-1]["exp_samples"][0]["labels"] for test in tests]
    assert raised == [f'{{alertname="{rule["alert"]}"}}' for rule in rules], "each has a test in which it is raised"
    assert used(ALERTS.read_text()) - documented().keys() == set()


def used(text: str) -> set[str]:
    """The metrics that expressions name."""
    return {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\b((?:csrd|process)_\w+?)(?=[{\[ )])", text)}


def panels() -> list[dict]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


@contextmanager
def prometheus_of(target: str, directory: Path):
    """A Prometheus that scrapes a target every second; what asks it."""
    settings = directory / "prometheus.yaml"
    scrapes = [{"job_name": "csrd", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]
    settings.write_text(json.dumps({"scrape_configs": scrapes, "rule_files": [str(ALERTS)]}))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={settings}", f"--storage.tsdb.path={directory}/tsdb", f"--web.listen-address={address}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=30) as client:

            def is_ready() -> bool:
                assert process.poll() is None, (directory / "prometheus.log").read_text()
                try:
                    return client.get("/-/ready").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_ready, "Prometheus is ready", 60)
            yield client
    finally:
        process.kill()
        process.wait()


@contextmanager
def load(busy: Csrd, key: Key):
    """Clients that create, read, list and make mistakes, until the end."""
    over = threading.Event()
    zone = Tenant(busy, "zone", "z", key.token())
    problems = []

    def work() -> None:
        with httpx.Client(base_url=busy.url, headers={"Authorization": f"Bearer {zone.token}"}, trust_env=False, timeout=60) as client:
            while not over.is_set():
                for key_type in ("p256v1", "rsa2048"):
                    created = client.post(zone.path, json=subject(key_type=key_type), headers={"Prefer": "wait=10"})
                    if created.status_code != 201:
                        problems.append(created.text)
                client.get(zone.path)
                client.get(f"{zone.path}/0190163d-8694-6739-aea5-966c26f8ad91")
                client.get(zone.path, headers={"Authorization": "Bearer x"})
                time.sleep(0.1)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(90)
    assert not thread.is_alive() and problems == []


def test_each_panel_of_the_dashboard_shows_data_of_a_csrd_under_load(busy, key, tmp_path):
    queries = {target["expr"] for panel in panels() for target in panel["targets"]}
    assert used(" ".join(queries)) == documented().keys(), "each metric is shown"
    target = metrics_url(busy.log_of_this_start()).split("/")[2]
    with load(busy, key), prometheus_of(target, tmp_path) as client:

        def numbers(query: str) -> list[float]:
            query = query.replace("$__rate_interval", "20s").replace("$job", ".+")
            answer = client.get("/api/v1/query", params={"query": query}).json()
            assert answer["status"] == "success", answer
            return [number for number in (float(found["value"][1]) for found in answer["data"]["result"]) if not math.isnan(number)]

        for query in sorted(queries):
            wait_until(lambda query=query: numbers(query), f"{query} has data", 60)
        for shown in ("csrd_http_requests_total", "csrd_custom_csrs_accepted_total", "csrd_store_duration_seconds_count"):
            wait_until(lambda shown=shown: sum(numbers(f"rate({shown}[20s])")) > 0, f"{shown} grows", 60)
        assert client.get("/api/v1/targets").json()["data"]["activeTargets"][0]["lastError"] == ""
        # The rules are loaded, and their expressions find nothing wrong with a service that is well.
        rules = client.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert len(rules) > 10 and [rule["lastError"] for rule in rules if rule.get("lastError")] == []
