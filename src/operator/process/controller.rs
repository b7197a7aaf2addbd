//! The controller: which changes are a cause to reconcile, and what follows a failure.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use super::nodes;
use super::selection::{api, labelled, resource_of};
use super::vault_probe;
use super::watches;
use crate::api::ServiceDatabase;
use crate::api::names::LABEL_SCOPE;
use crate::backoff::{delay, jittered};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::lifecycle::orphans;
use crate::operator::observe::pods::{fingerprint, trim};
use crate::operator::reconcile::reconcile;

/// How long one reconcile may take, in seconds.
const TIMEOUT_SECONDS: u64 = 60;
/// The first wait after a failure; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The longest while Vault fails: it may be back at any moment, and one request finds out.
const LONGEST_VAULT_BACKOFF: Duration = Duration::from_secs(20);
/// The wait after a conflict with a newer version of an object.
const OUTDATED: Duration = Duration::from_millis(500);
/// Changes within this time are one cause.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Runs the controller for these watches until `stop` resolves.
pub async fn run(
    context: Arc<Context>,
    watches: Vec<PodWatch>,
    stop: impl Future<Output = ()> + Send + Sync + Clone + 'static,
) {
    // A controller for each watched namespace: what may be watched is what the Role there lets.
    let vault = vault_probe::start(context.clone());
    let controllers = watches.into_iter().map(|pods| controller(context.clone(), pods, vault.clone(), stop.clone()));
    tokio::select! {
        _ = future::join_all(controllers) => {}
        () = orphans::sweep_for_ever(context.clone(), vault.clone()) => {}
    }
}

async fn controller(
    context: Arc<Context>,
    pods: PodWatch,
    vault: watch::Receiver<bool>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let namespace = pods.namespace.as_deref();
    let client = context.client.clone();
    let resources: Api<ServiceDatabase> = api(&client, namespace);
    let config = Config::default().concurrency(context.options.concurrency).debounce(DEBOUNCE);
    let controller = Controller::new(resources, watcher::Config::default()).with_config(config);
    let known = controller.store();
    // Everything that is applied, but Secrets, which the operator may neither list nor watch.
    controller
        .reconcile_on(watches::objects::<StatefulSet>(&context, namespace))
        .reconcile_on(watches::objects::<Job>(&context, namespace))
        .reconcile_on(watches::objects::<Service>(&context, namespace))
        .reconcile_on(watches::objects::<NetworkPolicy>(&context, namespace))
        .reconcile_on(watches::objects::<PodDisruptionBudget>(&context, namespace))
        .reconcile_on(watches::objects::<ServiceAccount>(&context, namespace))
        .reconcile_on(watches::objects::<Role>(&context, namespace))
        .reconcile_on(watches::objects::<RoleBinding>(&context, namespace))
        .reconcile_on(watches::objects::<PersistentVolumeClaim>(&context, namespace))
        .reconcile_on(watches::config_maps(&context, namespace, known))
        .reconcile_on(pods.changes)
        .reconcile_on(nodes::changes(context.draining.clone(), context.pods.clone()))
        .reconcile_all_on(vault_probe::changes(vault))
        .graceful_shutdown_on(stop)
        .run(timed, on_error, context)
        .for_each(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a reconcile ended in an error");
            }
            future::ready(())
        })
        .await;
}

/// A watch of database pods: a trimmed store for all to read, and the changes that matter.
pub struct PodWatch {
    namespace: Option<String>,
    changes: futures::stream::BoxStream<'static, ObjectRef<ServiceDatabase>>,
}

/// Watches the database pods of a namespace (none: of all) into a store.
pub fn watch_pods(client: &Client, namespace: Option<String>, writer: Writer<Pod>) -> PodWatch {
    let events =
        watcher(api::<Pod>(client, namespace.as_deref()), labelled(LABEL_SCOPE)).default_backoff().modify(trim);
    let changes = relevant(reflector(writer, events));
    PodWatch { namespace, changes: changes.boxed() }
}

/// The resources whose pods changed in what the operator reads. Deletions always count.
fn relevant(
    events: impl Stream<Item = Result<watcher::Event<Pod>, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<ServiceDatabase>> + Send {
    let mut seen: HashMap<(Option<String>, String), u64> = HashMap::new();
    events
        .filter_map(move |event| {
            let changed = match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    let print = fingerprint(&pod);
                    let before = seen.insert((pod.namespace(), pod.name_any()), print);
                    (before != Some(print)).then(|| resource_of(&pod)).flatten()
                }
                Ok(watcher::Event::Delete(pod)) => {
                    seen.remove(&(pod.namespace(), pod.name_any()));
                    resource_of(&pod)
                }
                Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
                Err(error) => {
                    tracing::warn!(%error, "the watch of database pods failed and is tried again");
                    None
                }
            };
            future::ready(changed)
        })
        .chain(stream::pending())
}

/// One reconcile, with a bound on its time, its metrics and its words: all of them name the resource.
async fn timed(resource: Arc<ServiceDatabase>, context: Arc<Context>) -> Result<Action, Error> {
    let (namespace, database) = (resource.namespace().unwrap_or_default(), resource.name_any());
    // At the level of an error: else a log of warnings alone would not say what they are about.
    let span = tracing::error_span!("reconcile", namespace, database);
    bounded(resource, context).instrument(span).await
}

async fn bounded(resource: Arc<ServiceDatabase>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let uid = resource.uid().unwrap_or_default();
    let work = reconcile(resource.clone(), context.clone());
    let result = match tokio::time::timeout(Duration::from_secs(TIMEOUT_SECONDS), work).await {
        Ok(result) => result,
        Err(_) => {
            // It ended before it told what it saw.
            context.cache.invalidate_reported(&uid);
            Err(Error::Timeout(TIMEOUT_SECONDS))
        }
    };
    let took = started.elapsed();
    let outcome = result.as_ref().map_or_else(Error::class, |_| "ok");
    context.metrics.reconciled(outcome, took);
    match &result {
        Ok(_) => {
            context.cache.succeeded(&uid);
            tracing::debug!(took_ms = took.as_millis(), "reconciled");
        }
        Err(error) if error.is_outdated() => {
            tracing::debug!(%error, "the reconcile is tried again");
        }
        Err(error) => {
            tracing::warn!(reason = error.reason(), %error, "the reconcile is tried again");
        }
    }
    result
}

/// Backoff per resource, by class of error, with jitter.
fn on_error(resource: Arc<ServiceDatabase>, error: &Error, context: Arc<Context>) -> Action {
    if error.is_outdated() {
        // The newer version is on its way through the watch.
        return Action::requeue(jittered(OUTDATED));
    }
    let failures = context.cache.failed(&resource.uid().unwrap_or_default());
    let longest = if matches!(error, Error::Vault(_)) { LONGEST_VAULT_BACKOFF } else { LONGEST_BACKOFF };
    Action::requeue(jittered(delay(failures, FIRST_BACKOFF, longest)))
}
