//! Whether one store has all WAL of a stopped database, so that its last state can be restored from there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::Archive;
use super::spool::{acknowledged, results, waiting};
use crate::contract::backup::{Nth, Place};
use crate::contract::pod::PGDATA;
use crate::pgbackrest::info::{Backup, position};
use crate::pgbackrest::{command, config};

/// How long the agent archives the rest and reads what the store has: the database is stopped meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);
/// The length of the name of the folder that a segment has in the store.
const FOLDER: usize = 16;

impl Archive {
    /// Whether the lead that ended with the former process was giving WAL up for this store.
    pub fn has_given_up(&self, nth: Nth) -> bool {
        self.stores.iter().any(|store| store.nth == nth && store.given_up.is_some())
    }

    /// The number of files of WAL that a store lacks. `is_one_of_two`: PostgreSQL archives to another one, too, and at its
    /// shutdown may have asked only for the oldest file that the other one lacks.
    ///
    /// # Errors
    /// If they cannot be listed, with the remedy.
    pub async fn missing_wal(&self, nth: Nth, place: &Place, is_one_of_two: bool) -> Result<usize, String> {
        let wal = Path::new(PGDATA).join("pg_wal");
        // PostgreSQL is stopped, so the list stays as it is.
        let waiting = waiting(&wal.join("archive_status"))
            .map_err(|error| format!("{}/archive_status cannot be read: {error}", wal.display()))?;
        if waiting.is_empty() || !is_one_of_two {
            return Ok(waiting.len());
        }
        let lacking = || -> Vec<String> {
            let acknowledged = acknowledged(&results(nth));
            waiting.difference(&acknowledged).cloned().collect()
        };
        let completed = async {
            self.opened(nth, place).await;
            loop {
                let failure = match lacking().last() {
                    Some(newest) => command::push(&config::path_of(nth), &wal.join(newest)).await.err(),
                    None => match unconfirmed(nth, &waiting).await {
                        Ok(missing) => return missing,
                        Err(error) => Some(error),
                    },
                };
                if let Some(error) = failure {
                    // Its text may quote a key.
                    tracing::warn!(length = error.len(), "the archive of the last WAL is not complete; trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        if let Ok(missing) = tokio::time::timeout(PATIENCE, completed).await {
            return Ok(missing);
        }
        match lacking().len() {
            0 => Err(format!(
                "the store {} did not list its WAL within {} s, so it is not certain that there would be a way back: see \
                 ContinuousArchiving, and request the restore again",
                place.name,
                PATIENCE.as_secs()
            )),
            lacking => Ok(lacking),
        }
    }

    /// Waits until the configuration opens this place: a new pod has none yet, and that of a former place says nothing.
    async fn opened(&self, nth: Nth, place: &Place) {
        let Some(store) = self.stores.iter().find(|store| store.nth == nth) else { return };
        let mut access = store.access.clone();
        let _ = access.wait_for(|access| access.opened(place).is_some()).await;
    }
}

/// The number of segments that wait for the other store and that this one needs and does not list: an acknowledgement may
/// be older than the present content of the store.
async fn unconfirmed(nth: Nth, waiting: &BTreeSet<String>) -> Result<usize, String> {
    let config = config::path_of(nth);
    let info = command::info(&config).await?;
    let of_this = |backup: &&Backup| Some(backup.incarnation) == info.incarnation;
    let oldest = info.backups.iter().filter(of_this).map(|backup| backup.first_segment.as_str()).min();
    let segments = needed(waiting, oldest);
    if segments.is_empty() {
        return Ok(0);
    }
    let folders = segments.iter().filter_map(|segment| segment.get(..FOLDER)).map(str::to_owned).collect();
    let archived = command::archived(&config, &folders).await?;
    Ok(segments.iter().filter(|segment| !archived.contains(**segment)).count())
}

/// The whole segments among files that wait, from the first one on that the oldest backup needs: the others are records of
/// backups and histories of timelines. Segments before it have expired in the store, by their names, while they wait for
/// the other one.
fn needed<'a>(waiting: &'a BTreeSet<String>, oldest: Option<&str>) -> Vec<&'a String> {
    let is_needed = |name: &&String| position(name).is_some() && oldest.is_none_or(|oldest| name.as_str() >= oldest);
    waiting.iter().filter(is_needed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_lists_whole_segments_from_its_oldest_backup_on() {
        let [expired, segment, label, history, partial] = [
            "000000030000000000000004",
            "000000030000000000000007",
            "000000030000000000000005.00000028.backup",
            "00000004.history",
            "000000030000000000000008.partial",
        ]
        .map(str::to_owned);
        let waiting = BTreeSet::from([expired.clone(), segment.clone(), label, history, partial]);
        assert_eq!(needed(&waiting, None), [&expired, &segment], "without a backup nothing has expired");
        assert_eq!(needed(&waiting, Some("000000030000000000000005")), [&segment]);
        assert_eq!(needed(&waiting, Some(segment.as_str())), [&segment], "the backup needs its first one");
        let later = needed(&waiting, Some("000000020000000000000009"));
        assert_eq!(later, [&expired, &segment], "a backup of an earlier timeline needs those of later ones");
    }
}
