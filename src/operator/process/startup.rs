//! Starting and stopping: clients, endpoints, the Lease, the controller.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::store;
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OnceCell, RwLock, watch};

use super::controller::{self, watch_pods};
use super::definition;
use super::http::{self, Probes};
use super::leader::Candidate;
use super::nodes;
use crate::api::ServiceDatabase;
use crate::operator::backups::slots::Slots;
use crate::operator::context::Context;
use crate::operator::context::cache::Cache;
use crate::operator::context::metrics::Metrics;
use crate::operator::context::options::{AuthMethod, Options};
use crate::operator::context::vault_ca::VaultCa;
use crate::vault::client::{Login, VaultClient, VaultSettings};

/// The interval of checks for the CustomResourceDefinition.
const LOOK_FOR_CRD: Duration = Duration::from_secs(2);
/// Timeout of running tasks on shutdown.
const GRACE: Duration = Duration::from_secs(20);

/// Runs until a stop signal or the loss of the Lease.
pub async fn run(options: Options) -> ExitCode {
    match start(options).await {
        Ok(code) => code,
        Err(problem) => {
            tracing::error!(problem, "the operator cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn start(options: Options) -> Result<ExitCode, String> {
    let (stop, stopped) = stop_signal()?;
    let vault = vault(&options)?;
    let metrics = Metrics::new(&vault.requests());
    let probes = Probes::new(metrics.clone());
    let listener = http::listen(options.listen).await?;
    let server = tokio::spawn(http::serve(listener, probes.clone(), stopped.clone()));
    let client = Client::try_default().await.map_err(|error| format!("no client for the Kubernetes API: {error}"))?;
    let vault_ca = VaultCa::read(options.vault_ca_file.clone())?;

    wait_for_crd(&client, &stopped).await;
    probes.set_ready(true);
    tokio::spawn(definition::check_periodically(client.clone(), metrics.clone()));
    let mut candidate = Candidate::new(client.clone(), &options.namespace, options.pod_name.clone());
    tokio::select! {
        () = candidate.acquire() => tracing::info!("this operator leads"),
        () = stopped.clone() => return Ok(ExitCode::SUCCESS),
    }
    metrics.leads(true);

    let namespaces = &options.watch_namespaces;
    let scopes = if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
    let (mut pods, mut watches) = (Vec::new(), Vec::new());
    for namespace in scopes {
        let (reader, writer) = store();
        pods.push(reader);
        watches.push(watch_pods(&client, namespace, writer));
    }
    let cluster_uid = cluster_uid(&client).await?;
    let context = Arc::new(Context {
        cluster_uid,
        issuer: OnceCell::new(),
        clock: Arc::new(Timestamp::now),
        vault_names: RwLock::default(),
        reporter: Reporter { controller: "servicedb".to_owned(), instance: Some(options.pod_name.clone()) },
        client: client.clone(),
        vault: Arc::new(vault),
        vault_ca,
        pods,
        pods_filled: OnceCell::new(),
        draining: nodes::start(&client),
        backups: Slots::new(options.backup_concurrency.into(), Timestamp::now()),
        metrics: metrics.clone(),
        cache: Cache::new(Duration::from_secs(options.resync_seconds).mul_f64(0.9)),
        options: options.clone(),
    });
    let work = controller::run(context, watches, stopped.clone());
    let code = tokio::select! {
        () = work => ExitCode::SUCCESS,
        // Running tasks are dropped at once: another operator may already lead.
        () = candidate.hold() => ExitCode::FAILURE,
    };
    metrics.leads(false);
    candidate.release().await;
    let _ = stop.send(true);
    let _ = tokio::time::timeout(GRACE, server).await;
    Ok(code)
}

/// The uid that identifies this cluster.
async fn cluster_uid(client: &Client) -> Result<String, String> {
    let namespace = Api::<Namespace>::all(client.clone()).get("kube-system").await;
    let namespace = namespace.map_err(|error| format!("the namespace kube-system cannot be read: {error}"))?;
    namespace.metadata.uid.ok_or_else(|| "the namespace kube-system has no uid".to_owned())
}

/// The operator's client of Vault.
pub fn vault(options: &Options) -> Result<VaultClient, String> {
    VaultClient::new(settings(options), login(options)).map_err(|error| error.to_string())
}

fn settings(options: &Options) -> VaultSettings {
    VaultSettings {
        address: options.vault_address.clone(),
        namespace: options.vault_namespace.clone(),
        ca_file: options.vault_ca_file.clone(),
        kv_mount: options.vault_kv_mount.clone(),
        approle_mount: options.vault_approle_mount.clone(),
        kubernetes_mount: options.vault_kubernetes_mount.clone(),
        timeout: Duration::from_secs(options.vault_timeout_seconds),
    }
}

fn login(options: &Options) -> Login {
    let (mount, role) = (options.vault_auth_mount.clone(), options.vault_auth_role.clone());
    let jwt_file = options.vault_token_file.clone();
    match options.vault_auth_method {
        AuthMethod::Kubernetes => Login::Kubernetes { mount, role, jwt_file },
        AuthMethod::Jwt => Login::Jwt { mount, role, jwt_file },
        AuthMethod::Approle => Login::AppRole {
            mount,
            role_id_file: options.vault_approle_dir.join(crate::contract::pod::ROLE_ID),
            secret_id_file: options.vault_approle_dir.join(crate::contract::pod::SECRET_ID),
        },
        AuthMethod::TokenFile => Login::TokenFile { file: jwt_file },
    }
}

/// Resolves, for all waiters, after SIGTERM, SIGINT or a message of the sender.
type Stopped = Shared<futures::future::BoxFuture<'static, ()>>;

fn stop_signal() -> Result<(watch::Sender<bool>, Stopped), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let (sender, mut receiver) = watch::channel(false);
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = receiver.wait_for(|stop| *stop) => {}
        }
    };
    Ok((sender, stopped.boxed().shared()))
}

/// Without the CustomResourceDefinition nothing can be watched: the operator waits and does not crash.
async fn wait_for_crd(client: &Client, stopped: &Stopped) {
    let api: Api<ServiceDatabase> = Api::all(client.clone());
    let parameters = kube::api::ListParams::default().limit(1);
    loop {
        match api.list(&parameters).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "waiting for the CustomResourceDefinition servicedatabases.servicedb.dev")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_CRD) => {}
            () = stopped.clone() => return,
        }
    }
}
