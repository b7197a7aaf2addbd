//! Migration Job to operator: the container's termination message, and the ledger's shape.
//!
//! The ledger is authoritative; the message only adds details of a refused run, which the ledger
//! does not have.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::{MigrationPlan, PendingApproval};

/// How a revision is applied to a database, as `spec.migrations` declares it: from the operator
/// to the Job, as JSON in its environment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// The target version of the schema; the newest if absent, no migration with 0.
    pub target_version: Option<i64>,
    /// Whether migrations above the target may be rolled back.
    pub allow_rollback: bool,
    /// Whether a version below the newest applied one may still be applied.
    pub allow_out_of_order: bool,
    /// The version up to which an empty ledger records the schema as already migrated.
    pub baseline_version: Option<i64>,
    /// Whether to report the plan only, without running it.
    pub dry_run: bool,
    /// Whether statements that may lose stored data wait for approval. Omitted if not, so that the
    /// run has the same name as before this field existed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub manual_approval: bool,
    /// The approval ([`PendingApproval::id`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
    /// How long a statement waits for a table's lock, in seconds.
    pub lock_timeout_seconds: u32,
    /// How long a statement may take, in seconds; 0 is no limit.
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
    /// The value that the ledger records when a revision has reached its target: the revision, with
    /// the target if one is declared.
    pub fn goal(&self, revision: &str) -> String {
        match self.target_version {
            None => revision.to_owned(),
            Some(target) => hash(&[revision, &target.to_string()]),
        }
    }

    /// The id of an approval: a hash of the files, the target, and the baseline.
    pub fn approval_id(&self, revision: &str) -> String {
        let baseline = self.baseline_version.map(|version| version.to_string()).unwrap_or_default();
        hash(&["approval", &self.goal(revision), &baseline])
    }

    /// The name of a run: another policy is another run, since it may succeed.
    pub fn run(&self, revision: &str) -> String {
        if *self == Self::default() {
            return revision.to_owned();
        }
        // A document of strings, numbers and booleans can always be serialised.
        hash(&[revision, &serde_json::to_string(self).unwrap_or_default()])
    }

    /// Whether a version belongs to the target.
    pub fn wants(&self, version: i64) -> bool {
        self.target_version.is_none_or(|target| version <= target)
    }
}

/// A hash over several parts: SHA-256, hexadecimal.
pub fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The result of a migration Job, as JSON in its termination message (4 KiB at most).
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The Job's revision.
    pub revision: String,
    /// How many migrations it applied.
    pub applied: i64,
    /// How many it rolled back.
    #[serde(default)]
    pub rolled_back: i64,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// Of a dry run: the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<MigrationPlan>,
    /// The statements that wait for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<PendingApproval>,
    /// The result of a drift check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftFound>,
    /// Why not all migrations were applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The result of a drift check.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DriftFound {
    /// The number of objects that differ from the migrations.
    pub count: i64,
    /// The first 12.
    pub differences: Vec<String>,
}

/// Why a migration Job did not apply all migrations.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A reason of `api::conditions::reason`.
    pub reason: String,
    /// The failing file, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1, if the server reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The server's SQLSTATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The message: what happened and the remedy.
    pub message: String,
    /// Whether a retry without a change may succeed (the server was unavailable).
    pub transient: bool,
}

/// The channel on which the Job reports changes of the ledger; the leader's agent listens.
pub const LEDGER_CHANNEL: &str = "servicedb_ledger";

/// Creates the ledger; run by the migrator as the owner, idempotent.
///
/// `status` is one of pending, executing, completed, failed. The down file is stored when the
/// migration is applied: a rollback uses it, whatever the source contains by then.
/// `revision` has one row: the last completed revision ([`Policy::goal`]), and the schema's
/// version according to a team's own tool.
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
