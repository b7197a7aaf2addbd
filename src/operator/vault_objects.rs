//! What one ServiceDatabase has in Vault: policies, AppRoles, the clients' role. Each is
//! read and written only where it differs, and what was seen is taken to hold for a while:
//! a database at rest costs Vault next to nothing.

use std::time::Duration;

use futures::try_join;

use super::context::Context;
use super::error::Error;
use super::plan::RoleIds;
use super::secrets::SECRET_ID_LIFETIME;
use super::validate::Database;
use crate::vault::policy::{self, Mounts};
use crate::vault::{AppRole, KubernetesRole, Vault, VaultError};

/// How long the tokens live that pods and clients log in for.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// What Vault shall have.
struct Wanted {
    policies: [(String, String); 3],
    instance: AppRole,
    migrator: AppRole,
    client: Option<KubernetesRole>,
}

/// Sees to it that Vault has what the database needs; returns the role_ids.
///
/// # Errors
/// Whatever Vault said.
pub async fn ensure(context: &Context, database: &Database) -> Result<RoleIds, Error> {
    let wanted = wanted(context, database);
    let fingerprint = fingerprint(&wanted);
    let uid = &database.owner.uid;
    if let Some(role_ids) = context.memory.verified_vault(uid, &fingerprint) {
        return Ok(role_ids);
    }
    let vault = context.vault.as_ref();
    let [instance_policy, migrator_policy, client_policy] = &wanted.policies;
    // Roles name policies, which need not exist yet: all may go at once.
    let (_, _, _, instance, migrator, ()) = try_join!(
        ensure_policy(vault, instance_policy),
        ensure_policy(vault, migrator_policy),
        ensure_policy(vault, client_policy),
        ensure_approle(vault, &wanted.instance),
        ensure_approle(vault, &wanted.migrator),
        ensure_client_role(vault, database, wanted.client.as_ref()),
    )?;
    let role_ids = RoleIds { instance, migrator };
    context.memory.vault_verified(uid, fingerprint, role_ids.clone());
    Ok(role_ids)
}

/// Removes what [`ensure`] made; what is not there is no error.
///
/// # Errors
/// Whatever Vault said.
pub async fn remove(vault: &dyn Vault, names: &crate::api::names::VaultNames) -> Result<(), VaultError> {
    // The roles first: with an AppRole go its secret_ids, and a role without its policy
    // would be one that still lets in.
    let (client, instance, migrator) = (names.client(), names.instance(), names.migrator());
    try_join!(vault.delete_kubernetes_role(&client), vault.delete_approle(&instance), vault.delete_approle(&migrator))?;
    try_join!(vault.delete_policy(&client), vault.delete_policy(&instance), vault.delete_policy(&migrator))?;
    Ok(())
}

fn wanted(context: &Context, database: &Database) -> Wanted {
    let names = &database.vault;
    let mounts = Mounts { kv: &context.options.vault_kv_mount };
    let approle = |name: String| AppRole {
        policies: vec![name.clone()],
        name,
        token_ttl: TOKEN_TTL,
        secret_id_ttl: SECRET_ID_LIFETIME,
    };
    let accounts: Vec<_> = database.clients.iter().map(|client| client.service_account_name.clone()).collect();
    Wanted {
        policies: [
            (names.instance(), policy::instance(&mounts, names)),
            (names.migrator(), policy::migrator(&mounts, names)),
            (names.client(), policy::client(&mounts, names)),
        ],
        instance: approle(names.instance()),
        migrator: approle(names.migrator()),
        client: (!accounts.is_empty()).then(|| KubernetesRole {
            name: names.client(),
            service_accounts: accounts,
            namespace: database.names().namespace.clone(),
            policies: vec![names.client()],
            token_ttl: TOKEN_TTL,
        }),
    }
}

fn fingerprint(wanted: &Wanted) -> String {
    format!("{:?}{:?}{:?}{:?}", wanted.policies, wanted.instance, wanted.migrator, wanted.client)
}

async fn ensure_policy(vault: &dyn Vault, (name, text): &(String, String)) -> Result<(), VaultError> {
    if vault.read_policy(name).await?.as_deref() != Some(text) {
        vault.write_policy(name, text).await?;
    }
    Ok(())
}

async fn ensure_approle(vault: &dyn Vault, role: &AppRole) -> Result<String, VaultError> {
    if vault.read_approle(&role.name).await?.as_ref() != Some(role) {
        vault.write_approle(role).await?;
    }
    match vault.read_role_id(&role.name).await? {
        Some(role_id) => Ok(role_id),
        // Deleted between two requests: the next reconcile makes it again.
        None => Err(VaultError::Unexpected { status: 404, operation: "read", path: role.name.clone() }),
    }
}

async fn ensure_client_role(
    vault: &dyn Vault,
    database: &Database,
    wanted: Option<&KubernetesRole>,
) -> Result<(), VaultError> {
    let live = vault.read_kubernetes_role(&database.vault.client()).await?;
    match wanted {
        Some(role) if live.as_ref() != Some(role) => vault.write_kubernetes_role(role).await,
        None if live.is_some() => vault.delete_kubernetes_role(&database.vault.client()).await,
        _ => Ok(()),
    }
}
