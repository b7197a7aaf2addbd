//! Deletes a resource: removes the objects according to the deletion policy, in an order that
//! allows interruptions, and reports in status why the deletion waits. The spec is not validated:
//! an invalid spec must not block deletion.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::orphans;
use super::orphans::{Orphan, leave_vault};
use crate::api::conditions::{self as kind, reason};
use crate::api::names::{FINALIZER, LABEL_NAME, Names};
use crate::api::spec::MAXIMUM_INSTANCES;
use crate::api::{BackupDeletionPolicy, DeletionPolicy, ServiceDatabase};
use crate::backoff::jittered;
use crate::operator::apply::object::{Owner, controller_uid, erased, stamped_uid};
use crate::operator::apply::{delete_exactly, delete_observed};
use crate::operator::backups::removal::{self, Removal};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::instances::given_up;
use crate::operator::status::condition::{ConditionState, condition};
use crate::operator::status::publish;
use crate::operator::validate::Database;

/// Requeue interval of a deletion that waits for state that no watch reports.
const WAITING: Duration = Duration::from_secs(2);
/// The finalizer of a resource that is deleted with `--cascade=orphan`. The API server adds it
/// with the deletion timestamp; the garbage collector removes it once no object has this owner.
const ORPHAN_DEPENDENTS: &str = "orphan";

/// Adds the finalizer.
///
/// # Errors
/// Errors of the API server; a resource that has changed since is a conflict.
pub async fn add_finalizer(context: &Context, resource: &ServiceDatabase) -> Result<(), Error> {
    let mut finalizers = resource.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(&context.client, resource, &finalizers).await
}

async fn set_finalizers(client: &Client, resource: &ServiceDatabase, finalizers: &[String]) -> Result<(), Error> {
    let api: Api<ServiceDatabase> = Api::namespaced(client.clone(), &resource.namespace().unwrap_or_default());
    let patch = json!({"metadata": {
        "uid": resource.uid(),
        "resourceVersion": resource.resource_version(),
        "finalizers": finalizers,
    }});
    match api.patch(&resource.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Advances a deletion by one step; each step is idempotent.
///
/// # Errors
/// Errors that are retried with backoff.
pub async fn clean_up(context: &Context, resource: &ServiceDatabase) -> Result<Action, Error> {
    if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        let uid = resource.uid().unwrap_or_default();
        context.cache.remove(&uid);
        context.metrics.gone(&uid);
        return Ok(Action::await_change());
    }
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    context.backups.release(&uid);
    let deletion = Deletion { context, names: &names, uid: &uid };

    // 1. Delete the Jobs and the pods, and wait until they are gone: a running pod could write again.
    //    A namespace under deletion may lose our RoleBinding first; it deletes all of these itself.
    //    With `--cascade=orphan` the pods continue to run, so their data is kept under either policy.
    let mut policy = resource.spec.deletion_policy;
    let stopped = match deletion.keeps_objects(resource).await {
        Ok(true) => {
            tracing::info!("deleted with --cascade=orphan: the pods continue to run, and their data is kept");
            policy = DeletionPolicy::Retain;
            Ok(None)
        }
        Ok(false) => deletion.stop().await,
        Err(error) => Err(error),
    };
    match stopped {
        Ok(Some(waiting)) => return wait(context, resource, waiting).await,
        Ok(None) => {}
        Err(error) if is_forbidden(&error) && deletion.namespace_is_ending().await? => {}
        Err(error) => return Err(error),
    }
    // 2. Remove the backups, if two fields say so, while their Job still has access to Vault.
    if policy == DeletionPolicy::Delete && resource.spec.backup.deletion_policy == BackupDeletionPolicy::Delete {
        let deadline = Duration::from_secs(context.options.deletion_deadline_seconds);
        match removal::remove(context, resource).await {
            Ok(Removal::Done) => {}
            Ok(Removal::Waits(waiting)) if is_over(resource, deadline, context.now()) => {
                tracing::warn!(waiting, "the resource is deleted, and its backups stay in the store");
            }
            Ok(Removal::Waits(waiting)) => {
                let seconds = deadline.as_secs();
                return wait(context, resource, format!("{waiting}; after {seconds} s they stay in the store")).await;
            }
            Err(error) if is_forbidden(&error) && deletion.namespace_is_ending().await? => {
                tracing::warn!("the namespace is deleted, and the backups stay in the store");
            }
            Err(error) => return Err(error),
        }
    }
    // 3. Remove the access to Vault. The records follow the policy.
    let orphan = Orphan { uid: uid.clone(), deletion_policy: policy };
    if let Err(error) = leave_vault(context, &names, &orphan).await {
        let deadline = Duration::from_secs(context.options.deletion_deadline_seconds);
        if !is_over(resource, deadline, context.now()) {
            let seconds = deadline.as_secs();
            let waiting = format!("Vault, for at most {seconds} s; remaining objects in it are removed later: {error}");
            wait(context, resource, waiting).await?;
            return Err(error);
        }
        // The deletion of a namespace or a cluster must not wait for a deleted Vault.
        orphans::record(context, &names, &orphan).await?;
        tracing::warn!(%error, "deleted while Vault is unavailable; its objects in Vault are removed later");
    }
    // 4. Volumes, Patroni's ConfigMaps and the authority are kept together or deleted together.
    if policy == DeletionPolicy::Delete {
        match deletion.delete_data().await {
            Err(error) if is_forbidden(&error) && deletion.namespace_is_ending().await? => {}
            result => result?,
        }
    }
    // 5. Everything else is garbage-collected with the resource.
    let remaining: Vec<_> = resource.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set_finalizers(&context.client, resource, &remaining).await?;
    context.cache.remove(&uid);
    context.metrics.gone(&uid);
    Ok(Action::await_change())
}

fn is_over(resource: &ServiceDatabase, deadline: Duration, now: Timestamp) -> bool {
    let since = resource.metadata.deletion_timestamp.as_ref().map(|time| now.duration_since(time.0));
    since.and_then(|since| Duration::try_from(since).ok()).is_some_and(|since| since >= deadline)
}

/// Reports in status why the deletion waits.
async fn wait(context: &Context, resource: &ServiceDatabase, what: String) -> Result<Action, Error> {
    let mut status = resource.status.clone().unwrap_or_default();
    let generation = resource.metadata.generation;
    for (kind, state) in [
        (kind::READY, ConditionState::no(reason::DELETING, format!("being deleted; waiting for {what}"))),
        (kind::RECONCILING, ConditionState::yes(reason::DELETING, format!("being deleted; waiting for {what}"))),
    ] {
        let updated = condition(kind, state, &status, generation, context.now());
        status.conditions.retain(|condition| condition.type_ != kind);
        status.conditions.push(updated);
    }
    status.deletion_waits_for = Some(what);
    publish::write(context, resource, &status).await?;
    Ok(Action::requeue(jittered(WAITING)))
}

struct Deletion<'a> {
    context: &'a Context,
    names: &'a Names,
    uid: &'a str,
}

impl Deletion<'_> {
    /// Whether the resource is deleted with `--cascade=orphan`. If the garbage collector is done
    /// already, the StatefulSet has no owner, nor has the Service, which decides while the
    /// StatefulSet is being recreated.
    async fn keeps_objects(&self, resource: &ServiceDatabase) -> Result<bool, Error> {
        if resource.finalizers().iter().any(|finalizer| finalizer == ORPHAN_DEPENDENTS) {
            return Ok(true);
        }
        let owner = Owner { names: self.names.clone(), uid: self.uid.to_owned() };
        let set = self.api::<StatefulSet>().get_opt(&self.names.base()).await?;
        if let Some(set) = set {
            return Ok(owner.is_without_owner(&set.metadata));
        }
        let service = self.api::<Service>().get_opt(&self.names.base()).await?;
        Ok(service.is_some_and(|service| owner.is_without_owner(&service.metadata)))
    }

    async fn stop(&self) -> Result<Option<String>, Error> {
        self.stop_jobs().await?;
        self.stop_pods().await
    }

    async fn namespace_is_ending(&self) -> Result<bool, Error> {
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let namespace = api.get_opt(&self.names.namespace).await?;
        Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
    }

    async fn stop_jobs(&self) -> Result<(), Error> {
        let api = self.api::<Job>();
        for job in self.labelled(&api).await? {
            let removes_backups = job.name_any() == self.names.backup_removal_job();
            if controller_uid(&job.metadata) == Some(self.uid) && !removes_backups {
                delete_exactly(&api, &job).await?;
            }
        }
        Ok(())
    }

    /// Deletes the StatefulSet in the foreground; returns its remaining objects.
    async fn stop_pods(&self) -> Result<Option<String>, Error> {
        let api: Api<StatefulSet> = Api::namespaced(self.context.client.clone(), &self.names.namespace);
        let Some(live) = api.get_opt(&self.names.base()).await? else { return self.stop_orphans().await };
        if controller_uid(&live.metadata) != Some(self.uid) {
            return Ok(None);
        }
        if live.metadata.deletion_timestamp.is_none() {
            // Its volumes follow the policy of the resource, not that of the StatefulSet.
            if given_up::keep_volumes(&self.context.client, &live).await? {
                return Ok(Some(format!("the StatefulSet {} to keep its volumes", self.names.base())));
            }
            let preconditions = Preconditions { uid: live.uid(), resource_version: None };
            delete_observed(&api, &self.names.base(), DeleteParams::foreground(), preconditions).await?;
        }
        let pods: Vec<_> = self.context.database_pods(self.names).into_iter().map(|pod| pod.name).collect();
        Ok(Some(format!("the StatefulSet {} and its pods to end: {}", self.names.base(), pods.join(", "))))
    }

    /// Deletes pods without a StatefulSet, which was being recreated when the resource was deleted:
    /// no controller deletes them.
    async fn stop_orphans(&self) -> Result<Option<String>, Error> {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.names.namespace);
        let orphans: Vec<_> = self.context.database_pods(self.names).into_iter().filter(|pod| pod.orphaned).collect();
        for pod in orphans.iter().filter(|pod| !pod.terminating) {
            let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
            delete_observed(&api, &pod.name, DeleteParams::default(), preconditions).await?;
        }
        let names: Vec<_> = orphans.into_iter().map(|pod| pod.name).collect();
        Ok((!names.is_empty()).then(|| format!("the pods to end: {}", names.join(", "))))
    }

    async fn delete_data(&self) -> Result<(), Error> {
        for api in [self.api::<ConfigMap>(), self.api::<Secret>()] {
            self.delete_stamped(&api, |stamp| stamp == self.uid).await?;
        }
        let claims = self.api::<PersistentVolumeClaim>();
        let mut found = self.labelled(&claims).await?;
        // A claim whose labels were removed is found by its name.
        for name in (0..MAXIMUM_INSTANCES).map(|ordinal| self.names.volume_claim(ordinal)) {
            if !found.iter().any(|claim| claim.name_any() == name) {
                found.extend(claims.get_opt(&name).await?);
            }
        }
        for claim in found {
            if stamped_uid(&claim.metadata) == Some(self.uid) {
                delete_exactly(&claims, &claim).await?;
            }
        }
        Ok(())
    }

    async fn delete_stamped(&self, api: &Api<DynamicObject>, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        // `-config` is deleted last: after an interruption it marks the others as leftovers.
        let mut names = self.names.patroni_config_maps().to_vec();
        names.push(self.names.ca_secret());
        for name in names.into_iter().rev() {
            if let Some(live) = api.get_opt(&name).await?
                && stamped_uid(&live.metadata).is_some_and(&wanted)
            {
                delete_exactly(api, &live).await?;
            }
        }
        Ok(())
    }

    fn api<K: Resource<DynamicType = ()>>(&self) -> Api<DynamicObject> {
        erased::<K>(&self.context.client, &self.names.namespace)
    }

    async fn labelled(&self, api: &Api<DynamicObject>) -> Result<Vec<DynamicObject>, Error> {
        let parameters = ListParams::default().labels(&format!("{LABEL_NAME}={}", self.names.name));
        Ok(api.list(&parameters).await?.items)
    }
}

fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Kubernetes(kube::Error::Api(answer)) if answer.is_forbidden())
}

/// Removes Patroni's ConfigMaps and the authority of an earlier resource whose volumes are gone:
/// without the data they are wrong.
///
/// # Errors
/// Errors of the API server.
pub async fn remove_stamped_leftovers(context: &Context, database: &Database) -> Result<(), Error> {
    let uid = database.owner.uid.as_str();
    let leftovers = Deletion { context, names: database.names(), uid };
    for api in [leftovers.api::<Secret>(), leftovers.api::<ConfigMap>()] {
        leftovers.delete_stamped(&api, |stamp| stamp != uid).await?;
    }
    Ok(())
}
