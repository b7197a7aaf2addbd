//! The settings: one YAML file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// In bytes.
pub const MEBIBYTE: usize = 1 << 20;
/// The most that kept answers may take: as much as the rest of a pod under load.
const MOST_MEGABYTES: usize = 64;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Where requests are served.
    pub listen: SocketAddr,
    /// Where metrics and probes are served; nowhere, if it is absent.
    pub metrics_listen: Option<SocketAddr>,
    /// The server's certificate. Without one, only loopback addresses are accepted for `listen`.
    pub tls: Option<Tls>,
    /// The database.
    pub database: Database,
    /// The exposed schemas, the default first.
    pub schemas: Vec<String>,
    /// Who may call.
    pub callers: Callers,
    /// The other pods of the same gateway. Absent: a transaction is found by its own pod alone.
    pub peers: Option<Peers>,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// The columns that `POST /search` looks at, by collection.
    #[serde(default)]
    pub search: BTreeMap<String, Vec<String>>,
    /// The text search configuration of `POST /search`.
    #[serde(default = "simple")]
    pub search_configuration: String,
    /// The answers that are kept. Absent: none.
    pub cache: Option<Cache>,
}

fn simple() -> String {
    "simple".to_owned()
}

/// The answers that are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cache {
    /// The collections whose reads they are of, as requests name them.
    pub collections: Vec<String>,
    /// What they may take, in MiB, 1 to 64.
    #[serde(default = "cache_megabytes")]
    pub megabytes: usize,
}

fn cache_megabytes() -> usize {
    8
}

/// Files in PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tls {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where the pods of a gateway, this one among them, reach each other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peers {
    /// Hosts that have the addresses of all pods, such as a headless Service.
    pub hosts: Vec<String>,
    /// Their port.
    pub port: u16,
    /// The name in the certificate of each.
    pub name: String,
    /// The authority of their certificates, PEM.
    pub ca: PathBuf,
}

/// The database and the gateway's login.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Database {
    /// Its host; the certificate of the server must name it.
    pub host: String,
    /// Its port.
    #[serde(default = "postgres_port")]
    pub port: u16,
    /// Its name.
    pub name: String,
    /// The gateway's login.
    pub user: String,
    /// The authority of the server's certificate, PEM. Without one, the connection has no TLS, and only loopback
    /// addresses are accepted.
    pub ca: Option<PathBuf>,
    /// The client certificate of the login, and its key.
    pub client: Option<Tls>,
    /// A file with the login's password.
    pub password_file: Option<PathBuf>,
    /// Its replicas, for reads that ask for one. Absent: the primary answers them.
    pub replicas: Option<Replicas>,
}

/// One address of all replicas.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Replicas {
    /// Their host, which the certificate of each must name.
    pub host: String,
    /// Their port.
    #[serde(default = "postgres_port")]
    pub port: u16,
}

fn postgres_port() -> u16 {
    5432
}

/// Who may call, and as which role.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Callers {
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens: of this database only.
    pub audience: String,
    /// The keys that sign tokens.
    pub keys: Keys,
    /// The role of each ServiceAccount.
    pub roles: Vec<CallerRole>,
}

/// Where the keys are: one of both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Keys {
    /// A JWKS file.
    pub file: Option<PathBuf>,
    /// A JWKS at an https URL, such as `https://kubernetes.default.svc/openid/v1/jwks`.
    pub url: Option<String>,
    /// The authority of the URL's certificate.
    pub ca: Option<PathBuf>,
    /// The token that is sent there.
    pub token_file: Option<PathBuf>,
}

/// A ServiceAccount and its role.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallerRole {
    /// `<namespace>/<name>`.
    pub service_account: String,
    /// The role in the database, which the login may `SET`.
    pub role: String,
}

/// Limits of requests and of the pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Limits {
    /// The largest body of a request.
    pub body_bytes: usize,
    /// The bodies of all requests together; at least the largest one.
    pub bodies_bytes: usize,
    /// The most conditions and embedded collections of a request.
    pub conditions: usize,
    /// The most levels of conditions, and of embedding.
    pub depth: usize,
    /// The most rows of an answer; a larger `limit` is lowered to it. Absent: no bound.
    pub rows: Option<u64>,
    /// Up to this size an answer is sent whole, with its length and its range; beyond it, row by row.
    pub buffer_bytes: usize,
    /// The largest answer of a write.
    pub write_answer_bytes: usize,
    /// The largest answer to a request with an idempotency key that is kept for its repetition.
    pub kept_answer_bytes: usize,
    /// All answers that are kept, of the database; beyond it an answer is not kept.
    pub kept_answers_bytes: u64,
    /// How often expired idempotency keys are removed.
    pub forget_seconds: u64,
    /// The longest time of a statement.
    pub statement_milliseconds: u64,
    /// Connections to the database.
    pub connections: usize,
    /// Requests that may wait for a connection.
    pub waiting: usize,
    /// How long a request waits for one.
    pub wait_milliseconds: u64,
    /// What the statements of a caller may cost in a second, in units of the planner. Absent: no bound.
    pub cost_per_second: Option<u64>,
    /// What they may cost at once; ten seconds' worth, if it is absent.
    pub cost_burst: Option<u64>,
    /// Connections of clients.
    pub clients: usize,
    /// Interactive transactions of a caller.
    pub transactions_of_a_caller: usize,
    /// The longest time of an interactive transaction without a call.
    pub transaction_idle_seconds: u64,
    /// The longest time of an interactive transaction.
    pub transaction_seconds: u64,
    /// The operations of a transaction sent at once.
    pub operations: usize,
    /// How often the schema is compared with the catalogue.
    pub schema_seconds: u64,
    /// How long a client may take nothing of an answer that is sent row by row.
    pub stall_seconds: u64,
    /// A statement that takes longer is logged.
    pub slow_milliseconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            bodies_bytes: 64 << 20,
            conditions: 200,
            depth: 16,
            rows: None,
            buffer_bytes: 256 << 10,
            write_answer_bytes: 32 << 20,
            kept_answer_bytes: 64 << 10,
            kept_answers_bytes: 1 << 30,
            forget_seconds: 60,
            statement_milliseconds: 30_000,
            connections: 10,
            waiting: 200,
            wait_milliseconds: 2_000,
            cost_per_second: None,
            cost_burst: None,
            clients: 2_000,
            transactions_of_a_caller: 4,
            transaction_idle_seconds: 10,
            transaction_seconds: 60,
            operations: 100,
            schema_seconds: 2,
            stall_seconds: 30,
            slow_milliseconds: 1_000,
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file.
    #[error("{}: {problem}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A setting.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// The problem.
        problem: String,
    },
}

/// Reads a file that the settings name.
///
/// # Errors
/// If it cannot be read.
pub fn file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::File { path: path.to_owned(), problem: error.to_string() })
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// If the file cannot be read, or a setting cannot be used.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = file(path)?;
        let config: Self = serde_yaml::from_slice(&text)
            .map_err(|error| ConfigError::File { path: path.to_owned(), problem: error.to_string() })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |setting, problem: &str| Err(ConfigError::Setting { setting, problem: problem.to_owned() });
        if self.schemas.is_empty() {
            return refuse("schemas", "name at least one");
        }
        if self
            .schemas
            .iter()
            .any(|schema| schema == "servicedb" || schema.starts_with("pg_") || schema == "information_schema")
        {
            return refuse("schemas", "servicedb's own schema and PostgreSQL's are never exposed");
        }
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            return refuse("tls", "without a certificate only a loopback address is served");
        }
        if self.peers.as_ref().is_some_and(|peers| self.tls.is_none() || peers.hosts.is_empty()) {
            return refuse("peers", "they reach each other by TLS (tls), at one host at least");
        }
        let is_local = |host: &str| ["localhost", "127.0.0.1", "::1"].contains(&host) || host.starts_with('/');
        let replicas = self.database.replicas.iter().map(|replicas| replicas.host.as_str());
        let all_local = replicas.chain([self.database.host.as_str()]).all(is_local);
        if self.database.ca.is_none() && !all_local {
            return refuse("database.ca", "without an authority only a local database is used");
        }
        if self.callers.keys.file.is_some() == self.callers.keys.url.is_some() {
            return refuse("callers.keys", "name a file or a URL");
        }
        if self.callers.keys.url.as_ref().is_some_and(|url| !url.starts_with("https://")) {
            return refuse("callers.keys.url", "only https is used");
        }
        let mut accounts: Vec<_> = self.callers.roles.iter().map(|caller| &caller.service_account).collect();
        accounts.sort();
        if accounts.windows(2).any(|pair| pair[0] == pair[1]) {
            return refuse("callers.roles", "a service account is named twice");
        }
        if self.callers.issuer.is_empty() || self.callers.audience.is_empty() {
            return refuse("callers", "issuer and audience name this cluster and this database");
        }
        // The role "none" would be the login itself.
        let unusable = |role: &str| role.is_empty() || role == "none";
        if self.callers.roles.iter().any(|caller| !caller.service_account.contains('/') || unusable(&caller.role)) {
            return refuse("callers.roles", "each names a service account as <namespace>/<name>, and a role");
        }
        if self.limits.cost_per_second == Some(0) || self.limits.cost_burst == Some(0) {
            return refuse("limits", "costPerSecond and costBurst are at least 1");
        }
        if self.limits.cost_burst.is_some() && self.limits.cost_per_second.is_none() {
            return refuse("limits", "costBurst belongs to costPerSecond");
        }
        if let Some(cache) = &self.cache {
            if cache.collections.is_empty() {
                return refuse("cache.collections", "name at least one, or leave the cache out");
            }
            if !(1..=MOST_MEGABYTES).contains(&cache.megabytes) {
                return refuse("cache.megabytes", "it is from 1 to 64");
            }
        }
        if self.limits.stall_seconds == 0 {
            return refuse("limits", "stallSeconds is at least 1");
        }
        if self.limits.connections == 0 || self.limits.depth == 0 || self.limits.depth > 64 {
            return refuse("limits", "connections is at least 1, depth between 1 and 64");
        }
        Ok(())
    }
}
