//! What a primary does before it shuts down, while clients can still write: its checkpoint. The
//! one at shutdown, during which nobody can, has little left to do then. Patroni does the same
//! before a switchover, and not when it is told to end.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::environment::Environment;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::over_socket;

/// How long it may take in a pod that has its full grace.
const LONG: Duration = Duration::from_secs(10);
/// How long in one that is ended by force, or by the kubelet alone: two seconds are all it may have.
const SHORT: Duration = Duration::from_millis(200);
/// How long the API server may think about which of them it is.
const ASKING: Duration = Duration::from_millis(200);
/// Seconds of grace from which on there is time.
const FULL_GRACE: i64 = 60;

/// Writes out what a shutdown would have to, if this is a primary. What fails here, the shutdown
/// does.
pub async fn prepare(environment: &Environment, client: kube::Client) {
    let checkpoint = checkpoint();
    tokio::pin!(checkpoint);
    let limit = tokio::select! {
        () = &mut checkpoint => return,
        limit = limit(environment, client) => limit,
    };
    if tokio::time::timeout(limit, checkpoint).await.is_err() {
        tracing::info!("the checkpoint goes on while PostgreSQL shuts down");
    }
}

async fn checkpoint() {
    let asked = async {
        let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.map_err(|e| e.to_string())?;
        let question = "SELECT pg_catalog.pg_is_in_recovery()";
        let row = connection.client.query_one(question, &[]).await.map_err(|error| error.to_string())?;
        if row.get(0) {
            return Ok(());
        }
        connection.client.batch_execute("CHECKPOINT").await.map_err(|error| error.to_string())
    };
    if let Err(problem) = asked.await as Result<(), String> {
        tracing::debug!(problem, "no checkpoint before the shutdown");
    }
}

async fn limit(environment: &Environment, client: kube::Client) -> Duration {
    let pods: Api<Pod> = Api::namespaced(client, &environment.names.namespace);
    let asked = tokio::time::timeout(ASKING, pods.get_metadata(&environment.pod)).await;
    let Ok(Ok(pod)) = asked else { return SHORT };
    let metadata = pod.metadata;
    let has_time = metadata.uid.as_deref() == Some(&environment.uid)
        && metadata.deletion_timestamp.is_some()
        && metadata.deletion_grace_period_seconds.is_some_and(|grace| grace >= FULL_GRACE);
    if has_time { LONG } else { SHORT }
}
