DROP FUNCTION first_broken_entry(bigint, bigint);
DROP TABLE checkpoints;
ALTER TABLE certificate_log DROP CONSTRAINT certificate_log_entry_key;
