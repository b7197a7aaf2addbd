//! The migrations as declared, and how far they are.

use std::collections::BTreeMap;

use crate::api::{MigrationPlan, PendingApproval};
use crate::migrate::source::MigrationSet;

/// What is declared.
pub enum Declared {
    /// Nothing.
    Nothing,
    /// What is declared cannot be read.
    Unreadable {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// A set of migrations, and the files that it was read from.
    Set {
        /// The migrations.
        set: MigrationSet,
        /// The files, as each ConfigMap has them.
        parts: Vec<BTreeMap<String, String>>,
    },
    /// What only the Job can read; this stands for it.
    Unread(String),
}

impl Declared {
    /// The migrations, where the operator can read them.
    pub fn set(&self) -> Option<&MigrationSet> {
        match self {
            Self::Set { set, .. } => Some(set),
            _ => None,
        }
    }

    /// What names them; none if nothing readable is declared.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Set { set, .. } => Some(&set.revision),
            Self::Unread(revision) => Some(revision),
            Self::Nothing | Self::Unreadable { .. } => None,
        }
    }
}

/// How far the migrations are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// None are declared.
    NotDeclared,
    /// They cannot start yet.
    Waiting {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// What they wait for.
        message: String,
    },
    /// The Job is under way.
    Running,
    /// The Job is under way, or is tried again, and something is in its way.
    Hindered {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// What.
        message: String,
    },
    /// What may lose stored data waits for a person's word.
    Held(PendingApproval),
    /// The ledger says that the schema is at its target.
    Applied,
    /// A dry run said what would be run.
    Planned(MigrationPlan),
    /// The Job ended in vain, and trying again would too.
    Failed {
        /// A reason of `api::conditions::reason`.
        reason: String,
        /// The file, the SQLSTATE, and what to do.
        message: String,
    },
}
