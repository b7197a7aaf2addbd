//! The kubelet's probes and the metrics: `/livez` is the state of this process, `/readyz` that of PgBouncer.
//! Neither depends on PostgreSQL once a login was proved: while it is away, clients wait here.

use std::net::{Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics;
use crate::contract::pod::AGENT_PORT;

/// The state of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether PgBouncer answers.
    pub answers: bool,
    /// Whether a login was looked up since the start.
    pub proved: bool,
    /// Whether the pod ends.
    pub ending: bool,
    /// Whether queries are held.
    pub holds: bool,
    /// The number of planned changes for which queries were held.
    pub held_count: u64,
    /// How long they were held together, in milliseconds.
    pub held_milliseconds: u64,
}

impl State {
    /// Before anything is known.
    pub fn starting() -> Self {
        Self::default()
    }

    /// Why the pod is not ready; none if it is.
    fn refusal(&self) -> Option<&'static str> {
        if self.ending {
            Some("shutting down")
        } else if !self.answers {
            Some("PgBouncer does not answer")
        } else if !self.proved {
            Some("logins cannot be looked up in PostgreSQL yet")
        } else {
            None
        }
    }
}

/// Serves the probes from now on.
///
/// # Errors
/// If the port cannot be bound.
pub async fn serve(state: watch::Sender<State>) -> std::io::Result<()> {
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, AGENT_PORT))).await {
        Ok(listener) => listener,
        // A kernel without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], AGENT_PORT))).await?,
    };
    let (ready, metered) = (state.clone(), state);
    let readyz = move || async move {
        match ready.borrow().refusal() {
            None => (StatusCode::OK, "ok"),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        }
    };
    let metrics = move || async move {
        let state = metered.borrow().clone();
        match metrics::text(&state).await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error),
        }
    };
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the listener of the probes ended");
        }
    });
    Ok(())
}
