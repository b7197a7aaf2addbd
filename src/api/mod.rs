//! The resource: what a service team declares and what the operator reports.
//!
//! This module is all that a client of Servicedb needs (the kubectl plugin uses nothing
//! else), so it has no unix-only dependency and does no I/O.

mod documented;

pub mod conditions;
pub mod crd;
pub mod migrations;
pub mod names;
pub mod spec;
pub mod status;

pub use migrations::{
    Approval, ConfigMapReference, ImageSource, MigrationSource, MigrationsSpec, Permission, SchemaDependency,
    SecretReference, ToolSource,
};
pub use spec::{
    BindingSecretSpec, BootstrapSpec, ClientSpec, CredentialsSpec, DeletionPolicy, ExtensionSpec, PostgresSpec,
    ReplicationSpec, ScaleDownPolicy, SchedulingSpec, ServiceDatabase, ServiceDatabaseSpec, StorageSpec, UpdatePolicy,
};
pub use status::{
    AuthorityChange, AuthorityPhase, BindingStatus, CertificatesStatus, CredentialsStatus, DriftStatus, Endpoints,
    HeldStatement, MigrationAction, MigrationPlan, MigrationRecord, MigrationState, MigrationsStatus, PendingApproval,
    PendingRollout, PlannedMigration, RequestState, RequestStatus, ServiceDatabaseStatus,
};
