"""The whole loop through the official Python client: CSR, the tenant's CA, certificate, renewal, end; on both databases."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ca import DAY, Authority, new_csr, now
from cloudflare import APIStatusError, AsyncCloudflare, BadRequestError, Cloudflare, ConflictError, NotFoundError, PermissionDeniedError
from cryptography import x509
from databases import either, new_service  # noqa: F401
from harness import ROOT, codes, environment, subject, wait_until

CA = Authority("Root of the loop")
INTERMEDIATE = Authority("Intermediate of the loop", issuer=CA)


@pytest.fixture(autouse=True)
def no_settings_of_the_client(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CLOUDFLARE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def zone(either):  # noqa: F811
    return either.tenant()


@pytest.fixture
def requests() -> list:
    """What the client sends, as method and path, repeats included."""
    return []


@pytest.fixture
def client(zone, requests):
    with Cloudflare(base_url=f"{zone.service.url}/client/v4", api_token=zone.token) as made:
        made._client.event_hooks["request"].append(lambda request: requests.append((request.method, request.url.path)))
        yield made


def chain(csr: str, **options) -> str:
    return INTERMEDIATE.issue(csr, **options) + INTERMEDIATE.chain


def active(client, zone, **changes):
    made = client.custom_csrs.create(zone_id=zone.id, **subject(**changes))

    def decided():
        found = client.custom_csrs.get(made.id, zone_id=zone.id)
        return found if found.model_extra["status"] != "pending" else None

    found = wait_until(decided, f"{made.id} is no longer pending", 60)
    assert found.model_extra["status"] == "active" and found.csr
    return found


@pytest.mark.parametrize("key_type", ["rsa2048", "p256v1"])
def test_the_loop_closes(client, zone, key_type):
    certificates, zone_id = client.custom_certificates, {"zone_id": zone.id}
    csr = active(client, zone, key_type=key_type)
    leaf = INTERMEDIATE.issue(csr.csr)
    made = certificates.create(certificate=leaf + INTERMEDIATE.chain, custom_csr_id=csr.id, bundle_method="force", type="sni_custom", **zone_id)
    assert (made.status, made.custom_csr_id, made.zone_id, made.bundle_method) == ("active", csr.id, zone.id, "force")
    assert (made.hosts, made.issuer, made.signature, made.priority) == (["www.acme-widgets.com"], "Test CA", "ECDSAWithSHA256", 0)
    assert made.expires_on == x509.load_pem_x509_certificate(leaf.encode()).not_valid_after_utc
    assert made.uploaded_on == made.modified_on and abs(made.uploaded_on - now()) < DAY

    assert certificates.get(made.id, **zone_id) == made
    # Lists show all of it but the chain.
    found = list(certificates.list(**zone_id))
    assert found == list(certificates.list(status="active", match="all", per_page=5, page=1, **zone_id))
    assert [one.to_dict() for one in found] == [{name: value for name, value in made.to_dict().items() if name != "chain"}]
    assert list(certificates.list(status="expired", **zone_id)) == []

    # It is protected, and renewed before it expires; with a new key too.
    with pytest.raises(ConflictError) as error:
        client.custom_csrs.delete(csr.id, **zone_id)
    assert codes(error.value.body) == [1420]
    renewed = certificates.edit(made.id, certificate=chain(csr.csr, ends=100 * DAY), **zone_id)
    assert (renewed.id, renewed.custom_csr_id, renewed.uploaded_on) == (made.id, csr.id, made.uploaded_on)
    assert renewed.expires_on > made.expires_on and renewed.modified_on > made.modified_on
    answer = zone.request("POST", f"/{csr.id}/rekey", headers={"Prefer": "wait=30"})
    assert answer.status == 201 and answer.result["status"] == "active"
    moved = certificates.edit(made.id, certificate=chain(answer.result["csr"]), custom_csr_id=answer.result["id"], **zone_id)
    assert moved.custom_csr_id == answer.result["id"]
    assert certificates.edit(made.id, bundle_method="optimal", **zone_id).bundle_method == "optimal"

    # The end.
    assert client.custom_csrs.delete(csr.id, **zone_id).id == csr.id
    with pytest.raises(ConflictError):
        client.custom_csrs.delete(moved.custom_csr_id, **zone_id)
    assert certificates.delete(made.id, **zone_id).id == made.id
    for call in (certificates.get, certificates.delete, certificates.edit):
        with pytest.raises(NotFoundError) as error:
            call(made.id, **zone_id)
        assert codes(error.value.body) == [1481]
    assert client.custom_csrs.delete(moved.custom_csr_id, **zone_id).id == moved.custom_csr_id
    assert list(client.custom_csrs.list(**zone_id)) == [] and list(certificates.list(**zone_id)) == []


def test_certificates_are_listed_across_pages(client, zone):
    csr = active(client, zone)
    made = [client.custom_certificates.create(certificate=chain(csr.csr), custom_csr_id=csr.id, zone_id=zone.id).id for _ in range(7)]
    assert [found.id for found in client.custom_certificates.list(zone_id=zone.id, per_page=5)] == made[::-1]
    for status in ("active", "expired", "deleted", "pending", "initializing"):
        assert len(list(client.custom_certificates.list(zone_id=zone.id, status=status))) == (7 if status == "active" else 0)


def test_a_conflict_is_not_repeated(client, zone, requests):
    csr = active(client, zone)
    client.custom_certificates.create(certificate=chain(csr.csr), custom_csr_id=csr.id, zone_id=zone.id)
    requests.clear()
    with pytest.raises(ConflictError) as error:
        client.custom_csrs.delete(csr.id, zone_id=zone.id)
    assert codes(error.value.body) == [1420] and len(requests) == 1, requests


def test_a_certificate_for_a_pending_custom_csr_is_a_conflict_that_is_not_repeated(new_service, requests):  # noqa: F811
    zone = new_service("sqlite", "--workers", "0").tenant()
    pending = zone.create()["id"]
    with Cloudflare(base_url=f"{zone.service.url}/client/v4", api_token=zone.token) as client:
        client._client.event_hooks["request"].append(lambda request: requests.append(request.method))
        with pytest.raises(ConflictError) as error:
            client.custom_certificates.create(certificate=chain(new_csr()), custom_csr_id=pending, zone_id=zone.id)
    assert codes(error.value.body) == [1474] and requests == ["POST"]


def test_each_class_of_refusal_is_the_clients_own(either, client, zone):  # noqa: F811
    certificates, zone_id, csr = client.custom_certificates, {"zone_id": zone.id}, active(client, zone)
    for code, body in (
        (1473, {"private_key": "-----BEGIN PRIVATE KEY-----", "custom_csr_id": csr.id}), (1472, {"certificate": chain(new_csr())}), (1430, {"custom_csr_id": "x"}),
        (1427, {"custom_csr_id": csr.id, "certificate": ""}), (1426, {"custom_csr_id": csr.id, "certificate": "x"}),
        (1429, {"custom_csr_id": csr.id, "certificate": chain(new_csr())}),
    ):  # fmt: skip
        with pytest.raises(BadRequestError) as error:
            certificates.create(**{"certificate": chain(csr.csr)} | body | zone_id)
        assert codes(error.value.body) == [code] and error.value.errors[0].message
    with pytest.raises(NotFoundError) as error:
        certificates.create(certificate=chain(csr.csr), custom_csr_id="01890a5d-ac96-774b-bcce-b302099a8057", **zone_id)
    assert codes(error.value.body) == [1431]
    read = either.token("--zone", zone.id, "--scope", "custom_certificates:read")
    with pytest.raises(PermissionDeniedError) as error:
        client.with_options(api_token=read).custom_certificates.create(certificate=chain(csr.csr), custom_csr_id=csr.id, **zone_id)
    assert codes(error.value.body) == [1404]
    with pytest.raises(APIStatusError) as error:
        certificates.create(certificate="x" * 70_000, custom_csr_id=csr.id, **zone_id)
    assert codes(error.value.body) == [1467]


def test_the_asynchronous_client_does_the_same(client, zone):
    csr = active(client, zone)

    async def session():
        async with AsyncCloudflare(base_url=f"{zone.service.url}/client/v4", api_token=zone.token) as asynchronous:
            certificates = asynchronous.custom_certificates
            calls = [certificates.create(certificate=chain(csr.csr), custom_csr_id=csr.id, zone_id=zone.id) for _ in range(6)]
            created = {made.id for made in await asyncio.gather(*calls)}
            assert len(created) == 6 and {found.id async for found in certificates.list(zone_id=zone.id, per_page=5)} == created
            edited = await asyncio.gather(*[certificates.edit(made, certificate=chain(csr.csr), zone_id=zone.id) for made in created])
            assert {made.id for made in edited} == created
            for made in created:
                assert (await certificates.delete(made, zone_id=zone.id)).id == made

    asyncio.run(session())
    assert zone.request("DELETE", f"/{csr.id}").status == 200


def npm_client() -> Path:
    """Where `.ci/test` installs the official npm package."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "npm"


@pytest.mark.parametrize("key_type", ["rsa2048", "p256v1"])
def test_the_loop_closes_through_the_official_npm_client(zone, key_type):
    package = npm_client() / "node_modules/cloudflare/package.json"
    assert package.exists(), f"no {package}: `.ci/test` installs it"
    assert tuple(map(int, json.loads(package.read_text())["version"].split(".")))[:2] >= (7, 3)
    script = Path(__file__).with_name("loop.mjs")
    # Modules are looked for beside the script.
    copy = shutil.copy(script, npm_client() / f"loop-{os.getpid()}.mjs")
    try:
        process = subprocess.Popen(
            ["node", copy, f"{zone.service.url}/client/v4", zone.id, key_type], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment(CLOUDFLARE_API_TOKEN=zone.token),
        )  # fmt: skip
        # The script says its CSRs, this test is the CA.
        said = []
        for line in process.stdout:
            said.append(json.loads(line))
            if "csr" in said[-1]:
                process.stdin.write(json.dumps(chain(said[-1]["csr"])) + "\n")
                process.stdin.flush()
        assert process.wait(60) == 0, (said, process.stderr.read())
    finally:
        os.unlink(copy)
    assert said[-1] == {"done": True} and sum("csr" in entry for entry in said) == 2
    assert zone.total() == 0
