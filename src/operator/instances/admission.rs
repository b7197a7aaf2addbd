//! Checks whether the API server accepts a new pod, before a running pod is deleted for it: a
//! server-side dry run of the pod that the StatefulSet's controller would create. It runs all of
//! admission: priority class, LimitRange, Pod Security, policies, quota. A dry run of the
//! StatefulSet would not: it is accepted independently of its pods.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::template;
use crate::operator::apply::quantity::thousandths;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;

/// Keeps the template of the StatefulSet if the API server would refuse pods of the new one;
/// returns the reason, for people.
///
/// # Errors
/// As of [`refusal`].
pub async fn hold_back(
    client: &Client,
    database: &Database,
    set: Option<&StatefulSet>,
    observed: &Observation,
    template: &mut Value,
) -> Result<Option<String>, Error> {
    let Some(before) = set.and_then(template::written).filter(|before| before != template) else { return Ok(None) };
    let pod = observed.pods.first().map_or_else(|| database.names().pod(0), |pod| pod.name.clone());
    let Some(why) = refusal(client, database, template, set, &pod).await? else { return Ok(None) };
    *template = before;
    Ok(Some(format!("the pods are kept: {why}; correct the spec or the named object, and the update continues")))
}

/// How long a pod may be missing before a dry run: the StatefulSet's controller creates it at once,
/// and reports a refusal only by an event.
const PATIENCE: Duration = Duration::from_secs(5);

/// Annotation of the StatefulSet: when its controller was last prompted to create a pod. It waits
/// longer after each refusal, up to a quarter of an hour, and any change of the set ends the wait.
const ANNOTATION_PROMPTED: &str = "servicedb.dev/pods-asked-at";

/// The API server's message if it refuses the next missing pod or its volume claim. If the pod
/// `was_refused` and no longer is, the controller is prompted.
///
/// # Errors
/// As of [`refusal`].
pub async fn missing(
    context: &Context,
    database: &Database,
    template: &Value,
    set: &StatefulSet,
    observed: &Observation,
    was_refused: bool,
) -> Result<Option<String>, Error> {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    let is_there = |name: &String| observed.pods.iter().any(|pod| pod.name == *name);
    let missing = (0..replicas).map(|ordinal| database.names().pod(ordinal)).find(|name| !is_there(name));
    let since = context.cache.missing_for(&database.owner.uid, missing.is_some());
    let Some(pod) = missing.filter(|_| since >= PATIENCE) else { return Ok(None) };
    let refused = match refusal(&context.client, database, template, Some(set), &pod).await? {
        None => claim_refusal(&context.client, database, set, &observed.volume_claims, &pod).await?,
        refused => refused,
    };
    match &refused {
        // An object of ours may be missing without a report of a watch, such as its ServiceAccount.
        Some(_) => context.cache.invalidate_objects(&database.owner.uid),
        None if was_refused => prompt(context, set).await?,
        None => {}
    }
    Ok(refused.map(|why| format!("{pod} cannot be created: {why}; it is retried automatically")))
}

/// Makes the StatefulSet's controller retry now.
async fn prompt(context: &Context, set: &StatefulSet) -> Result<(), Error> {
    let namespace = set.namespace().unwrap_or_default();
    let api: Api<StatefulSet> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({"metadata": {
        "uid": set.uid(),
        "annotations": {ANNOTATION_PROMPTED: context.now().to_string()},
    }});
    tracing::info!(stateful_set = set.name_any(), "prompting the controller to create a pod that is no longer refused");
    api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// The API server's message if it refuses the volume claim of a missing pod.
///
/// # Errors
/// As of [`refusal`].
pub async fn claim_refusal(
    client: &Client,
    database: &Database,
    set: &StatefulSet,
    claims: &[PersistentVolumeClaim],
    pod: &str,
) -> Result<Option<String>, Error> {
    let names = database.names();
    let Some(name) = names.ordinal(pod).map(|ordinal| names.volume_claim(ordinal)) else { return Ok(None) };
    let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref());
    let Some(template) = templates.and_then(|templates| templates.first()) else { return Ok(None) };
    if claims.iter().any(|claim| claim.name_any() == name) {
        return Ok(None);
    }
    let mut claim = template.clone();
    (claim.metadata.name, claim.metadata.namespace) = (Some(name.clone()), Some(names.namespace.clone()));
    claim.status = None;
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let refused = dry_run(&api, &claim).await?;
    Ok(refused.map(|answer| format!("the API server refuses the volume claim {name}: {}", answer.message)))
}

/// The API server's message if it refuses the pods of a Job.
///
/// # Errors
/// As of [`refusal`].
pub async fn job_refusal(client: &Client, job: &Job) -> Result<Option<String>, Error> {
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let mut pod = serde_json::to_value(job.spec.as_ref().map(|spec| &spec.template))?;
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["namespace"] = namespace.clone().into();
    pod["metadata"]["name"] = format!("{name}-dry-run").into();
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.uid(), "controller": true}]);
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let refused = dry_run(&api, &serde_json::from_value(pod)?).await?;
    Ok(refused.map(|answer| format!("the API server refuses the pod of the Job {name}: {}", answer.message)))
}

/// Creates an object as a dry run; returns the answer if it is refused.
///
/// # Errors
/// If there was no answer.
async fn dry_run<K>(api: &Api<K>, object: &K) -> Result<Option<Box<Status>>, Error>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&parameters, object).await {
        Ok(_) => Ok(None),
        // An existing name is no refusal of the object.
        Err(kube::Error::Api(answer)) if answer.reason == "AlreadyExists" => Ok(None),
        Err(kube::Error::Api(answer)) if [400, 403, 422].contains(&answer.code) => Ok(Some(answer)),
        Err(error) => Err(error.into()),
    }
}

/// Creates a replacement of a pod as a dry run; returns the API server's message if it refuses.
///
/// # Errors
/// If there was no answer, as with an unavailable webhook: then nothing may be deleted.
pub async fn refusal(
    client: &Client,
    database: &Database,
    template: &Value,
    set: Option<&StatefulSet>,
    pod: &str,
) -> Result<Option<String>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &database.names().namespace);
    let asked = serde_json::from_value(proposed(database, template, set, pod))?;
    let Some(answer) = dry_run(&api, &asked).await? else { return Ok(None) };
    if let Some(exceeded) = Exceeded::parse(&answer.message) {
        let old = api.get_opt(pod).await?;
        let share = old.and_then(|old| old.spec).map(|spec| share(&spec)).unwrap_or_default();
        if exceeded.fits_without(&share) {
            return Ok(None);
        }
    }
    Ok(Some(format!("the API server refuses a new pod: {}", answer.message)))
}

/// The pod as the StatefulSet's controller would create it, with another name: the old pod still
/// has the right one.
fn proposed(database: &Database, template: &Value, set: Option<&StatefulSet>, pod: &str) -> Value {
    let names = database.names();
    let mut body = template.clone();
    body["apiVersion"] = "v1".into();
    body["kind"] = "Pod".into();
    body["metadata"]["namespace"] = names.namespace.clone().into();
    body["metadata"]["name"] = format!("{pod}-dry-run").into();
    if let Some(set) = set {
        // Policies may require a controller.
        body["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name_any(), "uid": set.uid(), "controller": true,
        }]);
    }
    body["spec"]["hostname"] = pod.into();
    body["spec"]["subdomain"] = names.peers_service().into();
    if let (Some(ordinal), Some(volumes)) = (names.ordinal(pod), body["spec"]["volumes"].as_array_mut()) {
        let claim = names.volume_claim(ordinal);
        volumes.push(json!({"name": "data", "persistentVolumeClaim": {"claimName": claim}}));
    }
    body
}

/// A quota that a pod would exceed, from the message: the requested, used and allowed amounts.
#[derive(Debug, Default, PartialEq)]
struct Exceeded {
    requested: BTreeMap<String, Quantity>,
    used: BTreeMap<String, Quantity>,
    limited: BTreeMap<String, Quantity>,
}

impl Exceeded {
    /// `… exceeded quota: NAME, requested: cpu=1,pods=1, used: cpu=3,pods=3, limited: cpu=3,pods=3`
    fn parse(message: &str) -> Option<Self> {
        let (_, amounts) = message.split_once("exceeded quota: ")?;
        let part = |name: &str| -> Option<BTreeMap<String, Quantity>> {
            let (_, rest) = amounts.split_once(&format!(", {name}: "))?;
            let list = rest.split(", ").next()?;
            let pair = |pair: &str| {
                let (resource, quantity) = pair.trim().split_once('=')?;
                Some((resource.to_owned(), Quantity(quantity.to_owned())))
            };
            list.split(',').map(pair).collect()
        };
        Some(Self { requested: part("requested")?, used: part("used")?, limited: part("limited")? })
    }

    /// Whether it is exceeded only because the old pod still counts.
    fn fits_without(&self, old: &BTreeMap<String, u128>) -> bool {
        self.requested.iter().all(|(resource, requested)| {
            let of = |map: &BTreeMap<String, Quantity>| map.get(resource).and_then(thousandths);
            let (Some(requested), Some(used), Some(limited)) =
                (thousandths(requested), of(&self.used), of(&self.limited))
            else {
                return false;
            };
            let old = old.get(resource).copied().unwrap_or_default();
            used.saturating_sub(old) + requested <= limited
        })
    }
}

/// The amounts of a pod in quotas, in thousandths.
fn share(spec: &PodSpec) -> BTreeMap<String, u128> {
    let mut share = BTreeMap::from([("pods".to_owned(), 1000), ("count/pods".to_owned(), 1000)]);
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    for resources in containers.filter_map(|container| container.resources.as_ref()) {
        for (resource, quantity) in resources.requests.iter().flatten() {
            let Some(amount) = thousandths(quantity) else { continue };
            *share.entry(format!("requests.{resource}")).or_default() += amount;
            // The short names are requests.
            *share.entry(resource.clone()).or_default() += amount;
        }
        for (resource, quantity) in resources.limits.iter().flatten() {
            let Some(amount) = thousandths(quantity) else { continue };
            *share.entry(format!("limits.{resource}")).or_default() += amount;
        }
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::tests::fixtures::{MINIMAL, database, options};

    const MESSAGE: &str = "pods \"chat-db-0-dry-run\" is forbidden: exceeded quota: team, requested: \
                        pods=1,requests.cpu=500m, used: pods=3,requests.cpu=1, limited: pods=3,requests.cpu=1";

    fn spec(cpu: &str) -> PodSpec {
        serde_json::from_value(json!({"containers": [{
            "name": "database", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        }]}))
        .expect("a pod's spec")
    }

    #[test]
    fn a_quota_that_only_the_old_pod_fills_is_no_refusal() {
        let exceeded = Exceeded::parse(MESSAGE).expect("an exceeded quota");
        assert_eq!(exceeded.requested["requests.cpu"].0, "500m");
        assert!(exceeded.fits_without(&share(&spec("0.5"))));
        assert!(!exceeded.fits_without(&share(&spec("499m"))), "it requests more than the old one releases");
        assert!(!exceeded.fits_without(&BTreeMap::new()), "there is no old one");
        assert_eq!(Exceeded::parse("no PriorityClass with name x was found"), None);
    }

    #[test]
    fn a_pod_counts_for_its_requests_and_limits() {
        let share = share(&spec("250m"));
        for (resource, thousandths) in
            [("cpu", 250), ("requests.cpu", 250), ("limits.memory", (2 << 30) * 1000), ("pods", 1000)]
        {
            assert_eq!(share[resource], thousandths, "{resource}");
        }
    }

    #[test]
    fn the_proposed_pod_is_the_one_that_would_be_created() {
        let database = database(MINIMAL);
        let template = crate::operator::plan::template(&database, &options());
        let pod: Pod = serde_json::from_value(proposed(&database, &template, None, "chat-db-0")).expect("a pod");
        assert_eq!(pod.metadata.name.as_deref(), Some("chat-db-0-dry-run"));
        let spec = pod.spec.expect("a spec");
        assert_eq!(spec.hostname.as_deref(), Some("chat-db-0"));
        let claims = spec.volumes.iter().flatten().filter_map(|volume| volume.persistent_volume_claim.as_ref());
        assert_eq!(claims.map(|claim| claim.claim_name.as_str()).collect::<Vec<_>>(), ["data-chat-db-0"]);
    }
}
