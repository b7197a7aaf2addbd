-- The queries of the Certificate Transparency service, in an order in which they can
-- be run on an empty openvpn_certtransparency_db as the application's role. Above
-- each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values

-- $3 stands for the certificate. No row: the request is in the log already, and
-- find_request reads it.
-- name: append_entry
-- index: certificate_log_request_key
-- with: '4e000000-0000-4000-8000-000000000001', '0a1b2c', 'certificate-1', 'CN=Intermediate CA', 'CN=ada@example.com,O=Example', 'ada@example.com', '2026-01-01Z', '2027-01-01Z', 'frontend'
-- rows: 1
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES ($1, 'issued', $2, convert_to($3::text, 'UTF8'), sha256(convert_to($3::text, 'UTF8')), $4, $5, $6, $7, $8, $9)
ON CONFLICT (request_id) DO NOTHING
RETURNING leaf_index, logged_at, entry_hash;

-- The reply was lost and the caller asks again.
-- name: append_entry
-- with: '4e000000-0000-4000-8000-000000000001', '0a1b2c', 'certificate-1', 'CN=Intermediate CA', 'CN=ada@example.com,O=Example', 'ada@example.com', '2026-01-01Z', '2027-01-01Z', 'frontend'
-- rows: 0
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES ($1, 'issued', $2, convert_to($3::text, 'UTF8'), sha256(convert_to($3::text, 'UTF8')), $4, $5, $6, $7, $8, $9)
ON CONFLICT (request_id) DO NOTHING
RETURNING leaf_index, logged_at, entry_hash;

-- name: append_entry
-- with: '4e000000-0000-4000-8000-000000000002', '0a1b2d', 'certificate-2', 'CN=Intermediate CA', 'CN=fra-1.vpn.example.com,O=Example', 'fra-1.vpn.example.com', '2026-01-01Z', '2027-06-01Z', 'frontend'
-- rows: 1
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
VALUES ($1, 'issued', $2, convert_to($3::text, 'UTF8'), sha256(convert_to($3::text, 'UTF8')), $4, $5, $6, $7, $8, $9)
ON CONFLICT (request_id) DO NOTHING
RETURNING leaf_index, logged_at, entry_hash;

-- name: find_request
-- index: certificate_log_request_key
-- with: '4e000000-0000-4000-8000-000000000001'
-- rows: 1
SELECT leaf_index, logged_at, entry_hash FROM certificate_log WHERE request_id = $1;

-- What was issued is named by its issuer and serial number; the rest comes from its entry.
-- name: append_revocation
-- index: certificate_log_issued_key
-- with: '4e000000-0000-4000-8000-000000000003', 'CN=Intermediate CA', '0a1b2c', 'key_compromise', 'frontend'
-- rows: 1
INSERT INTO certificate_log (request_id, operation, serial_number, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, revocation_reason, requested_by)
SELECT $1, 'revoked', i.serial_number, i.fingerprint_sha256, i.issuer, i.subject, i.common_name, i.not_before, i.not_after, $4, $5
FROM certificate_log i WHERE i.issuer = $2 AND i.serial_number = $3 AND i.operation <> 'revoked'
ON CONFLICT (request_id) DO NOTHING
RETURNING leaf_index, logged_at, entry_hash;

-- Twenty at once: each has its number and its predecessor.
-- name: import_entries
-- with: 20
-- rows: 20
INSERT INTO certificate_log (request_id, operation, serial_number, certificate_der, fingerprint_sha256,
  issuer, subject, common_name, not_before, not_after, requested_by)
SELECT gen_random_uuid(), 'issued', to_hex(4096 + n), convert_to('import-' || n, 'UTF8'), sha256(convert_to('import-' || n, 'UTF8')),
  'CN=Old CA', 'CN=import-' || n, 'import-' || n, '2025-01-01Z', '2026-01-01Z', 'import'
FROM generate_series(1, $1::integer) AS n;

-- name: read_entry
-- index: certificate_log_pkey
-- with: 0
-- rows: 1
SELECT logged_at, operation, serial_number, subject, certificate_der, revocation_reason, requested_by, previous_hash, entry_hash
FROM certificate_log WHERE leaf_index = $1;

-- A monitor reads on from the last entry that it has seen.
-- name: read_on
-- index: certificate_log_pkey
-- with: 0
-- rows: 22
SELECT leaf_index, logged_at, operation, serial_number, subject, entry_hash
FROM certificate_log WHERE leaf_index > $1 ORDER BY leaf_index LIMIT 1000;

-- name: find_by_serial
-- index: certificate_log_serial_idx
-- with: '0a1b2c'
-- rows: 2
SELECT leaf_index, operation, issuer, subject, logged_at FROM certificate_log WHERE serial_number = $1 ORDER BY leaf_index;

-- name: find_by_fingerprint
-- index: certificate_log_fingerprint_idx
-- with: 'certificate-1'
-- rows: 2
SELECT leaf_index, operation, issuer, serial_number, logged_at FROM certificate_log
WHERE fingerprint_sha256 = sha256(convert_to($1::text, 'UTF8')) ORDER BY leaf_index;

-- name: search_names
-- index: certificate_log_name_idx
-- with: 'fra-1.'
-- rows: 1
SELECT leaf_index, operation, common_name, serial_number, not_after FROM certificate_log
WHERE lower(common_name) COLLATE "C" >= lower($1) AND lower(common_name) COLLATE "C" < lower($1) || U&'\+10FFFF'
ORDER BY lower(common_name) COLLATE "C", leaf_index LIMIT 50;

-- name: list_by_requester
-- index: certificate_log_requester_idx
-- with: 'frontend'
-- rows: 3
SELECT leaf_index, operation, subject, logged_at FROM certificate_log
WHERE requested_by = $1 ORDER BY leaf_index DESC LIMIT 50;

-- name: list_between
-- index: certificate_log_time_idx
-- with: '1 hour'
-- rows: 23
SELECT leaf_index, operation, subject, logged_at FROM certificate_log
WHERE logged_at >= now() - $1::interval AND logged_at <= clock_timestamp() ORDER BY leaf_index;

-- What expires in the span and was not revoked.
-- name: list_expiring
-- index: certificate_log_expiry_idx, certificate_log_revoked_key
-- with: '2026-12-01Z', '2027-12-01Z'
-- rows: 1
SELECT i.leaf_index, i.common_name, i.serial_number, i.not_after FROM certificate_log i
WHERE i.operation <> 'revoked' AND i.not_after >= $1 AND i.not_after < $2 AND NOT EXISTS (
  SELECT FROM certificate_log r
  WHERE r.issuer = i.issuer AND r.serial_number = i.serial_number AND r.operation = 'revoked')
ORDER BY i.not_after;

-- name: count_operations
-- rows: 2
SELECT operation, count(*) FROM certificate_log GROUP BY operation;

-- $1 stands for the signature, which the service makes of the hash.
-- name: sign_checkpoint
-- index: certificate_log_pkey, checkpoints_pkey
-- with: 22, 'ct-key-1', 'signature'
-- rows: 1
INSERT INTO checkpoints (leaf_index, entry_hash, key_id, signature)
SELECT leaf_index, entry_hash, $2, convert_to(rpad($3::text, 64, '.'), 'UTF8') FROM certificate_log WHERE leaf_index = $1
ON CONFLICT (leaf_index) DO NOTHING;

-- name: latest_checkpoint
-- index: checkpoints_pkey
-- rows: 1
SELECT leaf_index, entry_hash, key_id, signature, signed_at FROM checkpoints ORDER BY leaf_index DESC LIMIT 1;

-- No row: every entry is what was logged.
-- name: verify_log
-- index: certificate_log_pkey
-- with: 0, 22
-- rows: 0
SELECT broken FROM first_broken_entry($1, $2) AS broken WHERE broken IS NOT NULL;
