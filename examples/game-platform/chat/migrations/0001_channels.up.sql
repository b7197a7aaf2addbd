-- Chat channels and who is in them. User and tournament ids belong to other
-- services; their tables are in other databases, so nothing here refers to them.

CREATE TABLE chat_channels (
  id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  kind            text        NOT NULL CONSTRAINT chat_channels_kind_check CHECK (kind IN ('direct', 'group', 'tournament')),
  name            text        CONSTRAINT chat_channels_name_check
                  CHECK (char_length(name) BETWEEN 1 AND 100 AND name = btrim(name) AND name !~ '[[:cntrl:]]'),
  direct_low      uuid,
  direct_high     uuid,
  tournament_id   uuid,
  created_by      uuid,
  created_at      timestamptz NOT NULL DEFAULT now(),
  archived_at     timestamptz,
  last_seq        bigint      NOT NULL DEFAULT 0 CONSTRAINT chat_channels_last_seq_check CHECK (last_seq >= 0),
  last_message_at timestamptz,
  CONSTRAINT chat_channels_direct_check CHECK (CASE kind
    WHEN 'direct' THEN direct_low IS NOT NULL AND direct_high IS NOT NULL AND direct_low < direct_high AND name IS NULL
    ELSE direct_low IS NULL AND direct_high IS NULL AND name IS NOT NULL END),
  CONSTRAINT chat_channels_tournament_check CHECK ((kind = 'tournament') = (tournament_id IS NOT NULL)),
  -- Query: open_direct_channel. Two people have one direct channel.
  CONSTRAINT chat_channels_direct_key UNIQUE (direct_low, direct_high),
  -- Query: find_tournament_channel.
  CONSTRAINT chat_channels_tournament_key UNIQUE (tournament_id)
-- Every message updates last_seq, so each page keeps room for the new version.
) WITH (fillfactor = 80);

COMMENT ON TABLE chat_channels IS 'A conversation: direct (two people, the lower id first), group, or the channel of a tournament.';
COMMENT ON COLUMN chat_channels.last_seq IS 'The number of the newest message; the next message takes the next one.';

CREATE TABLE channel_members (
  channel_id  uuid        NOT NULL REFERENCES chat_channels (id) ON DELETE CASCADE,
  user_id     uuid        NOT NULL,
  role        text        NOT NULL DEFAULT 'member' CONSTRAINT channel_members_role_check CHECK (role IN ('owner', 'admin', 'member')),
  nickname    text        CONSTRAINT channel_members_nickname_check
              CHECK (char_length(nickname) BETWEEN 1 AND 64 AND nickname !~ '[[:cntrl:]]'),
  joined_at   timestamptz NOT NULL DEFAULT now(),
  muted_until timestamptz,
  left_at     timestamptz,
  -- Query: list_members.
  PRIMARY KEY (channel_id, user_id),
  CONSTRAINT channel_members_left_check CHECK (left_at >= joined_at)
);

COMMENT ON TABLE channel_members IS 'Membership. Who leaves keeps the row, with left_at: the messages keep their author.';
COMMENT ON COLUMN channel_members.muted_until IS 'Set by an admin of the channel: the member cannot write until then.';

-- Query: list_my_channels.
CREATE INDEX channel_members_user_idx ON channel_members (user_id) WHERE left_at IS NULL;

CREATE FUNCTION keep_direct_channels_private() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM chat_channels c
  WHERE c.id = NEW.channel_id AND c.kind = 'direct' AND NEW.user_id NOT IN (c.direct_low, c.direct_high);
  IF FOUND THEN
    RAISE EXCEPTION 'a direct channel has no third member'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'channel_members_direct_pair';
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION keep_direct_channels_private() IS 'Trigger: refuses anyone but the two people of a direct channel.';

CREATE TRIGGER channel_members_direct_pair BEFORE INSERT OR UPDATE OF channel_id, user_id ON channel_members
FOR EACH ROW EXECUTE FUNCTION keep_direct_channels_private();
