//! The certificates of one database: the request, and whether they are checked now.

use jiff::Timestamp;

use super::authority;
use super::served::{self, Certified, Readable};
use crate::api::ServiceDatabase;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;

/// The last request for a new authority that status reports as done.
pub fn answered(resource: &ServiceDatabase) -> Option<String> {
    resource.status.as_ref()?.certificates.as_ref()?.renew_request.clone()
}

/// Maintains the authority and the certificates; returns their state, if they were checked, and the
/// authorities for clients, PEM. They are checked until status reports them.
///
/// # Errors
/// Any error of the API server or Vault.
pub async fn certify(
    context: &Context,
    resource: &ServiceDatabase,
    database: &Database,
    observed: &Observation,
    now: Timestamp,
) -> Result<(Option<Certified>, String), Error> {
    let uid = &database.owner.uid;
    let known = resource.status.as_ref().and_then(|status| status.certificates.as_ref());
    let reported = known.is_some_and(|known| known.not_after.is_some());
    let answered = answered(resource);
    let request = database.new_authority.clone().filter(|request| Some(&request.token) != answered.as_ref());
    let under_way = known.and_then(|known| known.change.as_ref()?.request.as_ref());
    let known_to_status = request.as_ref().is_none_or(|request| under_way == Some(&request.token));
    if let Some(authorities) = context.cache.certificates(uid, now).filter(|_| reported && known_to_status) {
        return Ok((None, authorities));
    }
    let asked = served::Asked {
        request,
        answered,
        overlap: authority::overlap(database.rotation_period.and_then(|period| period.try_into().ok())),
        paused: false,
        pods: &observed.pods,
        recorded: observed.authorities(uid),
        records: records(database),
    };
    let certified = served::ensure(context, &database.owner, &asked).await?;
    let authorities = certified.authorities.to_pem();
    if certified.waits {
        context.cache.invalidate_certificates(uid);
    } else {
        context.cache.record_certificates(uid, authorities.clone(), certified.due);
    }
    if certified.is_publishing() {
        // They are copies of records that are about to get another authority, too.
        context.cache.invalidate_bindings(uid);
    }
    Ok((Some(certified), authorities))
}

/// The records that clients read: the shared one, and those of clients with a login of their own.
fn records(database: &Database) -> Vec<Readable> {
    let shared =
        Readable { path: database.vault.runtime(), secret: database.binding_secret.clone(), may_be_missing: false };
    let with_record = database.own_clients().filter(|client| client.dynamic().is_none());
    let own = with_record.map(|client| Readable {
        path: database.vault.client_runtime(client.name()),
        secret: client.secret.as_ref().map(|secret| secret.name.clone()),
        may_be_missing: true,
    });
    std::iter::once(shared).chain(own).collect()
}
