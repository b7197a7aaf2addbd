-- Game sessions, the matches played in them, and who played. Player ids are the
-- user ids of the auth service, in another database.

CREATE TABLE game_sessions (
  id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  mode        text        NOT NULL CONSTRAINT game_sessions_mode_check CHECK (mode IN ('casual', 'ranked', 'tournament')),
  status      text        NOT NULL DEFAULT 'waiting'
              CONSTRAINT game_sessions_status_check CHECK (status IN ('waiting', 'active', 'ended')),
  max_players smallint    NOT NULL DEFAULT 2 CONSTRAINT game_sessions_max_players_check CHECK (max_players BETWEEN 2 AND 16),
  server      text        CONSTRAINT game_sessions_server_check CHECK (char_length(server) <= 253),
  settings    jsonb       NOT NULL DEFAULT '{}' CONSTRAINT game_sessions_settings_check CHECK (jsonb_typeof(settings) = 'object'),
  created_by  uuid        NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  started_at  timestamptz,
  ended_at    timestamptz,
  CONSTRAINT game_sessions_times_check CHECK (
    CASE status WHEN 'waiting' THEN started_at IS NULL AND ended_at IS NULL
                WHEN 'active' THEN started_at IS NOT NULL AND ended_at IS NULL
                ELSE ended_at IS NOT NULL AND ended_at >= coalesce(started_at, created_at) END)
);

COMMENT ON TABLE game_sessions IS 'A room: people gather (waiting), play one or more matches (active), and leave (ended).';
COMMENT ON COLUMN game_sessions.server IS 'The game server that runs the session, to find the orphans of one that died.';

-- Query: list_waiting_sessions.
CREATE INDEX game_sessions_waiting_idx ON game_sessions (mode, created_at) WHERE status = 'waiting';
-- Query: sessions_of_server.
CREATE INDEX game_sessions_server_idx ON game_sessions (server) WHERE status <> 'ended';

CREATE TABLE session_players (
  session_id uuid        NOT NULL REFERENCES game_sessions (id) ON DELETE CASCADE,
  player_id  uuid        NOT NULL,
  joined_at  timestamptz NOT NULL DEFAULT now(),
  left_at    timestamptz,
  -- Query: list_session_players.
  PRIMARY KEY (session_id, player_id),
  CONSTRAINT session_players_left_check CHECK (left_at >= joined_at)
);

COMMENT ON TABLE session_players IS 'Who is, or was, in a session.';

-- Query: find_current_session. Nobody plays in two sessions at once.
CREATE UNIQUE INDEX session_players_current_key ON session_players (player_id) WHERE left_at IS NULL;

CREATE TABLE matches (
  id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  session_id  uuid        REFERENCES game_sessions (id),
  mode        text        NOT NULL CONSTRAINT matches_mode_check CHECK (mode IN ('casual', 'ranked', 'tournament')),
  status      text        NOT NULL DEFAULT 'scheduled'
              CONSTRAINT matches_status_check CHECK (status IN ('scheduled', 'playing', 'finished', 'cancelled')),
  created_at  timestamptz NOT NULL DEFAULT now(),
  started_at  timestamptz,
  finished_at timestamptz,
  CONSTRAINT matches_times_check CHECK (
    CASE status WHEN 'scheduled' THEN started_at IS NULL AND finished_at IS NULL
                WHEN 'playing' THEN started_at IS NOT NULL AND finished_at IS NULL
                WHEN 'finished' THEN started_at IS NOT NULL AND finished_at IS NOT NULL AND finished_at >= started_at
                ELSE finished_at IS NULL END)
);

COMMENT ON TABLE matches IS 'Match history. A finished match never changes again: a trigger refuses it.';

-- Query: list_session_matches; and the foreign key.
CREATE INDEX matches_session_idx ON matches (session_id, created_at);
-- Query: list_recent_matches.
CREATE INDEX matches_finished_idx ON matches (finished_at DESC) WHERE status = 'finished';

CREATE TABLE match_players (
  match_id      uuid        NOT NULL REFERENCES matches (id) ON DELETE CASCADE,
  player_id     uuid        NOT NULL,
  slot          smallint    NOT NULL CONSTRAINT match_players_slot_check CHECK (slot BETWEEN 1 AND 16),
  score         integer     NOT NULL DEFAULT 0 CONSTRAINT match_players_score_check CHECK (score >= 0),
  result        text        CONSTRAINT match_players_result_check CHECK (result IN ('win', 'loss', 'draw')),
  rating_change integer     NOT NULL DEFAULT 0 CONSTRAINT match_players_rating_change_check CHECK (abs(rating_change) <= 1000),
  finished_at   timestamptz,
  PRIMARY KEY (match_id, player_id),
  CONSTRAINT match_players_slot_key UNIQUE (match_id, slot)
);

COMMENT ON TABLE match_players IS 'Who played a match, with score and result.';
COMMENT ON COLUMN match_players.finished_at IS 'The time of matches.finished_at, copied when the match finishes: a player''s history comes from one index, in order.';

-- Query: list_player_matches.
CREATE INDEX match_players_history_idx ON match_players (player_id, finished_at DESC, match_id)
  WHERE finished_at IS NOT NULL;

CREATE FUNCTION finish_match() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  players bigint;
  winners bigint;
  losers  bigint;
  draws   bigint;
BEGIN
  IF OLD.status = 'finished' THEN
    RAISE EXCEPTION 'a finished match does not change' USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  IF NEW.status = 'finished' THEN
    SELECT count(*), count(*) FILTER (WHERE result = 'win'), count(*) FILTER (WHERE result = 'loss'),
           count(*) FILTER (WHERE result = 'draw')
    INTO players, winners, losers, draws
    FROM match_players WHERE match_id = NEW.id;
    IF players < 2 OR NOT (draws = players OR (winners > 0 AND losers > 0 AND winners + losers = players)) THEN
      RAISE EXCEPTION 'a match finishes with two players or more, and either all draw or some win and some lose'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'matches_finished_with_results';
    END IF;
    UPDATE match_players SET finished_at = NEW.finished_at WHERE match_id = NEW.id;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION finish_match() IS 'Trigger: lets a match finish with complete results only, and keeps a finished one as it is.';

CREATE TRIGGER matches_finish BEFORE UPDATE OR DELETE ON matches
FOR EACH ROW EXECUTE FUNCTION finish_match();

CREATE FUNCTION keep_finished_results() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  of_match uuid := CASE WHEN TG_OP = 'INSERT' THEN NEW.match_id ELSE OLD.match_id END;
BEGIN
  -- The share lock waits for a match that is just being finished.
  PERFORM 1 FROM matches m WHERE m.id = of_match AND m.status = 'finished' FOR SHARE;
  IF FOUND THEN
    RAISE EXCEPTION 'the results of a finished match do not change'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF TG_OP = 'UPDATE' AND NEW.match_id <> OLD.match_id THEN
    RAISE EXCEPTION 'a result stays with its match' USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION keep_finished_results() IS 'Trigger: keeps the players, scores and results of a finished match as they are.';

CREATE TRIGGER match_players_keep BEFORE INSERT OR UPDATE OR DELETE ON match_players
FOR EACH ROW EXECUTE FUNCTION keep_finished_results();
