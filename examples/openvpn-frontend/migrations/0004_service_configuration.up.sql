-- The service's configuration: what administrators change while it runs. Who set
-- what, and when, is kept by a trigger, as the owner: the application reads it only.

CREATE TABLE service_configuration (
  key        text        PRIMARY KEY CONSTRAINT service_configuration_key_check
             CHECK (key ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$' AND char_length(key) <= 100),
  value      jsonb       NOT NULL CONSTRAINT service_configuration_value_check CHECK (octet_length(value::text) <= 65536),
  -- Counted by the trigger. Query: change_setting, which says what it has seen, so nobody undoes a change unseen.
  revision   integer     NOT NULL DEFAULT 1,
  updated_by uuid        REFERENCES oidc_identities (id) ON DELETE SET NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE service_configuration IS 'Settings by name. Secrets do not belong here: they are in Vault.';

CREATE INDEX service_configuration_updated_by_idx ON service_configuration (updated_by) WHERE updated_by IS NOT NULL;

CREATE TABLE service_configuration_history (
  key        text        NOT NULL,
  revision   integer     NOT NULL,
  value      jsonb,
  changed_by uuid        REFERENCES oidc_identities (id) ON DELETE SET NULL,
  changed_at timestamptz NOT NULL DEFAULT now(),
  -- Query: read_history. Without a foreign key to the setting: a deleted one keeps its history.
  PRIMARY KEY (key, revision)
);

COMMENT ON TABLE service_configuration_history IS 'Every value that a setting had; null: it was deleted. Append-only: written by the trigger on service_configuration.';

CREATE INDEX service_configuration_history_changed_by_idx ON service_configuration_history (changed_by) WHERE changed_by IS NOT NULL;

REVOKE INSERT, UPDATE, DELETE ON service_configuration_history FROM openvpn_frontend_db_app;

CREATE FUNCTION number_setting() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.key <> OLD.key THEN
      RAISE EXCEPTION 'a setting does not change its name'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'service_configuration_key_stays';
    END IF;
    IF NEW.value = OLD.value THEN
      -- Who set it was deleted (a null by the foreign key), or nothing changes.
      NEW.revision := OLD.revision;
      RETURN NEW;
    END IF;
  END IF;
  -- Goes on counting where a deleted setting of the name stopped.
  SELECT coalesce(max(h.revision), 0) + 1 INTO NEW.revision
  FROM public.service_configuration_history h WHERE h.key = NEW.key;
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION number_setting() IS 'Trigger: gives a setting''s value its number.';

CREATE FUNCTION keep_setting_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO public.service_configuration_history (key, revision, value) VALUES (OLD.key, OLD.revision + 1, NULL);
  ELSIF TG_OP = 'INSERT' OR NEW.revision <> OLD.revision THEN
    INSERT INTO public.service_configuration_history (key, revision, value, changed_by)
    VALUES (NEW.key, NEW.revision, NEW.value, NEW.updated_by);
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION keep_setting_history() IS 'Trigger: stores each value. Runs as the owner, since the application cannot write the history.';

REVOKE EXECUTE ON FUNCTION number_setting(), keep_setting_history() FROM PUBLIC, openvpn_frontend_db_app;

CREATE TRIGGER service_configuration_number BEFORE INSERT OR UPDATE ON service_configuration
FOR EACH ROW EXECUTE FUNCTION number_setting();
CREATE TRIGGER service_configuration_keep_history AFTER INSERT OR UPDATE OR DELETE ON service_configuration
FOR EACH ROW EXECUTE FUNCTION keep_setting_history();
