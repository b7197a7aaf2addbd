//! How many requests went to Vault, by operation and result: for metrics, with labels from
//! fixed lists.

use std::sync::atomic::{AtomicU64, Ordering};

use super::VaultError;

/// A request to Vault, by what it is for.
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
    LookupSecretId,
    ListSecretIds,
    DestroySecretId,
    ReadKubernetesRole,
    WriteKubernetesRole,
    DeleteKubernetesRole,
    ReadKv,
    WriteKv,
    DeleteKv,
    DestroyKvVersion,
    ReadKvMetadata,
    WriteKvMetadata,
}

impl Operation {
    /// All, in the order of their numbers.
    const ALL: [Self; 24] = [
        Self::Health,
        Self::Login,
        Self::RenewToken,
        Self::LookupToken,
        Self::ReadPolicy,
        Self::WritePolicy,
        Self::DeletePolicy,
        Self::ReadAppRole,
        Self::WriteAppRole,
        Self::DeleteAppRole,
        Self::ReadRoleId,
        Self::GenerateSecretId,
        Self::LookupSecretId,
        Self::ListSecretIds,
        Self::DestroySecretId,
        Self::ReadKubernetesRole,
        Self::WriteKubernetesRole,
        Self::DeleteKubernetesRole,
        Self::ReadKv,
        Self::WriteKv,
        Self::DeleteKv,
        Self::DestroyKvVersion,
        Self::ReadKvMetadata,
        Self::WriteKvMetadata,
    ];

    /// The name that metrics and logs use.
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
            Self::LookupSecretId => "lookup_secret_id",
            Self::ListSecretIds => "list_secret_ids",
            Self::DestroySecretId => "destroy_secret_id",
            Self::ReadKubernetesRole => "read_kubernetes_role",
            Self::WriteKubernetesRole => "write_kubernetes_role",
            Self::DeleteKubernetesRole => "delete_kubernetes_role",
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
            | Self::ReadKv
            | Self::ReadKvMetadata => "read",
            Self::WritePolicy | Self::WriteAppRole | Self::WriteKubernetesRole => "create or update",
            Self::WriteKv | Self::WriteKvMetadata => "create or update",
            Self::Login
            | Self::RenewToken
            | Self::GenerateSecretId
            | Self::LookupSecretId
            | Self::DestroySecretId
            | Self::DestroyKvVersion => "update",
            Self::ListSecretIds => "list",
            Self::DeletePolicy | Self::DeleteAppRole | Self::DeleteKubernetesRole | Self::DeleteKv => "delete",
        }
    }
}

/// The results, in the order of the table's columns.
const RESULTS: [&str; 9] = [
    "ok",
    "absent",
    "unreachable",
    "not_serving",
    "login_refused",
    "permission_denied",
    "mount_missing",
    "cas_mismatch",
    "unexpected",
];

/// One line of the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// The operation, such as `read_kv`.
    pub operation: &'static str,
    /// `ok`, `absent`, or the class of the error.
    pub result: &'static str,
    /// How many there were since the start.
    pub count: u64,
}

/// The counts of one client.
#[derive(Default)]
pub(super) struct Counts {
    table: [[AtomicU64; RESULTS.len()]; Operation::ALL.len()],
}

impl Counts {
    /// Counts a request; `None` is something that is not there.
    pub fn add<T>(&self, operation: Operation, result: &Result<Option<T>, VaultError>) {
        let column = match result {
            Ok(Some(_)) => 0,
            Ok(None) => 1,
            Err(VaultError::Unreachable { .. }) => 2,
            Err(VaultError::NotServing { .. }) => 3,
            Err(VaultError::LoginRefused { .. }) => 4,
            Err(VaultError::PermissionDenied { .. }) => 5,
            Err(VaultError::MountMissing { .. }) => 6,
            Err(VaultError::CasMismatch { .. }) => 7,
            Err(VaultError::Unexpected { .. }) => 8,
        };
        self.table[operation as usize][column].fetch_add(1, Ordering::Relaxed);
    }

    /// The lines that are not zero.
    pub fn snapshot(&self) -> Vec<RequestCount> {
        let mut lines = Vec::new();
        for operation in Operation::ALL {
            for (cell, result) in self.table[operation as usize].iter().zip(RESULTS) {
                let count = cell.load(Ordering::Relaxed);
                if count > 0 {
                    lines.push(RequestCount { operation: operation.name(), result, count });
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_own_row() {
        for (row, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, row, "{operation:?}");
        }
    }

    #[test]
    fn a_request_is_counted_under_its_result() {
        let counts = Counts::default();
        counts.add(Operation::ReadKv, &Ok(Some(())));
        counts.add(Operation::ReadKv, &Ok(Some(())));
        counts.add::<()>(Operation::ReadKv, &Err(VaultError::CasMismatch { path: "a".to_owned() }));
        assert_eq!(
            counts.snapshot(),
            [
                RequestCount { operation: "read_kv", result: "ok", count: 2 },
                RequestCount { operation: "read_kv", result: "cas_mismatch", count: 1 },
            ]
        );
    }
}
