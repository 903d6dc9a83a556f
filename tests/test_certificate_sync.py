"""`csrd certificate sync`: every certificate has a directory that follows it."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from ca import Authority, Certificates, active
from databases import either, new_service  # noqa: F401
from harness import binary, environment, wait_until

AUTHORITY = Authority()


class Sync:
    """A running `csrd certificate sync`."""

    def __init__(self, csrd, root: Path, *arguments: str):
        self.root, self.log = root, root.with_suffix(".log")
        settings = {name: value for name, value in csrd.env.items() if name.startswith("CSRD_")}
        command = [binary(), "certificate", "sync", "--data-dir", csrd.data_dir, "--out-root", root, "--every", "50ms", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(**settings), cwd=root.parent)

    def has(self, certificate_id: str, chain: str) -> bool:
        file = self.root / certificate_id / "fullchain.pem"
        return file.exists() and file.read_text() == chain

    def says(self, text: str) -> bool:
        return text in self.log.read_text()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


@pytest.fixture
def new_sync(tmp_path):
    made = []

    def make(csrd, name: str, *arguments: str) -> Sync:
        made.append(Sync(csrd, tmp_path / name, *arguments))
        return made[-1]

    yield make
    for sync in made:
        if sync.process.poll() is None:
            sync.process.kill()
            sync.process.wait()


def stored(zone) -> dict:
    csr = active(zone)
    return Certificates(zone).upload(csr["id"], AUTHORITY.issue(csr["csr"]))


def exports(csrd, certificate_id: str) -> int:
    entries = [json.loads(line) for line in csrd.ok("audit", "--action", "export").splitlines()]
    return sum(entry["resource"] == f"custom_certificate/{certificate_id}" for entry in entries)


def test_every_certificate_is_exported_and_again_when_it_changes_and_not_otherwise(either, new_sync, tmp_path):  # noqa: F811
    zone, other = either.tenant(), either.tenant()
    first, theirs = stored(zone), stored(other)
    sync = new_sync(either, "out", "--zone", zone.id, "--combined", "--exec", "echo $CSRD_CERTIFICATE_ID >> ran")
    ran = lambda: (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []  # noqa: E731
    wait_until(lambda: sync.has(first["id"], first["chain"]) and ran() == [first["id"]], "the first one is exported", 60)
    assert (sync.root / first["id"] / "combined.pem").exists()
    second = stored(zone)
    wait_until(lambda: sync.has(second["id"], second["chain"]) and len(ran()) == 2, "so is one that comes", 60)
    # With another key, and settings that change no file.
    csr = active(zone)
    certificates = Certificates(zone)
    renewed = certificates.patch(first["id"], certificate=AUTHORITY.issue(csr["csr"]), custom_csr_id=csr["id"]).result
    certificates.patch(second["id"], priority=5)
    wait_until(lambda: sync.has(first["id"], renewed["chain"]) and len(ran()) == 3, "the renewed one follows", 60)
    assert ran() == [first["id"], second["id"], first["id"]]
    assert (exports(either, first["id"]), exports(either, second["id"])) == (2, 1), "what is the same is not exported"
    assert not (sync.root / theirs["id"]).exists()
    # The directory of a certificate that is deleted stays.
    certificates.request("DELETE", f"/{second['id']}")
    third = stored(zone)
    wait_until(lambda: sync.has(third["id"], third["chain"]) and len(ran()) == 4, "the next one is exported", 60)
    assert sync.has(second["id"], second["chain"])
    assert sync.end() == 0
    # Begun again, it exports what changed meanwhile, as the directory remembers it, and nothing else.
    changed = certificates.patch(third["id"], certificate=AUTHORITY.issue(zone.get(third["custom_csr_id"])["csr"])).result
    again = new_sync(either, "out", "--zone", zone.id)
    wait_until(lambda: again.has(third["id"], changed["chain"]) and ran()[-1] == third["id"] and len(ran()) == 5, "it follows", 60)
    assert exports(either, first["id"]) == 2
    assert again.end(signal.SIGINT) == 0


def test_one_export_that_fails_is_named_and_tried_again_and_holds_up_no_other(either, new_sync, tmp_path):  # noqa: F811
    zone = either.tenant()
    first, second = stored(zone), stored(zone)
    foreign = tmp_path / "out" / first["id"]
    foreign.mkdir(parents=True)
    (foreign / "fullchain.pem").write_text("somebody's")
    sync = new_sync(either, "out", "--zone", zone.id)
    wait_until(lambda: sync.has(second["id"], second["chain"]), "the other one is exported", 60)
    wait_until(lambda: sync.says(first["id"]), "the failure is told", 60)
    assert (foreign / "fullchain.pem").read_text() == "somebody's"
    (foreign / "fullchain.pem").unlink()
    # After 5 s.
    wait_until(lambda: sync.has(first["id"], first["chain"]), "it is tried again", 60)
    assert sync.process.poll() is None and sync.end() == 0


def test_it_needs_the_master_key_and_says_what_it_does(new_csrd, tmp_path):
    csrd = new_csrd().start()
    (csrd.data_dir / "master.key").rename(csrd.data_dir / "hidden")
    refused = csrd.run("certificate", "sync", "--out-root", str(tmp_path / "out"))
    assert refused.returncode == 1 and "master.key" in refused.stderr and len(refused.stderr.splitlines()) == 1
    help_text = " ".join(csrd.run("certificate", "sync", "--help", data_dir=False).stdout.split())
    assert "its export is repeated as that directory remembers it" in help_text
