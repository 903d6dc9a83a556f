"""The official `cloudflare` package, with nothing but its base URL and token set."""

import asyncio
import base64
import json
import os

import pytest
from cloudflare import (
    APIStatusError,
    AsyncCloudflare,
    AuthenticationError,
    BadRequestError,
    Cloudflare,
    NotFoundError,
    PermissionDeniedError,
)
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from harness import TABLE, Tenant, codes, subject, wait_until

# One that no zone has.
UNKNOWN_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture(autouse=True)
def no_settings_of_the_client(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CLOUDFLARE_")]:
        monkeypatch.delenv(name)


def client_for(tenant: Tenant, **options) -> Cloudflare:
    return Cloudflare(base_url=f"{tenant.service.url}/client/v4", **({"api_token": tenant.token} | options))


def scope_of(tenant: Tenant) -> dict[str, str]:
    return {f"{tenant.kind}_id": tenant.id}


@pytest.fixture(params=["zone", "account"])
def tenant(request, service) -> Tenant:
    return service.tenant(request.param)


@pytest.fixture
def custom_csrs(tenant):
    with client_for(tenant) as client:
        yield client.custom_csrs


def wait_active(custom_csrs, csr_id: str, scope: dict[str, str]):
    def decided():
        found = custom_csrs.get(csr_id, **scope)
        return found if found.model_extra["status"] != "pending" else None

    found = wait_until(decided, f"{csr_id} is no longer pending", 60)
    assert found.model_extra["status"] == "active", found
    return found


@pytest.mark.parametrize(("key_type", "made"), [("rsa2048", "rsa2048"), ("p256v1", "p256v1"), (None, "rsa2048")])
def test_a_custom_csr_of_each_key_type_becomes_active(custom_csrs, tenant, key_type, made):
    fields = subject(key_type=key_type or ..., name="shop", description="two\nlines", organizational_unit="Web")
    created = custom_csrs.create(**fields, **scope_of(tenant))
    assert created.key_type == made
    assert created.csr is None
    assert created.model_extra["status"] == "pending"
    assert created.account_tag == (tenant.id if tenant.kind == "account" else None)
    assert created.model_extra["zone_id"] == (tenant.id if tenant.kind == "zone" else None)

    found = wait_active(custom_csrs, created.id, scope_of(tenant))
    for name in set(fields) - {"key_type"}:
        assert getattr(found, name) == fields[name]
    assert (found.id, found.created_at) == (created.id, created.created_at)
    key = x509.load_pem_x509_csr(found.csr.encode()).public_key()
    assert isinstance(key, rsa.RSAPublicKey if made == "rsa2048" else ec.EllipticCurvePublicKey)


def test_a_list_is_read_across_its_pages(custom_csrs, tenant):
    made = [custom_csrs.create(**subject(name=f"n{n:02}"), **scope_of(tenant)).id for n in range(12)]

    newest_first = [found.id for found in custom_csrs.list(per_page=5, **scope_of(tenant))]
    assert newest_first == made[::-1]

    pages = list(custom_csrs.list(per_page=5, order="name", direction="asc", **scope_of(tenant)).iter_pages())
    # The client asks on until a page is empty.
    assert [len(page.result) for page in pages] == [5, 5, 2, 0]
    assert [found.id for page in pages for found in page.result] == made
    assert [(page.result_info.page, page.result_info.per_page) for page in pages] == [(n, 5) for n in (1, 2, 3, 4)]
    info = pages[1].result_info.model_extra
    assert (info["count"], info["total_count"], info["total_pages"]) == (5, 12, 3)

    second = custom_csrs.list(page=2.0, per_page=5.0, **scope_of(tenant))
    assert [found.id for found in second.result] == made[::-1][5:10]


def test_nothing_to_list_is_an_empty_list(custom_csrs, tenant):
    page = custom_csrs.list(**scope_of(tenant))
    assert list(page) == []
    assert page.result_info.model_extra["total_pages"] == 0


def test_a_deleted_custom_csr_is_gone(custom_csrs, tenant):
    created = custom_csrs.create(**subject(), **scope_of(tenant))
    wait_active(custom_csrs, created.id, scope_of(tenant))
    assert custom_csrs.delete(created.id, **scope_of(tenant)).id == created.id
    for call in (custom_csrs.get, custom_csrs.delete):
        with pytest.raises(NotFoundError) as error:
            call(created.id, **scope_of(tenant))
        check(error.value, 1419)
    assert list(custom_csrs.list(**scope_of(tenant))) == []


def test_the_asynchronous_client_does_the_same(tenant):
    async def session():
        async with AsyncCloudflare(base_url=f"{tenant.service.url}/client/v4", api_token=tenant.token) as client:
            calls = [client.custom_csrs.create(**subject(name=str(n)), **scope_of(tenant)) for n in range(6)]
            created = {made.id for made in await asyncio.gather(*calls)}
            listed = {found.id async for found in client.custom_csrs.list(per_page=5, **scope_of(tenant))}
            assert len(created) == 6 and listed == created
            for csr_id in created:
                assert (await client.custom_csrs.delete(csr_id, **scope_of(tenant))).id == csr_id

    asyncio.run(session())


def check(error: APIStatusError, *expected: int) -> None:
    """The client understood the envelope: numbers, texts and status."""
    assert [entry.code for entry in error.errors] == list(expected), error.body
    assert codes(error.body) == list(expected)
    assert error.body["success"] is False and error.body["result"] is None
    assert {entry["code"] for entry in error.body["messages"]} <= {2100}, "hints alone"
    assert error.response.headers["X-Request-Id"]
    for entry in error.errors:
        if entry.code in TABLE and "reasons" not in TABLE[entry.code] and "d" not in TABLE[entry.code]:
            assert entry.message == TABLE[entry.code]["message"]


def test_every_fault_of_a_body_is_one_bad_request_error(custom_csrs, tenant):
    with pytest.raises(BadRequestError) as error:
        custom_csrs.create(
            country="",
            state="California",
            locality="San Francisco",
            organization="Acme Widgets",
            common_name="x" * 65,
            sans=["-", "fine.acme-widgets.com", "ü.com", "x.test", "co.uk", "www.example.com"],
            key_type="rsa1024",
            **scope_of(tenant),
        )
    check(error.value, 1405, 1410, 1412, 1413, 1414, 1415, 1416, 1417)
    pointers = [entry.source.pointer for entry in error.value.errors]
    assert pointers == ["/country", "/common_name", "/sans/0", "/sans/2", "/sans/3", "/sans/4", "/sans/5", "/key_type"]
    assert list(custom_csrs.list(**scope_of(tenant))) == []


def test_an_id_that_is_no_uuid_is_a_bad_request_error(custom_csrs, tenant):
    for call in (custom_csrs.get, custom_csrs.delete):
        with pytest.raises(BadRequestError) as error:
            call("no-uuid", **scope_of(tenant))
        check(error.value, 1418)


def test_a_client_with_an_api_key_in_place_of_a_token_is_a_bad_request_error(tenant):
    # It sends other headers than Authorization.
    with client_for(tenant, api_token=None, api_key="0" * 37, api_email="someone@acme-widgets.com") as client:
        with pytest.raises(BadRequestError) as error:
            client.custom_csrs.list(**scope_of(tenant))
        check(error.value, 1402)


def altered(token: str, part: int, text: bytes) -> str:
    parts = token.split(".")
    parts[part] = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    return ".".join(parts)


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        (1000, lambda token: f"{token} {token}"),
        (1001, lambda token: "opaque"),
        (1002, lambda token: altered(token, 0, b'{"alg":"none"}')),
        (1002, lambda token: altered(token, 0, b"no JSON")),
        (1003, lambda token: altered(token, 1, json.dumps({"sub": "mallory", "exp": 2**31, "zones": ["*"]}).encode())),
        (1003, lambda token: altered(token, 2, b"signature")),
    ],
)
def test_a_token_that_is_not_accepted_is_an_authentication_error(tenant, code, spoil):
    with client_for(tenant, api_token=spoil(tenant.token)) as client:
        with pytest.raises(AuthenticationError) as error:
            client.custom_csrs.list(**scope_of(tenant))
        check(error.value, code)
        assert error.value.response.headers["WWW-Authenticate"].startswith("Bearer")


def test_no_access_is_a_permission_denied_error(tenant):
    service = tenant.service
    other = service.tenant(tenant.kind)
    with client_for(other) as client:
        # Another tenant's token, whatever the method.
        for call in (
            lambda: client.custom_csrs.list(**scope_of(tenant)),
            lambda: client.custom_csrs.create(**subject(), **scope_of(tenant)),
            lambda: client.custom_csrs.get(UNKNOWN_ID, **scope_of(tenant)),
            lambda: client.custom_csrs.delete(UNKNOWN_ID, **scope_of(tenant)),
        ):
            with pytest.raises(PermissionDeniedError) as error:
                call()
            check(error.value, 1404)
    never_granted = service.token(f"--{tenant.kind}", "never-granted")
    with client_for(tenant, api_token=never_granted) as client:
        with pytest.raises(PermissionDeniedError) as error:
            client.custom_csrs.create(**subject(), **{f"{tenant.kind}_id": "never-granted"})
        check(error.value, 1404)
    read_only = service.token(f"--{tenant.kind}", tenant.id, "--scope", "custom_csrs:read")
    with client_for(tenant, api_token=read_only) as client:
        assert list(client.custom_csrs.list(**scope_of(tenant))) == []
        with pytest.raises(PermissionDeniedError) as error:
            client.custom_csrs.create(**subject(), **scope_of(tenant))
        check(error.value, 1404)


def test_no_quota_and_a_used_up_quota_are_permission_denied_errors(service, tenant):
    without = service.tenant(tenant.kind, quota=None)
    with client_for(without) as client:
        with pytest.raises(PermissionDeniedError) as error:
            client.custom_csrs.create(**subject(), **scope_of(without))
        check(error.value, 1403)

    small = service.tenant(tenant.kind, quota=2)
    with client_for(small) as client:
        made = [client.custom_csrs.create(**subject(), **scope_of(small)).id for _ in range(2)]
        with pytest.raises(PermissionDeniedError) as error:
            client.custom_csrs.create(**subject(), **scope_of(small))
        check(error.value, 1465)
        assert "2" in error.value.errors[0].message
        client.custom_csrs.delete(made[0], **scope_of(small))
        client.custom_csrs.create(**subject(), **scope_of(small))


def test_what_does_not_exist_is_a_not_found_error(service, custom_csrs, tenant):
    with pytest.raises(NotFoundError) as error:
        custom_csrs.get(UNKNOWN_ID, **scope_of(tenant))
    check(error.value, 1419)

    # Another tenant's custom CSR is not found, even with a token for both.
    other = service.tenant(tenant.kind)
    theirs = other.create()["id"]
    both = service.token(f"--{tenant.kind}", tenant.id, f"--{tenant.kind}", other.id)
    with client_for(tenant, api_token=both) as client:
        assert client.custom_csrs.get(theirs, **scope_of(other)).id == theirs
        with pytest.raises(NotFoundError) as error:
            client.custom_csrs.get(theirs, **scope_of(tenant))
        check(error.value, 1419)

    with pytest.raises(NotFoundError) as error:
        custom_csrs.list(**{f"{tenant.kind}_id": "no/such id"})
    check(error.value, 7000)


def test_other_refusals_are_status_errors_with_the_envelope(tenant):
    with client_for(tenant) as client:
        with pytest.raises(APIStatusError) as error:
            client.custom_csrs.create(**subject(description="x" * 70_000), **scope_of(tenant))
        assert error.value.status_code == 413
        check(error.value, 1467)
        with pytest.raises(APIStatusError) as error:
            client.patch(f"/{tenant.kind}s/{tenant.id}/custom_csrs", body={}, cast_to=object)
        assert error.value.status_code == 405
        check(error.value, 7001)


def test_a_list_out_of_range_is_a_bad_request_error(custom_csrs, tenant):
    for wrong in ({"per_page": 4}, {"per_page": 51}, {"page": 0}, {"page": 1.5}, {"order": "id"}, {"direction": "up"}):
        with pytest.raises(BadRequestError) as error:
            custom_csrs.list(**wrong, **scope_of(tenant))
        check(error.value, 1464)
        assert next(iter(wrong)) in error.value.errors[0].message
