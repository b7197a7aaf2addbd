DROP TABLE permissions;
ALTER TABLE files DROP CONSTRAINT files_owner_key;
