//! Whether the API server takes a new pod, asked before a pod that runs is deleted for it: a
//! server-side dry run of the pod that the StatefulSet's controller would create. Admission
//! answers as it would then: priority class, LimitRange, Pod Security, policies, quota. A
//! StatefulSet is accepted whatever its pods will meet, so its own dry run would say nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::template;
use crate::operator::apply::quantity::thousandths;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;

/// Puts back the template that the StatefulSet has where the API server would refuse pods of the
/// other one; why, for people.
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
    Ok(Some(format!("the pods are kept as they are: {why}; correct spec, or what the message names, and it goes on")))
}

/// How long a pod may be missing before the API server is asked for it: the StatefulSet's
/// controller creates one at once, and tells a refusal only by an event.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the next pod that is missing is not created: the words of the API server.
///
/// # Errors
/// As of [`refusal`].
pub async fn missing(
    context: &Context,
    database: &Database,
    template: &Value,
    set: &StatefulSet,
    observed: &Observation,
) -> Result<Option<String>, Error> {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    let is_there = |name: &String| observed.pods.iter().any(|pod| pod.name == *name);
    let missing = (0..replicas).map(|ordinal| database.names().pod(ordinal)).find(|name| !is_there(name));
    let since = context.cache.missing_for(&database.owner.uid, missing.is_some());
    let Some(pod) = missing.filter(|_| since >= PATIENCE) else { return Ok(None) };
    let refused = refusal(&context.client, database, template, Some(set), &pod).await?;
    Ok(refused.map(|why| format!("{pod} cannot be created: {why}; it is tried again by itself")))
}

/// Asks for a pod in the place of this one; the words of the API server if it refuses.
///
/// # Errors
/// Where it gave no answer, such as a webhook that is away: nothing may be deleted then.
pub async fn refusal(
    client: &Client,
    database: &Database,
    template: &Value,
    set: Option<&StatefulSet>,
    pod: &str,
) -> Result<Option<String>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &database.names().namespace);
    let asked = serde_json::from_value(proposed(database, template, set, pod))?;
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let answer = match api.create(&parameters, &asked).await {
        Ok(_) => return Ok(None),
        // A name that is taken is no refusal of the pod.
        Err(kube::Error::Api(answer)) if answer.reason == "AlreadyExists" => return Ok(None),
        Err(kube::Error::Api(answer)) if [400, 403, 422].contains(&answer.code) => answer,
        Err(error) => return Err(error.into()),
    };
    if let Some(exceeded) = Exceeded::parse(&answer.message) {
        let old = api.get_opt(pod).await?;
        let share = old.and_then(|old| old.spec).map(|spec| share(&spec)).unwrap_or_default();
        if exceeded.fits_without(&share) {
            return Ok(None);
        }
    }
    Ok(Some(format!("the API server refuses a new pod: {}", answer.message)))
}

/// The pod as the StatefulSet's controller would create it, under a name of its own: the old one
/// still has the right one.
fn proposed(database: &Database, template: &Value, set: Option<&StatefulSet>, pod: &str) -> Value {
    let names = database.names();
    let mut body = template.clone();
    body["apiVersion"] = "v1".into();
    body["kind"] = "Pod".into();
    body["metadata"]["namespace"] = names.namespace.clone().into();
    body["metadata"]["name"] = format!("{pod}-dry-run").into();
    if let Some(set) = set {
        // Policies may ask for a controller.
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

/// A quota that a pod would exceed, in its own words: what is asked for, used, and allowed.
#[derive(Debug, Default, PartialEq)]
struct Exceeded {
    requested: BTreeMap<String, Quantity>,
    used: BTreeMap<String, Quantity>,
    limited: BTreeMap<String, Quantity>,
}

impl Exceeded {
    /// `… exceeded quota: NAME, requested: cpu=1,pods=1, used: cpu=3,pods=3, limited: cpu=3,pods=3`
    fn parse(message: &str) -> Option<Self> {
        let (_, told) = message.split_once("exceeded quota: ")?;
        let part = |name: &str| -> Option<BTreeMap<String, Quantity>> {
            let (_, rest) = told.split_once(&format!(", {name}: "))?;
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

/// What a pod counts for in quotas, in thousandths.
fn share(spec: &PodSpec) -> BTreeMap<String, u128> {
    let mut share = BTreeMap::from([("pods".to_owned(), 1000), ("count/pods".to_owned(), 1000)]);
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    for resources in containers.filter_map(|container| container.resources.as_ref()) {
        for (resource, quantity) in resources.requests.iter().flatten() {
            let Some(amount) = thousandths(quantity) else { continue };
            *share.entry(format!("requests.{resource}")).or_default() += amount;
            // The short names are those of requests.
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

    const TOLD: &str = "pods \"chat-db-0-dry-run\" is forbidden: exceeded quota: team, requested: \
                        pods=1,requests.cpu=500m, used: pods=3,requests.cpu=1, limited: pods=3,requests.cpu=1";

    fn spec(cpu: &str) -> PodSpec {
        serde_json::from_value(json!({"containers": [{
            "name": "database", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        }]}))
        .expect("a pod's spec")
    }

    #[test]
    fn a_quota_that_only_the_old_pod_fills_is_no_refusal() {
        let exceeded = Exceeded::parse(TOLD).expect("an exceeded quota");
        assert_eq!(exceeded.requested["requests.cpu"].0, "500m");
        assert!(exceeded.fits_without(&share(&spec("0.5"))));
        assert!(!exceeded.fits_without(&share(&spec("499m"))), "it asks for more than the old one gives back");
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
    fn what_is_proposed_is_the_pod_that_would_be_created() {
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
