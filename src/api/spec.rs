//! What a service team declares: `spec`, with every rule that CEL can express.
//!
//! A field is here only when it works. A rule's message names the field, because the API
//! server shows it to the person who wrote the YAML.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::migrations::MigrationsSpec;
use super::status::ServiceDatabaseStatus;

/// Parameters that a spec may not set: Patroni or the agent own them, they make the server run
/// code or read files of the writer's choice, or they let a crash lose what was committed.
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
    "password_encryption",
    "plperl.on_init",
    "plperl.on_plperl_init",
    "plperl.on_plperlu_init",
    "pltcl.start_proc",
    "pltclu.start_proc",
    "port",
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

/// The most instances that a spec may declare; the rule on `spec.instances` says it, too.
pub const MAXIMUM_INSTANCES: i32 = 9;

/// What a service team declares. The resource's name is the owning service's name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "servicedb.dev",
    version = "v1alpha1",
    kind = "ServiceDatabase",
    plural = "servicedatabases",
    shortname = "sdb",
    category = "all",
    namespaced,
    status = "ServiceDatabaseStatus",
    derive = "PartialEq",
    doc = "A ServiceDatabase gives the service that it is named after a PostgreSQL of its own: pods, volumes, credentials in Vault and a migrated schema.",
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name is the service's name: at most 40 characters, lower-case letters, digits and '-', a letter first, no dots"),
    validation = Rule::new("self.metadata.name != 'pg' && !self.metadata.name.startsWith('pg-')")
        .message("metadata.name must not be 'pg' or start with 'pg-': PostgreSQL reserves role names that start with pg_"),
    validation = Rule::new("!has(self.status) || !has(self.status.volumeSize) || !isQuantity(string(self.spec.storage.size)) || !isQuantity(string(self.status.volumeSize)) || string(self.spec.storage.size) == string(oldSelf.spec.storage.size) || quantity(string(self.spec.storage.size)).compareTo(quantity(string(self.status.volumeSize))) >= 0")
        .message("spec.storage.size must not be below what the volumes already have (status.volumeSize): a volume can grow, and never shrink"),
    validation = Rule::new("!has(self.spec.credentials) || !has(self.spec.credentials.secret) || !self.spec.credentials.secret.name.startsWith(self.metadata.name + '-db')")
        .message("spec.credentials.secret.name must not begin with the resource's name and '-db': such names are the operator's own"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Instances", type_ = "string", json_path = ".status.instances"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary"),
    printcolumn(name = "Schema", type_ = "string", json_path = ".status.schemaVersion"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.postgresVersion", priority = 1),
    printcolumn(name = "Vault path", type_ = "string", json_path = ".status.credentials.vaultPath", priority = 1),
    printcolumn(name = "Rotated", type_ = "date", json_path = ".status.credentials.rotatedAt", priority = 1)
)]
#[x_kube(
    validation = Rule::new("has(self.database) == has(oldSelf.database) && (!has(self.database) || self.database == oldSelf.database)")
        .message("spec.database cannot be changed: it names the database that holds the data"),
    validation = Rule::new("self.postgres.version == oldSelf.postgres.version")
        .message("spec.postgres.version cannot be changed: a major upgrade of a living database is not supported yet")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDatabaseSpec {
    /// The database's name. Default: the resource's name with `_` for `-`, and `_db`. Immutable.
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z_][a-z0-9_]*$') && self.size() <= 50")
            .message("spec.database must be at most 50 characters: lower-case letters, digits and '_', not a digit first"),
        validation = Rule::new("!self.startsWith('pg_') && !(self in ['pg', 'postgres', 'template0', 'template1'])")
            .message("spec.database must not be a name that PostgreSQL reserves")
    )]
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,

    /// How many PostgreSQL instances: one primary, the others its replicas. 1 to 9.
    #[serde(default = "default_instances")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 9").message("spec.instances must be from 1 to 9"))]
    pub instances: i32,

    /// The PostgreSQL server.
    #[serde(default)]
    pub postgres: PostgresSpec,

    /// The volume of each instance.
    pub storage: StorageSpec,

    /// How replicas follow the primary.
    #[serde(default)]
    pub replication: ReplicationSpec,

    /// CPU and memory of each instance's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Where instances may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingSpec>,

    /// The schema's migrations. Without them the schema is the team's own business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationsSpec>,

    /// Who may connect, and who may read the credentials from Vault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["serviceAccountName"]))]
    pub clients: Vec<ClientSpec>,

    /// The credentials of the application and of the migrations.
    #[serde(default)]
    pub credentials: CredentialsSpec,

    /// How the database begins, where an earlier resource of this name left data.
    #[serde(default)]
    pub bootstrap: BootstrapSpec,

    /// What is kept when the resource is deleted: `Retain` (the default) keeps the data and
    /// its credentials, `Delete` leaves nothing.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// What becomes of the pods when the operator or the installation's images are of another
    /// version: with `Manual` (the default) they stay as they are until somebody approves
    /// (`RolloutPending` says what would change), with `Automatic` they follow at once.
    #[serde(default)]
    pub update_policy: UpdatePolicy,

    /// Stops the operator from changing anything of this database; it goes on serving, and
    /// its status goes on telling.
    #[serde(default)]
    pub paused: bool,
}

/// The PostgreSQL server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PostgresSpec {
    /// The major version.
    #[serde(default = "default_version")]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]$')").message("spec.postgres.version must be a major version, such as \"17\""))]
    #[schemars(length(max = 16))]
    pub version: String,

    /// Settings for `postgresql.conf`. Those that Patroni or the agent own, those that
    /// run code, and those that let a crash lose data, are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, String>,

    /// Extensions to create in the database, from those that the image has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extensions: Vec<ExtensionSpec>,
}

impl Default for PostgresSpec {
    fn default() -> Self {
        Self { version: default_version(), parameters: BTreeMap::new(), extensions: Vec::new() }
    }
}

/// An extension to create in the database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionSpec {
    /// Its name, as in `CREATE EXTENSION`.
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9_-]*$')").message("spec.postgres.extensions[].name: an extension's name has lower-case letters, digits, '_' and '-', a letter first"))]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// The volume of each instance.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("spec.storage.storageClassName cannot be changed: a volume's class is fixed when it is made")
)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// The size of each instance's volume, at least 256Mi. It can grow, if the StorageClass
    /// allows it, and not shrink.
    #[schemars(schema_with = "size_schema")]
    pub size: Quantity,

    /// The StorageClass. Default: the cluster's default class.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,

    /// What becomes of the volume of an instance that is taken away by a smaller
    /// `spec.instances`: `Retain` (the default) keeps it, `Delete` does not.
    #[serde(default)]
    pub scale_down_policy: ScaleDownPolicy,
}

/// What becomes of the volume of an instance that is taken away.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleDownPolicy {
    /// It is kept; an instance of this number finds it again.
    #[default]
    Retain,
    /// It is deleted with the instance.
    Delete,
}

/// How replicas follow the primary.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationSpec {
    /// Whether a write is acknowledged only when a replica has it too. With it no acknowledged
    /// write is lost to a single failure while a replica streams. It counts from two instances
    /// on; the condition `SynchronousReplication` tells how it is.
    #[serde(default = "default_true")]
    pub synchronous: bool,

    /// How many bytes of WAL a replica may lack and still be promoted; one that lacks more is
    /// not Ready, and the Service of the replicas leaves it out.
    #[serde(default = "default_maximum_lag")]
    #[x_kube(validation = Rule::new("self >= 0").message("spec.replication.maximumLagBytes must not be negative"))]
    pub maximum_lag_bytes: i64,
}

impl Default for ReplicationSpec {
    fn default() -> Self {
        Self { synchronous: true, maximum_lag_bytes: default_maximum_lag() }
    }
}

/// Where instances may run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingSpec {
    /// Node and pod affinity, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Tolerations, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Spread constraints, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// The PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A client of the database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientSpec {
    /// The ServiceAccount, of the same namespace, that may read the credentials from Vault.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("spec.clients[].serviceAccountName must be the name of a ServiceAccount"))]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: String,

    /// The pods, of the same namespace, that may connect. Without it the NetworkPolicy lets
    /// no pod of this client in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

/// The credentials of the application and of the migrations.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSpec {
    /// How old the credentials become before new ones replace them, in seconds: from 3600 (an
    /// hour) to 31536000 (a year). Without it they change on request alone. The login that was
    /// replaced is good for one more period: a service must have read the new one by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 3600 && self <= 31536000")
        .message("spec.credentials.rotationPeriodSeconds must be from 3600 (an hour) to 31536000 (a year): the login that was replaced lives for one period, and services need the time to take up the new one"))]
    pub rotation_period_seconds: Option<i64>,

    /// A Secret with the credentials, for services that cannot read Vault, in the form of
    /// servicebinding.io. Without it they are in Vault alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BindingSecretSpec>,
}

/// A Secret with the credentials.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BindingSecretSpec {
    /// Its name. Names that begin with the resource's own and `-db` are the operator's.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("spec.credentials.secret.name must be a name that a Secret can have"))]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How the database begins.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapSpec {
    /// Takes over the volumes and credentials that an earlier resource of this name left,
    /// instead of stopping with `RetainedDataFound`. Without such data it does nothing.
    #[serde(default)]
    pub adopt: bool,
}

/// What becomes of the pods with another version of the operator or of its images.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdatePolicy {
    /// They stay as they are until somebody approves.
    #[default]
    Manual,
    /// They follow at once: the replicas, then a switchover, then the former primary.
    Automatic,
}

/// What is kept when the resource is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Volumes, Patroni's state, the certificate authority and the credentials are kept.
    #[default]
    Retain,
    /// Nothing is left, in Kubernetes or in Vault.
    Delete,
}

fn default_instances() -> i32 {
    1
}

fn default_version() -> String {
    "17".to_owned()
}

fn default_true() -> bool {
    true
}

fn default_maximum_lag() -> i64 {
    16 * 1024 * 1024
}

/// The reserved list becomes a CEL rule, so that a refused parameter is refused by the API
/// server with its reason.
fn parameters_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let reserved = RESERVED_PARAMETERS.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    schemars::json_schema!({
        "type": "object",
        "description": "Settings for postgresql.conf. Those that Patroni or the agent own, those that run code, and those that let a crash lose data, are refused.",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, name.matches('^[a-z_][a-z0-9_.]*$') && name.size() <= 63)",
                "message": "spec.postgres.parameters: a parameter's name has lower-case letters, digits, '_' and '.', at most 63 characters"
            },
            {
                "rule": format!("self.all(name, !(name in [{reserved}]))"),
                "message": "spec.postgres.parameters sets a parameter that is reserved: Servicedb or Patroni owns it, it would run code in the server, or a crash would lose data (the list is in the reference)"
            },
            {
                "rule": "!('synchronous_commit' in self) || self['synchronous_commit'] in ['on', 'remote_write', 'remote_apply']",
                "message": "spec.postgres.parameters: synchronous_commit must be on, remote_write or remote_apply: without waiting for the disk a commit could be lost; a session may still choose so for itself"
            },
            {
                "rule": "['max_wal_senders', 'max_replication_slots'].all(name, !(name in self) || !self[name].matches('^[0-9]{1,9}$') || int(self[name]) >= 10)",
                "message": "spec.postgres.parameters: max_wal_senders and max_replication_slots must be at least 10: replicas need them"
            },
            {
                "rule": "['max_connections', 'max_locks_per_transaction'].all(name, !(name in self) || !self[name].matches('^[0-9]{1,9}$') || int(self[name]) >= (name == 'max_connections' ? 25 : 32))",
                "message": "spec.postgres.parameters: max_connections must be at least 25, and max_locks_per_transaction at least 32: Patroni takes nothing less"
            },
            {
                "rule": "self.all(name, self[name].matches('^[^\\\\x00-\\\\x1f\\\\x7f]*$'))",
                "message": "spec.postgres.parameters: a value must not have control characters"
            }
        ]
    })
}

fn size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "maxLength": 32,
        "description": "The size of each instance's volume, at least 256Mi. It can grow, if the StorageClass allows it, and not shrink.",
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
