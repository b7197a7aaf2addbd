-- What files_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: username_twice
-- refused: 23505 users_username_key
INSERT INTO users (username, email, password) SELECT 'aDA', 'other@example.com', password FROM users WHERE id = 1;

-- name: email_twice
-- refused: 23505 users_email_key
INSERT INTO users (username, email, password) SELECT 'other', 'Ada@Example.com', password FROM users WHERE id = 1;

-- name: plain_password
-- refused: 23514 users_password_is_phc
UPDATE users SET password = 'hunter2';

-- name: unknown_role
-- refused: 23514 users_role_check
UPDATE users SET role = 'root';

-- name: owner_deleted_before_the_files
-- refused: 23503 files_owner_id_fkey
DELETE FROM users WHERE id = 1;

-- name: file_of_nobody
-- refused: 23503 files_owner_id_fkey
INSERT INTO files (file_name, file_path, owner_id) VALUES ('x', '/data/9/x', 9);

-- name: file_id_twice
-- refused: 23505 files_pkey
INSERT INTO files (id, file_name, file_path, owner_id) VALUES ('report-1', 'x', '/data/1/x', 1);

-- name: two_files_at_one_path
-- refused: 23505 files_file_path_key
INSERT INTO files (file_name, file_path, owner_id) VALUES ('x', '/data/1/report-1', 1);

-- name: path_that_climbs_out
-- refused: 23514 files_file_path_check
UPDATE files SET file_path = '/data/1/../../etc/shadow';

-- name: unknown_permission
-- refused: 23514 permissions_permission_check
INSERT INTO permissions (user_id, file_id, permission) VALUES (2, 'report-1', 'sell');

-- name: permission_twice
-- refused: 23505 permissions_grant_key
INSERT INTO permissions (user_id, file_id, permission) VALUES (1, 'report-1', 'read');

-- name: permission_for_nobody
-- refused: 23503 permissions_user_id_fkey
INSERT INTO permissions (user_id, file_id, permission) VALUES (9, 'report-1', 'read');

-- name: permission_on_no_file
-- refused: 23503 permissions_file_id_fkey
INSERT INTO permissions (user_id, file_id, permission) VALUES (2, 'report-9', 'read');

-- name: permission_granted_by_nobody
-- refused: 23503 permissions_granted_by_fkey
INSERT INTO permissions (user_id, file_id, permission, granted_by) VALUES (2, 'report-1', 'read', 9);

-- name: permission_granted_to_oneself
-- refused: 23514 permissions_granted_by_another
INSERT INTO permissions (user_id, file_id, permission, granted_by) VALUES (2, 'report-1', 'read', 2);

-- name: owner_who_does_not_own
-- refused: 23503 permissions_owner_fkey
INSERT INTO permissions (user_id, file_id, permission, is_owner) VALUES (2, 'report-1', 'delete', true);

-- name: file_given_away_behind_its_permissions
-- refused: 23503 permissions_owner_fkey
UPDATE files SET owner_id = 2 WHERE id = 'report-1';

-- name: unknown_transformation
-- refused: 23514 transformation_jobs_type_check
INSERT INTO transformation_jobs (file_id, transformation_type) VALUES ('report-1', 'shred');

-- name: transformation_of_no_file
-- refused: 23503 transformation_jobs_file_id_fkey
INSERT INTO transformation_jobs (file_id, transformation_type) VALUES ('report-9', 'ocr');

-- name: unknown_status_of_a_job
-- refused: 23514 transformation_jobs_status_check
INSERT INTO transformation_jobs (file_id, transformation_type, status) VALUES ('report-1', 'ocr', 'maybe');

-- name: finished_job_reopened
-- refused: 23514 transformation_jobs_finished
UPDATE transformation_jobs SET status = 'pending' WHERE id = 1;

-- name: one_transformation_twice_at_once
-- refused: 23505 transformation_jobs_open_key
INSERT INTO transformation_jobs (file_id, transformation_type) VALUES ('report-1', 'resize'), ('report-1', 'resize');

-- name: notification_for_nobody
-- refused: 23503 notifications_user_id_fkey
INSERT INTO notifications (user_id, message) VALUES (9, 'x');

-- name: unknown_status_of_a_notification
-- refused: 23514 notifications_status_check
UPDATE notifications SET status = 'read';

-- name: the_application_changes_the_schema
-- refused: 42501
ALTER TABLE permissions DROP CONSTRAINT permissions_owner_fkey;
