"""What can be changed of a custom CSR, how it gets a new key, and what its quota says, on both databases."""

import pytest
from ca import Authority, Certificates, active, warnings
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from databases import FAIL, either, new_service  # noqa: F401
from harness import codes, faults, subject

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture(params=["zone", "account"])
def tenant(either, request):  # noqa: F811
    return either.tenant(request.param)


@pytest.fixture
def zone(either):  # noqa: F811
    return either.tenant()


def patch(tenant, csr_id: str, **body):
    return tenant.request("PATCH", f"/{csr_id}", json=body)


def rekey(tenant, csr_id: str, **arguments):
    return tenant.request("POST", f"/{csr_id}/rekey", **arguments)


def public_key(row: dict) -> bytes:
    return x509.load_pem_x509_csr(row["csr"].encode()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def quota(tenant) -> dict:
    answer = tenant.request("GET", "/quota")
    assert answer.status == 200, answer
    return answer.result


# PATCH


def test_renaming_changes_name_and_description_and_never_costs_the_key(tenant):
    made = active(tenant, name="before", description="two\nlines")
    for body, name, description in (
        ({"name": " after "}, " after ", "two\nlines"), ({"description": None}, " after ", None), ({"name": ""}, None, None),
        ({"name": "x" * 255, "description": "y" * 1024}, "x" * 255, "y" * 1024), ({}, "x" * 255, "y" * 1024), ({"name": " \t"}, None, "y" * 1024),
        ({"description": "\n"}, None, None), ({"unknown": {"x": [1]}}, None, None), ({"name": "\u202e🔑"}, "\u202e🔑", None),
    ):  # fmt: skip
        answer = patch(tenant, made["id"], **body)
        assert answer.status == 200 and answer.envelope["messages"] == []
        changed = answer.result
        assert (changed["name"], changed["description"]) == (name, description)
        assert changed["updated_at"] >= made["updated_at"]
        same = set(made) - {"name", "description", "updated_at"}
        assert {field: changed[field] for field in same} == {field: made[field] for field in same}
        assert tenant.get(made["id"]) == changed


def test_members_that_never_change_are_warned_of(tenant):
    made = active(tenant)
    answer = patch(tenant, made["id"], **subject(country="not even one", sans=5, key_type="rsa1024"), organizational_unit=["x"], name="new")
    assert answer.status == 200
    ignored = ["country", "state", "locality", "organization", "common_name", "sans", "key_type", "organizational_unit"]
    assert sorted(warnings(answer)) == sorted((2005, f"/{name}") for name in ignored)
    assert answer.result["name"] == "new" and public_key(answer.result) == public_key(made)
    assert {name: answer.result[name] for name in ignored} == {name: made[name] for name in ignored}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "x" * 256}, [(1461, "/name")]), ({"description": "x" * 1025}, [(1461, "/description")]), ({"name": "a\nb"}, [(1462, "/name")]),
        ({"description": "a\0b"}, [(1462, "/description")]), ({"name": 5, "description": []}, [(1400, "/name"), (1400, "/description")]),
        ({"description": "\x7f", "name": "x" * 256}, [(1461, "/name"), (1462, "/description")]),
    ],
    ids=str,
)  # fmt: skip
def test_words_that_are_no_good_are_refused_with_all_their_faults(zone, body, expected):
    made = zone.create(name="kept", description="kept too")
    answer = patch(zone, made["id"], **body)
    assert faults(answer.envelope) == expected and answer.status == 400
    assert (zone.get(made["id"])["name"], zone.get(made["id"])["description"]) == ("kept", "kept too")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"name":"a","name":"b"}', b"\xff"])
def test_a_change_that_is_no_json_object_is_1400_alone(zone, content):
    made = zone.create(name="kept")
    answer = zone.request("PATCH", f"/{made['id']}", content=content, headers={"Content-Type": "application/json"})
    assert faults(answer.envelope) == [(1400, None)]
    assert zone.get(made["id"])["name"] == "kept"


def test_what_is_not_there_can_be_neither_changed_nor_rekeyed(either, tenant):  # noqa: F811
    theirs = either.tenant(tenant.kind).create()["id"]
    for csr_id, code in (("no-uuid", 1418), (UNKNOWN, 1419), (theirs, 1419)):
        assert codes(patch(tenant, csr_id, name=5).envelope) == [code]
        assert codes(rekey(tenant, csr_id).envelope) == [code]
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert codes(tenant.request(method, f"/{UNKNOWN}/rekey").envelope) == [7001]
    assert codes(tenant.request("PUT", f"/{UNKNOWN}").envelope) == [7001]


def test_changes_go_on_after_a_revocation(either, tenant):  # noqa: F811
    made = active(tenant)
    either.ok(tenant.kind, "revoke", tenant.id)
    assert patch(tenant, made["id"], name="new").result["name"] == "new"
    assert codes(rekey(tenant, made["id"]).envelope) == [1404]


# Rekey


@pytest.mark.parametrize("key_type", ["rsa2048", "p256v1"])
def test_a_rekeyed_custom_csr_is_the_same_with_a_new_key(tenant, key_type):
    old = active(tenant, key_type=key_type, name="shop", description="its words", organizational_unit="R&D", sans=["Www.Acme-Widgets.com", "b.org"])
    assert old["replaces"] is None
    answer = rekey(tenant, old["id"])
    assert answer.status == 201 and answer.result["status"] == "pending"
    assert answer.headers["Location"] == f"{tenant.path}/{answer.result['id']}"
    new = tenant.wait_active(answer.result["id"])
    assert new["replaces"] == old["id"] and new["id"] != old["id"]
    own = {"id", "created_at", "updated_at", "csr", "replaces"}
    assert {name: new[name] for name in set(new) - own} == {name: old[name] for name in set(old) - own}
    assert public_key(new) != public_key(old)
    first, second = (x509.load_pem_x509_csr(row["csr"].encode()) for row in (old, new))
    assert first.subject == second.subject and list(first.extensions) == list(second.extensions)
    assert tenant.get(old["id"]) == old


def test_a_rekey_renews_a_certificate_with_a_new_key(zone):
    certificates, root, old = Certificates(zone), Authority(), active(zone)
    made = certificates.upload(old["id"], root.issue(old["csr"]) + root.pem)["id"]
    new = zone.wait_active(rekey(zone, old["id"]).result["id"])
    moved = certificates.patch(made, custom_csr_id=new["id"], certificate=root.issue(new["csr"]) + root.pem)
    assert moved.status == 200 and moved.envelope["messages"] == []
    assert zone.request("DELETE", f"/{old['id']}").status == 200
    assert zone.get(new["id"])["custom_certificate_ids"] == [made]


def test_only_what_is_no_longer_pending_is_rekeyed(new_service):  # noqa: F811
    csrd = new_service("sqlite", "--workers", "0")
    zone = csrd.tenant(quota=2)
    made = zone.create()["id"]
    answer = rekey(zone, made)
    assert (codes(answer.envelope), answer.status, answer.headers["x-should-retry"]) == ([1474], 409, "false")
    csrd.sql(FAIL.format(made))
    assert rekey(zone, made).result["replaces"] == made
    assert codes(rekey(zone, made).envelope) == [1465]


def test_a_rekey_takes_a_body_a_wait_and_an_idempotency_key_like_a_create(zone):
    old = active(zone)
    for content in (b"", b"{}", b"[garbage", b'{"name":5}'):
        answer = rekey(zone, old["id"], content=content, headers={"Prefer": "wait=30"})
        assert answer.status == 201 and answer.result["status"] == "active" and answer.headers["Preference-Applied"] == "wait=30"
    used = quota(zone)["used"]
    answers = [rekey(zone, old["id"], headers={"Idempotency-Key": "once"}) for _ in range(3)]
    assert [answer.status for answer in answers] == [201] * 3
    assert len({answer.result["id"] for answer in answers}) == 1 and quota(zone)["used"] == used + 1
    assert codes(rekey(zone, old["id"], headers={"Idempotency-Key": "x" * 256}).envelope) == [1464]
    # The same key for another custom CSR, or for a create, is never answered with this one.
    other = active(zone)
    answer = rekey(zone, other["id"], headers={"Idempotency-Key": "once"})
    assert codes(answer.envelope) == [1466] or answer.result["replaces"] == other["id"]
    answer = zone.request("POST", json=subject(), headers={"Idempotency-Key": "once"})
    assert codes(answer.envelope) == [1466] or answer.result["replaces"] is None


# Quota


def test_the_quota_is_what_was_allocated_and_what_is_used(either, tenant):  # noqa: F811
    assert quota(tenant) == {"allocated": 1000, "used": 0}
    either.ok(tenant.kind, "grant", tenant.id, "--quota", "3")
    made = [active(tenant)["id"] for _ in range(2)]
    assert quota(tenant) == {"allocated": 3, "used": 2}
    assert rekey(tenant, made[0]).status == 201
    assert codes(rekey(tenant, made[0]).envelope) == [1465]
    assert quota(tenant) == {"allocated": 3, "used": 3}
    assert tenant.request("DELETE", f"/{made[0]}").status == 200
    assert quota(tenant) == {"allocated": 3, "used": 2}
    either.ok(tenant.kind, "grant", tenant.id)
    assert quota(tenant)["allocated"] == 0
    assert codes(rekey(tenant, made[1]).envelope) == [1403]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert codes(tenant.request(method, "/quota").envelope) in ([7001], [1418])


def test_one_tenants_quota_is_not_shown_to_another(either, tenant):  # noqa: F811
    other = either.tenant(tenant.kind)
    assert codes(tenant.request("GET", "/quota", token=other.token).envelope) == [1404]
    assert codes(tenant.request("GET", "/quota", token=None).envelope) == [1402]
