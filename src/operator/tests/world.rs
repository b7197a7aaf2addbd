//! The operator's environment: an API server and a Vault in memory, and simulations of the
//! StatefulSet controller, the agents and the Job controller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::api_server::{ApiServer, Key, client, key};
use super::faults::Faults;
use super::fixtures::options;
use super::memory_vault::{MemoryVault, Record};
use super::status_findings;
use crate::api::ServiceDatabase;
use crate::api::names::{ANNOTATION_REPORT, Names, service_of_patroni_config_map};
use crate::contract::certificates::{Authorities, FILES, fingerprint};
use crate::contract::clients::{ClientReport, RightsReport, Sessions};
use crate::contract::desired::{Desired, KEY};
use crate::contract::records::{ClientPending, MigratorRecord, Pending, Runtime, Versions};
use crate::contract::report::{ArchiveReport, LedgerReport, Report};
use crate::contract::upgrade::UpgradeReport;
use crate::operator::apply::object::ANNOTATION_APPLIED;
use crate::operator::backups::slots::Slots;
use crate::operator::context::Context;
use crate::operator::context::cache::Cache;
use crate::operator::context::error::Error;
use crate::operator::context::metrics::Metrics;
use crate::operator::context::options::Options;
use crate::operator::context::vault_ca::VaultCa;
use crate::operator::instances::admission;
use crate::operator::instances::patroni_state;
use crate::operator::lifecycle::orphans::sweep;
use crate::operator::plan;
use crate::operator::reconcile::reconcile;
use crate::operator::validate::validate;
use crate::vault::client::Requests;

/// The namespace of everything here.
pub const NAMESPACE: &str = "messaging";

/// The maximum number of reconciles until nothing is sent.
const PATIENCE: usize = 20;
/// The kinds that the operator watches, besides pods and the resource.
const WATCHED: [&str; 10] = [
    "statefulsets",
    "jobs",
    "services",
    "networkpolicies",
    "poddisruptionbudgets",
    "configmaps",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "persistentvolumeclaims",
];

/// One ServiceDatabase `chat` and its environment.
pub struct World {
    pub api: ApiServer,
    pub vault: MemoryVault,
    pub faults: Faults,
    /// The ledger in the report of the primary's agent.
    pub ledger: Option<LedgerReport>,
    pods: Store<Pod>,
    writer: Writer<Pod>,
    watched: BTreeMap<Key, (String, String)>,
    /// Patroni's ConfigMaps at the last event of the watch.
    patronis: BTreeMap<Key, ObjectMeta>,
    clock: Clock,
    /// The last promoted credentials, and when.
    promoted: i64,
    rotated_at: Timestamp,
    /// The versions of the records that the agent reports as proved.
    pub proved: Option<Versions>,
    /// The clients in the report of the primary's agent.
    clients: Vec<ClientReport>,
    /// The rights in it, of each of them.
    pub rights: RightsReport,
    /// The sessions that each agent has counted.
    pub sessions: Option<Sessions>,
    /// The archive in the report of the primary's agent.
    pub archive: Option<ArchiveReport>,
    /// The same of the second store.
    pub second_archive: Option<ArchiveReport>,
    /// The major versions in the agents' reports.
    pub majors: Vec<u16>,
    /// The part in a major upgrade in them.
    pub upgrade: Option<UpgradeReport>,
    /// The fingerprint of the certificates in the agents' reports.
    certificates: Option<String>,
    context: Arc<Context>,
}

/// The time, set by the tests.
#[derive(Clone)]
struct Clock(Arc<Mutex<Timestamp>>);

impl Clock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// An empty world, and an operator that has just started.
    pub fn new() -> Self {
        let faults = Faults::default();
        let (api, vault) = (ApiServer::new(faults.clone()), MemoryVault::new(faults.clone()));
        let (pods, mut writer) = store();
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        let now = status_findings::time("2026-06-01T00:00:00Z");
        let clock = Clock(Arc::new(Mutex::new(now)));
        let context = operator(&api, &vault, &pods, &clock, options());
        let (watched, patronis) = (BTreeMap::new(), BTreeMap::new());
        let (promoted, rotated_at, certificates) = (0, now, None);
        Self {
            api,
            vault,
            faults,
            ledger: None,
            pods,
            writer,
            watched,
            patronis,
            clock,
            promoted,
            rotated_at,
            proved: None,
            certificates,
            clients: Vec::new(),
            rights: RightsReport::default(),
            sessions: None,
            archive: None,
            second_archive: None,
            majors: Vec::new(),
            upgrade: None,
            context,
        }
    }

    /// Restarts the operator, with an empty cache.
    pub fn restart(&mut self) {
        self.restart_with(self.context.options.clone());
    }

    /// The same with other settings.
    pub fn restart_with(&mut self, options: Options) {
        self.context = operator(&self.api, &self.vault, &self.pods, &self.clock, options);
    }

    /// Lets the observations of Vault and the Secrets expire, as at a resync of an operator that goes on.
    pub fn expire(&self) {
        self.context.cache.expire_credentials(&self.resource().metadata.uid.expect("a uid"));
    }

    /// A resync at rest of an operator that goes on; returns its requests to Vault, but for Vault's health.
    pub async fn resync(&mut self) -> Vec<String> {
        self.vault.take_calls();
        self.expire();
        self.settle().await;
        self.asked_of_vault()
    }

    /// The requests to Vault since the calls were last taken, but for its health.
    pub fn asked_of_vault(&self) -> Vec<String> {
        self.vault.take_calls().into_iter().filter(|call| call != "health").collect()
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass, also for the cache.
    pub fn pass(&mut self, time: SignedDuration) {
        *self.clock.0.lock().unwrap_or_else(PoisonError::into_inner) += time;
        self.restart();
    }

    /// The operator's metrics.
    pub fn metrics(&self) -> String {
        self.context.metrics.render().expect("metrics")
    }

    /// Lets the probe find Vault available again.
    pub fn vault_is_back(&self) {
        self.context.cache.renew_vault_objects();
    }

    /// Creates an object from YAML, as a user does.
    pub fn create(&self, yaml: &str) {
        let object: Value = serde_yaml::from_str(yaml).expect("YAML");
        let plural = match object["kind"].as_str().expect("a kind") {
            "ServiceDatabase" => "servicedatabases".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let name = object["metadata"]["name"].as_str().expect("a name");
        self.api.store().create(&key(&plural, NAMESPACE, name), object, "kubectl").expect("a new object");
    }

    /// One reconcile, with the current resource.
    pub async fn reconcile(&self) -> Result<Action, Error> {
        let resource =
            self.get("servicedatabases", "chat").map(|object| serde_json::from_value(object).expect("a resource"));
        match resource {
            Some(resource) => reconcile(Arc::new(resource), self.context.clone()).await,
            None => Ok(Action::await_change()),
        }
    }

    /// One reconcile, with an earlier version of the resource.
    pub async fn reconcile_as_read(&self, resource: ServiceDatabase) -> Result<Action, Error> {
        reconcile(Arc::new(resource), self.context.clone()).await
    }

    /// Removes the objects of deleted resources from Vault.
    pub async fn sweep(&self) -> Result<(), Error> {
        sweep(&self.context).await
    }

    /// Reconciles until nothing is sent, and restarts the operator after crashes. Returns the calls
    /// to Kubernetes and Vault.
    pub async fn settle(&mut self) -> Vec<String> {
        // The probe has queried Vault meanwhile.
        self.context.cache.invalidate_vault_answer();
        self.faults.take_journal();
        let mut sent = Vec::new();
        for _ in 0..PATIENCE {
            let _ = self.reconcile().await;
            self.send_watch_events();
            let journal = self.faults.take_journal();
            let quiet = journal.is_empty();
            sent.extend(journal);
            if self.faults.recover().is_some() {
                self.restart();
            } else if quiet {
                return sent;
            }
        }
        panic!("the operator does not stop sending: {sent:#?}");
    }

    /// Sends the operator the events of its watches: versions of the watched objects, and
    /// deletions.
    pub fn send_watch_events(&mut self) {
        let (mut now, mut patronis) = (BTreeMap::new(), BTreeMap::new());
        for (key, object) in self.api.store().all() {
            if key.0 == "configmaps" && service_of_patroni_config_map(&key.2).is_some() {
                patronis.insert(key.clone(), serde_json::from_value(object["metadata"].clone()).expect("metadata"));
            } else if WATCHED.contains(&key.0.as_str()) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                now.insert(key.clone(), (text(&object["kind"]), text(&object["metadata"]["resourceVersion"])));
            }
        }
        self.send_patroni_events(patronis);
        for ((_, namespace, name), (kind, _)) in self.watched.iter().filter(|(key, _)| !now.contains_key(key)) {
            self.context.cache.invalidate(namespace, kind, name, Some("deleted"));
        }
        for ((_, namespace, name), (kind, version)) in &now {
            self.context.cache.invalidate(namespace, kind, name, Some(version));
        }
        self.watched = now;
    }

    fn send_patroni_events(&mut self, now: BTreeMap<Key, ObjectMeta>) {
        let cache = &self.context.cache;
        for (key, before) in &self.patronis {
            let (_, namespace, name) = key;
            let there = now.get(key);
            let held = there.is_none().then(|| before.annotations.clone().unwrap_or_default());
            cache.keep_deleted(namespace, name, held);
            if there.is_none_or(|there| patroni_state::fingerprint(there) != patroni_state::fingerprint(before)) {
                cache.invalidate(namespace, "ConfigMap", name, Some("another"));
            }
        }
        self.patronis = now;
    }

    /// Runs the operator and the simulations until nothing is sent.
    pub async fn settle_all(&mut self) {
        self.settle().await;
        self.run_pods();
        self.settle().await;
    }

    /// Simulates the StatefulSet controller, the volumes' provisioner and the agents: pods run, the
    /// first is the primary, and pending credentials in Vault are proved and promoted.
    pub fn run_pods(&mut self) {
        let Some(set) = self.get("statefulsets", "chat-db") else { return };
        let names = names();
        let [config, leader, ..] = names.patroni_config_maps();
        self.annotate(&config, "initialize", "7000000000000000000");
        self.annotate(&leader, "leader", "chat-db-0");
        let generation = self.promote();
        self.promote_clients();
        let accessor = self.get("secrets", &names.instance_approle()).and_then(|secret| {
            Some(secret["metadata"]["annotations"]["servicedb.dev/secret-id-accessor"].as_str()?.to_owned())
        });
        let replicas =
            set["spec"]["replicas"].as_i64().and_then(|replicas| i32::try_from(replicas).ok()).expect("replicas");
        for ordinal in 0..replicas {
            let mut claim = set["spec"]["volumeClaimTemplates"][0].clone();
            claim["metadata"]["name"] = names.volume_claim(ordinal).into();
            let _ = self.api.store().create(
                &object("persistentvolumeclaims", &names.volume_claim(ordinal)),
                claim,
                "kubelet",
            );
            let mut pod = status_findings::pod(ordinal, ordinal == 0);
            let standbys = (1..replicas.min(2)).map(|ordinal| names.pod(ordinal)).collect();
            self.change_report(&mut pod, generation, accessor.clone(), standbys);
            self.writer.apply_watcher_event(&Event::Apply(pod));
        }
    }

    /// Replaces the pod of the same name.
    pub fn put_pod(&mut self, pod: Pod) {
        self.writer.apply_watcher_event(&Event::Apply(pod));
    }

    /// A dry run of a replacement of this pod.
    pub async fn refusal(&self, pod: &str) -> Result<Option<String>, Error> {
        let database = validate(&self.resource(), &options()).expect("a spec that can be planned");
        let template = plan::template(&database, &options());
        admission::refusal(&self.context.client, &database, &template, None, pod).await
    }

    /// A dry run of the volume claim of a pod, with these existing claims.
    pub async fn claim_refusal(&self, pod: &str, claims: &[PersistentVolumeClaim]) -> Result<Option<String>, Error> {
        let database = validate(&self.resource(), &options()).expect("a spec that can be planned");
        let set = self.get("statefulsets", "chat-db").expect("the set");
        let set = serde_json::from_value(set).expect("a StatefulSet");
        admission::claim_refusal(&self.context.client, &database, &set, claims, pod).await
    }

    /// Simulates the kubelet and the agents: the pods have loaded their Secret, and the record in
    /// Vault has the authorities of the desired state.
    pub fn load_certificates(&mut self) {
        let secret = self.get("secrets", &names().tls_secret()).expect("the pods' Secret");
        let secret: Secret = serde_json::from_value(secret).expect("a Secret");
        let data = secret.data.unwrap_or_default();
        let content = |file: &str| data.get(file).map_or(&[][..], |bytes| &bytes.0[..]);
        self.certificates = Some(fingerprint(FILES.map(content)));
        let authorities = self.desired_authorities();
        self.vault.edit(|content| {
            let record = content.kv.get_mut(&names().vault("dev").runtime()).expect("a record");
            record.version += 1;
            record.data.as_mut().expect("data").insert("CHAT_DB_CA".to_owned(), authorities.to_pem());
        });
        self.run_pods();
    }

    /// The versions of the records in Vault.
    pub fn versions(&self) -> Versions {
        let (kv, names) = (self.vault.content().kv, names().vault("dev"));
        Versions { runtime: kv[&names.runtime()].version, migrator: kv[&names.migrator_record()].version }
    }

    /// The versions that the agents must prove again.
    pub fn to_prove(&self) -> Option<Versions> {
        let desired = self.get("configmaps", &names().desired()).expect("the desired state");
        serde_json::from_str::<Desired>(desired["data"][KEY].as_str().expect("a document")).expect("JSON").prove
    }

    /// The authorities in the desired state.
    pub fn desired_authorities(&self) -> Authorities {
        let desired = self.get("configmaps", &names().desired()).expect("the desired state");
        let desired: Desired = serde_json::from_str(desired["data"][KEY].as_str().expect("a document")).expect("JSON");
        Authorities::from_pem(&desired.authorities.unwrap_or_default())
    }

    /// Ends the pods, and with the last one a StatefulSet that waits for them.
    pub fn end_pods(&mut self) {
        for pod in self.pods.state() {
            self.writer.apply_watcher_event(&Event::Delete(pod.as_ref().clone()));
        }
        let set = object("statefulsets", "chat-db");
        let waits =
            self.get("statefulsets", "chat-db").is_some_and(|set| !set["metadata"]["deletionTimestamp"].is_null());
        if waits {
            self.api.store().edit(&set, |set| set["metadata"]["finalizers"] = json!([]));
        }
    }

    fn change_report(&self, pod: &mut Pod, generation: i64, accessor: Option<String>, standbys: Vec<String>) {
        let annotations = pod.metadata.annotations.as_mut().expect("annotations");
        let mut report: Report = serde_json::from_str(&annotations[ANNOTATION_REPORT]).expect("a report");
        report.secret_id_accessor = accessor;
        report.certificates = self.certificates.clone();
        report.sessions = self.sessions.clone();
        report.majors.clone_from(&self.majors);
        report.upgrade = self.upgrade.clone().map(Box::new);
        if let Some(credentials) = &mut report.credentials {
            (credentials.generation, credentials.rotated_at) = (generation, self.rotated_at);
            credentials.versions = self.proved;
            report.clients = Some(self.clients.clone()).filter(|clients| !clients.is_empty());
            report.ledger = self.ledger.clone();
            report.synchronous_standbys = standbys;
            report.archive = self.archive.clone();
            report.second_archive = self.second_archive.clone();
        }
        annotations.insert(ANNOTATION_REPORT.to_owned(), json!(report).to_string());
    }

    /// Simulates the agent for clients with a login of their own: those in the desired state.
    fn promote_clients(&mut self) {
        let desired = self.get("configmaps", &names().desired()).expect("the desired state");
        let desired: Desired = serde_json::from_str(desired["data"][KEY].as_str().expect("a document")).expect("JSON");
        let (names, now) = (names().vault("dev"), self.clock.now());
        let uid = self.resource().metadata.uid.expect("a uid");
        let (mut reports, rights) = (Vec::new(), self.rights.clone());
        for client in &desired.clients {
            self.vault.edit(|content| {
                let path = names.client_runtime(&client.name);
                let pending = content.kv.remove(&names.client_pending(&client.name)).and_then(|record| record.data);
                if let Some(pending) = pending {
                    let pending = ClientPending::from_data(&pending).expect("a pending record");
                    let runtime = Runtime {
                        pooler: None,
                        key_prefix: "CHAT",
                        generation: pending.generation,
                        uid: &uid,
                        login: &pending.login,
                        database: "chat_db",
                        host: "chat-db.messaging.svc",
                        ca: "ca",
                    };
                    let record: &mut Record = content.kv.entry(path.clone()).or_default();
                    record.data = Some(runtime.to_data());
                    record.version += 1;
                }
                let record = content.kv.get(&path);
                let held = record.and_then(|record| Runtime::generation_of(record.data.as_ref()?).ok());
                reports.push(ClientReport {
                    name: client.name.clone(),
                    generation: held.unwrap_or_default(),
                    rotated_at: held.map(|_| now),
                    version: record.map(|record| record.version),
                    dynamic: client.dynamic().map(|_| true),
                    trouble: None,
                    rights: Some(rights.clone()),
                });
            });
        }
        self.clients = reports;
    }

    /// Returns the new generation in `runtime`.
    fn promote(&mut self) -> i64 {
        let vault_names = names().vault("dev");
        let mut generation = 0;
        let (mut promoted, now) = (false, self.clock.now());
        let uid = self.resource().metadata.uid.expect("a uid");
        self.vault.edit(|content| {
            if let Some(pending) = content.kv.remove(&vault_names.pending()).and_then(|record| record.data) {
                let pending = Pending::from_data(&pending).expect("a pending record");
                let login = &pending.app;
                promoted = true;
                let runtime = Runtime {
                    pooler: None,
                    key_prefix: "CHAT",
                    generation: pending.generation,
                    uid: &uid,
                    login,
                    database: "chat_db",
                    host: "chat-db.messaging.svc",
                    ca: "ca",
                };
                let migrator = MigratorRecord {
                    generation: pending.generation,
                    user: pending.migrator.user.clone(),
                    password: pending.migrator.password.clone(),
                    ca: "ca".to_owned(),
                };
                for (path, data) in
                    [(vault_names.runtime(), runtime.to_data()), (vault_names.migrator_record(), migrator.to_data())]
                {
                    let record: &mut Record = content.kv.entry(path).or_default();
                    record.data = Some(data);
                    record.version += 1;
                }
            }
            let runtime = content.kv.get(&vault_names.runtime()).and_then(|record| record.data.as_ref());
            generation = runtime.and_then(|data| Runtime::generation_of(data).ok()).unwrap_or_default();
        });
        if promoted {
            (self.promoted, self.rotated_at) = (generation, now);
        }
        // The database records the promotion, too.
        self.promoted
    }

    pub fn annotate(&self, config_map: &str, annotation: &str, value: &str) {
        self.api.store().edit(&object("configmaps", config_map), |map| {
            map["metadata"]["annotations"][annotation] = value.into();
        });
    }

    /// Changes the resource as a user does.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        self.api.store().edit(&object("servicedatabases", "chat"), change);
    }

    /// A stored object.
    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.api.store().get(&object(plural, name)).ok()
    }

    /// Status and reason of a condition of the resource, as `True Ready`.
    pub fn condition(&self, kind: &str) -> String {
        let conditions = self.resource().status.map(|status| status.conditions).unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition.type_ == kind);
        condition.map_or_else(|| "nothing".to_owned(), |condition| format!("{} {}", condition.status, condition.reason))
    }

    /// The message of a condition.
    pub fn message(&self, kind: &str) -> String {
        let conditions = self.resource().status.map(|status| status.conditions).unwrap_or_default();
        conditions.into_iter().find(|condition| condition.type_ == kind).map(|found| found.message).unwrap_or_default()
    }

    /// The stored resource.
    pub fn resource(&self) -> ServiceDatabase {
        let object = self.get("servicedatabases", "chat").expect("the resource");
        serde_json::from_value(object).expect("a resource")
    }

    /// The content of Kubernetes and Vault, without versions, times, events and random values.
    pub fn snapshot(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for ((plural, _, name), object) in self.api.store().all() {
            if plural != "events" {
                all.insert(format!("{plural}/{name}"), without_chance(object.clone()));
            }
        }
        let content = self.vault.content();
        all.insert("vault/policies".to_owned(), json!(content.policies));
        all.insert("vault/approles".to_owned(), format!("{:?}", content.approles).into());
        all.insert("vault/kubernetes roles".to_owned(), format!("{:?}", content.kubernetes_roles).into());
        all.insert("vault/database roles".to_owned(), format!("{:?}", content.database_roles).into());
        for (role, accessors) in content.secret_ids {
            all.insert(format!("vault/secret_ids/{role}"), accessors.len().into());
        }
        for (path, record) in content.kv {
            let keys: Vec<_> = record.data.iter().flat_map(BTreeMap::keys).collect();
            let generation = record.data.as_ref().and_then(|data| data.get("SERVICEDB_GENERATION"));
            let shown = json!({"keys": keys, "generation": generation, "metadata": record.metadata});
            all.insert(format!("vault/kv/{path}"), shown);
        }
        all
    }
}

/// The names of the one ServiceDatabase.
pub fn names() -> Names {
    Names::new(NAMESPACE, "chat")
}

/// The key of an object in the one namespace.
pub fn object(plural: &str, name: &str) -> Key {
    key(plural, NAMESPACE, name)
}

fn operator(api: &ApiServer, vault: &MemoryVault, pods: &Store<Pod>, clock: &Clock, options: Options) -> Arc<Context> {
    let clock = clock.clone();
    let client = client(api);
    let reporter = Reporter { controller: "servicedb".to_owned(), instance: Some("operator-0".to_owned()) };
    Arc::new(Context {
        vault_names: RwLock::default(),
        reporter,
        client,
        vault: Arc::new(vault.clone()),
        options,
        clock: Arc::new(move || clock.now()),
        cluster_uid: "uid-of-kube-system".to_owned(),
        issuer: tokio::sync::OnceCell::new(),
        vault_ca: VaultCa::fixed("the authority of Vault"),
        pods: vec![pods.clone()],
        pods_filled: tokio::sync::OnceCell::new(),
        draining: tokio::sync::watch::channel(Arc::default()).1,
        backups: Slots::new(2, Timestamp::UNIX_EPOCH),
        metrics: Metrics::new(&Requests::default()),
        cache: Cache::new(Duration::from_secs(540)),
    })
}

fn without_chance(mut object: Value) -> Value {
    let secret = object["kind"] == "Secret";
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| !["uid", "resourceVersion", "generation", "managedFields"].contains(&key.as_str()));
        let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
        for (key, value) in annotations.into_iter().flatten() {
            if ["secret-id-accessor", "secret-id-previous-accessor", "secret-id-made-at", "not-after"]
                .iter()
                .any(|end| key.ends_with(end))
            {
                *value = "…".into();
            }
        }
    }
    if let Some(text) = object.get("data").and_then(|data| data.get(KEY)).and_then(Value::as_str) {
        let mut desired: Value = serde_json::from_str(text).expect("JSON");
        let authorities = Authorities::from_pem(desired["authorities"].as_str().unwrap_or_default());
        desired["authorities"] = authorities.iter().count().into();
        object["data"][KEY] = desired;
        object["metadata"]["annotations"][ANNOTATION_APPLIED] = "…".into();
    }
    if object["kind"] == "StatefulSet" {
        object["status"]["observedGeneration"] = "…".into();
    }
    if let Some(data) = object["data"].as_object_mut().filter(|_| secret) {
        data.values_mut().for_each(|value| *value = "…".into());
    }
    for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"] = "…".into();
    }
    object
}
