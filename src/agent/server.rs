//! PostgreSQL on this pod, seen over one local connection that is held: a full connection
//! table does not look like death, and the end of the server is noticed at once.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::contract::pod::SOCKET_DIR;
use crate::postgres::{ConnectError, Connection, over_socket};

/// How often a connection is tried while there is none.
const RETRY: Duration = Duration::from_millis(25);
/// How often a server is tried that has been away for long.
const SLOW_RETRY: Duration = Duration::from_millis(250);
/// Tries before they are slow.
const EAGER_TRIES: u32 = 2400;
/// How often a replica is asked: it may be promoted at any time.
const REPLICA: Duration = Duration::from_millis(250);
/// How often a primary is asked: a synchronous standby may go at any time.
const PRIMARY: Duration = Duration::from_millis(250);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Whether it follows.
    pub in_recovery: bool,
    /// Such as `17.5`.
    pub version: String,
    /// The system identifier.
    pub system_identifier: String,
    /// Of a replica that streams: bytes that it knows of and has not replayed.
    pub lag_bytes: Option<u64>,
    /// When it was started, to the second.
    pub started_at: Option<Timestamp>,
    /// Of a primary: its synchronous standbys.
    pub synchronous_standbys: Vec<String>,
    /// Of a primary: whether commits wait for a synchronous standby that is not there.
    pub lacks_standby: bool,
    /// Of a primary: whether any replica streams.
    pub streams: bool,
}

/// The server as last seen; none while it does not answer.
pub type Seen = watch::Receiver<Option<Facts>>;

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

/// Watches the server from now on.
pub fn follow() -> Seen {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let mut connection = connect().await;
            let ended = hold(&mut connection, &sender).await;
            if sender.send_replace(None).is_some() {
                tracing::info!(ended, "the local connection to PostgreSQL ended");
            }
        }
    });
    receiver
}

async fn connect() -> Connection {
    let mut tries = 0;
    loop {
        match over_socket(SOCKET_DIR, "postgres", "servicedb agent").await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::trace!(%error, "PostgreSQL does not answer yet");
                // It is starting, and logs each refusal.
                if matches!(error, ConnectError::Postgres { ref source, .. } if source.as_db_error().is_some()) {
                    tokio::time::sleep(RETRY * 2).await;
                }
            }
        }
        tries += 1;
        tokio::time::sleep(if tries < EAGER_TRIES { RETRY } else { SLOW_RETRY }).await;
    }
}

/// Asks until the connection is over; why it is.
async fn hold(connection: &mut Connection, sender: &watch::Sender<Option<Facts>>) -> String {
    let statement = match timeout(ANSWER, connection.client.prepare(QUERY)).await {
        Ok(Ok(statement)) => statement,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "no answer in time".to_owned(),
    };
    loop {
        let row = match timeout(ANSWER, connection.client.query_one(&statement, &[])).await {
            Ok(Ok(row)) => row,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "no answer in time".to_owned(),
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
            () = connection.closed() => return "the server closed it".to_owned(),
        }
    }
}
