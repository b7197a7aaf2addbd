//! The Secrets with credentials, for services that cannot read Vault: opt-in, in the format of a
//! Provisioned Service of servicebinding.io. Each is a copy of a record in Vault.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::api::ServiceDatabaseStatus;
use crate::contract::records::Runtime;
use crate::operator::apply::delete;
use crate::operator::apply::object::{Ownership, Planned};
use crate::operator::apply::secrets::{self, Content, Wanted};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;

/// The type that the specification requires.
const TYPE: &str = "servicebinding.io/postgresql";
const ANNOTATION_GENERATION: &str = "servicedb.dev/credential-generation";
/// The record in Vault that the Secret is a copy of.
const ANNOTATION_RECORD: &str = "servicedb.dev/vault-record";
/// In place of a record and its generation in the cache: the Secret is removed.
const GONE: (&str, i64) = ("", 0);
/// The keys of the Secret, beside `type` and `provider`, and the keys of the runtime record.
const KEYS: [(&str, &str); 7] = [
    ("host", "HOST"),
    ("port", "PORT"),
    ("username", "USER"),
    ("password", "PASSWORD"),
    ("database", "NAME"),
    ("uri", "URL"),
    // For `sslmode=verify-full`.
    ("ca.crt", "CA"),
];

/// The same, where there is a pooler.
const POOLER_KEYS: [(&str, &str); 2] = [("pooler-host", "POOLER_HOST"), ("pooler-uri", "POOLER_URL")];

/// The Secrets by name: those that are declared, or those that have the credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The one with the shared login.
    pub shared: Option<String>,
    /// Those of clients with a login of their own, by the client's name.
    pub clients: BTreeMap<String, String>,
}

impl Bound {
    /// Those that status has.
    pub fn recorded(status: &ServiceDatabaseStatus) -> Self {
        let clients = status.clients.iter().filter_map(|client| Some((client.name.clone(), client.secret.clone()?)));
        Self { shared: status.binding.as_ref().map(|binding| binding.name.clone()), clients: clients.collect() }
    }

    /// Those that the spec declares.
    pub fn declared(database: &Database) -> Self {
        let of = |client: &crate::api::ClientSpec| Some((client.name().to_owned(), client.secret.clone()?.name));
        Self { shared: database.binding_secret.clone(), clients: database.own_clients().filter_map(of).collect() }
    }

    fn names(&self) -> BTreeSet<&String> {
        self.shared.iter().chain(self.clients.values()).collect()
    }

    /// What both have.
    fn and(mut self, other: &Self) -> Self {
        self.shared = self.shared.filter(|name| Some(name) == other.shared.as_ref());
        self.clients.retain(|client, name| other.clients.get(client) == Some(name));
        self
    }
}

/// A Secret, and the record that it is a copy of.
struct Copied<'a> {
    /// None: of the shared login.
    client: Option<&'a str>,
    secret: &'a str,
    record: String,
    /// The promoted generation; 0: none yet.
    proved: i64,
}

/// The names to record before any of these Secrets is made: those that are declared, and those that may still be there.
/// Status alone would forget one whose reconcile was broken off.
pub fn to_record(context: &Context, database: &Database, observed: &Observation) -> BTreeSet<String> {
    let declared = Bound::declared(database);
    let is_gone = |name: &String| context.cache.binding_recorded(&database.owner.uid, name, GONE);
    let left = observed.secrets.iter().filter(|name| !is_gone(name));
    declared.names().into_iter().chain(left).cloned().collect()
}

/// Maintains the declared Secrets, and removes those of an earlier spec. `bound` is what status has, then what it is to
/// have: an earlier content remains valid if it cannot be checked now.
///
/// # Errors
/// The first error; the other Secrets were maintained.
pub async fn maintain(
    context: &Context,
    database: &Database,
    observed: &Observation,
    bound: &mut Bound,
) -> Result<(), Error> {
    let (wanted, uid) = (Bound::declared(database), &database.owner.uid);
    let mut first = Ok(());
    let names = wanted.names();
    for name in observed.secrets.iter().chain(bound.names()).filter(|name| !names.contains(name)) {
        if context.cache.binding_recorded(uid, name, GONE) {
            continue;
        }
        match remove(context, database, name).await {
            Ok(()) => context.cache.record_binding(uid, name, (GONE.0.to_owned(), GONE.1)),
            Err(error) => first = first.and(Err(error)),
        }
    }
    *bound = std::mem::take(bound).and(&wanted);
    let in_record = observed.desired.as_ref().is_some_and(|desired| desired.pooler.is_some());
    if in_record != database.pooler.is_some() {
        // The records are about to change.
        context.cache.invalidate_bindings(uid);
    }
    for copied in copies(database, observed, &wanted) {
        match Box::pin(bring_up_to_date(context, database, &copied)).await {
            Ok(true) => match copied.client {
                Some(client) => _ = bound.clients.insert(client.to_owned(), copied.secret.to_owned()),
                None => bound.shared = Some(copied.secret.to_owned()),
            },
            Ok(false) => {}
            Err(error) => {
                if copied.client.is_none() && matches!(error, Error::Record(_)) {
                    context.cache.record_credentials_damaged(uid, true);
                }
                first = first.and(Err(error));
            }
        }
    }
    first
}

/// The declared Secrets, where a primary tells whether their records are promoted.
fn copies<'a>(database: &'a Database, observed: &Observation, wanted: &'a Bound) -> Vec<Copied<'a>> {
    let Some(report) = observed.primary().and_then(|pod| pod.report.as_ref()) else { return Vec::new() };
    let shared = wanted.shared.as_deref().map(|secret| {
        let proved = report.credentials.as_ref().map_or(0, |credentials| credentials.generation);
        Copied { client: None, secret, record: database.vault.runtime(), proved }
    });
    let reports = report.clients.as_deref().unwrap_or_default();
    let of = |(client, secret): (&'a String, &'a String)| {
        let proved = reports.iter().find(|report| report.name == *client).map_or(0, |report| report.generation);
        Copied { client: Some(client), secret, record: database.vault.client_runtime(client), proved }
    };
    shared.into_iter().chain(wanted.clients.iter().map(of)).collect()
}

/// Brings a declared Secret up to date, unless it was recently observed so; returns whether it has the login.
async fn bring_up_to_date(context: &Context, database: &Database, copied: &Copied<'_>) -> Result<bool, Error> {
    let (uid, is_promoted) = (&database.owner.uid, copied.proved > 0);
    if context.cache.binding_recorded(uid, copied.secret, (&copied.record, copied.proved)) {
        return Ok(is_promoted);
    }
    if !is_promoted {
        leave_to(context, database, copied).await?;
    } else if !copy(context, database, copied).await? {
        return Ok(false);
    }
    context.cache.record_binding(uid, copied.secret, (copied.record.clone(), copied.proved));
    Ok(is_promoted)
}

/// Copies a record to its Secret, once the record has the promoted generation; returns whether the Secret is up to date.
///
/// # Errors
/// [`Error::ObjectConflict`] if it belongs to another owner; otherwise any error of Vault or the API server.
async fn copy(context: &Context, database: &Database, copied: &Copied<'_>) -> Result<bool, Error> {
    let (client, owner, name) = (&context.client, &database.owner, copied.secret);
    let live = secrets::read(client, owner, name, &Ownership::Controlled).await?;
    let Some(record) = context.vault.read_kv(&copied.record).await? else { return Ok(false) };
    let generation = Runtime::generation_of(&record.data)?;
    if generation < copied.proved {
        return Ok(false);
    }
    let prefix = database.names().key_prefix();
    let mut content =
        Content::from([("type", "postgresql".to_owned().into()), ("provider", "servicedb".to_owned().into())]);
    for (key, suffix) in KEYS {
        content.insert(key, Runtime::value_of(&record.data, &prefix, suffix)?);
    }
    for (key, suffix) in POOLER_KEYS {
        if let Ok(value) = Runtime::value_of(&record.data, &prefix, suffix) {
            content.insert(key, value);
        }
    }
    // The leader's agent adds the pooler to the record, or removes it, once it has read the desired state.
    let is_current = content.contains_key(POOLER_KEYS[0].0) == database.pooler.is_some();
    // The record also changes within a generation, when the authority is replaced.
    if live.as_ref().is_some_and(|secret| holds(secret, &content)) {
        return Ok(is_current);
    }
    let annotations = [(ANNOTATION_GENERATION, generation.to_string()), (ANNOTATION_RECORD, copied.record.clone())];
    let wanted = Wanted {
        name,
        ownership: &Ownership::Controlled,
        kind: TYPE,
        content: &content,
        annotations: &annotations,
        exact: false,
    };
    let written = secrets::write(client, owner, &wanted, live.as_ref()).await?;
    let is_left = |key: &&str| !content.contains_key(*key) && secrets::text(&written, key).is_some();
    let left: Vec<_> = POOLER_KEYS.map(|(key, _)| key).into_iter().filter(is_left).collect();
    if !left.is_empty() {
        // Server-side apply keeps a key that was in the Secret when it was created; others may be somebody else's.
        let api: Api<Secret> = Api::namespaced(client.clone(), &owner.names.namespace);
        let data: serde_json::Map<_, _> = left.into_iter().map(|key| (key.to_owned(), Value::Null)).collect();
        let patch = json!({"metadata": {"uid": written.uid()}, "data": data});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(is_current)
}

/// Removes a Secret with the login of another client, or the shared one: its name has moved to a client that has no
/// login yet.
async fn leave_to(context: &Context, database: &Database, copied: &Copied<'_>) -> Result<(), Error> {
    let live = secrets::read(&context.client, &database.owner, copied.secret, &Ownership::Controlled).await?;
    let is_other = |live: &Secret| live.annotations().get(ANNOTATION_RECORD).is_some_and(|of| *of != copied.record);
    if live.as_ref().is_some_and(is_other) {
        remove(context, database, copied.secret).await?;
    }
    Ok(())
}

/// Removes a Secret, if it belongs to the resource.
async fn remove(context: &Context, database: &Database, name: &str) -> Result<(), Error> {
    let named = Planned::new::<Secret>(&database.owner, name.to_owned(), json!({}));
    delete(&context.client, &database.owner, &named).await.map(drop)
}

/// Whether a Secret has all of this content.
fn holds(secret: &Secret, content: &Content) -> bool {
    let text = |key: &str| secrets::text(secret, key);
    let same =
        |key: &str, value: &SecretString| text(key).is_some_and(|held| held.expose_secret() == value.expose_secret());
    let is_left = |(key, _): &(&str, &str)| !content.contains_key(key) && text(key).is_some();
    content.iter().all(|(key, value)| same(key, value)) && !POOLER_KEYS.iter().any(is_left)
}
