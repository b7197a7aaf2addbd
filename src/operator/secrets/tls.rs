//! The Secrets with the authority's key (no pod mounts it) and with the pods' certificates.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, ResourceExt};
use secrecy::{ExposeSecret, SecretString};

use super::certificates::{self, CLIENTS, LEAF_LIFETIME, Subject};
use super::store::{self, Content, OPAQUE, Wanted};
use crate::operator::error::Error;
use crate::operator::object::{Owner, Ownership};

/// The authority outlives the resource with the data: clients that know it still trust the
/// server after an adoption.
pub const AUTHORITY: Ownership = Ownership::Stamped;
/// Annotation: until when the certificates are good.
const ANNOTATION_NOT_AFTER: &str = "servicedb.dev/not-after";
/// How long before their end certificates are made anew.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(60 * 24);

/// Sees to it that the authority and the certificates are there and not about to end.
///
/// # Errors
/// If a Secret is somebody else's or not readable, or the API server refuses.
pub async fn ensure(client: &Client, owner: &Owner, now: Timestamp) -> Result<(), Error> {
    let names = &owner.names;
    let (certificate, key) = authority(client, owner, now).await?;
    let live = store::read(client, owner, &names.tls_secret(), &Ownership::Controlled).await?;
    if live.as_ref().is_some_and(|secret| is_good(secret, &certificate, now)) {
        return Ok(());
    }
    let server = certificates::leaf(names, &Subject::Server, &certificate, key.expose_secret(), now)?;
    let mut content = Content::from([
        ("ca.crt", certificate.clone().into()),
        ("server.crt", server.certificate.into()),
        ("server.key", server.key),
    ]);
    for (name, certificate_file, key_file) in [
        (CLIENTS[0], "replicator.crt", "replicator.key"),
        (CLIENTS[1], "rewinder.crt", "rewinder.key"),
        (CLIENTS[2], "patroni.crt", "patroni.key"),
    ] {
        let pair = certificates::leaf(names, &Subject::Client(name), &certificate, key.expose_secret(), now)?;
        content.insert(certificate_file, pair.certificate.into());
        content.insert(key_file, pair.key);
    }
    let not_after = now.checked_add(LEAF_LIFETIME).unwrap_or(now).to_string();
    let annotations = [(ANNOTATION_NOT_AFTER, not_after)];
    let wanted = Wanted {
        name: &names.tls_secret(),
        ownership: &Ownership::Controlled,
        kind: OPAQUE,
        content: &content,
        annotations: &annotations,
    };
    store::write(client, owner, &wanted, live.as_ref()).await
}

async fn authority(client: &Client, owner: &Owner, now: Timestamp) -> Result<(String, SecretString), Error> {
    let name = owner.names.ca_secret();
    if let Some(secret) = store::read(client, owner, &name, &AUTHORITY).await? {
        let unreadable = |key: &str| Error::Unreadable {
            object: format!("Secret {name}"),
            problem: format!("the key {key} is missing; restore it, or delete the Secret to make a new authority"),
        };
        let certificate = store::text(&secret, "ca.crt").ok_or_else(|| unreadable("ca.crt"))?;
        let key = store::text(&secret, "ca.key").ok_or_else(|| unreadable("ca.key"))?;
        return Ok((certificate.expose_secret().to_owned(), key));
    }
    let pair = certificates::authority(&owner.names, now)?;
    let content = Content::from([("ca.crt", pair.certificate.clone().into()), ("ca.key", pair.key.clone())]);
    let wanted = Wanted { name: &name, ownership: &AUTHORITY, kind: OPAQUE, content: &content, annotations: &[] };
    store::write(client, owner, &wanted, None).await?;
    Ok((pair.certificate, pair.key))
}

fn is_good(secret: &Secret, authority: &str, now: Timestamp) -> bool {
    let not_after = secret.annotations().get(ANNOTATION_NOT_AFTER).and_then(|text| text.parse::<Timestamp>().ok());
    let renew_at = not_after.and_then(|not_after| not_after.checked_sub(RENEW_BEFORE).ok());
    let same_authority = store::text(secret, "ca.crt").is_some_and(|text| text.expose_secret() == authority);
    same_authority && renew_at.is_some_and(|renew_at| now < renew_at)
}
