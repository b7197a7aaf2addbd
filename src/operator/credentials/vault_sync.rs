//! What one reconcile does in Vault, as a whole: whether Vault is there, the objects, the
//! credentials, the secret_ids.

use std::time::Duration;

use super::role_ids::RoleIds;
use super::secret_id::{self, Role, Users};
use super::vault_objects;
use crate::operator::apply::object::Owner;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::credentials::{self, Settled};
use crate::operator::observe::Observation;
use crate::operator::validate::Database;
use crate::vault::VaultError;

/// When an agent says that Vault refuses it, what was seen in Vault this long ago is looked at
/// again: sooner would be once with every try of every agent.
const AGENT_IS_HEARD_AFTER: Duration = Duration::from_secs(30);

/// What Vault gave.
pub struct Prepared {
    /// The role_ids.
    pub role_ids: RoleIds,
    /// The credentials.
    pub credentials: Settled,
}

/// Sees to it that Vault has what the database needs. `unseen` says that what no watch tells
/// of is to be looked at again.
///
/// # Errors
/// Whatever Vault or the API server said.
pub async fn bring_about(
    context: &Context,
    database: &Database,
    observed: &Observation,
    unseen: bool,
) -> Result<Prepared, Error> {
    if observed.vault_refuses_an_agent() {
        context.cache.invalidate_vault_objects_older_than(&database.owner.uid, AGENT_IS_HEARD_AFTER);
    }
    // One asks for all: while Vault is away a fleet does not knock at it.
    match context.cache.vault_answer() {
        Some(word) => word?,
        None => {
            let word = context.vault.health().await;
            context.cache.record_vault_answer(word.clone());
            word?;
        }
    }
    let _names_are_in_use = context.vault_names.read().await;
    let role_ids = vault_objects::ensure(context, database).await?;
    let credentials = credentials::settle(context, database, observed, unseen).await?;
    if unseen {
        ensure_secret_ids(context, &database.owner, &role_ids, observed).await?;
    }
    Ok(Prepared { role_ids, credentials })
}

/// What a database was given before, where Vault cannot be asked: it goes on without.
pub fn remembered(observed: &Observation) -> Option<Prepared> {
    Some(Prepared { role_ids: known_role_ids(observed)?, credentials: Settled::remembered(observed)? })
}

/// Keeps alive what ends by itself, of a database that is otherwise left as it is.
///
/// # Errors
/// Whatever Vault or the API server said.
pub async fn keep_alive(context: &Context, owner: &Owner, observed: &Observation) -> Result<(), Error> {
    let Some(role_ids) = known_role_ids(observed) else { return Ok(()) };
    ensure_secret_ids(context, owner, &role_ids, observed).await
}

/// Takes what a failure says of Vault into account: where Vault is away, all in it is as it
/// was; where it answers otherwise than expected, something in it is not.
pub fn doubt(context: &Context, uid: &str, error: &VaultError) {
    if !matches!(error, VaultError::Unreachable { .. } | VaultError::NotServing { .. }) {
        context.cache.invalidate_vault_objects(uid);
    }
}

fn known_role_ids(observed: &Observation) -> Option<RoleIds> {
    let (instance, migrator) = observed.role_ids.clone();
    Some(RoleIds { instance: instance?, migrator: migrator? })
}

async fn ensure_secret_ids(
    context: &Context,
    owner: &Owner,
    role_ids: &RoleIds,
    observed: &Observation,
) -> Result<(), Error> {
    let vault_names = owner.names.vault(&context.options.cluster_id);
    let reported = |pod: &crate::operator::observe::pods::DatabasePod| pod.report.as_ref()?.secret_id_accessor.clone();
    let instance = Role {
        secret: owner.names.instance_approle(),
        name: vault_names.instance(),
        id: &role_ids.instance,
        users: Users::Pods(observed.pods.iter().map(reported).collect()),
    };
    let migrator = Role {
        secret: owner.names.migrator(),
        name: vault_names.migrator(),
        id: &role_ids.migrator,
        users: Users::Jobs,
    };
    let ensure = |role| async move {
        secret_id::ensure(&context.client, context.vault.as_ref(), owner, &role, context.now()).await
    };
    // Both to their end: a secret_id whose Secret is not written any more, because the other
    // failed, would be one more in Vault with each try.
    let (for_instance, for_migrator) = tokio::join!(ensure(instance), ensure(migrator));
    for_instance.and(for_migrator)
}
