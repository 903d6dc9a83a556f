"""The audit table: who did what, when and from where; nothing without its entry, and no entry is ever changed."""

import datetime
import hashlib
import json
import os
import pwd
import re
import sqlite3
import subprocess
import uuid

import pytest
from ca import SECOND, Authority, Certificates, active, new_csr, now
from databases import OnSqlite, audit_table, blocked, either, new_service  # noqa: F401
from harness import Csrd, Tenant, binary, codes, environment, refused, subject, wait_until

ROOT = Authority()
MEMBERS = {"at", "who", "via", "from", "action", "resource", "request_id"}
# What a replace names besides.
REPLACED = {"old_custom_csr_id", "custom_csr_id"}
OS_USER = f"os:{pwd.getpwuid(os.getuid()).pw_name}"
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


def entries(csrd: Csrd, *options: str) -> list[dict]:
    """What `csrd audit` prints, checked for its form."""
    found = [json.loads(line) for line in csrd.ok("audit", *options).split("\n")[:-1]]
    for entry in found:
        assert set(entry) - MEMBERS - REPLACED in ({"zone"}, {"account"}), entry
        assert set(entry) & REPLACED == (REPLACED if entry["action"] == "replace" else set()), entry
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["at"])
    assert [entry["at"] for entry in found] == sorted(entry["at"] for entry in found)
    return found


class Recorder:
    """A tenant whose requests carry IDs, and the entries on it since."""

    def __init__(self, csrd: Csrd, kind: str = "zone"):
        granted = csrd.tenant(kind)
        token = csrd.token(f"--{kind}", granted.id, "--subject", "Ann <ann@acme-widgets.com>")
        self.csrd, self.tenant, self.kind = csrd, Tenant(csrd, kind, granted.id, token), kind
        self.certificates = Certificates(self.tenant)
        self.seen = len(self.mine())

    def mine(self) -> list[dict]:
        return [entry for entry in entries(self.csrd) if entry.get(self.kind) == self.tenant.id]

    def recorded(self, action: str, resource: str, answer, **more: str) -> None:
        """The one new entry is this, and it is on the request of this answer."""
        (entry,) = self.mine()[self.seen :]
        self.seen += 1
        age = now() - datetime.datetime.fromisoformat(entry.pop("at"))
        assert -SECOND < age < 60 * SECOND
        assert entry == {
            "who": "Ann <ann@acme-widgets.com>", "via": "api", "from": "127.0.0.1", "action": action, "resource": resource, self.kind: self.tenant.id,
            "request_id": answer.headers["X-Request-Id"], **more,
        }  # fmt: skip

    def nothing_recorded(self) -> None:
        assert self.mine()[self.seen :] == []


def chain(csr: dict, **options) -> str:
    return ROOT.issue(csr["csr"], **options) + ROOT.pem


def test_every_request_that_changes_something_is_recorded_with_who_and_from_where(either):  # noqa: F811
    recorder = Recorder(either)
    zone, certificates = recorder.tenant, recorder.certificates
    headers = {"X-Request-Id": f"my-own.{uuid.uuid4().hex}"}
    answer = zone.request("POST", json=subject(), headers=headers)
    assert answer.headers["X-Request-Id"] == headers["X-Request-Id"]
    csr = zone.wait_active(answer.result["id"])
    recorder.recorded("create", f"custom_csr/{csr['id']}", answer)
    recorder.recorded("edit", f"custom_csr/{csr['id']}", zone.request("PATCH", f"/{csr['id']}", json={"name": "new"}))
    answer = certificates.post(custom_csr_id=csr["id"], certificate=chain(csr))
    made = f"custom_certificate/{answer.result['id']}"
    recorder.recorded("upload", made, answer)
    recorder.recorded("edit", made, certificates.patch(answer.result["id"], bundle_method="force"))
    renewed = certificates.patch(answer.result["id"], certificate=chain(csr))
    recorder.recorded("replace", made, renewed, old_custom_csr_id=csr["id"], custom_csr_id=csr["id"])
    rekeyed = zone.request("POST", f"/{csr['id']}/rekey", headers={"Prefer": "wait=30"})
    recorder.recorded("rekey", f"custom_csr/{rekeyed.result['id']}", rekeyed)
    moved = certificates.patch(answer.result["id"], custom_csr_id=rekeyed.result["id"], certificate=chain(rekeyed.result))
    recorder.recorded("replace", made, moved, old_custom_csr_id=csr["id"], custom_csr_id=rekeyed.result["id"])
    recorder.recorded("delete", made, certificates.request("DELETE", f"/{answer.result['id']}"))
    recorder.recorded("delete", f"custom_csr/{csr['id']}", zone.request("DELETE", f"/{csr['id']}"))


def test_what_an_account_does_is_recorded_with_the_account(either):  # noqa: F811
    recorder = Recorder(either, "account")
    answer = recorder.tenant.request("POST", json=subject())
    recorder.recorded("create", f"custom_csr/{answer.result['id']}", answer)
    recorder.recorded("delete", f"custom_csr/{answer.result['id']}", recorder.tenant.request("DELETE", f"/{answer.result['id']}"))


def test_expired_certificates_that_go_with_their_custom_csr_are_recorded_too(either):  # noqa: F811
    recorder = Recorder(either)
    csr = active(recorder.tenant)
    made = [recorder.certificates.upload(csr["id"], chain(csr, ends=SECOND))["id"] for _ in range(2)]
    wait_until(lambda: {row["status"] for row in recorder.certificates.all()} == {"expired"}, "they expire")
    recorder.seen = len(recorder.mine())
    answer = recorder.tenant.request("DELETE", f"/{csr['id']}")
    assert answer.status == 200
    found = recorder.mine()[recorder.seen :]
    assert {entry["action"] for entry in found} == {"delete"} and len(found) == 3
    assert {entry["resource"] for entry in found} == {f"custom_csr/{csr['id']}", *(f"custom_certificate/{one}" for one in made)}
    assert {entry["request_id"] for entry in found} == {answer.headers["X-Request-Id"]}


def test_what_changes_nothing_is_not_recorded(either):  # noqa: F811
    recorder = Recorder(either)
    zone, certificates = recorder.tenant, recorder.certificates
    headers = {"Idempotency-Key": "one"}
    first = zone.request("POST", json=subject(), headers=headers)
    recorder.recorded("create", f"custom_csr/{first.result['id']}", first)
    csr = zone.wait_active(first.result["id"])
    for answer, expected in (
        (zone.request("POST", json=subject(), headers=headers), []),
        (zone.request("GET"), []), (zone.request("GET", "/quota"), []), (certificates.request("GET"), []),
        (certificates.post(custom_csr_id=csr["id"], certificate=chain(csr), params={"dry_run": "true"}), []),
        (zone.request("POST", json=subject(country="UK")), [1460]), (zone.request("PATCH", f"/{csr['id']}", json={"name": 5}), [1400]),
        (zone.request("DELETE", f"/{UNKNOWN}"), [1419]), (zone.request("POST", f"/{UNKNOWN}/rekey"), [1419]),
        (certificates.post(custom_csr_id=csr["id"], certificate=chain({"csr": new_csr()})), [1429]),
        (certificates.request("DELETE", "/" + "0" * 32), [1481]), (zone.request("DELETE", f"/{csr['id']}", token="x.y.z"), [1001]),
    ):  # fmt: skip
        assert codes(answer.envelope) == expected, answer
    recorder.nothing_recorded()
    made = certificates.post(custom_csr_id=csr["id"], certificate=chain(csr))
    recorder.recorded("upload", f"custom_certificate/{made.result['id']}", made)
    assert codes(zone.request("DELETE", f"/{csr['id']}").envelope) == [1420]
    recorder.nothing_recorded()


def test_every_command_that_changes_something_is_recorded_with_the_systems_user(either, tmp_path):  # noqa: F811
    zone, account = f"zone-{uuid.uuid4().hex}", f"account-{uuid.uuid4().hex}"
    seen = len(entries(either))

    def recorded(*expected: tuple[str, str, str, str]) -> None:
        nonlocal seen
        found = entries(either)[seen:]
        seen += len(found)
        for entry in found:
            assert (entry["who"], entry["via"], entry["from"], entry["request_id"]) == (OS_USER, "cli", "local", None)
        shown = [(entry["action"], entry["resource"], *next((kind, entry[kind]) for kind in ("zone", "account") if kind in entry)) for entry in found]
        assert sorted(shown) == sorted(expected)

    either.ok("zone", "grant", zone, "--quota", "9")
    recorded(("grant", f"zone/{zone}", "zone", zone))
    either.ok("zone", "grant", zone, "--quota", "8", "--account", account)
    recorded(("grant", f"zone/{zone}", "zone", zone))
    either.ok("account", "grant", account)
    recorded(("grant", f"account/{account}", "account", account))
    token = either.token("--zone", zone, "--account", account, "--subject", "somebody")
    recorded(("token_issue", f"zone/{zone}", "zone", zone), ("token_issue", f"account/{account}", "account", account))
    either.token("--zone", "*")
    recorded(("token_issue", "zone/*", "zone", "*"))
    tenant = Tenant(either, "zone", zone, token)
    csr = active(tenant)
    made = Certificates(tenant).upload(csr["id"], chain(csr))["id"]
    seen = len(entries(either))
    # A name in the environment is anybody's.
    assert either.run("certificate", "export", made, "--out", str(tmp_path / "out"), env={"USER": "mallory", "LOGNAME": "mallory"}).returncode == 0
    recorded(("export", f"custom_certificate/{made}", "zone", zone))
    either.ok("zone", "revoke", zone)
    recorded(("revoke", f"zone/{zone}", "zone", zone))
    either.ok("account", "revoke", account)
    recorded(("revoke", f"account/{account}", "account", account))
    # What is refused, or only reads, is not.
    for arguments in (["zone", "revoke", "never-granted-audit"], ["zone", "grant", "no id"], ["certificate", "export", "0" * 32, "--out", str(tmp_path / "x")]):
        assert either.run(*arguments).returncode != 0
    for arguments in (["zone", "list"], ["account", "list"], ["certificate", "list"], ["audit"], ["keys", "check"], ["migrate"]):
        either.ok(*arguments)
    recorded()
    assert "somebody" not in json.dumps([entry["who"] for entry in entries(either) if entry["from"] == "local"])
    assert token not in either.ok("audit")


def test_a_token_that_names_a_systems_user_is_told_from_a_command(either):  # noqa: F811
    zone = either.tenant()
    answer = either.request("POST", zone.path, token=either.token("--zone", zone.id, "--subject", OS_USER), json=subject())
    assert answer.status == 201
    found = [(entry["action"], entry["who"], entry["via"]) for entry in entries(either) if entry.get("zone") == zone.id]
    assert ("create", OS_USER, "api") in found and ("grant", OS_USER, "cli") in found


def test_entries_are_chosen_by_time_and_zone(either):  # noqa: F811
    zone, other, account = either.tenant(), either.tenant(), either.tenant("account")
    for tenant in (zone, other, account):
        tenant.create()
    either.token("--zone", "*")
    everything = entries(either)
    assert entries(either, "--since", "24h") == entries(either, "--since", "2020-01-01T00:00:00Z") == everything
    assert entries(either, "--since", "2999-01-01T00:00:00Z") == []
    shown = entries(either, "--zone", zone.id)
    assert shown == [entry for entry in everything if entry.get("zone") in (zone.id, "*")]
    assert [entry["action"] for entry in shown if entry["zone"] == zone.id] == ["grant", "token_issue", "create"]
    assert entries(either, "--zone", "nobody") == [entry for entry in everything if entry.get("zone") == "*"]
    middle = everything[len(everything) // 2]["at"]
    assert entries(either, "--since", middle) == [entry for entry in everything if entry["at"] >= middle]
    assert entries(either, "--since", middle, "--zone", zone.id) == [entry for entry in shown if entry["at"] >= middle]
    # The same moment, written in another zone of time.
    elsewhere = datetime.datetime.fromisoformat(middle).astimezone(datetime.timezone(datetime.timedelta(hours=5))).isoformat()
    assert entries(either, "--since", elsewhere) == entries(either, "--since", middle)
    for since in ("yesterday", "", "-1h", "2026-13-01T00:00:00Z"):
        refused(either.run("audit", f"--since={since}"), 2, "--since")
    refused(either.run("audit", "--zone", "no id"), 2, "--zone")


def test_entries_are_chosen_by_account_who_action_end_and_number(either):  # noqa: F811
    zone, account = either.tenant(), either.tenant("account")
    for tenant, who in ((zone, "Ann"), (account, "Ann"), (account, "Bob")):
        token = either.token(f"--{tenant.kind}", tenant.id, "--subject", who)
        assert either.request("POST", tenant.path, token=token, json=subject()).status == 201
    everything = entries(either)
    chosen = lambda *options, **members: (  # noqa: E731
        entries(either, *options) == [entry for entry in everything if all(entry.get(name) in values for name, values in members.items())]
    )
    assert chosen("--account", account.id, account=(account.id, "*"))
    both = entries(either, "--account", account.id, "--zone", zone.id)
    assert both == [entry for entry in everything if entry.get("account") in (account.id, "*") or entry.get("zone") in (zone.id, "*")]
    assert chosen("--who", "Ann", who=("Ann",)) and chosen("--who", OS_USER, who=(OS_USER,)) and entries(either, "--who", "An") == []
    assert chosen("--action", "create", action=("create",)) and chosen("--action", "token_issue", action=("token_issue",))
    assert chosen("--who", "Ann", "--action", "create", "--account", account.id, who=("Ann",), action=("create",), account=(account.id,))
    middle = everything[len(everything) // 2]["at"]
    assert entries(either, "--until", middle) + entries(either, "--since", middle) == everything
    assert [len(entries(either, "--limit", str(number))) for number in (0, 1, 3)] == [0, 1, 3]
    assert entries(either, "--who", "Ann", "--limit", "1") == entries(either, "--who", "Ann")[:1]
    refused(either.run("audit", "--action", "destroy"), 2, "token_issue")
    for option, value in (("--until", "yesterday"), ("--account", "no id"), ("--limit", "-1"), ("--limit", "many")):
        refused(either.run("audit", option, value), 2, option)


def test_an_entry_is_one_line_of_printable_characters_whatever_is_in_it(either):  # noqa: F811
    """Control characters do not get into a subject, but whoever may write to the database can write any text."""
    zone, who = either.tenant(), 'quote " \u2028 \u202e \u200f \ufeff 🔑 é'
    token = either.token("--zone", zone.id, "--subject", who)
    assert either.request("POST", zone.path, token=token, json=subject()).status == 201
    written = "a\u009b31mb\u0085c\u202ed\x1b[31m\x7f\nline\u2029\u2066"
    table = audit_table(either)
    values = f"SELECT MAX(at), '{written}', '::1', 'edit', 'x', 'zones/{zone.id}' FROM {table}"
    either.sql(f"INSERT INTO {table} (at, who, origin, action, resource, scope) {values}")
    found = entries(either, "--zone", zone.id, "--action", "edit") + entries(either, "--zone", zone.id, "--action", "create")
    assert [entry["who"] for entry in found] == [written, who]
    output = either.ok("audit", "--zone", zone.id)
    assert all(line.isprintable() for line in output.split("\n")) and output.splitlines() == output.split("\n")[:-1]
    assert "🔑 é" in output


def mode(path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_archived_entries_are_in_the_file_and_no_longer_in_the_table(new_service, tmp_path, kind):  # noqa: F811
    csrd, out = new_service(kind), tmp_path / "archive.jsonl"
    zone = csrd.tenant()
    for _ in range(3):
        zone.create()
    before = entries(csrd)
    assert "was not written" in csrd.ok("audit", "archive", "--before", before[0]["at"], "--out", str(out))
    assert list(tmp_path.iterdir()) == [] and entries(csrd) == before
    cut = before[3]["at"]
    csrd.ok("audit", "archive", "--before", cut, "--out", str(out))
    moved = [json.loads(line) for line in out.read_text().splitlines()]
    assert moved == [entry for entry in before if entry["at"] < cut] and moved and mode(out) == 0o600
    *left, archived = entries(csrd)
    assert left == before[len(moved) :]
    assert (archived["action"], archived["who"], archived["via"]) == ("archive", OS_USER, "cli")
    assert archived["resource"] == f"audit/{len(moved)}/{hashlib.sha256(out.read_bytes()).hexdigest()}"
    # What is there is never overwritten, and nothing is deleted then.
    left, content = entries(csrd), out.read_bytes()
    for taken in (out, tmp_path, tmp_path / "none" / "x"):
        refused(csrd.run("audit", "archive", "--before", "0s", "--out", str(taken)), 1, str(taken))
    assert (entries(csrd), out.read_bytes(), list(tmp_path.iterdir())) == (left, content, [out])
    # The table is closed again, for everybody.
    with pytest.raises((sqlite3.DatabaseError, AssertionError), match="append-only"):
        csrd.sql(f"DELETE FROM {audit_table(csrd)}")
    csrd.ok("audit", "archive", "--before", "0s", "--out", str(tmp_path / "rest"))
    assert [json.loads(line) for line in (tmp_path / "rest").read_text().splitlines()] == left
    assert [entry["action"] for entry in entries(csrd)] == ["archive"]
    # The service works on, and so does what it records.
    zone.wait_active(zone.create()["id"])
    assert [entry["action"] for entry in entries(csrd)] == ["archive", "create"]
    refused(csrd.run("audit", "archive", "--out", str(tmp_path / "y")), 2, "--before")
    refused(csrd.run("audit", "archive", "--before", "soon", "--out", str(tmp_path / "y")), 2, "--before")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_entry_is_lost_where_an_archive_is_killed_beside_a_service_that_writes(new_service, tmp_path, kind):  # noqa: F811
    csrd = new_service(kind)
    zone = csrd.tenant()
    counted = "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 30000)"
    table = audit_table(csrd)
    csrd.sql(f"{counted} INSERT INTO {table} (at, who, origin, action, resource, scope) SELECT n, 'n' || n, '::1', 'edit', 'x', 'zones/z' FROM counted")
    count = lambda: int(csrd.sql(f"SELECT COUNT(*) FROM {table} WHERE who LIKE 'n%'")[0][0])  # noqa: E731
    settings = {name: value for name, value in csrd.env.items() if name.startswith("CSRD_")}
    command = [binary(), "audit", "archive", "--before", "2020-01-01", "--data-dir", csrd.data_dir, "--out"]
    files, created = [tmp_path / str(number) for number in range(4)], 0
    for file in files[:3]:
        process = subprocess.Popen([*command, file], env=environment(**settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        had = count()
        while process.poll() is None and count() > had - 3000:
            zone.create()
            created += 1
        process.kill()
        process.wait(30)
    csrd.ok("audit", "archive", "--before", "2020-01-01", "--out", str(files[3]))
    assert count() == 0
    kept = {json.loads(line)["who"] for file in files if file.exists() for line in file.read_text().splitlines()}
    assert kept == {f"n{n}" for n in range(1, 30001)}
    # Each file that a deletion followed is in the table with its hash.
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}
    recorded = {entry["resource"].split("/")[2] for entry in entries(csrd, "--action", "archive")}
    assert recorded and recorded <= hashes
    assert len(entries(csrd, "--zone", zone.id, "--action", "create")) == created == zone.total()


def test_the_database_itself_refuses_to_change_or_delete_an_entry(either):  # noqa: F811
    either.tenant().create()
    table, before = audit_table(either), entries(either)
    column = [row[1] if isinstance(either, OnSqlite) else row[0] for row in either.sql(
        f"PRAGMA table_info({table})" if isinstance(either, OnSqlite)
        else f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' ORDER BY ordinal_position"
    )]  # fmt: skip
    statements = [f"DELETE FROM {table}", f"DELETE FROM {table} WHERE 1 = 0 OR true"]
    statements += [f"UPDATE {table} SET {name} = {name}" for name in column]
    if isinstance(either, OnSqlite):
        statements.append(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")
        statements.append(f"UPDATE OR REPLACE {table} SET {column[0]} = 1")
    else:
        statements += [f"TRUNCATE {table}", f"INSERT INTO {table} SELECT * FROM {table} ON CONFLICT ({column[0]}) DO UPDATE SET {column[1]} = {table}.{column[1]}"]
    for statement in statements:
        with pytest.raises((sqlite3.DatabaseError, AssertionError)) as error:
            either.sql(statement)
        # PostgreSQL has a reason of its own where the number is to change.
        assert "append-only" in str(error.value) or "identity column" in str(error.value), (statement, error.value)
        assert entries(either) == before, statement


def test_nothing_is_done_without_its_entry(either, tmp_path):  # noqa: F811
    """Each change and its entry are one transaction: where the entry is refused, there is no change."""
    zone = either.tenant()
    certificates, csr = Certificates(zone), active(zone, name="before")
    free = active(zone)
    made = certificates.upload(csr["id"], chain(csr))["id"]
    never = f"zone-{uuid.uuid4().hex}"

    def state():
        listed = [either.ok(kind, "list") for kind in ("zone", "account", "certificate")]
        return zone.all(), certificates.all(), zone.request("GET", "/quota").result, listed

    before, audited = state(), entries(either)
    with blocked(either):
        for answer in (
            zone.request("POST", json=subject()), zone.request("POST", json=subject(), headers={"Idempotency-Key": "one"}),
            zone.request("PATCH", f"/{csr['id']}", json={"name": "after"}), zone.request("POST", f"/{csr['id']}/rekey"),
            zone.request("DELETE", f"/{free['id']}"), certificates.post(custom_csr_id=csr["id"], certificate=chain(csr)),
            certificates.patch(made, certificate=chain(csr)), certificates.patch(made, bundle_method="force"),
            certificates.patch(made, custom_csr_id=free["id"], certificate=chain(free)), certificates.request("DELETE", f"/{made}"),
        ):  # fmt: skip
            assert answer.status in (500, 503), answer
        for arguments in (
            ["zone", "grant", never], ["zone", "grant", zone.id, "--quota", "5"], ["zone", "revoke", zone.id], ["account", "grant", never],
            ["token", "issue", "--zone", zone.id], ["certificate", "export", made, "--out", str(tmp_path / "out")],
        ):  # fmt: skip
            done = either.run(*arguments)
            assert done.returncode == 1 and done.stdout == "" and "panicked" not in done.stderr, done
    assert state() == before and entries(either) == audited
    # The service works on, and what was refused can be repeated.
    assert zone.request("POST", json=subject(), headers={"Idempotency-Key": "one"}).status == 201
    assert zone.request("DELETE", f"/{free['id']}").status == 200
