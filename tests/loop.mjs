// The whole loop through the official npm client. Says a CSR as a line of JSON and reads the chain that was issued for it.
import assert from 'node:assert/strict';
import readline from 'node:readline';
import Cloudflare from 'cloudflare';

const [baseURL, zone_id, key_type] = process.argv.slice(2);
const client = new Cloudflare({ baseURL });
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { customCsrs, customCertificates } = client;
assert(customCsrs && customCertificates);

async function issued(csr) {
  console.log(JSON.stringify({ csr }));
  return JSON.parse((await lines.next()).value);
}

async function active(id) {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await new Promise((next) => setTimeout(next, 20))) {
    const found = await customCsrs.get(id, { zone_id });
    if (found.status !== 'pending') return found;
  }
  throw new Error(`${id} is still pending`);
}

async function refused(call, status, code) {
  await assert.rejects(call, (error) => error.status === status && error.errors[0].code === code);
}

const subject = { country: 'US', state: 'California', locality: 'San Francisco', organization: 'Acme Widgets', common_name: 'www.acme-widgets.com' };
const created = await customCsrs.create({ zone_id, ...subject, sans: ['www.acme-widgets.com'], key_type });
const csr = await active(created.id);
const certificate = await issued(csr.csr);
await refused(() => customCertificates.create({ zone_id, certificate, custom_csr_id: csr.id, private_key: 'x' }), 400, 1473);
const made = await customCertificates.create({ zone_id, certificate, custom_csr_id: csr.id, bundle_method: 'force' });
assert.equal(made.status, 'active');
assert.equal(made.custom_csr_id, csr.id);
assert.deepEqual(await customCertificates.get(made.id, { zone_id }), made);
const listed = [];
for await (const found of customCertificates.list({ zone_id, status: 'active' })) listed.push(found);
const { chain: _chain, ...withoutChain } = made;
assert.deepEqual(listed, [withoutChain]);
await refused(() => customCsrs.delete(csr.id, { zone_id }), 409, 1420);
const renewed = await customCertificates.edit(made.id, { zone_id, certificate: await issued(csr.csr), bundle_method: 'optimal' });
assert.equal(renewed.id, made.id);
assert.equal(renewed.bundle_method, 'optimal');
assert.equal((await customCertificates.delete(made.id, { zone_id })).id, made.id);
await refused(() => customCertificates.get(made.id, { zone_id }), 404, 1481);
assert.equal((await customCsrs.delete(csr.id, { zone_id })).id, csr.id);
console.log(JSON.stringify({ done: true }));
process.exit(0);
