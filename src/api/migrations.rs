//! The migrations of the schema: `spec.migrations`.

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format::MigrationFormat;
use super::nulls::null_as_default;
use super::version::SchemaVersion;

/// The schema's migrations.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.rollback) || self.rollback != 'Allow' || has(self.targetVersion)")
    .message("spec.migrations.rollback Allow needs an explicit spec.migrations.targetVersion: only a lower target rolls back"))]
#[x_kube(validation = Rule::new("!has(self.targetVersion) || !has(self.baselineVersion) || type(self.baselineVersion) != int || type(self.targetVersion) != int || self.baselineVersion <= self.targetVersion")
    .message("spec.migrations.baselineVersion must not be above spec.migrations.targetVersion"))]
#[x_kube(validation = Rule::new("!has(self.baseline) || self.baseline == 'Version' || !has(self.baselineVersion)")
    .message("spec.migrations.baseline FromTool reads the versions from the tool's own table: remove spec.migrations.baselineVersion"))]
#[x_kube(validation = Rule::new("!has(self.source.job) || (!has(self.targetVersion) && !has(self.baselineVersion) && (!has(self.rollback) || self.rollback == 'Refuse') && (!has(self.outOfOrder) || self.outOfOrder == 'Refuse') && (!has(self.dryRun) || !self.dryRun) && (!has(self.baseline) || self.baseline == 'Version'))")
    .message("spec.migrations with source.job takes no targetVersion, rollback, outOfOrder, baseline, baselineVersion or dryRun: command and args control the tool"))]
#[serde(rename_all = "camelCase")]
pub struct MigrationsSpec {
    /// Source of the migrations.
    pub source: MigrationSource,

    /// Target version of the schema: a number, or a text as the files write it ("1.2"). Default:
    /// the newest. 0: no migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) != int || self >= 0").message("spec.migrations.targetVersion must not be negative"))]
    #[x_kube(validation = Rule::new("type(self) == int || self.size() > 0").message("spec.migrations.targetVersion must not be empty"))]
    pub target_version: Option<SchemaVersion>,

    /// Whether migrations above an explicit lower `targetVersion` are rolled back, newest first,
    /// with the down files recorded when they were applied.
    #[serde(default)]
    pub rollback: Permission,

    /// Whether a pending version below the newest applied one is applied.
    #[serde(default)]
    pub out_of_order: Permission,

    /// For a schema that another tool migrated: an empty ledger records migrations up to this
    /// version as applied, without running them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) != int || self >= 0").message("spec.migrations.baselineVersion must not be negative"))]
    #[x_kube(validation = Rule::new("type(self) == int || self.size() > 0").message("spec.migrations.baselineVersion must not be empty"))]
    pub baseline_version: Option<SchemaVersion>,

    /// Where an empty ledger finds the migrations that another tool has applied: `Version` is
    /// `baselineVersion`, `FromTool` is the tool's own table (`schema_migrations`,
    /// `flyway_schema_history` …), which is only read.
    #[serde(default)]
    pub baseline: Baseline,

    /// Whether to report the plan in `status.migrations.plan` and run nothing.
    #[serde(default)]
    pub dry_run: bool,

    /// With `Manual`, destructive statements, and those whose effect the parser cannot determine,
    /// wait for approval (`kubectl servicedb approve`).
    #[serde(default)]
    pub approval: Approval,

    /// Timeout for a table lock, in seconds, from 1 to 3600. Then the file is rolled back and
    /// retried, because other sessions queue behind the waiting statement.
    #[serde(default = "default_lock_timeout")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3600").message("spec.migrations.lockTimeoutSeconds must be from 1 to 3600"))]
    pub lock_timeout_seconds: i64,

    /// Timeout of a statement, in seconds, up to 604800 (a week); 0: none.
    #[serde(default = "default_statement_timeout")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 604800").message("spec.migrations.statementTimeoutSeconds must be from 0 (no timeout) to 604800 (a week)"))]
    pub statement_timeout_seconds: i64,

    /// Interval of the check for schema drift (condition `SchemaDrift`), in seconds, from 300 to
    /// 2592000 (30 days); 0: never. A Job builds a scratch database from the migrations and
    /// compares the schema with it. Not with `source.job`.
    #[serde(default = "default_drift_check")]
    #[x_kube(validation = Rule::new("self == 0 || (self >= 300 && self <= 2592000)").message("spec.migrations.driftCheckSeconds must be 0 (never) or from 300 to 2592000 (30 days)"))]
    pub drift_check_seconds: i64,

    /// CPU and memory of each container of the Jobs for migrations and drift. Default: requests of
    /// 50m and 128Mi, limits of 1 CPU and 1Gi. A change restarts a Job that has failed or whose pod
    /// has not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// ServiceDatabases in the same namespace whose schemas these migrations wait for.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub depends_on: Vec<SchemaDependency>,
}

/// Whether an operation is allowed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permission {
    /// The run fails with a message.
    #[default]
    Refuse,
    /// The operation is allowed.
    Allow,
}

/// The migrations that another tool has applied before.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baseline {
    /// Those up to `baselineVersion`; none without it.
    #[default]
    Version,
    /// Those in the table of the tool that `source.format` names.
    FromTool,
}

/// Whether migrations need approval.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// They run without approval.
    #[default]
    Automatic,
    /// Statements that may lose stored data wait for approval.
    Manual,
}

/// Another ServiceDatabase's schema.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SchemaDependency {
    /// The ServiceDatabase, in the same namespace.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// Minimum version of its schema.
    #[x_kube(validation = Rule::new("type(self) != int || self >= 0").message("spec.migrations.dependsOn[].minimumVersion must not be negative"))]
    #[x_kube(validation = Rule::new("type(self) == int || self.size() > 0").message("spec.migrations.dependsOn[].minimumVersion must not be empty"))]
    pub minimum_version: SchemaVersion,
}

fn default_lock_timeout() -> i64 {
    5
}

fn default_drift_check() -> i64 {
    86400
}

fn default_statement_timeout() -> i64 {
    3600
}

/// Source of the migrations: exactly one of `configMap`, `configMaps`, `image` and `job` is set.
/// Files have the names and marks of Servicedb or of another tool (`format`).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("[has(self.configMap), has(self.configMaps), has(self.image), has(self.job)].filter(set, set).size() == 1")
    .message("spec.migrations.source must name exactly one source: configMap, configMaps, image or job"))]
#[serde(rename_all = "camelCase")]
pub struct MigrationSource {
    /// ConfigMap with the files, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapReference>,

    /// ConfigMaps that have the files together, for sets that are too large for one.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub config_maps: Vec<ConfigMapReference>,

    /// An image with a folder of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,

    /// The tool whose files these are. `Auto` recognises it by the names and marks of the files
    /// (`status.migrations.format`).
    #[serde(default)]
    pub format: MigrationFormat,

    /// The team's own tool, such as Alembic or goose, in its own image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<ToolSource>,
}

impl MigrationSource {
    /// The ConfigMaps that have the files together; empty with another source.
    pub fn references(&self) -> impl Iterator<Item = &ConfigMapReference> {
        self.config_map.iter().chain(&self.config_maps)
    }
}

/// A ConfigMap in the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A folder of files in an image. The reference identifies the content: a moved tag is not
/// detected.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image, by digest or by a tag that never moves. It must have `cp`, unless the
    /// installation mounts images as volumes.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,

    /// Folder in the image. Default: /migrations.
    #[serde(default = "default_path")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && self != '/' && !self.contains('/../') && !self.endsWith('/..')").message("spec.migrations.source.image.path must be absolute, not '/', and without '..'"))]
    pub path: String,

    /// Pull Secrets in the same namespace.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<SecretReference>,
}

/// The team's own migration tool. It finds the database by libpq's variables (`PGSERVICEFILE`,
/// `PGSERVICE`, `PGPASSFILE`), and runs as the owner of the schema. It is run once for each
/// combination of image, command and arguments.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ToolSource {
    /// The image, by digest or by a tag that never moves.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// The command; default: the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words_schema")]
    pub command: Vec<String>,

    /// The arguments; default: the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words_schema")]
    pub args: Vec<String>,

    /// Query of the tool's own table that returns one value for `status.schemaVersion`, such as
    /// `SELECT version_num FROM alembic_version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub version_query: Option<String>,

    /// Pull Secrets in the same namespace.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<SecretReference>,
}

/// A Secret in the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn default_path() -> String {
    "/migrations".to_owned()
}

fn words_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "atomic",
        "items": {"type": "string", "maxLength": 4096, "description": "A word."},
    })
}
