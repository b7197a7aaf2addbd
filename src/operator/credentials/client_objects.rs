//! The objects in Vault of clients with a login of their own: a policy and a role for each.
//!
//! At rest one request a client and resync is enough: its record, its policy and its role are read in turns, and all of
//! them once one differs.

use futures::future::try_join_all;

use crate::api::names::VaultNames;
use crate::contract::migration::hash;
use crate::vault::{KubernetesRole, Vault, VaultError};

/// The objects of one client.
#[derive(Debug)]
pub struct OwnClient {
    /// Name and text of its policy.
    pub policy: (String, String),
    /// Its role.
    pub role: KubernetesRole,
}

/// What is read of a client at a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its record: every second time, since somebody may have changed it.
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
/// ServiceAccount of the same client has another policy, and the former one is deleted.
pub fn policy_name(names: &VaultNames, client: &str, account: &str) -> String {
    format!("{}.{}", names.own_client(client), &hash(&[account])[..10])
}

/// Creates and corrects them: all, or at the resync with this number those whose turn it is.
///
/// # Errors
/// Any error of Vault.
pub async fn ensure(vault: &dyn Vault, clients: &[OwnClient], resync: Option<usize>) -> Result<(), VaultError> {
    if let Some(resync) = resync {
        let read = clients.iter().enumerate().map(|(place, client)| async move {
            match turn(resync, place) {
                Turn::Record => Ok(false),
                Turn::Policy => ensure_policy(vault, &client.policy).await,
                Turn::Role => ensure_role(vault, &client.role).await,
            }
        });
        if !try_join_all(read).await?.contains(&true) {
            return Ok(());
        }
    }
    try_join_all(clients.iter().map(|client| ensure_policy(vault, &client.policy))).await?;
    try_join_all(clients.iter().map(|client| ensure_role(vault, &client.role))).await.map(drop)
}

/// Ends a client's access: without a policy no token reads anything, neither one that was issued before nor a new one.
///
/// # Errors
/// Any error of Vault.
pub async fn remove(vault: &dyn Vault, names: &VaultNames, client: &str) -> Result<(), VaultError> {
    let name = names.own_client(client);
    if let Some(role) = vault.read_kubernetes_role(&name).await? {
        remove_policies(vault, &role, &[]).await?;
    }
    vault.delete_kubernetes_role(&name).await
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

async fn ensure_role(vault: &dyn Vault, role: &KubernetesRole) -> Result<bool, VaultError> {
    let live = vault.read_kubernetes_role(&role.name).await?;
    let differs = live.as_ref() != Some(role);
    if differs {
        if let Some(live) = live {
            remove_policies(vault, &live, &role.policies).await?;
        }
        vault.write_kubernetes_role(role).await?;
    }
    Ok(differs)
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
    fn one_thing_is_read_of_each_client_and_everything_in_turns() {
        for place in 0..3 {
            let read: Vec<_> = (0..4).map(|resync| turn(resync, place)).collect();
            assert_eq!(read.iter().filter(|turn| **turn == Turn::Record).count(), 2, "{read:?}");
            assert!(read.contains(&Turn::Policy) && read.contains(&Turn::Role), "{read:?}");
        }
    }
}
