-- Takes the log along: dropping the table is no statement on its rows.
DROP TRIGGER certificate_log_append ON certificate_log;
DROP FUNCTION append_to_certificate_log();
DROP FUNCTION certificate_log_hash(certificate_log);
DROP TABLE certificate_log;
DROP FUNCTION refuse_change();
