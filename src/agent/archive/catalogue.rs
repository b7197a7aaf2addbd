//! The backups that the store has, as the leader reads them: after each backup Job, and now and then, since
//! retention and other hands change them.

use std::time::Duration;

use tokio::sync::watch;

use super::stanza::Stanza;
use crate::agent::desired::{self, DesiredState};
use crate::backoff::{Backoff, jittered};
use crate::contract::backup::Nth;
use crate::contract::report::{Catalogue, CatalogueDatabase, CatalogueEntry};
use crate::pgbackrest::info::{Backup, Info};
use crate::pgbackrest::{command, config};

/// Interval between two reads without a backup.
const INTERVAL: Duration = Duration::from_secs(1800);

/// Keeps the catalogue, once the stanza exists.
pub async fn keep(
    nth: Nth,
    mut desired: DesiredState,
    mut stanza: watch::Receiver<Stanza>,
    catalogue: watch::Sender<Option<Catalogue>>,
) {
    if stanza.wait_for(|stanza| matches!(stanza, Stanza::Ready { .. })).await.is_err() {
        return;
    }
    let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
    loop {
        let ended = ended(&mut desired).await;
        let wait = match command::info(&config::path_of(nth)).await {
            Ok(info) => {
                backoff.reset();
                let read = Some(of(&info, ended.clone()));
                catalogue.send_if_modified(|before| {
                    *before != read && {
                        *before = read;
                        true
                    }
                });
                jittered(INTERVAL)
            }
            Err(error) => {
                // Its text may quote a key.
                tracing::debug!(length = error.len(), "the backups in the store cannot be read; trying again");
                // Nothing is decided by what may have changed.
                catalogue.send_replace(None);
                backoff.step()
            }
        };
        let another = async {
            while self::ended(&mut desired).await == ended {
                desired::changed(&mut desired).await;
            }
        };
        let _ = tokio::time::timeout(wait, another).await;
    }
}

/// The last backup Job, once it has ended.
async fn ended(state: &mut DesiredState) -> Option<String> {
    let desired = desired::first(state).await;
    desired.backup.as_ref().filter(|run| !run.runs).map(|run| run.job.clone())
}

fn of(info: &Info, after: Option<String>) -> Catalogue {
    let entry = |backup: &Backup| CatalogueEntry {
        label: backup.label.clone(),
        kind: backup.kind,
        started_at: backup.started_at,
        finished_at: backup.finished_at,
        database_bytes: backup.database_bytes,
        stored_bytes: backup.stored_bytes,
    };
    let full = info.backups.iter().rev().find(|backup| backup.kind == crate::api::BackupType::Full);
    let mut databases: Vec<CatalogueDatabase> = Vec::new();
    // The oldest come first.
    for backup in &info.backups {
        let Some(identifier) = info.database_of(backup) else { continue };
        if !databases.iter().any(|known| known.system_identifier == identifier) {
            let (system_identifier, recoverable_from) = (identifier.to_owned(), backup.finished_at);
            databases.push(CatalogueDatabase { system_identifier, recoverable_from });
        }
    }
    Catalogue {
        after,
        count: u32::try_from(info.backups.len()).unwrap_or(u32::MAX),
        stored_bytes: info.backups.iter().map(|backup| backup.stored_bytes).sum(),
        recoverable_from: info.backups.first().map(|backup| backup.finished_at),
        databases,
        newest_full: full.map(entry),
        newest: info.backups.last().map(entry),
    }
}
