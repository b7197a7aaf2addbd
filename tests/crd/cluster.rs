//! The API server of the tests.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const FIELD_MANAGER: &str = "servicedb-tests";
const CRD: &str = "servicedatabases.servicedb.dev";

/// The CRD is updated once, by the first test.
static CRD_IS_CURRENT: OnceCell<()> = OnceCell::const_new();

/// A client of the API server; dry runs go to the namespace `default`.
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// Connects, and updates the CRD. Without a cluster the test fails, instead of skipping
    /// untested rules.
    pub async fn connect() -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        let file = kubeconfig();
        let config = async {
            let kubeconfig = Kubeconfig::read_from(&file)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
        };
        let config = match config.await {
            Ok(config) => config,
            Err(error) => panic!("no cluster: {} is not usable ({error}); run `make cluster`", file.display()),
        };
        let client = Client::try_from(config).expect("a client of the kubeconfig's cluster");
        if let Err(error) = client.apiserver_version().await {
            panic!("no cluster: the API server of {} does not answer ({error}); run `make cluster`", file.display());
        }
        CRD_IS_CURRENT.get_or_init(|| bring_crd_up_to_date(client.clone())).await;
        Self { client, namespace: "default".to_owned() }
    }

    /// The same cluster, another namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { client: self.client.clone(), namespace: namespace.to_owned() }
    }

    /// Creates a ServiceDatabase, and returns it or the server's message.
    pub async fn create(&self, name: &str, spec: &Value, validation: &str, dry_run: bool) -> Result<Value, String> {
        let dry_run = if dry_run { "&dryRun=All" } else { "" };
        let uri = format!("{}?fieldValidation={validation}{dry_run}", self.collection());
        let object = json!({
            "apiVersion": "servicedb.dev/v1alpha1",
            "kind": "ServiceDatabase",
            "metadata": { "name": name },
            "spec": spec
        });
        self.send(http::Request::post(uri).header("content-type", "application/json"), &object).await
    }

    /// Applies a spec by server-side apply.
    pub async fn apply(&self, name: &str, spec: &Value, dry_run: bool) -> Result<Value, String> {
        let dry_run = if dry_run { "&dryRun=All" } else { "" };
        let options = format!("fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict{dry_run}");
        let request = http::Request::patch(format!("{}/{name}?{options}", self.collection()));
        let object = json!({
            "apiVersion": "servicedb.dev/v1alpha1",
            "kind": "ServiceDatabase",
            "metadata": { "name": name },
            "spec": spec
        });
        self.send(request.header("content-type", "application/apply-patch+yaml"), &object).await
    }

    /// Reads a ServiceDatabase.
    pub async fn get(&self, name: &str) -> Result<Value, String> {
        self.send(http::Request::get(format!("{}/{name}", self.collection())), &Value::Null).await
    }

    /// Changes a spec by a merge patch, as a dry run.
    pub async fn patch_spec(&self, name: &str, patch: &Value) -> Result<Value, String> {
        let uri = format!("{}/{name}?fieldValidation=Strict&dryRun=All", self.collection());
        let request = http::Request::patch(uri).header("content-type", "application/merge-patch+json");
        self.send(request, &json!({ "spec": patch })).await
    }

    /// Changes a status by a merge patch.
    pub async fn patch_status(&self, name: &str, patch: &Value) -> Result<Value, String> {
        let uri = format!("{}/{name}/status?fieldValidation=Strict", self.collection());
        let request = http::Request::patch(uri).header("content-type", "application/merge-patch+json");
        self.send(request, &json!({ "status": patch })).await
    }

    /// Creates a namespace with a unique name.
    pub async fn own_namespace(&self) -> String {
        let suffix = Alphanumeric.sample_string(&mut rand::rng(), 8).to_lowercase();
        let name = format!("crd-test-{suffix}");
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a namespace");
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.expect("the right to create a namespace");
        name
    }

    /// Removes a namespace, without waiting for its end.
    pub async fn remove_namespace(&self, name: &str) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.delete(name, &DeleteParams::background()).await.expect("the right to delete a namespace");
    }

    fn collection(&self) -> String {
        format!("/apis/servicedb.dev/v1alpha1/namespaces/{}/servicedatabases", self.namespace)
    }

    async fn send(&self, request: http::request::Builder, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = request.body(body).expect("a request");
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(status.message),
            Err(error) => panic!("the API server could not be asked: {error}"),
        }
    }
}

/// `KUBECONFIG`, or the local cluster's.
fn kubeconfig() -> PathBuf {
    match std::env::var_os("KUBECONFIG") {
        Some(file) if !file.is_empty() => file.into(),
        _ => concat!(env!("CARGO_MANIFEST_DIR"), "/target/dev/kubeconfig").into(),
    }
}

/// Applies the CRD if it is missing or differs from the types.
async fn bring_crd_up_to_date(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let crd = servicedb::api::crd::definition();
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let live = api.get_opt(CRD).await.expect("the right to read the CRD");
    let wanted = api.patch(CRD, &apply.clone().dry_run(), &Patch::Apply(&crd)).await.expect("an acceptable CRD");
    if live.is_some_and(|live| live.spec == wanted.spec) {
        return;
    }
    let applied = api.patch(CRD, &apply, &Patch::Apply(&crd)).await.expect("the right to apply the CRD");
    println!("applied the CRD, generation {}", applied.metadata.generation.unwrap_or_default());
    let established = kube::runtime::wait::conditions::is_crd_established();
    let waiting = kube::runtime::wait::await_condition(api, CRD, established);
    _ = tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("an established CRD within 30 s");
    // The server uses the old schema for a moment.
    tokio::time::sleep(Duration::from_secs(3)).await;
}
