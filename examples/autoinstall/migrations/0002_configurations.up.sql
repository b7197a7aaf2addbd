-- Installation configurations and the templates they are made from.

CREATE TABLE configurations (
  id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  kind          text        NOT NULL CONSTRAINT configurations_kind_check CHECK (kind IN ('configuration', 'template')),
  name          text        NOT NULL CONSTRAINT configurations_name_check
                CHECK (char_length(name) BETWEEN 1 AND 200 AND name = btrim(name)),
  system_id     uuid        REFERENCES systems (id) ON DELETE CASCADE,
  template_id   uuid,
  -- Always the same: it is there for the foreign key, which thereby finds templates only.
  template_kind text        NOT NULL GENERATED ALWAYS AS ('template') STORED,
  content       text        NOT NULL CONSTRAINT configurations_content_check CHECK (octet_length(content) BETWEEN 1 AND 1048576),
  is_current    boolean     NOT NULL DEFAULT true,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT configurations_system_check CHECK ((kind = 'template') = (system_id IS NULL)),
  CONSTRAINT configurations_template_check CHECK (kind = 'configuration' OR template_id IS NULL),
  CONSTRAINT configurations_kind_key UNIQUE (id, kind),
  -- A template that is in use cannot be deleted.
  CONSTRAINT configurations_template_fkey FOREIGN KEY (template_id, template_kind) REFERENCES configurations (id, kind)
);

COMMENT ON TABLE configurations IS 'A template for many systems, or the configuration of one. Replaced ones stay, with is_current false.';
COMMENT ON COLUMN configurations.content IS 'The autoinstall document, as it is served to the installer.';

-- Query: find_template.
CREATE UNIQUE INDEX configurations_template_name_key ON configurations (name) WHERE kind = 'template' AND is_current;
-- Query: serve_configuration. A system has one configuration that counts.
CREATE UNIQUE INDEX configurations_current_key ON configurations (system_id) WHERE kind = 'configuration' AND is_current;
-- Both foreign keys: deleting a system or a template finds what refers to it.
CREATE INDEX configurations_system_idx ON configurations (system_id, created_at);
CREATE INDEX configurations_template_idx ON configurations (template_id) WHERE template_id IS NOT NULL;

CREATE TRIGGER configurations_touch BEFORE UPDATE ON configurations
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
