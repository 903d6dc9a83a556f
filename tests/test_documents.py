"""The README and docs/ say what is there, and what they show to paste runs as it stands."""

import os
import re
import shlex
import ssl
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from databases import FAIL, OnSqlite
from harness import ROOT, Csrd, Tenant, binary, environment, run, subject, wait_until

README = ROOT / "README.md"
OPERATIONS = ROOT / "docs/operations.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{document.name} has no {language} block"
    return found


def test_the_readme_is_one_page():
    assert len(README.read_text().splitlines()) < 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document):
    def leads_somewhere(link: str) -> bool:
        name, _, heading = link.partition("#")
        target = document.parent / name if name else document
        return target.exists() and (not heading or heading in headings(target))

    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()) if "://" not in link]
    assert [link for link in links if not leads_somewhere(link)] == []


def headings(document: Path) -> list[str]:
    """The names by which links reach the headings."""
    return [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)]


def test_each_threat_names_a_test_that_exists():
    table = (ROOT / "docs/security.md").read_text().split("**Threats, and the test that shows what holds.**")[1].split("\n## ")[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", table, re.MULTILINE)]
    sources = [*ROOT.glob("tests/**/*.py"), *(path for crate in ("api", "worker", "shared") for path in (ROOT / crate).glob("**/*.rs"))]
    tests = set(re.findall(r"^\s*(?:async )?(?:def|fn) (\w+)\(", "\n".join(path.read_text() for path in sources), re.MULTILINE))
    named = {row[0]: re.findall(r"`(\w+)`", row[-1]) for row in rows if row[0] != "threat"}
    assert len(named) > 20
    # What depends on others' knowledge of faults cannot be tested here.
    assert [threat for threat, names in named.items() if not names] == ["a dependency with a known fault, or other cryptography"]
    assert {name for names in named.values() for name in names} - tests == set()


def test_every_setting_is_documented_with_its_variable_and_none_that_is_not_there():
    offered = set()
    for command in ("serve", "worker", "migrate"):
        shown = run(command, "--help")
        assert shown.returncode == 0, shown
        # The long help wraps lines: an option runs to the next one.
        for option in re.split(r"\n(?= {2,6}(?:-\w, )?--)", shown.stdout)[1:]:
            name = re.search(r"--[a-z-]+", option).group()
            if variable := re.search(r"\[env:\s+(CSRD_\w+)", option):
                offered.add((name, variable.group(1)))
            else:
                assert name in ("--help", "--version"), option
    documented = set(re.findall(r"^\| `(--[a-z-]+)` \| `(CSRD_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == offered


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A service as a first start makes it, with `./csrd-data` in the directory that it was started in."""
    csrd = Csrd(tmp_path_factory.mktemp("fresh"))
    csrd.data_dir = csrd.directory / "csrd-data"
    csrd.start()
    yield csrd
    csrd.close()


def run_there(directory: Path, *command: str, **extra: str) -> str:
    """Runs a command in a directory, with csrd on PATH; it has to succeed."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    if not (programs / "csrd").exists():
        (programs / "csrd").symlink_to(binary())
    env = environment(PATH=f"{programs}:{os.environ['PATH']}", **extra)
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout


def run_shell(directory: Path, text: str, **extra: str) -> str:
    return run_there(directory, "bash", "-euo", "pipefail", "-c", text, **extra)


@pytest.fixture(scope="module")
def followed(fresh) -> Csrd:
    """The same, after somebody pasted the README's shell blocks."""
    run_shell(fresh.directory, "\n".join(blocks(README, "sh")), URL=fresh.url)
    return fresh


def test_the_shell_blocks_of_the_readme_run_as_they_stand(followed):
    def public_key(*command: str) -> str:
        return run_there(followed.directory, "openssl", *command)

    exported = public_key("pkey", "-in", "tls/privkey.pem", "-pubout")
    assert exported == public_key("req", "-in", "www.csr", "-noout", "-pubkey")
    assert exported == public_key("x509", "-in", "tls/fullchain.pem", "-noout", "-pubkey")


@pytest.fixture(scope="module", params=["python", "ts"])
def example(request, tmp_path_factory) -> tuple[str, Path]:
    """The README's example of an official client: a program and the script that it runs, which TypeScript is compiled to."""
    directory = tmp_path_factory.mktemp(request.param)
    (text,) = blocks(README, request.param)
    if request.param == "python":
        script = directory / "example.py"
        script.write_text(text)
        return sys.executable, script
    packages = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "npm/node_modules"
    assert (packages / "cloudflare").is_dir() and (packages / "typescript").is_dir(), "run .ci/test, which installs them"
    (directory / "node_modules").symlink_to(packages.resolve())
    (directory / "example.mts").write_text(text)
    compiler = ["node_modules/.bin/tsc", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--types", "node"]
    run_there(directory, *compiler, "example.mts")
    return "node", directory / "example.mjs"


def client_settings(csrd: Csrd) -> dict[str, str]:
    return {"CLOUDFLARE_BASE_URL": f"{csrd.url}/client/v4", "CLOUDFLARE_API_TOKEN": csrd.token("--zone", "demo")}


def test_the_client_examples_of_the_readme_run_as_they_stand(fresh, example):
    program, script = example
    printed = run_there(script.parent, program, script.name, **client_settings(fresh))
    assert printed.startswith("-----BEGIN CERTIFICATE REQUEST-----"), printed


def test_the_client_examples_of_the_readme_end_where_a_custom_csr_has_failed(tmp_path, example):
    program, script = example
    # Without a wait the loop is what finds it.
    at_once = script.with_stem("at-once")
    at_once.write_text(script.read_text().replace("wait=10", "wait=0"))
    csrd = OnSqlite(tmp_path / "csrd", "--workers", "0").start()
    try:
        settings = client_settings(csrd)
        demo = Tenant(csrd, "zone", "demo", settings["CLOUDFLARE_API_TOKEN"])
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([program, at_once.name], cwd=script.parent, env=environment(**settings), **output)
        try:
            (made,) = wait_until(demo.all, "it is made", 60)
            csrd.sql(FAIL.format(made["id"]))
            printed, complained = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert process.returncode != 0 and printed == "" and f"{made['id']} failed: by a test" in complained, complained
    finally:
        csrd.close()


@contextmanager
def nginx(settings: str):
    """nginx in front of all that the settings say, on a socket of its own for each `listen 443`; yields clients of these."""
    with tempfile.TemporaryDirectory(prefix="csrd-nginx-") as name:
        directory = Path(name)
        sockets = [directory / f"{number}.sock" for number in range(settings.count("listen 443 ssl;"))]
        for socket in sockets:
            settings = settings.replace("listen 443 ssl;", f"listen unix:{socket} ssl;", 1)
        places = "".join(f"{kind}_temp_path {directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (directory / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {directory}/pid; events {{}}\nhttp {{ access_log off; {places}\n{settings} }}\n"
        )
        command = ["nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "error.log"]
        # Not only root has it on PATH then.
        process = subprocess.Popen(command, env=environment(PATH=f"{os.environ['PATH']}:/usr/sbin"))

        def listens() -> bool:
            assert process.poll() is None, (directory / "error.log").read_text()
            return all(socket.exists() for socket in sockets)

        try:
            wait_until(listens, "nginx listens")
            yield sockets
        finally:
            process.kill()
            process.wait()


def test_nginx_serves_the_api_and_an_exported_certificate_by_the_documented_settings(followed):
    in_front, site = blocks(OPERATIONS, "nginx")
    exported = f"{followed.directory}/tls"
    settings = in_front.replace("127.0.0.1:8080", followed.address).replace("/etc/nginx/tls", exported)
    settings += site.replace("/etc/nginx/tenants/www", exported)
    trusted = ssl.create_default_context(cafile=followed.directory / "ca.pem")
    token = followed.token("--zone", "demo")
    with nginx(settings) as (api_socket, site_socket):
        transport = httpx.HTTPTransport(uds=str(api_socket), verify=trusted)
        with httpx.Client(transport=transport, base_url="https://www.acme-widgets.com", timeout=30) as client:
            headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=10", "X-Request-Id": "through-nginx"}
            for _ in range(2):
                answer = client.post("/api/v4/zones/demo/custom_csrs", headers=headers, json=subject())
                assert answer.status_code == 201 and answer.json()["result"]["status"] == "active", answer.text
                assert answer.headers["X-Request-Id"] == "through-nginx"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(site_socket), verify=trusted)) as client:
            assert client.get("https://www.acme-widgets.com/").text == "a tenant's site\n"


def placed(text: str, directory: Path) -> str:
    """The same with the paths of a machine in a directory, and with a free port."""
    return text.replace("/var/lib/csrd", f"{directory}/data").replace("/etc/csrd", str(directory)).replace(":8080", ":0")


def check_reaches_demo(csrd: Csrd, token: str) -> None:
    answer = csrd.request("GET", "/api/v4/zones/demo/custom_csrs/quota", token=token)
    assert answer.result["allocated"] == 100, answer


def test_a_service_runs_with_the_settings_of_the_systemd_unit(new_csrd, tmp_path):
    unit = (ROOT / "deploy/systemd/csrd-serve.service").read_text()
    (settings,) = blocks(OPERATIONS, "ini")
    (jwks,) = blocks(OPERATIONS, "python")
    of_the_unit = re.findall(r"^Environment=(CSRD_\w+)=(.+)$", placed(unit, tmp_path / "csrd"), re.MULTILINE)
    of_its_file = re.findall(r"^(CSRD_\w+)=(.+)$", placed(settings, tmp_path / "csrd"), re.MULTILINE)
    assert of_the_unit and of_its_file and "EnvironmentFile=/etc/csrd/serve.env\n" in unit
    csrd = new_csrd(env=dict(of_the_unit + of_its_file))
    token = run_there(csrd.directory, sys.executable, "-c", jwks).strip()
    assert re.search(r"^ExecStart=/usr/local/bin/csrd serve$", unit, re.MULTILINE)
    csrd.start()
    csrd.ok("zone", "grant", "demo", "--quota", "100")
    check_reaches_demo(csrd, token)


def test_a_service_runs_with_the_settings_of_the_image_and_of_docker_run(new_csrd, tmp_path):
    (lines,) = blocks(OPERATIONS, "docker")
    lines = placed(lines, tmp_path / "csrd").splitlines()
    of_the_image = re.findall(r"CSRD_\w+=\S+", (ROOT / "Dockerfile").read_text())
    of_the_command = re.findall(r"--env (\S+)", "\n".join(lines))
    env = dict(placed(setting, tmp_path / "csrd").split("=", 1) for setting in of_the_image + of_the_command)
    csrd = new_csrd(listen=None, env=env)
    csrd.data_dir.mkdir(mode=0o700)
    for line in lines:
        words = shlex.split(line)
        if "--entrypoint" in words:
            run_there(csrd.directory, *words[words.index("--entrypoint") + 1 :][:1], *words[words.index("-c") :])
    csrd.start()
    assert csrd.address.startswith("0.0.0.0:")
    commands = [line.removeprefix("docker exec csrd ") for line in lines if line.startswith("docker exec csrd ")]
    check_reaches_demo(csrd, run_shell(csrd.directory, "\n".join(commands), **env).splitlines()[-1])
