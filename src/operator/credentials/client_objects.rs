//! The objects in Vault of clients with a login of their own: a policy and a role for each, and with short-lived logins a
//! role of the database secrets engine.
//!
//! At rest one request a client and resync is enough: its record (or its role of the engine), its policy and its role are
//! read in turns, and all of them once one differs.

use futures::future::try_join_all;

use crate::api::names::VaultNames;
use crate::contract::clients::Engine;
use crate::contract::migration::hash;
use crate::vault::{DatabaseRole, KubernetesRole, Vault, VaultError};

/// The objects of one client.
#[derive(Debug)]
pub struct OwnClient {
    /// Its name.
    pub name: String,
    /// Name and text of its policy.
    pub policy: (String, String),
    /// Its role.
    pub role: KubernetesRole,
    /// Its role of the database secrets engine, with short-lived logins.
    pub engine_role: Option<DatabaseRole>,
}

/// What is read of a client at a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its record, or its role of the engine: every second time, since somebody may have changed it.
    Record,
    /// Its policy.
    Policy,
    /// Its role.
    Role,
}

/// What is read of the client at this place at the resync with this number.
pub fn turn(resync: usize, place: usize) -> Turn {
    match resync.wrapping_add(place) % 4 {
        1 => Turn::Policy,
        3 => Turn::Role,
        _ => Turn::Record,
    }
}

/// The name of a client's policy. Tokens outlast the role that they were issued by, for at most their lifetime: another
/// identity of the same client has another policy, and the former one is deleted.
pub fn policy_name(names: &VaultNames, client: &str, identity: &str) -> String {
    format!("{}.{}", names.own_client(client), &hash(&[identity])[..10])
}

/// Creates and corrects them: all, or at the resync with this number those whose turn it is. Returns why the database
/// secrets engine does not take its part: that concerns the clients with short-lived logins alone.
///
/// # Errors
/// Any other error of Vault.
pub async fn ensure(
    vault: &dyn Vault,
    engine: Option<&Engine>,
    clients: &[OwnClient],
    resync: Option<usize>,
) -> Result<Option<VaultError>, VaultError> {
    let is_used = clients.iter().any(|client| client.engine_role.is_some());
    if let Some(resync) = resync {
        let read = clients.iter().enumerate().map(|(place, client)| async move {
            Ok::<_, VaultError>(match turn(resync, place) {
                // All are read, and one of them says why.
                Turn::Record => of_engine_alone(ensure_engine_role(vault, engine, client).await)?.unwrap_or(true),
                Turn::Policy => ensure_policy(vault, &client.policy).await?,
                Turn::Role => ensure_role(vault, engine, client, is_used).await?,
            })
        });
        if !try_join_all(read).await?.contains(&true) {
            return Ok(None);
        }
    }
    try_join_all(clients.iter().map(|client| ensure_policy(vault, &client.policy))).await?;
    let made = clients.iter().map(|client| async move {
        let made = of_engine_alone(ensure_engine_role(vault, engine, client).await)?;
        Ok::<_, VaultError>(made.err())
    });
    let refused = try_join_all(made).await?.into_iter().flatten().next();
    try_join_all(clients.iter().map(|client| ensure_role(vault, engine, client, is_used))).await?;
    Ok(refused)
}

/// A result of the engine. What it refuses is no failure of Vault: it is not mounted, the operator has no right to it, or
/// it takes no such role.
fn of_engine_alone(result: Result<bool, VaultError>) -> Result<Result<bool, VaultError>, VaultError> {
    match result {
        Err(
            error @ (VaultError::MountMissing { .. }
            | VaultError::PermissionDenied { .. }
            | VaultError::Unexpected { .. }),
        ) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(differs) => Ok(Ok(differs)),
    }
}

/// Ends a client's access: without a policy no token reads anything, neither one that was issued before nor a new one.
///
/// # Errors
/// Any error of Vault.
pub async fn remove(
    vault: &dyn Vault,
    names: &VaultNames,
    engine: Option<&Engine>,
    client: &str,
) -> Result<(), VaultError> {
    let name = names.own_client(client);
    if let Some(role) = vault.read_kubernetes_role(&name).await? {
        remove_policies(vault, &role, &[]).await?;
    }
    vault.delete_kubernetes_role(&name).await?;
    match engine {
        Some(engine) => remove_engine_role(vault, engine, client).await,
        None => Ok(()),
    }
}

/// Removes the engine's connection to a database; its password with it.
///
/// # Errors
/// Any error of Vault, but that there is no such engine, or no right to it.
pub async fn remove_connection(vault: &dyn Vault, engine: &Engine) -> Result<(), VaultError> {
    if_offered(vault.delete_database_connection(&engine.mount, &engine.connection).await)
}

/// Writes a policy that differs; returns whether it did.
///
/// # Errors
/// Any error of Vault.
pub async fn ensure_policy(vault: &dyn Vault, (name, text): &(String, String)) -> Result<bool, VaultError> {
    let differs = vault.read_policy(name).await?.as_deref() != Some(text);
    if differs {
        vault.write_policy(name, text).await?;
    }
    Ok(differs)
}

/// `is_used`: whether a client has a role of the engine.
async fn ensure_role(
    vault: &dyn Vault,
    engine: Option<&Engine>,
    client: &OwnClient,
    is_used: bool,
) -> Result<bool, VaultError> {
    let role = &client.role;
    let live = vault.read_kubernetes_role(&role.name).await?;
    let differs = live.as_ref() != Some(role);
    if differs {
        if let Some(live) = live {
            remove_policies(vault, &live, &role.policies).await?;
            // It may be that of a client of this name with short-lived logins.
            if let Some(engine) = engine.filter(|_| client.engine_role.is_none()) {
                remove_engine_role(vault, engine, &client.name).await?;
                if !is_used {
                    remove_connection(vault, engine).await?;
                }
            }
        }
        vault.write_kubernetes_role(role).await?;
    }
    Ok(differs)
}

/// Writes a role of the engine that differs; returns whether it did.
async fn ensure_engine_role(
    vault: &dyn Vault,
    engine: Option<&Engine>,
    client: &OwnClient,
) -> Result<bool, VaultError> {
    let Some((engine, role)) = engine.zip(client.engine_role.as_ref()) else { return Ok(false) };
    let differs = vault.read_database_role(&engine.mount, &role.name).await?.as_ref() != Some(role);
    if differs {
        vault.write_database_role(&engine.mount, role).await?;
    }
    Ok(differs)
}

/// Removes a client's role of the engine, and its logins. Logins that Vault cannot remove now are removed by the agents.
async fn remove_engine_role(vault: &dyn Vault, engine: &Engine, client: &str) -> Result<(), VaultError> {
    let role = engine.role(client);
    if_offered(vault.delete_database_role(&engine.mount, &role).await)?;
    if let Err(error) = vault.revoke_database_leases(&engine.mount, &role).await {
        tracing::warn!(%error, client, "the leases of a removed client stay in Vault until they expire");
    }
    Ok(())
}

/// A failed removal, unless there is no engine, or another one under its name, or the operator has no right to it: that
/// keeps no other client, and no deletion, back.
fn if_offered(removal: Result<(), VaultError>) -> Result<(), VaultError> {
    match removal {
        Err(
            error @ (VaultError::MountMissing { .. }
            | VaultError::PermissionDenied { .. }
            | VaultError::Unexpected { status: 400..=499, .. }),
        ) => {
            tracing::warn!(%error, "the database secrets engine cannot be cleaned up");
            Ok(())
        }
        result => result,
    }
}

/// Removes the client's own policies that a role names, but for some: a role that somebody changed may name others.
async fn remove_policies(vault: &dyn Vault, role: &KubernetesRole, kept: &[String]) -> Result<(), VaultError> {
    let is_own =
        |policy: &str| policy.strip_prefix(&role.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    for policy in role.policies.iter().filter(|policy| is_own(policy) && !kept.contains(policy)) {
        vault.delete_policy(policy).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_missing_or_forbidden_is_no_failure_of_vault() {
        let path = || "database/roles/r".to_owned();
        for refused in [
            VaultError::MountMissing { path: path() },
            VaultError::PermissionDenied { operation: "read", path: path() },
            VaultError::Unexpected { status: 400, operation: "write", path: path() },
        ] {
            assert!(matches!(of_engine_alone(Err(refused.clone())), Ok(Err(_))), "{refused}");
            assert!(if_offered(Err(refused.clone())).is_ok(), "{refused}: it keeps a removal back");
        }
        let away = VaultError::Unreachable { address: "a".to_owned(), problem: "p".to_owned() };
        assert!(of_engine_alone(Err(away.clone())).is_err() && if_offered(Err(away)).is_err());
        assert!(matches!(of_engine_alone(Ok(true)), Ok(Ok(true))));
    }

    #[test]
    fn one_thing_is_read_of_each_client_and_everything_in_turns() {
        for place in 0..3 {
            let read: Vec<_> = (0..4).map(|resync| turn(resync, place)).collect();
            assert_eq!(read.iter().filter(|turn| **turn == Turn::Record).count(), 2, "{read:?}");
            assert!(read.contains(&Turn::Policy) && read.contains(&Turn::Role), "{read:?}");
        }
    }
}
