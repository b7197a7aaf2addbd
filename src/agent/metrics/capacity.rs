//! Keeps the samples of [`crate::contract::capacity`] on the volume, and reports the growth. Every instance keeps its
//! own, so that a new primary has them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::session::Session;
use super::text::{Family, Kind};
use crate::agent::desired::DesiredState;
use crate::agent::report::Reporter;
use crate::agent::volume;
use crate::contract::capacity::{Capacity, Growth, History, VERSION};
use crate::contract::pod::{SOCKET_DIR, VOLUME};

/// The file on the volume.
const FILE: &str = "capacity.json";
/// Interval between two checks whether a sample is due, and between two attempts at one.
const INTERVAL: Duration = Duration::from_secs(60);

/// The last known growth.
pub type CapacityWatch = watch::Receiver<Option<Arc<Capacity>>>;

/// Takes samples from now on.
pub fn follow(desired: DesiredState, reporter: Reporter) -> CapacityWatch {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let path = Path::new(VOLUME).join(FILE);
        let mut history = read(&path).await;
        loop {
            if history.is_due(Timestamp::now()) {
                let database = desired.borrow().as_ref().map(|desired| desired.database.clone());
                match sample(database.as_deref(), &mut history).await {
                    Ok(()) => write(&path, &history).await,
                    Err(error) => tracing::debug!(%error, "the sizes cannot be read; retrying"),
                }
            }
            let capacity = history.capacity(volume::free().ok());
            reporter.update(|report| report.capacity.clone_from(&capacity));
            sender.send_replace(capacity.map(Arc::new));
            tokio::time::sleep(INTERVAL).await;
        }
    });
    receiver
}

async fn sample(database: Option<&str>, history: &mut History) -> Result<(), super::session::SessionError> {
    let Some(database) = database else { return Ok(()) };
    let sample = Session::of_tenant(SOCKET_DIR, database).await?.sizes().await?;
    history.add(sample);
    Ok(())
}

/// A history that cannot be read begins anew.
async fn read(path: &Path) -> History {
    let text = tokio::fs::read(path).await.unwrap_or_default();
    serde_json::from_slice::<History>(&text).ok().filter(|history| history.version == VERSION).unwrap_or_default()
}

/// A history that cannot be written, as on a full volume, is lost with the agent.
async fn write(path: &Path, history: &History) {
    let new = path.with_extension("new");
    let result = async {
        tokio::fs::write(&new, serde_json::to_vec(history)?).await?;
        tokio::fs::rename(&new, path).await
    };
    if let Err(error) = result.await {
        tracing::debug!(%error, "the sizes cannot be kept on the volume");
    }
}

/// The metrics.
pub fn families(capacity: &Capacity) -> Vec<Family> {
    let family = |name, help| Family::new(name, Kind::Gauge, help);
    let mut database = family("servicedb_database_growth_bytes", "Growth of the database in a day and in a week");
    let mut wal = family("servicedb_wal_written_bytes", "WAL that was written in a day and in a week");
    let mut tables = family("servicedb_table_growth_bytes", "Growth of the largest tables in a day and in a week");
    let windows = |growth: &Growth| [("1d", growth.day), ("7d", growth.week)];
    for (window, bytes) in windows(&capacity.database) {
        bytes.into_iter().for_each(|bytes| database.sample([("window", window)], bytes as f64));
    }
    for (window, bytes) in windows(&capacity.wal) {
        bytes.into_iter().for_each(|bytes| wal.sample([("window", window)], bytes as f64));
    }
    for (name, growth) in &capacity.tables {
        for (window, bytes) in windows(growth) {
            bytes
                .into_iter()
                .for_each(|bytes| tables.sample([("table", name.as_str()), ("window", window)], bytes as f64));
        }
    }
    let full = capacity.full_in_days.map(|days| {
        let help = "Days until the volume is full, as the database grows";
        Family::single("servicedb_volume_full_days", Kind::Gauge, help, days as f64)
    });
    [database, wal, tables].into_iter().chain(full).collect()
}
