//! The kubelet's probes: `/livez` is the state of the agent, `/readyz` that of PostgreSQL over the open local
//! connection, `/livez?started` the end of a start. None depends on Vault or on the API server. Beside them, at the
//! same port, `/metrics`, unless the installation has chosen TLS for it.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::contract::pod::{AGENT_PORT, START_SECONDS, STARTED};

/// The reason for which the instance is not ready; none if it is ready.
pub type Readiness = Option<&'static str>;

/// Serves the probes and the metrics from now on.
///
/// # Errors
/// If the port cannot be bound.
pub async fn serve(readiness: watch::Receiver<Readiness>, metrics: Router) -> std::io::Result<()> {
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, AGENT_PORT))).await {
        Ok(listener) => listener,
        // A kernel without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], AGENT_PORT))).await.map_err(|error| {
            std::io::Error::new(error.kind(), format!("the probes cannot be served on port {AGENT_PORT}: {error}"))
        })?,
    };
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(readiness).merge(metrics)).await {
            tracing::error!(%error, "the listener of the probes ended");
        }
    });
    Ok(())
}

fn router(readiness: watch::Receiver<Readiness>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(readiness)
}

/// Answers while the agent runs. With the query [`STARTED`] it answers when the instance is ready, or has
/// taken longer than a normal start: from then on `/readyz` has the reason.
async fn livez(RawQuery(query): RawQuery, State(mut readiness): State<watch::Receiver<Readiness>>) -> &'static str {
    if query.as_deref() != Some(STARTED) {
        return "ok";
    }
    let ready = readiness.wait_for(Option::is_none);
    match tokio::time::timeout(Duration::from_secs(START_SECONDS), ready).await {
        Ok(_) => "ok",
        Err(_) => "the start takes longer",
    }
}

async fn readyz(State(readiness): State<watch::Receiver<Readiness>>) -> (StatusCode, &'static str) {
    match *readiness.borrow() {
        None => (StatusCode::OK, "ok"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_start_is_waited_for_with_a_limit() {
        let (sender, receiver) = watch::channel(Some("starting"));
        let asked = |query: Option<&str>| livez(RawQuery(query.map(str::to_owned)), State(receiver.clone()));
        let began = Instant::now();
        assert_eq!(asked(None).await, "ok");
        assert_eq!(began.elapsed(), Duration::ZERO, "liveness depends on the agent only");
        assert_eq!(asked(Some(STARTED)).await, "the start takes longer");
        assert!(began.elapsed() < Duration::from_secs(START_SECONDS + 10), "the kubelet's timeout");
        let waiting = tokio::spawn(asked(Some(STARTED)));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let ready = Instant::now();
        sender.send_replace(None);
        assert_eq!(waiting.await.expect("no panic"), "ok");
        assert!(ready.elapsed() < Duration::from_secs(1));
    }
}
