//! A service that writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::READY;
use super::database::{config_map, database};
use super::postgres::{column, run};
use super::sandbox::Sandbox;
use super::wait::until;

/// The migration that creates the table of [`Writer`].
pub const NOTES: (&str, &str) = ("1_notes.up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY, body text NOT NULL);");

/// Creates the database `shop` with the table of [`Writer`], and waits for Ready.
pub async fn with_notes(sandbox: &Sandbox, mut spec: Value) {
    sandbox.create(config_map("migrations", &[NOTES])).await;
    spec["migrations"] = json!({"source": {"configMap": {"name": "migrations"}}});
    sandbox.create(database("shop", spec)).await;
    sandbox.ready("shop", READY).await;
}

/// A client that writes rows one by one, reconnects when it is disconnected, and records the
/// acknowledged rows.
pub struct Writer {
    stop: Arc<AtomicBool>,
    broke: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    rows: Arc<std::sync::Mutex<Vec<u64>>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts writing into `notes` of a database.
    pub fn start(sandbox: Arc<Sandbox>, name: &str) -> Self {
        let (stop, broke) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (sent, rows) = (Arc::new(AtomicU64::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (stopped, broken, acknowledged, name) = (stop.clone(), broke.clone(), rows.clone(), name.to_owned());
        let newest = sent.clone();
        let task = tokio::spawn(async move {
            let credentials = sandbox.credentials(&name).await;
            let mut id = 0;
            while !stopped.load(Ordering::Relaxed) {
                let Ok(connection) = sandbox.login(&name, &credentials).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                while !stopped.load(Ordering::Relaxed) {
                    // A row with an unknown result is never retried with the same id.
                    id += 1;
                    newest.store(id, Ordering::Relaxed);
                    match run(&connection, &format!("INSERT INTO notes VALUES ({id}, 'row {id}')")).await {
                        Ok(_) => acknowledged.lock().expect("the rows").push(id),
                        Err(_) => {
                            broken.store(true, Ordering::Relaxed);
                            break;
                        }
                    }
                    // About a hundred rows a second are enough, and leave the machine to other tests.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        Self { stop, broke, sent, rows, task }
    }

    /// The number of acknowledged rows.
    pub fn acknowledged(&self) -> usize {
        self.rows.lock().expect("the rows").len()
    }

    /// The ids of the acknowledged rows.
    pub fn rows(&self) -> Vec<u64> {
        self.rows.lock().expect("the rows").clone()
    }

    /// The id of the last acknowledged row.
    pub fn newest(&self) -> u64 {
        self.rows.lock().expect("the rows").last().copied().unwrap_or_default()
    }

    /// The id of the last row that was sent: acknowledged, lost or on its way.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether a write failed.
    pub fn broke(&self) -> bool {
        self.broke.load(Ordering::Relaxed)
    }

    /// Waits until this number of further rows is acknowledged.
    pub async fn goes_on(&self, rows: usize) {
        let wanted = self.acknowledged() + rows;
        until("the client writes", READY, || async {
            let count = self.acknowledged();
            if count >= wanted { Ok(()) } else { Err(format!("{count} rows of {wanted}")) }
        })
        .await;
    }

    /// Ends it, and asserts that every acknowledged row exists.
    pub async fn all_are_there(self, sandbox: &Sandbox, name: &str) {
        let acknowledged = self.stop().await;
        let connection = sandbox.connect(name).await;
        let stored: BTreeSet<_> =
            column(&connection, "SELECT id FROM notes").await.expect("the rows").into_iter().collect();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains(&id.to_string())).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged rows are lost: {lost:?}", lost.len(), acknowledged.len());
    }

    /// Ends it, and returns the ids of the acknowledged rows.
    pub async fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writing client");
        std::mem::take(&mut *self.rows.lock().expect("the rows"))
    }
}
