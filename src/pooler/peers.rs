//! The peers of this pod, by the headless Service: a request to cancel finds its query whichever pod it meets.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;

use super::environment::Environment;
use crate::contract::pooler::POOLER_PORT;

/// Interval between two look-ups.
const INTERVAL: Duration = Duration::from_secs(2);

/// The addresses of all pods, this one among them, sorted; followed from now on.
pub fn follow(environment: &Environment) -> watch::Receiver<Vec<IpAddr>> {
    let (sender, receiver) = watch::channel(vec![environment.ip]);
    let (own, host) = (environment.ip, environment.peers_host());
    tokio::spawn(async move {
        loop {
            match lookup_host((host.as_str(), POOLER_PORT)).await {
                Ok(found) => {
                    let mut now: Vec<_> = found.map(|address| address.ip()).chain([own]).collect();
                    now.sort_unstable();
                    now.dedup();
                    sender.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
                }
                Err(error) => tracing::debug!(%error, host, "the peers are unknown"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    receiver
}
