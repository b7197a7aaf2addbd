//! The cluster that all tests share.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::operator;
use super::vault::Vault;

/// One runtime for all tests, so that they can share connections.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a tokio runtime")
});

static CLUSTER: OnceCell<Result<Cluster, String>> = OnceCell::const_new();

/// The cluster, its Vault, and the operator's settings.
pub struct Cluster {
    /// The Kubernetes API, as an administrator.
    pub client: Client,
    /// Vault, as its root.
    pub vault: Vault,
    /// The operator's cluster id, which is in every path and name in Vault.
    pub id: String,
}

impl Cluster {
    /// The cluster; connects to it once.
    ///
    /// # Panics
    /// If there is no cluster or no operator.
    pub async fn get() -> &'static Self {
        match CLUSTER.get_or_init(connect).await {
            Ok(cluster) => cluster,
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Whether the cluster's processes run on this machine, so that `/proc` shows them.
    pub fn is_local() -> bool {
        context().is_none()
    }
}

async fn connect() -> Result<Cluster, String> {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let path = kubeconfig();
    let mut config = config().await?;
    config.read_timeout = Some(Duration::from_secs(120));
    let client = Client::try_from(config).map_err(|error| error.to_string())?;
    client
        .apiserver_version()
        .await
        .map_err(|error| format!("the cluster of {} does not answer ({error}); run `make cluster`", path.display()))?;

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), operator::NAMESPACE);
    let deployment =
        deployments.get_opt(operator::NAME).await.map_err(|error| error.to_string())?.ok_or_else(|| {
            format!(
                "there is no operator: no Deployment {}/{}; run `make install`",
                operator::NAMESPACE,
                operator::NAME
            )
        })?;
    if deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0) == 0 {
        return Err("the operator was installed and is not available; see its logs, then `make install`".to_owned());
    }
    let id = operator::setting(&deployment, "SERVICEDB_CLUSTER_ID")
        .ok_or("the operator's Deployment has no SERVICEDB_CLUSTER_ID; run `make install`")?;
    Ok(Cluster { client, vault: Vault::connect().await?, id })
}

/// The kubeconfig's file.
fn kubeconfig() -> PathBuf {
    match std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => dev_file("kubeconfig"),
    }
}

/// How an administrator reaches the API server.
///
/// # Errors
/// If there is no kubeconfig, or it is not usable.
pub async fn config() -> Result<Config, String> {
    let path = kubeconfig();
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| {
        format!("no cluster: the kubeconfig {} is not readable ({error}); run `make cluster`", path.display())
    })?;
    let options = KubeConfigOptions { context: context(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| format!("the kubeconfig {} is not usable: {error}", path.display()))
}

/// The context to use, where it is not the local cluster.
pub fn context() -> Option<String> {
    std::env::var("CONTEXT").ok().filter(|context| !context.is_empty())
}

/// A file that `make cluster` writes.
pub fn dev_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dev").join(name)
}
