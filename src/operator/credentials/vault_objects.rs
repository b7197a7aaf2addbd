//! The objects of one ServiceDatabase in Vault: policies, AppRoles, the clients' role. Each is read
//! and written only if it differs, and observations are cached for some time: a database at rest
//! sends almost no requests to Vault. The objects of clients with a login of their own are in `client_objects`, the notes
//! of which clients have them in `noted_clients`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::try_join_all;
use futures::try_join;

use super::client_objects::{self, OwnClient};
use super::noted_clients::{self, Metadata};
use super::passphrase;
use super::role_ids::RoleIds;
use super::secret_id::SECRET_ID_LIFETIME;
use super::short_lived;
use crate::api::names::VaultNames;
use crate::contract::clients::Engine;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::validate::Database;
use crate::vault::policy::{self, EngineMount, Mounts};
use crate::vault::{AppRole, KubernetesRole, Vault, VaultError};

/// The lifetime of the tokens of pods and clients.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// Keys of the runtime record's metadata, which name its owner. The agent writes the content
/// later.
const OWNER_UID: &str = "servicedb-uid";
const OWNER_CLUSTER: &str = "servicedb-cluster-uid";
const OWNER_DATABASE: &str = "servicedb-database";

/// The desired objects in Vault.
struct Wanted {
    claim: BTreeMap<String, String>,
    /// The names of the clients with a login of their own.
    clients: BTreeSet<String>,
    policies: Vec<(String, String)>,
    instance: AppRole,
    migrator: AppRole,
    client: Option<KubernetesRole>,
    own_clients: Vec<OwnClient>,
    /// The engine that the platform offers, whether or not a client uses it.
    engine: Option<Engine>,
}

/// Creates and corrects the database's objects in Vault; returns the role_ids, and why the database secrets engine does not
/// take its part: all other objects are as declared.
///
/// # Errors
/// Any other error of Vault.
pub async fn ensure(context: &Context, database: &Database) -> Result<(RoleIds, Option<VaultError>), Error> {
    let wanted = wanted(context, database);
    let fingerprint = fingerprint(&wanted);
    let uid = &database.owner.uid;
    if let Some(known) = context.cache.vault_objects(uid, &fingerprint) {
        return Ok(known);
    }
    let vault = context.vault.as_ref();
    // Before any other write: names in Vault contain the cluster's id, which may have been used
    // twice.
    let claimed = ensure_claim(context, database, &wanted).await?;
    // Before anything is made: Vault limits the notes, and those of removed clients leave room for new ones.
    replace_undeclared(vault, &database.vault, &claimed, &wanted).await?;
    // Roles name policies, which need not exist yet: all can be written at once.
    let (_, engine, instance, migrator, ()) = try_join!(
        try_join_all(wanted.policies.iter().map(|policy| ensure_policy(vault, policy))),
        client_objects::ensure(
            vault,
            wanted.engine.as_ref(),
            &wanted.own_clients,
            context.cache.vault_turn(uid, &fingerprint)
        ),
        ensure_approle(vault, &wanted.instance),
        ensure_approle(vault, &wanted.migrator),
        ensure_client_role(vault, database, wanted.client.as_ref()),
    )?;
    let role_ids = RoleIds { instance, migrator };
    // Without it nothing is archived, which the agents report; the database does not depend on it.
    if let Some(place) = &database.archive
        && let Err(error) = passphrase::ensure(vault, &place.passphrase).await
    {
        tracing::warn!(%error, "the passphrase of the backups cannot be made; trying again");
        return Ok((role_ids, engine));
    }
    if let Some(error) = &engine {
        tracing::warn!(%error, "Vault's database secrets engine does not take the roles of clients; trying again");
    }
    context.cache.record_vault_objects(uid, fingerprint, role_ids.clone(), engine.clone());
    Ok((role_ids, engine))
}

/// Removes the objects of [`ensure`]; a missing one is not an error. `mount` is that of the database secrets engine.
///
/// # Errors
/// Any error of Vault.
pub async fn remove(vault: &dyn Vault, names: &VaultNames, mount: Option<&str>) -> Result<(), VaultError> {
    let engine = engine(names, mount);
    let clients = known_clients(vault, names).await?;
    if let Some(engine) = engine.as_ref().filter(|_| !clients.is_empty()) {
        // The database is gone: without a connection Vault does not try to remove logins from it.
        client_objects::remove_connection(vault, engine).await?;
    }
    // The roles first: deleting an AppRole deletes its secret_ids, and a role without its policy
    // would still allow logins.
    for client in clients {
        client_objects::remove(vault, names, engine.as_ref(), &client).await?;
    }
    let (client, instance, migrator) = (names.client(), names.instance(), names.migrator());
    try_join!(vault.delete_kubernetes_role(&client), vault.delete_approle(&instance), vault.delete_approle(&migrator))?;
    try_join!(vault.delete_policy(&client), vault.delete_policy(&instance), vault.delete_policy(&migrator))?;
    Ok(())
}

/// Whether the objects under these names belong to another cluster, or to another resource of this
/// name.
///
/// # Errors
/// Any error of Vault.
pub async fn is_anothers(
    vault: &dyn Vault,
    names: &VaultNames,
    cluster_uid: &str,
    uid: &str,
) -> Result<bool, VaultError> {
    let known = vault.read_kv_metadata(&names.runtime()).await?.unwrap_or_default().custom;
    let differs = |key: &str, ours: &str| known.get(key).is_some_and(|theirs| theirs != ours);
    Ok(differs(OWNER_CLUSTER, cluster_uid) || differs(OWNER_UID, uid))
}

/// The clients with a login of their own that have objects in Vault.
///
/// # Errors
/// Any error of Vault.
pub async fn known_clients(vault: &dyn Vault, names: &VaultNames) -> Result<Vec<String>, VaultError> {
    let known = vault.read_kv_metadata(&names.runtime()).await?.unwrap_or_default().custom;
    Ok(noted_clients::names(&known).into_iter().collect())
}

/// Removes the objects and the records of clients that are noted and no longer declared. Then the declared ones are noted
/// in place of them: a name is there before its objects are made, and stays until they are removed.
async fn replace_undeclared(
    vault: &dyn Vault,
    names: &VaultNames,
    claimed: &Metadata,
    wanted: &Wanted,
) -> Result<(), VaultError> {
    let known = noted_clients::names(claimed);
    let gone: Vec<_> = known.difference(&wanted.clients).collect();
    if gone.is_empty() {
        return Ok(());
    }
    // The policy of the pods first: an agent that still promotes the login of such a client would make its record again.
    try_join_all(wanted.policies.iter().map(|policy| ensure_policy(vault, policy))).await?;
    for client in gone {
        client_objects::remove(vault, names, wanted.engine.as_ref(), client).await?;
        let (pending, runtime) = (names.client_pending(client), names.client_runtime(client));
        try_join!(vault.delete_kv(&pending), vault.delete_kv(&runtime))?;
        tracing::info!(client, "the client's objects are removed from Vault");
    }
    let is_used = wanted.own_clients.iter().any(|client| client.engine_role.is_some());
    if let Some(engine) = wanted.engine.as_ref().filter(|_| !is_used) {
        client_objects::remove_connection(vault, engine).await?;
    }
    vault.write_kv_metadata(&names.runtime(), &noted_clients::with(claimed, &wanted.clients)).await
}

/// Claims the record, and notes the declared clients if none is to be removed before; returns the metadata with the claim.
async fn ensure_claim(context: &Context, database: &Database, wanted: &Wanted) -> Result<Metadata, Error> {
    let (vault, path) = (context.vault.as_ref(), database.vault.runtime());
    let metadata = vault.read_kv_metadata(&path).await?.unwrap_or_default();
    if let Some(theirs) = metadata.custom.get(OWNER_CLUSTER).filter(|theirs| **theirs != context.cluster_uid) {
        return Err(Error::ForeignRecord { path, theirs: theirs.clone(), ours: context.cluster_uid.clone() });
    }
    let known = noted_clients::names(&metadata.custom);
    let clients = if known.is_subset(&wanted.clients) { &wanted.clients } else { &known };
    // Other metadata is kept.
    let mut noted = noted_clients::with(&metadata.custom, clients);
    noted.extend(wanted.claim.clone());
    if metadata.lets_expire || noted != metadata.custom {
        vault.write_kv_metadata(&path, &noted).await?;
    }
    Ok(noted)
}

fn wanted(context: &Context, database: &Database) -> Wanted {
    let names = &database.vault;
    let mount = context.options.vault_database_mount.as_deref();
    let url = Engine::url(&database.names().primary_host());
    let mounts = Mounts {
        kv: &context.options.vault_kv_mount,
        database: mount.filter(|_| database.has_short_lived()).map(|mount| EngineMount { mount, url: &url }),
    };
    let mut of_store: Vec<_> = database
        .archive
        .iter()
        .chain(&database.second_archive)
        .chain(database.restore.iter().map(|restore| &restore.place))
        .flat_map(|place| {
            let keys = place.store.keys.as_ref().map(|keys| keys.vault_path.as_str());
            keys.into_iter().chain([place.passphrase.as_str()])
        })
        .collect();
    of_store.sort_unstable();
    of_store.dedup();
    let approle = |name: String| AppRole {
        policies: vec![name.clone()],
        name,
        token_ttl: TOKEN_TTL,
        secret_id_ttl: SECRET_ID_LIFETIME,
    };
    let shared = database.clients.iter().filter(|client| client.is_shared());
    // Their order in the spec is no difference.
    let mut accounts: Vec<_> = shared.map(|client| client.account_name().to_owned()).collect();
    accounts.sort_unstable();
    let mut own_clients: Vec<_> = database.own_clients().collect();
    own_clients.sort_unstable_by_key(|client| client.name());
    let client_names: Vec<_> = own_clients.iter().map(|client| client.name()).collect();
    let namespace = database.names().namespace.as_str();
    let kubernetes_role = |name: String, accounts: Vec<String>, namespace: &str| KubernetesRole {
        policies: vec![name.clone()],
        name,
        service_accounts: accounts,
        namespace: namespace.to_owned(),
        token_ttl: TOKEN_TTL,
        token_max_ttl: TOKEN_TTL,
    };
    let claim = [
        (OWNER_UID, database.owner.uid.clone()),
        (OWNER_CLUSTER, context.cluster_uid.clone()),
        (OWNER_DATABASE, database.postgres.database.clone()),
    ];
    let policies = vec![
        (names.instance(), policy::instance(&mounts, names, &client_names, &of_store)),
        (names.migrator(), policy::migrator(&mounts, names)),
        (names.client(), policy::client(&mounts, names)),
    ];
    Wanted {
        claim: claim.map(|(key, value)| (key.to_owned(), value)).into(),
        clients: client_names.iter().map(|name| (*name).to_owned()).collect(),
        policies,
        instance: approle(names.instance()),
        migrator: approle(names.migrator()),
        client: (!accounts.is_empty()).then(|| kubernetes_role(names.client(), accounts, namespace)),
        own_clients: own_clients
            .iter()
            .map(|client| {
                let name = client.name();
                let policy = client_objects::policy_name(names, name, &client.identity());
                let accounts = vec![client.account_name().to_owned()];
                let role = kubernetes_role(names.own_client(name), accounts, client.namespace(namespace));
                let dynamic = mount.zip(client.dynamic());
                let (text, (token_ttl, token_max_ttl)) = match dynamic {
                    Some((mount, lifetimes)) => {
                        (policy::short_lived(mount, names, name), short_lived::token_lifetimes(lifetimes))
                    }
                    None => (policy::own_client(&mounts, names, name), (role.token_ttl, role.token_max_ttl)),
                };
                OwnClient {
                    name: name.to_owned(),
                    role: KubernetesRole { policies: vec![policy.clone()], token_ttl, token_max_ttl, ..role },
                    policy: (policy, text),
                    engine_role: dynamic.map(|(_, lifetimes)| short_lived::role(names, client, lifetimes)),
                }
            })
            .collect(),
        engine: engine(names, mount),
    }
}

/// The engine, for the database with these names.
fn engine(names: &VaultNames, mount: Option<&str>) -> Option<Engine> {
    mount.map(|mount| Engine { mount: mount.to_owned(), connection: names.engine_connection() })
}

fn fingerprint(wanted: &Wanted) -> String {
    let Wanted { claim, clients, policies, instance, migrator, client, own_clients, engine } = wanted;
    format!("{claim:?}{clients:?}{policies:?}{instance:?}{migrator:?}{client:?}{own_clients:?}{engine:?}")
}

async fn ensure_policy(vault: &dyn Vault, policy: &(String, String)) -> Result<(), VaultError> {
    client_objects::ensure_policy(vault, policy).await.map(drop)
}

async fn ensure_approle(vault: &dyn Vault, role: &AppRole) -> Result<String, VaultError> {
    if vault.read_approle(&role.name).await?.as_ref() != Some(role) {
        vault.write_approle(role).await?;
    }
    match vault.read_role_id(&role.name).await? {
        Some(role_id) => Ok(role_id),
        // Deleted between two requests: the next reconcile recreates it.
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
