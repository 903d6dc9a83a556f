"""A custom CSR from its making to its end, by a client that was generated from the OpenAPI document."""

import sys
import time
from uuid import uuid4

from csrd_client import AuthenticatedClient
from csrd_client.api.zone_custom_csrs import (
    zone_custom_csrs_create,
    zone_custom_csrs_delete,
    zone_custom_csrs_edit,
    zone_custom_csrs_get,
    zone_custom_csrs_list,
)
from csrd_client.models import (
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


def one(answer: CustomCsrResponse | ErrorResponse | None) -> CustomCsr:
    if not isinstance(answer, CustomCsrResponse):
        raise SystemExit(f"refused: {answer}")
    return answer.result


request = CustomCsrRequest(
    country="US",
    state="California",
    locality="San Francisco",
    organization="Acme Widgets, Inc.",
    common_name="shop.acme-widgets.com",
    sans=["shop.acme-widgets.com"],
    name="shop",
    key_type=KeyType.P256V1,
)
created = one(zone_custom_csrs_create.sync(zone, client=client, body=request, idempotency_key=str(uuid4())))
while created.status is CustomCsrStatus.PENDING:
    time.sleep(0.1)
    created = one(zone_custom_csrs_get.sync(zone, created.id, client=client))
if created.csr is None:
    raise SystemExit(f"failed: {created.error}")
assert created.created_at.tzinfo is not None
print(created.csr.splitlines()[0])

page, names = 1, list[str | None]()
while True:
    listed = zone_custom_csrs_list.sync(zone, client=client, page=page, per_page=5)
    if not isinstance(listed, CustomCsrListResponse) or not listed.result:
        break
    names += [row.name for row in listed.result]
    page += 1
print(names)

renamed = one(zone_custom_csrs_edit.sync(zone, created.id, client=client, body=CustomCsrEdit(name=None)))
print(renamed.name)
zone_custom_csrs_delete.sync(zone, created.id, client=client)
missing = zone_custom_csrs_get.sync(zone, created.id, client=client)
if isinstance(missing, ErrorResponse):
    print(missing.errors[0].code)
