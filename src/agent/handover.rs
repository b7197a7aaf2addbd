//! A primary's checkpoint before it shuts down, while clients can still write. The shutdown checkpoint,
//! during which they cannot, then has little left to write. Patroni does the same before a
//! switchover, but not when it is stopped.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::Instant;

use super::environment::Environment;
use crate::contract::pod::SOCKET_DIR;
use crate::contract::shutdown::Division;
use crate::postgres::over_socket;

/// Timeout of the read of the pod's grace period.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// Writes the dirty pages, if this is a primary. Returns the deadline of PostgreSQL's shutdown. A failed
/// checkpoint is left to the shutdown.
pub async fn prepare(environment: &Environment, client: kube::Client) -> Instant {
    let began = Instant::now();
    let checkpoint = checkpoint();
    tokio::pin!(checkpoint);
    let grace = grace(environment, client);
    tokio::pin!(grace);
    let division = tokio::select! {
        () = &mut checkpoint => return began + Division::of(grace.await).shutdown,
        grace = &mut grace => Division::of(grace),
    };
    if tokio::time::timeout(division.checkpoint, checkpoint).await.is_err() {
        tracing::info!("the checkpoint continues while PostgreSQL shuts down");
    }
    began + division.shutdown
}

/// Writes the dirty pages, if this is a primary.
pub async fn checkpoint() {
    let result: Result<(), String> = async {
        let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.map_err(|e| e.to_string())?;
        let query = "SELECT pg_catalog.pg_is_in_recovery()";
        let row = connection.client.query_one(query, &[]).await.map_err(|error| error.to_string())?;
        if row.get(0) {
            return Ok(());
        }
        connection.client.batch_execute("CHECKPOINT").await.map_err(|error| error.to_string())
    }
    .await;
    if let Err(problem) = result {
        tracing::debug!(problem, "no checkpoint before the shutdown");
    }
}

/// The grace period with which the pod is being deleted, in seconds.
async fn grace(environment: &Environment, client: kube::Client) -> Option<u64> {
    let pods: Api<Pod> = Api::namespaced(client, &environment.names.namespace);
    let pod = tokio::time::timeout(READ_TIMEOUT, pods.get_metadata(&environment.pod)).await.ok()?.ok()?;
    let metadata = pod.metadata;
    let is_deleted = metadata.uid.as_deref() == Some(&environment.uid) && metadata.deletion_timestamp.is_some();
    u64::try_from(metadata.deletion_grace_period_seconds.filter(|_| is_deleted)?).ok()
}
