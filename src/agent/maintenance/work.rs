//! Does one thing that is due.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::extension;
use super::history::{Entry, time};
use super::plan::{Cause, Found, Room, lacks_room};
use super::session::{Session, WorkError};
use super::survey;
use crate::api::names::PostgresNames;
use crate::api::{MaintenanceAction, MaintenanceDone};

/// How old a transaction may be before an index is rebuilt: the rebuild waits for every one that is older than it.
const OLD_TRANSACTION_SECONDS: i64 = 60;
/// How long the removal of an unfinished copy may take.
const REMOVAL_SECONDS: i64 = 15;

/// Where the work is done.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The folder of the server's socket.
    pub socket: &'a str,
    /// The names in the database.
    pub names: &'a PostgresNames,
    /// The unused part of an index from which it is rebuilt, in percent.
    pub reindex_percent: u8,
    /// The room on the volume; none if it is not known.
    pub room: Option<Room>,
}

/// What was done of something that is due.
pub enum Outcome {
    /// It was done, or has failed: it is in the history.
    Ended(Entry),
    /// It turned out not to be due.
    NotDue,
}

/// Does it, until this time at the latest, or until `withdrawn` resolves.
pub async fn perform(place: Place<'_>, due: &Found, until: Timestamp, withdrawn: impl Future<Output = ()>) -> Outcome {
    let (at, begin) = (Timestamp::now(), tokio::time::Instant::now());
    let mut entry = Entry {
        done: MaintenanceDone {
            action: due.action(),
            object: due.object.clone(),
            at: time(at),
            milliseconds: 0,
            freed_bytes: None,
            failure: None,
        },
        bytes_after: None,
        rows_after: None,
    };
    match tried(place, due, until, withdrawn, &mut entry).await {
        Ok(true) => {}
        Ok(false) => return Outcome::NotDue,
        Err(error) => {
            entry.done.failure = Some(error.to_string());
            if due.action() == MaintenanceAction::Reindex {
                remove_copy_of(place, &due.object).await;
            }
        }
    }
    entry.done.milliseconds = i64::try_from(begin.elapsed().as_millis()).unwrap_or(i64::MAX);
    Outcome::Ended(entry)
}

async fn tried(
    place: Place<'_>,
    due: &Found,
    until: Timestamp,
    withdrawn: impl Future<Output = ()>,
    entry: &mut Entry,
) -> Result<bool, WorkError> {
    let (object, database) = (&due.object, &place.names.database);
    let reader = Session::monitor(place.socket, database).await?;
    let reader = reader.client();
    let statement = match &due.cause {
        Cause::OtherVersion { .. } => {
            extension::update(place.socket, place.names, object, until, withdrawn).await?;
            return Ok(true);
        }
        Cause::LeftoverOf(_) => {
            entry.done.freed_bytes = survey::size(reader, object).await.map(|(bytes, _)| bytes);
            format!("DROP INDEX CONCURRENTLY IF EXISTS {object}")
        }
        Cause::Age { .. } => format!("VACUUM (FREEZE, PARALLEL 0) {object}"),
        Cause::Unvacuumed { .. } => format!("VACUUM (PARALLEL 0) {object}"),
        Cause::Unanalyzed { .. } => format!("ANALYZE {object}"),
        Cause::Bloat(_) => format!("REINDEX INDEX CONCURRENTLY {object}"),
    };
    let mut lock_timeout = "5s";
    if let Cause::Bloat(estimated) = &due.cause {
        // What takes too long to measure is as estimated.
        let measured = survey::measure(reader, object, estimated).await.ok().flatten();
        let size = measured.as_ref().unwrap_or(estimated);
        if size.unused_percent() < f64::from(place.reindex_percent) {
            return Ok(false);
        }
        if let Some(why) = lacks_room(size, place.room) {
            return Err(WorkError::Refused(why));
        }
        if let Some(why) = survey::long_transaction(reader, OLD_TRANSACTION_SECONDS).await? {
            return Err(WorkError::Refused(why));
        }
        // It waits for transactions that have used the table; meanwhile it blocks no query and no write.
        lock_timeout = "60s";
    }
    let session = Session::maintainer(place.socket, database).await?;
    session.client().batch_execute(&format!("SET lock_timeout = '{lock_timeout}'")).await?;
    let before = survey::size(reader, object).await;
    session.run(&statement, until, withdrawn).await?;
    let after = survey::size(reader, object).await;
    if let (Some((before, _)), Some((after, rows))) = (before, after) {
        entry.done.freed_bytes = Some((before - after).max(0));
        if matches!(due.cause, Cause::Bloat(_)) {
            (entry.bytes_after, entry.rows_after) = (Some(after), Some(rows));
        }
    }
    Ok(true)
}

/// Removes the copies that a rebuild of this index left when it was broken off. What remains is removed in the next run.
async fn remove_copy_of(place: Place<'_>, index: &str) {
    let removal = async {
        let reader = Session::monitor(place.socket, &place.names.database).await?;
        let session = Session::maintainer(place.socket, &place.names.database).await?;
        let until = Timestamp::now() + SignedDuration::from_secs(REMOVAL_SECONDS);
        for leftover in survey::leftovers(reader.client()).await? {
            if leftover.cause == Cause::LeftoverOf(index.to_owned()) {
                let statement = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", leftover.object);
                session.run(&statement, until, std::future::pending()).await?;
            }
        }
        Ok::<_, WorkError>(())
    };
    if let Err(error) = removal.await {
        tracing::info!(%error, index, "the unfinished copy of an index is left until the next run");
    }
}
