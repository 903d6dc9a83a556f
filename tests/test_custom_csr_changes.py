"""What can be changed of a custom CSR, how it gets a new key, and what its quota says, on both databases."""

import pytest
from ca import Authority, Certificates, active, warnings
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from databases import FAIL, either, new_service  # noqa: F401
from harness import codes, faults, send_raw, subject

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
        ({"description": "\n"}, None, None), ({"unknown": None}, None, None), ({"name": "\u202e🔑"}, "\u202e🔑", None),
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
    body = subject(country="not even one", sans=5, key_type="rsa1024") | {"organizational_unit": ["x"], "nmae": "old", "name": "new"}
    answer = patch(tenant, made["id"], **body)
    assert answer.status == 200
    ignored = ["country", "state", "locality", "organization", "common_name", "sans", "key_type", "organizational_unit"]
    assert sorted(warnings(answer)) == sorted((2005, f"/{name}") for name in ignored) + [(2012, "/nmae")]
    assert answer.result["name"] == "new" and public_key(answer.result) == public_key(made)
    assert {name: answer.result[name] for name in ignored} == {name: made[name] for name in ignored}


def test_a_custom_csr_that_is_sent_back_as_it_was_read_has_no_member_that_is_unknown(tenant):
    made = active(tenant)
    for answer in (patch(tenant, made["id"], **made), rekey(tenant, made["id"], json=made)):
        assert answer.status in (200, 201), answer.envelope
        sent = {f"/{name}" for name, value in made.items() if value is not None} - {"/name", "/description", "/key_type"}
        assert {code for code, _ in warnings(answer)} == {2005} and sent <= {pointer for _, pointer in warnings(answer)}


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


def test_a_rekey_takes_the_type_of_key_and_the_words_that_its_body_gives_and_copies_the_others(zone):
    old = active(zone, key_type="p256v1", name="shop", description="its words", organizational_unit="R&D")
    copied = ("p256v1", "shop", "its words")
    for body, expected in (
        (None, copied), ({}, copied), ({"key_type": None, "name": None, "description": None}, copied), ({"key_type": " "}, copied),
        ({"key_type": "RSA2048"}, ("rsa2048", "shop", "its words")), ({"name": " new ", "description": "a\n\tb"}, ("p256v1", " new ", "a\n\tb")),
        ({"name": "", "description": " \n"}, ("p256v1", None, None)), ({"name": "x" * 255, "description": "🔑" * 1024}, ("p256v1", "x" * 255, "🔑" * 1024)),
        ({"country": 5, "sans": ["other.com"], "common_name": "other.com", "status": "active", "replaces": UNKNOWN, "x": {"y": [1]}}, copied),
    ):  # fmt: skip
        answer = rekey(zone, old["id"], headers={"Prefer": "wait=30"}, **({} if body is None else {"json": body}))
        assert answer.status == 201 and answer.headers["Preference-Applied"] == "wait=30", (body, answer)
        new = zone.wait_active(answer.result["id"])
        assert (new["key_type"], new["name"], new["description"]) == expected, body
        same = {"replaces", "country", "state", "locality", "organization", "organizational_unit", "common_name", "sans"}
        assert {name: new[name] for name in same} == {name: old[name] for name in same} | {"replaces": old["id"]}, body
        size = x509.load_pem_x509_csr(new["csr"].encode()).public_key().key_size
        assert size == {"rsa2048": 2048, "p256v1": 256}[new["key_type"]]
    assert zone.get(old["id"]) == old


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": 5, "description": [], "key_type": {}}, [(1400, "/name"), (1400, "/description"), (1400, "/key_type")]), ({"key_type": "rsa1024"}, [(1417, "/key_type")]),
        ({"name": "x" * 256}, [(1461, "/name")]), ({"description": "a\0b", "key_type": "p384", "name": "y" * 256}, [(1417, "/key_type"), (1461, "/name"), (1462, "/description")]),
        ({"name": True, "key_type": "x"}, [(1400, "/name"), (1417, "/key_type")]),
    ],
    ids=str,
)  # fmt: skip
def test_a_rekey_whose_body_is_no_good_is_refused_with_all_its_faults(zone, body, expected):
    old = active(zone)
    assert faults(rekey(zone, old["id"], json=body).envelope) == expected
    # Those of the header come with them.
    answer = rekey(zone, old["id"], json=body, headers={"Idempotency-Key": "x" * 256})
    assert sorted(faults(answer.envelope), key=str) == sorted([*expected, (1464, None)], key=str) and answer.status == 400
    assert quota(zone)["used"] == 1


@pytest.mark.parametrize("content", [b"[]", b"{", b"null", b" ", b'{"name":"a","name":"b"}', b"\xff", b'{"name":"a"}x'])
def test_a_rekey_whose_body_is_no_json_object_is_1400_alone(zone, content):
    old = active(zone)
    for headers in ({"Content-Type": "application/json"}, {"Content-Type": "application/json", "Idempotency-Key": "x" * 256}):
        assert faults(rekey(zone, old["id"], content=content, headers=headers).envelope) == [(1400, None)]
    assert quota(zone)["used"] == 1


def test_a_rekey_without_a_body_needs_no_content_type_and_one_with_a_body_needs_that_of_json(zone):
    old = active(zone)
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}):
        assert rekey(zone, old["id"], headers=headers).status == 201
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        assert faults(rekey(zone, old["id"], content=b'{"name":"n"}', headers=headers).envelope) == [(1400, None)]
    assert quota(zone)["used"] == 4


def test_a_rekey_whose_body_was_cut_off_makes_nothing(zone):
    """Else what was meant to change would be copied."""
    old = active(zone)
    lines = [f"POST {zone.path}/{old['id']}/rekey HTTP/1.1", "Host: x", f"Authorization: Bearer {zone.token}", "Content-Type: application/json"]
    for rest in ("Content-Length: 20\r\n\r\n", 'Content-Length: 20\r\n\r\n{"name":', "Transfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nz\r\n"):
        response = send_raw(zone.service, "\r\n".join([*lines, rest]).encode(), "POST", half=True)
        assert response is None or response[0] == 400, (rest, response)
    assert quota(zone)["used"] == 1


@pytest.mark.parametrize("form", ["length", "chunks"])
def test_a_rekey_whose_body_is_over_64_kib_is_1467(zone, form):
    old = active(zone)
    for size, code in ((64 * 1024, []), (64 * 1024 + 1, [1467])):
        body = b'{"name":"n"}'.ljust(size)
        content = body if form == "length" else iter([body[:40_000], body[40_000:]])
        assert codes(rekey(zone, old["id"], content=content, headers={"Content-Type": "application/json"}).envelope) == code
    assert quota(zone)["used"] == 2


def test_a_rekey_takes_an_idempotency_key_that_stands_for_the_old_one_and_the_body(zone):
    old, other = active(zone), active(zone)
    used = quota(zone)["used"]

    def once(csr_id: str, **arguments):
        return rekey(zone, csr_id, headers={"Idempotency-Key": "once"}, **arguments)

    answers = [once(old["id"]) for _ in range(3)]
    assert [answer.status for answer in answers] == [201] * 3
    assert len({answer.result["id"] for answer in answers}) == 1 and quota(zone)["used"] == used + 1
    # For another body, another custom CSR or a create it is never answered with this one.
    for refused in (once(old["id"], json={}), once(old["id"], json={"name": "n"}), once(other["id"]), zone.request("POST", json=subject(), headers={"Idempotency-Key": "once"})):
        assert (codes(refused.envelope), refused.status) == ([1466], 422)
    with_body = [rekey(zone, old["id"], json={"name": "n"}, headers={"Idempotency-Key": "twice"}) for _ in range(2)]
    assert [answer.result["name"] for answer in with_body] == ["n", "n"] and len({answer.result["id"] for answer in with_body}) == 1
    assert codes(rekey(zone, old["id"], headers={"Idempotency-Key": "twice"}).envelope) == [1466]
    assert quota(zone)["used"] == used + 2


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
