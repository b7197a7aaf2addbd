ALTER TABLE matches
  DROP CONSTRAINT matches_bracket_key,
  DROP CONSTRAINT matches_tournament_check,
  DROP COLUMN bracket_position,
  DROP COLUMN round,
  DROP COLUMN tournament_id;
ALTER TABLE tournaments DROP CONSTRAINT tournaments_winner_fkey;
DROP TABLE tournament_players;
DROP FUNCTION limit_registrations();
DROP TABLE tournaments;
