//! Migration Job to operator: the container's termination message, and the ledger's shape.
//!
//! The ledger is the truth; the message only adds what the ledger of a refused run cannot
//! say.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::{MigrationPlan, PendingApproval};

/// How a revision is brought to a database, as `spec.migrations` declares it: from the
/// operator to the Job, as JSON in its environment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// The version that the schema shall have; the newest without it, nothing with 0.
    pub target_version: Option<i64>,
    /// Whether what is above the target may be rolled back.
    pub allow_rollback: bool,
    /// Whether a version below the newest applied one may still be applied.
    pub allow_out_of_order: bool,
    /// Up to which version an empty ledger takes the schema as migrated already.
    pub baseline_version: Option<i64>,
    /// Whether to say what would be run, and to run nothing.
    pub dry_run: bool,
    /// Whether what may lose stored data waits for a person. Left out where it does not, so
    /// that a run is called as it was before there was such a thing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub manual_approval: bool,
    /// What a person approved ([`PendingApproval::id`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
    /// How long a statement waits for a table's lock, in seconds.
    pub lock_timeout_seconds: u32,
    /// How long a statement may take, in seconds; 0 is for ever.
    pub statement_timeout_seconds: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            target_version: None,
            allow_rollback: false,
            allow_out_of_order: false,
            baseline_version: None,
            dry_run: false,
            manual_approval: false,
            approved: None,
            lock_timeout_seconds: 5,
            statement_timeout_seconds: 3600,
        }
    }
}

impl Policy {
    /// What the ledger records when a revision has come to its target: the revision, with the
    /// target where one is declared.
    pub fn goal(&self, revision: &str) -> String {
        match self.target_version {
            None => revision.to_owned(),
            Some(target) => hash(&[revision, &target.to_string()]),
        }
    }

    /// What an approval names: the files, the target, and from where they would be run.
    pub fn approval_id(&self, revision: &str) -> String {
        let baseline = self.baseline_version.map(|version| version.to_string()).unwrap_or_default();
        hash(&["approval", &self.goal(revision), &baseline])
    }

    /// What names a run: another policy is another run, since it may go better.
    pub fn run(&self, revision: &str) -> String {
        if *self == Self::default() {
            return revision.to_owned();
        }
        // A document of strings, numbers and booleans always has a JSON form.
        hash(&[revision, &serde_json::to_string(self).unwrap_or_default()])
    }

    /// Whether a version belongs to the target.
    pub fn wants(&self, version: i64) -> bool {
        self.target_version.is_none_or(|target| version <= target)
    }
}

/// A name for parts that belong together: SHA-256, hexadecimal.
pub fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a migration Job says as it ends, as JSON in its termination message (4 KiB at most).
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The revision that the Job was to apply.
    pub revision: String,
    /// How many migrations it applied.
    pub applied: i64,
    /// How many it rolled back.
    #[serde(default)]
    pub rolled_back: i64,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// Of a dry run: what would be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<MigrationPlan>,
    /// What waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<PendingApproval>,
    /// Of a check for drift: what it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftFound>,
    /// Why it ended without all applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What a check for drift found.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DriftFound {
    /// How many objects are not as the migrations give them.
    pub count: i64,
    /// The first 12.
    pub differences: Vec<String>,
}

/// Why a migration Job ended without all applied.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A reason of `api::conditions::reason`.
    pub reason: String,
    /// The file, where one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1, where the server tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The server's SQLSTATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// What happened and what to do, for people.
    pub message: String,
    /// Whether another try without a change may go better (the server was not there).
    pub transient: bool,
}

/// The channel that the Job notifies when the ledger changed; the leader's agent listens.
pub const LEDGER_CHANNEL: &str = "servicedb_ledger";

/// Creates the ledger; run by the migrator as the owner, idempotent.
///
/// `status` is one of pending, executing, completed, failed. The down file is kept as it was
/// when the migration was applied: what reverts it, whatever the source has by then.
/// `revision` has one row: the revision that was last found complete ([`Policy::goal`]), and
/// what a team's own tool calls the schema's version.
pub const LEDGER_DDL: &str = "\
CREATE SCHEMA IF NOT EXISTS servicedb;
CREATE TABLE IF NOT EXISTS servicedb.migrations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version     bigint NOT NULL UNIQUE CHECK (version >= 0),
    name        text NOT NULL,
    status      text NOT NULL CHECK (status IN ('pending', 'executing', 'completed', 'failed')),
    checksum    text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_ms bigint,
    error       text,
    down_file   text,
    down_sql    text
);
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'servicedb.migrations'::pg_catalog.regclass AND attname = 'down_sql') THEN
        ALTER TABLE servicedb.migrations ADD COLUMN down_file text, ADD COLUMN down_sql text;
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS servicedb.revision (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision     text NOT NULL,
    version      text,
    completed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'servicedb.revision'::pg_catalog.regclass AND attname = 'version') THEN
        ALTER TABLE servicedb.revision ADD COLUMN version text;
    END IF;
END $$;";
