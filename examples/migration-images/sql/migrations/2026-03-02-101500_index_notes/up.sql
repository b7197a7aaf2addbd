-- no-transaction idempotent
CREATE INDEX CONCURRENTLY IF NOT EXISTS notes_created_at ON notes (created_at);
