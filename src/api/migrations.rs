//! What a service team declares of its schema: `spec.migrations`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The schema's migrations.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.rollback) || self.rollback != 'Allow' || has(self.targetVersion)")
    .message("spec.migrations.rollback Allow needs an explicit spec.migrations.targetVersion: nothing else ever rolls back"))]
#[x_kube(validation = Rule::new("!has(self.targetVersion) || !has(self.baselineVersion) || self.baselineVersion <= self.targetVersion")
    .message("spec.migrations.baselineVersion must not be above spec.migrations.targetVersion: what is recorded as applied must be wanted"))]
#[x_kube(validation = Rule::new("!has(self.source.job) || (!has(self.targetVersion) && !has(self.baselineVersion) && (!has(self.rollback) || self.rollback == 'Refuse') && (!has(self.outOfOrder) || self.outOfOrder == 'Refuse') && (!has(self.dryRun) || !self.dryRun))")
    .message("spec.migrations with source.job takes no targetVersion, rollback, outOfOrder, baselineVersion or dryRun: the team's own tool decides what it runs, by its command and args"))]
#[serde(rename_all = "camelCase")]
pub struct MigrationsSpec {
    /// Where the migrations are.
    pub source: MigrationSource,

    /// The version that the schema shall have; the newest without it. 0 is a schema without
    /// any migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0").message("spec.migrations.targetVersion must not be negative"))]
    pub target_version: Option<i64>,

    /// Whether migrations above an explicit lower `targetVersion` are rolled back, the newest
    /// first, by the down files that they were applied with.
    #[serde(default)]
    pub rollback: Permission,

    /// Whether a version that is lower than the newest applied one is still applied.
    #[serde(default)]
    pub out_of_order: Permission,

    /// For a schema that another tool has migrated: up to this version an empty ledger records
    /// the migrations as applied, without running them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0").message("spec.migrations.baselineVersion must not be negative"))]
    pub baseline_version: Option<i64>,

    /// Whether status tells what would be run (`status.migrations.plan`), and nothing is run.
    #[serde(default)]
    pub dry_run: bool,

    /// Whether destructive statements, and those that PostgreSQL's parser cannot see through,
    /// wait until a person approves them (`kubectl servicedb approve`).
    #[serde(default)]
    pub approval: Approval,

    /// How long a statement waits for a table's lock before the file is rolled back and tried
    /// again, in seconds, from 1 to 3600: others queue up behind it meanwhile.
    #[serde(default = "default_lock_timeout")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3600").message("spec.migrations.lockTimeoutSeconds must be from 1 to 3600"))]
    pub lock_timeout_seconds: i64,

    /// How long a statement may take, in seconds, to 604800 (a week); 0 is for ever.
    #[serde(default = "default_statement_timeout")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 604800").message("spec.migrations.statementTimeoutSeconds must be from 0 (for ever) to 604800 (a week)"))]
    pub statement_timeout_seconds: i64,

    /// How often the schema is compared with what the migrations give (condition `SchemaDrift`),
    /// in seconds, from 300 to 2592000 (30 days); 0 is never. A scratch database of a Job's own
    /// is built from the migrations for it. Not with `source.job`.
    #[serde(default = "default_drift_check")]
    #[x_kube(validation = Rule::new("self == 0 || (self >= 300 && self <= 2592000)").message("spec.migrations.driftCheckSeconds must be 0 (never) or from 300 to 2592000 (30 days)"))]
    pub drift_check_seconds: i64,

    /// Other ServiceDatabases of the same namespace whose schema these migrations wait for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub depends_on: Vec<SchemaDependency>,
}

/// Whether something is allowed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permission {
    /// It is refused, with a message.
    #[default]
    Refuse,
    /// It is done.
    Allow,
}

/// Who lets migrations run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// Nobody is asked.
    #[default]
    Automatic,
    /// What may lose stored data waits for a person.
    Manual,
}

/// Another ServiceDatabase's schema.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SchemaDependency {
    /// The ServiceDatabase, of the same namespace.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// The version that its schema must have at least.
    #[x_kube(validation = Rule::new("self >= 0").message("spec.migrations.dependsOn[].minimumVersion must not be negative"))]
    pub minimum_version: i64,
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

/// Where the migrations are: exactly one member is set. Files are named
/// `<version>_<name>.up.sql` with an optional `<version>_<name>.down.sql`, or
/// `V<version>__<name>.sql` with `U<version>__<name>.sql`, or are `up.sql` and `down.sql` in
/// a folder `<version>_<name>`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("[has(self.configMap), has(self.configMaps), has(self.image), has(self.job)].filter(set, set).size() == 1")
    .message("spec.migrations.source must name exactly one source: configMap, configMaps, image or job"))]
#[serde(rename_all = "camelCase")]
pub struct MigrationSource {
    /// A ConfigMap of the same namespace with the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapReference>,

    /// Several ConfigMaps of the same namespace that have the files together, for sets that
    /// are too large for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub config_maps: Vec<ConfigMapReference>,

    /// An image with a folder of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,

    /// A tool of the team's own, in an image of its own, such as Alembic or goose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<ToolSource>,
}

impl MigrationSource {
    /// The ConfigMaps that have the files together; none with another source.
    pub fn references(&self) -> impl Iterator<Item = &ConfigMapReference> {
        self.config_map.iter().chain(&self.config_maps)
    }
}

/// A ConfigMap of the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A folder of files in an image. The reference stands for its content: with a tag that is
/// moved nobody notices that there is something new.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image, by a tag that is never moved or by its digest. Unless the installation mounts
    /// images as volumes, it must have `cp`.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,

    /// The folder in it. Default: /migrations.
    #[serde(default = "default_path")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && self != '/' && !self.contains('/../') && !self.endsWith('/..')").message("spec.migrations.source.image.path must be absolute, a folder of its own, and without '..'"))]
    pub path: String,

    /// Secrets of the same namespace to pull it with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<SecretReference>,
}

/// A migration tool of the team's own. It finds the database by libpq's variables
/// (`PGSERVICEFILE`, `PGSERVICE`, `PGPASSFILE`), and acts as the owner of the schema. Its image
/// and arguments stand for what it would do: it is run once for each of them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ToolSource {
    /// The image, by a tag that is never moved or by its digest.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// What to run; default: the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words_schema")]
    pub command: Vec<String>,

    /// Its arguments; default: the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words_schema")]
    pub args: Vec<String>,

    /// A query that gives the schema's version, as one value, from the tool's own table, such
    /// as `SELECT version_num FROM alembic_version`. It is `status.schemaVersion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub version_query: Option<String>,

    /// Secrets of the same namespace to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<SecretReference>,
}

/// A Secret of the same namespace.
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
        "items": {"type": "string", "maxLength": 4096, "description": "One word."},
    })
}
