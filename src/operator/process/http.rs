//! `/healthz`, `/readyz` and `/metrics`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::operator::context::metrics::Metrics;

/// The state of the endpoints.
#[derive(Clone)]
pub struct Probes {
    metrics: Metrics,
    ready: Arc<AtomicBool>,
}

impl Probes {
    /// Not ready yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, ready: Arc::default() }
    }

    /// Ready: the CRD exists, and this operator leads or is a standby.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// Listens on the address of the endpoints.
///
/// # Errors
/// If the address cannot be bound: without the endpoints the kubelet would restart the container
/// without a visible reason.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let problem = |error| format!("the probes and metrics cannot be served on {address} (--listen): {error}");
    TcpListener::bind(address).await.map_err(problem)
}

/// Serves until `stop` resolves.
pub async fn serve(listener: TcpListener, probes: Probes, stop: impl Future<Output = ()> + Send + 'static) {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes);
    if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the probes and metrics are no longer served");
    }
}

async fn readyz(State(probes): State<Probes>) -> Response {
    if probes.ready.load(Ordering::Relaxed) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the CustomResourceDefinition\n").into_response()
    }
}

async fn metrics(State(probes): State<Probes>) -> Response {
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match probes.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, content)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = taken.local_addr().expect("its address");
        let problem = listen(address).await.expect_err("it is taken");
        assert!(problem.contains(&address.to_string()) && problem.contains("--listen"), "{problem}");
    }
}
