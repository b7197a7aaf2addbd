//! Reading and writing one Secret.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::object::{Owner, Ownership, Planned, conflict};
use super::ownership::{is_lasting, take_back};
use crate::api::names::FIELD_MANAGER;
use crate::operator::context::error::Error;

/// A Secret's content.
pub type Content = BTreeMap<&'static str, SecretString>;

/// A desired Secret.
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its owner.
    pub ownership: &'a Ownership,
    /// Its type, which cannot be changed.
    pub kind: &'static str,
    /// Its content.
    pub content: &'a Content,
    /// Its annotations.
    pub annotations: &'a [(&'a str, String)],
    /// Whether other content is removed.
    pub exact: bool,
}

/// The type of Secrets for Servicedb's own use.
pub const OPAQUE: &str = "Opaque";

/// Reads a Secret of this owner. If it only lost its owner reference, that is restored.
///
/// # Errors
/// [`Error::ObjectConflict`] if the Secret belongs to another owner; otherwise errors of the API server.
pub async fn read(client: &Client, owner: &Owner, name: &str, ownership: &Ownership) -> Result<Option<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &owner.names.namespace);
    let Some(secret) = api.get_opt(name).await? else { return Ok(None) };
    if owner.owns(ownership, &secret.metadata) {
        Ok(Some(secret))
    } else if *ownership == Ownership::Controlled
        && owner.is_without_owner(&secret.metadata)
        && is_lasting(client, owner).await?
    {
        take_back(&api, owner, &secret).await.map(Some)
    } else {
        Err(conflict("Secret", name, &secret.metadata))
    }
}

/// Creates a Secret, or replaces the content of `live`. Returns the stored Secret.
///
/// # Errors
/// Any error of the API server. A Secret that another client created meanwhile is a conflict, and
/// the next reconcile reads it.
pub async fn write(
    client: &Client,
    owner: &Owner,
    wanted: &Wanted<'_>,
    live: Option<&Secret>,
) -> Result<Secret, Error> {
    let Wanted { name, ownership, kind, content, annotations, exact } = *wanted;
    let api: Api<Secret> = Api::namespaced(client.clone(), &owner.names.namespace);
    let mut planned = Planned::new::<Secret>(owner, name.to_owned(), json!({"type": kind}));
    if *ownership == Ownership::Stamped {
        planned = planned.stamped(owner);
    }
    for (key, value) in annotations {
        planned.body["metadata"]["annotations"][*key] = value.clone().into();
    }
    let mut secret: Secret = serde_json::from_value(planned.body)?;
    let bytes = |value: &SecretString| ByteString(value.expose_secret().as_bytes().to_vec());
    secret.data = Some(content.iter().map(|(key, value)| ((*key).to_owned(), bytes(value))).collect());
    match live {
        None => {
            let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            Ok(api.create(&parameters, &secret).await?)
        }
        Some(live) => {
            // The write fails if the Secret was replaced or changed since it was read.
            let (uid, resource_version) = (live.uid(), live.resource_version());
            secret.metadata = ObjectMeta { uid, resource_version, ..secret.metadata };
            if exact {
                // Server-side apply keeps a key that was in the Secret when it was created.
                let mut patch = serde_json::to_value(&secret)?;
                let held = live.data.iter().flat_map(BTreeMap::keys);
                for key in held.filter(|key| !content.contains_key(key.as_str())) {
                    patch["data"][key] = Value::Null;
                }
                Ok(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?)
            } else {
                Ok(api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&secret)).await?)
            }
        }
    }
}

/// A value of a Secret as text.
pub fn text(secret: &Secret, key: &str) -> Option<SecretString> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().map(SecretString::from)
}
