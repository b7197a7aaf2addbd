//! The certificates of the pods in front of a database, the pooler and the gateway: for their clients, and for their
//! login to PostgreSQL. The database's authority signs both; each of the two has a Secret of its own, since its pods need
//! no other.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::certificates::{self, LEAF_LIFETIME, Pair, Subject};
use super::served::AUTHORITY;
use crate::api::names::{Names, PostgresNames};
use crate::operator::apply::delete;
use crate::operator::apply::object::{Owner, Ownership, Planned};
use crate::operator::apply::secrets::{self, Content, OPAQUE, Wanted};
use crate::operator::context::Context;
use crate::operator::context::cache::Front;
use crate::operator::context::error::Error;

/// Certificates are renewed when less than this is left.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_secs(LEAF_LIFETIME.as_secs() / 3);

impl Front {
    fn secret(self, names: &Names) -> String {
        match self {
            Self::Pooler => names.pooler_tls_secret(),
            Self::Gateway => names.gateway_tls_secret(),
        }
    }

    /// The keys of the Secret: certificate and key of each.
    fn leaves(self) -> [(&'static str, &'static str, Subject); 2] {
        match self {
            Self::Pooler => [
                ("server.crt", "server.key", Subject::Pooler),
                ("pooler.crt", "pooler.key", Subject::Client(PostgresNames::POOLER)),
            ],
            Self::Gateway => [
                ("server.crt", "server.key", Subject::Gateway),
                ("gateway.crt", "gateway.key", Subject::Client(PostgresNames::GATEWAY)),
            ],
        }
    }
}

/// Maintains the Secret. `changed` is whether the authority was looked at in this reconcile: it may have changed.
///
/// # Errors
/// If a Secret belongs to another owner, or the API server refuses.
pub async fn ensure(
    context: &Context,
    owner: &Owner,
    front: Front,
    changed: bool,
    now: Timestamp,
) -> Result<(), Error> {
    let (client, uid) = (&context.client, &owner.uid);
    if !changed && context.cache.front_certificates_recorded(uid, front) {
        return Ok(());
    }
    let names = &owner.names;
    let (ca_secret, tls_secret, own) = (names.ca_secret(), names.tls_secret(), front.secret(names));
    let (authority, served, live) = tokio::try_join!(
        secrets::read(client, owner, &ca_secret, &AUTHORITY),
        secrets::read(client, owner, &tls_secret, &Ownership::Controlled),
        secrets::read(client, owner, &own, &Ownership::Controlled),
    )?;
    let text = |secret: &Option<Secret>, key: &str| secrets::text(secret.as_ref()?, key);
    let signer = || {
        let certificate = text(&authority, "ca.crt")?.expose_secret().to_owned();
        Some(Pair { certificate, key: text(&authority, "ca.key")? }).filter(certificates::belong_together)
    };
    // While the authority is lost, the present certificates serve on.
    let (Some(signer), Some(trusted)) = (signer(), text(&served, "ca.crt")) else { return Ok(()) };
    if !live.as_ref().is_some_and(|live| is_valid(live, (names, front), &signer, &trusted, now)) {
        let mut content = Content::from([("ca.crt", trusted)]);
        for (certificate, key, subject) in &front.leaves() {
            let pair = certificates::leaf(names, subject, &signer, now)?;
            content.insert(certificate, pair.certificate.into());
            content.insert(key, pair.key);
        }
        let wanted = Wanted {
            name: &own,
            ownership: &Ownership::Controlled,
            kind: OPAQUE,
            content: &content,
            annotations: &[],
            exact: false,
        };
        secrets::write(client, owner, &wanted, live.as_ref()).await?;
    }
    context.cache.record_front_certificates(uid, front);
    Ok(())
}

fn is_valid(
    live: &Secret,
    (names, front): (&Names, Front),
    signer: &Pair,
    trusted: &SecretString,
    now: Timestamp,
) -> bool {
    let trusts = secrets::text(live, "ca.crt").is_some_and(|held| held.expose_secret() == trusted.expose_secret());
    let leaf = |certificate: &str, key: &str, subject: &Subject| {
        let certificate = secrets::text(live, certificate)?.expose_secret().to_owned();
        let pair = Pair { certificate, key: secrets::text(live, key)? };
        let lasts = certificates::not_after(&pair.certificate)?.duration_since(now) > RENEWED_BEFORE;
        let signed = certificates::is_signed_by(&pair.certificate, &signer.certificate);
        let fits = certificates::is_of(names, subject, &pair.certificate);
        Some(lasts && signed && fits && certificates::belong_together(&pair))
    };
    trusts && front.leaves().iter().all(|(certificate, key, subject)| leaf(certificate, key, subject).unwrap_or(false))
}

/// Maintains those that exist of a database that is not changed otherwise: their certificates expire all the same.
///
/// # Errors
/// As of [`ensure`].
pub async fn keep(context: &Context, owner: &Owner, now: Timestamp) -> Result<(), Error> {
    for front in [Front::Pooler, Front::Gateway] {
        let own = front.secret(&owner.names);
        if secrets::read(&context.client, owner, &own, &Ownership::Controlled).await?.is_some() {
            ensure(context, owner, front, true, now).await?;
        }
    }
    Ok(())
}

/// Removes the Secret.
///
/// # Errors
/// Any error of the API server.
pub async fn remove(context: &Context, owner: &Owner, front: Front) -> Result<(), Error> {
    let named = Planned::new::<Secret>(owner, front.secret(&owner.names), json!({}));
    context.cache.invalidate_front_certificates(&owner.uid, front);
    delete(&context.client, owner, &named).await.map(drop)
}
