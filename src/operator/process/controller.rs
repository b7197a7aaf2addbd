//! The controller: the events that trigger a reconcile, and the backoff after a failure.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
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

/// Timeout of a reconcile, in seconds.
const TIMEOUT_SECONDS: u64 = 60;
/// The delay after the first failure; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The maximum delay.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The maximum delay while Vault fails: it may return at any time, and one request is enough to check.
const LONGEST_VAULT_BACKOFF: Duration = Duration::from_secs(20);
/// The delay after a conflict with a newer version of an object.
const OUTDATED: Duration = Duration::from_millis(500);
/// Changes within this time trigger one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Runs the controller for these watches until `stop` resolves.
pub async fn run(
    context: Arc<Context>,
    watches: Vec<PodWatch>,
    stop: impl Future<Output = ()> + Send + Sync + Clone + 'static,
) {
    // A controller for each watched namespace: the Role there limits the watches.
    let vault = vault_probe::start(context.clone());
    let controllers = watches.into_iter().map(|pods| controller(context.clone(), pods, vault.clone(), stop.clone()));
    tokio::select! {
        _ = future::join_all(controllers) => {}
        () = orphans::sweep_periodically(context.clone(), vault.clone()) => {}
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
    // All applied kinds except Secrets, which the operator may neither list nor watch.
    controller
        .reconcile_on(watches::objects::<StatefulSet>(&context, namespace))
        .reconcile_on(watches::objects::<Deployment>(&context, namespace))
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

/// A watch of database pods: a shared trimmed store, and the relevant changes.
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

/// The resources whose pods changed in fields that the operator reads. Deletions always count.
fn relevant(
    events: impl Stream<Item = Result<watcher::Event<Pod>, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<ServiceDatabase>> + Send {
    let mut fingerprints: HashMap<(Option<String>, String), u64> = HashMap::new();
    events
        .filter_map(move |event| {
            let changed = match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    let print = fingerprint(&pod);
                    let before = fingerprints.insert((pod.namespace(), pod.name_any()), print);
                    (before != Some(print)).then(|| resource_of(&pod)).flatten()
                }
                Ok(watcher::Event::Delete(pod)) => {
                    fingerprints.remove(&(pod.namespace(), pod.name_any()));
                    resource_of(&pod)
                }
                Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
                Err(error) => {
                    tracing::warn!(%error, "the watch of database pods failed; retrying");
                    None
                }
            };
            future::ready(changed)
        })
        .chain(stream::pending())
}

/// One reconcile, with its timeout, its metrics and its log span, which names the resource.
async fn timed(resource: Arc<ServiceDatabase>, context: Arc<Context>) -> Result<Action, Error> {
    let (namespace, database) = (resource.namespace().unwrap_or_default(), resource.name_any());
    // At the level of an error: otherwise a log of warnings only would not name the resource.
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
            // It was cancelled before it returned.
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
        Err(error) if error.is_outdated() || error.is_of_terminating_namespace() => {
            tracing::debug!(%error, "the reconcile is retried");
        }
        Err(error) => {
            tracing::warn!(reason = error.reason(), %error, "the reconcile is retried");
        }
    }
    result
}

/// Backoff per resource, by class of error, with jitter.
fn on_error(resource: Arc<ServiceDatabase>, error: &Error, context: Arc<Context>) -> Action {
    if error.is_outdated() {
        // The watch will deliver the newer version.
        return Action::requeue(jittered(OUTDATED));
    }
    if error.is_of_terminating_namespace() {
        // The resource's own deletion comes through the watch.
        return Action::requeue(jittered(LONGEST_BACKOFF));
    }
    let failures = context.cache.failed(&resource.uid().unwrap_or_default());
    let longest = if matches!(error, Error::Vault(_)) { LONGEST_VAULT_BACKOFF } else { LONGEST_BACKOFF };
    Action::requeue(jittered(delay(failures, FIRST_BACKOFF, longest)))
}
