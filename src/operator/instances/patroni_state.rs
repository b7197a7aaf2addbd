//! Patroni's state in the annotations of four ConfigMaps: their content when the operator creates
//! them. At first it is almost empty. A deleted one is recreated with its last content, so that
//! Patroni continues: while one is missing, no member acts (`agent/patroni/launcher.py`), so the
//! content is still valid.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::names::Names;
use crate::contract::desired::Desired;
use crate::contract::patroni;
use crate::operator::apply::object::{ANNOTATION_APPLIED, ANNOTATION_UID, Annotations, INITIALIZE};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;

/// The key of `-config` with the dynamic configuration.
const CONFIG: &str = "config";
/// The key of `-leader` and of `-sync` with the leader's name.
const LEADER: &str = "leader";
/// As the leader in `-sync`, this names no member: none may be promoted until a person has named
/// the one with every acknowledged commit.
pub const NOBODY: &str = "servicedb-unknown";

/// The known state of a database, apart from Patroni's ConfigMaps.
pub struct Known<'a> {
    /// PostgreSQL's system identifier, once the database was initialised.
    pub system_identifier: Option<&'a str>,
    /// The desired state of the agents, or their first one.
    pub desired: &'a Desired,
    /// The primary's pod, or the last one.
    pub leader: Option<&'a str>,
}

impl<'a> Known<'a> {
    /// The known state of an observation; `first` is used before a desired state exists.
    pub fn from(observed: &'a Observation, first: &'a Desired) -> Self {
        Self {
            system_identifier: observed.system_identifier.as_deref(),
            desired: observed.desired.as_ref().unwrap_or(first),
            leader: observed.last_leader(),
        }
    }
}

/// The content of Patroni's ConfigMaps at creation, in the order of [`Names::patroni_config_maps`].
/// `deleted` returns the last content of a deleted one.
pub fn contents(names: &Names, known: &Known<'_>, deleted: impl Fn(&str) -> Option<Annotations>) -> [Annotations; 4] {
    let [config, leader, failover, sync] = names.patroni_config_maps().map(|name| deleted(&name).map(patronis));
    [
        config_contents(config, known),
        // With the leader's name and the time of its last renewal: the age of its lease is kept.
        leader.unwrap_or_default(),
        failover.unwrap_or_default(),
        sync_contents(sync, known),
    ]
}

/// Without the system identifier, members would accept any data, and an empty volume would be
/// initialised beside the existing data. Without the dynamic configuration, synchronous replication
/// would end.
fn config_contents(deleted: Option<Annotations>, known: &Known<'_>) -> Annotations {
    let mut contents = deleted.unwrap_or_default();
    if let Some(system_identifier) = known.system_identifier {
        contents.insert(INITIALIZE.to_owned(), system_identifier.to_owned());
    }
    contents.entry(CONFIG.to_owned()).or_insert_with(|| patroni::dynamic_configuration(known.desired).to_string());
    contents
}

/// The members that may be promoted. The content at the deletion is still valid: PostgreSQL waits
/// for another standby only after Patroni has recorded it. If the content is unknown, only the
/// leader is recorded: it has every acknowledged commit, and adds its standby in its next loop. It
/// must not be empty, or any member could be promoted; if the leader is unknown too, a person must
/// name it.
fn sync_contents(deleted: Option<Annotations>, known: &Known<'_>) -> Annotations {
    if let Some(deleted) = deleted.filter(|deleted| deleted.contains_key(LEADER)) {
        return deleted;
    }
    if !known.desired.synchronous || known.system_identifier.is_none() {
        return Annotations::new();
    }
    let leader = known.leader.unwrap_or(NOBODY);
    Annotations::from([(LEADER.to_owned(), leader.to_owned())])
}

/// The annotations of Patroni, without Servicedb's, which are planned.
fn patronis(mut annotations: Annotations) -> Annotations {
    annotations.retain(|key, _| key != ANNOTATION_UID && key != ANNOTATION_APPLIED);
    annotations
}

/// A fingerprint of the parts of a ConfigMap of Patroni that Patroni does not change: labels, our
/// annotations, owners, and whether the database is initialised. Patroni writes the others in every
/// loop.
pub fn fingerprint(metadata: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
    metadata.uid.hash(&mut hasher);
    metadata.labels.hash(&mut hasher);
    (annotation(ANNOTATION_UID), annotation(ANNOTATION_APPLIED), annotation(INITIALIZE)).hash(&mut hasher);
    metadata.owner_references.iter().flatten().map(|owner| owner.uid.as_str()).for_each(|uid| uid.hash(&mut hasher));
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    hasher.finish()
}

/// Restores the system identifier in Patroni's ConfigMap. The leader's Patroni would also do so;
/// without a leader, Patroni would accept any data.
///
/// # Errors
/// Any error of the API server.
pub async fn record_system_identifier(
    context: &Context,
    database: &Database,
    observed: &Observation,
) -> Result<(), Error> {
    // Before it is known, Patroni is about to write it for the first time.
    let recorded = observed.desired.as_ref().and_then(|desired| desired.system_identifier.as_ref());
    let Some(system_identifier) = recorded else { return Ok(()) };
    let [config, ..] = database.names().patroni_config_maps();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let patch = json!({"metadata": {"annotations": {INITIALIZE: system_identifier}}});
    api.patch(&config, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn desired(synchronous: bool) -> Desired {
        let parameters = BTreeMap::from([("work_mem".to_owned(), "8MB".to_owned())]);
        Desired { parameters, synchronous, ..Desired::sample() }
    }

    fn made(known: &Known<'_>, deleted: &[(&str, &[(&str, &str)])]) -> [Annotations; 4] {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        contents(&Names::new("games", "chat"), known, |name| {
            let (_, held) = deleted.iter().find(|(deleted, _)| *deleted == name)?;
            Some(held.iter().map(text).collect())
        })
    }

    #[test]
    fn a_deleted_config_map_is_restored() {
        let (desired, other) = (desired(true), Some("chat-db-9"));
        let known = Known { system_identifier: Some("7000"), desired: &desired, leader: other };
        let [config, leader, failover, sync] = made(
            &known,
            &[
                ("chat-db-config", &[("initialize", "7000"), ("config", "{\"pause\":true}"), (ANNOTATION_UID, "u")]),
                ("chat-db-leader", &[("leader", "chat-db-0"), ("renewTime", "then"), (ANNOTATION_APPLIED, "h")]),
                ("chat-db-sync", &[("leader", "chat-db-0"), ("sync_standby", "chat-db-1")]),
            ],
        );
        assert_eq!(config.get("config").map(String::as_str), Some("{\"pause\":true}"), "a pause by a person is kept");
        assert_eq!(config.len(), 2, "our own keys are planned: {config:?}");
        assert_eq!(leader.get("renewTime").map(String::as_str), Some("then"), "the age of the lease is kept");
        assert!(failover.is_empty());
        assert_eq!(sync.get("sync_standby").map(String::as_str), Some("chat-db-1"));
    }

    #[test]
    fn a_new_database_has_only_a_configuration() {
        let desired = desired(true);
        let known = Known { system_identifier: None, desired: &desired, leader: None };
        let [config, leader, failover, sync] = made(&known, &[]);
        assert_eq!(config.keys().collect::<Vec<_>>(), ["config"]);
        assert!(leader.is_empty() && failover.is_empty() && sync.is_empty());
    }

    #[test]
    fn no_member_that_may_lack_commits_becomes_a_candidate() {
        let synchronous = desired(true);
        let known = |leader| Known { system_identifier: Some("7000"), desired: &synchronous, leader };
        let sync = |leader, deleted: &[(&str, &[(&str, &str)])]| made(&known(leader), deleted)[3].clone();
        assert_eq!(sync(Some("chat-db-1"), &[])[LEADER], "chat-db-1", "only the leader");
        assert_eq!(sync(None, &[])[LEADER], NOBODY);
        assert_eq!(sync(None, &[("chat-db-sync", &[])])[LEADER], NOBODY, "emptied before it was deleted");
        let asynchronous = desired(false);
        let known = Known { system_identifier: Some("7000"), desired: &asynchronous, leader: None };
        assert!(made(&known, &[])[3].is_empty(), "asynchronous replication does not use it");
    }

    #[test]
    fn a_configuration_is_never_recreated_without_the_system_identifier() {
        let desired = desired(true);
        let known = Known { system_identifier: Some("7000"), desired: &desired, leader: None };
        for deleted in [&[][..], &[("chat-db-config", &[][..])]] {
            let [config, ..] = made(&known, deleted);
            assert_eq!(config[INITIALIZE], "7000");
            assert!(config["config"].contains("8MB"), "{config:?}");
        }
    }

    #[test]
    fn patronis_periodic_writes_do_not_trigger_a_reconcile() {
        let print = |key: &str, value: &str| {
            let annotations = BTreeMap::from([
                (ANNOTATION_UID.to_owned(), "u".to_owned()),
                (INITIALIZE.to_owned(), "7000".to_owned()),
                (key.to_owned(), value.to_owned()),
            ]);
            fingerprint(&ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() })
        };
        assert_eq!(print("renewTime", "1"), print("renewTime", "2"));
        assert_ne!(print(INITIALIZE, "7000"), print(INITIALIZE, ""));
        assert_ne!(print(ANNOTATION_UID, "u"), print(ANNOTATION_UID, "another"));
    }
}
