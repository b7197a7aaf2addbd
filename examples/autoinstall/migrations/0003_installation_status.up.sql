-- How far the installation of a system is: a row a phase, with its times.

CREATE TABLE installation_status (
  id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  system_id   uuid        NOT NULL REFERENCES systems (id) ON DELETE CASCADE,
  attempt     integer     NOT NULL DEFAULT 1 CONSTRAINT installation_status_attempt_check CHECK (attempt > 0),
  phase       text        NOT NULL CONSTRAINT installation_status_phase_check
              CHECK (phase IN ('boot', 'partition', 'install', 'configure', 'reboot')),
  progress    smallint    NOT NULL DEFAULT 0 CONSTRAINT installation_status_progress_check CHECK (progress BETWEEN 0 AND 100),
  message     text        NOT NULL DEFAULT '' CONSTRAINT installation_status_message_check CHECK (char_length(message) <= 4000),
  started_at  timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  outcome     text        CONSTRAINT installation_status_outcome_check CHECK (outcome IN ('done', 'failed')),
  CONSTRAINT installation_status_finished_check CHECK (finished_at >= started_at),
  CONSTRAINT installation_status_finished_with_outcome CHECK ((finished_at IS NULL) = (outcome IS NULL)),
  CONSTRAINT installation_status_done_is_complete CHECK (outcome <> 'done' OR progress = 100),
  -- Query: show_installation. A phase that is reported twice is one row.
  CONSTRAINT installation_status_phase_key UNIQUE (system_id, attempt, phase)
-- Progress is written often and is in no index: room for the new version in the same page.
) WITH (fillfactor = 80);

COMMENT ON TABLE installation_status IS 'The phases of each installation of a system. Installing again is another attempt.';

-- Query: report_progress. A system is in one phase at a time.
CREATE UNIQUE INDEX installation_status_running_key ON installation_status (system_id) WHERE finished_at IS NULL;
-- Query: list_stuck.
CREATE INDEX installation_status_started_idx ON installation_status (started_at) WHERE finished_at IS NULL;
