//! Orders of the operator to an agent, and what became of them.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What an agent shall do once. It is the one that the order names, it does nothing if things
/// are not as the order says, and its report has the order's id when it is done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Another id is another order.
    pub id: OrderId,
    /// When it was given.
    pub issued_at: Timestamp,
    /// What shall be done.
    pub action: Action,
}

/// What tells an order from all others that a database's agents ever get.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OrderId {
    /// Why it is given.
    pub cause: Cause,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

/// Why an order is given.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cause {
    /// Somebody asked for a switchover, by this token.
    Switchover {
        /// The annotation's value.
        request: String,
    },
    /// Somebody asked for a restart, by this token.
    Restart {
        /// The annotation's value.
        request: String,
    },
    /// A setting needs a restart: what the spec of this generation declares, with the primary as it runs.
    Parameters {
        /// `metadata.generation` of the resource.
        generation: i64,
        /// When the primary's PostgreSQL was started, if the restart is another's.
        primary_started_at: Option<Timestamp>,
    },
    /// A planned change goes on only once another instance leads.
    Planned {
        /// What waits for it.
        purpose: Purpose,
        /// When that was decided.
        decided_at: Timestamp,
    },
}

/// What goes on once another instance leads.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// The primary's turn to be replaced or restarted.
    Rollout,
    /// The primary goes with the instances that are given up.
    ScaleDown,
    /// The primary's node is being emptied.
    Drain,
}

impl OrderId {
    /// The first attempt.
    pub fn first(cause: Cause) -> Self {
        Self { cause, attempt: 1 }
    }
}

/// What shall be done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Hand the lead over.
    Switchover {
        /// The pod that leads, and carries it out.
        from: String,
        /// The pod that shall lead.
        to: String,
    },
    /// Restart PostgreSQL in its place.
    Restart {
        /// On this pod.
        pod: String,
    },
}

impl Action {
    /// The pod whose agent carries it out.
    pub fn pod(&self) -> &str {
        match self {
            Self::Switchover { from, .. } => from,
            Self::Restart { pod } => pod,
        }
    }
}

/// What became of an order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OrderReport {
    /// The order's id.
    pub id: OrderId,
    /// Why it was not done, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
