//! With two stores: while one of them lacks a segment, PostgreSQL asks for that segment again and again, and for no
//! later one. pgBackRest archives what waits only when it is asked for a file that it has not archived. So the agent asks
//! it for the newest one: a store that is away keeps nothing from the other.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::spool::{acknowledged, results, waiting};
use crate::contract::backup::Nth;
use crate::contract::pod::PGDATA;
use crate::pgbackrest::{command, config};

/// Interval between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Archives to this store what waits for the other one.
pub async fn keep(nth: Nth) {
    let (wal, results) = (Path::new(PGDATA).join("pg_wal"), results(nth));
    let mut before = BTreeSet::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let waiting = match waiting(&wal.join("archive_status")) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::debug!(%error, "the WAL that waits for the archive cannot be listed; trying again");
                continue;
            }
        };
        if let Some(file) = next(&before, &waiting, &acknowledged(&results))
            && let Err(error) = command::push(&config::path_of(nth), &wal.join(file)).await
        {
            // Its text may quote a key.
            tracing::debug!(length = error.len(), "what waits for the other store cannot be archived; trying again");
        }
        before = waiting;
    }
}

/// The file to ask for: the newest that this store lacks, if one that it has waits for the other store.
fn next<'a>(
    before: &BTreeSet<String>,
    waiting: &'a BTreeSet<String>,
    acknowledged: &BTreeSet<String>,
) -> Option<&'a String> {
    let is_held = waiting.iter().any(|file| before.contains(file) && acknowledged.contains(file));
    waiting.iter().rev().find(|file| !acknowledged.contains(*file)).filter(|_| is_held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_asked_for_the_newest_file_only_while_the_other_one_holds_an_older_one_up() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let next = |before: &[&str], waiting: &[&str], acknowledged: &[&str]| {
            super::next(&names(before), &names(waiting), &names(acknowledged)).cloned()
        };
        assert_eq!(next(&["1"], &["1", "2", "3"], &["1"]), Some("3".to_owned()));
        assert_eq!(next(&["1"], &["1", "2", "3"], &["1", "2", "3"]), None, "it has all");
        assert_eq!(next(&[], &["1", "2"], &["1"]), None, "the other one may have it in a moment");
        assert_eq!(next(&["1"], &["1", "2", "3"], &[]), None, "it is this one that is away");
    }
}
