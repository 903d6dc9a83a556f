"""The commands that grant custom CSRs and issue tokens, beside a running server and without one."""

import json
import re
import subprocess
import time

import jwt
import pytest
from harness import SECRET, codes, refused, run, subject

# Zones and accounts


@pytest.mark.parametrize("kind", ["zone", "account"])
def test_what_is_granted_beside_a_running_server_counts_at_once(service, kind):
    tenant = service.tenant(kind, quota=None)

    def listed():
        found = [line for line in service.ok(kind, "list").splitlines() if line.split("\t")[0] == tenant.id]
        return found[0] if found else None

    assert codes(tenant.request("POST", json=subject()).envelope) == [1403]
    assert "quota=none" in listed() and "used=0" in listed()

    service.ok(kind, "grant", tenant.id, "--quota", "2")
    made = [tenant.create()["id"] for _ in range(2)]
    assert codes(tenant.request("POST", json=subject()).envelope) == [1465]
    assert "quota=2" in listed() and "used=2" in listed()

    # A quota below use stops new ones only.
    service.ok(kind, "grant", tenant.id, "--quota", "1")
    assert tenant.request("DELETE", f"/{made[0]}").status == 200
    assert codes(tenant.request("POST", json=subject()).envelope) == [1465]
    service.ok(kind, "grant", tenant.id, "--quota", "0")
    assert codes(tenant.request("POST", json=subject()).envelope) == [1465]
    service.ok(kind, "grant", tenant.id, "--quota", "3")
    made[0] = tenant.create()["id"]

    # After a revocation reads and DELETE go on.
    service.ok(kind, "revoke", tenant.id)
    assert codes(tenant.request("POST", json=subject()).envelope) == [1404]
    assert [row["id"] for row in tenant.request("GET").result] == [made[0], made[1]]
    assert tenant.wait_active(made[1])["id"] == made[1]
    assert tenant.request("DELETE", f"/{made[1]}").status == 200

    # Granted again, what is left counts.
    service.ok(kind, "grant", tenant.id, "--quota", "1")
    assert codes(tenant.request("POST", json=subject()).envelope) == [1465]
    # And without a quota there is none any more.
    service.ok(kind, "grant", tenant.id)
    assert codes(tenant.request("POST", json=subject()).envelope) == [1403]


def test_a_zone_may_belong_to_an_account(service):
    zone = service.tenant("zone")
    first = zone.create()
    assert (first["zone_id"], first["account_tag"]) == (zone.id, None)
    service.ok("zone", "grant", zone.id, "--account", "acme", "--quota", "5")
    assert zone.create()["account_tag"] == "acme"
    assert "account=acme" in next(line for line in service.ok("zone", "list").splitlines() if line.startswith(zone.id))
    assert zone.get(first["id"])["account_tag"] is None

    # The account's token does not reach the zone, nor the zone's the account.
    for token, path in (
        (service.token("--account", "acme"), zone.path),
        (service.token("--account", "*"), zone.path),
        (zone.token, "/api/v4/accounts/acme/custom_csrs"),
        (service.token("--zone", "*"), "/api/v4/accounts/acme/custom_csrs"),
    ):
        assert codes(service.request("GET", path, token=token).envelope) == [1404]


def test_a_zone_and_an_account_of_the_same_id_have_nothing_in_common(service):
    account = service.tenant("account", quota=1)
    service.ok("zone", "grant", account.id, "--quota", "1")
    token = service.token("--zone", account.id, "--account", account.id)
    made = {}
    for kind in ("zones", "accounts"):
        answer = service.request("POST", f"/api/v4/{kind}/{account.id}/custom_csrs", token=token, json=subject())
        assert answer.status == 201
        made[kind] = answer.result["id"]
    for kind, other in (("zones", "accounts"), ("accounts", "zones")):
        answer = service.request("GET", f"/api/v4/{kind}/{account.id}/custom_csrs/{made[other]}", token=token)
        assert codes(answer.envelope) == [1419]


def test_what_was_never_granted_cannot_be_revoked(service):
    for kind in ("zone", "account"):
        refused(service.run(kind, "revoke", "never-granted-either"), None, "never-granted-either")


def test_everything_may_be_prepared_before_the_first_start(new_csrd):
    csrd = new_csrd()
    csrd.ok("migrate")
    csrd.ok("migrate")
    assert (csrd.data_dir / "csrd.db").exists()
    csrd.ok("zone", "grant", "early", "--quota", "1")
    csrd.ok("keys", "init")
    csrd.start()
    token = csrd.token("--zone", "early")
    assert csrd.request("POST", "/api/v4/zones/early/custom_csrs", token=token, json=subject()).status == 201


# Tokens


def claims(token: str) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_token_is_printed_alone_and_says_what_was_asked_for(service):
    for_whom = ["--zone", "z1", "z2", "--zone", "z3", "--account", "a"]
    printed = service.ok("token", "issue", *for_whom, "--subject", "me", "--scope", "custom_csrs:read", "--ttl", "90s")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed)
    found = claims(printed.strip())
    assert abs(found.pop("exp") - time.time() - 90) < 30
    found.pop("iat", None)
    assert found == {"sub": "me", "zones": ["z1", "z2", "z3"], "accounts": ["a"], "scope": "custom_csrs:read"}
    found = claims(service.token("--zone", "*"))
    assert abs(found["exp"] - time.time() - 3600) < 30
    assert found["sub"] and found["zones"] == ["*"] and "scope" not in found and not found.get("accounts")


def test_a_token_reaches_what_it_says(service, zone):
    assert service.request("GET", zone.path, token=service.token("--zone", "*")).status == 200
    assert codes(service.request("GET", zone.path, token=service.token("--zone", zone.id + "x")).envelope) == [1404]
    read = service.token("--zone", zone.id, "--scope", "custom_csrs:read")
    assert service.request("GET", zone.path, token=read).status == 200
    assert codes(service.request("POST", zone.path, token=read, json=subject()).envelope) == [1404]
    write = service.token("--zone", zone.id, "--scope", "email custom_csrs:write")
    created = service.request("POST", zone.path, token=write, json=subject())
    assert created.status == 201
    one = f"{zone.path}/{created.result['id']}"
    assert service.request("GET", one, token=write).status == 200
    assert codes(service.request("DELETE", one, token=read).envelope) == [1404]
    assert codes(service.request("GET", zone.path, token=service.token("--zone", zone.id, "--scope", "email")).envelope) == [1404]


def test_a_slip_in_a_permission_is_refused_and_one_in_an_id_is_told(service, zone):
    known = "custom_csrs:read, custom_csrs:write, custom_certificates:read, custom_certificates:write, webhooks:read, webhooks:write"
    for slip in ("csr:read", "custom_csrs:wirte", "custom_csrs:read custom_certificates:", "Custom_csrs:read"):
        refused(service.run("token", "issue", "--zone", zone.id, "--scope", slip), 2, known)
    warned = lambda *arguments: service.run("token", "issue", *arguments).stderr  # noqa: E731
    assert warned("--zone", zone.id, "--scope", "openid custom_csrs:read") == warned("--zone", "*", "--account", "*") == ""
    for nothing in ("", "custom_csrs", "email openid"):
        assert known in warned("--zone", zone.id, "--scope", nothing)
    for ttl in ("1s", "366d"):
        assert warned("--zone", zone.id, "--ttl", ttl) == ""
    long = service.run("token", "issue", "--zone", zone.id, "--ttl", "100000d")
    assert long.returncode == 0 and "--ttl" in long.stderr and long.stderr.count("\n") == 1
    assert abs(claims(long.stdout.strip())["exp"] - time.time() - 100_000 * 86_400) < 30
    done = service.run("token", "issue", "--zone", "nosuch", zone.id, "--account", "none")
    assert done.returncode == 0 and claims(done.stdout.strip())["zones"] == ["nosuch", zone.id]
    assert [line for line in done.stderr.splitlines() if "has no grant" in line] == done.stderr.splitlines()
    assert "zone nosuch " in done.stderr and "account none " in done.stderr and zone.id not in done.stderr
    service.ok("zone", "revoke", zone.id)
    assert f"zone {zone.id} has no grant" in warned("--zone", zone.id)


def test_the_help_of_token_issue_shows_what_signs_and_not_what_only_verifies():
    printed = run("token", "issue", "--help").stdout
    assert "--jwt-secret-file" in printed and "--jwt-zones-claim" in printed and "--jwt-audience" in printed
    for hidden in ("--jwt-jwks-file", "--jwt-public-key-file", "--jwt-leeway", "Verify", "Demand"):
        assert hidden not in printed
    assert "--jwt-jwks-file" in run("serve", "--help").stdout


def test_a_token_is_signed_with_the_shared_secret_of_the_settings(new_csrd, secret_file):
    zones, accounts, issuer = "https://acme-widgets.com/zones", "https://acme-widgets.com/accounts", "https://id.acme-widgets.com"
    settings = ["--jwt-secret-file", str(secret_file), "--jwt-issuer", issuer, "--jwt-audience", "csrd"]
    settings += ["--jwt-zones-claim", zones, "--jwt-accounts-claim", accounts]
    csrd = new_csrd(*settings).start()
    csrd.ok("zone", "grant", "z", "--quota", "1")
    token = csrd.token("--zone", "z", "--account", "a", *settings)
    found = jwt.decode(token, SECRET, ["HS256"], issuer=issuer, audience="csrd")
    assert found[zones] == ["z"] and found[accounts] == ["a"]
    assert csrd.request("POST", "/api/v4/zones/z/custom_csrs", token=token, json=subject()).status == 201

    # The same through the environment.
    env = {"CSRD_" + name[2:].upper().replace("-", "_"): value for name, value in zip(settings[::2], settings[1::2], strict=True)}
    done = run("token", "issue", "--zone", "z", env=env, cwd=csrd.directory)
    assert csrd.request("GET", "/api/v4/zones/z/custom_csrs", token=done.stdout.strip()).status == 200

    good = {"sub": "s", "exp": time.time() + 60, "iss": issuer, "aud": ["x", "csrd"], zones: ["z"]}
    for change, code in (
        ({}, None), ({"aud": "csrd"}, None), ({"aud": "other"}, 1003), ({"iss": "other"}, 1003), ({"aud": ...}, 1005), ({"iss": ...}, 1005),
        ({"exp": time.time() - 300}, 1003), ({"exp": time.time() - 10}, None), ({"nbf": time.time() + 300}, 1003), ({"exp": ...}, 1005),
        ({"sub": ...}, 1005), ({"exp": "x"}, 1004), ({zones: "z"}, 1004), ({zones: ...}, 1005),
    ):  # fmt: skip
        changed = {name: value for name, value in (good | change).items() if value is not ...}
        encoded = jwt.api_jws.encode(json.dumps(changed).encode(), SECRET, "HS256")
        answer = csrd.request("GET", "/api/v4/zones/z/custom_csrs", token=encoded)
        assert codes(answer.envelope) == ([code] if code else []), change


def test_without_anything_to_sign_with_no_token_is_issued(tmp_path, new_csrd, service):
    csrd = new_csrd()
    csrd.ok("migrate")
    refused(csrd.run("token", "issue", "--zone", "z"), None, "--jwt-secret-file")
    public = tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "key.pem"], check=True, timeout=60)
    subprocess.run(["openssl", "pkey", "-in", tmp_path / "key.pem", "-pubout", "-out", public], check=True, timeout=60)
    done = service.run("token", "issue", "--zone", "z", "--jwt-public-key-file", str(public))
    refused(done, None, "--jwt-public-key-file", "--jwt-secret-file")
