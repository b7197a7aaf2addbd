//! Renewed certificates: the kubelet exchanges the files, Patroni and PostgreSQL are told.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::patroni::process::{Handle, Order};
use crate::contract::pod::TLS_DIR;

/// How often the files are looked at; the kubelet itself takes up to a minute.
const INTERVAL: Duration = Duration::from_secs(10);

/// Tells Patroni to reload when a file of the certificates has changed.
pub async fn follow(patroni: Handle) {
    let mut known = fingerprint();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = fingerprint();
        // Unreadable for a moment while they are exchanged.
        if now.is_some() && now != known {
            tracing::info!("the certificates were renewed; reloading");
            patroni.order(Order::Reload).await;
            known = now;
        }
    }
}

fn fingerprint() -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for file in ["ca.crt", "server.crt", "replicator.crt", "rewinder.crt", "patroni.crt"] {
        hash.update(std::fs::read(format!("{TLS_DIR}/{file}")).ok()?);
    }
    Some(hash.finalize().into())
}
