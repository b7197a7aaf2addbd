//! The operator: its pods, its settings, its metrics, its Lease.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt};

use super::READY;
use super::cluster::Cluster;
use super::pods::is_ready;
use super::wait::until;

/// The operator's namespace.
pub const NAMESPACE: &str = "servicedb-system";
/// The operator's Deployment.
pub const NAME: &str = "servicedb-operator";
/// The operator's Lease.
const LEASE: &str = "servicedb-operator";
/// The last errors of an operator that has lost its Lease.
const LEASE_LOST: [&str; 2] = ["the Lease could not be renewed in time", "another operator holds the Lease now"];

/// A setting in the operator's environment.
pub fn setting(deployment: &Deployment, name: &str) -> Option<String> {
    let container = deployment.spec.as_ref()?.template.spec.as_ref()?.containers.first()?;
    container.env.iter().flatten().find(|variable| variable.name == name)?.value.clone()
}

/// The operator in the cluster.
pub struct Operator {
    cluster: &'static Cluster,
}

impl Operator {
    /// The operator of this cluster.
    pub fn of(cluster: &'static Cluster) -> Self {
        Self { cluster }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.cluster.client.clone(), NAMESPACE)
    }

    /// The operator's pods that are not terminating.
    pub async fn pods(&self) -> Vec<Pod> {
        let parameters = ListParams::default().labels("app.kubernetes.io/component=operator");
        let pods = self.api::<Pod>().list(&parameters).await.expect("the operator's pods");
        pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// The number of restarts of the operator's containers, without those whose last end was the loss of the Lease: an
    /// operator that cannot renew it ends, as on a machine that stalls. A new pod has none.
    pub async fn crashes(&self) -> i32 {
        let mut crashes = 0;
        for pod in self.pods().await {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let restarts: i32 = statuses.map(|status| status.restart_count).sum();
            if restarts > 0 && !self.has_lost_its_lease(&pod).await {
                crashes += restarts;
            }
        }
        crashes
    }

    /// Whether the container before the present one ended since it had lost the Lease.
    async fn has_lost_its_lease(&self, pod: &Pod) -> bool {
        let parameters = LogParams { previous: true, tail_lines: Some(100), ..LogParams::default() };
        let log = self.api::<Pod>().logs(&pod.name_any(), &parameters).await.unwrap_or_default();
        LEASE_LOST.iter().any(|error| log.contains(error))
    }

    /// The pod that holds the Lease, once one of the present pods does.
    pub async fn leader(&self, bound: Duration) -> String {
        until("an operator that leads", bound, || async {
            let holder = self.holder().await.ok_or("nobody holds the Lease")?;
            let pods = self.pods().await;
            match pods.iter().find(|pod| pod.name_any() == holder) {
                Some(pod) if is_ready(pod) => Ok(holder),
                Some(_) => Err(format!("{holder} leads and is not Ready")),
                None => Err(format!("the Lease is {holder}'s, which is gone")),
            }
        })
        .await
    }

    /// Who holds the Lease.
    pub async fn holder(&self) -> Option<String> {
        let lease = self.leases().get_opt(LEASE).await.expect("the operator's Lease")?;
        lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
    }

    /// The Leases in the operator's namespace.
    pub fn leases(&self) -> Api<Lease> {
        self.api()
    }

    /// A setting in the operator's environment.
    pub async fn setting(&self, name: &str) -> Option<String> {
        setting(&self.api::<Deployment>().get(NAME).await.expect("the operator's Deployment"), name)
    }

    /// Changes a setting in the operator's environment, and waits for an operator that has it.
    pub async fn set(&self, name: &str, value: &str) {
        let deployments: Api<Deployment> = self.api();
        let before = deployments.get(NAME).await.expect("the operator's Deployment");
        if setting(&before, name).as_deref() == Some(value) {
            return;
        }
        self.patch_environment(before, serde_json::json!({"name": name, "value": value})).await;
    }

    /// Removes a setting from the operator's environment, and waits for an operator without it.
    pub async fn unset(&self, name: &str) {
        let before = self.api::<Deployment>().get(NAME).await.expect("the operator's Deployment");
        if setting(&before, name).is_some() {
            self.patch_environment(before, serde_json::json!({"name": name, "$patch": "delete"})).await;
        }
    }

    async fn patch_environment(&self, before: Deployment, variable: serde_json::Value) {
        let deployments: Api<Deployment> = self.api();
        let container = &before.spec.expect("a spec").template.spec.expect("a pod's spec").containers[0].name;
        let containers = serde_json::json!([{"name": container, "env": [variable]}]);
        let patch = serde_json::json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let changed = deployments.patch(NAME, &PatchParams::default(), &Patch::Strategic(&patch)).await;
        let generation = changed.expect("the Deployment changed").metadata.generation;
        until("the operator has its new setting", READY, || async {
            let now = deployments.get(NAME).await.map_err(|error| error.to_string())?;
            let status = now.status.unwrap_or_default();
            let whole = status.observed_generation >= generation
                && status.updated_replicas == status.replicas
                && status.available_replicas == status.replicas;
            if whole { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        self.leader(READY).await;
    }

    /// Deletes the operator's pods: by SIGKILL at once, or gracefully.
    pub async fn delete_pods(&self, at_once: bool) -> Vec<String> {
        let parameters = if at_once { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
        let mut deleted = Vec::new();
        for pod in self.pods().await {
            self.api::<Pod>().delete(&pod.name_any(), &parameters).await.expect("the operator's pod deleted");
            deleted.push(pod.name_any());
        }
        deleted
    }

    /// The logs of the operator's pods, of earlier containers too.
    pub async fn logs(&self, tail: Option<i64>) -> String {
        let mut text = String::new();
        for pod in self.pods().await {
            for previous in [true, false] {
                let parameters = LogParams { previous, tail_lines: tail, ..LogParams::default() };
                text.push_str(&self.api::<Pod>().logs(&pod.name_any(), &parameters).await.unwrap_or_default());
            }
        }
        text
    }

    /// One of the operator's HTTP paths, by the chart's Service: status and text.
    pub async fn http(&self, path: &str) -> Result<(u16, String), String> {
        let services = self.api::<Service>().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let service = services
            .items
            .into_iter()
            .find(|service| service.name_any().ends_with("-metrics"))
            .ok_or("the chart made no Service for the metrics")?;
        let spec = service.spec.unwrap_or_default();
        let port = spec.ports.iter().flatten().next().map_or(8080, |port| port.port);
        let address = format!("http://{}:{port}{path}", spec.cluster_ip.unwrap_or_default());
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| error.to_string())?;
        let response = client.get(&address).send().await.map_err(|error| format!("{address}: {error}"))?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.map_err(|error| error.to_string())?))
    }

    /// The metrics, once the operator serves them.
    pub async fn metrics(&self) -> String {
        until("the operator's metrics", READY, || async {
            match self.http("/metrics").await? {
                (200, text) => Ok(text),
                (status, text) => Err(format!("HTTP {status}: {text}")),
            }
        })
        .await
    }
}

/// The value of a metric's sample, by its name with labels; 0 while it was never counted.
pub fn counter(metrics: &str, sample: &str) -> f64 {
    metrics.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok()).unwrap_or(0.0)
}
