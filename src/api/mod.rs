//! The resource: the declared state and the reported status.
//!
//! A client of Servicedb needs only this module (as does the kubectl plugin): it has no Unix-only
//! dependency and does no I/O.

mod documented;
mod nulls;

pub mod clients;
pub mod conditions;
pub mod crd;
pub mod format;
pub mod gateway;
pub mod maintenance;
pub mod migrations;
pub mod names;
pub mod observation;
pub mod pod_metadata;
pub mod pooler;
pub mod spec;
pub mod status;
pub mod version;

pub use clients::{AccessMode, AccessSpec, ClientSpec, DynamicSpec, GrantSpec, Privilege, UndeclaredRights};
pub use format::MigrationFormat;
pub use gateway::{GatewayCache, GatewaySpec, GatewayStatus};
pub use maintenance::{
    MaintenanceAction, MaintenanceDone, MaintenanceItem, MaintenanceRun, MaintenanceSpec, MaintenanceStatus,
    MaintenanceWindow, ReindexSpec, WindowRollout,
};
pub use migrations::{
    Approval, Baseline, ConfigMapReference, ImageSource, MigrationSource, MigrationsSpec, Permission, SchemaDependency,
    SecretReference, ToolSource,
};
pub use observation::{AuditClass, AuditSpec, MonitoringSpec, QueriesReference};
pub use pod_metadata::PodMetadata;
pub use pooler::{HoldStatus, OnTimeout, PlannedChangesSpec, PoolMode, PoolerSpec, PoolerStatus};
pub use spec::{
    BackupDeletionPolicy, BackupScheduleSpec, BackupSpec, BindingSecretSpec, BootstrapSpec, CredentialsSpec,
    DeletionPolicy, ExtensionSpec, PostgresSpec, ReplicationSpec, RestoreSource, RestoreSpec, RestoreTarget,
    ScaleDownPolicy, SchedulingSpec, ServiceDatabase, ServiceDatabaseSpec, StorageSpec, UpdatePolicy, WhenVolumeFills,
};
pub use status::{
    AuthorityChange, AuthorityPhase, BackupRunStatus, BackupStatus, BackupType, BindingStatus, CapacityStatus,
    CertificatesStatus, ClientStatus, CredentialsStatus, DriftStatus, Endpoints, HeldStatement, InPlaceRestore, JobRun,
    LeftDatabase, LeftTimeline, MigrationAction, MigrationPlan, MigrationRecord, MigrationState, MigrationsStatus,
    PendingApproval, PendingRollout, PlannedMigration, RecoveryWindow, RequestState, RequestStatus,
    ServiceDatabaseStatus, StoredBackup, TableCapacity, UpgradeAction, UpgradePhase, UpgradeStatus, VerifiedBackup,
};
pub use version::SchemaVersion;
