//! A sandbox for a run that takes longer than a test may: a separate namespace, whose logs are kept,
//! and which is always removed at the end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use servicedb::api::ServiceDatabase;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::harness::{Cluster, Sandbox, describe};
use crate::logs::Logs;
use crate::settings::say;

/// How long the deletion of a database may take.
const CLEAN_UP: Duration = Duration::from_secs(180);

/// Runs a body in a namespace of its own, for so long at most. What it is refused, panics with
/// or has no time for comes back as text, since the next measurement has nothing to do with it.
///
/// # Errors
/// What the body said, or that its database does not go away.
pub async fn within<T, Fut>(name: &str, bound: Duration, body: impl FnOnce(Arc<Sandbox>) -> Fut) -> Result<T, String>
where
    Fut: Future<Output = Result<T, String>>,
{
    let place = Arc::new(create(name).await);
    let logs = Logs::keep(place.clone());
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let work = AssertUnwindSafe(tokio::time::timeout(bound, body(place.clone()))).catch_unwind();
    let result = tokio::select! {
        result = work => match result {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(format!("it took longer than {} s", bound.as_secs())),
            Err(panic) => Err(words(panic.as_ref())),
        },
        _ = tokio::signal::ctrl_c() => Err("broken off".to_owned()),
        _ = terminate.recv() => Err("broken off".to_owned()),
    };
    if let Err(problem) = &result {
        logs.state().await;
        say(&format!("{name}: {problem}\nlogs and the state at the end: {}", logs.folder().display()));
    }
    let broken_off = matches!(&result, Err(problem) if problem == "broken off");
    if result.is_err() && !broken_off && std::env::var_os("E2E_KEEP").is_some() {
        say(&format!("E2E_KEEP is set: the namespace {} stays", place.namespace));
        return result;
    }
    let removed = remove(&place).await;
    if broken_off {
        // Nobody wants the next measurement either.
        panic!("broken off");
    }
    result.and_then(|found| removed.map(|()| found))
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

async fn create(name: &str) -> Sandbox {
    let cluster = Cluster::get().await;
    let suffix: u32 = rand::random();
    let namespace = format!("outage-{}-{suffix:08x}", name.to_lowercase());
    let labels = json!({"servicedb.dev/outage": "true", "pod-security.kubernetes.io/enforce": "restricted"});
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}}))
        .unwrap_or_else(|error| panic!("the namespace {namespace}: {error}"));
    let created = Api::<Namespace>::all(cluster.client.clone()).create(&PostParams::default(), &object).await;
    created.unwrap_or_else(|error| panic!("creating the namespace {namespace}: {error}"));
    Sandbox { cluster, namespace }
}

/// Removes the databases, which have `deletionPolicy: Delete`, and then the namespace: in this
/// order, since the agents' rights go with the namespace.
async fn remove(place: &Sandbox) -> Result<(), String> {
    let databases: Api<ServiceDatabase> = place.api();
    let started = Instant::now();
    let mut asked = false;
    let left = loop {
        let left = databases.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        if left.is_empty() || started.elapsed() > CLEAN_UP {
            break left;
        }
        if !asked {
            for database in &left {
                asked = databases.delete(&database.name_any(), &DeleteParams::default()).await.is_ok();
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let namespaces: Api<Namespace> = Api::all(place.cluster.client.clone());
    let _ = namespaces.delete(&place.namespace, &DeleteParams::default()).await;
    if left.is_empty() {
        return Ok(());
    }
    let waits: Vec<_> =
        left.iter().map(|database| format!("{} ({})", database.name_any(), describe(database))).collect();
    Err(format!("not deleted within {} s: {}", CLEAN_UP.as_secs(), waits.join("; ")))
}
