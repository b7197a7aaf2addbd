//! Where things are in the pods that the operator makes: files, ports, environment.
//!
//! Secrets are files on tmpfs, root's, mode 0440, readable by fsGroup; never environment.

/// The volume's mount; its root is Kubernetes' (a `lost+found` may lie there), PGDATA a folder in it.
pub const VOLUME: &str = "/var/lib/postgresql/data";
/// PGDATA.
pub const PGDATA: &str = "/var/lib/postgresql/data/pgdata";
/// Where initdb works, until it is done and renamed to [`PGDATA`].
pub const PGDATA_NEW: &str = "/var/lib/postgresql/data/pgdata.new";
/// The folder of PostgreSQL's local socket, an emptyDir in memory.
pub const SOCKET_DIR: &str = "/run/postgresql";
/// The agent's scratch, an emptyDir in memory: Patroni's configuration is written here.
pub const RUN_DIR: &str = "/run/servicedb";

/// A ConfigMap as a folder: [`ROLE_ID`], [`VAULT_ACCESS`], [`VAULT_CA`].
pub const VAULT_DIR: &str = "/etc/servicedb/vault";
/// In [`VAULT_DIR`]: the AppRole's role_id.
pub const ROLE_ID: &str = "role-id";
/// In [`VAULT_DIR`]: how to reach Vault, as JSON (`contract::records::VaultAccess`).
pub const VAULT_ACCESS: &str = "vault.json";
/// In [`VAULT_DIR`]: the authority that signed Vault's certificate, PEM; absent where the system's are meant.
pub const VAULT_CA: &str = "ca.crt";
/// A Secret as a folder: [`SECRET_ID`], [`SECRET_ID_ACCESSOR`].
pub const SECRET_ID_DIR: &str = "/etc/servicedb/secret-id";
/// In [`SECRET_ID_DIR`]: the AppRole's secret_id.
pub const SECRET_ID: &str = "secret-id";
/// In [`SECRET_ID_DIR`]: its accessor, which names it without giving it away.
pub const SECRET_ID_ACCESSOR: &str = "accessor";

/// A Secret as a folder, in database pods: `ca.crt`, and `.crt` and `.key` of `server`,
/// `replicator`, `rewinder` and `patroni` (the client certificate for Patroni's REST API).
pub const TLS_DIR: &str = "/etc/servicedb/tls";

/// A ConfigMap as a folder, in migration Jobs: the files of one revision.
pub const MIGRATIONS_DIR: &str = "/etc/servicedb/migrations";

/// An image as a folder, in migration Jobs, where the installation mounts images as volumes.
pub const IMAGE_DIR: &str = "/etc/servicedb/image";
/// What a team's own migration tool finds the database by, an emptyDir in memory:
/// [`SERVICE_FILE`], [`PASSWORD_FILE`], [`URL_FILE`], [`SESSION_CA`].
pub const SESSION_DIR: &str = "/run/servicedb/session";
/// In [`SESSION_DIR`]: libpq's connection service file, with the service [`SERVICE`].
pub const SERVICE_FILE: &str = "pg_service.conf";
/// The service in [`SERVICE_FILE`].
pub const SERVICE: &str = "servicedb";
/// In [`SESSION_DIR`]: libpq's password file.
pub const PASSWORD_FILE: &str = "pgpass";
/// In [`SESSION_DIR`]: the same as one URL, with the password, for what knows no service files.
pub const URL_FILE: &str = "url";
/// In [`SESSION_DIR`]: the authority of the database, PEM.
pub const SESSION_CA: &str = "ca.crt";

/// Where the server works that a check for drift starts for itself, an emptyDir.
pub const SCRATCH_DIR: &str = "/run/servicedb/scratch";

/// PostgreSQL's port.
pub const POSTGRES_PORT: u16 = 5432;
/// Patroni's REST API, TLS.
pub const PATRONI_PORT: u16 = 8008;
/// The agent's probes: `GET /livez` and `GET /readyz`, plain HTTP.
pub const AGENT_PORT: u16 = 8010;

/// Environment of database pods, all by the downward API or plain: the pod's name.
pub const ENV_POD_NAME: &str = "POD_NAME";
/// The pod's namespace.
pub const ENV_POD_NAMESPACE: &str = "POD_NAMESPACE";
/// The pod's uid.
pub const ENV_POD_UID: &str = "POD_UID";
/// The pod's IP address.
pub const ENV_POD_IP: &str = "POD_IP";
/// The ServiceDatabase's name; in migration Jobs too.
pub const ENV_SERVICE: &str = "SERVICEDB_NAME";

/// Environment of migration Jobs: the database's name.
pub const ENV_DATABASE: &str = "SERVICEDB_DATABASE";
/// The primary's host name.
pub const ENV_HOST: &str = "SERVICEDB_HOST";
/// The whole revision hash of the migrations.
pub const ENV_REVISION: &str = "SERVICEDB_REVISION";
/// How it is applied, as JSON (`contract::migration::Policy`).
pub const ENV_MIGRATION_POLICY: &str = "SERVICEDB_MIGRATION_POLICY";
/// Where the files are that an image had, which the revision stands for; not set with another
/// source.
pub const ENV_IMAGE_FOLDER: &str = "SERVICEDB_IMAGE_FOLDER";
/// The query for the version of a schema that a team's own tool migrates; not set without one.
pub const ENV_VERSION_QUERY: &str = "SERVICEDB_VERSION_QUERY";
/// In checks for drift: the extensions of the database, separated by commas; not set without any.
pub const ENV_EXTENSIONS: &str = "SERVICEDB_EXTENSIONS";

/// The uid and gid of `postgres` in the database image.
pub const POSTGRES_UID: i64 = 999;
