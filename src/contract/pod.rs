//! Files, ports and environment of the pods that the operator creates.
//!
//! Secrets are files on tmpfs, owned by root, mode 0440, readable by fsGroup; never environment.

/// The volume's mount; its root belongs to Kubernetes (it may contain `lost+found`), PGDATA is a folder in it.
pub const VOLUME: &str = "/var/lib/postgresql/data";
/// PGDATA.
pub const PGDATA: &str = "/var/lib/postgresql/data/pgdata";
/// The folder in which initdb works, until it is renamed to [`PGDATA`].
pub const PGDATA_NEW: &str = "/var/lib/postgresql/data/pgdata.new";
/// The folder in which a restore in place prepares the next data directory; after the switch it has the former one.
pub const PGDATA_RESTORED: &str = "/var/lib/postgresql/data/pgdata.restored";
/// A data directory that is kept beside its clone (`agent::aside`, aside.py).
pub const PGDATA_KEPT: &str = "/var/lib/postgresql/data/pgdata.kept";
/// [`PGDATA_KEPT`] while it is removed: part of its files may be gone.
pub const PGDATA_REMOVING: &str = "/var/lib/postgresql/data/pgdata.removing";
/// The copy of a data directory from which an upgrade is made.
pub const PGDATA_COPIED: &str = "/var/lib/postgresql/data/pgdata.copied";
/// The folder in which an upgrade makes the next data directory.
pub const PGDATA_UPGRADED: &str = "/var/lib/postgresql/data/pgdata.upgraded";
/// The data directory from before the last upgrade, untouched since its server stopped.
pub const PGDATA_FORMER: &str = "/var/lib/postgresql/data/pgdata.former";
/// The id of an upgrade that failed on this volume: it is not tried again.
pub const UPGRADE_FAILED: &str = "/var/lib/postgresql/data/upgrade.failed";
/// The request of an upgrade whose rehearsal has begun on this volume and not ended, a line for each time.
pub const UPGRADE_TRIED: &str = "/var/lib/postgresql/data/upgrade.tried";
/// The folder of PostgreSQL's local socket, an emptyDir in memory.
pub const SOCKET_DIR: &str = "/run/postgresql";
/// The agent's scratch folder, an emptyDir in memory: Patroni's configuration is written here.
pub const RUN_DIR: &str = "/run/servicedb";
/// In [`RUN_DIR`]: the files of PostgreSQL's logging collector, which the agent passes on and removes.
pub const LOG_DIR: &str = "/run/servicedb/log";
/// `servicedb check` creates it if the login of a record in Vault is refused: the leader's agent of this
/// pod then proves the records, and removes it.
pub const PROVE_FILE: &str = "/run/servicedb/prove-credentials";

/// In [`RUN_DIR`]: pgBackRest's configuration with its keys, and [`ARCHIVE_GIVEN_UP`].
pub const ARCHIVE_DIR: &str = "/run/servicedb/archive";
/// The agent creates it when WAL that waits for the archive fills the volume: segments then count as
/// archived, and PostgreSQL removes them.
pub const ARCHIVE_GIVEN_UP: &str = "/run/servicedb/archive/given-up";
/// In [`RUN_DIR`]: the configuration of pgBackRest's server, which serves the data directory to a backup Job.
pub const BACKUP_SERVER_FILE: &str = "/run/servicedb/backup-server.conf";
/// PostgreSQL's `archive_command`. Without the configuration it fails, and WAL waits.
pub const ARCHIVE_COMMAND: &str = "test -e /run/servicedb/archive/given-up || exec pgbackrest --config=/run/servicedb/archive/pgbackrest.conf --stanza=db archive-push \"%p\"";

/// In [`RUN_DIR`]: [`ARCHIVE_DIR`] of a second store.
pub const SECOND_ARCHIVE_DIR: &str = "/run/servicedb/archive-second";
/// [`ARCHIVE_GIVEN_UP`] of a second store.
pub const SECOND_ARCHIVE_GIVEN_UP: &str = "/run/servicedb/archive-second/given-up";
/// [`ARCHIVE_COMMAND`] with two stores: both get the segment at once, and it fails if one of them lacks it.
pub const ARCHIVE_COMMAND_OF_TWO: &str = "{ test -e /run/servicedb/archive-second/given-up || exec pgbackrest --config=/run/servicedb/archive-second/pgbackrest.conf --stanza=db archive-push \"%p\"; } & ( test -e /run/servicedb/archive/given-up || exec pgbackrest --config=/run/servicedb/archive/pgbackrest.conf --stanza=db archive-push \"%p\" ); first=$?; wait $! && exit $first";

/// A ConfigMap as a folder: [`ROLE_ID`], [`VAULT_ACCESS`], [`VAULT_CA`].
pub const VAULT_DIR: &str = "/etc/servicedb/vault";
/// In [`VAULT_DIR`]: the AppRole's role_id.
pub const ROLE_ID: &str = "role-id";
/// In [`VAULT_DIR`]: how to reach Vault, as JSON (`contract::records::VaultAccess`).
pub const VAULT_ACCESS: &str = "vault.json";
/// In [`VAULT_DIR`]: the authority that signed Vault's certificate, PEM; absent if the system's are used.
pub const VAULT_CA: &str = "ca.crt";
/// A Secret as a folder: [`SECRET_ID`], [`SECRET_ID_ACCESSOR`].
pub const SECRET_ID_DIR: &str = "/etc/servicedb/secret-id";
/// In [`SECRET_ID_DIR`]: the AppRole's secret_id.
pub const SECRET_ID: &str = "secret-id";
/// In [`SECRET_ID_DIR`]: its accessor, which identifies it without revealing it.
pub const SECRET_ID_ACCESSOR: &str = "accessor";

/// A Secret as a folder, in database pods: `ca.crt`, and `.crt` and `.key` of `server`,
/// `replicator`, `rewinder` and `patroni` (the client certificate for Patroni's REST API).
pub const TLS_DIR: &str = "/etc/servicedb/tls";

/// A ConfigMap as a folder, in migration Jobs: the files of one revision.
pub const MIGRATIONS_DIR: &str = "/etc/servicedb/migrations";

/// An image as a folder, in migration Jobs, where the installation mounts images as volumes.
pub const IMAGE_DIR: &str = "/etc/servicedb/image";
/// The connection files of a team's own migration tool, an emptyDir in memory:
/// [`SERVICE_FILE`], [`PASSWORD_FILE`], [`URL_FILE`], [`SESSION_CA`].
pub const SESSION_DIR: &str = "/run/servicedb/session";
/// In [`SESSION_DIR`]: libpq's connection service file, with the service [`SERVICE`].
pub const SERVICE_FILE: &str = "pg_service.conf";
/// The service in [`SERVICE_FILE`].
pub const SERVICE: &str = "servicedb";
/// In [`SESSION_DIR`]: libpq's password file.
pub const PASSWORD_FILE: &str = "pgpass";
/// In [`SESSION_DIR`]: the same as one URL, with the password, for tools that do not support service files.
pub const URL_FILE: &str = "url";
/// In [`SESSION_DIR`]: the authority of the database, PEM.
pub const SESSION_CA: &str = "ca.crt";

/// The folder of the scratch server of a drift check, an emptyDir.
pub const SCRATCH_DIR: &str = "/run/servicedb/scratch";

/// The size of a segment of WAL, in bytes: initdb's default.
pub const WAL_SEGMENT: u64 = 16 << 20;

/// Where the kubelet reads the result of a Job's container.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// PostgreSQL's port.
pub const POSTGRES_PORT: u16 = 5432;
/// Patroni's REST API, TLS.
pub const PATRONI_PORT: u16 = 8008;
/// The agent's probes: `GET /livez` and `GET /readyz`, plain HTTP.
pub const AGENT_PORT: u16 = 8010;
/// The metrics over TLS, where the installation has chosen it; then they are not at [`AGENT_PORT`].
pub const METRICS_TLS_PORT: u16 = 8011;
/// Environment of database pods: there, with any content, where the metrics are at [`METRICS_TLS_PORT`].
pub const ENV_METRICS_TLS: &str = "SERVICEDB_METRICS_TLS";

/// pgBackRest's server, TLS with client certificates, while a backup Job runs.
pub const BACKUP_PORT: u16 = 8432;

/// The query of `GET /livez` that is answered once the instance is ready, or after [`START_SECONDS`].
/// An agent that does not know it answers at once.
pub const STARTED: &str = "started";
/// Seconds that a normal start takes at most.
pub const START_SECONDS: u64 = 50;

/// Environment of database pods, by the downward API or as plain values: the pod's name.
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
/// The folder with the files from an image, which the revision identifies; not set with another
/// source.
pub const ENV_IMAGE_FOLDER: &str = "SERVICEDB_IMAGE_FOLDER";
/// The query for the version of a schema that a team's own tool migrates; not set without one.
pub const ENV_VERSION_QUERY: &str = "SERVICEDB_VERSION_QUERY";
/// In checks for drift: the extensions of the database, separated by commas; not set without any.
pub const ENV_EXTENSIONS: &str = "SERVICEDB_EXTENSIONS";
/// In checks for drift: the options of the extensions, as JSON; not set without any.
pub const ENV_EXTENSION_OPTIONS: &str = "SERVICEDB_EXTENSION_OPTIONS";
/// In checks for drift: the server's search path as the spec sets it; not set without it.
pub const ENV_SEARCH_PATH: &str = "SERVICEDB_SEARCH_PATH";

/// Environment of backup Jobs, as JSON (`contract::backup_job::BackupJob`).
pub const ENV_BACKUP: &str = "SERVICEDB_BACKUP";

/// Environment of Jobs that test a backup, as JSON (`contract::backup_job::VerificationJob`).
pub const ENV_VERIFICATION: &str = "SERVICEDB_VERIFICATION";

/// Environment of Jobs that rehearse a major upgrade, as JSON (`contract::rehearsal::RehearsalJob`).
pub const ENV_REHEARSAL: &str = "SERVICEDB_REHEARSAL";
/// In these Jobs: the ConfigMap with the desired state as a folder.
pub const DESIRED_DIR: &str = "/etc/servicedb/desired";

/// The uid and gid of `postgres` in the database image.
pub const POSTGRES_UID: i64 = 999;
