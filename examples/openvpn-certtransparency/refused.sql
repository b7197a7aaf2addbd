-- What openvpn_certtransparency_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: entry_rewritten
-- refused: 42501
UPDATE certificate_log SET subject = 'CN=nobody' WHERE leaf_index = 0;

-- name: entry_deleted
-- refused: 42501
DELETE FROM certificate_log WHERE leaf_index = 0;

-- name: log_emptied
-- refused: 42501
TRUNCATE certificate_log CASCADE;

-- name: entry_rewritten_as_a_conflict
-- refused: 42501
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES ('4e000000-0000-4000-8000-000000000001', 'issued', 'ff', 'x', sha256('x'), 'x', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x')
ON CONFLICT (request_id) DO UPDATE SET subject = 'CN=nobody';

-- name: entry_rewritten_by_a_merge
-- refused: 42501
MERGE INTO certificate_log l USING (SELECT 0 AS leaf_index) s ON l.leaf_index = s.leaf_index WHEN MATCHED THEN DELETE;

-- name: number_chosen_by_the_application
-- refused: 42501
INSERT INTO certificate_log (leaf_index, request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES (7, gen_random_uuid(), 'issued', 'ff', 'x', sha256('x'), 'x', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x');

-- name: entry_dated_back
-- refused: 42501
INSERT INTO certificate_log (logged_at, request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES ('2020-01-01Z', gen_random_uuid(), 'issued', 'ff', 'x', sha256('x'), 'x', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x');

-- name: trigger_switched_off
-- refused: 42501
ALTER TABLE certificate_log DISABLE TRIGGER certificate_log_append_only;

-- name: triggers_switched_off_for_the_session
-- refused: 42501
SET session_replication_role = replica;

-- name: the_application_becomes_the_owner
-- refused: 42501
SET ROLE openvpn_certtransparency_db_owner;

-- name: log_dropped
-- refused: 42501
DROP TABLE certificate_log CASCADE;

-- name: unknown_operation
-- refused: 23514 certificate_log_operation_check
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES (gen_random_uuid(), 'borrowed', 'ff', 'x', sha256('x'), 'x', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x');

-- name: fingerprint_of_another_certificate
-- refused: 23514 certificate_log_certificate_is_the_fingerprinted
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES (gen_random_uuid(), 'issued', 'ff', 'x', sha256('y'), 'x', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x');

-- name: issued_without_the_certificate
-- refused: 23514 certificate_log_certificate_check
INSERT INTO certificate_log (request_id, operation, serial_number, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES (gen_random_uuid(), 'issued', 'ff', sha256('x'), 'x', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x');

-- name: revoked_without_a_reason
-- refused: 23514 certificate_log_revoked_with_reason
INSERT INTO certificate_log (request_id, operation, serial_number, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES (gen_random_uuid(), 'revoked', 'ff', sha256('x'), 'x', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x');

-- name: serial_number_issued_twice
-- refused: 23505 certificate_log_issued_key
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES (gen_random_uuid(), 'renewed', '0a1b2d', 'x', sha256('x'), 'CN=Intermediate CA', 'x', 'x', '2026-01-01Z', '2027-01-01Z', 'x');

-- name: revoked_twice
-- refused: 23505 certificate_log_revoked_key
INSERT INTO certificate_log (request_id, operation, serial_number, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, revocation_reason, requested_by)
SELECT gen_random_uuid(), 'revoked', serial_number, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, 'superseded', 'x'
FROM certificate_log WHERE serial_number = '0a1b2c' AND operation = 'issued';

-- name: checkpoint_of_another_log
-- refused: 23503 checkpoints_entry_fkey
INSERT INTO checkpoints (leaf_index, entry_hash, key_id, signature) VALUES (0, sha256('x'), 'ct-key-1', decode(repeat('00', 64), 'hex'));

-- name: checkpoint_rewritten
-- refused: 42501
UPDATE checkpoints SET signed_at = '2020-01-01Z';

-- name: checkpoint_deleted
-- refused: 42501
DELETE FROM checkpoints;
