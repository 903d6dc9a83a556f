"""`csrd zone list`, `account list` and `certificate list`: for people, for scripts and as JSON; what a shell completes; manual pages."""

import json
import os
import pty
import subprocess
from contextlib import suppress

import pytest
from ca import DAY, Authority, Certificates, active
from harness import Csrd, binary, environment, refused, run

CA = Authority("CA of the lists")


@pytest.fixture(scope="module")
def csrd(tmp_path_factory):
    """Two zones are granted, and no account."""
    csrd = Csrd(tmp_path_factory.mktemp("lists")).start()
    csrd.ok("zone", "grant", "a-zone-with-a-long-name", "--account", "none", "--quota", "5")
    yield csrd
    csrd.close()


def on_a_terminal(csrd: Csrd, *command: str) -> list[str]:
    """The lines that somebody at a terminal reads."""
    reading, terminal = pty.openpty()
    process = subprocess.Popen([binary(), *command, "--data-dir", csrd.data_dir], stdout=terminal, env=environment())
    os.close(terminal)
    printed = b""
    # A terminal that its last writer left cannot be read.
    with suppress(OSError):
        while read := os.read(reading, 65536):
            printed += read
    os.close(reading)
    assert process.wait(60) == 0
    return printed.decode().splitlines()


def rows(printed: str) -> list[dict]:
    return [json.loads(line) for line in printed.splitlines()]


def test_a_list_of_grants_is_a_table_for_people_and_lines_for_scripts(csrd):
    long = {"id": "a-zone-with-a-long-name", "account": "none", "quota": 5, "used": 0}
    assert rows(csrd.ok("zone", "list", "--json")) == [long, {"id": "demo", "account": None, "quota": 100, "used": 0}]
    assert csrd.ok("zone", "list") == "a-zone-with-a-long-name\taccount=none\tquota=5\tused=0\ndemo\taccount=none\tquota=100\tused=0\n"
    assert on_a_terminal(csrd, "zone", "list") == [
        "ID                       ACCOUNT  QUOTA  USED",
        "a-zone-with-a-long-name  none     5      0",
        "demo                     none     100    0",
    ]
    assert on_a_terminal(csrd, "zone", "list", "--json") == csrd.ok("zone", "list", "--json").splitlines()


def test_the_master_keys_are_a_table_for_people_and_lines_for_scripts(csrd):
    (row,) = rows(csrd.ok("keys", "status", "--json"))
    assert set(row) == {"id", "current", "sealed_records", "pool_keys", "workers"} and row["current"] is True
    header, line = on_a_terminal(csrd, "keys", "status")
    assert header.split() == ["ID", "CURRENT", "SEALED_RECORDS", "POOL_KEYS", "WORKERS"] and line.startswith(f"{row['id']}  true     ")
    assert csrd.ok("keys", "status").startswith(f"{row['id']}\tcurrent=true\tsealed_records=")


def test_an_empty_list_has_its_header_on_a_terminal_and_nothing_elsewhere(new_csrd):
    csrd = new_csrd()
    csrd.ok("migrate")
    assert on_a_terminal(csrd, "account", "list") == ["ID  QUOTA  USED"]
    assert on_a_terminal(csrd, "certificate", "list") == ["ID  ZONE  CUSTOM_CSR  STATUS  EXPIRES  HOSTS"]
    for command in (["account", "list"], ["account", "list", "--json"], ["certificate", "list", "--json"]):
        assert csrd.ok(*command) == ""
    csrd.ok("account", "grant", "a")
    assert rows(csrd.ok("account", "list", "--json")) == [{"id": "a", "quota": None, "used": 0}]
    assert csrd.ok("account", "list") == "a\tquota=none\tused=0\n"


def test_the_certificates_of_one_zone_and_those_that_expire_soon_are_listed_alone(csrd):
    zone, other = csrd.tenant(), csrd.tenant()
    csr = active(zone)

    def upload(tenant, csr, ends) -> dict:
        return Certificates(tenant).upload(csr["id"], CA.issue(csr["csr"], begins=-DAY, ends=ends))

    brief, soon, late = (upload(zone, csr, ends) for ends in (2 * DAY, 10 * DAY, 80 * DAY))
    elsewhere = upload(other, active(other), 10 * DAY)

    def listed(*options: str) -> set[str]:
        return {row["id"] for row in rows(csrd.ok("certificate", "list", "--json", *options))}

    assert listed() == {brief["id"], soon["id"], late["id"], elsewhere["id"]}
    assert listed("--zone", zone.id) == {brief["id"], soon["id"], late["id"]}
    assert listed("--expiring", "30d") == {brief["id"], soon["id"], elsewhere["id"]}
    assert listed("--expiring", "3d", "--zone", zone.id) == {brief["id"]} and listed("--expiring", "3d", "--zone", other.id) == set()
    refused(csrd.run("certificate", "list", "--expiring", "soon"), 2, "--expiring")

    (row,) = rows(csrd.ok("certificate", "list", "--json", "--zone", other.id))
    expected = {"id": elsewhere["id"], "zone": other.id, "custom_csr": elsewhere["custom_csr_id"], "status": "active"}
    assert row == expected | {"expires": elsewhere["expires_on"], "hosts": ["www.acme-widgets.com"]}


def test_the_id_of_a_custom_csr_is_no_certificate_s(csrd):
    refused(csrd.run("certificate", "export", active(csrd.tenant())["id"], "--out", "out"), 2, "that is a custom CSR's ID")


def test_an_export_with_another_master_key_names_the_one_that_it_needs(new_csrd, tmp_path):
    csrd = new_csrd().start()
    tenant = csrd.tenant()
    csr = active(tenant)
    certificate = Certificates(tenant).upload(csr["id"], CA.issue(csr["csr"]))
    assert csrd.stop() == 0
    key = csrd.data_dir / "master.key"
    (needed,) = [line.split()[2].rstrip(",") for line in csrd.ok("keys", "check").splitlines() if line.startswith("master key ")]
    other = run("keys", "init", "--data-dir", tmp_path / "other")
    assert other.returncode == 0, other
    (tmp_path / "other/master.key").replace(key)
    refused(csrd.run("certificate", "export", certificate["id"], "--out", "out"), 1, f"needs the master key {needed}, but {key} is")
    assert not (csrd.directory / "out").exists()


@pytest.mark.parametrize("shell", ["bash", "elvish", "fish", "powershell", "zsh"])
def test_each_shell_has_a_script_that_completes_commands_and_options(shell):
    done = run("completions", shell)
    assert done.returncode == 0 and "certificate" in done.stdout and "expiring" in done.stdout, done.stderr


def test_bash_completes_by_the_script_that_is_printed(tmp_path):
    (tmp_path / "csrd.bash").write_text(run("completions", "bash").stdout)
    # What bash does when somebody presses the tab key.
    script = "source csrd.bash; COMP_WORDS=(csrd zone gr); COMP_CWORD=2; _csrd csrd gr zone; printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "grant\n", done


def test_each_command_has_a_manual_page_that_everyone_may_read(tmp_path):
    directory = tmp_path / "share/man/man1"
    done = run("man", directory, env={"CSRD_NO_SUCH_THING": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = {page.name: page for page in directory.iterdir()}
    assert {"csrd.1", "csrd-serve.1", "csrd-zone.1", "csrd-zone-grant.1", "csrd-certificate-export.1", "csrd-man.1"} <= set(pages)
    for name, page in pages.items():
        assert page.read_text().startswith((".ie", ".TH")) and page.stat().st_mode & 0o777 == 0o644, name
    assert "CSRD_JWT_JWKS_URL" in pages["csrd-serve.1"].read_text() and "Grant custom CSRs to a zone" in pages["csrd-zone-grant.1"].read_text()
    (tmp_path / "file").write_text("")
    refused(run("man", tmp_path / "file"), 1, "file")
