//! The words of `status.conditions` and of events. A reason is an interface: people match on
//! it, so it never changes its meaning; the message beside it is for people.

use super::documented::documented;

documented! {
    /// The types of conditions, each with its meaning.
    TYPES:

    /// What spec declares is what runs, and it serves.
    READY = "Ready";
    /// The operator is working towards what spec declares.
    RECONCILING = "Reconciling";
    /// Nothing more will happen until somebody changes something; the message says what.
    STALLED = "Stalled";
    /// The primary answers. Alerts use this one.
    DATABASE_AVAILABLE = "DatabaseAvailable";
    /// The credentials in Vault were proved by a login.
    CREDENTIALS_READY = "CredentialsReady";
    /// The schema is at its target.
    MIGRATIONS_APPLIED = "MigrationsApplied";
    /// The certificates are good, and the operator can renew them. It has no part in Ready: what
    /// is served goes on until they end.
    CERTIFICATES_READY = "CertificatesReady";
    /// Vault answers the operator and the agents.
    VAULT_REACHABLE = "VaultReachable";
    /// Every commit waits for a replica that has it, too. Where it is False, the message says
    /// what a failure may cost.
    SYNCHRONOUS_REPLICATION = "SynchronousReplication";
    /// Another version of the operator, or of its images, would change the pods, and waits for an
    /// approval. It has no part in Ready.
    ROLLOUT_PENDING = "RolloutPending";
    /// A volume is nearly full. It is there once one was, and it has no part in Ready, which
    /// `VolumeFull` has.
    VOLUME_NEARLY_FULL = "VolumeNearlyFull";
    /// The schema is not what the migrations give. It is there once that was looked at, and it has
    /// no part in Ready: nothing is repaired by itself.
    SCHEMA_DRIFT = "SchemaDrift";
}

/// Why a condition is as it is.
pub mod reason {
    use crate::api::documented::documented;

    documented! {
        /// The reasons, each with its meaning.
        ALL:

        /// All is as declared.
        READY = "Ready";
        /// The condition holds.
        AVAILABLE = "Available";
        /// Work is under way; the message says which.
        PROGRESSING = "Progressing";
        /// Nothing is under way.
        IDLE = "Idle";
        /// Nothing blocks.
        NOT_STALLED = "NotStalled";
        /// `spec.paused` is true.
        PAUSED = "Paused";
        /// No primary has been seen yet.
        INITIALIZING = "Initializing";
        /// There was a primary; there is none now.
        NO_PRIMARY = "NoPrimary";
        /// Fewer instances are ready than declared.
        INSTANCES_NOT_READY = "InstancesNotReady";
        /// A parameter waits for a restart of PostgreSQL.
        RESTART_PENDING = "RestartPending";
        /// Instances are being replaced, one after another: their template has changed.
        ROLLING_OUT = "RollingOut";
        /// PostgreSQL is being restarted, one instance after another.
        RESTARTING = "Restarting";
        /// Instances are being taken away.
        SCALING_DOWN = "ScalingDown";
        /// Another version would change the pods, and waits for an approval.
        APPROVAL_PENDING = "ApprovalPending";
        /// The pods are as this version makes them, or on their way.
        UP_TO_DATE = "UpToDate";
        /// Of SynchronousReplication: a replica has every commit.
        STREAMING = "Streaming";
        /// Of SynchronousReplication: no replica streams at present; a commit is on one volume.
        NO_STANDBY = "NoStandby";
        /// Of SynchronousReplication: there is one instance.
        SINGLE_INSTANCE = "SingleInstance";
        /// Of SynchronousReplication: spec.replication.synchronous is false.
        ASYNCHRONOUS = "Asynchronous";
        /// Of events: another instance is the primary.
        PRIMARY_CHANGED = "PrimaryChanged";
        /// A volume grows.
        VOLUME_GROWING = "VolumeGrowing";
        /// The StorageClass does not let volumes grow.
        VOLUME_CANNOT_GROW = "VolumeCannotGrow";
        /// A volume is full.
        VOLUME_FULL = "VolumeFull";
        /// A volume claim was deleted, or has lost its volume: the data ends with the pod.
        VOLUME_TERMINATING = "VolumeTerminating";
        /// The API server refuses a new pod of the present template; the pods that run are kept.
        POD_REFUSED = "PodRefused";
        /// PostgreSQL stands still: nobody new can connect, or nothing can be committed.
        SERVER_STALLED = "ServerStalled";
        /// Of VolumeNearlyFull: at least four fifths of a volume are used.
        VOLUME_FILLING = "VolumeFilling";
        /// Of VolumeNearlyFull: the volumes have room.
        VOLUME_HAS_ROOM = "VolumeHasRoom";
        /// The kernel killed a process of PostgreSQL, or the whole container, for want of memory.
        OOM_KILLED = "OOMKilled";
        /// A pod cannot be scheduled.
        UNSCHEDULABLE = "Unschedulable";
        /// A pod's image cannot be had.
        IMAGE_PULL_FAILED = "ImagePullFailed";
        /// A container ends again and again.
        CRASH_LOOP = "CrashLoop";
        /// A volume claim waits, for a StorageClass or a provisioner.
        VOLUME_PENDING = "VolumePending";
        /// An object that the operator needs exists and belongs to somebody else.
        OBJECT_CONFLICT = "ObjectConflict";
        /// Something in spec cannot be done.
        INVALID_SPEC = "InvalidSpec";
        /// No image is configured for `spec.postgres.version`.
        UNSUPPORTED_VERSION = "UnsupportedVersion";
        /// Data of an earlier resource is there, and adoption was not asked for.
        RETAINED_DATA_FOUND = "RetainedDataFound";
        /// The database was initialised, and no volume has its data.
        DATA_LOST = "DataLost";
        /// Vault cannot be reached or is sealed.
        VAULT_UNREACHABLE = "VaultUnreachable";
        /// Vault refuses the operator or the agent a right.
        VAULT_PERMISSION_DENIED = "VaultPermissionDenied";
        /// A mount that the operator needs does not exist in Vault.
        VAULT_MOUNT_MISSING = "VaultMountMissing";
        /// The credentials have not been promoted yet.
        CREDENTIALS_PENDING = "CredentialsPending";
        /// The runtime record of a living database is gone from Vault.
        CREDENTIALS_LOST = "CredentialsLost";
        /// A record in Vault does not hold what was proved; new credentials replace it.
        CREDENTIALS_DAMAGED = "CredentialsDamaged";
        /// Of events: new credentials took the place of others.
        CREDENTIALS_ROTATED = "CredentialsRotated";
        /// Of CertificatesReady: the authority's key is gone, so certificates cannot be renewed.
        AUTHORITY_LOST = "AuthorityLost";
        /// Of CertificatesReady: a new certificate authority takes the place of the present one.
        AUTHORITY_CHANGING = "AuthorityChanging";
        /// A record in Vault belongs to another Kubernetes cluster.
        VAULT_RECORD_FOREIGN = "VaultRecordForeign";
        /// Of events: the schema has another version.
        SCHEMA_CHANGED = "SchemaChanged";
        /// The named ConfigMap does not exist.
        CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound";
        /// The migrations cannot be read as migrations.
        INVALID_MIGRATIONS = "InvalidMigrations";
        /// The migration Job is under way.
        MIGRATIONS_RUNNING = "MigrationsRunning";
        /// A migration failed; the message has the file and the SQLSTATE.
        MIGRATION_FAILED = "MigrationFailed";
        /// An applied migration was edited.
        CHECKSUM_MISMATCH = "ChecksumMismatch";
        /// The source lacks migrations that were applied.
        MIGRATIONS_MISSING = "MigrationsMissing";
        /// The database is ahead of the source.
        AHEAD_OF_SOURCE = "AheadOfSource";
        /// A version below the newest applied one was never applied.
        OUT_OF_ORDER = "OutOfOrder";
        /// The schema is above spec.migrations.targetVersion, and nothing allows to roll back.
        ROLLBACK_REFUSED = "RollbackRefused";
        /// A migration that would have to be rolled back was applied without a down file.
        ROLLBACK_IMPOSSIBLE = "RollbackImpossible";
        /// spec.migrations.targetVersion is none of the migrations.
        TARGET_VERSION_NOT_FOUND = "TargetVersionNotFound";
        /// The migrations wait for another database's schema.
        DEPENDENCY_NOT_READY = "DependencyNotReady";
        /// Databases wait for one another's schemas.
        DEPENDENCY_CYCLE = "DependencyCycle";
        /// spec.migrations.dryRun: what would be run is in status.
        DRY_RUN = "DryRun";
        /// spec.migrations.approval is Manual, and something waits for a person's word.
        APPROVAL_REQUIRED = "ApprovalRequired";
        /// The schema is not what the migrations give; the message says what differs.
        SCHEMA_DRIFTED = "SchemaDrifted";
        /// The schema is what the migrations give.
        SCHEMA_MATCHES = "SchemaMatches";
        /// Whether the schema has drifted could not be found out.
        DRIFT_CHECK_FAILED = "DriftCheckFailed";
        /// The schema is at its target.
        APPLIED = "Applied";
        /// No migrations are declared.
        NOT_DECLARED = "NotDeclared";
        /// The Kubernetes API refused something.
        KUBERNETES_ERROR = "KubernetesError";
        /// The resource is being deleted.
        DELETING = "Deleting";
    }
}
