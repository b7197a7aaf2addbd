//! `grpc.health.v1.Health`: as `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::serve::App;

/// How soon the end is noticed; a schema that is known, at once.
const INTERVAL: Duration = Duration::from_secs(1);
/// The server as a whole, and its service.
const NAMES: [&str; 2] = ["", "servicedb.data.v1.Data"];

/// Reports the state until the gateway ends, and then that it does. Those that watch are let go: they would hold up
/// the end.
pub(super) async fn report(reporter: HealthReporter, app: Arc<App>) {
    let set = async |status: ServingStatus| {
        for name in NAMES {
            reporter.set_service_status(name, status).await;
        }
    };
    let (mut told, mut looks) = (None, app.current.looks());
    while !app.is_ending() {
        let serving = app.current.is_known();
        if told != Some(serving) {
            set(if serving { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            told = Some(serving);
        }
        let _ = tokio::time::timeout(INTERVAL, looks.changed()).await;
    }
    set(ServingStatus::NotServing).await;
    tokio::time::sleep(INTERVAL).await;
    for name in NAMES {
        let mut reporter = reporter.clone();
        reporter.clear_service_status(name).await;
    }
}
