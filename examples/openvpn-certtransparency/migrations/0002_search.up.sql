-- no-transaction idempotent
-- What the log is searched by. CONCURRENTLY, since the log grows while they are
-- built, and that cannot be in a transaction. An interrupted build leaves an index
-- that is not valid: each is dropped first, so the file can be run again.

-- Query: find_by_serial.
DROP INDEX CONCURRENTLY IF EXISTS certificate_log_serial_idx;
CREATE INDEX CONCURRENTLY certificate_log_serial_idx ON certificate_log (serial_number, leaf_index);

-- Query: find_by_fingerprint.
DROP INDEX CONCURRENTLY IF EXISTS certificate_log_fingerprint_idx;
CREATE INDEX CONCURRENTLY certificate_log_fingerprint_idx ON certificate_log (fingerprint_sha256, leaf_index);

-- Query: search_names. COLLATE "C" lets the index find by prefix.
DROP INDEX CONCURRENTLY IF EXISTS certificate_log_name_idx;
CREATE INDEX CONCURRENTLY certificate_log_name_idx ON certificate_log ((lower(common_name) COLLATE "C"), leaf_index);

-- Query: list_by_requester.
DROP INDEX CONCURRENTLY IF EXISTS certificate_log_requester_idx;
CREATE INDEX CONCURRENTLY certificate_log_requester_idx ON certificate_log (requested_by, leaf_index);

-- Query: list_expiring.
DROP INDEX CONCURRENTLY IF EXISTS certificate_log_expiry_idx;
CREATE INDEX CONCURRENTLY certificate_log_expiry_idx ON certificate_log (not_after) WHERE operation <> 'revoked';

-- Query: list_between. Rows lie in the order of their times: a few bytes for each
-- megabyte of log say where to look.
DROP INDEX CONCURRENTLY IF EXISTS certificate_log_time_idx;
CREATE INDEX CONCURRENTLY certificate_log_time_idx ON certificate_log USING brin (logged_at);
