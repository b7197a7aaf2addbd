//! The Secrets with the secret_ids, and their renewal.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Client, ResourceExt};

use super::store::{self, Content};
use crate::contract::pod;
use crate::operator::error::Error;
use crate::operator::object::{Owner, Ownership};
use crate::vault::Vault;

/// How long a secret_id lives: it survives an operator that is away for two days.
pub const SECRET_ID_LIFETIME: Duration = Duration::from_secs(72 * 3600);
/// When a new one is made. The old one is good until the next.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(24);
const ANNOTATION_ACCESSOR: &str = "servicedb.dev/secret-id-accessor";
const ANNOTATION_PREVIOUS: &str = "servicedb.dev/secret-id-previous-accessor";
const ANNOTATION_MADE_AT: &str = "servicedb.dev/secret-id-made-at";
const ANNOTATION_ROLE_ID: &str = "servicedb.dev/role-id";

/// Sees to it that the Secret `name` holds a secret_id of `role` that is alive and young
/// enough, and that Vault has no other but the one before it, which a pod may still have.
///
/// `role_id` is the AppRole's: if the role was made anew behind our back, its secret_ids died
/// with it, and the Secret's is replaced.
///
/// # Errors
/// If Vault or the API server refuses, or the Secret is somebody else's.
pub async fn ensure(
    client: &Client,
    vault: &dyn Vault,
    owner: &Owner,
    name: &str,
    role: &str,
    role_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let live = store::read(client, owner, name, &Ownership::Controlled).await?;
    let alive = vault.list_secret_id_accessors(role).await?;
    let annotation = |key: &str| live.as_ref()?.annotations().get(key).filter(|value| !value.is_empty());
    let current = annotation(ANNOTATION_ACCESSOR).filter(|accessor| alive.contains(accessor));
    let previous = annotation(ANNOTATION_PREVIOUS);
    // Made for a Secret that was never written, since the operator died between the two.
    for stray in alive.iter().filter(|accessor| ![current, previous].contains(&Some(*accessor))) {
        vault.destroy_secret_id(role, stray).await?;
        tracing::info!(role, accessor = stray, "destroyed a secret_id that no pod was given");
    }
    let made_at = annotation(ANNOTATION_MADE_AT).and_then(|text| text.parse::<Timestamp>().ok());
    let young = made_at.is_some_and(|made_at| now.duration_since(made_at) < RENEW_AFTER);
    let held = live.as_ref().is_some_and(|secret| store::text(secret, pod::SECRET_ID).is_some());
    if young && held && current.is_some() && annotation(ANNOTATION_ROLE_ID).is_some_and(|known| known == role_id) {
        return Ok(());
    }
    // Vault's audit log shows the metadata: nothing in it is secret.
    let metadata = BTreeMap::from([("uid".to_owned(), owner.uid.clone())]);
    let made = vault.generate_secret_id(role, &metadata).await?;
    let content = Content::from([(pod::SECRET_ID, made.secret_id)]);
    let annotations = [
        (ANNOTATION_ACCESSOR, made.accessor),
        (ANNOTATION_PREVIOUS, current.cloned().unwrap_or_default()),
        (ANNOTATION_MADE_AT, now.to_string()),
        (ANNOTATION_ROLE_ID, role_id.to_owned()),
    ];
    store::write(client, owner, name, &Ownership::Controlled, &content, &annotations, live.as_ref()).await
}
