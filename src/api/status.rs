//! What the operator reports: `status`, only ever from what was applied and observed.

use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is, as last observed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDatabaseStatus {
    /// The generation of spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Reconciling, Stalled, DatabaseAvailable, CredentialsReady, MigrationsApplied,
    /// CertificatesReady, VaultReachable, SynchronousReplication, RolloutPending, and, once there was
    /// cause, SchemaDrift and VolumeNearlyFull.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The database's name, pinned when it was first resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,

    /// The PostgreSQL server's version, as the server tells it, such as `17.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_version: Option<String>,

    /// The pod that is the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,

    /// Ready instances of declared ones, such as `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<String>,

    /// The schema's version: the newest applied migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,

    /// Where to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// The migrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationsStatus>,
    /// Whether the schema has drifted from its migrations; absent before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,

    /// The credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsStatus>,

    /// The certificates and their authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,

    /// The Secret with the credentials, once it holds them (servicebinding.io's Provisioned
    /// Service).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingStatus>,

    /// The size that the volumes have at most: `spec.storage.size` cannot be set below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "volume_size_schema")]
    pub volume_size: Option<Quantity>,

    /// With `spec.updatePolicy: Manual`: what an approval would change in the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<PendingRollout>,

    /// The last switchover that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<RequestStatus>,

    /// The last restart of PostgreSQL that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RequestStatus>,

    /// While the resource is being deleted: what the deletion waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_waits_for: Option<String>,
}

/// What another version of the operator, or of its images, would change in the pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingRollout {
    /// What an approval names, so that nothing else is approved.
    pub id: String,
    /// The first 12 changes of the pods' template, each as `path: before -> after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub changes: Vec<String>,
}

/// A request by annotation, and what became of it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RequestStatus {
    /// The token of the annotation.
    pub request: String,
    /// How far it is.
    pub state: RequestState,
    /// When it was taken up.
    pub started_at: Time,
    /// What was done, or why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far a request is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// It is under way.
    Running,
    /// It was done.
    Done,
    /// It was not done, and is not tried again.
    Failed,
}

/// Whether the schema is what the migrations give, when that was last looked at.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// When.
    pub checked_at: Time,
    /// The revision and target that it was compared with.
    pub goal: String,
    /// How many objects are not as the migrations give them.
    pub count: i64,
    /// The first 12.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub differences: Vec<String>,
    /// Why it could not be found out, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The token of the last `servicedb.dev/check-drift` annotation that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// The Secret with the credentials.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BindingStatus {
    /// Its name.
    pub name: String,
}

/// Where to connect, as `host:port`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The primary: reads and writes.
    pub primary: String,
    /// The replicas: reads. None with one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<String>,
}

/// The schema's migrations, bounded: the whole list is the ledger in the database.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationsStatus {
    /// The hash of the declared migrations' content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How many are completed in the database.
    #[serde(default)]
    pub applied: i64,
    /// How many are declared and not yet completed.
    #[serde(default)]
    pub pending: i64,
    /// How many have failed.
    #[serde(default)]
    pub failed: i64,
    /// The last 20, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["version"]))]
    pub recent: Vec<MigrationRecord>,
    /// With `spec.migrations.dryRun`: what would be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<MigrationPlan>,
    /// With `spec.migrations.approval: Manual`: what waits for a person's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<PendingApproval>,
}

/// Statements that wait for a person's word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingApproval {
    /// What an approval names, so that nothing else is approved: it stands for the files and
    /// the target.
    pub id: String,
    /// How many statements wait.
    pub count: i64,
    /// The first 12, in the order in which they would run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub statements: Vec<HeldStatement>,
}

/// One statement that waits for a person's word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatement {
    /// The file, or the image of a team's own tool.
    pub file: String,
    /// The line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What it would do, or why that cannot be seen.
    pub why: String,
}

impl fmt::Display for HeldStatement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!(", line {line}")).unwrap_or_default();
        write!(formatter, "{}{line}: {}", self.file, self.why)
    }
}

/// What a run of the migrations would do.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationPlan {
    /// How many migrations it would apply.
    pub apply: i64,
    /// How many it would roll back.
    pub roll_back: i64,
    /// How many it would record as applied before (`spec.migrations.baselineVersion`).
    pub record: i64,
    /// The first 20, in the order in which they would run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<PlannedMigration>,
}

/// One step of a plan.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlannedMigration {
    /// The migration's version.
    pub version: i64,
    /// Its name, cut after 100 characters.
    pub name: String,
    /// What would be done.
    pub action: MigrationAction,
}

/// What is done with a migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationAction {
    /// Its up file is run.
    Apply,
    /// Its down file is run.
    RollBack,
    /// It is recorded as applied, and not run.
    Record,
}

/// One migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationRecord {
    /// Its version: an integer or a timestamp written as one.
    pub version: i64,
    /// Its name, from the file's name.
    pub name: String,
    /// Where it is.
    pub state: MigrationState,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Why it failed: the file, the SQLSTATE and the server's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where a migration is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MigrationState {
    /// Declared, not started.
    Pending,
    /// Running.
    Executing,
    /// Committed.
    Completed,
    /// Rolled back with an error.
    Failed,
}

/// The application's credentials.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsStatus {
    /// The generation that Vault's `runtime` record holds, proved by a login. 0: none yet.
    #[serde(default)]
    pub generation: i64,
    /// When that generation was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// How many sessions, of all instances, were opened with the login that was replaced. 0
    /// says that the next rotation disturbs nobody; absent until every instance has counted
    /// since the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_sessions: Option<i64>,
    /// The token of the last `servicedb.dev/rotate` annotation that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_request: Option<String>,
    /// The token of the last `servicedb.dev/reissue` annotation that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reissue_request: Option<String>,
    /// Where a service reads them in Vault, as `vault kv get` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_path: Option<String>,
    /// The role of Vault's Kubernetes auth that `clients` log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_role: Option<String>,
}

/// The certificates of a database and their authority.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificatesStatus {
    /// When the certificates end; they are renewed 60 days before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When the authority ends; another one takes its place 400 days before. Absent while its
    /// key is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_not_after: Option<Time>,
    /// The change of the authority that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<AuthorityChange>,
    /// The token of the last `servicedb.dev/renew-authority` annotation that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_request: Option<String>,
}

/// A change of the certificate authority.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityChange {
    /// How far it is.
    pub phase: AuthorityPhase,
    /// The token of the `servicedb.dev/renew-authority` annotation that asked for it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// When it began.
    pub started_at: Time,
    /// When its next step is due, once that depends on the time alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step_at: Option<Time>,
    /// What is done, and what it waits for.
    pub message: String,
}

/// How far a change of the certificate authority is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityPhase {
    /// The new authority is being brought to the instances, to the record in Vault and to the
    /// Secret with the credentials, beside the present one.
    Publishing,
    /// Clients have time to read it; the present one still signs.
    Announced,
    /// The new one signs, and the former one is still trusted.
    Signing,
}

/// A quantity as CEL can read it.
fn volume_size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "maxLength": 32,
        "nullable": true,
        "description": "The size that the volumes have at most: `spec.storage.size` cannot be set below it.",
    })
}
