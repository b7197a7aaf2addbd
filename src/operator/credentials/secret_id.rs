//! The Secrets with the secret_ids, and their renewal.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Client, ResourceExt};

use crate::contract::pod;
use crate::operator::apply::object::{Owner, Ownership};
use crate::operator::apply::secrets::{self, Content, OPAQUE, Wanted};
use crate::operator::context::error::Error;
use crate::vault::Vault;

/// The lifetime of a secret_id: two days longer than the renewal interval, for a stopped operator.
pub const SECRET_ID_LIFETIME: Duration = Duration::from_secs(72 * 3600);
/// The age at which a new one is created.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// How long after that a migration Job may still read the previous one: the kubelet mounts its
/// cached version of a Secret, and the Job logs in as it starts.
const JOBS_HAVE_IT_AFTER: SignedDuration = SignedDuration::from_hours(1);
const ANNOTATION_ACCESSOR: &str = "servicedb.dev/secret-id-accessor";
const ANNOTATION_PREVIOUS: &str = "servicedb.dev/secret-id-previous-accessor";
const ANNOTATION_MADE_AT: &str = "servicedb.dev/secret-id-made-at";
const ANNOTATION_ROLE_ID: &str = "servicedb.dev/role-id";

/// An AppRole whose secret_id is in a Secret.
pub struct Role<'a> {
    /// The Secret.
    pub secret: String,
    /// The AppRole's name.
    pub name: String,
    /// The AppRole's id: if another client recreated the role, its secret_ids were deleted with it,
    /// and the Secret's is replaced.
    pub id: &'a str,
    /// The users of the Secret.
    pub users: Users,
}

/// The users of a Secret with a secret_id.
pub enum Users {
    /// Long-running pods, with the accessor that each reported of its mounted secret_id.
    Pods(Vec<Option<String>>),
    /// Jobs, which read it as they start.
    Jobs,
}

impl Users {
    /// Whether the previous one is no longer in use.
    fn all_have(&self, current: &str, age: Option<SignedDuration>) -> bool {
        match self {
            Self::Pods(reported) => {
                !reported.is_empty() && reported.iter().all(|accessor| accessor.as_deref() == Some(current))
            }
            Self::Jobs => age.is_some_and(|age| age >= JOBS_HAVE_IT_AFTER),
        }
    }
}

/// Ensures that a role's Secret has a valid secret_id below its maximum age, and that Vault has no
/// other except the previous one, for as long as a pod may use that. Returns when it expires.
///
/// # Errors
/// If Vault or the API server refuses, or the Secret belongs to another owner.
pub async fn ensure(
    client: &Client,
    vault: &dyn Vault,
    owner: &Owner,
    role: &Role<'_>,
    now: Timestamp,
) -> Result<Timestamp, Error> {
    let live = secrets::read(client, owner, &role.secret, &Ownership::Controlled).await?;
    let alive = vault.list_secret_id_accessors(&role.name).await?;
    let annotation = |key: &str| live.as_ref()?.annotations().get(key).filter(|value| !value.is_empty());
    let current = annotation(ANNOTATION_ACCESSOR).filter(|accessor| alive.contains(accessor));
    let made_at = annotation(ANNOTATION_MADE_AT).and_then(|text| text.parse::<Timestamp>().ok());
    let age = made_at.map(|made_at| now.duration_since(made_at));
    let previous =
        annotation(ANNOTATION_PREVIOUS).filter(|_| current.is_none_or(|current| !role.users.all_have(current, age)));
    // Others were replaced and are unused, or were created for a Secret that was never written,
    // because the operator was killed in between.
    for stray in alive.iter().filter(|accessor| ![current, previous].contains(&Some(*accessor))) {
        vault.destroy_secret_id(&role.name, stray).await?;
        tracing::info!(role = role.name, accessor = stray, "destroyed a secret_id that no pod uses");
    }
    let young = age.is_some_and(|age| age < RENEW_AFTER);
    let held = live.as_ref().is_some_and(|secret| secrets::text(secret, pod::SECRET_ID).is_some());
    if young && held && current.is_some() && annotation(ANNOTATION_ROLE_ID).is_some_and(|known| known == role.id) {
        return Ok(made_at.unwrap_or(now) + SECRET_ID_LIFETIME);
    }
    // The metadata appears in Vault's audit log, so it contains no secret.
    let metadata = BTreeMap::from([("uid".to_owned(), owner.uid.clone())]);
    let made = vault.generate_secret_id(&role.name, &metadata).await?;
    let content =
        Content::from([(pod::SECRET_ID, made.secret_id), (pod::SECRET_ID_ACCESSOR, made.accessor.clone().into())]);
    let annotations = [
        (ANNOTATION_ACCESSOR, made.accessor),
        (ANNOTATION_PREVIOUS, current.cloned().unwrap_or_default()),
        (ANNOTATION_MADE_AT, now.to_string()),
        (ANNOTATION_ROLE_ID, role.id.to_owned()),
    ];
    let wanted = Wanted {
        name: &role.secret,
        ownership: &Ownership::Controlled,
        kind: OPAQUE,
        content: &content,
        annotations: &annotations,
        exact: false,
    };
    secrets::write(client, owner, &wanted, live.as_ref()).await?;
    Ok(now + SECRET_ID_LIFETIME)
}
