//! Deletion: what the policy names goes, in the order that leaves no half-state, and status
//! says what it waits for. Spec is not validated here: a bad spec must not block deletion.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::orphans;
use super::orphans::{Orphan, leave_vault};
use crate::api::conditions::{self as kind, reason};
use crate::api::names::{FINALIZER, LABEL_NAME, Names};
use crate::api::{DeletionPolicy, ServiceDatabase};
use crate::backoff::jittered;
use crate::operator::apply::object::{controller_uid, erased, stamped_uid};
use crate::operator::apply::{delete_as_seen, delete_exactly};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::instances::given_up;
use crate::operator::status::condition::{ConditionState, condition};
use crate::operator::status::publish;
use crate::operator::validate::Database;

/// How soon a deletion that waits is looked at again, where no watch tells.
const WAITING: Duration = Duration::from_secs(2);

/// Adds the finalizer.
///
/// # Errors
/// Whatever the API server said; a resource that changed meanwhile is read again.
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

/// Brings a deletion a step further; each step is idempotent.
///
/// # Errors
/// Whatever is to be tried again with backoff.
pub async fn clean_up(context: &Context, resource: &ServiceDatabase) -> Result<Action, Error> {
    if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        context.cache.forget(&resource.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    let deletion = Deletion { context, names: &names, uid: &uid };

    // 1. The Jobs and the pods, and wait until they are gone: what runs could write again.
    //    A namespace under deletion may lose our RoleBinding first; it takes all of these itself.
    match deletion.stop().await {
        Ok(Some(waiting)) => return wait(context, resource, waiting).await,
        Ok(None) => {}
        Err(error) if is_forbidden(&error) && deletion.namespace_is_ending().await? => {}
        Err(error) => return Err(error),
    }
    // 2. Vault: nobody gets in any more. Records follow the policy.
    let orphan = Orphan { uid: uid.clone(), deletion_policy: resource.spec.deletion_policy };
    if let Err(error) = leave_vault(context, &names, &orphan).await {
        let deadline = Duration::from_secs(context.options.deletion_deadline_seconds);
        if !is_over(resource, deadline, context.now()) {
            let seconds = deadline.as_secs();
            let waiting = format!("Vault, for {seconds} s at most, and what is left in it is removed later: {error}");
            wait(context, resource, waiting).await?;
            return Err(error);
        }
        // A namespace, or a cluster, must not hang on a Vault that is gone.
        orphans::record(context, &names, &orphan).await?;
        tracing::warn!(%error, "deleted without Vault; it is swept later");
    }
    // 3. Volumes, Patroni's ConfigMaps and the authority share one fate.
    if resource.spec.deletion_policy == DeletionPolicy::Delete {
        match deletion.delete_data().await {
            Err(error) if is_forbidden(&error) && deletion.namespace_is_ending().await? => {}
            result => result?,
        }
    }
    // 4. Everything else is garbage-collected with the resource.
    let remaining: Vec<_> = resource.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set_finalizers(&context.client, resource, &remaining).await?;
    context.cache.forget(&uid);
    context.metrics.gone(&uid);
    Ok(Action::await_change())
}

fn is_over(resource: &ServiceDatabase, deadline: Duration, now: Timestamp) -> bool {
    let since = resource.metadata.deletion_timestamp.as_ref().map(|time| now.duration_since(time.0));
    since.and_then(|since| Duration::try_from(since).ok()).is_some_and(|since| since >= deadline)
}

/// Says what the deletion waits for.
async fn wait(context: &Context, resource: &ServiceDatabase, what: String) -> Result<Action, Error> {
    let mut status = resource.status.clone().unwrap_or_default();
    let generation = resource.metadata.generation;
    for (kind, word) in [
        (kind::READY, ConditionState::no(reason::DELETING, format!("being deleted; waiting for {what}"))),
        (kind::RECONCILING, ConditionState::yes(reason::DELETING, format!("being deleted; waiting for {what}"))),
    ] {
        let told = condition(kind, word, &status, generation, context.now());
        status.conditions.retain(|condition| condition.type_ != kind);
        status.conditions.push(told);
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
            if controller_uid(&job.metadata) == Some(self.uid) {
                delete_exactly(&api, &job).await?;
            }
        }
        Ok(())
    }

    /// Deletes the StatefulSet in the foreground; returns what is still there of it.
    async fn stop_pods(&self) -> Result<Option<String>, Error> {
        let api: Api<StatefulSet> = Api::namespaced(self.context.client.clone(), &self.names.namespace);
        let Some(live) = api.get_opt(&self.names.base()).await? else { return self.stop_orphans().await };
        if controller_uid(&live.metadata) != Some(self.uid) {
            return Ok(None);
        }
        if live.metadata.deletion_timestamp.is_none() {
            // Its volumes follow the policy of the resource, not what somebody wrote into the set.
            if given_up::keep_volumes(&self.context.client, &live).await? {
                return Ok(Some(format!("the StatefulSet {} to keep its volumes", self.names.base())));
            }
            let seen = Preconditions { uid: live.uid(), resource_version: None };
            delete_as_seen(&api, &self.names.base(), DeleteParams::foreground(), seen).await?;
        }
        let pods: Vec<_> = self.context.database_pods(self.names).into_iter().map(|pod| pod.name).collect();
        Ok(Some(format!("the StatefulSet {} and its pods to end: {}", self.names.base(), pods.join(", "))))
    }

    /// Pods whose StatefulSet was being made anew when the resource was deleted: nobody else would
    /// end them.
    async fn stop_orphans(&self) -> Result<Option<String>, Error> {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.names.namespace);
        let orphans: Vec<_> = self.context.database_pods(self.names).into_iter().filter(|pod| pod.orphaned).collect();
        for pod in orphans.iter().filter(|pod| !pod.going) {
            let seen = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
            delete_as_seen(&api, &pod.name, DeleteParams::default(), seen).await?;
        }
        let names: Vec<_> = orphans.into_iter().map(|pod| pod.name).collect();
        Ok((!names.is_empty()).then(|| format!("the pods to end: {}", names.join(", "))))
    }

    async fn delete_data(&self) -> Result<(), Error> {
        for api in [self.api::<ConfigMap>(), self.api::<Secret>()] {
            self.delete_stamped(&api, |stamp| stamp == self.uid).await?;
        }
        let claims = self.api::<PersistentVolumeClaim>();
        for claim in self.labelled(&claims).await? {
            if stamped_uid(&claim.metadata) == Some(self.uid) {
                delete_exactly(&claims, &claim).await?;
            }
        }
        Ok(())
    }

    async fn delete_stamped(&self, api: &Api<DynamicObject>, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        // `-config` last: by it the others are known as leftovers, should this be interrupted.
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

/// Removes Patroni's ConfigMaps and the authority of an earlier resource whose volumes are
/// gone: without the data they are a lie.
///
/// # Errors
/// Whatever the API server said.
pub async fn remove_stamped_leftovers(context: &Context, database: &Database) -> Result<(), Error> {
    let uid = database.owner.uid.as_str();
    let leftovers = Deletion { context, names: database.names(), uid };
    for api in [leftovers.api::<Secret>(), leftovers.api::<ConfigMap>()] {
        leftovers.delete_stamped(&api, |stamp| stamp != uid).await?;
    }
    Ok(())
}
