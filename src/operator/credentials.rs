//! The operator's part of the credentials: it decides the generation and writes `pending`;
//! proving and promoting is the work of the leader's agent.

use std::collections::BTreeMap;

use super::context::Context;
use super::error::Error;
use super::observe::Observation;
use super::validate::Database;
use crate::contract::records::{Login, Pending, Runtime};
use crate::postgres::{generate_password, scram_verifier};
use crate::vault::VaultError;

/// The metadata key of the runtime record with the uid of the ServiceDatabase it is for.
const OWNER_UID: &str = "servicedb-uid";

/// The generation that the runtime record shall hold.
///
/// It is written down in the desired state, so Vault is asked only before the first time.
///
/// # Errors
/// Whatever Vault said.
pub async fn generation(context: &Context, database: &Database, observed: &Observation) -> Result<i64, Error> {
    if let Some(desired) = observed.desired.as_ref().filter(|desired| desired.uid == database.owner.uid) {
        return Ok(desired.credential_generation);
    }
    let vault = context.vault.as_ref();
    let path = database.vault.runtime();
    let Some(record) = vault.read_kv(&path).await? else { return Ok(1) };
    let held = Runtime::generation_of(&record.data)?;
    // A record of an earlier resource of this name is never taken over: its password was
    // known to its clients. The next generation replaces it once a login proves it. The
    // metadata does not tell: it is written before that, and the content with it.
    Ok(if Runtime::uid_of(&record.data) == Some(database.owner.uid.as_str()) { held } else { held + 1 })
}

/// Sees to it that `pending` holds the generation, unless it was promoted already.
///
/// # Errors
/// Whatever Vault said.
pub async fn ensure_pending(
    context: &Context,
    database: &Database,
    generation: i64,
    promoted: i64,
) -> Result<(), Error> {
    let uid = &database.owner.uid;
    if promoted >= generation || context.memory.pending_seen(uid, generation) {
        return Ok(());
    }
    let vault = context.vault.as_ref();
    let path = database.vault.pending();
    let cas = match vault.read_kv(&path).await? {
        Some(record) if Pending::from_data(&record.data).is_ok_and(|pending| pending.generation == generation) => {
            context.memory.saw_pending(uid, generation);
            return Ok(());
        }
        Some(record) => record.version,
        None => {
            // No `pending` may mean that it was promoted a moment ago.
            let runtime = vault.read_kv(&database.vault.runtime()).await?;
            if runtime.is_some_and(|record| Runtime::generation_of(&record.data).is_ok_and(|held| held >= generation)) {
                context.memory.saw_pending(uid, generation);
                return Ok(());
            }
            0
        }
    };
    let owner = BTreeMap::from([
        (OWNER_UID.to_owned(), uid.clone()),
        ("servicedb-database".to_owned(), database.postgres.database.clone()),
    ]);
    vault.write_kv_metadata(&database.vault.runtime(), &owner).await?;
    let pending = Pending {
        generation,
        app: login(database.postgres.login(generation)),
        migrator: login(database.postgres.migrator_login(generation)),
    };
    match vault.write_kv(&path, &pending.to_data(), cas).await {
        // Another operator was first: what it wrote is as good.
        Ok(_) | Err(VaultError::CasMismatch { .. }) => {
            context.memory.saw_pending(uid, generation);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn login(user: String) -> Login {
    let password = generate_password();
    let verifier = scram_verifier(&password);
    Login { user, password, verifier }
}
