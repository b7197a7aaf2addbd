//! A database that is not changed: one that is paused, whose spec is invalid, or that waits for a decision.

use super::apply::object::Owner;
use super::context::Context;
use super::context::error::Error;
use super::credentials::vault_sync;
use super::instances::{Members, lost};
use super::observe::Observation;
use super::status::Findings;
use super::status::condition::ConditionState;
use super::tls::authority;
use super::tls::certify;
use super::tls::front;
use super::tls::served;
use super::validate::Database;
use crate::api::conditions::reason;
use crate::contract::desired::Desired;

/// The message of a paused resource, with the reason why pods must not be deleted meanwhile.
pub fn paused(database: &Database, observed: &Observation) -> String {
    let message = "spec.paused is true: set it to false to continue";
    match Members::new(observed, database.names(), database.instances).notice() {
        Some(notice) => format!("{message}; {notice}"),
        None => message.to_owned(),
    }
}

/// Data of an earlier resource of this name is adopted only on request.
pub fn retained(database: &Database, observed: &Observation) -> Option<ConditionState> {
    let claims = observed.retained_claims(&database.owner.uid);
    if claims.is_empty() {
        // Instances that a restore or an upgrade has stopped are started before their data counts as lost: nothing could be
        // done with a copy that stands still.
        if observed.own_desired(&database.owner.uid).is_some_and(Desired::stops_instances) {
            return None;
        }
        return lost::lost(observed, database.names(), database.instances);
    }
    let set = observed.stateful_set.as_ref().filter(|set| database.owner.is_without_owner(&set.metadata));
    let (runs, set) = match set {
        Some(_) => (", whose pods are running", format!("the StatefulSet {} and ", database.names().base())),
        None => ("", String::new()),
    };
    let message = format!(
        "the volume claims {} contain the data of an earlier ServiceDatabase {}{runs}: set spec.bootstrap.adopt to \
         true to use it, or delete {set}them to start empty",
        claims.join(", "),
        database.names().name,
    );
    Some(ConditionState::yes(reason::RETAINED_DATA_FOUND, message))
}

/// Renews certificates and secret_ids of a database that is not changed otherwise: they expire, and
/// after that an instance could not log in to Vault.
pub async fn keep_alive(context: &Context, owner: &Owner, observed: &Observation, findings: &mut Findings<'_>) {
    let runs = observed.stateful_set.is_some() || !observed.pods.is_empty();
    // The pods of an earlier resource have its certificates until they are adopted.
    if !runs || observed.foreign_config || context.cache.secrets_recorded(&owner.uid) {
        return;
    }
    let asked = served::Asked {
        request: None,
        answered: certify::answered(findings.resource),
        overlap: authority::overlap(None),
        paused: true,
        pods: &observed.pods,
        recorded: observed.authorities(&owner.uid),
        records: Vec::new(),
    };
    let (certified, alive) =
        tokio::join!(served::ensure(context, owner, &asked), vault_sync::keep_alive(context, owner, observed),);
    if let Err(Error::Vault(error)) = &alive {
        vault_sync::handle_failure(context, &owner.uid, error);
        findings.vault = Some(ConditionState::no(error.reason(), error.to_string()));
    }
    if let Ok(certified) = &certified {
        served::prompt(context, owner, &observed.pods, &certified.fingerprint).await;
    }
    // Signed by the authority that was just looked at.
    let kept = if certified.is_ok() { front::keep(context, owner, findings.now).await } else { Ok(()) };
    match certified.map(|certified| findings.certificates = Some(certified)).and(alive).and(kept) {
        Ok(()) => {
            context.cache.record_secrets(&owner.uid);
            // After the pause, a change of the authority continues from a new check.
            context.cache.invalidate_certificates(&owner.uid);
        }
        Err(error) if error.is_of_terminating_namespace() => tracing::debug!(%error, "the namespace is being deleted"),
        Err(error) => {
            tracing::warn!(%error, "certificates and secret_ids cannot be renewed; retrying");
        }
    }
}
