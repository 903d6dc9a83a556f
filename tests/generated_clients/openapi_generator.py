"""A custom CSR from its making to its end, by the Python client that openapi-generator made from the OpenAPI document."""

import sys
from collections.abc import Callable
from uuid import uuid4

import csrd

url, token, zone = sys.argv[1:]
client = csrd.ApiClient(csrd.Configuration(host=url, access_token=token))
csrs, certificates = csrd.ZoneCustomCsrsApi(client), csrd.ZoneCustomCertificatesApi(client)


def code(refused: Callable[[], object]) -> int:
    """The code of the first error."""
    try:
        answer = refused()
    except csrd.ApiException as error:
        if not isinstance(error.data, csrd.ErrorResponse):
            raise
        return error.data.errors[0].code
    raise SystemExit(f"not refused: {answer}")


def create(name: str) -> csrd.CustomCsr:
    request = csrd.CustomCsrRequest(
        country="US",
        state="California",
        locality="San Francisco",
        organization="Acme Widgets, Inc.",
        common_name="shop.acme-widgets.com",
        sans=["shop.acme-widgets.com"],
        name=name,
        key_type=csrd.KeyType.P256V1,
    )
    answer = csrs.zone_custom_csrs_create(zone, request, idempotency_key=str(uuid4())).actual_instance
    if not isinstance(answer, csrd.CustomCsrResponse):
        raise SystemExit(f"a set was made: {answer}")
    return answer.result


made = create("shop 0")
while made.status is csrd.CustomCsrStatus.PENDING:
    made = csrs.zone_custom_csrs_get(zone, made.id, prefer="wait=10").result
if made.csr is None:
    raise SystemExit(f"failed: {made.error}")
assert made.created_at.tzinfo is not None
# Whoever runs this has it signed.
print(made.csr, end="", flush=True)
chain = sys.stdin.read()

for number in range(1, 7):
    create(f"shop {number}")
names = list[str | None]()
page = 1
while rows := csrs.zone_custom_csrs_list(zone, page=page, per_page=5).result:
    names += [row.name for row in rows]
    page += 1
print(len(names))

print(csrs.zone_custom_csrs_edit(zone, made.id, csrd.CustomCsrEdit(name="renamed")).result.name)
print(csrs.zone_custom_csrs_edit(zone, made.id, csrd.CustomCsrEdit(name=None)).result.name or "no name")

upload = csrd.CustomCertificateRequest(certificate=chain, custom_csr_id=made.id)
uploaded = certificates.zone_custom_certificates_create(zone, upload).result
if uploaded.id is None:
    raise SystemExit(f"not stored: {uploaded}")
assert uploaded.status is csrd.CertificateStatus.CERTIFICATE_ACTIVE
print(code(lambda: csrs.zone_custom_csrs_delete(zone, made.id)))

certificates.zone_custom_certificates_delete(zone, uploaded.id)
csrs.zone_custom_csrs_delete(zone, made.id)
print(code(lambda: csrs.zone_custom_csrs_get(zone, made.id)))
