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

/// What the endpoints tell.
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

    /// Ready: the CRD is there, and this operator leads or stands by.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// Serves until `stop` resolves.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    probes: Probes,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes);
    axum::serve(TcpListener::bind(address).await?, routes).with_graceful_shutdown(stop).await
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
