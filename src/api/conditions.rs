//! Types and reasons of `status.conditions` and of events. A reason is an API: users match on it,
//! so its meaning never changes. The message is for people.

use super::documented::documented;

documented! {
    /// The types of conditions, each with its meaning.
    TYPES:

    /// The declared state is applied, and the database serves.
    READY = "Ready";
    /// The operator is working towards the declared state.
    RECONCILING = "Reconciling";
    /// The operator cannot continue without a change; the message names it.
    STALLED = "Stalled";
    /// The primary answers. Use this condition for alerts.
    DATABASE_AVAILABLE = "DatabaseAvailable";
    /// The credentials in Vault were proved by a login.
    CREDENTIALS_READY = "CredentialsReady";
    /// The schema is at its target.
    MIGRATIONS_APPLIED = "MigrationsApplied";
    /// The certificates are valid, and the operator can renew them. It does not affect Ready: the
    /// database serves until they expire.
    CERTIFICATES_READY = "CertificatesReady";
    /// Vault answers the operator and the agents.
    VAULT_REACHABLE = "VaultReachable";
    /// Every commit waits until a replica has it. If False, the message describes the possible loss
    /// by a failure.
    SYNCHRONOUS_REPLICATION = "SynchronousReplication";
    /// Another version of the operator or its images would change the pods, and waits for approval.
    /// It does not affect Ready.
    ROLLOUT_PENDING = "RolloutPending";
    /// A volume is nearly full. It is set after the first occurrence. It does not affect Ready; the
    /// reason `VolumeFull` does.
    VOLUME_NEARLY_FULL = "VolumeNearlyFull";
    /// The schema differs from the migrations. It is set after the first check. It does not affect
    /// Ready: nothing is repaired automatically.
    SCHEMA_DRIFT = "SchemaDrift";
    /// WAL is archived to the store for backups. It is set for databases with a store. It does not
    /// affect Ready.
    CONTINUOUS_ARCHIVING = "ContinuousArchiving";
    /// The store has a backup that is not older than the schedule allows. It is set for databases
    /// with a store. It does not affect Ready.
    BACKED_UP = "BackedUp";
    /// The newest test of a backup, by restoring and checking it, succeeded and is not older than the
    /// schedule allows. It is set for databases with a store, unless the schedule has no tests. It does
    /// not affect Ready.
    RESTORE_VERIFIED = "RestoreVerified";
    /// The sort order of text may have changed: the version of a collation differs from the one
    /// with which the indexes were built. It is set after the first occurrence. It does not affect
    /// Ready.
    COLLATIONS_CHANGED = "CollationsChanged";
    /// Every query of `spec.monitoring.queries` gives its metrics, as far as the primary has run it. It is set for
    /// databases with such queries. It does not affect Ready.
    CUSTOM_METRICS_READ = "CustomMetricsRead";
}

/// The reasons of conditions and events.
pub mod reason {
    use crate::api::documented::documented;

    documented! {
        /// The reasons, each with its meaning.
        ALL:

        /// The declared state is reached.
        READY = "Ready";
        /// The condition holds.
        AVAILABLE = "Available";
        /// Work is in progress; the message describes it.
        PROGRESSING = "Progressing";
        /// No work is in progress.
        IDLE = "Idle";
        /// Nothing is blocked.
        NOT_STALLED = "NotStalled";
        /// Of ContinuousArchiving: WAL is in the store.
        ARCHIVING = "Archiving";
        /// Of ContinuousArchiving: the store cannot be written. WAL is kept on the volume.
        ARCHIVING_FAILED = "ArchivingFailed";
        /// Of BackedUp: the backups are as scheduled.
        BACKED_UP = "BackedUp";
        /// Of BackedUp: the last backup failed; it is retried.
        BACKUP_FAILED = "BackupFailed";
        /// Of BackedUp: a scheduled backup did not start, or the archive lacks WAL from after the newest one.
        BACKUP_OVERDUE = "BackupOverdue";
        /// Of an event: a backup is in the store.
        BACKUP_COMPLETED = "BackupCompleted";
        /// Of an event: a run of the maintenance has ended.
        MAINTENANCE_ENDED = "MaintenanceEnded";
        /// Of RestoreVerified: a backup was restored and checked.
        RESTORE_VERIFIED = "RestoreVerified";
        /// Of RestoreVerified: the last test of a backup failed; it is repeated.
        VERIFICATION_FAILED = "VerificationFailed";
        /// Of RestoreVerified: a scheduled test did not run.
        VERIFICATION_OVERDUE = "VerificationOverdue";
        /// `spec.bootstrap.restore` cannot be done as declared.
        RESTORE_REFUSED = "RestoreRefused";
        /// The backup of `spec.bootstrap.restore` could not be restored; it is retried. Of an event: a requested restore
        /// in place has failed, and changed nothing.
        RESTORE_FAILED = "RestoreFailed";
        /// Of an event: a restore in place was requested and has begun.
        RESTORE_STARTED = "RestoreStarted";
        /// Of an event: a restore in place has ended; the message has the way back.
        RESTORE_COMPLETED = "RestoreCompleted";
        /// A restore in place replaces the database; nothing else is changed meanwhile.
        RESTORING = "Restoring";
        /// A major upgrade, or the way back, exchanges the database; nothing else is changed meanwhile.
        UPGRADING = "Upgrading";
        /// Of events: a major upgrade has another phase.
        UPGRADE_ADVANCED = "UpgradeAdvanced";
        /// Of MigrationsApplied: a restore in place brought back a state before them, and they are not
        /// applied again by themselves.
        RESTORED_BEFORE = "RestoredBefore";
        /// `spec.paused` is true.
        PAUSED = "Paused";
        /// There was no primary yet.
        INITIALIZING = "Initializing";
        /// The database has lost its primary.
        NO_PRIMARY = "NoPrimary";
        /// A planned switchover to another instance is in progress.
        SWITCHING_OVER = "SwitchingOver";
        /// Fewer instances are ready than declared.
        INSTANCES_NOT_READY = "InstancesNotReady";
        /// No pod of the data gateway serves.
        GATEWAY_NOT_READY = "GatewayNotReady";
        /// Of events: `spec.gateway.cache` names a collection that does not exist.
        COLLECTION_MISSING = "CollectionMissing";
        /// No pod of the pooler serves.
        POOLER_NOT_READY = "PoolerNotReady";
        /// A transaction in the pooler did not end in time, and a planned change was put off.
        CHANGE_POSTPONED = "ChangePostponed";
        /// Of events: a transaction in the pooler did not end in time, and queries were not held.
        HOLD_GIVEN_UP = "HoldGivenUp";
        /// A parameter waits for a restart of PostgreSQL.
        RESTART_PENDING = "RestartPending";
        /// Instances are replaced, one after another: the pod template has changed.
        ROLLING_OUT = "RollingOut";
        /// PostgreSQL is restarted, one instance after another.
        RESTARTING = "Restarting";
        /// The ServiceAccount of the pods was deleted, and their tokens with it: they are replaced, the primary first.
        TOKEN_VOID = "TokenVoid";
        /// Instances are removed.
        SCALING_DOWN = "ScalingDown";
        /// Another version would change the pods, and waits for approval.
        APPROVAL_PENDING = "ApprovalPending";
        /// Another version changes the pods, and waits for the next maintenance window.
        WAITING_FOR_WINDOW = "WaitingForWindow";
        /// The pods have this version's template, or are being replaced.
        UP_TO_DATE = "UpToDate";
        /// Of SynchronousReplication: a replica has every commit.
        STREAMING = "Streaming";
        /// Of SynchronousReplication: no replica streams; new commits are on one volume only.
        NO_STANDBY = "NoStandby";
        /// Of SynchronousReplication: there is one instance.
        SINGLE_INSTANCE = "SingleInstance";
        /// Of SynchronousReplication: spec.replication.synchronous is false.
        ASYNCHRONOUS = "Asynchronous";
        /// Of events: another instance is the primary.
        PRIMARY_CHANGED = "PrimaryChanged";
        /// Of events: Patroni's configuration was changed, and the leader's agent restored it.
        CONFIGURATION_REVERTED = "ConfigurationReverted";
        /// A volume is being expanded.
        VOLUME_GROWING = "VolumeGrowing";
        /// The StorageClass does not allow volume expansion.
        VOLUME_CANNOT_GROW = "VolumeCannotGrow";
        /// Of events: a volume is larger than spec.storage.size, as with an autoscaler. Its size is
        /// kept.
        VOLUME_LARGER = "VolumeLarger";
        /// A volume is full.
        VOLUME_FULL = "VolumeFull";
        /// WAL that cannot be archived fills the volume, and sessions are read-only until there is room
        /// (spec.backup.whenVolumeFills).
        WRITES_STOPPED = "WritesStopped";
        /// A volume claim was deleted or has lost its volume: the data is lost when the pod ends.
        VOLUME_TERMINATING = "VolumeTerminating";
        /// The API server refuses a pod, of an instance or of a Job, or its volume claim: a quota,
        /// a LimitRange or a policy. Running instances are kept.
        POD_REFUSED = "PodRefused";
        /// PostgreSQL hangs: no client can connect, or no transaction can commit.
        SERVER_STALLED = "ServerStalled";
        /// Of VolumeNearlyFull: at least four fifths of a volume are used.
        VOLUME_FILLING = "VolumeFilling";
        /// Of VolumeNearlyFull: the volumes have enough free space.
        VOLUME_HAS_ROOM = "VolumeHasRoom";
        /// Of CollationsChanged: the message names the collations, their versions and their indexes.
        COLLATION_VERSION_CHANGED = "CollationVersionChanged";
        /// Of CollationsChanged: the versions are the recorded ones.
        COLLATIONS_UP_TO_DATE = "CollationsUpToDate";
        /// Of CustomMetricsRead: every query gives its metrics.
        QUERIES_READ = "QueriesRead";
        /// Of CustomMetricsRead: a query is refused or fails; the message names it. The others are read.
        QUERY_FAILED = "QueryFailed";
        /// Of CustomMetricsRead: the ConfigMap, its key or its content is not there or cannot be read.
        QUERIES_INVALID = "QueriesInvalid";
        /// The kernel killed a process of PostgreSQL or the whole container: out of memory.
        OOM_KILLED = "OOMKilled";
        /// A pod cannot be scheduled.
        UNSCHEDULABLE = "Unschedulable";
        /// A pod's image cannot be pulled.
        IMAGE_PULL_FAILED = "ImagePullFailed";
        /// A container fails repeatedly, or PostgreSQL does not start or cannot read its files.
        CRASH_LOOP = "CrashLoop";
        /// A volume claim waits for a StorageClass or a provisioner.
        VOLUME_PENDING = "VolumePending";
        /// NetworkPolicies block a pod's traffic to DNS, the API server, Vault or the other
        /// instances.
        EGRESS_DENIED = "EgressDenied";
        /// An object that the operator needs exists with another owner.
        OBJECT_CONFLICT = "ObjectConflict";
        /// The spec cannot be applied.
        INVALID_SPEC = "InvalidSpec";
        /// No image is configured for `spec.postgres.version`.
        UNSUPPORTED_VERSION = "UnsupportedVersion";
        /// Data of a deleted resource exists, and spec.bootstrap.adopt is false.
        RETAINED_DATA_FOUND = "RetainedDataFound";
        /// The database was initialised, but no volume has its data.
        DATA_LOST = "DataLost";
        /// Vault cannot be reached or is sealed.
        VAULT_UNREACHABLE = "VaultUnreachable";
        /// Vault denies a request of the operator or the agent.
        VAULT_PERMISSION_DENIED = "VaultPermissionDenied";
        /// A mount that the operator needs does not exist in Vault.
        VAULT_MOUNT_MISSING = "VaultMountMissing";
        /// The credentials have not been promoted yet.
        CREDENTIALS_PENDING = "CredentialsPending";
        /// The runtime record of an existing database is missing in Vault.
        CREDENTIALS_LOST = "CredentialsLost";
        /// A record in Vault differs from the proved one; new credentials replace it.
        CREDENTIALS_DAMAGED = "CredentialsDamaged";
        /// Of CredentialsReady, which holds: a client's declared right is on a table or column that does
        /// not exist; it is granted once it does.
        GRANT_PENDING = "GrantPending";
        /// Of CredentialsReady, which holds: a client's role has a right that spec.clients does not
        /// declare.
        GRANT_DRIFT = "GrantDrift";
        /// Of CredentialsReady, which holds: a client's declared right cannot be granted.
        GRANT_FAILED = "GrantFailed";
        /// Of CredentialsReady: a client's `serviceAccountNamespace` is not one that the platform allows
        /// for databases of this namespace. The client has no access; everything else is applied.
        CLIENT_NOT_ALLOWED = "ClientNotAllowed";
        /// Of CredentialsReady: a client declares `access.dynamic`, and the platform offers no short-lived logins. The
        /// client has no login of its own; everything else is applied.
        SHORT_LIVED_NOT_OFFERED = "ShortLivedNotOffered";
        /// Of events: new credentials replaced the former ones.
        CREDENTIALS_ROTATED = "CredentialsRotated";
        /// Of CertificatesReady: the authority's key is lost; certificates cannot be renewed.
        AUTHORITY_LOST = "AuthorityLost";
        /// Of CertificatesReady: a new certificate authority replaces the present one.
        AUTHORITY_CHANGING = "AuthorityChanging";
        /// A record in Vault belongs to another Kubernetes cluster.
        VAULT_RECORD_FOREIGN = "VaultRecordForeign";
        /// Of events: the schema has another version.
        SCHEMA_CHANGED = "SchemaChanged";
        /// The named ConfigMap does not exist.
        CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound";
        /// The migrations have invalid names or contents.
        INVALID_MIGRATIONS = "InvalidMigrations";
        /// The migration Job runs or is about to start.
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
        /// The schema is above spec.migrations.targetVersion, and spec.migrations.rollback is
        /// Refuse.
        ROLLBACK_REFUSED = "RollbackRefused";
        /// A migration that would have to be rolled back was applied without a down file.
        ROLLBACK_IMPOSSIBLE = "RollbackImpossible";
        /// No migration has the version spec.migrations.targetVersion.
        TARGET_VERSION_NOT_FOUND = "TargetVersionNotFound";
        /// The migrations wait for another database's schema.
        DEPENDENCY_NOT_READY = "DependencyNotReady";
        /// Databases wait for each other's schemas.
        DEPENDENCY_CYCLE = "DependencyCycle";
        /// spec.migrations.dryRun is true; status has the plan.
        DRY_RUN = "DryRun";
        /// spec.migrations.approval is Manual, and statements wait for approval.
        APPROVAL_REQUIRED = "ApprovalRequired";
        /// The schema differs from the migrations; the message names the differences.
        SCHEMA_DRIFTED = "SchemaDrifted";
        /// The schema matches the migrations.
        SCHEMA_MATCHES = "SchemaMatches";
        /// The check for schema drift failed.
        DRIFT_CHECK_FAILED = "DriftCheckFailed";
        /// The schema is at its target.
        APPLIED = "Applied";
        /// No migrations are declared.
        NOT_DECLARED = "NotDeclared";
        /// The Kubernetes API refused a request.
        KUBERNETES_ERROR = "KubernetesError";
        /// The resource is being deleted.
        DELETING = "Deleting";
    }
}
