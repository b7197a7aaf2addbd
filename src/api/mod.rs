//! The resource: what a service team declares and what the operator reports.
//!
//! This module is all that a client of Servicedb needs (the kubectl plugin uses nothing
//! else), so it has no unix-only dependency and does no I/O.

mod documented;

pub mod conditions;
pub mod crd;
pub mod names;
pub mod spec;
pub mod status;

pub use spec::{
    BindingSecretSpec, BootstrapSpec, ClientSpec, ConfigMapReference, CredentialsSpec, DeletionPolicy, ExtensionSpec,
    MigrationSource, MigrationsSpec, Permission, PostgresSpec, ReplicationSpec, SchedulingSpec, SchemaDependency,
    ServiceDatabase, ServiceDatabaseSpec, StorageSpec,
};
pub use status::{
    BindingStatus, CredentialsStatus, Endpoints, MigrationAction, MigrationPlan, MigrationRecord, MigrationState,
    MigrationsStatus, PlannedMigration, ServiceDatabaseStatus,
};
