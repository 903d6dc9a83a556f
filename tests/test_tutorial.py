"""The tutorial runs as it stands, the guides that go on from it too, and nginx and HAProxy serve by the settings in the documents."""

import os
import random
import re
import socket
import ssl
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from harness import Csrd, environment, subject, wait_until
from pages import DOCS, blocks, follow, is_as_shown, run_shell, run_there

TUTORIAL = DOCS / "tutorial.md"
RENEWAL = DOCS / "how-to/renewal.md"
LOAD_BALANCER = DOCS / "how-to/load-balancer.md"
BACKUP = DOCS / "how-to/backup.md"


def free_port() -> str:
    """A port that nobody listens on, from the range that the system gives to nobody by itself: it stays free until it is used."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return str(port)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A service as a first start makes it, after somebody pasted the tutorial: with what was shown and what was printed."""
    csrd = Csrd(tmp_path_factory.mktemp("tutorial"))
    csrd.data_dir = csrd.directory / "csrd-data"
    csrd.start()
    try:
        steps = follow(TUTORIAL, csrd.directory, URL=csrd.url, PORT=free_port())
        yield csrd, steps
    finally:
        # The tutorial stops its nginx at its end, but not where a step before has failed.
        if (csrd.directory / "nginx.pid").exists():
            subprocess.run(["kill", (csrd.directory / "nginx.pid").read_text().strip()], timeout=60, check=False)
        csrd.close()


def test_the_tutorial_runs_as_it_stands_and_prints_what_it_shows(followed):
    _, steps = followed
    assert len(steps) == 7
    for shown, printed in steps:
        assert is_as_shown(shown, printed), f"the tutorial shows:\n{shown}and this was printed:\n{printed}"


def test_the_key_that_the_tutorial_exports_is_that_of_its_csr_and_its_certificate(followed):
    csrd, _ = followed

    def public_key(*command: str) -> str:
        return run_there(csrd.directory, "openssl", *command)

    exported = public_key("pkey", "-in", "tls/privkey.pem", "-pubout")
    assert exported == public_key("req", "-in", "www.csr", "-noout", "-pubkey")
    assert exported == public_key("x509", "-in", "tls/fullchain.pem", "-noout", "-pubkey")


# What the tutorial has set in its shell by its end.
RESUMED = """
URL=$URL/api/v4/zones/demo
AUTH="Authorization: Bearer $(csrd token issue --zone demo)"
JSON='Content-Type: application/json'
ID=$(jq -r .result.id made.json)
CERTIFICATE=$(jq -r .result.id uploaded.json)
"""


def test_a_certificate_is_renewed_and_exported_as_the_guide_says(followed):
    csrd, _ = followed
    policy, same_key, new_key, export = blocks(RENEWAL, "bash")
    # The guide's files are not the tutorial's.
    there = csrd.directory / "renewal"
    (there / "tenants").mkdir(parents=True)
    for name in ("csrd-data", "ca.pem", "ca.key", "made.json", "uploaded.json"):
        (there / name).symlink_to(csrd.directory / name)
    certificate = run_there(there, "jq", "-r", ".result.id", "uploaded.json").strip()

    def public_key(kind: str, name: str) -> str:
        return run_there(there, "openssl", kind, "-in", name, *(["-pubout"] if kind == "pkey" else ["-noout", "-pubkey"]))

    exported = []
    for renewal, printed, request in ((same_key, '"active"\n', "www.csr"), (new_key, '"active"\ntrue\n', "new.csr")):
        assert run_shell(there, f"{RESUMED}{renewal}{export}", URL=csrd.url).startswith(printed)
        exported.append(public_key("pkey", f"tenants/{certificate}/privkey.pem"))
        assert exported[-1] == public_key("req", request)
    assert exported[0] != exported[1]
    assert run_shell(there, f"{RESUMED}{policy}", URL=csrd.url) == '"new"\n'
    (due,) = blocks(RENEWAL, "sh")
    assert run_shell(there, due) == ""
    (certificate,) = run_shell(there, due.replace("15d", "60d")).splitlines()
    assert "www.acme-widgets.com" in certificate


def test_a_backup_is_restored_and_every_key_in_it_opens_as_the_guide_says(followed):
    csrd, _ = followed
    (commands,) = blocks(BACKUP, "sh")
    assert re.fullmatch(r"(?s).*ok, all [1-9]\d* sealed records were opened\n", run_shell(csrd.directory, commands))


@contextmanager
def running(command: list, env: dict, log: Path, sockets: list[Path]):
    """A server that listens on these sockets."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        return all(path.exists() for path in sockets)

    try:
        wait_until(listens, f"{command[0]} listens", 120)
        yield
    finally:
        process.kill()
        process.wait()


# Not only root has the servers on PATH then.
WITH_SERVERS = environment(PATH=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def nginx(settings: str):
    """nginx by these settings, on a socket of its own for each `listen 443`; yields the sockets."""
    with tempfile.TemporaryDirectory(prefix="csrd-nginx-") as name:
        directory = Path(name)
        sockets = [directory / f"{number}.sock" for number in range(settings.count("listen 443 ssl;"))]
        for path in sockets:
            settings = settings.replace("listen 443 ssl;", f"listen unix:{path} ssl;", 1)
        places = "".join(f"{kind}_temp_path {directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (directory / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {directory}/pid; events {{}}\nhttp {{ access_log off; {places}\n{settings} }}\n"
        )
        command = ["nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "error.log"]
        with running(command, WITH_SERVERS, directory / "error.log", sockets):
            yield sockets


@contextmanager
def haproxy(settings: str):
    """HAProxy likewise, for each `bind :443`."""
    with tempfile.TemporaryDirectory(prefix="csrd-haproxy-") as name:
        directory = Path(name)
        sockets = [directory / f"{number}.sock" for number in range(settings.count("bind :443 ssl"))]
        for path in sockets:
            settings = settings.replace("bind :443 ssl", f"bind unix@{path} ssl", 1)
        (directory / "haproxy.cfg").write_text(settings)
        with running(["haproxy", "-db", "-f", directory / "haproxy.cfg"], WITH_SERVERS, directory / "log", sockets):
            yield sockets


@pytest.mark.parametrize("server", [nginx, haproxy], ids=["nginx", "haproxy"])
def test_a_load_balancer_serves_the_api_and_an_exported_certificate_by_the_documented_settings(followed, server):
    csrd, _ = followed
    in_front, site = blocks(LOAD_BALANCER, server.__name__)
    exported = csrd.directory / f"tls-{server.__name__}"
    certificate = run_shell(csrd.directory, "jq -r .result.id uploaded.json").strip()
    csrd.ok("certificate", "export", certificate, "--out", str(exported), "--combined")
    settings = in_front + site
    for documented in ("127.0.0.1:8080", "10.0.0.11:8080", "10.0.0.12:8080"):
        settings = settings.replace(documented, csrd.address)
    for documented in ("/etc/nginx/tls", "/etc/nginx/tenants/www", "/etc/haproxy/tls", "/etc/haproxy/tenants/www"):
        settings = settings.replace(documented, str(exported))
    trusted = ssl.create_default_context(cafile=csrd.directory / "ca.pem")
    token = csrd.token("--zone", "demo")
    with server(settings) as (api_socket, site_socket):
        transport = httpx.HTTPTransport(uds=str(api_socket), verify=trusted)
        with httpx.Client(transport=transport, base_url="https://www.acme-widgets.com", timeout=60) as client:
            headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=30", "X-Request-Id": "through-it"}
            for _ in range(2):
                answer = client.post("/api/v4/zones/demo/custom_csrs", headers=headers, json=subject())
                assert answer.status_code == 201 and answer.json()["result"]["status"] == "active", answer.text
                assert answer.headers["X-Request-Id"] == "through-it"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(site_socket), verify=trusted), timeout=60) as client:
            assert client.get("https://www.acme-widgets.com/").text.strip() == "a tenant's site"
