-- The queries of the game service, in an order in which they can be run on an
-- empty game_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values

-- name: create_session
-- with: '5e550000-0000-4000-8000-000000000001', 'ranked', '6f1c0c9e-0000-4000-8000-000000000001', 'game-server-0', '{"map": "classic"}'
-- rows: 1
INSERT INTO game_sessions (id, mode, created_by, server, settings) VALUES ($1, $2, $3, $4, $5) RETURNING created_at;

-- name: join_session
-- with: '5e550000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO session_players (session_id, player_id) VALUES ($1, $2);

-- name: join_session
-- with: '5e550000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
INSERT INTO session_players (session_id, player_id) VALUES ($1, $2);

-- name: list_waiting_sessions
-- index: game_sessions_waiting_idx
-- with: 'ranked'
-- rows: 1
SELECT id, max_players, settings, created_at FROM game_sessions
WHERE mode = $1 AND status = 'waiting' ORDER BY created_at LIMIT 20;

-- name: find_current_session
-- index: session_players_current_key, game_sessions_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
SELECT s.id, s.mode, s.status, s.server
FROM session_players p JOIN game_sessions s ON s.id = p.session_id
WHERE p.player_id = $1 AND p.left_at IS NULL;

-- name: list_session_players
-- index: session_players_pkey
-- with: '5e550000-0000-4000-8000-000000000001'
-- rows: 2
SELECT player_id, joined_at FROM session_players WHERE session_id = $1 AND left_at IS NULL;

-- name: start_session
-- index: game_sessions_pkey
-- with: '5e550000-0000-4000-8000-000000000001'
-- rows: 1
UPDATE game_sessions SET status = 'active', started_at = now() WHERE id = $1 AND status = 'waiting';

-- name: start_match
-- with: 'aa7c0000-0000-4000-8000-000000000001', '5e550000-0000-4000-8000-000000000001', 'ranked'
-- rows: 1
INSERT INTO matches (id, session_id, mode, status, started_at) VALUES ($1, $2, $3, 'playing', now());

-- name: add_match_player
-- with: 'aa7c0000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 1
-- rows: 1
INSERT INTO match_players (match_id, player_id, slot) VALUES ($1, $2, $3);

-- name: add_match_player
-- with: 'aa7c0000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 2
-- rows: 1
INSERT INTO match_players (match_id, player_id, slot) VALUES ($1, $2, $3);

-- In one transaction: this for each player, then finish_match.
-- name: set_result
-- index: match_players_pkey
-- with: 'aa7c0000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 11, 'win', 16
-- rows: 1
UPDATE match_players SET score = $3, result = $4, rating_change = $5 WHERE match_id = $1 AND player_id = $2;

-- name: set_result
-- with: 'aa7c0000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 7, 'loss', -16
-- rows: 1
UPDATE match_players SET score = $3, result = $4, rating_change = $5 WHERE match_id = $1 AND player_id = $2;

-- name: finish_match
-- index: matches_pkey
-- with: 'aa7c0000-0000-4000-8000-000000000001'
-- rows: 1
UPDATE matches SET status = 'finished', finished_at = now() WHERE id = $1 AND status = 'playing';

-- name: end_session
-- index: game_sessions_pkey, session_players_pkey
-- with: '5e550000-0000-4000-8000-000000000001'
-- rows: 1
WITH gone AS (
  UPDATE session_players SET left_at = now() WHERE session_id = $1 AND left_at IS NULL
)
UPDATE game_sessions SET status = 'ended', ended_at = now() WHERE id = $1 AND status <> 'ended';

-- name: list_session_matches
-- index: matches_session_idx
-- with: '5e550000-0000-4000-8000-000000000001'
-- rows: 1
SELECT id, status, started_at, finished_at FROM matches WHERE session_id = $1 ORDER BY created_at;

-- The newest page: $2 = 'infinity'; the next: the last finished_at of the page before.
-- name: list_player_matches
-- index: match_players_history_idx, matches_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'infinity'
-- rows: 1
SELECT me.match_id, m.mode, m.tournament_id, me.finished_at, me.score, me.result, me.rating_change,
       (SELECT jsonb_agg(jsonb_build_object('player', o.player_id, 'score', o.score, 'result', o.result) ORDER BY o.slot)
        FROM match_players o WHERE o.match_id = me.match_id AND o.player_id <> me.player_id) AS opponents
FROM match_players me JOIN matches m ON m.id = me.match_id
WHERE me.player_id = $1 AND me.finished_at IS NOT NULL AND me.finished_at < $2::timestamptz
ORDER BY me.finished_at DESC, me.match_id LIMIT 20;

-- name: list_recent_matches
-- index: matches_finished_idx
-- rows: 1
SELECT id, mode, finished_at FROM matches WHERE status = 'finished' ORDER BY finished_at DESC LIMIT 20;

-- name: get_statistics
-- index: player_statistics_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT played, wins, losses, draws, points, win_streak, best_streak, rating, last_played_at
FROM player_statistics WHERE player_id = $1;

-- name: leaderboard
-- index: player_statistics_rating_idx
-- rows: 2
SELECT player_id, rating, played, wins FROM player_statistics ORDER BY rating DESC, player_id LIMIT 100;

-- name: rank_of_player
-- index: player_statistics_pkey, player_statistics_rating_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
SELECT 1 + count(*) AS rank FROM player_statistics
WHERE rating > (SELECT rating FROM player_statistics WHERE player_id = $1);

-- name: sessions_of_server
-- index: game_sessions_server_idx
-- with: 'game-server-0'
-- rows: 0
SELECT id, status FROM game_sessions WHERE server = $1 AND status <> 'ended';

-- name: create_tournament
-- with: 'a0000000-0000-4000-8000-000000000001', 'Winter cup', 4, '6f1c0c9e-0000-4000-8000-000000000001', '2 hours'
-- rows: 1
INSERT INTO tournaments (id, name, max_players, created_by, starts_at) VALUES ($1, $2, $3, $4, now() + $5::interval);

-- name: register_player
-- index: tournament_players_pkey
-- with: 'a0000000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 'Ada'
-- rows: 1
INSERT INTO tournament_players (tournament_id, player_id, alias) VALUES ($1, $2, $3)
ON CONFLICT (tournament_id, player_id) DO NOTHING;

-- name: register_player
-- with: 'a0000000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 'Grace'
-- rows: 1
INSERT INTO tournament_players (tournament_id, player_id, alias) VALUES ($1, $2, $3)
ON CONFLICT (tournament_id, player_id) DO NOTHING;

-- name: list_open_tournaments
-- index: tournaments_open_idx
-- rows: 1
SELECT id, name, format, max_players, starts_at FROM tournaments
WHERE status = 'registration' ORDER BY starts_at LIMIT 50;

-- name: start_tournament
-- index: tournaments_pkey
-- with: 'a0000000-0000-4000-8000-000000000001'
-- rows: 1
UPDATE tournaments SET status = 'running', started_at = now() WHERE id = $1 AND status = 'registration';

-- name: schedule_tournament_match
-- with: 'a0000000-0000-4000-8000-000000000001', 1, 1
-- rows: 1
INSERT INTO matches (tournament_id, round, bracket_position, mode) VALUES ($1, $2, $3, 'tournament') RETURNING id;

-- name: show_bracket
-- index: matches_bracket_key
-- with: 'a0000000-0000-4000-8000-000000000001'
-- rows: 1
SELECT m.id, m.round, m.bracket_position, m.status, p.player_id, p.score, p.result
FROM matches m LEFT JOIN match_players p ON p.match_id = m.id
WHERE m.tournament_id = $1 ORDER BY m.round, m.bracket_position, p.slot;

-- name: list_tournament_players
-- index: tournament_players_seed_key
-- with: 'a0000000-0000-4000-8000-000000000001'
-- rows: 2
SELECT player_id, alias, seed, final_rank FROM tournament_players WHERE tournament_id = $1 ORDER BY seed;

-- name: finish_tournament
-- index: tournaments_pkey
-- with: 'a0000000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
UPDATE tournaments SET status = 'finished', finished_at = now(), winner_id = $2 WHERE id = $1 AND status = 'running';

-- name: list_finished_tournaments
-- index: tournaments_finished_idx
-- rows: 1
SELECT id, name, format, finished_at, winner_id FROM tournaments
WHERE status = 'finished' ORDER BY finished_at DESC LIMIT 20;

-- name: list_tournaments_of_player
-- index: tournament_players_player_idx, tournaments_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
SELECT t.id, t.name, t.status, p.final_rank
FROM tournament_players p JOIN tournaments t ON t.id = p.tournament_id
WHERE p.player_id = $1 ORDER BY p.registered_at DESC LIMIT 20;
