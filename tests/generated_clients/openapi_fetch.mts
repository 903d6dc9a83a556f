// A custom CSR from its making to its end, by openapi-fetch with the types that openapi-typescript made from the OpenAPI document.
import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import createClient from 'openapi-fetch';
import type { components, paths } from './csrd.js';

type CustomCsr = components['schemas']['CustomCsr'];
type Refused = components['schemas']['ErrorResponse'];
type Answer<T> = { data?: { result: T } | undefined; error?: Refused | undefined };

const [, , baseUrl, token, zone_id] = process.argv;
if (!baseUrl || !token || !zone_id) throw new Error('give a URL, a token and a zone');
// Without the second type, a GET of a custom CSR would be text too: it can be asked for as PEM.
const client = createClient<paths, 'application/json'>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

function result<T>({ data, error }: Answer<T>): T {
  if (!data) throw new Error(error?.errors.map(({ code, message }) => `${code} ${message}`).join(', '));
  return data.result;
}

const create = async (name: string): Promise<CustomCsr> => {
  const made = result<CustomCsr | CustomCsr[]>(
    await client.POST('/zones/{zone_id}/custom_csrs', {
      params: { path: { zone_id }, header: { 'Idempotency-Key': randomUUID() } },
      body: {
        country: 'US', state: 'California', locality: 'San Francisco', organization: 'Acme', description: null,
        common_name: 'www.acme-widgets.com', sans: ['www.acme-widgets.com'], name, key_type: 'p256v1',
      },
    }),
  );
  if (Array.isArray(made)) throw new Error('a set was made');
  return made;
};

// What the compiler has to find.
export const mistakes = (csr: CustomCsr, answer: Answer<CustomCsr>) => [
  // @ts-expect-error It is null until the key is made.
  csr.csr.length,
  // @ts-expect-error There is no such status.
  csr.status === 'deleted',
  // @ts-expect-error There may be none.
  answer.error.errors,
];

let made = await create('shop 0');
const path = { zone_id, custom_csr_id: made.id };
while (made.status === 'pending') {
  made = result(await client.GET('/zones/{zone_id}/custom_csrs/{custom_csr_id}', { params: { path, header: { Prefer: 'wait=10' } } }));
}
if (made.csr === null) throw new Error(`${made.id} failed: ${made.error}`);
// Whoever runs this has it signed.
process.stdout.write(made.csr);
const certificate = await text(process.stdin);

for (let number = 1; number < 7; number += 1) await create(`shop ${number}`);
const names: (string | null)[] = [];
for (let page = 1, rows: CustomCsr[] = [made]; rows.length > 0; page += 1) {
  const query = { page, per_page: 5, order: 'name', direction: 'asc' } as const;
  rows = result(await client.GET('/zones/{zone_id}/custom_csrs', { params: { path: { zone_id }, query } }));
  names.push(...rows.map((row) => row.name));
}
console.log(names.length);

for (const name of ['renamed', null]) {
  const renamed = result(await client.PATCH('/zones/{zone_id}/custom_csrs/{custom_csr_id}', { params: { path }, body: { name } }));
  console.log(renamed.name ?? 'no name');
}

const upload = { certificate, custom_csr_id: made.id };
const uploaded = result(await client.POST('/zones/{zone_id}/custom_certificates', { params: { path: { zone_id } }, body: upload }));
if (uploaded.status !== 'active' || uploaded.id === null) throw new Error(uploaded.status);
const inUse = await client.DELETE('/zones/{zone_id}/custom_csrs/{custom_csr_id}', { params: { path } });
console.log(inUse.error?.errors[0]?.code);

const custom_certificate_id = uploaded.id;
result(await client.DELETE('/zones/{zone_id}/custom_certificates/{custom_certificate_id}', { params: { path: { zone_id, custom_certificate_id } } }));
result(await client.DELETE('/zones/{zone_id}/custom_csrs/{custom_csr_id}', { params: { path } }));
const gone = await client.GET('/zones/{zone_id}/custom_csrs/{custom_csr_id}', { params: { path } });
// Either answer says which one it is.
const answer = gone.data ?? gone.error;
if (!answer || answer.success) throw new Error('it is still there');
console.log(answer.errors[0]?.code);
