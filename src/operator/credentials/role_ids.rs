//! The role_ids of a database.

/// The role_ids of one ServiceDatabase's AppRoles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleIds {
    /// For the database pods.
    pub instance: String,
    /// For the migration Job.
    pub migrator: String,
}
