-- What game_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: player_in_two_sessions
-- refused: 23505 session_players_current_key
WITH s AS (
  INSERT INTO game_sessions (mode, created_by)
  SELECT 'casual', '6f1c0c9e-0000-4000-8000-000000000003' FROM generate_series(1, 2) RETURNING id
)
INSERT INTO session_players (session_id, player_id) SELECT id, '6f1c0c9e-0000-4000-8000-000000000003' FROM s;

-- name: session_that_ended_before_it_began
-- refused: 23514 game_sessions_times_check
INSERT INTO game_sessions (mode, created_by, status, ended_at)
VALUES ('casual', '6f1c0c9e-0000-4000-8000-000000000001', 'ended', now() - interval '1 day');

-- name: active_session_without_a_start
-- refused: 23514 game_sessions_times_check
INSERT INTO game_sessions (mode, created_by, status) VALUES ('casual', '6f1c0c9e-0000-4000-8000-000000000001', 'active');

-- name: finished_match_changed
-- refused: 55000
UPDATE matches SET mode = 'casual' WHERE id = 'aa7c0000-0000-4000-8000-000000000001';

-- name: finished_match_deleted
-- refused: 55000
DELETE FROM matches WHERE id = 'aa7c0000-0000-4000-8000-000000000001';

-- name: finished_result_changed
-- refused: 55000
UPDATE match_players SET result = 'win'
WHERE match_id = 'aa7c0000-0000-4000-8000-000000000001' AND player_id = '6f1c0c9e-0000-4000-8000-000000000002';

-- name: player_added_to_a_finished_match
-- refused: 55000
INSERT INTO match_players (match_id, player_id, slot)
VALUES ('aa7c0000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000003', 3);

-- name: match_finished_without_players
-- refused: 23514 matches_finished_with_results
UPDATE matches SET status = 'finished', started_at = now(), finished_at = now()
WHERE tournament_id = 'a0000000-0000-4000-8000-000000000001';

-- name: match_that_begins_finished
-- refused: 23514 matches_begin_unfinished
INSERT INTO matches (mode, status, started_at, finished_at) VALUES ('casual', 'finished', now(), now());

-- name: negative_score
-- refused: 23514 match_players_score_check
INSERT INTO match_players (match_id, player_id, slot, score)
SELECT id, '6f1c0c9e-0000-4000-8000-000000000003', 1, -1 FROM matches
WHERE tournament_id = 'a0000000-0000-4000-8000-000000000001';

-- name: statistics_improved_by_hand
-- refused: 42501
UPDATE player_statistics SET rating = 3000;

-- name: match_counted_twice
-- refused: 42501
SELECT record_match('aa7c0000-0000-4000-8000-000000000001');

-- name: tournament_match_without_a_place_in_the_bracket
-- refused: 23514 matches_tournament_check
INSERT INTO matches (mode, tournament_id) VALUES ('tournament', 'a0000000-0000-4000-8000-000000000001');

-- name: two_matches_at_one_place_of_the_bracket
-- refused: 23505 matches_bracket_key
INSERT INTO matches (mode, tournament_id, round, bracket_position)
VALUES ('tournament', 'a0000000-0000-4000-8000-000000000001', 1, 1);

-- name: registration_after_the_start
-- refused: 23514 tournament_players_registration_open
INSERT INTO tournament_players (tournament_id, player_id)
VALUES ('a0000000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000003');

-- name: winner_who_did_not_play
-- refused: 23503 tournaments_winner_fkey
UPDATE tournaments SET winner_id = '6f1c0c9e-0000-4000-8000-000000000003'
WHERE id = 'a0000000-0000-4000-8000-000000000001';

-- name: finished_without_a_winner
-- refused: 23514 tournaments_winner_check
UPDATE tournaments SET winner_id = NULL WHERE id = 'a0000000-0000-4000-8000-000000000001';

-- name: the_application_changes_the_schema
-- refused: 42501
DROP TRIGGER matches_record ON matches;
