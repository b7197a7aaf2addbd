//! How far a replica is behind that does not stream: its own server does not know, so the
//! leader's last position is read from Patroni's record. It is asked for then only.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::sync::watch;

use super::environment::Environment;
use super::server::Seen;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::over_socket;

/// How often the record is read; Patroni writes it about as often.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that a replica lacks which does not stream; none while it streams, or as long as it is
/// not known.
pub type Behind = watch::Receiver<Option<u64>>;

/// Watches from now on.
pub fn follow(environment: Environment, client: kube::Client, mut server: Seen) -> Behind {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let config_maps: Api<ConfigMap> = Api::namespaced(client, &environment.names.namespace);
        let [_, leader, ..] = environment.names.patroni_config_maps();
        loop {
            let alone =
                server.borrow_and_update().as_ref().is_some_and(|facts| facts.in_recovery && facts.lag_bytes.is_none());
            if !alone {
                sender.send_if_modified(|behind| behind.take().is_some());
                if server.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // A moment without a stream is no lag; and after it the record has a newer position.
            tokio::time::sleep(INTERVAL).await;
            let asked = tokio::time::timeout(PATIENCE, async {
                let record = config_maps.get(&leader).await.ok()?;
                let position: u64 = record.metadata.annotations?.get("optime")?.parse().ok()?;
                Some(position.saturating_sub(replayed().await?))
            });
            // While the API server does not answer, what was known last holds.
            if let Ok(Some(behind)) = asked.await {
                sender.send_if_modified(|before| before.replace(behind) != Some(behind));
            }
        }
    });
    receiver
}

async fn replayed() -> Option<u64> {
    let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.ok()?;
    let query = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::bigint";
    let row = connection.client.query_one(query, &[]).await.ok()?;
    u64::try_from(row.get::<_, Option<i64>>(0)?).ok()
}
