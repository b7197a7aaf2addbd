//! Migration Job to operator: the container's termination message, and the ledger's shape.
//!
//! The ledger is authoritative; the message only adds details of a refused run, which the ledger
//! does not have.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::{MigrationFormat, MigrationPlan, PendingApproval, SchemaVersion};

/// How a revision is applied to a database, as `spec.migrations` declares it: from the operator
/// to the Job, as JSON in its environment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// The target version of the schema; the newest if absent, no migration with 0.
    pub target_version: Option<SchemaVersion>,
    /// Whether migrations above the target may be rolled back.
    pub allow_rollback: bool,
    /// Whether a version below the newest applied one may still be applied.
    pub allow_out_of_order: bool,
    /// The version up to which an empty ledger records the schema as already migrated.
    pub baseline_version: Option<SchemaVersion>,
    /// Whether an empty ledger records the migrations in the tool's own table. Omitted if not, as the
    /// fields below.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub baseline_from_tool: bool,
    /// The tool whose files these are.
    #[serde(skip_serializing_if = "MigrationFormat::is_auto")]
    pub format: MigrationFormat,
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
            baseline_from_tool: false,
            format: MigrationFormat::Auto,
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
        match &self.target_version {
            None => revision.to_owned(),
            Some(target) => hash(&[revision, target.as_str()]),
        }
    }

    /// The id of an approval: a hash of the files, the target, and the baseline.
    pub fn approval_id(&self, revision: &str) -> String {
        let baseline = self.baseline_version.as_ref().map_or("", SchemaVersion::as_str);
        let baseline = if self.baseline_from_tool { "FromTool" } else { baseline };
        hash(&["approval", &self.goal(revision), baseline])
    }

    /// The name of a run: another policy is another run, since it may succeed.
    pub fn run(&self, revision: &str) -> String {
        if *self == Self::default() {
            return revision.to_owned();
        }
        // A document of strings, numbers and booleans can always be serialised.
        hash(&[revision, &serde_json::to_string(self).unwrap_or_default()])
    }
}

/// The source of the migrations, as the ledger describes it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceReport {
    /// The tool whose files these are.
    pub format: String,
    /// The files that were passed over: the first [`IGNORED`] names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// How many there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub ignored_count: i64,
}

/// How many names of passed over files are shown, and how many bytes of each.
pub const IGNORED: usize = 12;
/// The maximum length of such a name, in bytes.
pub const IGNORED_NAME: usize = 100;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The number under which the ledger has a version: the version itself if it is a whole number, and
/// otherwise a hash of its text, so that agents and Jobs that only know numbers can read the ledger.
pub fn ledger_number(version: &SchemaVersion) -> i64 {
    version.number().unwrap_or_else(|| {
        let digest = Sha256::digest(version.as_str().as_bytes());
        let bytes = digest.iter().take(8).fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
        (bytes & (TEXT_VERSIONS - 1)) | TEXT_VERSIONS
    })
}

/// The numbers of versions that are texts are not below this one.
pub const TEXT_VERSIONS: i64 = 1 << 62;

/// A hash over several parts: SHA-256, hexadecimal.
pub fn hash(parts: &[&str]) -> String {
    hash_of(parts.iter().map(|part| part.as_bytes()))
}

/// The same over parts that need not be text.
pub fn hash_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
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
    /// Whether it is one that reverts a migration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reverting: bool,
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
/// `version` is [`ledger_number`] of a version, `version_text` its text, and `ordinal` sorts as the
/// migrations do, in bytes. Rows that a Job of an earlier version wrote lack both: then the number is
/// the version. `down_mode` is how the down file is run, if its first line does not say so.
/// `revision` has one row: the last completed revision ([`Policy::goal`]), and the schema's
/// version according to a team's own tool; `source` is a [`SourceReport`].
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
    down_sql    text,
    version_text text,
    ordinal     text COLLATE \"C\",
    down_mode   text
);
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'servicedb.migrations'::pg_catalog.regclass AND attname = 'down_sql') THEN
        ALTER TABLE servicedb.migrations ADD COLUMN down_file text, ADD COLUMN down_sql text;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'servicedb.migrations'::pg_catalog.regclass AND attname = 'version_text') THEN
        ALTER TABLE servicedb.migrations ADD COLUMN version_text text,
            ADD COLUMN ordinal text COLLATE pg_catalog.\"C\", ADD COLUMN down_mode text;
        UPDATE servicedb.migrations SET version_text = version::pg_catalog.text,
            ordinal = pg_catalog.lpad(version::pg_catalog.text, 20, '0');
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS servicedb.revision (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision     text NOT NULL,
    version      text,
    completed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    source       jsonb
);
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'servicedb.revision'::pg_catalog.regclass AND attname = 'version') THEN
        ALTER TABLE servicedb.revision ADD COLUMN version text;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'servicedb.revision'::pg_catalog.regclass AND attname = 'source') THEN
        ALTER TABLE servicedb.revision ADD COLUMN source jsonb;
    END IF;
END $$;";
