// A custom CSR from its making to its end, by the client that @hey-api/openapi-ts made from the OpenAPI document.
import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { client } from './csrd/client.gen.js';
import {
  zoneCustomCertificatesCreate, zoneCustomCertificatesDelete, zoneCustomCsrsCreate, zoneCustomCsrsDelete, zoneCustomCsrsEdit, zoneCustomCsrsGet,
  zoneCustomCsrsList,
} from './csrd/sdk.gen.js';
import type { CustomCsr, ErrorResponse } from './csrd/types.gen.js';

const [, , baseUrl, auth, zone_id] = process.argv;
if (!baseUrl || !auth || !zone_id) throw new Error('give a URL, a token and a zone');
client.setConfig({ baseUrl, auth });

// The code of the first error.
const code = ({ error }: { error?: ErrorResponse | undefined }) => error?.errors[0]?.code;

async function create(name: string): Promise<CustomCsr> {
  const body = {
    country: 'US', state: 'California', locality: 'San Francisco', organization: 'Acme Widgets, Inc.',
    common_name: 'shop.acme-widgets.com', sans: ['shop.acme-widgets.com'], name, key_type: 'p256v1',
  } as const;
  const { data } = await zoneCustomCsrsCreate({ path: { zone_id }, body: { ...body, sans: [...body.sans] }, headers: { 'Idempotency-Key': randomUUID() }, throwOnError: true });
  if (Array.isArray(data.result)) throw new Error('a set was made');
  return data.result;
}

let made = await create('shop 0');
const path = { zone_id, custom_csr_id: made.id };
while (made.status === 'pending') {
  const { data } = await zoneCustomCsrsGet({ path, headers: { Prefer: 'wait=10' }, throwOnError: true });
  made = data.result;
}
if (made.csr === null) throw new Error(`${made.id} failed: ${made.error}`);
// Whoever runs this has it signed.
process.stdout.write(made.csr);
const certificate = await text(process.stdin);

for (let number = 1; number < 7; number += 1) await create(`shop ${number}`);
const names: (string | null)[] = [];
for (let page = 1, rows = [made]; rows.length > 0; page += 1) {
  const { data } = await zoneCustomCsrsList({ path: { zone_id }, query: { page, per_page: 5 }, throwOnError: true });
  rows = data.result;
  names.push(...rows.map((row) => row.name));
}
console.log(names.length);

for (const name of ['renamed', null]) {
  const { data } = await zoneCustomCsrsEdit({ path, body: { name }, throwOnError: true });
  console.log(data.result.name ?? 'no name');
}

const upload = { certificate, custom_csr_id: made.id };
const { data: uploaded } = await zoneCustomCertificatesCreate({ path: { zone_id }, body: upload, throwOnError: true });
if (uploaded.result.status !== 'active' || uploaded.result.id === null) throw new Error(uploaded.result.status);
console.log(code(await zoneCustomCsrsDelete({ path })));

await zoneCustomCertificatesDelete({ path: { zone_id, custom_certificate_id: uploaded.result.id }, throwOnError: true });
await zoneCustomCsrsDelete({ path, throwOnError: true });
console.log(code(await zoneCustomCsrsGet({ path })));
