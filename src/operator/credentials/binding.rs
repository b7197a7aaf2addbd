//! The Secret with the credentials, for services that cannot read Vault: opt-in, in the format of a
//! Provisioned Service of servicebinding.io. It is a copy of the runtime record.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::contract::records::Runtime;
use crate::operator::apply::delete;
use crate::operator::apply::object::{Ownership, Planned};
use crate::operator::apply::secrets::{self, Content, Wanted};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::validate::Database;

/// The type that the specification requires.
const TYPE: &str = "servicebinding.io/postgresql";
const ANNOTATION_GENERATION: &str = "servicedb.dev/credential-generation";
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

/// Copies Vault's runtime record to the Secret that the spec names, once the record has the proved
/// generation; returns whether the Secret is up to date.
///
/// # Errors
/// [`Error::ObjectConflict`] if it belongs to another owner; otherwise any error of Vault or the API server.
pub async fn ensure(context: &Context, database: &Database, name: &str, proved: i64) -> Result<bool, Error> {
    let (client, owner) = (&context.client, &database.owner);
    let live = secrets::read(client, owner, name, &Ownership::Controlled).await?;
    let Some(record) = context.vault.read_kv(&database.vault.runtime()).await? else { return Ok(false) };
    let generation = Runtime::generation_of(&record.data)?;
    if generation < proved {
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
    let annotations = [(ANNOTATION_GENERATION, generation.to_string())];
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

/// Whether a Secret has all of this content.
fn holds(secret: &Secret, content: &Content) -> bool {
    let text = |key: &str| secrets::text(secret, key);
    let same =
        |key: &str, value: &SecretString| text(key).is_some_and(|held| held.expose_secret() == value.expose_secret());
    let is_left = |(key, _): &(&str, &str)| !content.contains_key(key) && text(key).is_some();
    content.iter().all(|(key, value)| same(key, value)) && !POOLER_KEYS.iter().any(is_left)
}

/// Removes the Secret that an earlier spec named, if it belongs to the resource.
///
/// # Errors
/// Any error of the API server.
pub async fn remove(context: &Context, database: &Database, name: &str) -> Result<(), Error> {
    let named = Planned::new::<Secret>(&database.owner, name.to_owned(), json!({}));
    delete(&context.client, &database.owner, &named).await.map(drop)
}
