//! The words of `status.conditions` and of events. A reason is an interface: people match on
//! it, so it never changes its meaning; the message beside it is for people.

/// What spec declares is what runs, and it serves.
pub const READY: &str = "Ready";
/// The operator is working towards what spec declares.
pub const RECONCILING: &str = "Reconciling";
/// Nothing more will happen until somebody changes something; the message says what.
pub const STALLED: &str = "Stalled";
/// The primary answers. Alerts use this one.
pub const DATABASE_AVAILABLE: &str = "DatabaseAvailable";
/// The credentials in Vault were proved by a login.
pub const CREDENTIALS_READY: &str = "CredentialsReady";
/// The schema is at its target.
pub const MIGRATIONS_APPLIED: &str = "MigrationsApplied";
/// Vault answers the operator and the agents.
pub const VAULT_REACHABLE: &str = "VaultReachable";

/// Why a condition is as it is.
pub mod reason {
    /// All is as declared.
    pub const READY: &str = "Ready";
    /// The condition holds.
    pub const AVAILABLE: &str = "Available";
    /// Work is under way; the message says which.
    pub const PROGRESSING: &str = "Progressing";
    /// Nothing is under way.
    pub const IDLE: &str = "Idle";
    /// Nothing blocks.
    pub const NOT_STALLED: &str = "NotStalled";
    /// `spec.paused` is true.
    pub const PAUSED: &str = "Paused";
    /// No primary has been seen yet.
    pub const INITIALIZING: &str = "Initializing";
    /// There was a primary; there is none now.
    pub const NO_PRIMARY: &str = "NoPrimary";
    /// Fewer instances are ready than declared.
    pub const INSTANCES_NOT_READY: &str = "InstancesNotReady";
    /// A pod cannot be scheduled.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// A pod's image cannot be had.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// A container ends again and again.
    pub const CRASH_LOOP: &str = "CrashLoop";
    /// A volume claim waits, for a StorageClass or a provisioner.
    pub const VOLUME_PENDING: &str = "VolumePending";
    /// An object that the operator needs exists and belongs to somebody else.
    pub const OBJECT_CONFLICT: &str = "ObjectConflict";
    /// Something in spec cannot be done.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// No image is configured for `spec.postgres.version`.
    pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";
    /// Data of an earlier resource is there, and adoption was not asked for.
    pub const RETAINED_DATA_FOUND: &str = "RetainedDataFound";
    /// The database was initialised, and no volume has its data.
    pub const DATA_LOST: &str = "DataLost";
    /// Vault cannot be reached or is sealed.
    pub const VAULT_UNREACHABLE: &str = "VaultUnreachable";
    /// Vault refuses the operator or the agent a right.
    pub const VAULT_PERMISSION_DENIED: &str = "VaultPermissionDenied";
    /// A mount that the operator needs does not exist in Vault.
    pub const VAULT_MOUNT_MISSING: &str = "VaultMountMissing";
    /// The credentials have not been promoted yet.
    pub const CREDENTIALS_PENDING: &str = "CredentialsPending";
    /// The runtime record of a living database is gone from Vault.
    pub const CREDENTIALS_LOST: &str = "CredentialsLost";
    /// The named ConfigMap does not exist.
    pub const CONFIG_MAP_NOT_FOUND: &str = "ConfigMapNotFound";
    /// The migrations cannot be read as migrations.
    pub const INVALID_MIGRATIONS: &str = "InvalidMigrations";
    /// The migration Job is under way.
    pub const MIGRATIONS_RUNNING: &str = "MigrationsRunning";
    /// A migration failed; the message has the file and the SQLSTATE.
    pub const MIGRATION_FAILED: &str = "MigrationFailed";
    /// An applied migration was edited.
    pub const CHECKSUM_MISMATCH: &str = "ChecksumMismatch";
    /// The source lacks migrations that were applied.
    pub const MIGRATIONS_MISSING: &str = "MigrationsMissing";
    /// The database is ahead of the source.
    pub const AHEAD_OF_SOURCE: &str = "AheadOfSource";
    /// A version below the newest applied one was never applied.
    pub const OUT_OF_ORDER: &str = "OutOfOrder";
    /// The schema is at its target.
    pub const APPLIED: &str = "Applied";
    /// No migrations are declared.
    pub const NOT_DECLARED: &str = "NotDeclared";
    /// The Kubernetes API refused something.
    pub const KUBERNETES_ERROR: &str = "KubernetesError";
    /// The resource is being deleted.
    pub const DELETING: &str = "Deleting";
}
