//! Database pods as tests look at them.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;

use super::sandbox::Sandbox;

impl Sandbox {
    /// The pods of a database.
    pub async fn pods(&self, name: &str) -> Vec<Pod> {
        let of_database = ListParams::default().labels(&format!("servicedb.dev/scope={name}-db"));
        self.api::<Pod>().list(&of_database).await.expect("the database's pods").items
    }

    /// The primary of a database, as status tells.
    pub async fn primary(&self, name: &str) -> String {
        self.get(name).await.status.and_then(|status| status.primary).expect("a primary")
    }
}

/// Whether a pod is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
