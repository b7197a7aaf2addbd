//! Renewed certificates: the kubelet replaces the files, PgBouncer loads them, and server connections of the
//! former ones are replaced when their transactions have ended.

use std::time::Duration;

use super::console::Console;
use super::process::Handle;
use crate::contract::certificates::fingerprint;
use crate::contract::pooler::{TLS_DIR, TLS_FILES};

/// Interval between two checks of the files, which are small.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long PgBouncer may take to reload.
const RELOAD: Duration = Duration::from_secs(1);

/// Has PgBouncer load the files when they change.
pub async fn follow(pooler: Handle) {
    let mut loaded = present();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = present();
        if now.is_none() || now == loaded {
            continue;
        }
        tracing::info!("the certificates have changed; reloading");
        pooler.reload();
        tokio::time::sleep(RELOAD).await;
        let renewed = async { Console::open().await?.run("RECONNECT").await };
        match renewed.await {
            Ok(()) => loaded = now,
            Err(error) => tracing::warn!(error, "server connections keep the former certificates; retrying"),
        }
    }
}

/// Identifies the content of the files; none while they are replaced.
fn present() -> Option<String> {
    let contents: Option<Vec<_>> =
        TLS_FILES.iter().map(|file| std::fs::read(format!("{TLS_DIR}/{file}")).ok()).collect();
    Some(fingerprint(contents?.iter().map(Vec::as_slice)))
}
