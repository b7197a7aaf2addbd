-- The log of all certificate operations. It is append-only: entries are added and
-- read, and nothing else. Three things hold that, each against somebody else:
--   the application's role has no right to do otherwise;
--   a trigger refuses it to everybody, the owner too, so that a migration does
--   not do it by mistake;
--   each entry has the hash of the one before, so that whoever got past both
--   (a superuser, who came by the server's files) is found out by the chain.

CREATE TABLE certificate_log (
  -- 0, 1, 2, … without gaps, in the order in which entries become visible.
  leaf_index         bigint      PRIMARY KEY CONSTRAINT certificate_log_leaf_index_check CHECK (leaf_index >= 0),
  logged_at          timestamptz NOT NULL,
  operation          text        NOT NULL CONSTRAINT certificate_log_operation_check
                     CHECK (operation IN ('issued', 'renewed', 'revoked')),
  serial_number      text        NOT NULL CONSTRAINT certificate_log_serial_number_check CHECK (serial_number ~ '^[0-9a-f]{1,40}$'),
  fingerprint_sha256 bytea       NOT NULL CONSTRAINT certificate_log_fingerprint_is_sha256 CHECK (octet_length(fingerprint_sha256) = 32),
  issuer             text        NOT NULL CONSTRAINT certificate_log_issuer_check CHECK (char_length(issuer) BETWEEN 1 AND 1000),
  subject            text        NOT NULL CONSTRAINT certificate_log_subject_check CHECK (char_length(subject) BETWEEN 1 AND 1000),
  common_name        text        NOT NULL CONSTRAINT certificate_log_common_name_check CHECK (char_length(common_name) BETWEEN 1 AND 253),
  not_before         timestamptz NOT NULL,
  not_after          timestamptz NOT NULL,
  certificate_der    bytea,
  revocation_reason  text        CONSTRAINT certificate_log_revocation_reason_check
                     CHECK (revocation_reason IN ('unspecified', 'key_compromise', 'ca_compromise', 'affiliation_changed',
                       'superseded', 'cessation_of_operation', 'privilege_withdrawn')),
  requested_by       text        NOT NULL CONSTRAINT certificate_log_requested_by_check CHECK (char_length(requested_by) BETWEEN 1 AND 255),
  request_id         uuid        NOT NULL,
  previous_hash      bytea       NOT NULL CONSTRAINT certificate_log_previous_hash_check CHECK (octet_length(previous_hash) = 32),
  entry_hash         bytea       NOT NULL CONSTRAINT certificate_log_entry_hash_check CHECK (octet_length(entry_hash) = 32),
  CONSTRAINT certificate_log_validity_check CHECK (not_after > not_before),
  -- What was issued is in the log, whole; a revocation names it by its fingerprint.
  CONSTRAINT certificate_log_certificate_check CHECK ((operation = 'revoked') = (certificate_der IS NULL)),
  CONSTRAINT certificate_log_certificate_is_the_fingerprinted CHECK (fingerprint_sha256 = sha256(certificate_der)),
  CONSTRAINT certificate_log_revoked_with_reason CHECK ((operation = 'revoked') = (revocation_reason IS NOT NULL)),
  -- Query: append_entry. The same request again, after a lost reply, is the same entry.
  CONSTRAINT certificate_log_request_key UNIQUE (request_id),
  -- No entry has two successors.
  CONSTRAINT certificate_log_chain_key UNIQUE (previous_hash)
);

COMMENT ON TABLE certificate_log IS 'Every certificate operation, append-only. Number, time and hashes are given by the trigger certificate_log_append.';
COMMENT ON COLUMN certificate_log.serial_number IS 'Hexadecimal, lower case, no colons.';
COMMENT ON COLUMN certificate_log.entry_hash IS 'SHA-256 over all of the entry, previous_hash included.';
COMMENT ON COLUMN certificate_log.previous_hash IS 'The entry_hash of the entry before; of the first entry, 32 zero bytes.';

-- An issuer gives a serial number once, and a certificate is revoked once.
CREATE UNIQUE INDEX certificate_log_issued_key ON certificate_log (issuer, serial_number) WHERE operation <> 'revoked';
CREATE UNIQUE INDEX certificate_log_revoked_key ON certificate_log (issuer, serial_number) WHERE operation = 'revoked';

-- A JSON array says where each value ends, so no two entries have one text; times
-- go as seconds, since their text depends on the session's time zone.
CREATE FUNCTION certificate_log_hash(entry certificate_log) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT sha256(convert_to(jsonb_build_array(
    entry.leaf_index, extract(epoch FROM entry.logged_at), entry.operation, entry.serial_number,
    encode(entry.fingerprint_sha256, 'hex'), entry.issuer, entry.subject, entry.common_name,
    extract(epoch FROM entry.not_before), extract(epoch FROM entry.not_after), encode(entry.certificate_der, 'hex'),
    entry.revocation_reason, entry.requested_by, entry.request_id, encode(entry.previous_hash, 'hex'))::text, 'UTF8'))
$$;

COMMENT ON FUNCTION certificate_log_hash(certificate_log) IS 'What entry_hash must be, from the rest of the entry.';

-- One writer at a time, until its transaction ends: the number is the next one and
-- the entry before is known. So no gap opens when a transaction is rolled back, and
-- a reader who has seen entry 7 never meets a new 6. A lock on the table would do,
-- but a writer has one already and would wait for another writer that waits for it.
-- The search path, so that no temporary table of the same name is taken for the log.
CREATE FUNCTION append_to_certificate_log() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  latest public.certificate_log;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('certificate_log', 0));
  SELECT * INTO latest FROM public.certificate_log ORDER BY leaf_index DESC LIMIT 1;
  NEW.leaf_index := coalesce(latest.leaf_index + 1, 0);
  -- Not now(), which is when the transaction began; and never back, whatever the clock does.
  NEW.logged_at := greatest(clock_timestamp(), latest.logged_at);
  NEW.previous_hash := coalesce(latest.entry_hash, decode(repeat('00', 32), 'hex'));
  NEW.entry_hash := public.certificate_log_hash(NEW);
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION append_to_certificate_log() IS 'Trigger: gives an entry its number, its time, and its place in the chain.';

CREATE TRIGGER certificate_log_append BEFORE INSERT ON certificate_log
FOR EACH ROW EXECUTE FUNCTION append_to_certificate_log();

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;

COMMENT ON FUNCTION refuse_change() IS 'Trigger: refuses whatever it is put on, to everybody.';

-- By statement, not by row: what would have changed no row is refused as well.
CREATE TRIGGER certificate_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON certificate_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The application gives the facts; number, time and hashes it cannot even name.
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON certificate_log FROM openvpn_certtransparency_db_app;
GRANT INSERT (operation, serial_number, fingerprint_sha256, issuer, subject, common_name, not_before, not_after,
              certificate_der, revocation_reason, requested_by, request_id)
  ON certificate_log TO openvpn_certtransparency_db_app;
