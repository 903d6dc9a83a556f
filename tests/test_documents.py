"""The README and docs/ say what is there, and what they show to paste runs as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, Csrd, binary, environment, run

README = ROOT / "README.md"
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
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()) if "://" not in link]
    missing = [link for link in links if not (document.parent / link.partition("#")[0]).exists()]
    assert missing == []


def test_every_setting_is_documented_with_its_variable_and_none_that_is_not_there():
    offered = set()
    for command in ("serve", "worker", "migrate"):
        shown = run(command, "--help")
        assert shown.returncode == 0, shown
        # The long help wraps lines: an option runs to the next one.
        for option in re.split(r"\n(?= +(?:-\w, )?--)", shown.stdout)[1:]:
            name = re.search(r"--[a-z-]+", option).group()
            if variable := re.search(r"\[env:\s+(CSRD_\w+)", option):
                offered.add((name, variable.group(1)))
            else:
                assert name in ("--help", "--version"), option
    documented = set(re.findall(r"^\| `(--[a-z-]+)` \| `(CSRD_\w+)` \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    assert documented == offered


@pytest.fixture
def fresh(tmp_path):
    """A service as a first start makes it, with `./csrd-data` in the directory that it was started in."""
    csrd = Csrd(tmp_path / "fresh")
    csrd.data_dir = csrd.directory / "csrd-data"
    csrd.start()
    yield csrd
    csrd.close()


def run_there(csrd: Csrd, *command: str, **extra: str) -> str:
    """Runs a command beside the data directory, with csrd on PATH; it has to succeed."""
    programs = csrd.directory / "bin"
    programs.mkdir()
    (programs / "csrd").symlink_to(binary())
    env = environment(PATH=f"{programs}:{os.environ['PATH']}", **extra)
    done = subprocess.run(command, cwd=csrd.directory, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout


def public_key(csrd: Csrd, *command: str) -> str:
    done = subprocess.run(["openssl", *command], cwd=csrd.directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout


def test_the_shell_blocks_of_the_readme_run_as_they_stand(fresh):
    run_there(fresh, "bash", "-euo", "pipefail", "-c", "\n".join(blocks(README, "sh")), URL=fresh.url)
    exported = public_key(fresh, "pkey", "-in", "tls/privkey.pem", "-pubout")
    assert exported == public_key(fresh, "req", "-in", "www.csr", "-noout", "-pubkey")
    assert exported == public_key(fresh, "x509", "-in", "tls/fullchain.pem", "-noout", "-pubkey")


@pytest.mark.parametrize("language", ["python", "ts"])
def test_the_client_examples_run_as_they_stand(fresh, language):
    (example,) = blocks(ROOT / "docs/api.md", language)
    if language == "python":
        script, interpreter = fresh.directory / "example.py", sys.executable
    else:
        # The example has no types of its own, so that it is JavaScript too.
        script, interpreter = fresh.directory / "example.mjs", shutil.which("node")
        modules = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "npm/node_modules"
        assert interpreter and (modules / "cloudflare").is_dir(), "run .ci/test, which installs them"
        (fresh.directory / "node_modules").symlink_to(modules.resolve())
    script.write_text(example)
    settings = {"CLOUDFLARE_BASE_URL": f"{fresh.url}/client/v4", "CLOUDFLARE_API_TOKEN": fresh.token("--zone", "demo")}
    printed = run_there(fresh, interpreter, script.name, **settings)
    assert printed.startswith("-----BEGIN CERTIFICATE REQUEST-----"), printed
