//! Whether one store has all WAL of a stopped database, so that its last state can be restored from there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::progress::Marker;
use super::spool::{acknowledged, results, waiting};
use crate::contract::backup::Nth;
use crate::contract::pod::PGDATA;
use crate::pgbackrest::{command, config};

/// How long attempts to archive the rest go on: the database is stopped meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two of them.
const PAUSE: Duration = Duration::from_secs(2);
/// The length of a segment's name.
const SEGMENT: usize = 24;
/// The length of the name of the folder that a segment has in the store.
const FOLDER: usize = 16;

/// Whether WAL is being given up for this store.
pub fn is_given_up(nth: Nth) -> bool {
    Marker::is_set(nth)
}

/// The number of files of WAL that a store lacks. `is_one_of_two`: PostgreSQL archives to another one, too, and at its
/// shutdown may have asked only for the oldest file that the other one lacks.
///
/// # Errors
/// If they cannot be listed.
pub async fn missing_wal(nth: Nth, is_one_of_two: bool) -> Result<usize, String> {
    let wal = Path::new(PGDATA).join("pg_wal");
    let list = || waiting(&wal.join("archive_status")).map_err(|error| format!("pg_wal: {error}"));
    if !is_one_of_two {
        return Ok(list()?.len());
    }
    let began = Instant::now();
    loop {
        let waiting = list()?;
        let lacking: Vec<_> = waiting.difference(&acknowledged(&results(nth))).cloned().collect();
        let Some(newest) = lacking.last() else { return unconfirmed(nth, &waiting).await };
        if began.elapsed() > PATIENCE {
            return Ok(lacking.len());
        }
        if let Err(error) = command::push(&config::path_of(nth), &wal.join(newest)).await {
            // Its text may quote a key.
            tracing::warn!(length = error.len(), "the last WAL cannot be archived; trying again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The number of segments that wait for the other store and that this one does not list: an acknowledgement may be older
/// than the present content of the store.
async fn unconfirmed(nth: Nth, waiting: &BTreeSet<String>) -> Result<usize, String> {
    let segments = segments(waiting);
    if segments.is_empty() {
        return Ok(0);
    }
    let folders = segments.iter().filter_map(|segment| segment.get(..FOLDER)).map(str::to_owned).collect();
    let archived = command::archived(&config::path_of(nth), &folders).await;
    // The text of the error may quote a key.
    let archived = archived.map_err(|_| "the store does not list its WAL".to_owned())?;
    Ok(segments.iter().filter(|segment| !archived.contains(**segment)).count())
}

/// The whole segments among files that wait: the others are records of backups and histories of timelines.
fn segments(waiting: &BTreeSet<String>) -> Vec<&String> {
    waiting.iter().filter(|name| name.len() == SEGMENT && name.chars().all(|c| c.is_ascii_hexdigit())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_lists_whole_segments_alone() {
        let [segment, label, history, partial] = [
            "000000030000000000000007",
            "000000030000000000000005.00000028.backup",
            "00000004.history",
            "000000030000000000000008.partial",
        ]
        .map(str::to_owned);
        let waiting = BTreeSet::from([segment.clone(), label, history, partial]);
        assert_eq!(segments(&waiting), [&segment]);
    }
}
