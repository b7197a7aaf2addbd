-- The queries of the database service, in an order in which they can be run on an
-- empty autoinstall_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values

-- A machine boots: known by its MAC address, or new.
-- name: record_boot
-- index: systems_mac_address_key
-- with: '52:54:00:12:34:56', '192.0.2.10'
-- rows: 1
INSERT INTO systems (mac_address, ip_address) VALUES ($1, $2)
ON CONFLICT (mac_address) DO UPDATE SET ip_address = excluded.ip_address
RETURNING id, status;

-- The same machine again, its address written another way.
-- name: record_boot
-- with: '5254.0012.3456', '192.0.2.11'
-- rows: 1
INSERT INTO systems (mac_address, ip_address) VALUES ($1, $2)
ON CONFLICT (mac_address) DO UPDATE SET ip_address = excluded.ip_address
RETURNING id, status;

-- name: register_system
-- with: '5a000000-0000-4000-8000-000000000001', '52:54:00:12:34:57', 'web-1.example.com'
-- rows: 1
INSERT INTO systems (id, mac_address, hostname, status) VALUES ($1, $2, $3, 'configured') RETURNING created_at;

-- name: find_system_by_mac
-- index: systems_mac_address_key
-- with: '52-54-00-12-34-56'
-- rows: 1
SELECT id, hostname, ip_address, status FROM systems WHERE mac_address = $1;

-- name: find_system_by_hostname
-- index: systems_hostname_key
-- with: 'web-1.example.com'
-- rows: 1
SELECT id, mac_address, ip_address, status FROM systems WHERE hostname = $1 AND status <> 'retired';

-- A page, after the last row of the page before.
-- name: list_systems
-- index: systems_status_idx
-- with: 'discovered', '-infinity', '00000000-0000-0000-0000-000000000000'
-- rows: 1
SELECT id, mac_address, hostname, ip_address, created_at FROM systems
WHERE status = $1 AND (created_at, id) > ($2, $3)
ORDER BY created_at, id LIMIT 50;

-- name: create_template
-- with: '7e000000-0000-4000-8000-000000000001', 'web', 'autoinstall: {version: 1}'
-- rows: 1
INSERT INTO configurations (id, kind, name, content) VALUES ($1, 'template', $2, $3) RETURNING created_at;

-- name: find_template
-- index: configurations_template_name_key
-- with: 'web'
-- rows: 1
SELECT id, content FROM configurations WHERE name = $1 AND kind = 'template' AND is_current;

-- name: retire_configuration
-- index: configurations_current_key
-- with: '5a000000-0000-4000-8000-000000000001'
-- rows: 0
UPDATE configurations SET is_current = false WHERE system_id = $1 AND kind = 'configuration' AND is_current;

-- In one transaction with the one before.
-- name: configure_system
-- with: '5a000000-0000-4000-8000-000000000001', 'web-1', '7e000000-0000-4000-8000-000000000001', 'autoinstall: {version: 1, identity: {hostname: web-1}}'
-- rows: 1
INSERT INTO configurations (kind, name, system_id, template_id, content) VALUES ('configuration', $2, $1, $3, $4) RETURNING id;

-- name: serve_configuration
-- index: systems_mac_address_key, configurations_current_key
-- with: '52:54:00:12:34:57'
-- rows: 1
SELECT c.content FROM systems s
JOIN configurations c ON c.system_id = s.id AND c.kind = 'configuration' AND c.is_current
WHERE s.mac_address = $1;

-- name: begin_phase
-- index: installation_status_phase_key
-- with: '5a000000-0000-4000-8000-000000000001', 1, 'boot'
-- rows: 1
INSERT INTO installation_status (system_id, attempt, phase) VALUES ($1, $2, $3)
ON CONFLICT (system_id, attempt, phase) DO NOTHING;

-- The installer repeats what it got no answer to.
-- name: begin_phase
-- with: '5a000000-0000-4000-8000-000000000001', 1, 'boot'
-- rows: 0
INSERT INTO installation_status (system_id, attempt, phase) VALUES ($1, $2, $3)
ON CONFLICT (system_id, attempt, phase) DO NOTHING;

-- name: report_progress
-- index: installation_status_running_key
-- with: '5a000000-0000-4000-8000-000000000001', 60, 'kernel loaded'
-- rows: 1
UPDATE installation_status SET progress = $2, message = $3 WHERE system_id = $1 AND finished_at IS NULL;

-- name: finish_phase
-- index: installation_status_running_key
-- with: '5a000000-0000-4000-8000-000000000001', 'done'
-- rows: 1
UPDATE installation_status
SET finished_at = now(), outcome = $2, progress = CASE $2 WHEN 'done' THEN 100 ELSE progress END
WHERE system_id = $1 AND finished_at IS NULL;

-- name: begin_phase
-- with: '5a000000-0000-4000-8000-000000000001', 1, 'partition'
-- rows: 1
INSERT INTO installation_status (system_id, attempt, phase) VALUES ($1, $2, $3)
ON CONFLICT (system_id, attempt, phase) DO NOTHING;

-- name: show_installation
-- index: installation_status_phase_key
-- with: '5a000000-0000-4000-8000-000000000001', 1
-- rows: 2
SELECT phase, progress, message, started_at, finished_at, outcome
FROM installation_status WHERE system_id = $1 AND attempt = $2 ORDER BY started_at;

-- name: list_stuck
-- index: installation_status_started_idx
-- with: '1 hour'
-- rows: 0
SELECT system_id, phase, progress, started_at FROM installation_status
WHERE finished_at IS NULL AND started_at < now() - $1::interval;

-- name: create_user
-- with: 'a5e00000-0000-4000-8000-000000000001', 'ada', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo'
-- rows: 1
INSERT INTO users (id, username, password_hash) VALUES ($1, $2, $3);

-- name: grant_role
-- with: 'a5e00000-0000-4000-8000-000000000001', 'operator'
-- rows: 1
INSERT INTO user_roles (user_id, role_id) SELECT $1, id FROM roles WHERE name = $2
ON CONFLICT (user_id, role_id) DO NOTHING;

-- name: create_role
-- index: roles_name_key
-- with: 'auditor', 'viewer'
-- rows: 1
INSERT INTO roles (name, parent_role_id, parent_depth, depth)
SELECT $1, id, depth, depth + 1 FROM roles WHERE name = $2;

-- name: find_user_for_login
-- index: users_username_key
-- with: 'ada'
-- rows: 1
SELECT id, password_hash FROM users WHERE username = $1 AND disabled_at IS NULL;

-- Up the hierarchy: an operator may what a viewer may.
-- name: permissions_of_user
-- index: user_roles_pkey, roles_pkey, role_permissions_pkey
-- with: 'a5e00000-0000-4000-8000-000000000001'
-- rows: 4
WITH RECURSIVE held AS (
  SELECT r.id, r.parent_role_id FROM user_roles u JOIN roles r ON r.id = u.role_id WHERE u.user_id = $1
  UNION
  SELECT r.id, r.parent_role_id FROM held h JOIN roles r ON r.id = h.parent_role_id
)
SELECT DISTINCT p.permission FROM held h JOIN role_permissions p ON p.role_id = h.id ORDER BY p.permission;

-- name: list_users_with_role
-- index: user_roles_role_idx
-- with: 'operator'
-- rows: 1
SELECT u.username FROM roles r JOIN user_roles g ON g.role_id = r.id JOIN users u ON u.id = g.user_id
WHERE r.name = $1 ORDER BY u.username;

-- name: save_file
-- index: file_metadata_path_key
-- with: '5a000000-0000-4000-8000-000000000001', '/web-1/user-data', 'hello', 'a5e00000-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO file_metadata (system_id, path, sha256, size_bytes, edited_by)
VALUES ($1, $2, sha256(convert_to($3::text, 'UTF8')), octet_length($3::text), $4)
ON CONFLICT (path) DO UPDATE
SET sha256 = excluded.sha256, size_bytes = excluded.size_bytes, edited_by = excluded.edited_by
RETURNING id, updated_at;

-- name: list_files
-- index: file_metadata_system_idx
-- with: '5a000000-0000-4000-8000-000000000001'
-- rows: 1
SELECT path, sha256, size_bytes, updated_at FROM file_metadata WHERE system_id = $1 ORDER BY path;

-- name: record_certificate
-- with: '5a000000-0000-4000-8000-000000000001', '0a1b2c', 'CN=web-1.example.com', '-----BEGIN CERTIFICATE-----', '2026-01-01Z', '2027-01-01Z'
-- rows: 1
INSERT INTO certificates (system_id, serial_number, subject, certificate, not_before, not_after)
VALUES ($1, $2, $3, $4, $5, $6) RETURNING id;

-- name: list_expiring_certificates
-- index: certificates_expiry_idx
-- with: '2027-02-01Z'
-- rows: 1
SELECT serial_number, subject, not_after FROM certificates
WHERE revoked_at IS NULL AND not_after < $1 ORDER BY not_after;

-- name: revoke_certificate
-- index: certificates_serial_number_key
-- with: '0a1b2c'
-- rows: 1
UPDATE certificates SET revoked_at = now() WHERE serial_number = $1 AND revoked_at IS NULL;
