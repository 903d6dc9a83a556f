"""`csrctl`, the tenant's command line: each command against a real csrd, and each exit status."""

import json
import os
import pty
import re
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ca import Authority, Certificates, active, pem
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from databases import FAIL, OnSqlite
from harness import ROOT, Tenant, environment
from pages import DOCS, blocks, run_shell
from tls import Pair

CA = Authority("CA of csrctl")
DONE, REFUSED, WRONG_USE, NOT_REACHED, NOT_ALLOWED, NOT_MADE = range(6)
SUBJECT = [
    "--country", "US", "--state", "California", "--locality", "San Francisco", "--organization", "Acme", "--key-type", "p256v1",
]  # fmt: skip
CN = "www.acme-widgets.com"
# Nobody listens on port 1.
NOBODY = "http://127.0.0.1:1"
COMMANDS = [
    ["login"], ["create"], ["get"], ["list"], ["rename"], ["rekey"], ["delete"], ["restore"], ["watch"], ["upload"], ["certificates"], ["certificates", "get"],
    ["handover", "create"], ["handover", "list"], ["handover", "revoke"],
    ["certificates", "delete"], ["webhooks"], ["webhooks", "get"], ["webhooks", "create"], ["webhooks", "edit"], ["webhooks", "delete"],
    ["webhooks", "ping"], ["webhooks", "deliveries"], ["renewal"], ["renewal", "set"], ["renewal", "delete"], ["quota"], ["completions"], ["man"],
]  # fmt: skip


def csrctl() -> Path:
    """The csrctl under test."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Path(os.environ.get("CSRCTL_BIN", target / "debug/csrctl")).resolve()


@dataclass
class Ctl:
    """Somebody's shell: a directory of settings, and the variables that are set."""

    directory: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return environment(HOME=str(self.directory), XDG_CONFIG_HOME=str(self.directory / "config"), **self.variables)

    def run(self, *arguments, stdin: bytes = b"", **streams) -> subprocess.CompletedProcess:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        command = [csrctl(), *map(str, arguments)]
        done = subprocess.run(command, input=stdin, env=self.environment(), cwd=self.directory, timeout=120, check=False, **streams)
        done.stdout, done.stderr = (done.stdout or b"").decode(), (done.stderr or b"").decode()
        assert "panicked" not in done.stderr, done.stderr
        return done

    def ok(self, *arguments, stdin: bytes = b"") -> str:
        """Runs a command that has to succeed; returns its standard output."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == DONE, done
        return done.stdout

    def json(self, *arguments) -> list[dict]:
        return [json.loads(line) for line in self.ok(*arguments, "--json").splitlines()]

    def fails(self, status: int, *arguments, stdin: bytes = b"") -> list[str]:
        """Runs a command that has to fail with this status; returns the lines that say why."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == status, done
        lines = done.stderr.splitlines()
        assert lines and all(line.startswith("csrctl: ") for line in lines), done
        return [line.removeprefix("csrctl: ") for line in lines]


@pytest.fixture
def shell(tmp_path) -> Ctl:
    """A shell before any login."""
    return Ctl(tmp_path)


@pytest.fixture
def ctl(shell, zone) -> Ctl:
    """A shell after the login of a zone that nobody else uses."""
    shell.ok("login", "--url", zone.service.url, stdin=zone.token.encode())
    return shell


def login_file(shell: Ctl) -> Path:
    return shell.directory / "config/csrctl/login.json"


# The login


def test_a_login_stores_url_and_token_for_its_user_alone(shell, zone):
    token = shell.directory / "token"
    token.write_text(zone.token + "\n")
    printed = shell.ok("login", "--url", zone.service.url + "/api/v4", "--token-file", token)
    path = login_file(shell)
    assert str(path) in printed and zone.id in printed and zone.token not in printed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text()) == {"url": zone.service.url + "/", "token": zone.token}
    assert "1000" in shell.ok("quota")


def test_a_login_reads_the_token_from_standard_input_and_replaces_the_one_before(shell, zone, service):
    path = login_file(shell)
    path.parent.mkdir(parents=True)
    path.touch(0o644)
    path.write_text("{")
    assert "broken" in " ".join(shell.fails(WRONG_USE, "quota"))
    shell.ok("login", "--url", service.url, stdin=zone.token.encode() + b"\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert shell.json("quota") == [{"allocated": 1000, "used": 0}]


def test_without_a_directory_of_settings_the_login_is_below_the_home_directory(shell, zone):
    for relative in ("", "relative"):
        environ = shell.environment() | {"XDG_CONFIG_HOME": relative}
        command = [csrctl(), "login", "--url", zone.service.url]
        subprocess.run(command, input=zone.token.encode(), env=environ, cwd=shell.directory, timeout=60, check=True, capture_output=True)
        path = shell.directory / ".config/csrctl/login.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.unlink()


def test_the_variables_win_over_the_login(ctl, service):
    other = service.tenant()
    ctl.variables["CSRD_TOKEN"] = other.token
    ctl.ok("create", "--cn", CN, *SUBJECT)
    assert other.total() == 1
    ctl.variables["CSRD_URL"] = NOBODY
    ctl.fails(NOT_REACHED, "list")


def test_two_variables_need_no_login(shell, zone):
    shell.variables |= {"CSRD_URL": zone.service.url, "CSRD_TOKEN": zone.token}
    assert shell.json("list") == [] and not login_file(shell).exists()


def test_a_token_for_several_zones_needs_one_to_be_named(shell, service):
    zones = [service.tenant(), service.tenant()]
    token = service.token("--zone", zones[0].id, "--zone", zones[1].id).encode()
    shell.ok("login", "--url", service.url, stdin=token)
    (line,) = shell.fails(WRONG_USE, "quota")
    assert "--zone" in line and "--account" in line
    shell.ok("create", "--cn", CN, *SUBJECT, "--zone", zones[0].id)
    shell.variables["CSRD_ZONE"] = zones[0].id
    assert shell.json("quota")[0]["used"] == 1
    # The option wins over the variable, and both over the login.
    assert shell.json("quota", "--zone", zones[1].id)[0]["used"] == 0
    shell.ok("login", "--url", service.url, "--zone", zones[1].id, stdin=token)
    assert shell.json("quota")[0]["used"] == 1
    del shell.variables["CSRD_ZONE"]
    assert shell.json("quota")[0]["used"] == 0


def test_an_account_is_asked_for_in_the_same_way(shell, service):
    account = service.tenant("account")
    shell.ok("login", "--url", service.url, stdin=account.token.encode())
    (made,) = shell.json("create", "--cn", CN, *SUBJECT, "--wait")
    assert (made["account_tag"], made["zone_id"], made["status"]) == (account.id, None, "active")
    assert [row["id"] for row in shell.json("list")] == [made["id"]]
    assert shell.json("certificates") == []
    (line,) = shell.fails(WRONG_USE, "upload", csrctl())
    assert "--zone" in line


def test_the_certificate_of_a_service_is_checked_against_the_roots(new_csrd, shell):
    pair = Pair(shell.directory / "tls")
    csrd = new_csrd(*pair.arguments(), "--workers", "0", tls=pair.trusted()).start()
    shell.ok("login", "--url", csrd.url, stdin=csrd.tenant().token.encode())
    shell.variables["SSL_CERT_FILE"] = str(pair.cert)
    assert shell.json("list") == []
    (other := shell.directory / "other.pem").write_text(CA.pem)
    shell.variables["SSL_CERT_FILE"] = str(other)
    (line,) = shell.fails(NOT_REACHED, "list")
    assert "certificate" in line


def test_a_login_over_plain_http_to_elsewhere_is_warned_of(shell):
    done = shell.run("login", "--url", "http://csr.platform.example", stdin=b"a.b.c")
    assert done.returncode == DONE and done.stderr.startswith("csrctl: warning: ") and "https" in done.stderr


# Custom CSRs


def test_create_waits_and_shows_the_csr_to_people(ctl, zone):
    printed = ctl.ok("create", "--cn", CN, "--san", CN, "--san", "shop.acme-widgets.com", *SUBJECT, "--name", "shop", "--wait")
    (made,) = zone.all()
    assert printed.endswith("\n\n" + made["csr"])
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in printed.split("\n\n")[0].splitlines())
    assert rows["id"] == made["id"] and rows["status"] == "active" and rows["name"] == "shop"
    assert rows["sans"] == f"{CN},shop.acme-widgets.com" and "csr" not in rows and "error" not in rows


def test_create_answers_at_once_unless_it_is_told_to_wait(new_csrd, shell):
    csrd = new_csrd("--workers", "0").start()
    tenant = csrd.tenant()
    shell.ok("login", "--url", csrd.url, stdin=tenant.token.encode())
    (made,) = shell.json("create", "--cn", CN, *SUBJECT)
    assert made["status"] == "pending" and made["sans"] == [CN]


def test_the_csr_alone_is_what_a_ca_signs(ctl, zone):
    csr = ctl.ok("create", "--cn", CN, *SUBJECT, "--csr")
    assert x509.load_pem_x509_csr(csr.encode()).is_signature_valid
    (made,) = zone.all()
    assert ctl.ok("get", made["id"], "--csr") == csr == made["csr"]


def test_get_shows_the_custom_csr_as_the_api_does(ctl, zone):
    made = active(zone, name="\x1b[31mred".replace("\x1b", "\u202e"))
    assert ctl.json("get", made["id"]) == [made]
    assert "\\u202e[31mred" in ctl.ok("get", made["id"])


def test_list_shows_all_pages_and_what_fits_the_filters(ctl, zone):
    made = [zone.create(common_name=f"n{number}.acme-widgets.com", name="odd" if number % 2 else None)["id"] for number in range(53)]
    assert [row["id"] for row in ctl.json("list")] == made[::-1]
    assert [row["id"] for row in ctl.json("list", "--direction", "asc", "--limit", "3")] == made[:3]
    assert [row["id"] for row in ctl.json("list", "--search", "odd")] == made[1::2][::-1]
    for csr_id in made:
        zone.wait_active(csr_id)
    header, *rows = ctl.ok("list", "--status", "active", "--key-type", "P256V1", "--order", "created_at").splitlines()
    assert header.split() == ["ID", "STATUS", "KEY_TYPE", "COMMON_NAME", "NAME", "CREATED_AT"]
    assert [row.split()[0] for row in rows] == made[::-1] and all(row.index("active") == header.index("STATUS") for row in rows)
    assert ctl.json("list", "--status", "failed") == []
    (line, *_) = ctl.fails(REFUSED, "list", "--order", "age")
    assert line.startswith("--order: ")


def test_rename_changes_name_and_description(ctl, zone):
    made = active(zone)["id"]
    assert made in ctl.ok("rename", made, "shop", "--description", "of ours")
    assert (zone.get(made)["name"], zone.get(made)["description"]) == ("shop", "of ours")
    (renamed,) = ctl.json("rename", made, "")
    assert (renamed["name"], renamed["description"]) == (None, "of ours")
    (line, *_) = ctl.fails(REFUSED, "rename", made, "x" * 256)
    assert line.startswith("NAME: ")


def test_rekey_makes_another_custom_csr(ctl, zone):
    old = active(zone, name="shop")
    (new,) = ctl.json("rekey", old["id"], "--name", "shop again", "--wait")
    assert (new["replaces"], new["name"], new["common_name"], new["status"]) == (old["id"], "shop again", old["common_name"], "active")
    assert new["csr"] != old["csr"]


def test_delete_goes_on_with_the_others_where_one_is_not_there(ctl, zone):
    first, second = zone.create()["id"], zone.create()["id"]
    unknown = "0190aaaa-aaaa-7aaa-8aaa-aaaaaaaaaaaa"
    (line,) = ctl.fails(REFUSED, "delete", first, unknown, second)
    assert unknown in line and "(1419)" in line
    assert zone.total() == 0
    third = zone.create()["id"]
    assert ctl.ok("delete", third) == f"deleted {third}\n"


def test_what_is_deleted_comes_back_until_it_is_destroyed(new_csrd, shell):
    csrd = new_csrd("--delete-grace", "1h").start()
    zone = csrd.tenant()
    shell.ok("login", "--url", csrd.url, stdin=zone.token.encode())
    first, second = active(zone)["id"], active(zone)["id"]
    done = shell.run("delete", first, second)
    assert done.returncode == DONE and done.stdout == f"deleted {first}\ndeleted {second}\n" and "brings it back" in done.stderr, done
    assert shell.json("list") == []
    assert shell.ok("restore", first) == f"restored {first}\n"
    assert [row["status"] for row in shell.json("restore", first)] == ["active"]
    assert shell.ok("delete", "--now", first, second) == f"deleted {first}\ndeleted {second}\n"
    (line, other) = shell.fails(REFUSED, "restore", first, second)
    assert first in line and second in other and "(1419)" in line
    assert shell.json("quota") == [{"allocated": 1000, "used": 0}]


def test_quota_says_what_is_left(ctl, zone):
    zone.create()
    assert [line.split() for line in ctl.ok("quota").splitlines()] == [["ALLOCATED", "USED", "FREE"], ["1000", "1", "999"]]


def test_watch_prints_what_is_decided(ctl, zone):
    ids = [zone.create(common_name=f"n{number}.acme-widgets.com")["id"] for number in range(3)]
    assert {row["id"]: row["status"] for row in ctl.json("watch", *ids)} == dict.fromkeys(ids, "active")
    # Nothing is pending any more.
    assert ctl.ok("watch") == ""


# Waiting


@pytest.fixture
def without_workers(tmp_path, shell) -> Iterator[tuple[Ctl, Tenant, OnSqlite]]:
    """A service that makes no keys, and a shell after the login."""
    csrd = OnSqlite(tmp_path / "csrd", "--workers", "0").start()
    tenant = csrd.tenant()
    shell.ok("login", "--url", csrd.url, stdin=tenant.token.encode())
    yield shell, tenant, csrd
    csrd.close()


def test_a_wait_that_is_over_prints_the_id_and_has_a_status_of_its_own(without_workers):
    shell, tenant, _ = without_workers
    done = shell.run("create", "--cn", CN, *SUBJECT, "--wait=1s", "--json")
    made = json.loads(done.stdout)
    assert done.returncode == NOT_MADE and made["status"] == "pending" and tenant.get(made["id"])
    assert f"custom CSR {made['id']} is still pending after 1s" in done.stderr
    for command in (["get", made["id"], "--wait=1s"], ["watch", made["id"], "--timeout", "1s"], ["watch", "--timeout", "1s"]):
        (line,) = shell.fails(NOT_MADE, *command)
        assert made["id"] in line


def test_a_custom_csr_that_failed_has_the_same_status_and_says_why(without_workers):
    shell, tenant, csrd = without_workers
    made = tenant.create()["id"]
    csrd.sql(FAIL.format(made))
    for command in (["get", made, "--wait"], ["get", made, "--csr"], ["watch", made]):
        (line,) = shell.fails(NOT_MADE, *command)
        assert f"custom CSR {made} failed: by a test" in line
    assert shell.json("get", made)[0]["status"] == "failed"


def test_a_progress_line_is_for_terminals_alone(without_workers):
    shell, tenant, _ = without_workers
    made = tenant.create()["id"]
    done = shell.run("get", made, "--wait=1s")
    assert done.stderr.count("\n") == 1 and "waiting for" not in done.stderr
    reading, terminal = pty.openpty()
    command = [csrctl(), "get", made, "--wait=1s"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=shell.environment() | {"TERM": "xterm"})
    os.close(terminal)
    shown = b""
    # A terminal that its last writer left cannot be read.
    with suppress(OSError):
        while read := os.read(reading, 65536):
            shown += read
    os.close(reading)
    assert process.wait(60) == NOT_MADE and f"waiting for custom CSR {made}".encode() in shown


# Certificates


def test_a_certificate_goes_the_whole_way(ctl, zone):
    csr = ctl.ok("create", "--cn", CN, *SUBJECT, "--csr")
    chain = ctl.directory / "fullchain.pem"
    chain.write_text(CA.issue(csr) + CA.pem)
    (checked,) = ctl.json("upload", chain, "--dry-run")
    assert checked["id"] is None and Certificates(zone).all() == []
    printed = ctl.ok("upload", chain)
    (stored,) = Certificates(zone).all()
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in printed.splitlines())
    assert rows["id"] == stored["id"] and rows["hosts"] == CN and rows["status"] == "active" and "chain" not in rows

    (row,) = ctl.json("certificates", "--host", CN, "--status", "active", "--custom-csr-id", stored["custom_csr_id"])
    assert row == stored
    assert ctl.json("certificates", "--expires-before", "2000-01-01T00:00:00Z") == []
    header, line = ctl.ok("certificates").splitlines()
    assert header.split() == ["ID", "STATUS", "EXPIRES_ON", "CUSTOM_CSR_ID", "HOSTS"] and line.split()[0] == stored["id"]
    assert ctl.ok("certificates", "get", stored["id"], "--chain") == leaf_of(chain)
    assert ctl.json("certificates", "get", stored["id"])[0]["fingerprint_sha256"] == stored["fingerprint_sha256"]

    # A renewal, from standard input, in DER.
    renewed = x509.load_pem_x509_certificate(CA.issue(csr).encode()).public_bytes(Encoding.DER)
    done = ctl.run("upload", "-", "--replace", stored["id"], "--custom-csr-id", stored["custom_csr_id"], "--json", stdin=renewed)
    assert done.returncode == DONE, done
    assert json.loads(done.stdout)["id"] == stored["id"] and json.loads(done.stdout)["serial_number"] != stored["serial_number"]

    (line, hint) = ctl.fails(REFUSED, "delete", stored["custom_csr_id"])
    assert "(1420)" in line and stored["id"] in hint
    assert ctl.ok("certificates", "delete", stored["id"]) == f"deleted {stored['id']}\n"
    ctl.ok("delete", stored["custom_csr_id"])


def leaf_of(chain: Path) -> str:
    """The first certificate of a file."""
    return pem(x509.load_pem_x509_certificates(chain.read_bytes())[0])


def test_the_guide_runs_as_it_stands(new_csrd):
    csrd = new_csrd()
    csrd.data_dir = csrd.directory / "csrd-data"
    csrd.start()
    (csrd.directory / "bin").mkdir()
    (csrd.directory / "bin/csrctl").symlink_to(csrctl())
    run_shell(csrd.directory, "\n".join(blocks(DOCS / "how-to/csrctl.md", "sh")), URL=csrd.url, XDG_CONFIG_HOME=str(csrd.directory / "config"))
    (stored,) = Certificates(Tenant(csrd, "zone", "demo", csrd.token("--zone", "demo"))).all()
    serials = [x509.load_pem_x509_certificate((csrd.directory / name).read_bytes()).serial_number for name in ("www.crt", "renewed.crt")]
    assert int(stored["serial_number"], 16) == serials[1] != serials[0] and len(stored["hosts"]) == 2


def test_the_guide_names_every_command_and_option(shell):
    text = (DOCS / "how-to/csrctl.md").read_text()
    known = {"--help", "--version", "--zone", "--account", "--json", "--idempotency-key"}
    for command in COMMANDS:
        (lines,) = re.findall(rf"(?:^|  )(csrctl {' '.join(command)}(?: .*)?(?:\n  .*)*)", blocks(DOCS / "how-to/csrctl.md", "text")[0], re.MULTILINE)[:1]
        offered = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", shell.ok(*command, "--help"), re.MULTILINE))
        assert {option for option in offered - known if option not in lines} == set(), command
    assert known - {"--help", "--version"} <= set(re.findall(r"--[a-z-]+", text))


def test_a_warning_stands_beside_what_was_done(ctl):
    done = ctl.run("create", "--cn", CN, "--san", "other.acme-widgets.com", *SUBJECT)
    assert done.returncode == DONE and done.stderr.startswith("csrctl: warning: --cn") and "(2000)" in done.stderr, done


def test_a_list_of_a_zone_that_was_never_granted_says_so(shell, service):
    shell.variables |= {"CSRD_URL": service.url, "CSRD_TOKEN": service.token("--zone", "nobody-s")}
    done = shell.run("list")
    assert done.returncode == DONE and done.stderr.startswith("csrctl: hint: ") and done.stderr.count("\n") == 1, done


# Hand-over links


def test_a_link_is_made_listed_and_revoked(ctl):
    (csr,) = ctl.json("create", "--cn", CN, *SUBJECT, "--wait")
    (made,) = ctl.json("handover", "create", csr["id"], "--expires-in", "2h", "--note", "Dear IT")
    assert "/handover/" in made["url"] and made["note"] == "Dear IT"
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lasts == timedelta(hours=2)
    assert "/handover/" in ctl.ok("handover", "create", csr["id"])
    header, _, row = ctl.ok("handover", "list", csr["id"]).splitlines()
    assert header.split()[0] == "ID" and row.split()[0] == made["id"] and "Dear IT" in row
    assert ctl.ok("handover", "revoke", csr["id"], made["id"]) == f"revoked {made['id']}\n"
    assert ctl.json("handover", "list", csr["id"])[1]["revoked_at"] is not None
    (line,) = ctl.fails(REFUSED, "handover", "create", csr["id"], "--expires-in", "59m")
    assert line.startswith("--expires-in") and "(1495)" in line
    assert "(1498)" in ctl.fails(REFUSED, "handover", "revoke", csr["id"], csr["id"])[0]


# Webhooks


def test_webhooks_are_made_changed_tried_and_deleted(new_csrd, shell):
    csrd = new_csrd("--outbound-allow-private").start()
    shell.ok("login", "--url", csrd.url, stdin=csrd.tenant().token.encode())
    url = "https://127.0.0.1:1/hook"
    (made,) = shell.json("webhooks", "create", "--url", url, "--event", "custom_csr.active", "--event", "custom_csr.failed")
    assert made["secret"].startswith("whsec_") and made["events"] == ["custom_csr.active", "custom_csr.failed"] and made["enabled"] is True
    shown = shell.ok("webhooks", "get", made["id"])
    assert url in shown and "custom_csr.active,custom_csr.failed" in shown and "whsec_" not in shown
    (changed,) = shell.json("webhooks", "edit", made["id"], "--event", "*", "--description", "ours", "--disable")
    assert (changed["events"], changed["description"], changed["enabled"], changed["url"]) == (["*"], "ours", False, url)
    (changed,) = shell.json("webhooks", "edit", made["id"], "--description", "", "--enable")
    assert (changed["events"], changed["description"], changed["enabled"]) == (["*"], None, True)
    (delivery,) = shell.json("webhooks", "ping", made["id"])
    assert delivery["event"] == "ping"
    header, row = shell.ok("webhooks", "deliveries", made["id"]).splitlines()
    assert header.split() == ["ID", "EVENT", "STATUS", "ATTEMPTS", "RESPONSE_STATUS", "NEXT_ATTEMPT_AT"] and row.split()[0] == delivery["id"]
    (line,) = shell.fails(WRONG_USE, "webhooks", "edit", made["id"])
    assert "--enable" in line
    header, row = shell.ok("webhooks").splitlines()
    assert header.split() == ["ID", "ENABLED", "URL", "EVENTS", "DISABLED_REASON"] and row.split() == [made["id"], "true", url, "*", "-"]
    assert shell.ok("webhooks", "delete", made["id"]) == f"deleted {made['id']}\n" and shell.json("webhooks") == []


def test_an_error_of_a_webhook_names_its_option(ctl):
    lines = ctl.fails(REFUSED, "webhooks", "create", "--url", "http://a.example", "--event", "*", "--event", "custom_csr.born")
    assert lines[0].startswith("--url: ") and lines[1].startswith("--event custom_csr.born: ")
    lines = ctl.fails(REFUSED, "webhooks", "create")
    assert lines[0].startswith("--url: ") and lines[1].startswith("--event: ")
    assert "(1493)" in ctl.fails(REFUSED, "webhooks", "get", "0190aaaa-aaaa-7aaa-8aaa-aaaaaaaaaaaa")[0]


# Renewal policy


def test_a_renewal_policy_is_set_shown_and_deleted(ctl):
    assert "(1512)" in ctl.fails(REFUSED, "renewal")[0]
    (made,) = ctl.json("renewal", "set", "--key", "new", "--at", "0.25")
    assert (made["key"], made["at"]) == ("new", 0.25)
    assert ctl.ok("renewal").splitlines()[:2] == ["key         new", "at          0.25"]
    assert ctl.fails(REFUSED, "renewal", "set", "--key", "both", "--at", "1")[0].startswith("--key: ")
    assert ctl.ok("renewal", "delete") == "deleted the renewal policy\n"


# Errors


def test_the_errors_of_the_api_are_shown_one_a_line_with_the_option_that_caused_each(ctl, unharmed):
    lines = ctl.fails(REFUSED, "create", "--san", CN, "--san", "10.0.0.1", "--country", "UK", "--key-type", "rsa1024", "--description", "\a")
    errors = [line for line in lines if not line.startswith("hint: ")]
    assert [re.fullmatch(r"(.*?): .*\((\d+)\)", line).groups() for line in errors] == [
        ("--state", "1406"), ("--locality", "1407"), ("--organization", "1408"), ("--cn", "1409"), ("--san 10.0.0.1", "1412"),
        ("--key-type", "1417"), ("--country", "1460"), ("--description", "1462"),
    ]  # fmt: skip
    assert any(line.startswith("hint: --san 10.0.0.1: ") for line in lines)
    line, hint = ctl.fails(REFUSED, "create", "--cn", CN, *SUBJECT, "--idempotency-key", "k" * 256)
    assert line.startswith("--idempotency-key: ") and hint.startswith("hint: --idempotency-key: ")


def test_an_error_of_an_upload_names_the_file_or_the_option(ctl):
    file = ctl.directory / "junk.pem"
    file.write_text("junk")
    assert ctl.fails(REFUSED, "upload", file)[0].startswith(f"{file}: ")
    file.write_text(CA.pem)
    assert ctl.fails(REFUSED, "upload", file, "--custom-csr-id", "junk")[0].startswith("--custom-csr-id: ")


def test_what_the_service_refuses_is_status_1(service, shell):
    tenant = service.tenant(quota=1)
    shell.variables |= {"CSRD_URL": service.url, "CSRD_TOKEN": tenant.token}
    assert "(1418)" in shell.fails(REFUSED, "get", "junk")[0]
    assert "(1481)" in shell.fails(REFUSED, "certificates", "get", "0" * 32)[0]
    shell.ok("create", "--cn", CN, *SUBJECT)
    line = shell.fails(REFUSED, "create", "--cn", CN, *SUBJECT)[0]
    assert tenant.id in line and "(1465)" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a command is missing"),
        (["lits"], "did you mean list?"),
        (["create", "--no-such-option"], "--no-such-option"),
        (["create", "--wait=soon"], "--wait"),
        (["create", "--idempotency-key", "a\nb"], "--idempotency-key"),
        (["get"], "ID"),
        (["get", ".."], "no ID"),
        (["get", "quota"], "no ID"),
        (["delete"], "ID"),
        (["list", "--limit", "many"], "--limit"),
        (["list", "--zone", "a", "--account", "b"], "--account"),
        (["list", "--zone", "a/b"], "a/b"),
        (["list"], "csrctl login"),
        (["upload", "/no/such/file"], "csrctl login"),
        (["login"], "--url"),
        (["login", "--url", "platform.example"], "platform.example"),
        (["login", "--url", "http://127.0.0.1"], "token"),
        (["login", "--url", "http://127.0.0.1", "--token-file", "/no/such/file"], "/no/such/file"),
        (["completions", "tcsh"], "tcsh"),
        (["webhooks", "edit", "w"], "csrctl login"),
        (["man", "/dev/null/man"], "/dev/null/man"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_status_2_and_one_line(shell, arguments, words):
    (line,) = shell.fails(WRONG_USE, *arguments)
    assert words in line


def test_a_file_that_is_not_there_is_wrong_use(ctl):
    (line,) = ctl.fails(WRONG_USE, "upload", "/no/such/file")
    assert "/no/such/file" in line


def test_a_service_that_is_not_there_is_status_3_and_a_create_says_how_it_is_repeated(shell, zone):
    shell.variables |= {"CSRD_URL": NOBODY, "CSRD_TOKEN": zone.token}
    (line,) = shell.fails(NOT_REACHED, "list")
    assert "cannot be reached" in line and "refused" in line and zone.token not in line
    line, advice = shell.fails(NOT_REACHED, "create", "--cn", CN, *SUBJECT)
    shell.variables["CSRD_URL"] = zone.service.url
    key = re.search(r"--idempotency-key \S+", advice).group().rstrip(":").split()
    made = [shell.json("create", "--cn", CN, *SUBJECT, *key)[0]["id"] for _ in range(2)]
    assert made[0] == made[1] and zone.total() == 1


def test_a_token_that_is_not_accepted_or_not_allowed_is_status_4(shell, service, zone):
    shell.variables |= {"CSRD_URL": service.url, "CSRD_TOKEN": zone.token, "CSRD_ZONE": zone.id}
    for token, code in [("a.b.c", "1001"), (zone.token[:-8] + "AAAAAAAA", "1003"), (service.tenant().token, "1404")]:
        shell.variables["CSRD_TOKEN"] = token
        line = shell.fails(NOT_ALLOWED, "list")[0]
        assert re.search(r"\(100\d\)" if code != "1404" else r"\(1404\)", line) and token not in line
    shell.variables["CSRD_TOKEN"] = service.token("--zone", zone.id, "--scope", "custom_csrs:read")
    assert shell.json("list") == []
    assert "(1404)" in shell.fails(NOT_ALLOWED, "create", "--cn", CN, *SUBJECT)[0]


# Repeating


class Asked(list):
    """The requests, and when each came."""

    def __init__(self):
        super().__init__()
        self.times: list[float] = []


class Scripted(BaseHTTPRequestHandler):
    """Answers as the script of its server says, one step a request; keeps what was asked for."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.times.append(time.monotonic())
        self.server.asked.append((self.command, self.path, self.headers.get("Idempotency-Key"), body))
        step = self.server.script.pop(0) if self.server.script else {"status": 500}
        self.close_connection = True
        if step == "nothing":
            return
        status, result = step["status"], step.get("result")
        errors = [] if status < 400 else [{"code": step.get("code", 1471), "message": "Wrong."}]
        text = step.get("text") or json.dumps({"success": status < 400, "errors": errors, "messages": [], "result": result})
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), "Connection": "close", **step.get("headers", {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        """Says nothing."""


@contextmanager
def scripted(shell: Ctl, *script):
    """A service that answers as told, and whose shell it is that asks it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.script, server.asked = list(script), Asked()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shell.variables |= {"CSRD_URL": f"http://127.0.0.1:{server.server_port}", "CSRD_TOKEN": "a.b.c", "CSRD_ZONE": "z"}
    try:
        yield server.asked
    finally:
        server.shutdown()
        server.server_close()


MADE = {"status": 201, "result": {"id": "x", "status": "pending"}}
AWAY = {"status": 503, "headers": {"Retry-After": "0"}}


@pytest.mark.parametrize("step", [AWAY, {"status": 429, "code": 1470, "headers": {"Retry-After": "0"}}, {"status": 500}, "nothing"], ids=str)
def test_a_create_is_repeated_with_the_same_key_and_body(shell, step):
    with scripted(shell, step, step, MADE) as asked:
        assert shell.json("create", "--cn", CN)[0]["id"] == "x"
    assert len(asked) == 3 and len(set(asked)) == 1 and asked[0][:2] == ("POST", "/api/v4/zones/z/custom_csrs") and asked[0][2]


def test_an_upload_is_repeated_with_the_same_key(shell):
    certificate = shell.directory / "c.pem"
    certificate.write_text(CA.pem)
    with scripted(shell, AWAY, MADE) as asked:
        shell.ok("upload", certificate)
    assert len(asked) == 2 and asked[0] == asked[1] and asked[0][2]


def test_what_has_no_key_is_repeated_only_where_nothing_was_done(shell):
    webhook = {"status": 201, "result": {"id": "w"}}
    with scripted(shell, AWAY, webhook) as asked:
        shell.ok("webhooks", "create", "--url", "https://a.example", "--event", "*")
    assert len(asked) == 2
    for step in ("nothing", {"status": 500}, {"status": 503, "headers": {"x-should-retry": "false"}}):
        with scripted(shell, step, webhook) as asked:
            shell.fails(NOT_REACHED, "webhooks", "ping", "w")
        assert len(asked) == 1


def test_a_pause_that_the_service_asks_for_is_kept_to_unless_it_is_too_long(shell):
    with scripted(shell, {"status": 503, "headers": {"Retry-After": "2"}}, {"status": 200, "result": []}) as asked:
        shell.ok("list")
    assert len(asked) == 2 and asked.times[1] - asked.times[0] >= 2
    with scripted(shell, {"status": 429, "code": 1470, "headers": {"Retry-After": "86400"}}) as asked:
        shell.fails(REFUSED, "list")
    assert len(asked) == 1


def test_it_is_given_up_after_four_times(shell):
    with scripted(shell, *[AWAY] * 9) as asked:
        (line,) = shell.fails(NOT_REACHED, "list")
    assert "(1471)" in line and len(asked) == 4


def test_a_delete_whose_answer_was_lost_has_deleted(shell):
    gone = {"status": 404, "code": 1419}
    with scripted(shell, "nothing", gone):
        assert shell.ok("delete", "x") == "deleted x\n"
    with scripted(shell, gone):
        shell.fails(REFUSED, "delete", "x")


def test_what_is_no_csrd_is_not_reached_and_gets_no_token_elsewhere(shell):
    with scripted(shell) as elsewhere:
        place = shell.variables["CSRD_URL"]
        with scripted(shell, {"status": 307, "headers": {"Location": place + "/api/v4/zones/z/custom_csrs"}}):
            assert "it redirects" in shell.fails(NOT_REACHED, "list")[0]
    assert elsewhere == []
    for status, times in [(200, 1), (404, 1), (502, 4)]:
        with scripted(shell, *[{"status": status, "text": "<html>"}] * 4) as asked:
            assert "no csrd" in shell.fails(NOT_REACHED, "list")[0]
        assert len(asked) == times


# What is printed


def test_a_reader_that_left_is_no_error_and_a_full_disk_is(ctl):
    reading, writing = os.pipe()
    os.close(reading)
    done = ctl.run("quota", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (DONE, "")
    with open("/dev/full", "wb") as full:
        done = ctl.run("quota", stdout=full)
    assert done.returncode == REFUSED and "standard output" in done.stderr


def test_help_lists_the_commands_and_the_exit_statuses(shell):
    printed = shell.ok("--help")
    for command in COMMANDS:
        shown = printed if len(command) == 1 else shell.ok(command[0], "--help")
        assert re.search(rf"^  {command[-1]} ", shown, re.MULTILINE) and f"Usage: csrctl {' '.join(command)} " in shell.ok(*command, "--help")
    assert "5 the custom CSR failed" in printed and shell.ok("--version").startswith("csrctl ")


@pytest.mark.parametrize("name", ["bash", "elvish", "fish", "powershell", "zsh"])
def test_each_shell_has_a_script_that_completes_commands_and_options(shell, name):
    printed = shell.ok("completions", name)
    assert "certificates" in printed and "key-type" in printed


def test_each_command_has_a_manual_page(shell):
    shell.ok("man", "man1")
    pages = {page.name: page.read_text() for page in (shell.directory / "man1").iterdir()}
    assert {"csrctl.1", "csrctl-login.1", "csrctl-create.1", "csrctl-certificates-get.1", "csrctl-man.1"} <= set(pages)
    assert all(text.startswith((".ie", ".TH")) for text in pages.values())
    # Dashes of options are escaped.
    assert "key\\-type" in pages["csrctl-create.1"]
