//! The installed operator: the tests' operators use its settings, and it is scaled down while they
//! run.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::harness::operator::NAME;
use crate::harness::{OPERATOR_NAMESPACE, READY, until};

/// Annotation of the Deployment while it is scaled down: its former number of replicas.
const REPLICAS: &str = "servicedb.dev/replicas-before-faults";
/// The lifetime of a token of the operator's ServiceAccount: longer than any run.
const TOKEN_SECONDS: i64 = 6 * 3600;

/// The installed operator.
pub struct Installed {
    client: Client,
    /// The plain environment variables of its container.
    pub environment: BTreeMap<String, String>,
    /// The rights that it has in its own namespace, such as on its Lease.
    pub own_rights: Role,
    account: String,
}

impl Installed {
    /// Reads the installed operator.
    pub async fn read(client: &Client) -> Self {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
        let deployment = deployments.get(NAME).await.expect("the operator's Deployment; run `make install`");
        let pod = deployment.spec.and_then(|spec| spec.template.spec).expect("the operator's pod");
        let account = pod.service_account_name.clone().expect("the operator's ServiceAccount");
        let variables = pod.containers.first().and_then(|container| container.env.clone()).unwrap_or_default();
        let environment = variables.into_iter().filter_map(|variable| Some((variable.name, variable.value?))).collect();
        let roles: Api<Role> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
        let own_rights = roles.get(NAME).await.expect("the operator's Role in its own namespace");
        Self { client: client.clone(), environment, own_rights, account }
    }

    /// A token of the operator's ServiceAccount.
    pub async fn token(&self, audiences: Vec<String>) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let spec =
            TokenRequestSpec { audiences, expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = accounts
            .create_token_request(&self.account, &PostParams::default(), &request)
            .await
            .expect("a token of the operator's ServiceAccount");
        made.status.expect("a token").token
    }

    /// The ServiceAccount as the subject of a RoleBinding.
    pub fn subject(&self) -> serde_json::Value {
        json!({"kind": "ServiceAccount", "name": self.account, "namespace": OPERATOR_NAMESPACE})
    }

    /// Ends the installed operator's pods, and waits until they are gone.
    pub async fn stand_aside(&self) {
        let before = self.deployment().await;
        let had = before.annotations().get(REPLICAS).cloned();
        let replicas = before.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let remembered = had.unwrap_or_else(|| replicas.to_string());
        self.patch(json!({"metadata": {"annotations": {REPLICAS: remembered}}, "spec": {"replicas": 0}})).await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let parameters = ListParams::default().labels("app.kubernetes.io/component=operator");
        until("the installed operator stands aside", READY, || async {
            let left = pods.list(&parameters).await.map_err(|error| error.to_string())?;
            if left.items.is_empty() { Ok(()) } else { Err(format!("{} pods", left.items.len())) }
        })
        .await;
    }

    /// Scales the installed operator up again, and waits until it is available.
    pub async fn come_back(&self) {
        let Some(replicas) = self.deployment().await.annotations().get(REPLICAS).cloned() else { return };
        let replicas: i32 = replicas.parse().unwrap_or(1);
        self.patch(json!({"metadata": {"annotations": {REPLICAS: null}}, "spec": {"replicas": replicas}})).await;
        until("the installed operator is back", READY, || async {
            let available = self.deployment().await.status.and_then(|status| status.available_replicas).unwrap_or(0);
            if available >= replicas { Ok(()) } else { Err(format!("{available} of {replicas} replicas")) }
        })
        .await;
    }

    async fn deployment(&self) -> Deployment {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        api.get(NAME).await.expect("the operator's Deployment")
    }

    async fn patch(&self, patch: serde_json::Value) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        api.patch(NAME, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("the operator's Deployment changed");
    }
}

/// The address of the cluster's one node, which is this machine: where pods reach it.
pub async fn node_address(client: &Client) -> std::net::IpAddr {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.expect("the nodes");
    let addresses = nodes.items.first().and_then(|node| node.status.clone()?.addresses).unwrap_or_default();
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP").expect("the node's address");
    internal.address.parse().expect("an IP address")
}
