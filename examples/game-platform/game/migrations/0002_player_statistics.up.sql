-- Player statistics: the sums over finished matches, kept at hand for profiles
-- and the leaderboard. A trigger writes them in the transaction that finishes the
-- match, so they never differ from the match history; the application reads only.

CREATE TABLE player_statistics (
  player_id      uuid        PRIMARY KEY,
  played         integer     NOT NULL DEFAULT 0,
  wins           integer     NOT NULL DEFAULT 0 CONSTRAINT player_statistics_wins_check CHECK (wins >= 0),
  losses         integer     NOT NULL DEFAULT 0 CONSTRAINT player_statistics_losses_check CHECK (losses >= 0),
  draws          integer     NOT NULL DEFAULT 0 CONSTRAINT player_statistics_draws_check CHECK (draws >= 0),
  points         bigint      NOT NULL DEFAULT 0 CONSTRAINT player_statistics_points_check CHECK (points >= 0),
  win_streak     integer     NOT NULL DEFAULT 0 CONSTRAINT player_statistics_win_streak_check CHECK (win_streak >= 0),
  best_streak    integer     NOT NULL DEFAULT 0,
  rating         integer     NOT NULL DEFAULT 1000 CONSTRAINT player_statistics_rating_check CHECK (rating >= 0),
  last_played_at timestamptz NOT NULL,
  CONSTRAINT player_statistics_sum_check CHECK (played = wins + losses + draws),
  CONSTRAINT player_statistics_streak_check CHECK (best_streak BETWEEN win_streak AND wins)
);

COMMENT ON TABLE player_statistics IS 'Sums over a player''s finished matches. Written by the trigger on matches; read-only for the application.';
COMMENT ON COLUMN player_statistics.rating IS 'Begins at 1000; only ranked and tournament matches move it.';

-- Queries: leaderboard, rank_of_player.
CREATE INDEX player_statistics_rating_idx ON player_statistics (rating DESC, player_id);

REVOKE INSERT, UPDATE, DELETE ON player_statistics FROM game_db_app;

CREATE FUNCTION record_match(finished_match uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.player_statistics AS s
    (player_id, played, wins, losses, draws, points, win_streak, best_streak, rating, last_played_at)
  SELECT p.player_id, 1, (p.result = 'win')::integer, (p.result = 'loss')::integer, (p.result = 'draw')::integer,
         p.score, (p.result = 'win')::integer, (p.result = 'win')::integer,
         greatest(0, 1000 + CASE WHEN m.mode = 'casual' THEN 0 ELSE p.rating_change END), m.finished_at
  FROM public.match_players p JOIN public.matches m ON m.id = p.match_id
  WHERE m.id = finished_match
  -- One order for everyone: two matches with the same players that finish at
  -- once wait for each other and do not deadlock.
  ORDER BY p.player_id
  ON CONFLICT (player_id) DO UPDATE SET
    played = s.played + 1,
    wins = s.wins + excluded.wins,
    losses = s.losses + excluded.losses,
    draws = s.draws + excluded.draws,
    points = s.points + excluded.points,
    win_streak = CASE WHEN excluded.wins = 1 THEN s.win_streak + 1 ELSE 0 END,
    best_streak = CASE WHEN excluded.wins = 1 THEN greatest(s.best_streak, s.win_streak + 1) ELSE s.best_streak END,
    -- excluded.rating is 1000 plus the change.
    rating = greatest(0, s.rating + excluded.rating - 1000),
    last_played_at = greatest(s.last_played_at, excluded.last_played_at)
$$;

COMMENT ON FUNCTION record_match(uuid) IS 'Adds one finished match to the statistics of its players. For the trigger only: a second call would count the match twice.';

REVOKE EXECUTE ON FUNCTION record_match(uuid) FROM PUBLIC, game_db_app;

CREATE FUNCTION record_finished_match() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM public.record_match(NEW.id);
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION record_finished_match() IS 'Trigger: counts a match when it finishes. Runs as the owner, since the application cannot write statistics.';

REVOKE EXECUTE ON FUNCTION record_finished_match() FROM PUBLIC;

CREATE TRIGGER matches_record AFTER UPDATE OF status ON matches
FOR EACH ROW WHEN (NEW.status = 'finished' AND OLD.status <> 'finished')
EXECUTE FUNCTION record_finished_match();

-- A match is finished by an update, never created finished: nothing goes by uncounted.
CREATE FUNCTION refuse_finished_insert() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a match is created before it is finished'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'matches_begin_unfinished';
END
$$;

COMMENT ON FUNCTION refuse_finished_insert() IS 'Trigger: refuses to insert a match that is finished already.';

CREATE TRIGGER matches_begin_unfinished BEFORE INSERT ON matches
FOR EACH ROW WHEN (NEW.status = 'finished') EXECUTE FUNCTION refuse_finished_insert();

-- The matches that were played before, in order, for the streaks.
DO $$
DECLARE
  old_match uuid;
BEGIN
  FOR old_match IN SELECT id FROM matches WHERE status = 'finished' ORDER BY finished_at, id LOOP
    PERFORM record_match(old_match);
  END LOOP;
END
$$;
