//! Orders of the operator to an agent, and their results.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A task that an agent executes once. The order names the agent, which does nothing if the state
/// differs from the one in the order, and whose report has the order's id when it is done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Another id is another order.
    pub id: OrderId,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The action.
    pub action: Action,
}

/// Identifies an order among all orders that a database's agents ever get.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OrderId {
    /// The cause.
    pub cause: Cause,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

/// The cause of an order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cause {
    /// A user's request for a switchover.
    Switchover {
        /// The annotation's value.
        request: String,
    },
    /// A user's request for a restart.
    Restart {
        /// The annotation's value.
        request: String,
    },
    /// A setting needs a restart: identified by the spec's generation and the primary's start.
    Parameters {
        /// `metadata.generation` of the resource.
        generation: i64,
        /// When the primary's PostgreSQL was started, if another instance is restarted.
        primary_started_at: Option<Timestamp>,
    },
    /// A planned change continues only once another instance leads.
    Planned {
        /// The waiting change.
        purpose: Purpose,
        /// When that was decided.
        decided_at: Timestamp,
    },
}

/// A change that continues once another instance leads.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// The primary is next to be replaced or restarted.
    Rollout,
    /// The primary is removed with a scale-down.
    ScaleDown,
    /// The primary's node is being drained.
    Drain,
}

impl OrderId {
    /// The first attempt.
    pub fn first(cause: Cause) -> Self {
        Self { cause, attempt: 1 }
    }
}

/// The action of an order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Hand the lead over.
    Switchover {
        /// The pod that leads and executes the order.
        from: String,
        /// The pod that becomes the leader.
        to: String,
    },
    /// Restart PostgreSQL in place.
    Restart {
        /// On this pod.
        pod: String,
    },
}

impl Action {
    /// The pod whose agent executes it.
    pub fn pod(&self) -> &str {
        match self {
            Self::Switchover { from, .. } => from,
            Self::Restart { pod } => pod,
        }
    }
}

/// The result of an order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OrderReport {
    /// The order's id.
    pub id: OrderId,
    /// Why it failed, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
