"""The Debian package: installed into a fresh Debian, started as its unit starts it, upgraded, removed and purged."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import ROOT, Csrd, Tenant, binary, environment, run

# Wherever the tests run, a fresh Debian needs root.
AS_ROOT = [] if os.geteuid() == 0 else ["sudo"]
OPERATIONS = ROOT / "docs/operations.md"
UNITS = ["csrd-api.service", "csrd-migrate.service", "csrd-serve.service", "csrd-worker.service"]


def command(*words, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=350, env=environment(), check=False, **options)


def done(*words, **options) -> str:
    """Runs a command that has to succeed; what it printed."""
    ended = command(*words, **options)
    assert ended.returncode == 0, ended
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Made from the programs under test, and packed in a hurry."""
    directory = tmp_path_factory.mktemp("package")
    done(ROOT / "deploy/debian/build", "--programs", binary().parent, "--output", directory, "-Zgzip", "-z1")
    (made,) = directory.glob("csrd_*.deb")
    return made


class Debian:
    """A fresh Debian in a directory: what is essential, and what makes users."""

    def __init__(self, directory: Path):
        self.directory = directory
        # A container may not mount anything, and nothing here needs it.
        options = ["--quiet", "--mode=root", "--skip=chroot/mount", "--dpkgopt=force-unsafe-io"]
        done(*AS_ROOT, "mmdebstrap", *options, "--variant=essential", "--include=systemd-standalone-sysusers", "bookworm", directory)

    def run(self, *words, **options) -> subprocess.CompletedProcess:
        return command(*AS_ROOT, "chroot", self.directory, *words, **options)

    def done(self, *words) -> str:
        return done(*AS_ROOT, "chroot", self.directory, *words)

    def path(self, inside: str) -> Path:
        return self.directory / inside.lstrip("/")

    def read(self, inside: str) -> str:
        return done(*AS_ROOT, "cat", self.path(inside))

    def write(self, inside: str, text: str) -> None:
        done(*AS_ROOT, "tee", self.path(inside), input=text)

    def exists(self, inside: str) -> bool:
        return command(*AS_ROOT, "test", "-e", self.path(inside)).returncode == 0

    def close(self) -> None:
        done(*AS_ROOT, "rm", "--recursive", "--force", "--one-file-system", self.directory)


@pytest.fixture(scope="module")
def debian():
    # Others than root pass through it.
    directory = Path(tempfile.mkdtemp(prefix="csrd-debian-"))
    directory.chmod(0o755)
    made = Debian(directory)
    yield made
    made.close()


def fields(package: Path) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in done("dpkg-deb", "--field", package).splitlines() if re.match(r"[A-Z][\w-]*: ", line))


def test_the_package_has_programs_units_pages_and_completions_and_says_what_it_needs(package):
    of = fields(package)
    version = run("--version").stdout.split()[1]
    assert (of["Package"], of["Version"]) == ("csrd", f"{version}-1") and package.name.startswith(f"csrd_{version}-1_")
    assert (ROOT / "deploy/debian/changelog").read_text().startswith(f"csrd ({version}-1) ")
    assert "libc6 (>= " in of["Depends"] and "systemd-sysusers" in of["Depends"] and int(of["Installed-Size"]) > 1000
    lines = [line.split() for line in done("dpkg-deb", "--contents", package).splitlines()]
    assert {line[1] for line in lines} == {"root/root"}
    files = {line[5].removeprefix("."): line[0] for line in lines if not line[0].startswith("d")}
    assert files["/usr/bin/csrd"] == files["/usr/bin/csrctl"] == "-rwxr-xr-x" and files["/etc/csrd/csrd.env"] == "-rw-------"
    assert {name for name in files if name.startswith("/usr/lib/systemd/system/")} == {f"/usr/lib/systemd/system/{unit}" for unit in UNITS}
    for page in ("csrd", "csrd-serve", "csrd-zone-grant", "csrctl", "csrctl-create"):
        assert f"/usr/share/man/man1/{page}.1.gz" in files, sorted(files)
    for name in ("csrd", "csrctl"):
        assert f"/usr/share/bash-completion/completions/{name}" in files and f"/usr/share/zsh/vendor-completions/_{name}" in files
        assert f"/usr/share/fish/vendor_completions.d/{name}.fish" in files
    assert "/usr/share/doc/csrd/copyright" in files and "/usr/share/doc/csrd/changelog.Debian.gz" in files


def test_what_the_settings_file_offers_are_settings():
    named = set(re.findall(r"^#?(CSRD_\w+)=", (ROOT / "deploy/debian/csrd.env").read_text(), re.MULTILINE))
    known = set(re.findall(r"^\| `--[a-z-]+` \| `(CSRD_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert len(named) >= 6 and named <= known, named - known


class Unit(Csrd):
    """csrd as its unit starts it, with what systemd would do before."""

    def __init__(self, debian: Debian, name: str, directory: Path):
        super().__init__(directory)
        self.debian, self.lines = debian, debian.read(f"/usr/lib/systemd/system/{name}").splitlines()
        self.data_dir = debian.path("/var/lib/csrd")

    def settings(self, name: str) -> list[str]:
        return [line.split("=", 1)[1] for line in self.lines if line.startswith(f"{name}=")]

    def variables(self) -> dict[str, str]:
        set_here = [line.split("=", 1) for line in self.settings("Environment")]
        for file in self.settings("EnvironmentFile"):
            if not file.startswith("-") or self.debian.exists(file[1:]):
                text = self.debian.read(file.lstrip("-"))
                set_here += [line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return dict(set_here)

    def spawn_as_unit(self) -> "Unit":
        ((user,), (state,), (words,)) = (self.settings(name) for name in ("User", "StateDirectory", "ExecStart"))
        self.debian.done("install", "--directory", "--owner", user, "--group", user, "--mode", *self.settings("StateDirectoryMode"), f"/var/lib/{state}")
        variables = [f"{name}={text}" for name, text in self.variables().items()]
        change = [*AS_ROOT, "chroot", f"--userspec={user}:{user}", self.debian.directory, "env", "--ignore-environment", *variables]
        self.spawn(*change, *words.split())
        return self

    def terminate(self) -> None:
        done(*AS_ROOT, "kill", "-TERM", self.process.pid)

    def kill(self) -> None:
        done(*AS_ROOT, "kill", "-KILL", self.process.pid)
        self.wait()


def test_the_package_is_installed_started_as_its_unit_upgraded_removed_and_purged(package, debian, tmp_path):
    done(*AS_ROOT, "cp", package, debian.path("/csrd.deb"))
    debian.done("dpkg", "--install", "/csrd.deb")
    assert debian.done("getent", "passwd", "csrd").split(":")[5:] == ["/var/lib/csrd", "/usr/sbin/nologin\n"]
    version = run("--version").stdout
    assert debian.done("csrd", "--version") == version and debian.done("csrctl", "--version").startswith("csrctl ")
    assert debian.done("dpkg", "--verify", "csrd") == ""

    # The settings file as it stands changes nothing; what is set in it counts, and the file of the unit wins.
    settings = debian.read("/etc/csrd/csrd.env")
    unit = Unit(debian, "csrd-serve.service", tmp_path / "unit")
    assert unit.variables() == {"CSRD_DATA_DIR": "/var/lib/csrd"}
    debian.write("/etc/csrd/csrd.env", settings + "CSRD_LISTEN=127.0.0.1:1\nCSRD_KEY_POOL_SIZE=0\n")
    debian.write("/etc/csrd/serve.env", "CSRD_LISTEN=127.0.0.1:0\n")
    try:
        unit.spawn_as_unit().wait_listening()
        assert debian.done("stat", "--format", "%U %a", "/var/lib/csrd/csrd.db").strip() == "csrd 600"
        token = debian.done("chroot", "--userspec=csrd:csrd", "/", "csrd", "token", "issue", "--zone", "demo", "--data-dir", "/var/lib/csrd").strip()
        zone = Tenant(unit, "zone", "demo", token)
        made = zone.wait_active(zone.create()["id"])
        assert made["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
        # A new version over the old one, as the file is edited and the process runs.
        edited = debian.read("/etc/csrd/csrd.env")
        debian.done("dpkg", "--install", "/csrd.deb")
        assert debian.read("/etc/csrd/csrd.env") == edited and zone.get(made["id"])["status"] == "active"
        assert unit.stop() == 0
        unit.spawn_as_unit().wait_listening()
        assert zone.get(made["id"])["status"] == "active"
        assert unit.stop() == 0
    finally:
        unit.close()

    debian.done("dpkg", "--remove", "csrd")
    assert not debian.exists("/usr/bin/csrd") and not debian.exists("/usr/lib/systemd/system/csrd-serve.service")
    assert debian.read("/etc/csrd/csrd.env") == edited and debian.exists("/var/lib/csrd/csrd.db")
    told = debian.done("dpkg", "--purge", "csrd")
    assert "/var/lib/csrd is kept" in told and debian.exists("/var/lib/csrd/master.key")
    assert not debian.exists("/etc/csrd/csrd.env") and "csrd" not in debian.done("dpkg", "--get-selections")
