//! ServiceAccounts, and the Role of the database pods, which names its objects.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::json;

use crate::api::spec::MAXIMUM_INSTANCES;
use crate::operator::apply::object::Planned;
use crate::operator::validate::Database;

/// A ServiceAccount. Its token is mounted only if a pod requests it.
pub fn service_account(database: &Database, name: &str) -> Planned {
    Planned::new::<ServiceAccount>(&database.owner, name.to_owned(), json!({"automountServiceAccountToken": false}))
}

/// The rights of the database pods: Patroni's four ConfigMaps and their own pods by name. Only list
/// and watch, which cannot be limited to names, are wider.
pub fn role(database: &Database) -> Planned {
    let names = database.names();
    // Up to the maximum number of instances, so that scaling does not wait for a change of rights.
    let pods = (0..MAXIMUM_INSTANCES).map(|ordinal| names.pod(ordinal)).collect::<Vec<_>>();
    Planned::new::<Role>(
        &database.owner,
        names.base(),
        json!({"rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": names.patroni_config_maps(), "verbs": ["get", "patch", "update"]},
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [names.desired()], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]},
            {"apiGroups": [""], "resources": ["pods"], "resourceNames": pods, "verbs": ["get", "patch", "update"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        ]}),
    )
}

/// Gives the Role to the database pods' ServiceAccount.
pub fn role_binding(database: &Database) -> Planned {
    let names = database.names();
    Planned::new::<RoleBinding>(
        &database.owner,
        names.base(),
        json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": names.base()},
            "subjects": [{"kind": "ServiceAccount", "name": names.base(), "namespace": names.namespace}],
        }),
    )
}
