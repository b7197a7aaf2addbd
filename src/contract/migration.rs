//! Migration Job to operator: the container's termination message, and the ledger's shape.
//!
//! The ledger is the truth; the message only adds what the ledger of a refused run cannot
//! say.

use serde::{Deserialize, Serialize};

/// What a migration Job says as it ends, as JSON in its termination message (4 KiB at most).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The revision that the Job was to apply.
    pub revision: String,
    /// How many migrations it applied.
    pub applied: i64,
    /// Why it ended without all applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Why a migration Job ended without all applied.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
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
/// `status` is one of pending, executing, completed, failed. `runs` has one row: the
/// revision that was last found complete.
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
    error       text
);
CREATE TABLE IF NOT EXISTS servicedb.revision (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision     text NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);";
