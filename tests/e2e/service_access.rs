//! The examples of how a service gets its credentials, run as they stand but for names, images
//! and Vault's authority; those of other operators are only read as YAML.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{Cluster, READY, Sandbox, plugin, shared, until, vault_authority};

/// The kubelet syncs a changed Secret into a pod within a minute or two; Vault Agent is set to
/// look every five seconds here.
const FOLLOWS: Duration = Duration::from_secs(300);
/// What `make cluster` builds: psql for services.
const CLIENT_IMAGE: &str = "localhost/servicedb/client:dev";

#[test]
fn vault_agent_brings_rotations() {
    shared("vault-agent", async |sandbox| follows_a_rotation(&sandbox, "vault-agent.yaml").await);
}

#[test]
fn the_binding_secret_brings_rotations() {
    shared("bound", async |sandbox| follows_a_rotation(&sandbox, "binding-secret.yaml").await);
}

#[test]
fn the_examples_of_other_operators_are_yaml() {
    for file in ["vault-secrets-operator.yaml", "external-secrets.yaml"] {
        let kinds: Vec<_> = documents(&text(file)).iter().map(|object| object["kind"].to_string()).collect();
        assert!(kinds.len() >= 2 && !kinds.iter().any(|kind| kind == "null"), "{file}: {kinds:?}");
    }
}

/// The service of an example logs in, and after a rotation with the new login.
async fn follows_a_rotation(sandbox: &Sandbox, file: &str) {
    if !Cluster::is_local() {
        println!("not run: the images are those of the local cluster");
        return;
    }
    let vault_image = {
        let pods: Api<Pod> = Api::namespaced(sandbox.cluster.client.clone(), "vault");
        let vault = pods.get("vault-0").await.expect("the local cluster's Vault");
        vault.spec.and_then(|spec| spec.containers.into_iter().next()?.image).expect("Vault's image")
    };
    let (namespace, cluster) = (&sandbox.namespace, &sandbox.cluster.id);
    let here = text(file)
        .replace("prod-1/messaging/", &format!("{cluster}/{namespace}/"))
        .replace("servicedb.prod-1.messaging.", &format!("servicedb.{cluster}.{namespace}."))
        .replace(", namespace: messaging}", "}")
        .replace("hashicorp/vault:1.20", &vault_image)
        .replace("postgres:17", CLIENT_IMAGE)
        .replace("static_secret_render_interval = \"1m\"", "static_secret_render_interval = \"5s\"");
    for mut object in documents(&here) {
        if object["data"]["ca.crt"] == json!("") {
            object["data"]["ca.crt"] = vault_authority().into();
        }
        if object["kind"] == "ServiceDatabase" {
            object["spec"]["storage"]["size"] = "256Mi".into();
        }
        sandbox.create(object).await;
    }
    sandbox.ready("chat", READY).await;
    until("the service logs in", FOLLOWS, || said(sandbox, "chat_a")).await;
    let rotated = plugin(sandbox, &["rotate", "chat"]).await;
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    until("the service logs in with the new login", FOLLOWS, || said(sandbox, "chat_b")).await;
    let deployment = sandbox.api::<Deployment>().get("chat").await.expect("the Deployment");
    assert_eq!(deployment.metadata.generation, Some(1), "nobody restarted the service");
}

/// Whether the newest line of the service is this.
async fn said(sandbox: &Sandbox, login: &str) -> Result<(), String> {
    let pods = sandbox.api::<Pod>().list(&ListParams::default().labels("app=chat")).await;
    let pod = pods.map_err(|error| error.to_string())?.items.into_iter().next().ok_or("no pod")?;
    let parameters = LogParams { container: Some("chat".to_owned()), tail_lines: Some(1), ..LogParams::default() };
    let log = sandbox.api::<Pod>().logs(&pod.name_any(), &parameters).await.map_err(|error| error.to_string())?;
    if log.trim() == login { Ok(()) } else { Err(format!("{}: {log:?}", pod.name_any())) }
}

fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/service-access").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").filter(|document| !document.trim().is_empty());
    documents
        .map(|document| serde_yaml::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}")))
        .collect()
}
