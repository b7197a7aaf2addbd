//! Reads the observed state, once per reconcile.

pub mod egress;
pub mod pods;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::context::Context;
use crate::api::conditions::reason;
use crate::api::names::{LABEL_NAME, Names};
use crate::api::spec::MAXIMUM_INSTANCES;
use crate::contract::certificates::Authorities;
use crate::contract::desired::{self, Desired};
use crate::contract::pod;
use crate::contract::report::Trouble;
use crate::operator::apply::object::{
    ANNOTATION_SECRETS, ANNOTATION_TEMPLATE, ANNOTATION_UID, INITIALIZE, controller_uid, parsed_template, stamped_uid,
};
use crate::operator::apply::quantity;
use crate::operator::context::error::Error;
use crate::operator::observe::pods::{DatabasePod, VolumeEnd};

/// The observed state of one ServiceDatabase.
#[derive(Default)]
pub struct Observation {
    /// The StatefulSet, of any owner.
    pub stateful_set: Option<StatefulSet>,
    /// The last desired state for the agents.
    pub desired: Option<Desired>,
    /// The last accepted template of the pods.
    pub template: Option<Value>,
    /// The names of the Secrets with credentials, as recorded before they were made.
    pub secrets: BTreeSet<String>,
    /// The last role_ids for the pods: of the instance, of the migrator.
    pub role_ids: (Option<String>, Option<String>),
    /// The pod that holds Patroni's leader key.
    pub leader: Option<String>,
    /// Whether that key was renewed recently: its holder is alive, even if the kubelet does not
    /// report it.
    pub lease_lives: bool,
    /// The members that had every acknowledged commit of the last leader: itself, then its
    /// synchronous standbys, as Patroni recorded them. No other may be promoted. Read only while
    /// there is no leader.
    pub holders: Vec<String>,
    /// The nodes that are being drained.
    pub draining: Arc<BTreeSet<String>>,
    /// PostgreSQL's system identifier, once the database was initialised: from Patroni, the desired
    /// state, or an instance.
    pub system_identifier: Option<String>,
    /// Whether Patroni's ConfigMap exists and lacks it.
    pub lacks_initialize: bool,
    /// The database pods, by name.
    pub pods: Vec<DatabasePod>,
    /// The volume claims.
    pub volume_claims: Vec<PersistentVolumeClaim>,
    /// Whether Patroni's ConfigMap is stamped with another resource's uid.
    pub foreign_config: bool,
}

impl Observation {
    /// The primary, if label, report and leader key agree and the instance is alive: it is ready,
    /// or it renews the lease while a stopped kubelet cannot report readiness.
    pub fn primary(&self) -> Option<&DatabasePod> {
        let lives = |pod: &DatabasePod| pod.ready || self.lease_lives;
        self.pods.iter().find(|pod| pod.claims_the_lead() && lives(pod) && self.leader.as_ref() == Some(&pod.name))
    }

    /// Whether the database was initialised.
    pub fn initialized(&self) -> bool {
        self.system_identifier.is_some()
    }

    /// The primary's pod, or the last one: the holder of the lease, otherwise the only pod that
    /// claims to be the primary.
    pub fn last_leader(&self) -> Option<&str> {
        let mut claiming = self.pods.iter().filter(|pod| pod.claims_the_lead());
        let claims = claiming.next().filter(|_| claiming.next().is_none());
        self.leader.as_deref().or_else(|| claims.map(|pod| pod.name.as_str()))
    }

    /// The primary without a report of its agent: label, leader key, a live lease and readiness
    /// agree. It is only reported until the agent writes its report again; no decision depends on
    /// it.
    pub fn primary_without_report(&self) -> Option<&DatabasePod> {
        let leads = |pod: &&DatabasePod| pod.labelled_primary && self.leader.as_ref() == Some(&pod.name);
        self.pods.iter().find(leads).filter(|pod| pod.report.is_none() && pod.ready && self.lease_lives)
    }

    /// Whether a pod is about to be evicted: its node is drained, or its annotation requests it.
    pub fn drains(&self, pod: &DatabasePod) -> bool {
        pod.eviction_asked || pod.node.as_ref().is_some_and(|node| self.draining.contains(node))
    }

    /// The StatefulSet, if it belongs to this resource.
    pub fn own_set(&self, uid: &str) -> Option<&StatefulSet> {
        self.stateful_set.as_ref().filter(|set| controller_uid(&set.metadata) == Some(uid))
    }

    /// The desired state, if it is that of this resource.
    pub fn own_desired(&self, uid: &str) -> Option<&Desired> {
        self.desired.as_ref().filter(|desired| desired.uid == uid)
    }

    /// The largest size that a volume claim requests.
    pub fn volume_size(&self, uid: &str) -> Option<Quantity> {
        self.own_claims(uid).filter_map(requested).max_by_key(quantity::bytes)
    }

    /// The last certificate authorities for the agents of this resource.
    pub fn authorities(&self, uid: &str) -> Authorities {
        let desired = self.own_desired(uid);
        Authorities::from_pem(desired.and_then(|desired| desired.authorities.as_deref()).unwrap_or_default())
    }

    /// The volume claims of this resource.
    pub fn own_claims<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a PersistentVolumeClaim> {
        self.volume_claims.iter().filter(move |claim| stamped_uid(&claim.metadata) == Some(uid))
    }

    /// The trouble of the first instance that has any.
    pub fn trouble(&self) -> Option<Trouble> {
        let mut trouble = self.pods.iter().find_map(|pod| pod.trouble.clone())?;
        if trouble.reason == reason::VOLUME_PENDING {
            // The scheduler reports neither the claim nor its class.
            trouble.message = self.unbound_claims().unwrap_or(trouble.message);
        }
        Some(trouble)
    }

    /// The part of the spec that the primary could not apply.
    pub fn refused(&self) -> Option<&Trouble> {
        let trouble = self.primary()?.report.as_ref()?.trouble.as_ref();
        trouble.filter(|trouble| trouble.reason == reason::INVALID_SPEC)
    }

    /// The instances whose parameters wait for a restart of PostgreSQL.
    pub fn restart_pending(&self) -> Vec<&str> {
        let waits = |pod: &&DatabasePod| pod.ready && pod.report.as_ref().is_some_and(|report| report.restart_pending);
        self.pods.iter().filter(waits).map(|pod| pod.name.as_str()).collect()
    }

    /// Why an ordered restart had no effect, from the first instance that waits for one.
    pub fn failed_restart(&self) -> Option<&str> {
        let reports = self.pods.iter().filter_map(|pod| pod.report.as_ref());
        reports.filter(|report| report.restart_pending).find_map(|report| report.order.as_ref()?.error.as_deref())
    }

    /// Whether an agent reports that Vault refuses its login or a right.
    pub fn vault_refuses_an_agent(&self) -> bool {
        let health = |pod: &DatabasePod| pod.report.as_ref()?.vault.clone();
        self.pods
            .iter()
            .filter_map(health)
            .any(|health| !health.ok && health.reason.as_deref().is_some_and(|why| why != reason::VAULT_UNREACHABLE))
    }

    fn unbound_claims(&self) -> Option<String> {
        let unbound = self.volume_claims.iter().filter(|claim| phase(claim) == Some("Pending"));
        let described: Vec<_> = unbound
            .map(|claim| {
                let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
                format!(
                    "{} (StorageClass {})",
                    claim.name_any(),
                    class.unwrap_or("none, and the cluster has no default")
                )
            })
            .collect();
        let described = (!described.is_empty()).then(|| described.join(", "))?;
        let namespace = self.volume_claims.iter().find_map(|claim| claim.namespace()).unwrap_or_default();
        Some(format!(
            "volume claims wait to be bound: {described}; see kubectl describe pvc -n {namespace}, and whether the class \
             exists"
        ))
    }

    /// The number of ready instances among the first `instances`: the others are about to be
    /// removed.
    pub fn ready(&self, names: &Names, instances: i32) -> usize {
        let stays = |pod: &&DatabasePod| names.is_one_of(&pod.name, instances);
        self.pods.iter().filter(stays).filter(|pod| pod.ready && pod.report.is_some()).count()
    }

    /// The volume claims of an earlier resource of this name.
    pub fn retained_claims(&self, uid: &str) -> Vec<String> {
        self.volume_claims
            .iter()
            .filter(|claim| claim.annotations().get(ANNOTATION_UID).is_none_or(|stamp| stamp != uid))
            .map(ResourceExt::name_any)
            .collect()
    }
}

/// Reads the observed state of the resource with this uid and number of instances.
///
/// # Errors
/// Errors of the API server.
pub async fn observe(context: &Context, names: &Names, uid: &str, instances: i32) -> Result<Observation, Error> {
    let client = &context.client;
    context.pods_are_known().await.map_err(|_| Error::Stopping)?;
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &names.namespace);
    let [config, leader, _, sync] = names.patroni_config_maps();
    let wanted = [names.desired(), names.instance_approle(), names.migrator(), config, leader];
    let read_maps = try_join_all(wanted.iter().map(|name| config_maps.get_opt(name)));
    let (stateful_set, maps, labelled) = tokio::try_join!(
        async { Api::<StatefulSet>::namespaced(client.clone(), &names.namespace).get_opt(&names.base()).await },
        read_maps,
        claims(client, names),
    )?;
    invalidate_absent(context, names, stateful_set.is_none(), wanted.iter().zip(&maps));
    let set = stateful_set.as_ref().filter(|set: &&StatefulSet| controller_uid(&set.metadata) == Some(uid));
    let replicas = set.and_then(|set| set.spec.as_ref()?.replicas);
    let expected = replicas.map_or(MAXIMUM_INSTANCES, |replicas| replicas.max(instances).min(MAXIMUM_INSTANCES));
    let volume_claims = with_unlabelled(client, names, labelled, expected).await?;
    let data = |index: usize, key: &str| -> Option<String> { maps[index].as_ref()?.data.as_ref()?.get(key).cloned() };
    let annotation = |index: usize, key: &str| -> Option<String> {
        maps[index].as_ref()?.annotations().get(key).filter(|value| !value.is_empty()).cloned()
    };
    let stamp = annotation(3, ANNOTATION_UID);
    // A deleted one is about to be restored.
    let deleted = maps[4].is_none().then(|| context.cache.deleted(&names.namespace, &wanted[4], uid)).flatten();
    let of_leader = |key: &str| {
        let deleted = || deleted.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned();
        annotation(4, key).or_else(deleted)
    };
    let desired: Option<Desired> = data(0, desired::KEY).and_then(|text| serde_json::from_str(&text).ok());
    let lease_lives = lease_lives(of_leader("renewTime"), of_leader("ttl"), context.now());
    let record = if maps[3].is_some() && !lease_lives { config_maps.get_opt(&sync).await? } else { None };
    let mut pods = context.database_pods(names);
    for pod in &mut pods {
        pod.volume_end = volume_end(names, pod, &volume_claims);
        pod.compare_with_account(context.cache.account_made(uid), context.now());
    }
    egress::explain(client, names, uid, &context.options.vault_address, &mut pods).await;
    let own = |claim: &PersistentVolumeClaim| stamped_uid(&claim.metadata) == Some(uid);
    // A leftover of an earlier resource does not apply to this one.
    let is_ours = stamp.as_deref() == Some(uid) || volume_claims.iter().any(own);
    let initialize = annotation(3, INITIALIZE).filter(|_| is_ours);
    let lacks_initialize = is_ours && maps[3].is_some() && initialize.is_none();
    // The first initialisation is complete once Patroni records it: an instance's report counts
    // only if Patroni's ConfigMap is missing.
    let reported = || {
        let first = || pods.iter().find_map(|pod| pod.report.as_ref()?.system_identifier.clone());
        maps[3].is_none().then(first).flatten()
    };
    let recorded = desired.as_ref().filter(|desired| desired.uid == uid);
    let recorded = recorded.and_then(|desired| desired.system_identifier.clone());
    Ok(Observation {
        system_identifier: initialize.or(recorded).or_else(reported),
        lacks_initialize,
        template: annotation(0, ANNOTATION_TEMPLATE).and_then(|text| parsed_template(&text)),
        secrets: annotation(0, ANNOTATION_SECRETS)
            .iter()
            .flat_map(|names| names.split(','))
            .map(str::to_owned)
            .collect(),
        desired,
        role_ids: (data(1, pod::ROLE_ID), data(2, pod::ROLE_ID)),
        leader: of_leader("leader"),
        lease_lives,
        holders: record.as_ref().map(holders).unwrap_or_default(),
        draining: context.draining.borrow().clone(),
        pods,
        stateful_set,
        volume_claims,
        foreign_config: maps[3].is_some() && stamp.as_deref() != Some(uid),
    })
}

/// Removes the cache entry of an object that was read and is absent: the watch may have missed its
/// deletion, or report it later.
fn invalidate_absent<'a>(
    context: &Context,
    names: &Names,
    without_set: bool,
    maps: impl Iterator<Item = (&'a String, &'a Option<ConfigMap>)>,
) {
    let cache = &context.cache;
    if without_set {
        cache.invalidate_gone(&names.namespace, "StatefulSet", &names.base());
    }
    for (name, _) in maps.filter(|(_, map)| map.is_none()) {
        cache.invalidate_gone(&names.namespace, "ConfigMap", name);
    }
}

/// Patroni writes both with each renewal.
fn lease_lives(renewed: Option<String>, ttl: Option<String>, now: Timestamp) -> bool {
    let lives = || {
        let renewed: Timestamp = renewed?.parse().ok()?;
        let ttl: i64 = ttl?.parse().ok()?;
        // A clock that is ahead must not keep a lease alive forever.
        Some(now.duration_since(renewed).as_secs().abs() < ttl)
    };
    lives().unwrap_or(false)
}

/// The members in Patroni's synchronous state.
fn holders(sync: &ConfigMap) -> Vec<String> {
    let names = ["leader", "sync_standby"].into_iter().filter_map(|key| sync.annotations().get(key));
    let names = names.flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Why the volume of a pod is deleted with it, from the claims.
fn volume_end(names: &Names, pod: &DatabasePod, claims: &[PersistentVolumeClaim]) -> Option<VolumeEnd> {
    let name = names.volume_claim(names.ordinal(&pod.name)?);
    match claims.iter().find(|claim| claim.name_any() == name) {
        // The pods' cache may be newer than the list of claims: only a running pod had one.
        None => pod.report.is_some().then_some(VolumeEnd::Missing),
        Some(claim) if claim.metadata.deletion_timestamp.is_some() => Some(VolumeEnd::Deleted),
        Some(claim) => (phase(claim) == Some("Lost")).then_some(VolumeEnd::Lost),
    }
}

/// The same, read from the API server now.
///
/// # Errors
/// Errors of the API server.
pub async fn volume_end_now(client: &Client, names: &Names, pod: &DatabasePod) -> Result<Option<VolumeEnd>, Error> {
    let Some(ordinal) = names.ordinal(&pod.name) else { return Ok(None) };
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let claim = api.get_opt(&names.volume_claim(ordinal)).await?;
    Ok(volume_end(names, pod, claim.as_slice()))
}

/// The phase of a claim.
pub fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

/// The requested size of a claim.
pub fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
}

async fn claims(client: &Client, names: &Names) -> Result<Vec<PersistentVolumeClaim>, kube::Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let parameters = ListParams::default().labels(&format!("{LABEL_NAME}={}", names.name));
    Ok(api.list(&parameters).await?.items)
}

/// Adds the claims of `instances` instances that lack the label: they still have data, and a
/// StatefulSet mounts a claim by its name. If all are labelled, nothing is read.
async fn with_unlabelled(
    client: &Client,
    names: &Names,
    mut claims: Vec<PersistentVolumeClaim>,
    expected: i32,
) -> Result<Vec<PersistentVolumeClaim>, kube::Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let expected = (0..expected).map(|ordinal| names.volume_claim(ordinal));
    let missing: Vec<_> = expected.filter(|name| !claims.iter().any(|claim| claim.name_any() == *name)).collect();
    let unlabelled = try_join_all(missing.iter().map(|name| api.get_opt(name))).await?;
    claims.extend(unlabelled.into_iter().flatten());
    Ok(claims)
}

/// The state of a Job.
pub enum JobState {
    /// It does not exist.
    Absent,
    /// It is running, or will be retried.
    Running(Box<Job>),
    /// It succeeded, at this time.
    Succeeded(Timestamp),
    /// It failed.
    Failed(Box<Job>),
}

/// When a Job failed.
pub fn ended(job: &Job, now: Timestamp) -> Timestamp {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failed = conditions.into_iter().find(|condition| condition.type_ == "Failed");
    failed.and_then(|failed| failed.last_transition_time.as_ref()).map_or(now, |time| time.0)
}

/// Reads the state of a Job.
///
/// # Errors
/// Errors of the API server.
pub async fn job_state(client: &Client, names: &Names, name: &str) -> Result<JobState, Error> {
    let api: Api<Job> = Api::namespaced(client.clone(), &names.namespace);
    Ok(api.get_opt(name).await?.map_or(JobState::Absent, |job| stands(&job)))
}

/// The state of a Job, from its conditions.
pub fn stands(job: &Job) -> JobState {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let holds = |kind: &str| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    let completed = job.status.as_ref().and_then(|status| status.completion_time.as_ref());
    if holds("Complete") {
        JobState::Succeeded(completed.map_or_else(Timestamp::now, |time| time.0))
    } else if holds("Failed") {
        JobState::Failed(Box::new(job.clone()))
    } else {
        JobState::Running(Box::new(job.clone()))
    }
}
