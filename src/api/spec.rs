//! The resource's `spec`, with every rule that CEL can express.
//!
//! A field is added only when it works. A rule's message names the field: the API server shows it
//! to the user.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clients::{ClientSpec, UndeclaredRights};
use super::gateway::GatewaySpec;
use super::maintenance::MaintenanceSpec;
use super::migrations::MigrationsSpec;
use super::nulls::null_as_default;
use super::observation::{AuditSpec, MonitoringSpec};
use super::pod_metadata::PodMetadata;
use super::pooler::PoolerSpec;
use super::status::ServiceDatabaseStatus;

/// Parameters that a spec may not set: Patroni or the agent own them, they make the server run code
/// or read arbitrary files, or they let a crash lose commits.
pub const RESERVED_PARAMETERS: &[&str] = &[
    "allow_alter_system",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "data_sync_retry",
    "dynamic_library_path",
    "extension_control_path",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "idle_replication_slot_timeout",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "include",
    "include_dir",
    "include_if_exists",
    "jit_provider",
    "krb_server_keyfile",
    "listen_addresses",
    "local_preload_libraries",
    "log_destination",
    "log_directory",
    "log_filename",
    "logging_collector",
    "oauth_validator_libraries",
    "password_encryption",
    "plperl.on_init",
    "plperl.on_plperl_init",
    "plperl.on_plperlu_init",
    "pltcl.start_proc",
    "pltclu.start_proc",
    "port",
    "postgis.enable_outdb_rasters",
    "postgis.gdal_datapath",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restart_after_crash",
    "restore_command",
    "session_preload_libraries",
    "shared_preload_libraries",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_ciphers",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
    "ssl_passphrase_command",
    "superuser_reserved_connections",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_level",
    "wal_log_hints",
    "wal_receiver_timeout",
    "wal_sender_timeout",
    "zero_damaged_pages",
];

/// The maximum of `spec.instances`; the rule on that field has the same number.
pub const MAXIMUM_INSTANCES: i32 = 9;

/// The declared state. The resource's name is the name of the service that owns the database.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "servicedb.dev",
    version = "v1alpha1",
    kind = "ServiceDatabase",
    plural = "servicedatabases",
    shortname = "sdb",
    namespaced,
    status = "ServiceDatabaseStatus",
    derive = "PartialEq",
    doc = "A ServiceDatabase is the PostgreSQL database of the service that it is named after: pods, volumes, credentials in Vault and a migrated schema.",
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name is the service's name: at most 40 characters, lower-case letters, digits and '-', a letter first, no dots"),
    validation = Rule::new("self.metadata.name != 'pg' && !self.metadata.name.startsWith('pg-')")
        .message("metadata.name must not be 'pg' or start with 'pg-': PostgreSQL reserves role names that start with pg_"),
    validation = Rule::new("!has(self.status) || !has(self.status.volumeSize) || !isQuantity(string(self.spec.storage.size)) || !isQuantity(string(self.status.volumeSize)) || string(self.spec.storage.size) == string(oldSelf.spec.storage.size) || quantity(string(self.spec.storage.size)).compareTo(quantity(string(self.status.volumeSize))) >= 0")
        .message("spec.storage.size must not be below the size of the volumes (status.volumeSize): a volume cannot shrink"),
    validation = Rule::new("!has(self.status) || !has(self.status.postgresMajor) || !has(self.spec.postgres) || !has(self.spec.postgres.version) || (has(oldSelf.spec.postgres) && has(oldSelf.spec.postgres.version) && self.spec.postgres.version == oldSelf.spec.postgres.version) || !self.spec.postgres.version.matches('^[1-9][0-9]$') || int(self.spec.postgres.version) >= self.status.postgresMajor")
        .message("spec.postgres.version must not be below the major version of the data (status.postgresMajor): PostgreSQL cannot go back to an earlier version; while status.upgrade.keptBy is set, kubectl servicedb upgrade NAME -n NAMESPACE --back returns to the one before the upgrade; otherwise dump the database and load it into a new ServiceDatabase"),
    validation = Rule::new("!has(self.spec.credentials) || !has(self.spec.credentials.secret) || !self.spec.credentials.secret.name.startsWith(self.metadata.name + '-db')")
        .message("spec.credentials.secret.name must not begin with the resource's name and '-db': these names are reserved for the operator"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Instances", type_ = "string", json_path = ".status.instances"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary"),
    printcolumn(name = "Schema", type_ = "string", json_path = ".status.schemaVersion"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.postgresVersion", priority = 1),
    printcolumn(name = "Vault path", type_ = "string", json_path = ".status.credentials.vaultPath", priority = 1),
    printcolumn(name = "Backup", type_ = "date", json_path = ".status.backup.newest.finishedAt", priority = 1),
    printcolumn(name = "Verified", type_ = "date", json_path = ".status.backup.verified.at", priority = 1),
    printcolumn(name = "Rotated", type_ = "date", json_path = ".status.credentials.rotatedAt", priority = 1)
)]
#[x_kube(
    validation = Rule::new("has(self.database) == has(oldSelf.database) && (!has(self.database) || self.database == oldSelf.database)")
        .message("spec.database cannot be changed: it names the database that holds the data"),
    validation = Rule::new("self.updatePolicy != 'Window' || (has(self.maintenance) && has(self.maintenance.windows) && self.maintenance.windows.size() > 0)")
        .message("spec.updatePolicy is Window, which needs a window in spec.maintenance.windows")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDatabaseSpec {
    /// Name of the database. Default: the resource's name with `_` for `-`, and `_db`. Immutable.
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z_][a-z0-9_]*$') && self.size() <= 50")
            .message("spec.database must be at most 50 characters: lower-case letters, digits and '_', not a digit first"),
        validation = Rule::new("!self.startsWith('pg_') && !(self in ['pg', 'postgres', 'template0', 'template1'])")
            .message("spec.database must not be a name that PostgreSQL reserves")
    )]
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,

    /// Number of PostgreSQL instances, 1 to 9: one primary, the others replicas.
    #[serde(default = "default_instances")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 9").message("spec.instances must be from 1 to 9"))]
    pub instances: i32,

    /// The PostgreSQL server.
    #[serde(default)]
    pub postgres: PostgresSpec,

    /// The volume of each instance.
    pub storage: StorageSpec,

    /// Replication from the primary to the replicas.
    #[serde(default)]
    pub replication: ReplicationSpec,

    /// CPU and memory of each instance's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Scheduling of the instances. Pods of Jobs use its node affinity, tolerations and
    /// PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingSpec>,

    /// Additional labels and annotations of the pods of instances and Jobs, as for policies or cost
    /// reports. A change replaces the instances, one after another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<PodMetadata>,

    /// The schema's migrations. Without them, the application may create objects in `public` and
    /// create other schemas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationsSpec>,

    /// Clients that may connect, and read the credentials from Vault.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["serviceAccountName"]))]
    pub clients: Vec<ClientSpec>,

    /// The credentials of the application and of the migrations.
    #[serde(default)]
    pub credentials: CredentialsSpec,

    /// Connection pooling, in pods of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler: Option<PoolerSpec>,

    /// The data gateway: the database over HTTP, in pods of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,

    /// Backups, if the installation has a store for them.
    #[serde(default)]
    pub backup: BackupSpec,

    /// What the server logs of slow statements, and metrics of the team's own.
    #[serde(default)]
    pub monitoring: MonitoringSpec,

    /// Statements that the server logs for an audit.
    #[serde(default)]
    pub audit: AuditSpec,

    /// Maintenance: `VACUUM`, statistics, bloated indexes, extensions.
    #[serde(default)]
    pub maintenance: MaintenanceSpec,

    /// Initialisation, if a deleted resource of this name left data.
    #[serde(default)]
    pub bootstrap: BootstrapSpec,

    /// Whether deletion of the resource keeps the data and its credentials (`Retain`, the default)
    /// or removes everything (`Delete`).
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Whether another version of the operator or its images replaces the pods after an approval
    /// (`Manual`, the default; `RolloutPending` lists the changes), in the next window of
    /// `spec.maintenance` (`Window`), or at once (`Automatic`).
    #[serde(default)]
    pub update_policy: UpdatePolicy,

    /// Stops all changes by the operator. The database continues to serve, and its status is
    /// updated.
    #[serde(default)]
    pub paused: bool,
}

/// The PostgreSQL server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PostgresSpec {
    /// The major version. Default: of a new database 18, of an existing one that of its data. A higher one than that of
    /// the data upgrades it (docs/upgrades.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]$')").message("spec.postgres.version must be a major version, such as \"17\""))]
    #[schemars(length(max = 16))]
    pub version: Option<String>,

    /// For how many days after a major upgrade the data from before it is kept, 1 to 3650. Default:
    /// until `kubectl servicedb upgrade --finish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3650").message("spec.postgres.formerDataDays must be from 1 to 3650"))]
    pub former_data_days: Option<i32>,

    /// Settings for `postgresql.conf`. Reserved ones are refused: Patroni or the agent sets them,
    /// they run code, or they let a crash lose data.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, String>,

    /// Extensions to create in the database; the image must have them.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extensions: Vec<ExtensionSpec>,
}

/// An extension to create in the database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionSpec {
    /// Its name, as in `CREATE EXTENSION`.
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9_-]*$')").message("spec.postgres.extensions[].name: an extension's name has lower-case letters, digits, '_' and '-', a letter first"))]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Its version, to which it is updated, never back. Default: the image's at its creation.
    #[x_kube(validation = Rule::new("self.matches('^[0-9A-Za-z]([0-9A-Za-z._-]*[0-9A-Za-z])?$')").message("spec.postgres.extensions[].version must be a version such as 1.6"))]
    #[schemars(length(max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,

    /// Its schema, created if missing (docs/migrations.md).
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][a-z0-9_]*$') && !self.startsWith('pg_') && !(self in ['information_schema', 'servicedb', 'cron'])").message("spec.postgres.extensions[].schema: lower-case letters, digits and '_', not a digit first, and no schema of PostgreSQL, Servicedb or pg_cron"))]
    #[schemars(length(max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// Backups.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupSpec {
    /// Whether WAL is archived to a store and backups are made.
    #[serde(default = "default_true")]
    pub enabled: bool,

    /// Name of one of the installation's stores. Default: the installation's default store; if it
    /// has none, nothing is archived.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,

    /// Name of another store that gets WAL and backups as well, with the same schedule and retention.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_store: Option<String>,

    /// When backups start.
    #[serde(default)]
    pub schedule: BackupScheduleSpec,

    /// For how many days the database can be recovered to any moment, 1 to 3650. Older backups, and
    /// WAL that only they need, are deleted after the next backup.
    #[serde(default = "default_retention_days")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3650").message("spec.backup.retentionDays must be from 1 to 3650"))]
    pub retention_days: i32,

    /// The number of full backups that are kept, with those that stand on them and the WAL since the oldest,
    /// 1 to 1000. It replaces `retentionDays`.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1000").message("spec.backup.retentionFullBackups must be from 1 to 1000"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_full_backups: Option<i32>,

    /// What happens when WAL that cannot be archived fills the volume of the primary.
    #[serde(default)]
    pub when_volume_fills: WhenVolumeFills,

    /// Whether the store keeps WAL and backups when the resource is deleted with `deletionPolicy: Delete`.
    #[serde(default)]
    pub deletion_policy: BackupDeletionPolicy,

    /// Other namespaces in which this database may be restored into a new one, by its name.
    #[schemars(schema_with = "restorable_in_schema")]
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub restorable_in: Vec<String>,

    /// CPU and memory of the backup Job's container. Default: requests of 100m and 128Mi, limits of
    /// 2 CPUs and 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// What happens when WAL that cannot be archived fills a volume.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenVolumeFills {
    /// The WAL is given up: the archive has a gap, and a full backup follows.
    #[default]
    GiveUpArchive,
    /// Sessions are read-only until there is room. WAL is given up only when half of the rest of the volume is
    /// used all the same.
    StopWrites,
}

/// Whether a store keeps WAL and backups of a deleted resource.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackupDeletionPolicy {
    /// They are kept, whatever `spec.deletionPolicy` is.
    #[default]
    Retain,
    /// They are deleted with the data, if `spec.deletionPolicy` is `Delete`.
    Delete,
}

/// When backups start: cron expressions with five fields. `H` in a field stands for a value that
/// depends on the resource.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleSpec {
    /// Full backups. Default: on Sunday, at a time from 00:00 to 06:00 UTC that depends on the
    /// resource.
    #[schemars(length(min = 1, max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,

    /// Incremental backups; empty: none. Default: as for full ones, on the other days.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental: Option<String>,

    /// Tests of the newest backup; empty: none. Default: on Monday, at a time from 06:00 to 12:00 UTC
    /// that depends on the resource. The first one follows the first backup.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<String>,

    /// Time zone of the expressions, such as `Europe/Berlin`. Default: UTC.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

impl Default for BackupSpec {
    fn default() -> Self {
        let schedule = BackupScheduleSpec::default();
        Self {
            enabled: true,
            store: None,
            second_store: None,
            schedule,
            retention_days: default_retention_days(),
            retention_full_backups: None,
            when_volume_fills: WhenVolumeFills::default(),
            deletion_policy: BackupDeletionPolicy::default(),
            restorable_in: Vec::new(),
            resources: None,
        }
    }
}

fn default_retention_days() -> i32 {
    14
}

/// The volume of each instance.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("spec.storage.storageClassName cannot be changed: a volume keeps its class")
)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of each instance's volume, from 256Mi to 64Ti. It can grow if the StorageClass allows
    /// it, and not shrink.
    #[schemars(schema_with = "size_schema")]
    pub size: Quantity,

    /// The StorageClass. Default: the cluster's default class.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,

    /// Whether a smaller `spec.instances` keeps the volumes of removed instances (`Retain`, the
    /// default) or deletes them (`Delete`).
    #[serde(default)]
    pub scale_down_policy: ScaleDownPolicy,
}

/// The policy for the volume of a removed instance.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleDownPolicy {
    /// The volume is kept; a later instance with this ordinal uses it.
    #[default]
    Retain,
    /// The volume is deleted with the instance.
    Delete,
}

/// Replication from the primary to the replicas.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationSpec {
    /// Whether a commit waits until a replica has it, so that a single failure loses no
    /// acknowledged commit while a replica streams. Effective from two instances on; see the
    /// condition `SynchronousReplication`.
    #[serde(default = "default_true")]
    pub synchronous: bool,

    /// Maximum lag, in bytes of WAL, of a replica that may be promoted. A replica with a larger lag
    /// is not Ready and not in the Service of the replicas.
    #[serde(default = "default_maximum_lag")]
    #[x_kube(validation = Rule::new("self >= 0").message("spec.replication.maximumLagBytes must not be negative"))]
    pub maximum_lag_bytes: i64,
}

impl Default for ReplicationSpec {
    fn default() -> Self {
        Self { synchronous: true, maximum_lag_bytes: default_maximum_lag() }
    }
}

/// Scheduling of the instances.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingSpec {
    /// Node and pod affinity, as in a pod. Without `podAntiAffinity`, instances prefer different
    /// nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Tolerations, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Spread constraints, as in a pod. Without `labelSelector`, a constraint counts the instances
    /// of this database.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// The PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// The credentials of the application and of the migrations.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSpec {
    /// Age at which new credentials replace the present ones, in seconds, from 3600 (an hour) to
    /// 31536000 (a year). Default: only on request. The replaced login is valid for one more
    /// period, in which services must read the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 3600 && self <= 31536000")
        .message("spec.credentials.rotationPeriodSeconds must be from 3600 (an hour) to 31536000 (a year): the replaced login is valid for one more period, in which services must read the new one"))]
    pub rotation_period_seconds: Option<i64>,

    /// Secret with the credentials, in the format of servicebinding.io, for services that cannot
    /// read Vault. Default: the credentials are only in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BindingSecretSpec>,

    /// What happens to a right that somebody granted to the role of a client with a login of its
    /// own, and that `spec.clients` does not declare: `Report` tells it in `status.clients[]`,
    /// `Revoke` takes it back, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undeclared_rights: Option<UndeclaredRights>,

    /// How long the sessions of a client that was removed may last, in seconds. Its login is
    /// refused at once. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 3600").message("spec.credentials.sessionGraceSeconds must be from 0 to 3600"))]
    pub session_grace_seconds: Option<i64>,
}

/// A Secret with the credentials.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BindingSecretSpec {
    /// Its name; names that begin with the resource's name and `-db` are reserved.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("secret.name must be a valid name of a Secret"))]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Initialisation of the database.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapSpec {
    /// Whether to use the volumes and credentials that a deleted resource of this name left,
    /// instead of stopping with `RetainedDataFound`. Without them it has no effect.
    #[serde(default)]
    pub adopt: bool,

    /// The backup from which a new database is restored, instead of an empty one. Once the database
    /// exists it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
}

/// A restore into a new database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSpec {
    /// The database to restore.
    pub source: RestoreSource,

    /// The state to restore. Default: the newest that the store has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RestoreTarget>,
}

/// The database to restore: a ServiceDatabase of this namespace by its name, or one that was deleted
/// by its folder in a store.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.path)")
        .message("spec.bootstrap.restore.source needs either name, or path (of a deleted database, as its status.backup.path was)"),
    validation = Rule::new("has(self.name) || !has(self.namespace)")
        .message("spec.bootstrap.restore.source.namespace belongs to name: a path has its namespace in it")
)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSource {
    /// A ServiceDatabase, of this namespace unless `namespace` is set.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// The namespace of that ServiceDatabase, whose `spec.backup.restorableIn` must name this one.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// The installation's store that has the backup. Default: with `name` the database's first one that has the
    /// target, with `path` the installation's default store.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,

    /// The folder of a deleted database in the store: what `status.backup.path` was. It must be one
    /// of this namespace, or one that the installation allows this namespace (`backup.restoreFrom`).
    #[schemars(length(min = 1, max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The state to restore.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("(has(self.time) ? 1 : 0) + (has(self.lsn) ? 1 : 0) + (has(self.name) ? 1 : 0) + (has(self.immediate) && self.immediate ? 1 : 0) == 1")
        .message("spec.bootstrap.restore.target needs exactly one of time, lsn, name and immediate: true")
)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// Everything that was committed before this time, as RFC 3339 with its offset, such as
    /// `2026-11-29T10:15:00Z`.
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$')")
        .message("spec.bootstrap.restore.target.time must be RFC 3339 with its offset from UTC, such as 2026-11-29T10:15:00Z"))]
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,

    /// Everything up to this position in WAL, as `pg_current_wal_lsn()` returns it.
    #[x_kube(validation = Rule::new("self.matches('^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$')")
        .message("spec.bootstrap.restore.target.lsn must be a position in WAL, such as 0/3000148"))]
    #[schemars(length(min = 3, max = 17))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,

    /// The state that `kubectl servicedb restore-point` named so; the first of this name.
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9._-]+$')")
        .message("spec.bootstrap.restore.target.name has letters, digits, '.', '_' and '-'"))]
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// The newest backup alone, without the WAL after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immediate: bool,

    /// The timeline on which the state lies. Default: the one of that time, as far as the source's
    /// `status.backup.leftTimelines` tells, otherwise the latest.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
}

/// When another version of the operator or its images replaces the pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdatePolicy {
    /// After an approval.
    #[default]
    Manual,
    /// In the next window of `spec.maintenance`, or after an approval.
    Window,
    /// At once: the replicas, then a switchover, then the former primary.
    Automatic,
}

/// Whether deletion of the resource keeps the data.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Volumes, Patroni's state, the certificate authority and the credentials are kept.
    #[default]
    Retain,
    /// Everything is removed from Kubernetes and Vault.
    Delete,
}

fn default_instances() -> i32 {
    1
}

pub(super) fn default_true() -> bool {
    true
}

fn default_maximum_lag() -> i64 {
    16 * 1024 * 1024
}

/// The reserved list becomes a CEL rule: the API server refuses a reserved parameter with the
/// reason.
fn parameters_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let reserved = RESERVED_PARAMETERS.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    schemars::json_schema!({
        "type": "object",
        "description": "Settings for postgresql.conf. Reserved ones are refused: Patroni or the agent sets them, they run code, or they let a crash lose data.",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, name.matches('^[a-z_][a-z0-9_.]*$') && name.size() <= 63)",
                "message": "spec.postgres.parameters: a parameter's name has lower-case letters, digits, '_' and '.', at most 63 characters"
            },
            {
                "rule": format!("self.all(name, !(name in [{reserved}]))"),
                "message": "spec.postgres.parameters sets a parameter that is reserved: Servicedb or Patroni sets it, it could run code in the server, or a crash could lose data (see the reference)"
            },
            {
                "rule": "!('synchronous_commit' in self) || self['synchronous_commit'] in ['on', 'remote_write', 'remote_apply']",
                "message": "spec.postgres.parameters: synchronous_commit must be on, remote_write or remote_apply: with other values a crash could lose a commit; a session may still set them for itself"
            },
            {
                "rule": "['max_wal_senders', 'max_replication_slots'].all(name, !(name in self) || !self[name].matches('^[0-9]{1,9}$') || int(self[name]) >= 10)",
                "message": "spec.postgres.parameters: max_wal_senders and max_replication_slots must be at least 10: replicas need them"
            },
            {
                "rule": "['max_connections', 'max_locks_per_transaction'].all(name, !(name in self) || !self[name].matches('^[0-9]{1,9}$') || int(self[name]) >= (name == 'max_connections' ? 25 : 32))",
                "message": "spec.postgres.parameters: max_connections must be at least 25, and max_locks_per_transaction at least 32: Patroni refuses lower values"
            },
            {
                "rule": "!('io_method' in self) || self['io_method'].lowerAscii() != 'io_uring'",
                "message": "spec.postgres.parameters: io_method must be worker or sync: the pods' seccomp profile refuses the system calls of io_uring, and PostgreSQL would not start"
            },
            {
                "rule": "self.all(name, self[name].matches('^[^\\\\x00-\\\\x1f\\\\x7f]*$'))",
                "message": "spec.postgres.parameters: a value must not have control characters"
            }
        ]
    })
}

fn restorable_in_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "description": "Other namespaces in which this database may be restored into a new one, by its name.",
        "items": { "type": "string", "description": "A namespace.", "minLength": 1, "maxLength": 63 },
        "maxItems": 50,
        "x-kubernetes-list-type": "set",
    })
}

fn size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "maxLength": 32,
        "description": "Size of each instance's volume, from 256Mi to 64Ti. It can grow if the StorageClass allows it, and not shrink.",
        "x-kubernetes-validations": [
            {
                "rule": "isQuantity(string(self))",
                "message": "spec.storage.size must be a quantity, such as 20Gi"
            },
            {
                "rule": "!isQuantity(string(self)) || (quantity(string(self)).compareTo(quantity('256Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0)",
                "message": "spec.storage.size must be from 256Mi to 64Ti"
            }
        ]
    })
}
