//! Observes PostgreSQL on this pod over one local connection that stays open: a full connection
//! table does not look like a failure, and the end of the server is noticed at once.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::{ConnectError, Connection, describe, over_socket};

/// Interval between two attempts to connect.
const RETRY: Duration = Duration::from_millis(25);
/// The same for a server that has been down for long.
const SLOW_RETRY: Duration = Duration::from_millis(250);
/// The number of attempts before that.
const EAGER_TRIES: u32 = 2400;
/// The first and the longest interval while the server refuses every session: it logs each.
const REFUSED: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Interval between two queries on a replica: it may be promoted at any time.
const REPLICA: Duration = Duration::from_millis(250);
/// The same on a primary: a synchronous standby may disconnect at any time.
const PRIMARY: Duration = Duration::from_millis(250);
/// Timeout of a query.
const ANSWER: Duration = Duration::from_secs(5);

/// The state of the server, by its own account.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Whether it is a replica.
    pub in_recovery: bool,
    /// Such as `17.5`.
    pub version: String,
    /// The system identifier.
    pub system_identifier: String,
    /// Of a replica that streams: the bytes that it knows of and has not replayed.
    pub lag_bytes: Option<u64>,
    /// When it was started, to the second.
    pub started_at: Option<Timestamp>,
    /// Of a primary: its synchronous standbys.
    pub synchronous_standbys: Vec<String>,
    /// Of a primary: whether commits wait for a synchronous standby, and none is connected.
    pub lacks_standby: bool,
    /// Of a primary: whether any replica streams.
    pub streams: bool,
}

impl Facts {
    /// Whether this is a replica that does not stream.
    pub fn is_cut_off(&self) -> bool {
        self.in_recovery && self.lag_bytes.is_none()
    }
}

/// The last known facts; none while the server does not answer.
pub type FactsWatch = watch::Receiver<Option<Facts>>;

/// A refusal of the superuser's session on the local socket, by a server that has started.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// PostgreSQL's message.
    pub message: String,
    /// Whether the cause is a file that it cannot read.
    pub of_files: bool,
    /// When the session was refused.
    pub at: Instant,
}

/// The last refusal; none while the server accepts sessions, or does not run.
pub type RefusalWatch = watch::Receiver<Option<Refusal>>;

impl Refusal {
    /// Classifies a refusal by its SQLSTATE. A server that starts, stops or is full accepts sessions later.
    fn of(code: &str, message: &str) -> Option<Self> {
        let passes = ["57", "53", "08"].iter().any(|class| code.starts_with(class));
        // Class 58 is a system error, XX an internal error, mostly by corrupt data. 42501 and 3D000 too have
        // their cause in a file: a superuser has every right, and every cluster has the database `postgres`.
        let of_files = ["58", "XX"].iter().any(|class| code.starts_with(class)) || ["42501", "3D000"].contains(&code);
        (!passes).then(|| Self { message: message.to_owned(), of_files, at: Instant::now() })
    }

    fn from(error: &ConnectError) -> Option<Self> {
        let ConnectError::Postgres { source, .. } = error else { return None };
        Self::of(source.as_db_error()?.code().code(), &describe(source))
    }
}

const QUERY: &str = "\
SELECT pg_catalog.pg_is_in_recovery(),
       pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1),
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN
         (SELECT pg_catalog.pg_wal_lsn_diff(
                   GREATEST(latest_end_lsn, pg_catalog.pg_last_wal_receive_lsn()),
                   pg_catalog.pg_last_wal_replay_lsn())::bigint
          FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming')
       END,
       EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())::bigint,
       NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.current_setting('synchronous_standby_names') <> '',
       ARRAY(SELECT application_name FROM pg_catalog.pg_stat_replication
             WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum') ORDER BY 1),
       EXISTS (SELECT FROM pg_catalog.pg_stat_replication WHERE state = 'streaming')";

/// Observes the server from now on.
pub fn follow() -> (FactsWatch, RefusalWatch) {
    let (sender, receiver) = watch::channel(None);
    let (refused, refusals) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let mut connection = connect(&refused).await;
            let ended = hold(&mut connection, &sender).await;
            if sender.send_replace(None).is_some() {
                tracing::info!(ended, "the local connection to PostgreSQL ended");
            }
        }
    });
    (receiver, refusals)
}

async fn connect(refused: &watch::Sender<Option<Refusal>>) -> Connection {
    let mut tries = 0;
    let mut backoff = Backoff::new(REFUSED[0], REFUSED[1]);
    loop {
        match over_socket(SOCKET_DIR, "postgres", "servicedb agent").await {
            Ok(connection) => {
                refused.send_replace(None);
                return connection;
            }
            Err(error) => {
                tracing::trace!(%error, "PostgreSQL does not answer yet");
                let refusal = Refusal::from(&error);
                if refused.send_replace(refusal.clone()).is_none()
                    && let Some(refusal) = &refusal
                {
                    tracing::warn!(refusal = refusal.message, "PostgreSQL refuses every session");
                }
                if refusal.is_some() {
                    backoff.wait().await;
                    continue;
                }
                backoff.reset();
                // The server is starting, and logs each refusal.
                if matches!(error, ConnectError::Postgres { ref source, .. } if source.as_db_error().is_some()) {
                    tokio::time::sleep(RETRY * 2).await;
                }
            }
        }
        tries += 1;
        tokio::time::sleep(if tries < EAGER_TRIES { RETRY } else { SLOW_RETRY }).await;
    }
}

/// Queries until the connection ends, and returns the cause.
async fn hold(connection: &mut Connection, sender: &watch::Sender<Option<Facts>>) -> String {
    let statement = match timeout(ANSWER, connection.client.prepare(QUERY)).await {
        Ok(Ok(statement)) => statement,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "a query timed out".to_owned(),
    };
    loop {
        let row = match timeout(ANSWER, connection.client.query_one(&statement, &[])).await {
            Ok(Ok(row)) => row,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "a query timed out".to_owned(),
        };
        let facts = Facts {
            in_recovery: row.get(0),
            version: row.get(1),
            system_identifier: row.get(2),
            lag_bytes: row.get::<_, Option<i64>>(3).map(|lag| u64::try_from(lag).unwrap_or(0)),
            started_at: Timestamp::from_second(row.get(4)).ok(),
            lacks_standby: row.get::<_, bool>(5) && row.get::<_, Vec<String>>(6).is_empty(),
            synchronous_standbys: row.get(6),
            streams: row.get(7),
        };
        let wait = if facts.in_recovery { REPLICA } else { PRIMARY };
        sender.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&facts);
            *before = Some(facts);
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = connection.closed() => return "the server closed the connection".to_owned(),
        }
    }
}

#[cfg(test)]
impl Facts {
    /// A primary without a replica.
    pub fn sample() -> Self {
        Self {
            in_recovery: false,
            version: "17.5".to_owned(),
            system_identifier: "7000".to_owned(),
            lag_bytes: None,
            started_at: None,
            synchronous_standbys: vec![],
            lacks_standby: false,
            streams: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Refusal};

    #[test]
    fn a_replica_without_a_stream_is_cut_off_and_a_primary_never() {
        let replica = |lag_bytes| Facts { in_recovery: true, lag_bytes, ..Facts::sample() };
        assert!(replica(None).is_cut_off());
        assert!(!replica(Some(0)).is_cut_off() && !Facts::sample().is_cut_off());
    }

    #[test]
    fn a_refusal_for_a_file_differs_from_a_transient_one() {
        let of = |code: &str| Refusal::of(code, "could not open file").map(|refusal| refusal.of_files);
        assert_eq!(of("58P01"), Some(true), "global/pg_filenode.map is missing");
        assert_eq!(of("XX000"), Some(true), "it contains invalid data");
        assert_eq!(of("57P03"), None, "it starts");
        assert_eq!(of("53300"), None, "it is full");
        assert_eq!(of("28000"), Some(false), "pg_hba.conf");
    }
}
