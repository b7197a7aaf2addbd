//! The overview of one database, as one document: `-o json` prints it, the tables are derived from
//! it, and its field names are an interface.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::api::names::{LABEL_ROLE, Names};
use crate::api::{
    AccessMode, BackupStatus, ClientSpec, ClientStatus, CredentialsStatus, DeletionPolicy, Endpoints, GatewayStatus,
    InPlaceRestore, MigrationSource, MigrationsStatus, PendingRollout, PoolerStatus, RequestStatus, ServiceDatabase,
    ServiceDatabaseStatus, UpgradeStatus,
};
use crate::contract::report::{Phase, Trouble};
use crate::plugin::psql::is_ready;
use crate::plugin::reported;

/// The number of shown events.
const EVENTS: usize = 10;

/// One database.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub name: String,
    pub namespace: String,
    pub created_at: Option<Timestamp>,
    /// During deletion: its start, and the reason why it waits.
    pub deleted_at: Option<Timestamp>,
    pub deletion_waits_for: Option<String>,
    pub deletion_policy: DeletionPolicy,
    pub paused: bool,
    pub generation: Option<i64>,
    pub observed_generation: Option<i64>,
    pub database: String,
    /// The server's version, or the declared one until a server has reported its own.
    pub postgres_version: String,
    pub primary: Option<String>,
    pub endpoints: Option<Endpoints>,
    pub declared_instances: i32,
    pub schema_version: Option<String>,
    pub conditions: Vec<Condition>,
    pub instances: Vec<Instance>,
    pub volumes: Vec<Volume>,
    pub credentials: Option<CredentialsStatus>,
    pub clients: Vec<Client>,
    pub pooler: Option<PoolerStatus>,
    pub gateway: Option<GatewayStatus>,
    pub backup: Option<BackupStatus>,
    /// The last requested restore in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<InPlaceRestore>,
    /// What `spec.bootstrap.restore` restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
    pub migrations: Option<MigrationsStatus>,
    pub rollout: Option<PendingRollout>,
    pub upgrade: Option<Box<UpgradeStatus>>,
    pub switchover: Option<RequestStatus>,
    pub restart: Option<RequestStatus>,
    /// Where spec declares the migrations to be, for people.
    pub migrations_source: Option<String>,
    /// The newest last.
    pub events: Vec<Event>,
    /// Parts that could not be read, each with its cause.
    pub not_read: Vec<String>,
}

/// One database pod.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub pod: String,
    /// From Patroni's label.
    pub role: Option<String>,
    pub ready: bool,
    /// The pod's phase, or why it is not running.
    pub status: String,
    pub node: Option<String>,
    pub created_at: Option<Timestamp>,
    pub restarts: i32,
    /// The agent's report, if it is from this pod's agent.
    pub agent: Option<Agent>,
}

/// The agent's report of its instance.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    pub phase: Phase,
    pub timeline: Option<u32>,
    /// A replica's lag in bytes, rounded up to a power of two; 0 is less than 1 MiB.
    pub lag_bucket_bytes: Option<u64>,
    pub restart_pending: bool,
    pub trouble: Option<Trouble>,
}

/// One client of `spec.clients`.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    pub name: String,
    pub service_account_name: String,
    /// If it is another than the database's.
    pub service_account_namespace: Option<String>,
    pub access: String,
    /// Whether Vault makes its logins: then it has no generation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub short_lived: bool,
    /// The generation of the login that it uses; 0: there is none yet.
    pub generation: i64,
    pub rotated_at: Option<Timestamp>,
    /// Sessions on all instances, as in status; absent while nobody has counted. Clients that share a login share the number.
    pub sessions: Option<i64>,
    /// As in `status.clients[].rights`; absent for the shared login, which has the rights of the application.
    pub rights: Option<String>,
    pub message: Option<String>,
}

/// One volume claim.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub claim: String,
    pub requested: Option<String>,
    pub capacity: Option<String>,
    pub storage_class_name: Option<String>,
    pub phase: String,
}

/// One event.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub last_seen: Option<Timestamp>,
    #[serde(rename = "type")]
    pub kind: String,
    pub reason: String,
    /// The object, as `pod/chat-db-0`.
    pub object: String,
    pub message: String,
    pub count: i32,
}

impl Overview {
    /// The data of the resource itself; the rest is empty.
    pub fn new(resource: ServiceDatabase) -> Self {
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let spec = resource.spec;
        let status = resource.status.unwrap_or_default();
        let default_database = Names::new(&namespace, &name).default_database();
        let clients = spec.clients.iter().map(|client| of_client(client, &namespace, &status)).collect();
        Self {
            created_at: timestamp(resource.metadata.creation_timestamp),
            deleted_at: timestamp(resource.metadata.deletion_timestamp),
            deletion_waits_for: status.deletion_waits_for,
            deletion_policy: spec.deletion_policy,
            paused: spec.paused,
            generation: resource.metadata.generation,
            // -1 is the default of the CRD: no status was written.
            observed_generation: status.observed_generation.filter(|generation| *generation >= 0),
            database: status.database.or(spec.database).unwrap_or(default_database),
            postgres_version: status.postgres_version.or(spec.postgres.version).unwrap_or_default(),
            primary: status.primary,
            endpoints: status.endpoints,
            declared_instances: spec.instances,
            schema_version: status.schema_version,
            conditions: status.conditions,
            instances: Vec::new(),
            volumes: Vec::new(),
            credentials: status.credentials,
            clients,
            migrations: status.migrations,
            pooler: status.pooler,
            gateway: status.gateway,
            backup: status.backup,
            restore: status.restore,
            restored: status.restored,
            rollout: status.rollout,
            upgrade: status.upgrade,
            switchover: status.switchover,
            restart: status.restart,
            migrations_source: spec.migrations.map(|migrations| source(&migrations.source)),
            events: Vec::new(),
            not_read: Vec::new(),
            name,
            namespace,
        }
    }

    /// Adds the database pods, in the order of their ordinals.
    pub fn with_pods(mut self, pods: &[core::Pod]) -> Self {
        self.instances = pods.iter().map(instance).collect();
        self.instances.sort_by_key(|instance| (instance.pod.len(), instance.pod.clone()));
        self
    }

    /// Adds the volume claims.
    pub fn with_volumes(mut self, claims: &[core::PersistentVolumeClaim]) -> Self {
        self.volumes = claims.iter().map(volume).collect();
        self.volumes.sort_by_key(|volume| (volume.claim.len(), volume.claim.clone()));
        self
    }

    /// Adds the newest events.
    pub fn with_events(mut self, events: Vec<core::Event>) -> Self {
        self.events = events.into_iter().map(event).collect();
        self.events.sort_by_key(|event| event.last_seen);
        self.events.drain(..self.events.len().saturating_sub(EVENTS));
        self
    }
}

fn of_client(spec: &ClientSpec, own: &str, status: &ServiceDatabaseStatus) -> Client {
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let spec = spec.normalized(own);
    let (name, account, namespace) = (spec.name().to_owned(), spec.account_name(), spec.account_namespace());
    let short_lived = spec.dynamic().is_some();
    let client = |access: &str| Client {
        short_lived,
        name,
        service_account_name: account.to_owned(),
        service_account_namespace: namespace.map(str::to_owned),
        access: access.to_owned(),
        generation: 0,
        rotated_at: None,
        sessions: None,
        rights: None,
        message: None,
    };
    let Some(access) = spec.own() else {
        let shared = status.credentials.as_ref();
        return Client {
            generation: shared.map_or(0, |shared| shared.generation),
            rotated_at: shared.and_then(|shared| time(&shared.rotated_at)),
            sessions: shared.and_then(|shared| shared.sessions),
            ..client(AccessMode::Shared.as_str())
        };
    };
    let client = client(access.mode.as_str());
    let is_this = |found: &&ClientStatus| {
        found.name == client.name
            && found.service_account_name == account
            && found.service_account_namespace.as_deref() == namespace
    };
    match status.clients.iter().find(is_this) {
        Some(found) => Client {
            generation: found.generation,
            rotated_at: time(&found.rotated_at),
            sessions: found.sessions,
            rights: Some(found.rights.clone()),
            message: found.message.clone(),
            ..client
        },
        None => client,
    }
}

fn instance(pod: &core::Pod) -> Instance {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    Instance {
        pod: pod.name_any(),
        role: pod.labels().get(LABEL_ROLE).cloned(),
        ready: is_ready(pod),
        status: pod_status(pod, containers),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        created_at: timestamp(pod.metadata.creation_timestamp.clone()),
        restarts: containers.iter().map(|container| container.restart_count).sum(),
        agent: agent(pod),
    }
}

/// The phase, or a more specific reason, like kubectl's STATUS column.
fn pod_status(pod: &core::Pod, containers: &[core::ContainerStatus]) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let state = |container: &core::ContainerStatus| {
        let state = container.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        waiting.or_else(|| state.terminated.as_ref().and_then(|terminated| terminated.reason.clone()))
    };
    if let Some(word) = containers.iter().find_map(state) {
        return word;
    }
    let Some(status) = &pod.status else { return "Unknown".to_owned() };
    let unscheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    match unscheduled.filter(|condition| condition.status == "False").and_then(|condition| condition.reason.clone()) {
        Some(reason) => reason,
        None => status.phase.clone().unwrap_or_else(|| "Unknown".to_owned()),
    }
}

fn agent(pod: &core::Pod) -> Option<Agent> {
    reported::of_pod(pod).map(|report| Agent {
        phase: report.phase,
        timeline: report.timeline,
        lag_bucket_bytes: report.lag_bucket_bytes,
        restart_pending: report.restart_pending,
        trouble: report.trouble,
    })
}

fn volume(claim: &core::PersistentVolumeClaim) -> Volume {
    let storage = |quantities: Option<&std::collections::BTreeMap<String, _>>| {
        quantities.and_then(|quantities| quantities.get("storage")).map(quantity)
    };
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    Volume {
        claim: claim.name_any(),
        requested: storage(spec.resources.and_then(|resources| resources.requests).as_ref()),
        capacity: storage(status.capacity.as_ref()),
        storage_class_name: spec.storage_class_name,
        phase: status.phase.unwrap_or_else(|| "Unknown".to_owned()),
    }
}

fn quantity(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> String {
    quantity.0.clone()
}

/// An event; a field that one API's recorders omit is taken from the other API's field.
fn event(event: core::Event) -> Event {
    let (kind, name) = (event.involved_object.kind, event.involved_object.name);
    let series = event.series.unwrap_or_default();
    let last_seen = series.last_observed_time.map(|time| time.0);
    let last_seen = last_seen.or(event.last_timestamp.map(|time| time.0)).or(event.event_time.map(|time| time.0));
    Event {
        last_seen: last_seen.or(timestamp(event.first_timestamp)).or(timestamp(event.metadata.creation_timestamp)),
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        object: format!("{}/{}", kind.unwrap_or_default().to_lowercase(), name.unwrap_or_default()),
        message: event.message.unwrap_or_default(),
        count: series.count.or(event.count).unwrap_or(1),
    }
}

fn timestamp(time: Option<Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

/// Where the migrations are, for people.
fn source(source: &MigrationSource) -> String {
    let names: Vec<_> = source.references().map(|reference| reference.name.as_str()).collect();
    match (&names[..], &source.image) {
        ([one], _) => format!("the ConfigMap {one}"),
        ([_, ..], _) => format!("the ConfigMaps {}", names.join(", ")),
        ([], Some(image)) => format!("the image {}", image.reference),
        ([], None) => "the team's own tool".to_owned(),
    }
}
