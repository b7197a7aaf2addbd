//! The role_ids of a database.

/// The role_ids of one ServiceDatabase's AppRoles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleIds {
    /// Of the database pods.
    pub instance: String,
    /// Of the migration Job.
    pub migrator: String,
}
