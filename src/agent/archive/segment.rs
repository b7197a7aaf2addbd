//! The end of a segment that `archive_timeout` forgot: after a clean start PostgreSQL may wait for its first checkpoint,
//! five minutes by default, until it looks at the time (seen with 17.12 and 18.6, a race). What was written since is
//! only on the volume then.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use crate::postgres::describe;

/// How long PostgreSQL may take beyond `archive_timeout`.
const LATE: Duration = Duration::from_secs(20);

/// The present segment, the next transaction that writes, and `archive_timeout` in seconds.
const QUERY: &str = "
    SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()),
           pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text,
           (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'archive_timeout')";

/// The present segment, as it was seen.
#[derive(Debug, Default)]
pub struct Segment {
    name: String,
    /// The next transaction when it was seen first: another one means that something was written into it.
    transaction: String,
    written_at: Option<Instant>,
}

impl Segment {
    /// Ends the present segment if it should have ended before.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn end_if_late(&mut self, client: &Client) -> Result<(), String> {
        let row = client.query_one(QUERY, &[]).await.map_err(|error| describe(&error))?;
        let timeout = u64::try_from(row.get::<_, i64>(2)).unwrap_or_default();
        if self.is_late(row.get(0), row.get(1), Duration::from_secs(timeout), Instant::now()) {
            tracing::info!(segment = self.name, "archive_timeout has passed: ending the segment");
            let end = "SELECT pg_catalog.pg_switch_wal()";
            client.query_one(end, &[]).await.map_err(|error| describe(&error))?;
        }
        Ok(())
    }

    fn is_late(&mut self, name: &str, transaction: &str, timeout: Duration, now: Instant) -> bool {
        if self.name != name {
            *self = Self { name: name.to_owned(), transaction: transaction.to_owned(), written_at: None };
        }
        if self.written_at.is_none() && self.transaction != transaction {
            self.written_at = Some(now);
        }
        // 0 turns it off.
        !timeout.is_zero() && self.written_at.is_some_and(|at| now.duration_since(at) > timeout + LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_segment_that_was_written_to_is_ended_and_only_when_it_is_late() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let minute = Duration::from_secs(60);
        let mut segment = Segment::default();
        assert!(!segment.is_late("1", "700", minute, at(0)));
        assert!(!segment.is_late("1", "700", minute, at(1000)), "nothing was written");
        assert!(!segment.is_late("1", "701", minute, at(1010)));
        assert!(!segment.is_late("1", "900", minute, at(1080)), "PostgreSQL may still end it");
        assert!(segment.is_late("1", "900", minute, at(1091)));
        assert!(!segment.is_late("1", "900", Duration::ZERO, at(1091)), "the spec turns it off");
        assert!(!segment.is_late("2", "900", minute, at(1092)));
        assert!(!segment.is_late("2", "900", minute, at(2000)));
    }
}
