"""A custom CSR from its making to its end, by the client that openapi-python-client made from the OpenAPI document."""

import sys
from uuid import uuid4

from csrd_client import AuthenticatedClient
from csrd_client.api.zone_custom_certificates import zone_custom_certificates_create, zone_custom_certificates_delete
from csrd_client.api.zone_custom_csrs import (
    zone_custom_csrs_create,
    zone_custom_csrs_delete,
    zone_custom_csrs_edit,
    zone_custom_csrs_get,
    zone_custom_csrs_list,
)
from csrd_client.models import (
    CertificateStatus,
    CustomCertificateRequest,
    CustomCertificateResponse,
    CustomCsr,
    CustomCsrEdit,
    CustomCsrListResponse,
    CustomCsrRequest,
    CustomCsrResponse,
    CustomCsrStatus,
    ErrorResponse,
    KeyType,
)

url, token, zone = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token)


def one(answer: CustomCsrResponse | CustomCsrListResponse | ErrorResponse | None) -> CustomCsr:
    if not isinstance(answer, CustomCsrResponse):
        raise SystemExit(f"refused: {answer}")
    return answer.result


def code(answer: object) -> int:
    """The code of the first error."""
    if not isinstance(answer, ErrorResponse):
        raise SystemExit(f"not refused: {answer}")
    return answer.errors[0].code


def create(name: str) -> CustomCsr:
    request = CustomCsrRequest(
        country="US",
        state="California",
        locality="San Francisco",
        organization="Acme Widgets, Inc.",
        common_name="shop.acme-widgets.com",
        sans=["shop.acme-widgets.com"],
        name=name,
        key_type=KeyType.P256V1,
    )
    return one(zone_custom_csrs_create.sync(zone, client=client, body=request, idempotency_key=str(uuid4())))


made = create("shop 0")
while made.status is CustomCsrStatus.PENDING:
    made = one(zone_custom_csrs_get.sync(zone, made.id, client=client, prefer="wait=10"))
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
while True:
    listed = zone_custom_csrs_list.sync(zone, client=client, page=page, per_page=5)
    if not isinstance(listed, CustomCsrListResponse) or not listed.result:
        break
    names += [row.name for row in listed.result]
    page += 1
print(len(names))

print(one(zone_custom_csrs_edit.sync(zone, made.id, client=client, body=CustomCsrEdit(name="renamed"))).name)
print(one(zone_custom_csrs_edit.sync(zone, made.id, client=client, body=CustomCsrEdit(name=None))).name or "no name")

upload = CustomCertificateRequest(certificate=chain, custom_csr_id=made.id)
uploaded = zone_custom_certificates_create.sync(zone, client=client, body=upload)
if not isinstance(uploaded, CustomCertificateResponse) or uploaded.result.id is None:
    raise SystemExit(f"refused: {uploaded}")
assert uploaded.result.status is CertificateStatus.CERTIFICATE_ACTIVE
print(code(zone_custom_csrs_delete.sync(zone, made.id, client=client)))

zone_custom_certificates_delete.sync(zone, uploaded.result.id, client=client)
zone_custom_csrs_delete.sync(zone, made.id, client=client)
print(code(zone_custom_csrs_get.sync(zone, made.id, client=client)))
