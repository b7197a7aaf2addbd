//! Reads from replicas: a replica answers a read only if it has replayed as much as the caller has seen.

use std::sync::Arc;
use std::time::Duration;

use super::pool::{Caller, Pool};
use super::session::Session;
use super::wait::in_time;
use crate::problem::Problem;
use crate::sql::{Charge, Statement};

/// How long a replica may take to say how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// The position of the primary: its timeline as in the names of WAL files, and where the next record is inserted. All that
/// was committed before is below it.
const POSITION: &str = "SELECT pg_catalog.concat(pg_catalog.substr(pg_catalog.pg_walfile_name(p.lsn), 1, 8), ':', p.lsn) \
                        FROM pg_catalog.pg_current_wal_insert_lsn() AS p(lsn)";

/// Whether this is a replica, whether it has replayed up to a position, and whether the login may still become the
/// caller's role: a session that has become it stays it, and only the primary's are ended at once. No function tells the
/// timeline: the control file has one that was reached, and a replica that is on a later one is only taken for one that is
/// behind.
const CHECK: &str = "SELECT pg_catalog.pg_is_in_recovery(), $1::pg_catalog.text IS NULL OR coalesce( \
                     pg_catalog.pg_last_wal_replay_lsn() >= $1::pg_catalog.text::pg_catalog.pg_lsn AND $2::pg_catalog.int4 <= greatest( \
                     (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() AS c), \
                     (SELECT r.min_recovery_end_timeline FROM pg_catalog.pg_control_recovery() AS r)), false), \
                     pg_catalog.pg_has_role(session_user, current_user, 'MEMBER')";

/// A position in the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    timeline: i32,
    lsn: String,
}

impl Position {
    /// Reads `00000001:0/16B3748`; nothing, if it is no position.
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = |text: &str| (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (timeline, lsn) = text.split_once(':')?;
        let (high, low) = lsn.split_once('/')?;
        let timeline = Some(timeline).filter(|timeline| is_number(timeline))?;
        (is_number(high) && is_number(low)).then_some(())?;
        Some(Self { timeline: i32::from_str_radix(timeline, 16).ok()?, lsn: lsn.to_owned() })
    }
}

/// The position of the primary, at or above all commits that were answered before.
///
/// # Errors
/// Any error of the server; that it is no primary.
pub async fn position(pool: &Arc<Pool>, caller: &Caller) -> Result<String, Problem> {
    let statement = Statement::plain(POSITION, Charge::Nothing);
    let mut session = Session::new(pool, caller, None);
    let found = session.last(&statement, 64).await;
    let found = session.finish(found).await?;
    Ok(found.rows.into_iter().next().map(|(position, _)| position).unwrap_or_default())
}

impl Session {
    /// One on a replica that has replayed up to this position; none, if there is no such replica.
    ///
    /// The check is a statement of its own before the transaction: a snapshot that is older than it could lack what the
    /// replica has replayed meanwhile.
    pub async fn on_replica(
        pool: &Arc<Pool>,
        caller: &Caller,
        begin: Option<&str>,
        after: Option<&Position>,
    ) -> Option<Self> {
        let mut session = Self::new(pool, caller, begin);
        match session.check(after).await {
            Ok((true, _, false)) => {
                tracing::info!("a caller has lost its role: its connection to a replica is closed");
                None
            }
            Ok((true, true, true)) => Some(session),
            Ok((true, false, true)) => {
                // Nothing was begun.
                let _ = session.finish(Ok(())).await;
                None
            }
            Ok((false, ..)) => {
                tracing::info!("a replica became the primary: its connections are closed");
                pool.forget_idle();
                None
            }
            Err(problem) => {
                tracing::debug!(code = problem.code, "no replica can be read from");
                None
            }
        }
    }

    async fn check(&mut self, after: Option<&Position>) -> Result<(bool, bool, bool), Problem> {
        let (lsn, timeline) = (after.map(|after| after.lsn.as_str()), after.map_or(0, |after| after.timeline));
        let lease = self.lease().await?;
        let client = lease.client();
        let row = in_time(PATIENCE, async {
            let check = lease.prepare(CHECK).await?;
            Ok(client.query_one(&check, &[&lsn, &timeline]).await?)
        });
        let row = row.await?;
        lease.set_restored(true);
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_a_timeline() {
        let found = Position::parse("0000000A:0/16B3748").expect("a position");
        assert_eq!((found.timeline, found.lsn.as_str()), (10, "0/16B3748"));
        for text in ["", "0/16B3748", "1:", "1:0", "1:0/", "x:0/1", "1:0/1 ", "+1:0/1", "80000000:0/1", "1:0/123456789"]
        {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
