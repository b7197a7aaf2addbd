//! Renewed certificates: the kubelet replaces the files, Patroni and PostgreSQL load them, and the
//! report then has their fingerprint: an authority signs only after every instance trusts it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::patroni::process::{Handle, Request};
use super::report::Reporter;
use crate::contract::certificates::{FILES, fingerprint};
use crate::contract::pod::{SOCKET_DIR, TLS_DIR};
use crate::postgres::over_socket;

/// Interval between two checks of the files, which are small.
const INTERVAL: Duration = Duration::from_secs(3);
/// Interval between two queries whether PostgreSQL has loaded them.
const POLL: Duration = Duration::from_secs(1);
/// The number of queries until the signal is repeated: Patroni reloads in its next loop.
const PATIENCE: u32 = 30;

/// The fingerprint of the files, as the operator compares it; none while they are replaced.
pub fn present() -> Option<String> {
    let contents: Option<Vec<_>> = FILES.iter().map(|file| std::fs::read(format!("{TLS_DIR}/{file}")).ok()).collect();
    Some(fingerprint(contents?.iter().map(Vec::as_slice)))
}

/// Has Patroni reload when the files change, and reports the fingerprint of the loaded ones. `loaded` is the
/// one that Patroni was started with.
pub async fn follow(patroni: Handle, reporter: Reporter, mut loaded: Option<String>) {
    loop {
        reporter.update(|report| report.certificates = Some(loaded.clone().unwrap_or_default()));
        tokio::time::sleep(INTERVAL).await;
        let now = present();
        if now.is_some() && now != loaded {
            tracing::info!("the certificates have changed; reloading");
            reload(&patroni).await;
            loaded = now;
        }
    }
}

/// Returns when PostgreSQL has reloaded its configuration, which Patroni requests after its own API has
/// loaded the files.
async fn reload(patroni: &Handle) {
    loop {
        let requested_at = Timestamp::now();
        patroni.request(Request::Reload).await;
        for _ in 0..PATIENCE {
            tokio::time::sleep(POLL).await;
            match loaded_at().await {
                Ok(at) if at > requested_at => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(error, "the time of PostgreSQL's last reload cannot be read; retrying"),
            }
        }
    }
}

/// The time of the last reload: a new session has the postmaster's.
async fn loaded_at() -> Result<Timestamp, String> {
    let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.map_err(|error| error.to_string())?;
    let query = "SELECT (EXTRACT(epoch FROM pg_catalog.pg_conf_load_time()) * 1000000)::bigint";
    let row = connection.client.query_one(query, &[]).await.map_err(|error| error.to_string())?;
    Timestamp::from_microsecond(row.get(0)).map_err(|error| error.to_string())
}
