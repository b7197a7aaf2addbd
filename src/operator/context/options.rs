//! The operator's settings: flags, each also an environment variable that the chart sets.

use std::path::PathBuf;

use super::namespaces::ClientNamespaces;
use super::peers::Peers;
use crate::contract::backup::{ForeignFolders, Stores};

/// The operator's settings. They contain no secret: credentials are in files that they name.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The operator's own namespace: its Lease, and the record of orphans in Vault.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// The operator's own pod: the holder of the Lease, and the reporter of events.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// The namespaces whose ServiceDatabases are reconciled; none means all.
    #[arg(long, env = "SERVICEDB_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    #[arg(long, env = "SERVICEDB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: std::net::SocketAddr,

    /// A name for this cluster, unique among those that share a Vault: part of every path
    /// and name there. Lower-case letters, digits and '-'.
    #[arg(long, env = "SERVICEDB_CLUSTER_ID", value_parser = cluster_id)]
    pub cluster_id: String,
    /// Vault's address, such as https://vault.vault.svc:8200.
    #[arg(long, env = "SERVICEDB_VAULT_ADDRESS")]
    pub vault_address: String,
    /// Vault's namespace (Vault Enterprise).
    #[arg(long, env = "SERVICEDB_VAULT_NAMESPACE")]
    pub vault_namespace: Option<String>,
    /// The authority that signed Vault's certificate, PEM; default: the system's.
    #[arg(long, env = "SERVICEDB_VAULT_CA_FILE")]
    pub vault_ca_file: Option<PathBuf>,
    /// How the operator logs in to Vault.
    #[arg(long, env = "SERVICEDB_VAULT_AUTH_METHOD", value_enum, default_value_t = AuthMethod::Kubernetes)]
    pub vault_auth_method: AuthMethod,
    /// The mount of the auth method that the operator logs in with.
    #[arg(long, env = "SERVICEDB_VAULT_AUTH_MOUNT", default_value = "kubernetes")]
    pub vault_auth_mount: String,
    /// The operator's role in that auth method (kubernetes, jwt).
    #[arg(long, env = "SERVICEDB_VAULT_AUTH_ROLE", default_value = "servicedb-operator")]
    pub vault_auth_role: String,
    /// The file with the ServiceAccount token (kubernetes, jwt) or with a Vault token (token-file).
    #[arg(
        long,
        env = "SERVICEDB_VAULT_TOKEN_FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    pub vault_token_file: PathBuf,
    /// A folder with the files `role-id` and `secret-id` (approle).
    #[arg(long, env = "SERVICEDB_VAULT_APPROLE_DIR", default_value = "/etc/servicedb/vault-approle")]
    pub vault_approle_dir: PathBuf,
    /// The mount of the AppRole auth method for database pods and migration Jobs.
    #[arg(long, env = "SERVICEDB_VAULT_APPROLE_MOUNT", default_value = "approle")]
    pub vault_approle_mount: String,
    /// The mount of the Kubernetes auth method for the clients of the databases.
    #[arg(long, env = "SERVICEDB_VAULT_KUBERNETES_MOUNT", default_value = "kubernetes")]
    pub vault_kubernetes_mount: String,
    /// The mount of KV v2.
    #[arg(long, env = "SERVICEDB_VAULT_KV_MOUNT", default_value = "secret")]
    pub vault_kv_mount: String,
    /// The mount of the database secrets engine, for clients with short-lived logins; none: no database has such clients.
    #[arg(long, env = "SERVICEDB_VAULT_DATABASE_MOUNT")]
    pub vault_database_mount: Option<String>,
    /// Vault's pods, which connect to the databases of such clients: peers of a NetworkPolicy, as JSON:
    /// `vault.databaseClients` of the chart.
    #[arg(long, env = "SERVICEDB_VAULT_DATABASE_CLIENTS", default_value = "[]", value_parser = Peers::parse)]
    pub vault_database_clients: Peers,
    /// How long one request to Vault may take, in seconds; agents and Jobs use it too.
    #[arg(long, env = "SERVICEDB_VAULT_TIMEOUT_SECONDS", default_value_t = 10)]
    pub vault_timeout_seconds: u64,

    /// How long the deletion of a ServiceDatabase waits for Vault, in seconds. After that the
    /// resource is deleted, and its objects in Vault are removed once Vault is back.
    #[arg(long, env = "SERVICEDB_DELETION_DEADLINE_SECONDS", default_value_t = 300)]
    pub deletion_deadline_seconds: u64,

    /// Database images by major version, such as 17=registry/postgres:1.0.
    #[arg(long, env = "SERVICEDB_POSTGRES_IMAGES", value_delimiter = ',', value_parser = version_image, required = true)]
    pub postgres_images: Vec<(String, String)>,
    /// The image of this binary, for migration Jobs.
    #[arg(long, env = "SERVICEDB_OPERATOR_IMAGE")]
    pub operator_image: String,
    /// The image of the data gateway; without one no database has a gateway.
    #[arg(long, env = "SERVICEDB_GATEWAY_IMAGE")]
    pub gateway_image: Option<String>,
    /// The pull policy of all of them.
    #[arg(long, env = "SERVICEDB_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Names of pull Secrets, which must exist in each database's namespace.
    #[arg(long, env = "SERVICEDB_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub image_pull_secrets: Vec<String>,
    /// Whether an image with migrations is mounted as a volume (Kubernetes 1.33 and a runtime
    /// with support for it), instead of copied by an init container.
    #[arg(long, env = "SERVICEDB_IMAGE_VOLUMES", default_value_t = false, action = clap::ArgAction::Set)]
    pub image_volumes: bool,
    /// The uid that database pods and Jobs run as.
    #[arg(long, env = "SERVICEDB_RUN_AS_USER", default_value_t = crate::contract::pod::POSTGRES_UID)]
    pub run_as_user: i64,
    /// The group of their volumes and secrets.
    #[arg(long, env = "SERVICEDB_FS_GROUP", default_value_t = crate::contract::pod::POSTGRES_UID)]
    pub fs_group: i64,
    /// Namespaces whose pods may reach the databases' monitoring ports.
    #[arg(long, env = "SERVICEDB_MONITORING_NAMESPACES", value_delimiter = ',')]
    pub monitoring_namespaces: Vec<String>,

    /// Namespaces whose ServiceAccounts may be clients of databases in other namespaces, by the
    /// namespace of the database, as JSON: `clients.allowedNamespaces` of the chart.
    #[arg(long, env = "SERVICEDB_CLIENT_NAMESPACES", default_value = "{}", value_parser = ClientNamespaces::parse)]
    pub client_namespaces: ClientNamespaces,

    /// Whether database pods have annotations by which a Prometheus without its operator finds their metrics.
    #[arg(long, env = "SERVICEDB_SCRAPE_ANNOTATIONS", default_value_t = false, action = clap::ArgAction::Set)]
    pub scrape_annotations: bool,
    /// Whether database pods serve their metrics over TLS, at a port of their own.
    #[arg(long, env = "SERVICEDB_METRICS_TLS", default_value_t = false, action = clap::ArgAction::Set)]
    pub metrics_tls: bool,

    /// The stores for backups, as JSON: `backup.stores` of the chart.
    #[arg(long, env = "SERVICEDB_BACKUP_STORES", default_value = "{}", value_parser = Stores::parse)]
    pub backup_stores: Stores,
    /// The store of databases whose spec names none; without it they are not backed up.
    #[arg(long, env = "SERVICEDB_BACKUP_DEFAULT_STORE")]
    pub backup_default_store: Option<String>,
    /// Folders of other clusters or namespaces to restore from, as JSON: `backup.restoreFrom` of the chart.
    #[arg(long, env = "SERVICEDB_BACKUP_RESTORE_FROM", default_value = "[]", value_parser = ForeignFolders::parse)]
    pub backup_restore_from: ForeignFolders,
    /// How many backups run at once on one store.
    #[arg(long, env = "SERVICEDB_BACKUP_CONCURRENCY", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub backup_concurrency: u16,

    /// How many ServiceDatabases are reconciled at once.
    #[arg(long, env = "SERVICEDB_CONCURRENCY", default_value_t = 8)]
    pub concurrency: u16,
    /// How often each ServiceDatabase is reconciled without an event, in seconds, with jitter.
    #[arg(long, env = "SERVICEDB_RESYNC_SECONDS", default_value_t = 600)]
    pub resync_seconds: u64,
}

/// How the operator logs in to Vault.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// Vault's Kubernetes auth method, with the pod's ServiceAccount token.
    Kubernetes,
    /// Vault's JWT auth method, with a projected ServiceAccount token.
    Jwt,
    /// AppRole, with two files.
    Approle,
    /// A token in a file that another program renews.
    TokenFile,
}

fn cluster_id(value: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if value.is_empty() || value.len() > 40 || !value.chars().all(allowed) {
        return Err("a cluster id has 1 to 40 lower-case letters, digits and '-'".to_owned());
    }
    Ok(value.to_owned())
}

fn version_image(value: &str) -> Result<(String, String), String> {
    match value.split_once('=') {
        Some((version, image)) if !version.is_empty() && !image.is_empty() => {
            Ok((version.to_owned(), image.to_owned()))
        }
        _ => Err("expected VERSION=IMAGE, such as 17=registry/postgres:1.0".to_owned()),
    }
}
