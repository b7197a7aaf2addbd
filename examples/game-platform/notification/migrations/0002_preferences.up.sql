-- Notification preferences: per person, kind and channel. Only what differs from
-- the default is stored, so changing a default reaches everyone who never chose.

CREATE TABLE notification_defaults (
  kind      text    NOT NULL REFERENCES notification_kinds (kind),
  channel   text    NOT NULL CONSTRAINT notification_defaults_channel_check CHECK (channel IN ('in_app', 'email', 'push')),
  enabled   boolean NOT NULL,
  mandatory boolean NOT NULL DEFAULT false,
  PRIMARY KEY (kind, channel),
  CONSTRAINT notification_defaults_mandatory_check CHECK (enabled OR NOT mandatory)
);

COMMENT ON TABLE notification_defaults IS 'Which channels a kind uses, for whoever has not chosen. Filled by migrations, read-only for the application.';
COMMENT ON COLUMN notification_defaults.mandatory IS 'Cannot be switched off.';

REVOKE INSERT, UPDATE, DELETE ON notification_defaults FROM notification_db_app;

INSERT INTO notification_defaults (kind, channel, enabled, mandatory)
SELECT k.kind, c.channel,
       CASE c.channel
         WHEN 'in_app' THEN true
         WHEN 'push' THEN k.kind NOT IN ('match_result', 'tournament_result')
         ELSE k.kind IN ('security_alert', 'tournament_starting')
       END,
       k.kind = 'security_alert' AND c.channel IN ('in_app', 'email')
FROM notification_kinds k CROSS JOIN (VALUES ('in_app'), ('email'), ('push')) AS c (channel);

CREATE TABLE notification_preferences (
  user_id    uuid        NOT NULL,
  kind       text        NOT NULL,
  channel    text        NOT NULL,
  enabled    boolean     NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- Queries: get_preferences, channels_for.
  PRIMARY KEY (user_id, kind, channel),
  CONSTRAINT notification_preferences_kind_channel_fkey FOREIGN KEY (kind, channel)
    REFERENCES notification_defaults (kind, channel) ON DELETE CASCADE
);

COMMENT ON TABLE notification_preferences IS 'What a person chose. No row: the default.';

CREATE FUNCTION keep_mandatory_notifications() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM notification_defaults d WHERE d.kind = NEW.kind AND d.channel = NEW.channel AND d.mandatory;
  IF FOUND THEN
    RAISE EXCEPTION '% by % cannot be switched off', NEW.kind, NEW.channel
      USING ERRCODE = 'check_violation', CONSTRAINT = 'notification_preferences_mandatory';
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION keep_mandatory_notifications() IS 'Trigger: refuses to switch off what is mandatory.';

CREATE TRIGGER notification_preferences_mandatory BEFORE INSERT OR UPDATE ON notification_preferences
FOR EACH ROW WHEN (NOT NEW.enabled) EXECUTE FUNCTION keep_mandatory_notifications();
