DROP TRIGGER matches_begin_unfinished ON matches;
DROP FUNCTION refuse_finished_insert();
DROP TRIGGER matches_record ON matches;
DROP FUNCTION record_finished_match();
DROP FUNCTION record_match(uuid);
DROP TABLE player_statistics;
