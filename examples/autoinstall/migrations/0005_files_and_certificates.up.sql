-- What two more services keep here: the file editor its files' metadata, the
-- certificate issuer what it has issued. Contents and private keys are not here.

CREATE TABLE file_metadata (
  id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  system_id  uuid        REFERENCES systems (id) ON DELETE CASCADE,
  path       text        NOT NULL CONSTRAINT file_metadata_path_key UNIQUE
             CONSTRAINT file_metadata_path_check
             CHECK (char_length(path) <= 1024 AND path ~ '^(/[^/[:cntrl:]]+)+$' AND path !~ '/\.\.?(/|$)'),
  sha256     bytea       NOT NULL CONSTRAINT file_metadata_sha256_check CHECK (octet_length(sha256) = 32),
  size_bytes bigint      NOT NULL CONSTRAINT file_metadata_size_check CHECK (size_bytes >= 0),
  edited_by  uuid        REFERENCES users (id) ON DELETE SET NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE file_metadata IS 'Files that the file editor serves and edits. Those of no system are for all.';

-- Query: list_files; and the foreign keys.
CREATE INDEX file_metadata_system_idx ON file_metadata (system_id, path);
CREATE INDEX file_metadata_edited_by_idx ON file_metadata (edited_by) WHERE edited_by IS NOT NULL;

CREATE TRIGGER file_metadata_touch BEFORE UPDATE ON file_metadata
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE TABLE certificates (
  id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  -- A certificate outlives the record of its system: it is valid all the same, and may have to be revoked.
  system_id     uuid        REFERENCES systems (id) ON DELETE SET NULL,
  serial_number text        NOT NULL CONSTRAINT certificates_serial_number_key UNIQUE
                CONSTRAINT certificates_serial_number_check CHECK (serial_number ~ '^[0-9a-f]{1,40}$'),
  subject       text        NOT NULL CONSTRAINT certificates_subject_check CHECK (char_length(subject) BETWEEN 1 AND 1000),
  certificate   text        NOT NULL CONSTRAINT certificates_certificate_check
                CHECK (certificate LIKE '-----BEGIN CERTIFICATE-----%' AND certificate NOT LIKE '%PRIVATE KEY%'),
  not_before    timestamptz NOT NULL,
  not_after     timestamptz NOT NULL,
  revoked_at    timestamptz,
  created_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT certificates_validity_check CHECK (not_after > not_before)
);

COMMENT ON COLUMN certificates.serial_number IS 'Hexadecimal, lower case, no colons.';
COMMENT ON COLUMN certificates.certificate IS 'PEM. A private key is refused.';

CREATE INDEX certificates_system_idx ON certificates (system_id);
-- Query: list_expiring_certificates.
CREATE INDEX certificates_expiry_idx ON certificates (not_after) WHERE revoked_at IS NULL;
