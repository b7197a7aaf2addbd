-- Checkpoints: the service signs the newest entry's hash, which stands for the
-- whole log up to it, and gives it to whoever asks. A log that was changed does not
-- come to the hash that somebody else has kept.

-- The target of checkpoints_entry_fkey.
ALTER TABLE certificate_log ADD CONSTRAINT certificate_log_entry_key UNIQUE (leaf_index, entry_hash);

CREATE TABLE checkpoints (
  -- Signing twice is signing once. Query: sign_checkpoint, latest_checkpoint.
  leaf_index bigint      PRIMARY KEY,
  entry_hash bytea       NOT NULL,
  key_id     text        NOT NULL CONSTRAINT checkpoints_key_id_check CHECK (key_id ~ '^[A-Za-z0-9._:/-]{1,128}$'),
  signature  bytea       NOT NULL CONSTRAINT checkpoints_signature_check CHECK (octet_length(signature) BETWEEN 64 AND 1024),
  signed_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT checkpoints_entry_fkey FOREIGN KEY (leaf_index, entry_hash) REFERENCES certificate_log (leaf_index, entry_hash)
);

COMMENT ON TABLE checkpoints IS 'Signed hashes of the log, append-only. The key is not in this database.';

CREATE TRIGGER checkpoints_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE UPDATE, DELETE, TRUNCATE ON checkpoints FROM openvpn_certtransparency_db_app;

-- The first entry from `first` to `last` that is not what was logged: another content,
-- another predecessor, or a number that is missing before it. Null: all are.
CREATE FUNCTION first_broken_entry(first bigint, last bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT min(c.leaf_index) FROM (
    SELECT l.leaf_index, l.entry_hash <> public.certificate_log_hash(l) AS changed, l.previous_hash,
           lag(l.leaf_index) OVER ahead AS index_before, lag(l.entry_hash) OVER ahead AS hash_before
    FROM public.certificate_log l
    WHERE l.leaf_index BETWEEN first_broken_entry.first - 1 AND first_broken_entry.last
    WINDOW ahead AS (ORDER BY l.leaf_index)
  ) c
  WHERE c.leaf_index >= first_broken_entry.first AND (c.changed
    OR coalesce(c.index_before, -1) <> c.leaf_index - 1
    OR coalesce(c.hash_before, decode(repeat('00', 32), 'hex')) <> c.previous_hash)
$$;

COMMENT ON FUNCTION first_broken_entry(bigint, bigint) IS 'Verifies part of the chain of certificate_log: the first entry of it that does not fit, or null.';
