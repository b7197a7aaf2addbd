//! The objects of a database, as anybody with rights in its namespace can delete them.

use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;

use super::sandbox::Sandbox;

/// Kind and name of the objects of the database `shop`: all but its Secrets, its Jobs, the
/// StatefulSet (its pods go with it) and the ServiceAccount of the pods (their tokens go with it).
pub const OF_SHOP: [(&str, &str); 16] = [
    ("ConfigMap", "shop-db-config"),
    ("ConfigMap", "shop-db-leader"),
    ("ConfigMap", "shop-db-sync"),
    ("ConfigMap", "shop-db-failover"),
    ("ConfigMap", "shop-db-desired"),
    ("ConfigMap", "shop-db-approle"),
    ("ConfigMap", "shop-db-migrator"),
    ("Role", "shop-db"),
    ("RoleBinding", "shop-db"),
    ("ServiceAccount", "shop-db-migrator"),
    ("Service", "shop-db"),
    ("Service", "shop-db-replicas"),
    ("Service", "shop-db-peers"),
    ("NetworkPolicy", "shop-db"),
    ("PodDisruptionBudget", "shop-db"),
    ("PodDisruptionBudget", "shop-db-primary"),
];

/// The Service of the primary: a new one has another address, which clients may hold.
pub const ADDRESS: (&str, &str) = ("Service", "shop-db");

/// The objects of a kind in the namespace.
pub fn objects(sandbox: &Sandbox, kind: &str) -> Api<DynamicObject> {
    let (group, plural) = match kind {
        "Role" | "RoleBinding" => ("rbac.authorization.k8s.io", format!("{}s", kind.to_lowercase())),
        "NetworkPolicy" => ("networking.k8s.io", "networkpolicies".to_owned()),
        "PodDisruptionBudget" => ("policy", "poddisruptionbudgets".to_owned()),
        "StatefulSet" => ("apps", "statefulsets".to_owned()),
        _ => ("", format!("{}s", kind.to_lowercase())),
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), &plural);
    Api::namespaced_with(sandbox.cluster.client.clone(), &sandbox.namespace, &resource)
}
