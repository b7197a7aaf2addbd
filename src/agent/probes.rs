//! What the kubelet asks: `/livez` is the agent alone, `/readyz` is PostgreSQL over the held
//! local connection. Neither depends on Vault or on the API server.

use std::net::{Ipv6Addr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::contract::pod::AGENT_PORT;

/// Why the instance is not ready; none if it is.
pub type Readiness = Option<&'static str>;

/// Serves the probes from now on.
///
/// # Errors
/// If the port is taken.
pub async fn serve(readiness: watch::Receiver<Readiness>) -> std::io::Result<()> {
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, AGENT_PORT))).await {
        Ok(listener) => listener,
        // A kernel without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], AGENT_PORT))).await?,
    };
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(readiness)).await {
            tracing::error!(%error, "the probes' listener ended");
        }
    });
    Ok(())
}

fn router(readiness: watch::Receiver<Readiness>) -> Router {
    Router::new().route("/livez", get(|| async { "ok" })).route("/readyz", get(readyz)).with_state(readiness)
}

async fn readyz(State(readiness): State<watch::Receiver<Readiness>>) -> (StatusCode, &'static str) {
    match *readiness.borrow() {
        None => (StatusCode::OK, "ok"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
