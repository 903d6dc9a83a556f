// A custom CSR from its making to its end, by the client for fetch that openapi-generator made from the OpenAPI document.
import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import {
  CertificateStatus, Configuration, CustomCsrStatus, ErrorResponseFromJSON, KeyType, ResponseError, ZoneCustomCertificatesApi, ZoneCustomCsrsApi,
} from './csrd/index.js';
import type { CustomCsr } from './csrd/index.js';

const [, , basePath, accessToken, zoneId] = process.argv;
if (!basePath || !accessToken || !zoneId) throw new Error('give a URL, a token and a zone');
const configuration = new Configuration({ basePath, accessToken });
const csrs = new ZoneCustomCsrsApi(configuration);
const certificates = new ZoneCustomCertificatesApi(configuration);

// The code of the first error.
async function code(refused: Promise<unknown>): Promise<number | undefined> {
  try {
    await refused;
  } catch (error) {
    if (error instanceof ResponseError) return ErrorResponseFromJSON(await error.response.json()).errors[0]?.code;
    throw error;
  }
  throw new Error('it was not refused');
}

async function create(name: string): Promise<CustomCsr> {
  const customCsrRequest = {
    country: 'US', state: 'California', locality: 'San Francisco', organization: 'Acme Widgets, Inc.',
    commonName: 'shop.acme-widgets.com', sans: ['shop.acme-widgets.com'], name, keyType: KeyType.P256v1,
  };
  const { result } = await csrs.zoneCustomCsrsCreate({ zoneId, customCsrRequest, idempotencyKey: randomUUID() });
  if (Array.isArray(result)) throw new Error('a set was made');
  return result;
}

let made = await create('shop 0');
const customCsrId = made.id;
while (made.status === CustomCsrStatus.Pending) made = (await csrs.zoneCustomCsrsGet({ zoneId, customCsrId, prefer: 'wait=10' })).result;
if (made.csr === null) throw new Error(`${made.id} failed: ${made.error}`);
// Whoever runs this has it signed.
process.stdout.write(made.csr);
const certificate = await text(process.stdin);

for (let number = 1; number < 7; number += 1) await create(`shop ${number}`);
const names: (string | null)[] = [];
for (let page = 1, rows = [made]; rows.length > 0; page += 1) {
  rows = (await csrs.zoneCustomCsrsList({ zoneId, page, perPage: 5 })).result;
  names.push(...rows.map((row) => row.name));
}
console.log(names.length);

for (const name of ['renamed', null]) {
  const { result } = await csrs.zoneCustomCsrsEdit({ zoneId, customCsrId, customCsrEdit: { name } });
  console.log(result.name ?? 'no name');
}

const customCertificateRequest = { certificate, customCsrId };
const { result: uploaded } = await certificates.zoneCustomCertificatesCreate({ zoneId, customCertificateRequest });
if (uploaded.status !== CertificateStatus.CERTIFICATE_ACTIVE || uploaded.id === null) throw new Error(uploaded.status);
console.log(await code(csrs.zoneCustomCsrsDelete({ zoneId, customCsrId })));

await certificates.zoneCustomCertificatesDelete({ zoneId, customCertificateId: uploaded.id });
await csrs.zoneCustomCsrsDelete({ zoneId, customCsrId });
console.log(await code(csrs.zoneCustomCsrsGet({ zoneId, customCsrId })));
