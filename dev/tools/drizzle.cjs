// Drizzle's own migrator, without a schema: URL and folder.
const { drizzle } = require('drizzle-orm/node-postgres');
const { migrate } = require('drizzle-orm/node-postgres/migrator');
const { Pool } = require('pg');

(async () => {
  const pool = new Pool({ connectionString: process.argv[2] });
  await migrate(drizzle(pool), { migrationsFolder: process.argv[3] });
  await pool.end();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
