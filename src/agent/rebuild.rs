//! A data directory that is none: somebody or something has removed the heart of it, and what is
//! left keeps Patroni from cloning the leader, since it is not empty. While another instance leads,
//! what is here is a copy, and it is made anew. Without a leader nothing is touched.

use std::path::Path;
use std::time::Duration;

use super::patroni::rest::{Rest, RestError};
use super::postmaster;
use crate::contract::pod::PGDATA;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(5);
/// So often in a row it must be seen: files come and go while Patroni works.
const SIGHTINGS: u32 = 3;
/// Patroni's words for a member that does nothing: not one that is cloned or rewound just now.
const IDLE: [&str; 3] = ["start failed", "stopped", "crashed"];

/// Looks from now on.
pub async fn follow(pod: String) {
    let mut sightings = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        sightings = if is_damaged() && is_idle_replica(&pod).await { sightings + 1 } else { 0 };
        if sightings < SIGHTINGS {
            continue;
        }
        sightings = 0;
        tracing::warn!("the data directory has no pg_control, and another instance leads: cloning it");
        if let Err(error) = async { Rest::patient()?.reinitialise().await }.await {
            tracing::warn!(%error, "Patroni cannot be told to clone the leader; trying again");
        }
    }
}

/// Whether there are files, and PostgreSQL can never start from them.
fn is_damaged() -> bool {
    let folder = Path::new(PGDATA);
    let filled = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    filled && !folder.join("global/pg_control").exists() && postmaster::running().is_none()
}

async fn is_idle_replica(pod: &str) -> bool {
    let asked = async {
        let rest = Rest::new()?;
        let status = rest.status().await?;
        let another_leads = rest.leader().await?.is_some_and(|leader| leader != pod);
        Ok::<_, RestError>(!status.leads && IDLE.contains(&status.state.as_str()) && another_leads)
    };
    asked.await.unwrap_or(false)
}
