//! The lag of a replica that does not stream: its own server does not know it, so the leader's last
//! position is read from Patroni's record. It is read only then.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::sync::watch;

use super::environment::Environment;
use super::server::{Facts, FactsWatch};
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::over_socket;

/// Interval between two reads of the record, which Patroni writes about as often.
const INTERVAL: Duration = Duration::from_secs(5);
/// Timeout of a read.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bytes that a replica without a stream lacks; none while it streams, or while they are unknown.
pub type Lag = watch::Receiver<Option<u64>>;

/// Observes the lag from now on.
pub fn follow(environment: Environment, client: kube::Client, mut server: FactsWatch) -> Lag {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let config_maps: Api<ConfigMap> = Api::namespaced(client, &environment.names.namespace);
        let [_, leader, ..] = environment.names.patroni_config_maps();
        loop {
            if !server.borrow_and_update().as_ref().is_some_and(Facts::is_cut_off) {
                sender.send_if_modified(|lag| lag.take().is_some());
                if server.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // A moment without a stream is no lag, and after it the record has a newer position.
            tokio::time::sleep(INTERVAL).await;
            let reading = tokio::time::timeout(PATIENCE, async {
                let record = config_maps.get(&leader).await.ok()?;
                let position: u64 = record.metadata.annotations?.get("optime")?.parse().ok()?;
                Some(position.saturating_sub(replayed().await?))
            });
            // While the API server does not answer, the last known lag holds.
            if let Ok(Some(lag)) = reading.await {
                sender.send_if_modified(|before| before.replace(lag) != Some(lag));
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
