//! The requests to Vault: their purpose, the required right, and their counters, with labels from
//! fixed lists.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::VaultError;

/// A request to Vault, by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Health,
    Login,
    RenewToken,
    LookupToken,
    ReadPolicy,
    WritePolicy,
    DeletePolicy,
    ReadAppRole,
    WriteAppRole,
    DeleteAppRole,
    ReadRoleId,
    GenerateSecretId,
    ListSecretIds,
    DestroySecretId,
    ReadKubernetesRole,
    WriteKubernetesRole,
    DeleteKubernetesRole,
    ReadDatabaseRole,
    WriteDatabaseRole,
    DeleteDatabaseRole,
    RevokeDatabaseLeases,
    ReadDatabaseConnection,
    WriteDatabaseConnection,
    DeleteDatabaseConnection,
    ReadKv,
    WriteKv,
    DeleteKv,
    DestroyKvVersion,
    ReadKvMetadata,
    WriteKvMetadata,
}

impl Operation {
    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Login => "login",
            Self::RenewToken => "renew_token",
            Self::LookupToken => "lookup_token",
            Self::ReadPolicy => "read_policy",
            Self::WritePolicy => "write_policy",
            Self::DeletePolicy => "delete_policy",
            Self::ReadAppRole => "read_approle",
            Self::WriteAppRole => "write_approle",
            Self::DeleteAppRole => "delete_approle",
            Self::ReadRoleId => "read_role_id",
            Self::GenerateSecretId => "generate_secret_id",
            Self::ListSecretIds => "list_secret_ids",
            Self::DestroySecretId => "destroy_secret_id",
            Self::ReadKubernetesRole => "read_kubernetes_role",
            Self::WriteKubernetesRole => "write_kubernetes_role",
            Self::DeleteKubernetesRole => "delete_kubernetes_role",
            Self::ReadDatabaseRole => "read_database_role",
            Self::WriteDatabaseRole => "write_database_role",
            Self::DeleteDatabaseRole => "delete_database_role",
            Self::RevokeDatabaseLeases => "revoke_database_leases",
            Self::ReadDatabaseConnection => "read_database_connection",
            Self::WriteDatabaseConnection => "write_database_connection",
            Self::DeleteDatabaseConnection => "delete_database_connection",
            Self::ReadKv => "read_kv",
            Self::WriteKv => "write_kv",
            Self::DeleteKv => "delete_kv",
            Self::DestroyKvVersion => "destroy_kv_version",
            Self::ReadKvMetadata => "read_kv_metadata",
            Self::WriteKvMetadata => "write_kv_metadata",
        }
    }

    /// The capability that a policy must grant for it.
    pub fn capability(self) -> &'static str {
        match self {
            Self::Health
            | Self::LookupToken
            | Self::ReadPolicy
            | Self::ReadAppRole
            | Self::ReadRoleId
            | Self::ReadKubernetesRole
            | Self::ReadDatabaseRole
            | Self::ReadDatabaseConnection
            | Self::ReadKv
            | Self::ReadKvMetadata => "read",
            Self::WritePolicy | Self::WriteAppRole | Self::WriteKubernetesRole => "create or update",
            Self::WriteKv | Self::WriteKvMetadata => "create or update",
            Self::WriteDatabaseRole | Self::WriteDatabaseConnection => "create or update",
            Self::RevokeDatabaseLeases => "update and sudo",
            Self::Login
            | Self::RenewToken
            | Self::GenerateSecretId
            | Self::DestroySecretId
            | Self::DestroyKvVersion => "update",
            Self::ListSecretIds => "list",
            Self::DeletePolicy | Self::DeleteAppRole | Self::DeleteKubernetesRole | Self::DeleteKv => "delete",
            Self::DeleteDatabaseRole | Self::DeleteDatabaseConnection => "delete",
        }
    }
}

/// The number of requests that a client has sent since it was created: `servicedb_vault_requests_total`.
#[derive(Clone, Default)]
pub struct Requests(pub(crate) Family<Labels, Counter>);

/// The operation and the result of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Labels {
    operation: &'static str,
    result: &'static str,
}

impl Requests {
    /// Counts a request; `None` is a missing object.
    pub(super) fn add<T>(&self, operation: Operation, result: &Result<Option<T>, VaultError>) {
        let result = match result {
            Ok(Some(_)) => "ok",
            Ok(None) => "absent",
            Err(VaultError::Unreachable { .. }) => "unreachable",
            Err(VaultError::NotServing { .. }) => "not_serving",
            Err(VaultError::LoginRefused { .. }) => "login_refused",
            Err(VaultError::PermissionDenied { .. }) => "permission_denied",
            Err(VaultError::MountMissing { .. }) => "mount_missing",
            Err(VaultError::CasMismatch { .. }) => "cas_mismatch",
            Err(VaultError::Unexpected { .. }) => "unexpected",
        };
        self.0.get_or_create(&Labels { operation: operation.name(), result }).inc();
    }

    /// The number of requests with an operation, such as `read_kv`, and a result: `ok`, `absent`, or
    /// the class of the error.
    pub fn count(&self, operation: &'static str, result: &'static str) -> u64 {
        self.0.get(&Labels { operation, result }).map_or(0, |count| count.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_under_its_result() {
        let requests = Requests::default();
        requests.add(Operation::ReadKv, &Ok(Some(())));
        requests.add(Operation::ReadKv, &Ok(Some(())));
        requests.add::<()>(Operation::ReadKv, &Err(VaultError::CasMismatch { path: "a".to_owned() }));
        assert_eq!((requests.count("read_kv", "ok"), requests.count("read_kv", "cas_mismatch")), (2, 1));
        assert_eq!(requests.count("write_kv", "ok"), 0);
    }
}
