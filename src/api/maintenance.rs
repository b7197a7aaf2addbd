//! `spec.maintenance`, and its part of status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nulls::null_as_default;
use super::status::{RequestState, RequestStatus};

/// Maintenance of the database: when, and what. Without windows nothing is done that PostgreSQL does not do itself,
/// unless a user requests it; `status.maintenance.due` lists what would be done.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceSpec {
    /// Windows in which the database is maintained; they must not overlap. With `spec.updatePolicy: Window`, a new
    /// version of the operator or its images is followed in them, too.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Vec<MaintenanceWindow>,

    /// Whether to run `VACUUM` on tables with dead rows that autovacuum has not reached.
    #[serde(default = "default_true")]
    pub vacuum: bool,

    /// Whether to run `ANALYZE` on tables whose statistics are missing or stale, among them partitioned tables, which
    /// autovacuum never analyzes.
    #[serde(default = "default_true")]
    pub analyze: bool,

    /// Whether to freeze tables ahead of transaction id wraparound, before autovacuum must do it at any time.
    #[serde(default = "default_true")]
    pub freeze: bool,

    /// Rebuilding of bloated indexes.
    #[serde(default)]
    pub reindex: ReindexSpec,

    /// Whether to update extensions to the version of the image.
    #[serde(default)]
    pub update_extensions: bool,
}

/// Rebuilding of indexes, with `REINDEX INDEX CONCURRENTLY`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReindexSpec {
    /// Whether bloated indexes are rebuilt.
    #[serde(default = "default_true")]
    pub enabled: bool,

    /// The unused part of an index, in percent, from which it is rebuilt, 10 to 95. Indexes under 1 MiB are left.
    #[serde(default = "default_bloat_percent")]
    #[x_kube(validation = Rule::new("self >= 10 && self <= 95").message("spec.maintenance.reindex.bloatPercent must be from 10 to 95"))]
    pub bloat_percent: i32,
}

/// A window: when it opens, and for how long.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// When it opens: a cron expression with five fields, such as `0 3 * * SUN`. `H` in a field stands for a value that
    /// depends on the resource.
    #[schemars(length(min = 1, max = 100))]
    pub schedule: String,

    /// For how many minutes it is open, 1 to 1440. What is not finished by then is broken off.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1440").message("spec.maintenance.windows[].durationMinutes must be from 1 to 1440"))]
    pub duration_minutes: i32,

    /// Time zone of the schedule, such as `Europe/Berlin`. Default: UTC.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

impl Default for MaintenanceSpec {
    fn default() -> Self {
        Self {
            windows: Vec::new(),
            vacuum: true,
            analyze: true,
            freeze: true,
            reindex: ReindexSpec::default(),
            update_extensions: false,
        }
    }
}

impl Default for ReindexSpec {
    fn default() -> Self {
        Self { enabled: true, bloat_percent: default_bloat_percent() }
    }
}

fn default_true() -> bool {
    true
}

fn default_bloat_percent() -> i32 {
    50
}

/// State of the maintenance.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceStatus {
    /// When the next window opens; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window: Option<Time>,
    /// When the open window closes; absent while none is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_until: Option<Time>,
    /// Why the work of an open window or of a request waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// When what is due was last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surveyed_at: Option<Time>,
    /// What is due, by the fields of `spec.maintenance`, in the order in which it is done; at most 20.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub due: Vec<MaintenanceItem>,
    /// How many are due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_count: Option<i64>,
    /// The last run, in a window or by a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<MaintenanceRun>,
    /// What was done, the newest first; at most 20.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub done: Vec<MaintenanceDone>,
    /// The last request for a run (`kubectl servicedb maintenance --now`), and its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestStatus>,
    /// The rollout that a window began and that is not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<WindowRollout>,
}

/// A rollout that a window began.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WindowRollout {
    /// Identifies the template of the pods.
    pub id: String,
    /// When it began.
    pub started_at: Time,
}

/// A kind of maintenance.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MaintenanceAction {
    /// `ALTER EXTENSION … UPDATE`.
    UpdateExtension,
    /// Removal of an invalid index that a broken-off `REINDEX CONCURRENTLY` left.
    RemoveLeftover,
    /// `VACUUM (FREEZE)`.
    Freeze,
    /// `VACUUM`.
    Vacuum,
    /// `ANALYZE`.
    Analyze,
    /// `REINDEX INDEX CONCURRENTLY`.
    Reindex,
}

/// Something that is due.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceItem {
    /// The kind.
    pub action: MaintenanceAction,
    /// The table, index or extension, quoted as in a statement.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// Something that was done.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceDone {
    /// The kind.
    pub action: MaintenanceAction,
    /// The table, index or extension, quoted as in a statement.
    pub object: String,
    /// When it began.
    pub at: Time,
    /// How long it took, in milliseconds.
    pub milliseconds: i64,
    /// By how many bytes the object, with its indexes, became smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed_bytes: Option<i64>,
    /// Why it was not completed; absent if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A run: a window's, or a requested one.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceRun {
    /// When it began.
    pub started_at: Time,
    /// Its state; `Failed` if something of it failed or was broken off.
    pub state: RequestState,
    /// What is in progress, or the summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
