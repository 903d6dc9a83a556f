"""Sets: an RSA and an ECDSA certificate for one name, from one request to what a TLS server sends to each of its clients."""

import re
import subprocess

import pytest
from ca import Authority, Certificates
from harness import Csrd, Tenant, subject, wait_until
from pages import DOCS, blocks, follow, run_shell
from test_certificate_sync import Sync
from test_csrctl import csrctl
from test_tutorial import haproxy, nginx

GUIDE = DOCS / "how-to/rsa-and-ecdsa.md"
WAIT = {"Prefer": "wait=30"}
BOTH = ["rsa2048", "p256v1"]


def made(zone: Tenant) -> list[dict]:
    """The custom CSRs of a fresh set."""
    answer = zone.request("POST", json=subject(key_type=..., key_types=BOTH), headers=WAIT)
    assert answer.status == 201 and [csr["key_type"] for csr in answer.result] == BOTH, answer
    return answer.result


def export(csrd, certificate_id: str, out, *options: str) -> set[str]:
    """The names of the exported files."""
    csrd.ok("certificate", "export", certificate_id, "--out", str(out), *options)
    return {path.name for path in out.iterdir()} - {".csrd", "current", "fullchain.pem", "privkey.pem"}


def test_a_set_is_exported_with_all_certificates_that_it_has(new_csrd, tmp_path):
    csrd, ca = new_csrd().start(), Authority()
    zone = csrd.tenant()
    certificates, (rsa, ecdsa) = Certificates(zone), made(zone)
    first = certificates.upload(rsa["id"], ca.issue(rsa["csr"]))
    out = tmp_path / "out"
    assert export(csrd, first["id"], out) == set()
    assert export(csrd, first["id"], out, "--combined") == {"combined.pem", "site.pem.rsa"}, "the other one has none yet"
    second = certificates.upload(ecdsa["id"], ca.issue(ecdsa["csr"]))
    assert export(csrd, first["id"], out) == {"combined.pem", "site.pem.rsa", "site.pem.ecdsa"}, "it is remembered"
    assert (out / "site.pem.rsa").read_text() == (out / "combined.pem").read_text()
    key, chain = re.fullmatch(r"(?s)(-----BEGIN PRIVATE KEY-----.*-----END PRIVATE KEY-----\n)(.*)", (out / "site.pem.ecdsa").read_text()).groups()
    assert chain == second["chain"]
    assert export(csrd, second["id"], other := tmp_path / "other", "--combined") == {"combined.pem", "site.pem.rsa", "site.pem.ecdsa"}
    assert (other / "privkey.pem").read_text() == key and (other / "site.pem.rsa").read_text() == (out / "site.pem.rsa").read_text()
    assert (out / "site.pem.ecdsa").stat().st_mode & 0o777 == 0o600
    # Nothing is unsealed, and nothing recorded of the other one, where nothing changed.
    before = csrd.ok("audit", "--action", "export").count(second["id"])
    assert "nothing changed" in csrd.ok("certificate", "export", first["id"], "--out", str(out))
    assert csrd.ok("audit", "--action", "export").count(second["id"]) == before >= 2

    # A rekey keeps the set: one certificate after the other is replaced, and both are there throughout.
    newer = zone.request("POST", f"/{rsa['id']}/rekey", headers=WAIT).result
    assert [csr["replaces"] for csr in newer] == [rsa["id"], ecdsa["id"]]
    for certificate, csr in ((first, newer[0]), (second, newer[1])):
        stored = certificates.patch(certificate["id"], certificate=ca.issue(csr["csr"]), custom_csr_id=csr["id"]).result
        assert export(csrd, first["id"], out) == {"combined.pem", "site.pem.rsa", "site.pem.ecdsa"}
        assert (out / f"site.pem.{'rsa' if csr is newer[0] else 'ecdsa'}").read_text().endswith(stored["chain"])
    certificates.request("DELETE", f"/{second['id']}")
    assert export(csrd, first["id"], out) == {"combined.pem", "site.pem.rsa"}
    assert export(csrd, first["id"], out, "--combined=false") == set()


def test_a_set_that_does_not_fit_is_told_what_there_is_and_one_that_fits_is_made(new_csrd):
    csrd = new_csrd("--workers", "0", "--max-pending", "3").start()
    zone = csrd.tenant()
    pair = {key: value for key, value in subject().items() if key != "key_type"} | {"key_types": ["p256v1", "rsa2048"]}
    for _ in range(2):
        zone.create()
    answer = zone.request("POST", json=pair)
    hint = "The zone may have 3 pending custom CSRs, and has no room for the 2 of this set."
    assert answer.status == 429 and hint in answer.envelope["messages"][0]["message"]
    csrd.ok("zone", "grant", zone.id, "--quota", "3")
    answer = zone.request("POST", json=pair)
    reason = "The quota is used up: the zone may have 3 custom CSRs, and has no room for the 2 of this set."
    assert answer.status == 403 and answer.envelope["errors"][0]["message"].startswith(reason)
    zone.create()


def test_a_certificate_of_another_zone_is_not_exported_with_a_set_of_their_account(new_csrd, tmp_path):
    csrd, ca = new_csrd().start(), Authority()
    account, zone, other = csrd.tenant("account"), csrd.tenant(), csrd.tenant()
    for tenant in (zone, other):
        csrd.ok("zone", "grant", tenant.id, "--account", account.id, "--quota", "10")
    rsa, ecdsa = made(account)
    first = Certificates(zone).upload(rsa["id"], ca.issue(rsa["csr"]))
    Certificates(other).upload(ecdsa["id"], ca.issue(ecdsa["csr"]))
    assert export(csrd, first["id"], tmp_path / "out", "--combined") == {"combined.pem", "site.pem.rsa"}


def test_a_directory_that_is_synchronised_follows_all_of_its_set(new_csrd, tmp_path):
    csrd, ca = new_csrd().start(), Authority()
    zone = csrd.tenant()
    certificates, (rsa, ecdsa) = Certificates(zone), made(zone)
    first = certificates.upload(rsa["id"], ca.issue(rsa["csr"]))
    sync = Sync(csrd, tmp_path / "out", "--combined")
    try:
        directory = sync.root / first["id"]
        wait_until(lambda: (directory / "site.pem.rsa").exists(), "the first one is exported", 60)
        second = certificates.upload(ecdsa["id"], ca.issue(ecdsa["csr"]))
        has = lambda chain: (directory / "site.pem.ecdsa").exists() and (directory / "site.pem.ecdsa").read_text().endswith(chain)  # noqa: E731
        wait_until(lambda: has(second["chain"]), "the other one of the set comes to its directory", 60)
        renewed = certificates.patch(second["id"], certificate=ca.issue(ecdsa["csr"])).result
        wait_until(lambda: has(renewed["chain"]), "it follows there, too", 60)
        certificates.request("DELETE", f"/{second['id']}")
        wait_until(lambda: not (directory / "site.pem.ecdsa").is_symlink(), "it goes", 60)
        assert (directory / "site.pem.rsa").exists() and sync.end() == 0
    finally:
        sync.process.kill()
        sync.process.wait()


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A service, after somebody pasted the guide's commands."""
    csrd = Csrd(tmp_path_factory.mktemp("sets"))
    csrd.data_dir = csrd.directory / "csrd-data"
    csrd.start()
    try:
        (csrd.directory / "bin").mkdir()
        (csrd.directory / "bin/csrctl").symlink_to(csrctl())
        follow(GUIDE, csrd.directory, CSRD_URL=csrd.url, CSRD_TOKEN=csrd.token("--zone", "demo"))
        yield csrd
    finally:
        csrd.close()


@pytest.mark.parametrize("server", [nginx, haproxy], ids=["nginx", "haproxy"])
def test_clients_with_and_without_ecdsa_get_the_certificate_that_they_can_verify(followed, server):
    (settings,) = blocks(GUIDE, server.__name__)
    for documented in ("/etc/nginx/tenants/www", "/etc/haproxy/tenants/www"):
        settings = settings.replace(documented, str(followed.directory / "tenants/www"))
    (commands,), (shown,) = blocks(GUIDE, "bash"), blocks(GUIDE, "text")
    with server(settings) as (socket,):
        printed = run_shell(followed.directory, commands.replace("-connect www.acme-widgets.com:443", f"-unix {socket}"))
        assert printed == shown
        # One that knows neither is refused by both.
        refused = commands.split("served\n")[0].replace("-connect www.acme-widgets.com:443", f"-unix {socket}")
        none = subprocess.run(["bash", "-c", f"{refused}served -tls1_3 -sigalgs ed25519"], cwd=followed.directory, capture_output=True, timeout=60, check=False)
        assert none.returncode != 0 and none.stdout == b""
