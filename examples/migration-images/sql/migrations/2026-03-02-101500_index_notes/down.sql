-- no-transaction idempotent
DROP INDEX CONCURRENTLY IF EXISTS notes_created_at;
