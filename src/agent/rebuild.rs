//! A copy that is of no use any more, and that Patroni would leave as it is: while another
//! instance leads, it is made anew. Without a leader nothing is touched.

use std::path::Path;
use std::time::Duration;

use super::patroni::rest::{Rest, RestError};
use super::server::Seen;
use super::wal_on_leader;
use crate::contract::pod::{PGDATA, SOCKET_DIR};
use crate::postgres::over_socket;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(5);
/// So often in a row it must be seen: files come and go while Patroni works.
const SIGHTINGS: u32 = 3;

/// Looks from now on.
pub async fn follow(pod: String, server: Seen) {
    let mut sightings = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let why = if is_damaged() && starts_in_vain(&pod).await {
            "the data directory has no pg_control"
        } else if is_left_behind(&pod, &server).await {
            "the WAL that this instance needs is gone from the leader"
        } else {
            sightings = 0;
            continue;
        };
        sightings += 1;
        if sightings < SIGHTINGS {
            continue;
        }
        sightings = 0;
        tracing::warn!(why, "this copy is of no use any more, and another instance leads: cloning it");
        if let Err(error) = async { Rest::patient()?.reinitialise().await }.await {
            tracing::warn!(%error, "Patroni cannot be told to clone the leader; trying again");
        }
    }
}

/// Whether there are files, and PostgreSQL can never start from them: somebody or something has
/// removed the heart of them, and what is left keeps Patroni from cloning, since it is not empty.
fn is_damaged() -> bool {
    let folder = Path::new(PGDATA);
    let filled = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    filled && !folder.join("global/pg_control").exists()
}

/// Whether this instance does not run, or only tries to, while another one leads. A replica that
/// runs is left alone, and so is one that is being cloned.
async fn starts_in_vain(pod: &str) -> bool {
    let asked = async {
        let rest = Rest::new()?;
        let status = rest.status().await?;
        let another_leads = rest.leader().await?.is_some_and(|leader| leader.name != pod);
        Ok::<_, RestError>(!status.leads && (status.is_idle() || status.is_starting()) && another_leads)
    };
    asked.await.unwrap_or(false)
}

/// Whether this instance was away for so long that the leader, whose slot for it was given up,
/// has removed the WAL with which it could catch up.
async fn is_left_behind(pod: &str, server: &Seen) -> bool {
    let alone = server.borrow().as_ref().is_some_and(|facts| facts.in_recovery && facts.lag_bytes.is_none());
    if !alone {
        return false;
    }
    let leader = async { Rest::new()?.leader().await }.await;
    let Ok(Some(leader)) = leader else { return false };
    let (Some(host), Some(end)) = (leader.host.filter(|_| leader.name != pod), end_of_wal().await) else {
        return false;
    };
    match wal_on_leader::oldest(&host).await {
        Ok(oldest) => end < oldest,
        Err(problem) => {
            tracing::debug!(problem, "which WAL the leader has is not known");
            false
        }
    }
}

/// The end of the WAL that this replica has, in bytes as LSNs count them; none while it still
/// replays some of it, or is hindered in that: then it lacks nothing yet. The startup process
/// waits in one of these two ways when it has come to the end (PostgreSQL's "Wait Events").
async fn end_of_wal() -> Option<u64> {
    const QUERY: &str = "\
SELECT pg_catalog.pg_wal_lsn_diff(
         GREATEST(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()), '0/0')::bigint
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'startup' AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')";
    let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.ok()?;
    let row = connection.client.query_opt(QUERY, &[]).await.ok()??;
    u64::try_from(row.get::<_, Option<i64>>(0)?).ok()
}
