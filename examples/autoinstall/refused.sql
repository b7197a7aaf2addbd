-- What autoinstall_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: one_machine_twice
-- refused: 23505 systems_mac_address_key
INSERT INTO systems (mac_address) VALUES ('525400-123456');

-- name: a_name_twice
-- refused: 23505 systems_hostname_key
INSERT INTO systems (mac_address, hostname) VALUES ('52:54:00:12:34:58', 'web-1.example.com');

-- name: name_that_is_none
-- refused: 23514 systems_hostname_check
INSERT INTO systems (mac_address, hostname) VALUES ('52:54:00:12:34:58', 'web_1; reboot');

-- name: network_for_an_address
-- refused: 23514 systems_ip_address_is_a_host
INSERT INTO systems (mac_address, ip_address) VALUES ('52:54:00:12:34:58', '192.0.2.0/24');

-- name: unknown_status
-- refused: 23514 systems_status_check
UPDATE systems SET status = 'lost' WHERE hostname IS NOT NULL;

-- name: installing_without_a_name
-- refused: 23514 systems_named_once_configured
UPDATE systems SET status = 'installing' WHERE hostname IS NULL;

-- name: configuration_of_no_system
-- refused: 23514 configurations_system_check
INSERT INTO configurations (kind, name, content) VALUES ('configuration', 'x', 'x');

-- name: configuration_of_a_system_that_does_not_exist
-- refused: 23503 configurations_system_id_fkey
INSERT INTO configurations (kind, name, system_id, content)
VALUES ('configuration', 'x', '5a000000-0000-4000-8000-000000000009', 'x');

-- name: two_configurations_that_count
-- refused: 23505 configurations_current_key
INSERT INTO configurations (kind, name, system_id, content)
VALUES ('configuration', 'x', '5a000000-0000-4000-8000-000000000001', 'x');

-- name: configuration_for_a_template
-- refused: 23503 configurations_template_fkey
UPDATE configurations SET template_id = id WHERE kind = 'configuration';

-- name: template_in_use_deleted
-- refused: 23503 configurations_template_fkey
DELETE FROM configurations WHERE kind = 'template';

-- name: two_phases_at_once
-- refused: 23505 installation_status_running_key
INSERT INTO installation_status (system_id, phase) VALUES ('5a000000-0000-4000-8000-000000000001', 'install');

-- name: unknown_phase
-- refused: 23514 installation_status_phase_check
UPDATE installation_status SET phase = 'coffee' WHERE finished_at IS NULL;

-- name: more_than_all
-- refused: 23514 installation_status_progress_check
UPDATE installation_status SET progress = 101 WHERE finished_at IS NULL;

-- name: finished_without_an_outcome
-- refused: 23514 installation_status_finished_with_outcome
UPDATE installation_status SET finished_at = now() WHERE finished_at IS NULL;

-- name: done_before_it_is_complete
-- refused: 23514 installation_status_done_is_complete
UPDATE installation_status SET finished_at = now(), outcome = 'done' WHERE finished_at IS NULL;

-- name: plain_password
-- refused: 23514 users_password_hash_is_phc
INSERT INTO users (username, password_hash) VALUES ('grace', 'hunter2');

-- name: username_twice
-- refused: 23505 users_username_key
INSERT INTO users (username, password_hash) SELECT username, password_hash FROM users;

-- name: role_that_is_its_own_parent
-- refused: 23514 roles_depth_check
UPDATE roles SET parent_role_id = id, parent_depth = depth WHERE name = 'viewer';

-- viewer below operator, which is below viewer.
-- name: circle_of_roles
-- refused: 23503 roles_parent_fkey
UPDATE roles v SET parent_role_id = o.id, parent_depth = o.depth, depth = o.depth + 1
FROM roles o WHERE v.name = 'viewer' AND o.name = 'operator';

-- name: role_deleted_from_under_its_children
-- refused: 23503 roles_parent_fkey
DELETE FROM roles WHERE name = 'viewer';

-- name: role_in_use_deleted
-- refused: 23503 user_roles_role_id_fkey
WITH child AS (DELETE FROM roles WHERE name = 'administrator') DELETE FROM roles WHERE name = 'operator';

-- name: path_that_climbs_out
-- refused: 23514 file_metadata_path_check
INSERT INTO file_metadata (path, sha256, size_bytes) VALUES ('/web-1/../../etc/shadow', sha256(''), 0);

-- name: serial_number_twice
-- refused: 23505 certificates_serial_number_key
INSERT INTO certificates (serial_number, subject, certificate, not_before, not_after)
SELECT serial_number, subject, certificate, not_before, not_after FROM certificates;

-- name: private_key_stored
-- refused: 23514 certificates_certificate_check
UPDATE certificates SET certificate = certificate || '-----BEGIN PRIVATE KEY-----';

-- name: the_application_changes_the_schema
-- refused: 42501
DROP TABLE systems;
