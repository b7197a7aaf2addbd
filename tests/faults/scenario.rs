//! The scenarios of a database, and the detection of their final state.

mod clients;
mod pooler;
mod restore;
mod short_lived;
mod upgrade;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::api::names::{ANNOTATION_ROTATE, LABEL_SCOPE};

use super::vault_state;
use crate::harness::objects::objects;
use crate::harness::{READY, Sandbox, condition, config_map, database, describe, run, until};

/// Annotation of a pod that the kubelet shall look at.
pub const TOUCHED: &str = "servicedb.dev/faults-touched";
/// The database's name in every case.
pub const NAME: &str = "chat";
const MIGRATIONS: &str = "migrations";
/// Long enough for a step that goes through a fault's backoff.
const STEP: Duration = READY;
/// The token of a request.
const REQUEST: &str = "now";
const MADE_AT: &str = "servicedb.dev/secret-id-made-at";

/// The resync of operators that are not to be waited for.
pub const RESYNC_SECONDS: u64 = 5;

/// A scenario. Each starts in a separate namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// A database of one instance, with a migration and a client.
    Create,
    /// From one instance to two, and back.
    Scale,
    /// New credentials, on request.
    Rotate,
    /// The secret_ids are too old.
    SecretId,
    /// A deletion that keeps the data.
    DeleteRetain,
    /// A deletion that does not.
    DeleteData,
    /// A client with a login of its own is declared.
    ClientAdded,
    /// It gets other rights.
    ClientChanged,
    /// It gets new credentials, on request.
    ClientRotated,
    /// It is declared no longer.
    ClientRemoved,
    /// A client goes from the shared login to one of its own, and back.
    ClientMoved,
    /// A client with short-lived logins is declared.
    ShortLivedAdded,
    /// It gets limits.
    ShortLivedLimited,
    /// It is declared no longer.
    ShortLivedRemoved,
    /// A database is restored in place.
    Restore,
    /// From PostgreSQL 17 to 18.
    Upgrade,
    /// A pooler is declared.
    PoolerAdded,
    /// It is declared no longer.
    PoolerRemoved,
    /// An invalid spec, then the old one.
    WrongSpec,
    /// The database of [`Self::Create`], declared in three steps.
    Steps,
    /// The database of [`Self::Create`], reconciled repeatedly.
    Resync,
    /// Objects that somebody deletes: the agents' state and rights, Patroni's lease.
    ObjectsDeleted,
}

impl Scenario {
    /// All, in the order in which tables show them.
    pub const ALL: [Self; 22] = [
        Self::Create,
        Self::Scale,
        Self::Rotate,
        Self::SecretId,
        Self::DeleteRetain,
        Self::DeleteData,
        Self::ClientAdded,
        Self::ClientChanged,
        Self::ClientRotated,
        Self::ClientRemoved,
        Self::ClientMoved,
        Self::ShortLivedAdded,
        Self::ShortLivedLimited,
        Self::ShortLivedRemoved,
        Self::Restore,
        Self::Upgrade,
        Self::PoolerAdded,
        Self::PoolerRemoved,
        Self::WrongSpec,
        Self::Steps,
        Self::Resync,
        Self::ObjectsDeleted,
    ];

    /// Its display name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Scale => "scale 1, 2, 1",
            Self::Rotate => "rotate",
            Self::SecretId => "secret_id rotation",
            Self::DeleteRetain => "delete, Retain",
            Self::DeleteData => "delete, Delete",
            Self::ClientAdded => "client added",
            Self::ClientChanged => "client changed",
            Self::ClientRotated => "client rotated",
            Self::ClientRemoved => "client removed",
            Self::ClientMoved => "client moved and back",
            Self::ShortLivedAdded => "short-lived logins added",
            Self::ShortLivedLimited => "short-lived logins limited",
            Self::ShortLivedRemoved => "short-lived logins removed",
            Self::Restore => "restore in place",
            Self::Upgrade => "upgrade 17 to 18",
            Self::PoolerAdded => "pooler added",
            Self::PoolerRemoved => "pooler removed",
            Self::WrongSpec => "wrong spec, reverted",
            Self::Steps => "created in steps",
            Self::Resync => "reconciled again",
            Self::ObjectsDeleted => "objects deleted",
        }
    }

    /// The scenario whose end this one's must equal; its own undisturbed one otherwise.
    pub fn ends_as(self) -> Self {
        match self {
            Self::WrongSpec | Self::Steps | Self::Resync => Self::Create,
            other => other,
        }
    }

    /// Whether faults are tried in it; the others are other ways to an end that is compared.
    pub fn has_faults(self) -> bool {
        self.ends_as() == self
    }

    /// The operator's resync: what is found by nothing else must not be waited for long.
    pub fn resync_seconds(self) -> u64 {
        match self {
            Self::SecretId | Self::Resync => RESYNC_SECONDS,
            _ => 600,
        }
    }

    /// Timeout of the final state: longer than the longest requeue interval, and than all steps of what is done again
    /// from its beginning.
    pub fn patience(self) -> Duration {
        Duration::from_secs(if matches!(self, Self::Restore | Self::Upgrade) { 300 } else { 240 })
    }

    /// Whether it may end, by design, with the state from before it.
    pub fn may_give_up(self) -> bool {
        matches!(self, Self::Restore | Self::Upgrade)
    }

    /// Why it ended with the state from before it; none if it did not.
    pub fn gave_up(self, found: &ServiceDatabase) -> Option<String> {
        match self {
            Self::Restore => restore::gave_up(found),
            Self::Upgrade => upgrade::gave_up(found),
            _ => None,
        }
    }

    /// Everything before the calls are counted.
    pub async fn prepare(self, sandbox: &Sandbox) {
        let file = ("1_notes.up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY);\n");
        sandbox.create(config_map(MIGRATIONS, &[file])).await;
        match self {
            Self::Create | Self::Steps | Self::Resync => return,
            Self::ClientAdded | Self::ClientChanged | Self::ClientRotated | Self::ClientRemoved => {
                clients::prepare(sandbox).await;
            }
            _ => {}
        }
        sandbox.create(whole(self.first_spec())).await;
        let found = sandbox.ready(NAME, STEP).await;
        // The ledger says before the Job does that the migrations are applied; one that runs is stopped by some changes.
        until("the Jobs have ended", STEP, async || jobs_have_ended(sandbox).await).await;
        match self {
            Self::ClientAdded | Self::ClientMoved | Self::ShortLivedAdded => insert(sandbox, &clients::ROWS).await,
            Self::ShortLivedLimited | Self::ShortLivedRemoved => {
                insert(sandbox, &clients::ROWS).await;
                short_lived::prepare(sandbox).await;
            }
            Self::ClientChanged | Self::ClientRotated | Self::ClientRemoved => {
                insert(sandbox, &clients::ROWS).await;
                clients::serves(&found, "ReadOnly", 1).unwrap_or_else(|problem| panic!("Ready, and {problem}"));
            }
            Self::Restore => restore::prepare(sandbox).await,
            Self::Upgrade => upgrade::prepare(sandbox).await,
            Self::PoolerRemoved => {
                let look = async || pooler::serves(sandbox, &sandbox.get(NAME).await).await;
                until("the pooler serves", STEP, look).await;
            }
            _ => {}
        }
    }

    /// What the database has before the scenario that others have not.
    fn first_spec(self) -> Value {
        match self {
            Self::DeleteData => json!({"deletionPolicy": "Delete"}),
            Self::ClientChanged | Self::ClientRotated | Self::ClientRemoved => clients::with_client(),
            Self::ShortLivedLimited | Self::ShortLivedRemoved => short_lived::with_client(),
            Self::Restore => restore::spec(),
            Self::Upgrade => upgrade::spec(),
            Self::PoolerRemoved => pooler::spec(),
            _ => json!({}),
        }
    }

    /// Runs the scenario; waits between its steps, not after the last.
    pub async fn act(self, sandbox: &Sandbox) {
        match self {
            Self::Create | Self::Resync => {
                sandbox.create(whole(json!({}))).await;
            }
            Self::Scale => {
                change(sandbox, json!({"instances": 2})).await;
                sandbox.ready(NAME, STEP).await;
                change(sandbox, json!({"instances": 1})).await;
            }
            Self::Rotate => {
                let patch = json!({"metadata": {"annotations": {ANNOTATION_ROTATE: REQUEST}}});
                sandbox.patch::<ServiceDatabase>(NAME, &patch).await;
            }
            Self::SecretId => {
                let names = sandbox.names(NAME);
                let old = Timestamp::now() - SignedDuration::from_hours(48);
                for name in [names.instance_approle(), names.migrator()] {
                    let patch = json!({"metadata": {"annotations": {MADE_AT: old.to_string()}}});
                    sandbox.patch::<Secret>(&name, &patch).await;
                }
            }
            Self::DeleteRetain | Self::DeleteData => sandbox.delete::<ServiceDatabase>(NAME).await,
            Self::ClientAdded => clients::add(sandbox).await,
            Self::ClientChanged => clients::alter(sandbox).await,
            Self::ClientRotated => clients::rotate(sandbox).await,
            Self::ClientRemoved => clients::remove(sandbox).await,
            Self::ClientMoved => clients::move_and_return(sandbox).await,
            Self::ShortLivedAdded => short_lived::add(sandbox).await,
            Self::ShortLivedLimited => short_lived::limit(sandbox).await,
            Self::ShortLivedRemoved => short_lived::remove(sandbox).await,
            Self::Restore => restore::act(sandbox).await,
            Self::Upgrade => upgrade::act(sandbox).await,
            Self::PoolerAdded => pooler::add(sandbox).await,
            Self::PoolerRemoved => pooler::remove(sandbox).await,
            Self::ObjectsDeleted => {
                let names = sandbox.names(NAME);
                let [_, lease, ..] = names.patroni_config_maps();
                for (kind, name) in [("ConfigMap", names.desired()), ("Role", names.base()), ("ConfigMap", lease)] {
                    recreated(sandbox, kind, &name).await;
                }
            }
            Self::WrongSpec => {
                let wrong = json!({
                    "migrations": {"source": {"configMap": {"name": "absent"}}},
                    "postgres": {"parameters": {"work_mem": "lots"}},
                });
                change(sandbox, wrong).await;
                sandbox.wait("the wrong spec is reported", NAME, STEP, told_wrong).await;
                let right = whole(json!({}))["spec"].take();
                change(sandbox, json!({"migrations": right["migrations"], "postgres": right["postgres"]})).await;
            }
            Self::Steps => {
                let whole = whole(json!({}))["spec"].take();
                sandbox.create(database(NAME, json!({"instances": 1}))).await;
                sandbox.ready(NAME, STEP).await;
                change(sandbox, json!({"clients": whole["clients"], "postgres": whole["postgres"]})).await;
                sandbox.ready(NAME, STEP).await;
                change(sandbox, json!({"migrations": whole["migrations"]})).await;
            }
        }
    }

    /// Whether it looks as if the end were reached: cheap, so that the whole state need not
    /// be read all the time. `at_rest`: also what agents tell only after a while was told, so
    /// that nothing is left to be written.
    ///
    /// # Errors
    /// What is still missing.
    pub async fn settled(self, sandbox: &Sandbox, at_rest: bool) -> Result<(), String> {
        let found = sandbox.api::<ServiceDatabase>().get_opt(NAME).await.map_err(|error| error.to_string())?;
        let pods = sandbox.api::<Pod>().list(&ListParams::default().labels(LABEL_SCOPE)).await;
        let pods = pods.map_err(|error| error.to_string())?.items;
        if let Self::DeleteRetain | Self::DeleteData = self {
            let set = sandbox.api::<StatefulSet>().get_opt(&sandbox.names(NAME).base()).await;
            let gone = found.is_none() && pods.is_empty() && set.is_ok_and(|set| set.is_none());
            return if gone { Ok(()) } else { Err(found.map_or_else(|| "pods".to_owned(), |found| describe(&found))) };
        }
        let found = found.ok_or("the resource is gone")?;
        let status = found.status.clone().unwrap_or_default();
        let credentials = status.credentials.clone().unwrap_or_default();
        let current = status.observed_generation == found.metadata.generation;
        let ready = condition(&found, "Ready").is_some_and(|condition| condition.status == "True");
        let instances = pods.len() == 1 && status.instances.as_deref() == Some("1/1");
        let rotated = self != Self::Rotate || credentials.rotate_request.as_deref() == Some(REQUEST);
        let told = !at_rest || credentials.old_sessions.is_some();
        if !(current && ready && instances && rotated && told) {
            return Err(format!("{} pods; {credentials:?}; {}", pods.len(), describe(&found)));
        }
        match self {
            Self::SecretId => secret_ids_are_replaced(sandbox).await,
            Self::ClientAdded => clients::serves(&found, "ReadOnly", 1),
            Self::ClientChanged => clients::serves(&found, "Custom", 1),
            Self::ClientRotated => {
                clients::is_rotated(&found)?;
                clients::serves(&found, "ReadOnly", 2)
            }
            Self::ClientRemoved | Self::ClientMoved => clients::is_gone(sandbox, &found).await,
            Self::ShortLivedAdded => short_lived::serves(&found),
            Self::ShortLivedLimited => short_lived::is_limited(sandbox, &found).await,
            Self::ShortLivedRemoved => short_lived::is_gone(sandbox, &found).await,
            Self::Restore => restore::settled(&found),
            Self::Upgrade => upgrade::settled(&found),
            Self::PoolerAdded => pooler::serves(sandbox, &found).await,
            Self::PoolerRemoved => pooler::is_gone(sandbox, &found).await,
            _ => Ok(()),
        }
    }
}

/// The database that most scenarios have.
fn whole(more: Value) -> Value {
    let mut spec = json!({
        "migrations": {"source": {"configMap": {"name": MIGRATIONS}}},
        "postgres": {"parameters": {"work_mem": "8MB"}},
        "clients": [shared_client()],
    });
    crate::harness::database::merge(&mut spec, more);
    database(NAME, spec)
}

/// A client that uses the shared login.
fn shared_client() -> Value {
    json!({"serviceAccountName": NAME, "podSelector": {"matchLabels": {"app": NAME}}})
}

/// A client that has a login of its own, and a Secret with it.
fn own_client(name: &str, access: Value) -> Value {
    json!({
        "serviceAccountName": name,
        "podSelector": {"matchLabels": {"app": name}},
        "access": access,
        "secret": {"name": format!("{name}-credentials")},
    })
}

/// Inserts rows as the application does.
async fn jobs_have_ended(sandbox: &Sandbox) -> Result<(), String> {
    let has_ended = |job: &Job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.filter(|told| told.status == "True").any(|told| told.type_ == "Complete" || told.type_ == "Failed")
    };
    let found = sandbox.api::<Job>().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
    match found.items.iter().find(|job| !has_ended(job)) {
        Some(job) => Err(job.name_any()),
        None => Ok(()),
    }
}

async fn insert(sandbox: &Sandbox, ids: &[i64]) {
    let rows: Vec<_> = ids.iter().map(|id| format!("({id})")).collect();
    let connection = sandbox.connect(NAME).await;
    let statement = format!("INSERT INTO notes VALUES {}", rows.join(", "));
    run(&connection, &statement).await.unwrap_or_else(|refusal| panic!("{statement}: {refusal:?}"));
}

async fn change(sandbox: &Sandbox, spec: Value) {
    sandbox.patch::<ServiceDatabase>(NAME, &json!({"spec": spec})).await;
}

/// Deletes an object, and waits until there is another of its name.
async fn recreated(sandbox: &Sandbox, kind: &str, name: &str) {
    let api = objects(sandbox, kind);
    let before = api.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    api.delete(name, &DeleteParams::default()).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    until(&format!("{kind} {name} is recreated"), STEP, || async {
        let now = api.get_opt(name).await.map_err(|error| error.to_string())?;
        if now.is_some_and(|now| now.uid() != before.uid()) { Ok(()) } else { Err("it is not there".to_owned()) }
    })
    .await;
}

fn told_wrong(database: &ServiceDatabase) -> bool {
    condition(database, "Ready").is_some_and(|condition| {
        condition.status == "False" && condition.observed_generation == database.metadata.generation
    })
}

/// Whether both are young, and the pod has its own, so that the one before could be destroyed.
async fn secret_ids_are_replaced(sandbox: &Sandbox) -> Result<(), String> {
    let names = sandbox.names(NAME);
    for name in [names.migrator(), names.instance_approle()] {
        let secret = sandbox.api::<Secret>().get(&name).await.map_err(|error| error.to_string())?;
        let made = secret.annotations().get(MADE_AT).and_then(|text| text.parse::<Timestamp>().ok());
        if made.is_none_or(|made| Timestamp::now().duration_since(made) > SignedDuration::from_hours(1)) {
            return Err(format!("the secret_id in {name} is old"));
        }
    }
    if vault_state::secret_ids(sandbox, &sandbox.vault_names(NAME).instance()).await.len() > 1 {
        // The kubelet brings a changed Secret within a minute or two, and at once when the pod changes.
        let now = json!({"metadata": {"annotations": {TOUCHED: Timestamp::now().to_string()}}});
        sandbox.patch::<Pod>(&names.pod(0), &now).await;
        return Err("the secret_id that no pod has any more is still there".to_owned());
    }
    Ok(())
}

/// A resource with this status.
#[cfg(test)]
fn sample(status: Value) -> ServiceDatabase {
    let mut object = whole(json!({}));
    object["status"] = status;
    serde_json::from_value(object).expect("a ServiceDatabase")
}

#[test]
fn each_scenario_has_its_own_name_and_a_spec_that_can_be_read() {
    let names: std::collections::BTreeSet<_> = Scenario::ALL.into_iter().map(Scenario::name).collect();
    assert_eq!(names.len(), Scenario::ALL.len());
    for scenario in Scenario::ALL {
        let spec = whole(scenario.first_spec());
        let read: ServiceDatabase =
            serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{error}: {spec}"));
        assert_eq!(read.spec.clients.len(), spec["spec"]["clients"].as_array().map_or(0, Vec::len), "{spec}");
    }
}
