-- Transformation jobs: what shall be made of a file.

CREATE TABLE transformation_jobs (
  -- In the order of their asking, which is the order in which they are taken.
  id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  file_id             text        NOT NULL REFERENCES files (id) ON DELETE CASCADE,
  transformation_type text        NOT NULL CONSTRAINT transformation_jobs_type_check
                      CHECK (transformation_type IN ('ocr', 'resize', 'convert', 'thumbnail')),
  status              text        NOT NULL DEFAULT 'pending' CONSTRAINT transformation_jobs_status_check
                      CHECK (status IN ('pending', 'running', 'complete', 'failed')),
  created_at          timestamptz NOT NULL DEFAULT now(),
  updated_at          timestamptz NOT NULL DEFAULT now()
);

-- Query: take_job. Small: finished jobs leave it.
CREATE INDEX transformation_jobs_pending_idx ON transformation_jobs (id) WHERE status = 'pending';
-- Query: request_transformation. Asked for twice while it is under way, it is one job.
CREATE UNIQUE INDEX transformation_jobs_open_key ON transformation_jobs (file_id, transformation_type)
  WHERE status IN ('pending', 'running');
-- Query: list_jobs_of_file; and the foreign key.
CREATE INDEX transformation_jobs_file_idx ON transformation_jobs (file_id);
-- Query: release_stuck_jobs.
CREATE INDEX transformation_jobs_running_idx ON transformation_jobs (updated_at) WHERE status = 'running';

CREATE TRIGGER transformation_jobs_touch BEFORE UPDATE ON transformation_jobs
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- What is finished stays so: a worker that was slow does not reopen a job that
-- was released and done by another.
CREATE FUNCTION keep_finished_jobs() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a finished job does not change its status'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'transformation_jobs_finished';
END
$$;

COMMENT ON FUNCTION keep_finished_jobs() IS 'Trigger: refuses another status for a finished job.';

CREATE TRIGGER transformation_jobs_finished BEFORE UPDATE OF status ON transformation_jobs
FOR EACH ROW WHEN (OLD.status IN ('complete', 'failed') AND NEW.status <> OLD.status)
EXECUTE FUNCTION keep_finished_jobs();
