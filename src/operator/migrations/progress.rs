//! The declared migrations, and their progress.

use std::collections::BTreeMap;

use crate::api::{MigrationPlan, PendingApproval};
use crate::migrate::source::MigrationSet;

/// The declared migrations.
pub enum Declared {
    /// None.
    Nothing,
    /// The declared migrations are invalid.
    Unreadable {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// The problem and the remedy.
        message: String,
    },
    /// A set of migrations, and its files.
    Set {
        /// The migrations.
        set: MigrationSet,
        /// The files, by ConfigMap.
        parts: Vec<BTreeMap<String, Vec<u8>>>,
    },
    /// A source that only the Job can read; this hash identifies it.
    Unread(String),
}

impl Declared {
    /// The migrations, if the operator can read them.
    pub fn set(&self) -> Option<&MigrationSet> {
        match self {
            Self::Set { set, .. } => Some(set),
            _ => None,
        }
    }

    /// The revision; none if no readable migrations are declared.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Set { set, .. } => Some(&set.revision),
            Self::Unread(revision) => Some(revision),
            Self::Nothing | Self::Unreadable { .. } => None,
        }
    }
}

/// The progress of the migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// None are declared.
    NotDeclared,
    /// They cannot start yet.
    Waiting {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// The message.
        message: String,
    },
    /// The Job is running.
    Running,
    /// The Job is running or is retried, and has a problem.
    Hindered {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// The message.
        message: String,
    },
    /// Statements that may lose stored data wait for approval.
    Held(PendingApproval),
    /// According to the ledger, the schema is at its target.
    Applied,
    /// A dry run returned the plan.
    Planned(MigrationPlan),
    /// The Job failed, and a retry would fail too.
    Failed {
        /// A reason of `api::conditions::reason`.
        reason: String,
        /// The file, the SQLSTATE, and the remedy.
        message: String,
    },
}
