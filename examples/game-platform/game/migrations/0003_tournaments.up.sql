-- Tournament records: the tournament, who registered, and which matches are its.

CREATE TABLE tournaments (
  id                    uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  name                  text        NOT NULL CONSTRAINT tournaments_name_check
                        CHECK (char_length(name) BETWEEN 1 AND 100 AND name = btrim(name) AND name !~ '[[:cntrl:]]'),
  format                text        NOT NULL DEFAULT 'single_elimination' CONSTRAINT tournaments_format_check
                        CHECK (format IN ('single_elimination', 'double_elimination', 'round_robin')),
  status                text        NOT NULL DEFAULT 'registration' CONSTRAINT tournaments_status_check
                        CHECK (status IN ('registration', 'running', 'finished', 'cancelled')),
  max_players           smallint    NOT NULL DEFAULT 16 CONSTRAINT tournaments_max_players_check CHECK (max_players BETWEEN 2 AND 256),
  created_by            uuid        NOT NULL,
  created_at            timestamptz NOT NULL DEFAULT now(),
  starts_at             timestamptz NOT NULL,
  started_at            timestamptz,
  finished_at           timestamptz,
  winner_id             uuid,
  CONSTRAINT tournaments_times_check CHECK (
    CASE status WHEN 'registration' THEN started_at IS NULL AND finished_at IS NULL
                WHEN 'running' THEN started_at IS NOT NULL AND finished_at IS NULL
                WHEN 'finished' THEN started_at IS NOT NULL AND finished_at IS NOT NULL AND finished_at >= started_at
                ELSE finished_at IS NULL END),
  CONSTRAINT tournaments_winner_check CHECK ((winner_id IS NOT NULL) = (status = 'finished'))
);

COMMENT ON TABLE tournaments IS 'Tournaments, from registration to the winner.';

-- Query: list_open_tournaments.
CREATE INDEX tournaments_open_idx ON tournaments (starts_at) WHERE status = 'registration';
-- Query: list_finished_tournaments.
CREATE INDEX tournaments_finished_idx ON tournaments (finished_at DESC) WHERE status = 'finished';

CREATE TABLE tournament_players (
  tournament_id uuid        NOT NULL REFERENCES tournaments (id) ON DELETE CASCADE,
  player_id     uuid        NOT NULL,
  alias         text        CONSTRAINT tournament_players_alias_check CHECK (char_length(alias) BETWEEN 1 AND 32 AND alias !~ '[[:cntrl:]]'),
  registered_at timestamptz NOT NULL DEFAULT now(),
  seed          smallint    CONSTRAINT tournament_players_seed_check CHECK (seed >= 1),
  final_rank    smallint    CONSTRAINT tournament_players_final_rank_check CHECK (final_rank >= 1),
  PRIMARY KEY (tournament_id, player_id),
  -- Query: list_tournament_players.
  CONSTRAINT tournament_players_seed_key UNIQUE (tournament_id, seed),
  CONSTRAINT tournament_players_alias_key UNIQUE (tournament_id, alias)
);

COMMENT ON TABLE tournament_players IS 'Registrations, with the seed and in the end the rank.';

-- Query: list_tournaments_of_player.
CREATE INDEX tournament_players_player_idx ON tournament_players (player_id, registered_at DESC);

-- Who wins took part.
ALTER TABLE tournaments ADD CONSTRAINT tournaments_winner_fkey
  FOREIGN KEY (id, winner_id) REFERENCES tournament_players (tournament_id, player_id);

CREATE FUNCTION limit_registrations() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  places smallint;
BEGIN
  -- The lock makes registrations of one tournament take turns: the last place
  -- is given once.
  SELECT max_players INTO places FROM tournaments
  WHERE id = NEW.tournament_id AND status = 'registration' FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the tournament does not take registrations'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'tournament_players_registration_open';
  END IF;
  IF (SELECT count(*) FROM tournament_players WHERE tournament_id = NEW.tournament_id) >= places THEN
    RAISE EXCEPTION 'the tournament is full'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'tournament_players_places';
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION limit_registrations() IS 'Trigger: lets players in while registration is open and there is a place.';

CREATE TRIGGER tournament_players_limit BEFORE INSERT ON tournament_players
FOR EACH ROW EXECUTE FUNCTION limit_registrations();

ALTER TABLE matches
  ADD COLUMN tournament_id    uuid REFERENCES tournaments (id),
  ADD COLUMN round            smallint CONSTRAINT matches_round_check CHECK (round >= 1),
  ADD COLUMN bracket_position smallint CONSTRAINT matches_bracket_position_check CHECK (bracket_position >= 1),
  ADD CONSTRAINT matches_tournament_check CHECK (
    (tournament_id IS NULL) = (round IS NULL)
    AND (tournament_id IS NULL) = (bracket_position IS NULL)
    AND (tournament_id IS NULL OR mode = 'tournament')),
  -- Query: show_bracket.
  ADD CONSTRAINT matches_bracket_key UNIQUE (tournament_id, round, bracket_position);

COMMENT ON COLUMN matches.tournament_id IS 'Set, with round and position, for a match of a tournament.';
