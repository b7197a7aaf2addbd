//! Renewed certificates: the kubelet exchanges the files, Patroni and PostgreSQL load them, and
//! the operator is told once they have: an authority signs only after everybody trusts it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::patroni::process::{Handle, Order};
use super::report::Reporter;
use crate::contract::certificates::{FILES, fingerprint};
use crate::contract::pod::{SOCKET_DIR, TLS_DIR};
use crate::postgres::over_socket;

/// The interval between two checks of the files, which are small.
const INTERVAL: Duration = Duration::from_secs(3);
/// How often PostgreSQL is asked whether it has loaded them.
const ASK: Duration = Duration::from_secs(1);
/// Patroni reloads in its next loop; a signal that came to nothing is repeated.
const PATIENCE: u32 = 30;

/// What the files are, as the operator compares them; none while they are exchanged.
pub fn present() -> Option<String> {
    let contents: Option<Vec<_>> = FILES.iter().map(|file| std::fs::read(format!("{TLS_DIR}/{file}")).ok()).collect();
    Some(fingerprint(contents?.iter().map(Vec::as_slice)))
}

/// Has Patroni reload when the files are others than `loaded`, which it was started with, and
/// reports what is loaded.
pub async fn follow(patroni: Handle, reporter: Reporter, mut loaded: Option<String>) {
    loop {
        reporter.update(|report| report.certificates = Some(loaded.clone().unwrap_or_default()));
        tokio::time::sleep(INTERVAL).await;
        let now = present();
        if now.is_some() && now != loaded {
            tracing::info!("the certificates are others; reloading");
            reload(&patroni).await;
            loaded = now;
        }
    }
}

/// Returns when PostgreSQL has read its configuration again, which Patroni has it do after its
/// own API has the files.
async fn reload(patroni: &Handle) {
    loop {
        let asked_at = Timestamp::now();
        patroni.order(Order::Reload).await;
        for _ in 0..PATIENCE {
            tokio::time::sleep(ASK).await;
            match loaded_at().await {
                Ok(at) if at > asked_at => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(error, "PostgreSQL does not tell when it was configured"),
            }
        }
    }
}

/// A session that is opened now has the time of the postmaster.
async fn loaded_at() -> Result<Timestamp, String> {
    let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.map_err(|error| error.to_string())?;
    let query = "SELECT (EXTRACT(epoch FROM pg_catalog.pg_conf_load_time()) * 1000000)::bigint";
    let row = connection.client.query_one(query, &[]).await.map_err(|error| error.to_string())?;
    Timestamp::from_microsecond(row.get(0)).map_err(|error| error.to_string())
}
