DROP TABLE match_players;
DROP TABLE matches;
DROP FUNCTION keep_finished_results();
DROP FUNCTION finish_match();
DROP TABLE session_players;
DROP TABLE game_sessions;
