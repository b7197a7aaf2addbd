//! The steps of one reconcile in Vault: its availability, the objects, the credentials, the
//! secret_ids.

use std::time::Duration;

use super::role_ids::RoleIds;
use super::secret_id::{self, Role, Users};
use super::vault_objects;
use crate::operator::apply::object::Owner;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::credentials::{self, DesiredCredentials};
use crate::operator::observe::Observation;
use crate::operator::validate::Database;
use crate::vault::VaultError;

/// When an agent reports that Vault refuses it, observations of Vault older than this are repeated.
/// A shorter time would repeat them with every attempt of every agent.
const AGENT_IS_HEARD_AFTER: Duration = Duration::from_secs(30);

/// The result of Vault's step.
pub struct Prepared {
    /// The role_ids.
    pub role_ids: RoleIds,
    /// The credentials.
    pub credentials: DesiredCredentials,
}

/// Creates and corrects the database's objects in Vault. `unseen`: objects that no watch reports
/// are read again.
///
/// # Errors
/// Any error of Vault or the API server.
pub async fn sync(
    context: &Context,
    database: &Database,
    observed: &Observation,
    unseen: bool,
) -> Result<Prepared, Error> {
    if observed.vault_refuses_an_agent() {
        context.cache.invalidate_vault_objects_older_than(&database.owner.uid, AGENT_IS_HEARD_AFTER);
    }
    // One health check for all: a fleet sends no requests while Vault is unavailable.
    match context.cache.vault_answer() {
        Some(result) => result?,
        None => {
            let result = context.vault.health().await;
            context.cache.record_vault_answer(result.clone());
            result?;
        }
    }
    let _names_are_in_use = context.vault_names.read().await;
    let (role_ids, engine) = vault_objects::ensure(context, database).await?;
    let credentials = credentials::ensure(context, database, observed, unseen).await?;
    let credentials = DesiredCredentials { engine, ..credentials };
    if unseen {
        ensure_secret_ids(context, &database.owner, &role_ids, observed).await?;
    }
    Ok(Prepared { role_ids, credentials })
}

/// The earlier result of a database, if Vault is unavailable: it continues without Vault.
pub fn recorded(observed: &Observation) -> Option<Prepared> {
    Some(Prepared { role_ids: known_role_ids(observed)?, credentials: DesiredCredentials::recorded(observed)? })
}

/// Renews the objects that expire, for a database that is otherwise not changed.
///
/// # Errors
/// Any error of Vault or the API server.
pub async fn keep_alive(context: &Context, owner: &Owner, observed: &Observation) -> Result<(), Error> {
    let Some(role_ids) = known_role_ids(observed) else { return Ok(()) };
    ensure_secret_ids(context, owner, &role_ids, observed).await
}

/// Handles a failure of Vault: if Vault is unavailable, earlier observations stay valid; after an
/// unexpected answer they are invalidated.
pub fn handle_failure(context: &Context, uid: &str, error: &VaultError) {
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
    let ensure = |of, role| async move {
        let expires_at =
            secret_id::ensure(&context.client, context.vault.as_ref(), owner, &role, context.now()).await?;
        context.metrics.resources.secret_id(&owner.uid, of, expires_at);
        Ok(())
    };
    // Run both to their end: a secret_id whose Secret is not written, because the other failed,
    // would add one more to Vault with each attempt.
    let (for_instance, for_migrator) = tokio::join!(ensure("instance", instance), ensure("migrator", migrator));
    for_instance.and(for_migrator)
}
