-- The queries of the file services, in an order in which they can be run on an
-- empty files_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values
--
-- On an empty database the first two users are 1 and 2.

-- Authentication: registers, verifies a login, changes details.

-- name: register_user
-- with: 'Ada', 'ada@example.com', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo'
-- rows: 1
INSERT INTO users (username, email, password) VALUES ($1, $2, $3) RETURNING id, created_at;

-- name: register_user
-- with: 'grace', 'grace@example.com', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo'
-- rows: 1
INSERT INTO users (username, email, password) VALUES ($1, $2, $3) RETURNING id, created_at;

-- name: find_user_for_login
-- index: users_username_key
-- with: 'ADA'
-- rows: 1
SELECT id, password, role FROM users WHERE lower(username) = lower($1);

-- name: change_role
-- index: users_pkey
-- with: 1, 'editor'
-- rows: 1
UPDATE users SET role = $2 WHERE id = $1;

-- File picker: who asks, what is there, uploads, sharing.

-- name: fetch_user_role
-- index: users_pkey
-- with: 1
-- rows: 1
SELECT id, role FROM users WHERE id = $1;

-- The file and its owner's permissions, or neither.
-- name: add_file
-- with: 'report-1', 'report.pdf', '/data/1/report-1', 1
-- rows: 3
WITH file AS (
  INSERT INTO files (id, file_name, file_path, owner_id) VALUES ($1, $2, $3, $4) RETURNING id, owner_id
)
-- A foreign key is checked after the statement: the file exists by then.
INSERT INTO permissions (user_id, file_id, permission, is_owner)
SELECT file.owner_id, file.id, p, true FROM file, unnest(ARRAY['read', 'write', 'delete']) AS p;

-- name: list_my_files
-- index: files_owner_idx
-- with: 1
-- rows: 1
SELECT id, file_name, is_shared, created_at FROM files WHERE owner_id = $1 ORDER BY created_at DESC, id LIMIT 50;

-- $3 shares $1 with $2.
-- name: share_file
-- index: files_pkey, permissions_grant_key
-- with: 'report-1', 2, 1, 'read'
-- rows: 1
WITH granted AS (
  INSERT INTO permissions (file_id, user_id, granted_by, permission) VALUES ($1, $2, $3, $4)
  ON CONFLICT (user_id, file_id, permission) DO NOTHING
)
UPDATE files SET is_shared = true WHERE id = $1;

-- name: list_shared_with_me
-- index: permissions_grant_key, files_pkey
-- with: 2
-- rows: 1
SELECT f.id, f.file_name, f.owner_id, array_agg(p.permission ORDER BY p.permission) AS permissions
FROM permissions p JOIN files f ON f.id = p.file_id
WHERE p.user_id = $1 AND NOT p.is_owner
GROUP BY f.id ORDER BY f.created_at DESC, f.id LIMIT 50;

-- name: rename_file
-- index: files_pkey
-- with: 'report-1', 'Report 2026.pdf'
-- rows: 1
UPDATE files SET file_name = $2 WHERE id = $1 RETURNING updated_at;

-- name: may_user
-- index: permissions_grant_key
-- with: 2, 'report-1', 'read'
-- rows: 1
SELECT 1 FROM permissions WHERE user_id = $1 AND file_id = $2 AND permission = $3;

-- name: may_user
-- with: 2, 'report-1', 'delete'
-- rows: 0
SELECT 1 FROM permissions WHERE user_id = $1 AND file_id = $2 AND permission = $3;

-- Permissions: what is granted, at which level, and no longer.

-- name: list_permissions_of_file
-- index: permissions_file_idx
-- with: 'report-1'
-- rows: 4
SELECT user_id, permission, is_owner, granted_by, created_at FROM permissions WHERE file_id = $1 ORDER BY user_id, permission;

-- name: change_permission
-- index: permissions_grant_key
-- with: 2, 'report-1', 'read', 'write'
-- rows: 1
UPDATE permissions SET permission = $4 WHERE user_id = $1 AND file_id = $2 AND permission = $3 AND NOT is_owner;

-- Downloads and transformations: where it is, what is asked for, what was done.

-- name: find_path
-- index: files_pkey
-- with: 'report-1'
-- rows: 1
SELECT file_path FROM files WHERE id = $1;

-- name: request_transformation
-- index: transformation_jobs_open_key
-- with: 'report-1', 'ocr'
-- rows: 1
INSERT INTO transformation_jobs (file_id, transformation_type) VALUES ($1, $2)
ON CONFLICT (file_id, transformation_type) WHERE status IN ('pending', 'running') DO NOTHING;

-- Asked for again while it waits.
-- name: request_transformation
-- with: 'report-1', 'ocr'
-- rows: 0
INSERT INTO transformation_jobs (file_id, transformation_type) VALUES ($1, $2)
ON CONFLICT (file_id, transformation_type) WHERE status IN ('pending', 'running') DO NOTHING;

-- Two workers at once take two jobs, and neither waits for the other.
-- name: take_job
-- index: transformation_jobs_pending_idx
-- rows: 1
UPDATE transformation_jobs j SET status = 'running'
WHERE j.id = (SELECT id FROM transformation_jobs WHERE status = 'pending' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING j.id, j.file_id, j.transformation_type;

-- name: release_stuck_jobs
-- index: transformation_jobs_running_idx
-- with: '1 hour'
-- rows: 0
UPDATE transformation_jobs SET status = 'pending' WHERE status = 'running' AND updated_at < now() - $1::interval;

-- The job's end and the owner's notification, or neither.
-- name: finish_job
-- index: transformation_jobs_pkey
-- with: 1, 'complete', 'The text of your file was recognised.'
-- rows: 1
WITH job AS (
  UPDATE transformation_jobs SET status = $2 WHERE id = $1 AND status = 'running' RETURNING file_id
)
INSERT INTO notifications (user_id, message) SELECT f.owner_id, $3 FROM job JOIN files f ON f.id = job.file_id;

-- name: list_jobs_of_file
-- index: transformation_jobs_file_idx
-- with: 'report-1'
-- rows: 1
SELECT id, transformation_type, status, updated_at FROM transformation_jobs WHERE file_id = $1 ORDER BY id;

-- Notifications. In the transaction that sends, so that two senders do not send one twice.
-- name: fetch_pending
-- index: notifications_pending_idx
-- rows: 1
SELECT id, user_id, message FROM notifications WHERE status = 'pending' ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED;

-- name: mark_notification
-- index: notifications_pending_idx
-- with: 1, 'sent'
-- rows: 1
UPDATE notifications SET status = $2 WHERE id = $1 AND status = 'pending';

-- name: list_notifications
-- index: notifications_user_idx
-- with: 1
-- rows: 1
SELECT id, message, status, created_at FROM notifications WHERE user_id = $1 ORDER BY id DESC LIMIT 50;

-- The last permission of another takes is_shared along. The file is locked
-- first, in the same transaction, so that nobody shares it meanwhile:
-- name: lock_file
-- index: files_pkey
-- with: 'report-1'
-- rows: 1
SELECT id FROM files WHERE id = $1 FOR UPDATE;

-- name: unshare_file
-- index: permissions_grant_key
-- with: 'report-1', 2
-- rows: 1
DELETE FROM permissions WHERE file_id = $1 AND user_id = $2 AND NOT is_owner;

-- name: note_unshared
-- index: files_pkey, permissions_file_idx
-- with: 'report-1'
-- rows: 1
UPDATE files SET is_shared = EXISTS (SELECT FROM permissions WHERE file_id = $1 AND NOT is_owner) WHERE id = $1;
