"""The README and docs/ say what is there, their links lead somewhere, and what they show to paste runs as it stands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from codes_page import page
from databases import FAIL, OnSqlite
from harness import ROOT, Csrd, Tenant, environment, run, wait_until
from pages import DOCS, README, all_pages, anchors, blocks, links, run_shell, run_there

OPERATIONS = DOCS / "operations.md"
SINGLE_MACHINE = DOCS / "how-to/single-machine.md"
IDENTITY_PROVIDER = DOCS / "how-to/identity-provider.md"
OFFICIAL_CLIENTS = DOCS / "how-to/official-clients.md"
SUMMARY = DOCS / "SUMMARY.md"


def test_the_readme_is_one_page():
    assert len(README.read_text().splitlines()) < 150


def test_every_relative_link_leads_to_a_file_and_a_heading_that_are_there():
    def leads_somewhere(page: Path, link: str) -> bool:
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        return target.exists() and (not heading or heading in anchors(target))

    relative = [(page, link) for page in all_pages() for link in links(page) if "://" not in link]
    assert len(relative) > 50
    assert [(str(page.relative_to(ROOT)), link) for page, link in relative if not leads_somewhere(page, link)] == []


def test_the_book_has_every_page_once_and_no_link_out_of_it(tmp_path):
    listed = [(DOCS / link).resolve() for link in links(SUMMARY)]
    pages = sorted(page for page in all_pages() if DOCS in page.parents and page != SUMMARY)
    assert sorted(listed) == pages
    # In the book there is nothing but docs/: pages name other files as code, and do not link to them.
    leaving = [(page.name, link) for page in pages for link in links(page) if "://" not in link and DOCS not in (page.parent / link).resolve().parents]
    assert leaving == []
    mdbook = Path(sys.executable).parent / "mdbook"
    built = subprocess.run([mdbook, "build", "--dest-dir", tmp_path, ROOT], capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0 and "WARN" not in built.stderr, built

    def in_the_book(page: Path, link: str) -> bool:
        name, _, heading = link.partition("#")
        target = tmp_path / ((page.parent / name).resolve() if name else page).relative_to(DOCS)
        made = target.with_suffix(".html") if target.suffix == ".md" else target
        return made.exists() and (not heading or f'id="{heading}"' in made.read_text())

    assert [(page.name, link) for page in pages for link in links(page) if "://" not in link and not in_the_book(page, link)] == []


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


def test_the_page_of_codes_is_that_of_the_document():
    assert (DOCS / "codes.md").read_text() == page(), "run: python tests/codes_page.py > docs/codes.md"


@pytest.mark.parametrize(
    ("column", "refused"),
    [("action", ["audit", "--action", "nonsense"]), ("permission", ["token", "issue", "--zone", "demo", "--scope", "non:sense"])],
    ids=["audit actions", "permissions"],
)
def test_every_word_that_a_command_offers_is_documented_and_none_that_is_not_there(column, refused):
    offered = re.search(r"(?: are | is one of )(.+)$", run(*refused).stderr.strip()).group(1).split(", ")
    assert len(offered) >= 4
    table = (DOCS / "security.md").read_text().split(f"| {column} |")[1].split("\n\n")[0]
    documented = [word for row in table.splitlines()[2:] for word in re.findall(r"`([a-z_:]+)`", row.split(" | ")[0])]
    assert sorted(documented) == sorted(offered)


def test_every_type_of_event_is_documented_and_none_that_is_not_there():
    made = re.findall(r'"(custom_(?:csr|certificate)\.[a-z_]+)"', (ROOT / "shared/src/events.rs").read_text())
    table = (DOCS / "how-to/webhooks.md").read_text().split("| event |")[1].split("\n\n")[0]
    documented = [name for row in table.splitlines()[2:] for name in re.findall(r"`(custom_[a-z_.]+)`", row.split(" | ")[0])]
    assert len(documented) >= 8 and sorted(documented) == sorted(set(made))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A service as a first start makes it, with `./csrd-data` in the directory that it was started in."""
    csrd = Csrd(tmp_path_factory.mktemp("fresh"))
    csrd.data_dir = csrd.directory / "csrd-data"
    csrd.start()
    yield csrd
    csrd.close()


def test_the_shell_block_of_the_readme_runs_as_it_stands(fresh):
    printed = run_shell(fresh.directory, "\n".join(blocks(README, "sh")), URL=fresh.url)
    assert printed.startswith("-----BEGIN CERTIFICATE REQUEST-----"), printed


@pytest.fixture(scope="module", params=["python", "ts"])
def example(request, tmp_path_factory) -> tuple[str, Path]:
    """The example of an official client: a program and the script that it runs, which TypeScript is compiled to."""
    directory = tmp_path_factory.mktemp(request.param)
    (text,) = blocks(README, request.param)
    assert [text] == blocks(OFFICIAL_CLIENTS, request.param), "the README and the guide show the same"
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


def test_the_client_examples_run_as_they_stand(fresh, example):
    program, script = example
    printed = run_there(script.parent, program, script.name, **client_settings(fresh))
    assert printed.startswith("-----BEGIN CERTIFICATE REQUEST-----"), printed


def test_the_client_examples_end_where_a_custom_csr_has_failed(tmp_path, example):
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


def placed(text: str, directory: Path) -> str:
    """The same with the paths of a machine in a directory, and with a free port."""
    return text.replace("/var/lib/csrd", f"{directory}/data").replace("/etc/csrd", str(directory)).replace(":8080", ":0")


def check_reaches_demo(csrd: Csrd, token: str) -> None:
    answer = csrd.request("GET", "/api/v4/zones/demo/custom_csrs/quota", token=token)
    assert answer.result["allocated"] == 100, answer


def test_a_service_runs_with_the_settings_of_the_systemd_unit(new_csrd, tmp_path):
    unit = (ROOT / "deploy/systemd/csrd-serve.service").read_text()
    (settings,) = blocks(SINGLE_MACHINE, "ini")
    (jwks,) = blocks(IDENTITY_PROVIDER, "python")
    of_the_unit = re.findall(r"^Environment=(CSRD_\w+)=(.+)$", placed(unit, tmp_path / "csrd"), re.MULTILINE)
    of_its_file = re.findall(r"^(CSRD_\w+)=(.+)$", placed(settings, tmp_path / "csrd"), re.MULTILINE)
    assert of_the_unit and of_its_file and "EnvironmentFile=/etc/csrd/csrd.env\n" in unit
    csrd = new_csrd(env=dict(of_the_unit + of_its_file))
    token = run_there(csrd.directory, sys.executable, "-c", jwks).strip()
    assert re.search(r"^ExecStart=/usr/bin/csrd serve$", unit, re.MULTILINE)
    csrd.start()
    csrd.ok("zone", "grant", "demo", "--quota", "100")
    check_reaches_demo(csrd, token)


def test_a_service_runs_with_the_settings_of_the_image_and_of_docker_run(new_csrd, tmp_path):
    (lines,) = blocks(SINGLE_MACHINE, "docker")
    lines = placed(lines, tmp_path / "csrd").splitlines()
    of_the_image = re.findall(r"CSRD_\w+=\S+", (ROOT / "Dockerfile").read_text())
    of_the_command = re.findall(r"--env (\S+)", "\n".join(lines))
    env = dict(placed(setting, tmp_path / "csrd").split("=", 1) for setting in of_the_image + of_the_command)
    csrd = new_csrd(listen=None, env=env)
    csrd.data_dir.mkdir(mode=0o700)
    for line in lines:
        words = shlex.split(line)
        if "sh" in words:
            run_there(csrd.directory, *words[words.index("sh") :])
    csrd.start()
    assert csrd.address.startswith("0.0.0.0:")
    commands = [line.removeprefix("docker exec csrd ") for line in lines if line.startswith("docker exec csrd ")]
    check_reaches_demo(csrd, run_shell(csrd.directory, "\n".join(commands), **env).splitlines()[-1])
