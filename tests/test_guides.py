"""The how-to guides that start from nothing work as they stand."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager

import pytest
from ca import Authority, Certificates
from harness import Tenant, codes, environment
from pages import DOCS, blocks, run_shell, run_there
from postgres import Postgres
from test_csrctl import csrctl

TERRAFORM = DOCS / "how-to/terraform.md"
POSTGRESQL = DOCS / "how-to/postgresql.md"
HAND_OVER = DOCS / "how-to/hand-over.md"
IDENTITY_PROVIDER = DOCS / "how-to/identity-provider.md"


def resource(kind: str) -> dict:
    """What a resource in the guide to Terraform says, but for where it belongs and for Terraform's own settings."""
    (text,) = (text for text in blocks(TERRAFORM, "hcl") if f'resource "{kind}"' in text)
    found = re.findall(r'^  (\w+) += (".*"|\[.*\])$', text, re.MULTILINE)
    return {name: json.loads(value) for name, value in found if name != "zone_id"}


def test_what_terraform_keeps_of_a_create_is_what_it_was_told_and_what_it_reads_later(new_csrd):
    (start,) = blocks(TERRAFORM, "text")
    csrd = new_csrd(*start.split()[2:]).start()
    zone = csrd.tenant("zone", prefix="/client/v4")
    told = resource("cloudflare_custom_csr")
    assert len(told) == 8
    made = zone.request("POST", json=told)
    assert made.status == 201 and made.result["csr"], made
    kept = [*told, "id", "description", "organizational_unit", "account_tag", "created_at", "csr"]
    state = {name: made.result[name] for name in kept}
    assert state | told == state
    read = zone.get(made.result["id"])
    assert {name: read[name] for name in kept} == state
    certificates, told = Certificates(zone), resource("cloudflare_custom_ssl")
    assert told == {"private_key": "", "type": "sni_custom", "bundle_method": "ubiquitous"}
    stored = certificates.post(certificate=Authority().issue(state["csr"]), **told)
    assert stored.status == 201 and stored.result["custom_csr_id"] == state["id"], stored
    # The schema plans 0 for it.
    assert (stored.result["type"], stored.result["bundle_method"], stored.result["priority"]) == ("sni_custom", "ubiquitous", 0)
    # A new key in place, and the first one's end before its certificate's.
    second = zone.request("POST", f"/{state['id']}/rekey").result
    assert codes(certificates.patch(stored.result["id"], certificate=Authority().issue(second["csr"])).envelope) == [1429]
    assert codes(zone.request("DELETE", f"/{state['id']}").envelope) == [1420]


@pytest.fixture
def postgres():
    """A server of its own: roles belong to all databases of one."""
    server = Postgres()
    yield server
    server.close()


@contextmanager
def in_the_background(command: list[str], directory, env: dict):
    with (directory / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_api_and_worker_run_on_postgresql_with_the_roles_that_the_guide_makes(postgres, new_csrd, tmp_path):
    def here(text: str) -> str:
        places = {"db.example.net": f"127.0.0.1:{postgres.port}", "/var/lib/csrd": f"{tmp_path}/keys", "/etc/csrd": str(tmp_path)}
        for documented, place in (places | {":8080": ":0", ":8081": ":0", "0.0.0.0": "127.0.0.1"}).items():
            text = text.replace(documented, place)
        return text

    (roles,), (once,), (_, lasting) = (blocks(POSTGRESQL, language) for language in ("sql", "sh", "text"))
    # With `psql` as a superuser, who reads more than SQL.
    psql = [postgres.bin / "psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", postgres.url("postgres")]
    done = subprocess.run(psql, input=roles, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    run_shell(tmp_path, here(once))
    (jwks,) = blocks(IDENTITY_PROVIDER, "python")
    token = run_there(tmp_path, sys.executable, "-c", jwks).strip()
    worker, serve = (shlex.split(line) for line in here(lasting).splitlines())
    env = environment(PATH=f"{tmp_path}/bin")
    with in_the_background([f"{tmp_path}/bin/csrd", *worker[1:]], tmp_path, env):
        csrd = new_csrd().spawn(f"{tmp_path}/bin/csrd", *serve[1:]).wait_listening()
        demo = Tenant(csrd, "zone", "demo", token)
        demo.wait_active(demo.create()["id"])


def test_a_csr_is_handed_over_from_a_terminal_as_in_the_guide(new_csrd):
    csrd = new_csrd()
    csrd.data_dir = csrd.directory / "csrd-data"
    csrd.start()
    (csrd.directory / "bin").mkdir()
    (csrd.directory / "bin/csrctl").symlink_to(csrctl())
    login = {"CSRD_URL": csrd.url, "CSRD_TOKEN": csrd.token("--zone", "demo")}
    printed = run_shell(csrd.directory, "\n".join(blocks(HAND_OVER, "sh")), **login)
    assert "The certificate is stored" in printed and "www.acme-widgets.com" in printed and "revoked" in printed
    (stored,) = Certificates(Tenant(csrd, "zone", "demo", login["CSRD_TOKEN"])).all()
    assert sorted(stored["hosts"]) == ["shop.acme-widgets.com", "www.acme-widgets.com"]
