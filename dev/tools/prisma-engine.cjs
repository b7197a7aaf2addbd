#!/usr/bin/env node
// Prisma's schema engine for `prisma migrate` (PRISMA_SCHEMA_ENGINE_BINARY), where the program that Prisma
// downloads cannot be had: the same engine as WebAssembly, from its package. It speaks the program's protocol,
// JSON-RPC in lines, and answers "cli can-connect-to-database" with yes. NODE_PATH has the packages.
const { readFileSync } = require('node:fs');
const { dirname, join } = require('node:path');
const { pathToFileURL } = require('node:url');
const { createInterface } = require('node:readline');
const { PrismaPg } = require('@prisma/adapter-pg');
const { bindMigrationAwareSqlAdapterFactory } = require('@prisma/driver-adapter-utils');

/** The adapter cuts a file at every semicolon, also in a string; the program sends it as one message. */
class Adapter extends PrismaPg {
  async connect() {
    const session = await super.connect();
    session.executeScript = (script) => session.client.query(script).then(() => {}, (error) => session.onError(error));
    return session;
  }
}

/** The values of an argument that may be given several times. */
const given = (name) => process.argv.flatMap((one, at) => (one === name ? [process.argv[at + 1]] : []));
if (process.argv.includes('cli')) process.exit(0);

async function engine() {
  const folder = dirname(require.resolve('@prisma/schema-engine-wasm/schema_engine_bg'));
  const glue = await import(pathToFileURL(join(folder, 'schema_engine_bg.js')));
  const bytes = readFileSync(join(folder, 'schema_engine_bg.wasm'));
  const { instance } = await WebAssembly.instantiate(bytes, { './schema_engine_bg.js': glue });
  glue.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
  const { url } = JSON.parse(given('--datasource')[0]);
  const factory = bindMigrationAwareSqlAdapterFactory(new Adapter({ connectionString: url }));
  const datamodels = given('--datamodels').map((path) => [path, readFileSync(path, 'utf8')]);
  return glue.SchemaEngine.new({ datamodels }, () => {}, factory);
}

/** An error as the program reports it. */
const reported = (error) => {
  const data = { is_panic: false, message: error.message, meta: error.meta ?? null, error_code: error.code ?? null };
  return { code: 4466, message: 'An error happened. Check the data field for details.', data };
};

(async () => {
  const started = engine();
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, method, params } = JSON.parse(line);
    let answer;
    try {
      answer = { result: (await (await started)[method](params)) ?? null };
    } catch (error) {
      answer = { error: reported(error) };
    }
    process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...answer })}\n`);
  }
  process.exit(0);
})();
