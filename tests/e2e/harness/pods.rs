//! Database pods.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;

use super::SOON;
use super::sandbox::Sandbox;
use super::wait::until;

impl Sandbox {
    /// The pods of a database.
    pub async fn pods(&self, name: &str) -> Vec<Pod> {
        let of_database = ListParams::default().labels(&format!("servicedb.dev/scope={name}-db"));
        self.api::<Pod>().list(&of_database).await.expect("the database's pods").items
    }

    /// The primary of a database, as status tells, once it tells of one.
    pub async fn primary(&self, name: &str) -> String {
        until("status tells of a primary", SOON, || async {
            let status = self.get(name).await.status;
            status.and_then(|status| status.primary).ok_or_else(|| "status has no primary".to_owned())
        })
        .await
    }
}

/// Whether a pod is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The uid of a pod that nobody has deleted.
pub async fn pod_uid(sandbox: &Sandbox, pod: &str) -> Option<String> {
    let pod = sandbox.api::<Pod>().get_opt(pod).await.expect("a pod")?;
    pod.metadata.deletion_timestamp.is_none().then(|| pod.uid()).flatten()
}
