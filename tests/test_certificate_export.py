"""`csrd certificate list` and `csrd certificate export`: the operator hands certificate and private key to a TLS terminator."""

import base64
import ctypes
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from ca import SECOND, Authority, Certificates, active, openssl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from databases import OnSqlite, blocked, either, new_service  # noqa: F401
from harness import binary, refused, wait_until
from test_output import pipe_without_reader, run_on
from test_secrets import PRIVATE_KEY_MARKS, database_files, find_secrets

ROOT = Authority("Root of the exports")
INTERMEDIATE = Authority("Intermediate of the exports", issuer=ROOT)
FILES = {".csrd", "current", "fullchain.pem", "privkey.pem"}


class Uploaded:
    """A certificate that was uploaded, and the commands on it."""

    def __init__(self, csrd, key_type: str = "p256v1"):
        self.csrd, self.zone = csrd, csrd.tenant()
        self.certificates, self.csr = Certificates(self.zone), active(self.zone, key_type=key_type)
        self.chain = self.new_chain()
        self.id = self.certificates.upload(self.csr["id"], self.chain)["id"]

    def new_chain(self, csr: dict | None = None) -> str:
        return INTERMEDIATE.issue((csr or self.csr)["csr"]) + INTERMEDIATE.chain

    def renew(self) -> None:
        self.chain = self.new_chain()
        answer = self.certificates.patch(self.id, certificate=self.chain)
        assert answer.status == 200, answer

    def export(self, directory: Path, *options: str, certificate_id: str | None = None, env: dict | None = None) -> subprocess.CompletedProcess:
        return self.csrd.run("certificate", "export", certificate_id or self.id, "--out", str(directory), *options, env=env)

    def exported(self, directory: Path, *options: str) -> None:
        done = self.export(directory, *options)
        assert done.returncode == 0, done
        assert not find_secrets((done.stdout + done.stderr).encode(), PRIVATE_KEY_MARKS)
        self.check(directory)

    def check(self, directory: Path, mode: int = 0o600) -> None:
        """The directory holds this certificate as it is now, and its private key, for the owner alone unless told otherwise."""
        assert {path.name for path in directory.iterdir()} >= FILES
        version = directory / os.readlink(directory / "current")
        assert version.parent == directory / ".csrd" and stat.S_ISDIR(version.lstat().st_mode)
        for name in ("fullchain.pem", "privkey.pem"):
            assert os.readlink(directory / name) == f"current/{name}"
            found = (version / name).lstat()
            assert stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and found.st_uid == os.getuid()
        assert not find_secrets((directory / ".csrd" / "export.json").read_bytes(), PRIVATE_KEY_MARKS)
        certificates = x509.load_pem_x509_certificates((directory / "fullchain.pem").read_bytes())
        assert certificates == x509.load_pem_x509_certificates(self.chain.encode()), "the chain is as it was uploaded"
        key = load_pem_private_key((directory / "privkey.pem").read_bytes(), None)
        spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert key.public_key().public_bytes(*spki) == certificates[0].public_key().public_bytes(*spki)


@pytest.fixture
def uploaded(either) -> Uploaded:  # noqa: F811
    return Uploaded(either)


@pytest.fixture
def local(service) -> Uploaded:
    """On SQLite alone, for what the database has no part in."""
    return Uploaded(service)


def exports(csrd, certificate_id: str) -> list[dict]:
    entries = [json.loads(line) for line in csrd.ok("audit").split("\n")[:-1]]
    return [entry for entry in entries if entry["action"] == "export" and entry["resource"] == f"custom_certificate/{certificate_id}"]


def contents(directory: Path) -> dict:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_an_export_writes_what_belongs_together_and_is_recorded(uploaded, tmp_path):
    out = tmp_path / "new"
    uploaded.exported(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700 and {path.name for path in out.iterdir()} == FILES
    (entry,) = exports(uploaded.csrd, uploaded.id)
    assert (entry["from"], entry["zone"], entry["request_id"]) == ("local", uploaded.zone.id, None)
    # An existing empty directory will do, and keeps its mode.
    (other := tmp_path / "other").mkdir(mode=0o755)
    uploaded.exported(other)
    assert stat.S_IMODE(other.stat().st_mode) == 0o755
    assert len(exports(uploaded.csrd, uploaded.id)) == 2


def test_a_renewed_certificate_replaces_the_files_and_one_with_a_new_key_too(uploaded, tmp_path):
    uploaded.exported(tmp_path / "out")
    before = contents(tmp_path / "out")
    uploaded.renew()
    uploaded.exported(tmp_path / "out")
    after = contents(tmp_path / "out")
    assert after["privkey.pem"] == before["privkey.pem"] and after["fullchain.pem"] != before["fullchain.pem"]
    answer = uploaded.zone.request("POST", f"/{uploaded.csr['id']}/rekey", headers={"Prefer": "wait=30"})
    uploaded.chain = uploaded.new_chain(answer.result)
    assert uploaded.certificates.patch(uploaded.id, custom_csr_id=answer.result["id"], certificate=uploaded.chain).status == 200
    uploaded.exported(tmp_path / "out")
    assert contents(tmp_path / "out")["privkey.pem"] != before["privkey.pem"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_whoever_reads_while_exports_change_the_key_finds_a_key_and_a_chain_that_belong_together(local, tmp_path):
    out, spki = tmp_path / "out", (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    csrs = [local.csr, local.zone.request("POST", f"/{local.csr['id']}/rekey", headers={"Prefer": "wait=30"}).result]
    local.exported(out)
    pairs, ended = set(), threading.Event()

    def read() -> None:
        """As a terminator does, which goes through the link once."""
        while not ended.is_set():
            version = os.open(out / "current", os.O_DIRECTORY)
            try:
                parts = []
                for name in ("privkey.pem", "fullchain.pem"):
                    with open(os.open(name, os.O_RDONLY, dir_fd=version), "rb") as file:
                        parts.append(file.read())
            except FileNotFoundError:
                # Two exports came between: the version is gone.
                continue
            finally:
                os.close(version)
            key, chain = load_pem_private_key(parts[0], None), x509.load_pem_x509_certificates(parts[1])
            pairs.add((key.public_key().public_bytes(*spki), chain[0].public_key().public_bytes(*spki)))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for turn in range(1, 13):
                csr = csrs[turn % 2]
                local.chain = local.new_chain(csr)
                assert local.certificates.patch(local.id, custom_csr_id=csr["id"], certificate=local.chain).status == 200
                local.exported(out)
        finally:
            ended.set()
        reader.result()
    assert len(pairs) == 2 and all(key == leaf for key, leaf in pairs)


def test_the_umask_and_modes_of_old_files_do_not_open_the_private_key(local, tmp_path):
    local.exported(tmp_path / "out")
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / "out" / name).chmod(0o660)
    old = os.umask(0)
    try:
        local.exported(tmp_path / "out")
        local.exported(tmp_path / "with a new directory")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "with a new directory").stat().st_mode) == 0o700


def test_links_are_not_followed(local, tmp_path):
    out, victim = tmp_path / "out", tmp_path / "victim"
    local.exported(out)
    for name in ("fullchain.pem", "privkey.pem"):
        victim.write_text("precious")
        (out / name).unlink()
        (out / name).symlink_to(victim)
        local.exported(out)
        assert victim.read_text() == "precious"
        # Nor is a file changed that has another name elsewhere.
        (out / name).unlink()
        os.link(victim, out / name)
        local.exported(out)
        assert victim.read_text() == "precious"
    # What is csrd's own may not lie elsewhere either, whatever that says.
    kept = (out / ".csrd").rename(tmp_path / "kept")
    for text in ("precious", local.id + "\n", None):
        if text is not None:
            victim.write_text(text)
        (out / ".csrd").symlink_to(victim if text is not None else kept)
        before = {path.name: os.readlink(path) for path in out.iterdir()}
        refused(local.export(out), 1, ".csrd")
        assert {path.name: os.readlink(path) for path in out.iterdir()} == before and (text is None or victim.read_text() == text)
        (out / ".csrd").unlink()
    # A link in place of the directory.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for spelling in ("link", "link/", "link/.", "link//"):
        refused(local.csrd.run("certificate", "export", local.id, "--out", f"{tmp_path}/{spelling}"), 1, "link")
        assert list((tmp_path / "elsewhere").iterdir()) == []
    local.exported(tmp_path / "link", "--force")
    local.check(tmp_path / "elsewhere")


def test_no_name_that_somebody_can_guess_is_written_through(local, tmp_path):
    """Whatever names an export uses on its way, links that lie there already are not followed."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    trace = tmp_path / "trace"
    done = local.export(out)
    assert done.returncode == 0
    # Names that programs like to use.
    victim.write_text("precious")
    for name in ("fullchain.pem", "privkey.pem", ".csrd"):
        for pattern in ("{}.tmp", ".{}.tmp", "{}.new", ".{}.new", "{}~", ".{}", ".tmp-{}", ".{}.part", "{}.part"):
            path = out / pattern.format(name)
            if not path.exists():
                path.symlink_to(victim)
    done = local.export(out)
    assert victim.read_text() == "precious" and not trace.exists()
    if done.returncode == 0:
        local.check(out)


def test_a_foreign_directory_is_refused_unless_forced(local, tmp_path):
    other = Uploaded(local.csrd)
    (mine := tmp_path / "mine").mkdir()
    for name in ("fullchain.pem", "privkey.pem", "server.pem"):
        (foreign := tmp_path / name.replace(".", "-")).mkdir()
        (foreign / name).write_text("foreign")
        refused(local.export(foreign), 1, str(foreign))
        assert contents(foreign) == {name: b"foreign"}
        local.exported(foreign, "--force")
    (mine / "nginx.conf").write_text("no PEM file")
    local.exported(mine)
    before = contents(mine)
    # That of another certificate.
    refused(other.export(mine), 1, local.id, str(mine))
    assert contents(mine) == before
    other.exported(mine, "--force")
    other.exported(mine)
    refused(local.export(mine), 1, other.id, str(mine))
    # An ID that cannot be read is not ours.
    for text in ("", "garbage", local.id[:-1], local.id + local.id, "\n" + other.id.upper()[:5]):
        (mine / ".csrd" / "export.json").write_text(text)
        refused(local.export(mine), 1, ".csrd")
        assert (mine / ".csrd" / "export.json").read_text() == text
    (mine / ".csrd" / "export.json").write_bytes(b"\xff\xfe")
    refused(local.export(mine), 1, ".csrd")
    local.exported(mine, "--force")


def test_what_cannot_be_exported_is_refused_in_one_line_and_writes_nothing(local, tmp_path):
    out = tmp_path / "out"
    for wrong in ("x", local.csr["id"], local.id[:-1], "../" + local.id):
        refused(local.export(out, certificate_id=wrong), None)
    refused(local.export(out, certificate_id="0" * 32), 1, "0" * 32)
    refused(local.csrd.run("certificate", "export", local.id), 2, "--out")
    (file := tmp_path / "file").write_text("kept")
    refused(local.export(file), 1, str(file))
    refused(local.export(file / "below"), 1, str(file))
    assert file.read_text() == "kept"
    assert local.certificates.request("DELETE", f"/{local.id}").status == 200
    refused(local.export(out), 1, local.id)
    assert not out.exists()


def test_an_export_needs_the_master_key(new_csrd, tmp_path):
    csrd = new_csrd().start()
    uploaded = Uploaded(csrd)
    assert csrd.stop() == 0
    key = (csrd.data_dir / "master.key").rename(tmp_path / "kept.key")
    refused(uploaded.export(tmp_path / "out"), 1, "master")
    assert not (csrd.data_dir / "master.key").exists() and not (tmp_path / "out" / "privkey.pem").exists()
    (csrd.data_dir / "master.key").touch(0o600)
    (csrd.data_dir / "master.key").write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    refused(uploaded.export(tmp_path / "out"), 1, "master")
    assert not (tmp_path / "out" / "privkey.pem").exists()
    shutil.copy(key, csrd.data_dir / "master.key")
    # Beside no running server too.
    uploaded.exported(tmp_path / "out")


def test_the_audit_entry_is_committed_before_the_private_key_is_unsealed(uploaded, tmp_path):
    all_but_one = "substr(sealed_private_key, 1, length(sealed_private_key) - 1)"
    cut = f"CAST({all_but_one} AS BLOB)" if isinstance(uploaded.csrd, OnSqlite) else all_but_one
    uploaded.csrd.sql(f"UPDATE custom_csrs SET sealed_private_key = {cut} WHERE id = '{uploaded.csr['id']}'")
    refused(uploaded.export(tmp_path / "out"), 1)
    assert not (tmp_path / "out" / "privkey.pem").exists()
    assert len(exports(uploaded.csrd, uploaded.id)) == 1


def test_without_its_audit_entry_nothing_is_exported(uploaded, tmp_path):
    with blocked(uploaded.csrd):
        done = uploaded.export(tmp_path / "out")
        assert done.returncode == 1 and "panicked" not in done.stderr
        assert not (tmp_path / "out" / "privkey.pem").exists()
    uploaded.exported(tmp_path / "out")


def test_an_export_that_failed_halfway_is_repaired_by_repeating_it(new_service, tmp_path):  # noqa: F811
    # The database is elsewhere, so that a limit on the size of files meets the exported ones alone.
    uploaded = Uploaded(new_service("postgres"))
    out, at_end = tmp_path / "out", {}
    command = [binary(), "certificate", "export", uploaded.id, "--out", out, "--data-dir", uploaded.csrd.data_dir]
    for limit in (0, 20, 100, 1000):
        done = subprocess.run(
            command, env=uploaded.csrd.env, capture_output=True, timeout=60, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        assert done.returncode != 0, (limit, done)
        # Each file is whole or not there.
        for name in ("privkey.pem", "fullchain.pem"):
            if (out / name).exists():
                assert (out / name).read_bytes() == at_end.get(name, (out / name).read_bytes()) and b"-----END " in (out / name).read_bytes()[-40:]
        uploaded.exported(out)
        at_end = contents(out)
        assert {path.name for path in out.iterdir()} == FILES, "nothing is left of what failed"
        assert len([path for path in (out / ".csrd").iterdir() if path.is_dir()]) == 1
        shutil.rmtree(out)
    uploaded.exported(out)
    # Where a file cannot be replaced.
    uploaded.renew()
    recorded = len(exports(uploaded.csrd, uploaded.id))
    for name in ("fullchain.pem", "privkey.pem", "current"):
        kept = os.readlink(out / name)
        (out / name).unlink()
        (out / name).mkdir()
        before = {path: path.lstat().st_mtime_ns for path in out.rglob("*")}
        for options in ((), ("--force",), ("--force", "--combined")):
            refused(uploaded.export(out, *options), 1, name)
        assert {path: path.lstat().st_mtime_ns for path in out.rglob("*")} == before
        (out / name).rmdir()
        (out / name).symlink_to(kept)
    assert len(exports(uploaded.csrd, uploaded.id)) == recorded
    uploaded.exported(out)
    assert {path.name for path in out.iterdir()} == FILES


# What is remembered, and what follows


def test_an_export_without_a_change_says_so_changes_nothing_and_runs_nothing(uploaded, tmp_path):
    out, ran = tmp_path / "out", tmp_path / "ran"
    command = f"echo ran >> '{ran}'"
    uploaded.exported(out, "--exec", command)
    assert ran.read_text() == "ran\n"
    before = {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in out.rglob("*")}
    for options in ((), ("--exec", command)):
        done = uploaded.export(out, *options)
        assert done.returncode == 0 and "nothing changed" in done.stdout and done.stderr == ""
    assert {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in out.rglob("*")} == before and ran.read_text() == "ran\n"
    assert len(exports(uploaded.csrd, uploaded.id)) == 3, "each is recorded"
    uploaded.renew()
    uploaded.exported(out)
    assert ran.read_text() == "ran\nran\n", "the command is remembered"
    uploaded.renew()
    uploaded.exported(out, "--exec", "")
    uploaded.renew()
    uploaded.exported(out)
    assert ran.read_text() == "ran\nran\n"
    assert len([path for path in (out / ".csrd").iterdir() if path.is_dir()]) == 2, "the version before is kept, older ones are not"


def test_mode_owner_group_and_combined_are_remembered(local, tmp_path):
    out = tmp_path / "out"

    def check(mode: int, *, combined: bool) -> None:
        local.check(out, mode)
        names = ["fullchain.pem", "privkey.pem"] + (["combined.pem"] if combined else [])
        assert {path.name for path in out.glob("*.pem")} == set(names)
        if combined:
            assert (out / "combined.pem").read_text() == (out / "privkey.pem").read_text() + (out / "fullchain.pem").read_text()
        for name in names:
            found = (out / name).stat()
            assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (os.getuid(), os.getgid(), mode)

    owner = ("--owner", str(os.getuid()), "--group", str(os.getgid()))
    assert local.export(out, "--mode", "0640", "--combined", *owner).returncode == 0
    check(0o640, combined=True)
    for directory in (out, out / ".csrd", out / os.readlink(out / "current")):
        assert stat.S_IMODE(directory.stat().st_mode) & 0o750 == 0o750, "who may read the files gets there"
    local.renew()
    assert local.export(out).returncode == 0
    check(0o640, combined=True)
    assert local.export(out, "--mode", "400", "--combined=false").returncode == 0
    check(0o400, combined=False)


def test_wrong_options_are_refused_before_anything_is_written(local, tmp_path):
    out = tmp_path / "out"
    for name, value in (
        ("--mode", "0644"), ("--mode", "0601"), ("--mode", "4600"), ("--mode", "0200"), ("--mode", "rw"), ("--mode", ""),
        *(("--mode", mode) for mode in ("0620", "0602", "0660", "0666", "0606", "0700", "0610", "0650", "0750", "2640", "1600")),
        ("--owner", "no-such-user"), ("--group", "no-such-group"), ("--owner", "-1"), ("--group", "4294967295"), ("--combined=maybe", ""),
    ):  # fmt: skip
        refused(local.export(out, f"{name}={value}" if value else name), 2, name.split("=")[0])
        assert not out.exists()
    for root in ("/", "//", "/.", "/..", "/tmp/.."):
        refused(local.export(root), 1, "root directory")
    assert not Path("/.csrd").exists()
    assert exports(local.csrd, local.id) == []


def can_read(path: Path, user: int, group: int) -> bool:
    """Whether somebody of this user and this one group can read a file; without the right to become him, his modes below /tmp say it."""
    if os.getuid() == 0:
        become = {"user": user, "group": group, "extra_groups": []}
        return subprocess.run(["cat", path], **become, cwd="/", capture_output=True, timeout=60, check=False).returncode == 0

    def allows(found: os.stat_result, bit: int) -> bool:
        return bool(found.st_mode & (bit << 6 if found.st_uid == user else bit << 3 if found.st_gid == group else bit))

    real = path.resolve()
    ways = [*path.parents, *real.parents]
    return allows(real.stat(), 4) and all(allows(way.stat(), 1) for way in ways if way != way.parent)


# A user and a group that nobody else has.
USER, GROUP, NOBODY = 47110, 47120, 47130


@pytest.fixture
def passable(tmp_path_factory) -> Path:
    """A directory that everyone gets to, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="csrd-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def reader_options() -> tuple[int, int]:
    """A user and a group to which csrd may give files: whoever runs the tests has to be content with himself, unless it is root."""
    return (USER, GROUP) if os.getuid() == 0 else (os.getuid(), os.getgid())


@pytest.mark.parametrize("before", ["nothing", "made by csrd", "made by the operator"])
def test_whoever_may_read_the_files_gets_to_them(local, passable, before):
    user, group = reader_options()
    out = passable / "made" / "too" if before == "nothing" else passable / "out"
    if before == "made by csrd":
        local.exported(out)
        assert not can_read(out / "privkey.pem", NOBODY, group)
    if before == "made by the operator":
        out.mkdir(mode=0o755)
    names = ("privkey.pem", "fullchain.pem", "combined.pem")
    done = local.export(out, "--group", str(group), "--mode", "0640", "--combined")
    assert done.returncode == 0 and done.stderr == "" and all(name in done.stdout for name in names), done
    for _ in range(2):
        assert all(can_read(out / name, NOBODY, group) for name in names)
        assert not any(can_read(out / name, NOBODY, NOBODY) for name in names)
        local.renew()
        assert local.export(out).stderr == ""
    done = local.export(out, "--owner", str(user), "--mode", "0600")
    if before == "nothing" and user != os.getuid():
        # What an export before this one made above the directory may be in use for something else by now.
        assert f"chmod a+x {out.parent}`" in done.stderr
        out.parent.chmod(0o711)
        done = local.export(out)
    assert done.returncode == 0 and done.stderr == "", done
    assert all(can_read(out / name, user, NOBODY) for name in names) and not any(can_read(out / name, NOBODY, group) for name in names)


def test_who_cannot_get_to_the_files_is_named_together_with_what_to_do(local, passable):
    user, group = reader_options()
    (closed := passable / "closed").mkdir(mode=0o700)
    (out := closed / "out").mkdir(mode=0o700)
    local.exported(out)
    expected = []
    for option, whom, number in (("--owner", "user", user), ("--group", "group", group)):
        if option == "--group" or os.getuid() == 0:
            expected.append(f"the {whom} {number} may read")
        # Whether or not anything changes.
        for options in ((option, str(number), "--mode", "0640"), ()):
            done = local.export(out, *options)
            lines = done.stderr.splitlines()
            assert done.returncode == 0 and stat.S_IMODE(out.stat().st_mode) == 0o700, "the operator's directory stays as it was"
            named = [line for line in lines if any(words in line for words in expected)]
            assert len(named) == len(expected) and all(f"chmod a+x {closed} {out}`" in line for line in named), done
    for directory in (closed, out):
        subprocess.run(["chmod", "a+x", directory], timeout=60, check=True)
    done = local.export(out)
    assert done.returncode == 0 and done.stderr == ""
    assert can_read(out / "privkey.pem", user, NOBODY) and can_read(out / "privkey.pem", NOBODY, group)


def without_the_right_to_give_files_away() -> None:
    """For a child, before it becomes another program: PR_CAPBSET_DROP of CAP_CHOWN. Who is not root has none anyway."""
    ctypes.CDLL(None).prctl(24, 0, 0, 0, 0)


def test_an_owner_or_group_that_is_refused_is_not_remembered(local, tmp_path):
    def attempt(out: Path, *options: str) -> subprocess.CompletedProcess:
        command = [binary(), "certificate", "export", local.id, "--out", out, *options, "--data-dir", local.csrd.data_dir]
        return subprocess.run(command, env=local.csrd.env, capture_output=True, text=True, timeout=60, check=False,
                              preexec_fn=without_the_right_to_give_files_away)  # fmt: skip

    for is_first in (True, False):
        out = tmp_path / f"out {is_first}"
        if not is_first:
            local.exported(out)
            local.renew()
        for option in ("--owner", "--group"):
            before = [(out / ".csrd" / "export.json").read_bytes(), os.readlink(out / "current")] if not is_first else []
            refused(attempt(out, option, str(USER), "--mode", "0640"), 1, f"{option}: the operating system")
            if is_first:
                assert not (out / "current").exists() and not (out / ".csrd" / "export.json").exists()
            else:
                assert [(out / ".csrd" / "export.json").read_bytes(), os.readlink(out / "current")] == before
        # The next one is none the worse for it.
        assert attempt(out).returncode == 0
        local.check(out)
        assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_files_that_are_not_as_csrd_makes_them_count_as_a_change(local, tmp_path):
    out, ran = tmp_path / "out", tmp_path / "ran"
    local.exported(out, "--exec", f"echo ran >> '{ran}'")
    changes = [lambda path: path.chmod(0o640), lambda path: path.chmod(0o400)]
    if os.getuid() == 0:
        changes += [lambda path: os.chown(path, USER, -1), lambda path: os.chown(path, -1, GROUP)]
    for change in changes:
        for name in ("privkey.pem", "fullchain.pem"):
            change((out / name).resolve())
            done = local.export(out)
            assert done.returncode == 0 and "wrote" in done.stdout, done
            local.check(out)
            assert (out / name).stat().st_gid == os.getgid()
    assert ran.read_text() == "ran\n" * (1 + 2 * len(changes))
    assert "nothing changed" in local.export(out).stdout


def test_a_command_that_failed_runs_again_until_it_succeeds(local, tmp_path):
    out, works, ran = tmp_path / "out", tmp_path / "works", tmp_path / "ran"
    command = f"echo ran >> '{ran}'; test -e '{works}'"
    for times in (1, 2, 3):
        done = local.export(out, *(("--exec", command) if times == 1 else ()))
        assert done.returncode == 1 and "exit status 1" in done.stderr and "nothing changed" not in done.stdout, done
        assert "runs again" in done.stdout or times == 1
        assert ran.read_text() == "ran\n" * times
    # Another way to the same end is due as well.
    done = local.export(out, "--exec", "kill -9 $$")
    assert done.returncode == 1 and "signal 9" in done.stderr
    works.touch()
    done = local.export(out, "--exec", command)
    assert done.returncode == 0 and "runs again" in done.stdout and "nothing changed" not in done.stdout
    done = local.export(out)
    assert done.returncode == 0 and "nothing changed" in done.stdout and ran.read_text() == "ran\n" * 4
    # Without a command there is nothing due.
    works.unlink()
    local.renew()
    assert local.export(out).returncode == 1
    assert local.export(out, "--exec", "").returncode == 0
    assert "nothing changed" in local.export(out).stdout


def test_a_command_gets_no_secret_and_its_end_is_reported(local, tmp_path):
    out, seen = tmp_path / "out", tmp_path / "seen"
    secret = {"PGPASSWORD": "hush-hush", "CSRD_LOG_LEVEL": "info", "TOKEN": "hush-hush"}
    done = local.export(out, "--exec", f"env > '{seen}'; cat >> '{seen}'; echo hello; exit 7", env=secret)
    assert done.returncode == 1 and "exit status 7" in done.stderr and done.stderr.count("\n") == 1 and "hello" in done.stdout
    variables = dict(line.split("=", 1) for line in seen.read_text().splitlines())
    assert (variables["CSRD_CERTIFICATE_ID"], variables["CSRD_DIR"]) == (local.id, str(out))
    assert "hush-hush" not in seen.read_text() and {name for name in variables if name.startswith("CSRD_")} == {"CSRD_CERTIFICATE_ID", "CSRD_DIR"}
    local.check(out)
    local.renew()
    done = local.export(out, "--exec", "kill -9 $$")
    assert done.returncode == 1 and "signal 9" in done.stderr
    local.check(out)


def test_what_ends_an_export_ends_its_command_which_the_next_one_runs_again(local, tmp_path):
    out, pid, again = tmp_path / "out", tmp_path / "pid", tmp_path / "again"
    command = f"if [ -s '{pid}' ]; then touch '{again}'; else sleep 600 & echo $! > '{pid}'; wait; fi"
    arguments = [binary(), "certificate", "export", local.id, "--out", out, "--exec", command, "--data-dir", local.csrd.data_dir]
    running = subprocess.Popen(arguments, env=local.csrd.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    sleeping = int(wait_until(lambda: pid.exists() and pid.read_text().strip(), "the command runs", 60))
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=60)
    assert running.returncode == 1 and "interrupted" in complaint

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{sleeping}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(is_gone, "what the command started has ended")
    local.check(out)
    assert local.export(out).returncode == 0 and again.exists()
    again.unlink()
    assert "nothing changed" in local.export(out).stdout and not again.exists()


def test_a_directory_of_the_layout_before_is_upgraded(local, tmp_path):
    local.exported(made := tmp_path / "made")
    (out := tmp_path / "out").mkdir(mode=0o700)
    for name in ("fullchain.pem", "privkey.pem"):
        shutil.copyfile(made / name, out / name)
    (out / ".csrd").write_text(local.id + "\n")
    old_chain = (out / "fullchain.pem").read_bytes()
    other = Uploaded(local.csrd)
    refused(other.export(out), 1, local.id)
    assert contents(out).keys() == {".csrd", "fullchain.pem", "privkey.pem"}
    local.renew()
    local.exported(out)
    assert {path.name for path in out.iterdir()} == FILES
    assert old_chain in [path.read_bytes() for path in (out / ".csrd").glob("*/fullchain.pem")], "the version before is kept"


def test_a_directory_that_others_could_change_is_refused_and_nothing_is_made(local, tmp_path):
    (open_to_all := tmp_path / "open").mkdir()
    open_to_all.chmod(0o777)
    (evil := tmp_path / "evil").mkdir()
    (open_to_all / "link").symlink_to(evil)
    for path in (open_to_all, open_to_all / "new", open_to_all / "link" / "new", open_to_all / "link"):
        for options in ((), ("--force",)):
            refused(local.export(path, *options), 1, str(open_to_all))
    assert [path.name for path in open_to_all.iterdir()] == ["link"] and list(evil.iterdir()) == []
    assert exports(local.csrd, local.id) == []
    # A link of one's own, where nobody else could have set it, is followed on the way.
    (tmp_path / "way").symlink_to("evil")
    local.exported(tmp_path / "way" / "new")


def test_an_export_waits_for_another_one_on_the_same_directory(local, tmp_path):
    out = tmp_path / "out"
    local.exported(out)
    local.renew()
    with (out / ".csrd" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = os.readlink(out / "current")
        refused(local.export(out), 1, "another export")
        assert os.readlink(out / "current") == before
    local.exported(out)


# A real handshake


def requests_of(port: int, ca: Path) -> subprocess.CompletedProcess:
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert", ca]
    command += ["--resolve", f"www.acme-widgets.com:{port}:127.0.0.1", f"https://www.acme-widgets.com:{port}/"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("key_type", ["rsa2048", "p256v1"])
def test_exported_files_serve_a_tls_handshake(either, tmp_path, key_type):  # noqa: F811
    uploaded = Uploaded(either, key_type)
    uploaded.exported(out := tmp_path / "out")
    (ca := tmp_path / "ca.pem").write_text(ROOT.pem)
    (stranger := tmp_path / "stranger.pem").write_text(Authority("A stranger").pem)
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", out / "fullchain.pem", "-cert_chain", out / "fullchain.pem"]
    command += ["-key", out / "privkey.pem"]
    with (log := tmp_path / "server.log").open("w") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        port = int(wait_until(lambda: re.search(r"ACCEPT 127\.0\.0\.1:(\d+)", log.read_text()), "openssl listens").group(1))
        done = requests_of(port, ca)
        assert done.returncode == 0 and "Ciphers supported" in done.stdout, done
        assert requests_of(port, stranger).returncode == 60
        verified = openssl("s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", ca, "-verify_return_error", "-verify_hostname", "www.acme-widgets.com", "-brief")
        assert "Verification: OK" in verified
        assert ("ECDSA" if key_type == "p256v1" else "RSA") in verified
    finally:
        server.terminate()
        server.wait(30)


# The list


def test_the_list_has_a_line_for_each_certificate(uploaded):
    brief = uploaded.certificates.upload(uploaded.csr["id"], INTERMEDIATE.issue(uploaded.csr["csr"], ends=SECOND, sans=["b.org", "a.org"]))["id"]
    wait_until(lambda: uploaded.certificates.get(brief)["status"] == "expired", "it expires")
    lines = [line.split("\t") for line in uploaded.csrd.ok("certificate", "list").splitlines()]
    for certificate_id, hosts in ((uploaded.id, "www.acme-widgets.com"), (brief, "b.org,a.org")):
        shown = uploaded.certificates.get(certificate_id)
        (line,) = [line for line in lines if line[0] == certificate_id]
        assert line[1:] == [f"zone={uploaded.zone.id}", f"custom_csr={uploaded.csr['id']}", f"status={shown['status']}",
                            f"expires={shown['expires_on']}", f"hosts={hosts}"]  # fmt: skip
    assert all(len(line) == 6 for line in lines)


def test_no_private_key_is_left_in_a_log_or_a_table(new_csrd, tmp_path):
    csrd = new_csrd("--log-level", "trace").start()
    made = [Uploaded(csrd, key_type) for key_type in ("rsa2048", "p256v1")]
    printed = b""
    for number, uploaded in enumerate(made):
        done = uploaded.export(tmp_path / str(number), env={"CSRD_LOG_LEVEL": "trace"} if number else None)
        printed += (done.stdout + done.stderr).encode()
        uploaded.exported(tmp_path / str(number))
    printed += csrd.ok("audit").encode() + csrd.ok("certificate", "list").encode()
    assert csrd.stop() == 0
    said = printed + csrd.log_path.read_bytes() + b"".join(database_files(csrd.data_dir).values())
    keys = [load_pem_private_key((tmp_path / name / "privkey.pem").read_bytes(), None).private_numbers() for name in ("0", "1")]
    secrets = {"p": keys[0].p, "q": keys[0].q, "d": keys[0].d, "private value": keys[1].private_value}
    secrets = {name: number.to_bytes((number.bit_length() + 7) // 8) for name, number in secrets.items()}
    assert find_secrets((tmp_path / "1" / "privkey.pem").read_bytes(), secrets) == ["private value"], "the scanner would find it"
    assert find_secrets(said, PRIVATE_KEY_MARKS | secrets) == []


def test_an_export_whose_rows_do_not_fit_each_other_is_refused_and_writes_nothing(new_csrd, tmp_path):
    csrd = new_csrd().start()
    mine, theirs = Uploaded(csrd), Uploaded(csrd)
    assert csrd.stop() == 0
    database = csrd.data_dir / "csrd.db"

    def row(certificate_id: str) -> tuple[str, str]:
        with closing(sqlite3.connect(database)) as connection:
            return connection.execute("SELECT custom_csr_id, chain_pem FROM custom_certificates WHERE id = ?", [certificate_id]).fetchone()

    def changed(**columns) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            for name, value in columns.items():
                connection.execute(f"UPDATE custom_certificates SET {name} = ? WHERE id = ?", [value, mine.id])

    (csr_id, chain), (their_csr_id, their_chain) = row(mine.id), row(theirs.id)
    out = tmp_path / "out"
    for columns, named in (
        ({"custom_csr_id": their_csr_id}, their_csr_id),
        ({"chain_pem": their_chain}, csr_id),
        ({"chain_pem": their_chain + chain}, csr_id),
        ({"chain_pem": "ssl_trusted = no\n" + chain}, csr_id),
        ({"chain_pem": chain.replace("M", "N", 1)}, csr_id),
        ({"chain_pem": ""}, csr_id),
        # Another tenant's key with its own certificate, in a zone that may not use it.
        ({"custom_csr_id": their_csr_id, "chain_pem": their_chain}, their_csr_id),
    ):
        changed(**columns)
        refused(mine.export(out), 1, named)
        assert not out.exists() or not list(out.glob("*.pem")), columns
        changed(custom_csr_id=csr_id, chain_pem=chain)
    mine.exported(out)


@pytest.mark.parametrize("reader", ["left", "cannot write"])
def test_an_export_writes_its_files_whatever_becomes_of_its_output(local, tmp_path, reader):
    stdout = pipe_without_reader() if reader == "left" else os.open("/dev/full", os.O_WRONLY)
    done = run_on(local.csrd, ["certificate", "export", local.id, "--out", tmp_path / "out"], stdout=stdout, stderr=subprocess.PIPE)
    os.close(stdout)
    local.check(tmp_path / "out")
    if reader == "left":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "standard output" in done.stderr, done
