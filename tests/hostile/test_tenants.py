"""Tenants never meet: whatever a token, a method, a header or a reference tries, another tenant's rows are neither seen nor changed."""

import hashlib
import json
import sqlite3
from contextlib import closing

import pytest
from attack import check_unharmed
from ca import Authority, Certificates, active
from harness import Answer, Csrd, Tenant, bearer, check_envelope, codes, send, send_raw, subject, wait_until

ROOT = Authority("Root of the tenants")
NO_CSR, NO_CERTIFICATE = "01890a5d-ac96-774b-bcce-b302099a8057", "0" * 32
PREFIXES = ["/api/v4", "/client/v4"]
# What a service does by itself, whoever asks.
OF_THE_SERVICE = {"Jobs", "Workers", "pool_keys", "key_holders", "_sqlx_migrations"}


class Victim:
    """A zone and its account with all that they can have, and who attacks them."""

    def __init__(self, csrd: Csrd):
        self.csrd = csrd
        self.zone, self.account, self.attacker = csrd.tenant(), csrd.tenant("account"), csrd.tenant()
        csrd.ok("zone", "grant", self.zone.id, "--account", self.account.id, "--quota", "1000")
        self.certificates = Certificates(self.zone)
        self.csr, self.of_account = active(self.zone, name="victim"), active(self.account, name="victim")
        self.certificate = self.certificates.upload(self.csr["id"], ROOT.issue(self.csr["csr"]) + ROOT.pem)["id"]
        # The audit table shows who issues a token: all of them before it is looked at.
        self.reader = csrd.token("--zone", self.zone.id, "--account", self.account.id, "--scope", "custom_csrs:read custom_certificates:read")
        self.own = active(self.attacker, name="attacker")
        self.own_certificate = Certificates(self.attacker).upload(self.own["id"], ROOT.issue(self.own["csr"]) + ROOT.pem)["id"]

    def operations(self, prefix: str) -> list[tuple[str, str]]:
        """Every operation on what the victim has, and on what nobody has."""
        made = []
        for scope, csrs in ((f"zones/{self.zone.id}", [self.csr["id"], NO_CSR]), (f"accounts/{self.account.id}", [self.of_account["id"], NO_CSR])):
            path = f"{prefix}/{scope}/custom_csrs"
            made += [("POST", path), ("GET", path), ("GET", f"{path}/quota")]
            for csr in csrs:
                made += [("GET", f"{path}/{csr}"), ("PATCH", f"{path}/{csr}"), ("DELETE", f"{path}/{csr}"), ("POST", f"{path}/{csr}/rekey")]
        path = f"{prefix}/zones/{self.zone.id}/custom_certificates"
        made += [("POST", path), ("GET", path)]
        for certificate in (self.certificate, NO_CERTIFICATE):
            made += [(method, f"{path}/{certificate}") for method in ("GET", "PATCH", "DELETE")]
        return made

    def content(self) -> str:
        """A hash of all rows but those that a service writes by itself."""
        with closing(sqlite3.connect(f"file:{self.csrd.data_dir}/csrd.db?mode=ro", uri=True, timeout=15)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")}
            assert {"custom_csrs", "custom_certificates", "scopes", "audit", "idempotency_keys"} <= tables and tables >= OF_THE_SERVICE, tables
            rows = {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in sorted(tables - OF_THE_SERVICE)}
        assert all(rows[name] for name in ("custom_csrs", "custom_certificates", "scopes", "audit"))
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def secrets(self) -> list[str]:
        """What no answer to somebody else may hold."""
        return [self.csr["csr"].splitlines()[3], self.of_account["csr"].splitlines()[3], "victim", *self.csr["sans"]]


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    csrd = Csrd(tmp_path_factory.mktemp("tenants"), "--key-pool-size", "0", "--purge-after", "24h", "--auth-failure-limit", "0").start()
    try:
        yield Victim(csrd)
        check_unharmed(csrd)
    finally:
        csrd.close()


@pytest.fixture
def unchanged(victim):
    """The victim's rows are as they were, and so is everything else."""
    before = victim.content()
    yield
    assert victim.content() == before


def tokens(victim: Victim) -> dict[str, tuple[str | None, int]]:
    """Tokens that reach nothing of the victim's, with the code of their refusal."""
    issue, attacker = victim.csrd.token, victim.attacker
    return {
        "none": (None, 1402),
        "no token": ("x", 1001),
        "forged": (victim.zone.token[:-8] + "AAAAAAAA", 1003),
        "another zone's": (attacker.token, 1404),
        "an account of the zone's ID": (issue("--account", victim.zone.id), 1404),
        "a zone of the account's ID": (issue("--zone", victim.account.id), 1404),
        "another zone's, every permission": (issue("--zone", attacker.id, "--scope", "custom_csrs:write custom_certificates:write"), 1404),
        "a longer ID": (issue("--zone", victim.zone.id + "0", "--account", victim.account.id + "0"), 1404),
        "a shorter ID": (issue("--zone", victim.zone.id[:-1], "--account", victim.account.id[:-1]), 1404),
        "an ID in another case": (issue("--zone", victim.zone.id.upper(), "--account", victim.account.id.upper()), 1404),
        "no permission": (issue("--zone", "*", "--account", "*", "--scope", "openid email"), 1404),
    }


TOKENS = [
    "none", "no token", "forged", "another zone's", "an account of the zone's ID", "a zone of the account's ID", "another zone's, every permission", "a longer ID", "a shorter ID",
    "an ID in another case", "no permission",
]  # fmt: skip


@pytest.fixture(scope="module")
def all_tokens(victim):
    made = tokens(victim)
    assert list(made) == TOKENS
    return made


def body_of(victim: Victim, method: str, path: str) -> dict | None:
    """A body that the operation would take."""
    if "custom_certificates" in path and method != "GET":
        return {"custom_csr_id": victim.csr["id"], "certificate": ROOT.issue(victim.csr["csr"]) + ROOT.pem} if method != "DELETE" else None
    return {"POST": subject(), "PATCH": {"name": "taken"}}.get(method)


def ask(victim: Victim, method: str, path: str, token: str | None) -> Answer:
    """One request on a connection of its own."""
    body = body_of(victim, method, path)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return send(victim.csrd, method, path, headers=headers | {"Content-Type": "application/json"}, body=b"" if body is None else json.dumps(body).encode())


@pytest.mark.parametrize("name", TOKENS)
def test_no_operation_lets_a_token_in_that_does_not_reach_the_tenant(victim, all_tokens, unchanged, name):
    token, code = all_tokens[name]
    asked = 0
    for prefix in PREFIXES:
        for method, path in victim.operations(prefix):
            answer = ask(victim, method, path, token)
            assert codes(answer.envelope) == [code], (method, path, answer)
            assert not any(secret in answer.content.decode() for secret in victim.secrets()), (method, path, answer)
            asked += 1
    assert asked == 2 * 30


def test_what_is_there_and_what_is_not_look_alike_to_others(victim, unchanged):
    """Neither the status, nor the headers, nor the body tells whether an ID exists."""
    token = victim.attacker.token
    for method in ("GET", "PATCH", "DELETE"):
        seen = set()
        for csr in (victim.csr["id"], victim.of_account["id"], NO_CSR):
            for path in (f"{victim.attacker.path}/{csr}", f"{victim.zone.path}/{csr}"):
                answer = victim.csrd.request(method, path, token=token, json={"name": "x"} if method == "PATCH" else None)
                names = sorted(name.lower() for name in answer.headers)
                seen.add((path.split("/")[4] == victim.zone.id, answer.status, answer.content, tuple(names)))
        assert len(seen) == 2, seen


OTHER_METHODS = ["PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT", "MOVE", "COPY", "SEARCH", "QUERY", "PURGE", "LINK", "post", "delete", "POST2", "GETX", "M-SEARCH"]


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_another_method_is_no_way_in(victim, unchanged, method):
    """With a token of the tenant's own too: a method that no operation has does nothing."""
    for token in (victim.attacker, victim.zone):
        for path in (victim.zone.path, f"{victim.zone.path}/{victim.csr['id']}", f"{victim.certificates.path}/{victim.certificate}"):
            if method == "HEAD":
                response = victim.csrd.client.request("HEAD", victim.csrd.url + path, headers=bearer(token))
                assert response.content == b"" and response.status_code == (200 if token is victim.zone else 403)
            else:
                answer = send(victim.csrd, method, path, headers=bearer(token))
                assert 400 <= answer.status < 500 and not any(secret in answer.content.decode() for secret in victim.secrets()), answer


def test_a_header_that_names_another_method_or_path_changes_nothing(victim, unchanged):
    own, theirs = f"{victim.attacker.path}/{NO_CSR}", f"{victim.zone.path}/{victim.csr['id']}"
    headers = {name: value for value in ("DELETE", "PATCH") for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method")}
    paths = {name: theirs for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Forwarded-Prefix", "X-Original-Path", "Destination")}
    identity = {"X-Forwarded-User": "root", "X-Remote-User": "root", "X-Zone-ID": victim.zone.id, "X-Auth-Email": "a@b.org", "X-Auth-Key": "0" * 37}
    identity |= {"X-Original-Host": "evil", "Cookie": f"Authorization=Bearer {victim.zone.token}", "Proxy-Authorization": f"Bearer {victim.zone.token}"}
    identity |= {"X-Authorization": f"Bearer {victim.zone.token}", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    for name, value in (headers | paths | identity).items():
        answer = send(victim.csrd, "GET", own, headers=bearer(victim.attacker) | {name: value})
        assert codes(answer.envelope) == [1419], (name, answer)
        answer = send(victim.csrd, "GET", theirs, headers=bearer(victim.attacker) | {name: value})
        assert codes(answer.envelope) == [1404], (name, answer)
        # The token's place is the header Authorization.
        assert codes(send(victim.csrd, "GET", theirs, headers={name: value}).envelope) == [1402], name
    for query in (f"access_token={victim.zone.token}", f"token={victim.zone.token}", "_method=DELETE", f"zone_id={victim.zone.id}"):
        assert codes(send(victim.csrd, "GET", f"{theirs}?{query}").envelope) == [1402], query
        assert codes(send(victim.csrd, "GET", f"{own}?{query}", headers=bearer(victim.attacker)).envelope) == [1419], query


def test_two_tokens_are_none(victim, unchanged):
    request = f"GET {victim.zone.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    for first, second in ((victim.attacker, victim.zone), (victim.zone, victim.attacker), (victim.zone, victim.zone)):
        for separator in ("\r\nAuthorization: Bearer ", ", Bearer ", " ", ",", ";"):
            head = f"{request}Authorization: Bearer {first.token}{separator}{second.token}\r\n\r\n"
            response = send_raw(victim.csrd, head.encode())
            assert response[0] == 401 and codes(check_envelope(*response))[0] in (1000, 1001), (separator, response)


def test_no_spelling_of_a_path_leads_out_of_the_own_zone(victim, unchanged):
    zone, own = victim.zone.id, victim.attacker.id
    targets = [
        f"/zones/{own}/../{zone}/custom_csrs", f"/zones/{own}/..%2f{zone}/custom_csrs", f"/zones/{own}%2f..%2f{zone}/custom_csrs", f"/zones/{own}/./../{zone}/custom_csrs",
        f"/zones/{own};{zone}/custom_csrs", f"/zones/{own}%00{zone}/custom_csrs", f"/zones/{own}%0d%0a{zone}/custom_csrs", f"/zones/{own},{zone}/custom_csrs",
        f"/zones/{own}\\..\\{zone}/custom_csrs", f"/zones/{own}/custom_csrs/../../{zone}/custom_csrs", f"/zones/{own}/zones/{zone}/custom_csrs",
        f"/zones/{own}/custom_csrs%2f..%2f..%2f{zone}%2fcustom_csrs", f"/accounts/{own}/zones/{zone}/custom_csrs", f"/zones/{own}/custom_csrs/..;/{zone}/custom_csrs",
        f"/zones/{zone}%20/custom_csrs", f"/zones/{zone}//custom_csrs", f"/zones//{zone}/custom_csrs", f"/./zones/{zone}/custom_csrs", f"/zones/{zone}/custom_csrs/",
        f"/zones/{own}%252f..%252f{zone}/custom_csrs", f"/zones/{zone.upper()}/custom_csrs", f"/zones/%c0%ae%c0%ae/{zone}/custom_csrs",
    ]  # fmt: skip
    for prefix in PREFIXES:
        for target in targets:
            for path in (target, target.replace("/custom_csrs", f"/custom_csrs/{victim.csr['id']}")):
                answer = send(victim.csrd, "GET", prefix + path, headers=bearer(victim.attacker))
                assert 400 <= answer.status < 500, (path, answer)
                assert not any(secret in answer.content.decode() for secret in victim.secrets()), (path, answer)
    # As the whole address in the request line: its host says nothing about the tenant.
    answer = send(victim.csrd, "GET", f"http://{zone}{victim.zone.path}", headers=bearer(victim.attacker))
    assert codes(answer.envelope) == [1404]


def test_a_reference_to_another_tenants_row_is_not_found(victim, unchanged):
    attacker, certificates = victim.attacker, Certificates(victim.attacker)
    theirs = [victim.csr, victim.of_account]
    for csr in theirs:
        for method, suffix in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rekey")):
            answer = attacker.request(method, f"/{csr['id']}{suffix}", json={"name": "x"} if method == "PATCH" else None)
            assert codes(answer.envelope) == [1419], (method, answer)
        chain = ROOT.issue(csr["csr"]) + ROOT.pem
        for params in ({}, {"dry_run": "true"}):
            answer = certificates.post(custom_csr_id=csr["id"], certificate=chain, params=params)
            assert codes(answer.envelope) == [1431], answer
            answer = certificates.patch(victim.own_certificate, custom_csr_id=csr["id"], certificate=chain, params=params)
            assert codes(answer.envelope) == [1431], answer
        # Its key, with the own custom CSR.
        assert codes(certificates.post(custom_csr_id=victim.own["id"], certificate=chain).envelope) == [1429]
    for method in ("GET", "PATCH", "DELETE"):
        answer = certificates.request(method, f"/{victim.certificate}", json={"bundle_method": "force"} if method == "PATCH" else None)
        assert codes(answer.envelope) == [1481], answer
    # A zone of the account does not reach the account's rows but in an upload, and the account not the zone's.
    assert codes(victim.zone.request("GET", f"/{victim.of_account['id']}").envelope) == [1419]
    assert codes(victim.account.request("GET", f"/{victim.csr['id']}").envelope) == [1419]
    assert codes(victim.csrd.request("GET", victim.zone.path, token=victim.account.token).envelope) == [1404]


def test_a_list_shows_the_own_rows_whatever_is_asked_for(victim, unchanged):
    own = {row["id"] for row in victim.attacker.all()}
    queries = [
        {"search": "victim"}, {"search": "%"}, {"search": "' OR 1=1 --"}, {"search": "') OR 1=1 --"}, {"zone_id": victim.zone.id}, {"account_id": victim.account.id},
        {"scope": f"zones/{victim.zone.id}"}, {"zones": "*"}, {"order": "name", "direction": "asc"}, {"status": "active"}, {"account_tag": victim.account.id}, {"search": ""},
        {"custom_csr_id": victim.csr["id"]}, {"host": victim.csr["sans"][0]},
    ]  # fmt: skip
    for query in queries:
        found = victim.attacker.request("GET", params=query)
        assert found.status == 200 and {row["id"] for row in found.result} <= own, (query, found)
        found = Certificates(victim.attacker).request("GET", params=query)
        assert found.status in (200, 400), found
        assert {row["id"] for row in found.result or []} <= {victim.own_certificate}, (query, found)


def test_members_that_the_service_sets_are_not_taken_from_a_body(victim):
    """Mass assignment: who writes, writes into the own scope and nothing but what the contract names."""
    before = victim.zone.total(), victim.account.total(), victim.zone.get(victim.csr["id"])
    wanted = {
        "id": victim.csr["id"], "zone_id": victim.zone.id, "account_tag": victim.account.id, "account_id": victim.account.id, "scope": f"zones/{victim.zone.id}",
        "status": "active", "csr": victim.csr["csr"], "replaces": victim.csr["id"], "created_at": "2001-01-01T00:00:00.000000Z", "custom_certificate_ids": [victim.certificate],
        "error": "x", "attempts": 50, "sealed_private_key": "AAAA", "master_key_id": "0" * 16, "job_id": "x", "used": 0, "quota": 10**6, "set_id": victim.csr["id"],
    }  # fmt: skip
    made = victim.attacker.request("POST", json=subject() | wanted).result
    assert made["id"] != victim.csr["id"] and made["status"] == "pending" and made["zone_id"] == victim.attacker.id and made["account_tag"] is None
    done = victim.attacker.wait_active(made["id"])
    assert done["csr"] != victim.csr["csr"] and not done["created_at"].startswith("2001") and done["custom_certificate_ids"] == []
    changed = victim.attacker.request("PATCH", f"/{made['id']}", json={"name": "n"} | wanted | {"country": "DE", "sans": ["evil.org"], "common_name": "evil.org"})
    assert changed.status == 200
    kept = victim.attacker.get(made["id"])
    assert kept | {"name": None, "updated_at": None} == done | {"name": None, "updated_at": None} and kept["name"] == "n"
    rekeyed = victim.attacker.request("POST", f"/{made['id']}/rekey", json=wanted)
    assert rekeyed.status == 201 and rekeyed.result["replaces"] == made["id"] and rekeyed.result["zone_id"] == victim.attacker.id
    victim.attacker.wait_active(rekeyed.result["id"])
    extra = {"id": victim.certificate, "zone_id": victim.zone.id, "status": "expired", "hosts": ["evil.org"], "expires_on": "2099-01-01T00:00:00Z"}
    own = Certificates(victim.attacker).upload(done["id"], ROOT.issue(done["csr"]) + ROOT.pem, **extra)
    assert own["id"] != victim.certificate and own["zone_id"] == victim.attacker.id and own["hosts"] == done["sans"] and own["status"] == "active"
    assert (victim.zone.total(), victim.account.total(), victim.zone.get(victim.csr["id"])) == before


def test_an_idempotency_key_is_the_own_of_a_scope_and_of_a_subject(victim):
    body, headers = subject(name="idempotent"), {"Idempotency-Key": "the-same-for-all"}
    first, second = victim.csrd.tenant(), victim.csrd.tenant()
    account = victim.csrd.tenant("account")
    both = [victim.csrd.token("--zone", first.id, second.id, "--account", account.id, "--subject", who) for who in ("anna", "bert", "anna ", "ANNA")]
    made = {}
    for number, token in enumerate(both):
        for tenant in (first, second, account):
            # The other prefix is the same scope.
            for prefix in PREFIXES:
                path = tenant.path.replace("/api/v4", prefix)
                answer = victim.csrd.request("POST", path, token=token, json=body, headers=headers)
                assert answer.status == 201, answer
                assert made.setdefault((number, tenant.id), answer.result["id"]) == answer.result["id"]
                # Another body under the same key shows nothing of the first.
                refused = victim.csrd.request("POST", path, token=token, json=subject(name="other"), headers=headers)
                assert codes(refused.envelope) == [1466] and answer.result["id"] not in refused.content.decode()
    assert len(set(made.values())) == len(made) == 12
    for tenant in (first, second, account):
        assert tenant.total() == 4
        # Not while another test looks at the database.
        wait_until(lambda tenant=tenant: tenant.total(status="pending") == 0, "all are made")


def test_a_token_for_reading_changes_nothing(victim, unchanged):
    refused = 0
    for prefix in PREFIXES:
        for method, path in victim.operations(prefix):
            answer = ask(victim, method, path, victim.reader)
            if method == "GET":
                assert answer.status == 200 or codes(answer.envelope) in ([1419], [1481]), (method, path, answer)
            else:
                assert codes(answer.envelope) == [1404], (method, path, answer)
                refused += 1
    assert refused == 2 * 19


def test_a_revoked_zone_is_closed_for_what_is_new_at_once(victim):
    zone: Tenant = victim.csrd.tenant()
    csr = active(zone)
    assert zone.request("GET").status == 200
    victim.csrd.ok("zone", "revoke", zone.id)
    for prefix in PREFIXES:
        path = zone.path.replace("/api/v4", prefix)
        assert codes(victim.csrd.request("POST", path, token=zone.token, json=subject()).envelope) == [1404]
        assert codes(victim.csrd.request("POST", f"{path}/{csr['id']}/rekey", token=zone.token).envelope) == [1404]
    assert zone.total() == 1
