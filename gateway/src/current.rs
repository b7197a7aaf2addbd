//! The catalogue as it is now: compared with the schema all the time, and replaced as a whole. A request keeps the one
//! that it began with, and none waits for a reload.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_postgres::Client;

use crate::catalog::{Catalog, SETTINGS, fingerprint, read};
use crate::database::Connector;
use crate::problem::{Problem, lost};

/// How long a request waits for a look at the schema that it has asked for.
const LOOK: Duration = Duration::from_secs(2);

/// How long a look may take; the server's own limit for its statements is 30 s.
const PATIENCE: Duration = Duration::from_secs(45);

/// The present catalogue.
pub struct Current {
    catalog: RwLock<Arc<Catalog>>,
    looks: watch::Sender<u64>,
    wanted: Notify,
    fresh: AtomicBool,
}

impl Current {
    /// Without a catalogue yet, of these schemas.
    pub fn new(schemas: &[String]) -> Arc<Self> {
        let nothing = Catalog { schemas: schemas.to_vec(), ..Catalog::default() };
        Arc::new(Self {
            catalog: RwLock::new(Arc::new(nothing)),
            looks: watch::channel(0).0,
            wanted: Notify::new(),
            fresh: AtomicBool::new(false),
        })
    }

    /// The catalogue.
    pub fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Whether the schema was read at all.
    pub fn is_known(&self) -> bool {
        !self.get().fingerprint.is_empty()
    }

    /// Whether the last look at the schema succeeded.
    pub fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Relaxed)
    }

    /// A number that changes with each look at the schema.
    pub fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// Looks at the schema now; whether the catalogue is another one than `than` afterwards.
    pub async fn changed(&self, than: &Arc<Catalog>) -> bool {
        if !Arc::ptr_eq(&self.get(), than) {
            return true;
        }
        let mut looks = self.looks();
        self.wanted.notify_one();
        let _ = tokio::time::timeout(LOOK, looks.changed()).await;
        !Arc::ptr_eq(&self.get(), than)
    }

    fn set(&self, catalog: Catalog) {
        *self.catalog.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(catalog);
    }
}

/// Compares the catalogue with the schema at this interval, and when a request asks for it; `on_change` runs after each
/// replacement.
pub async fn watch(current: Arc<Current>, connector: Connector, interval: Duration, on_change: impl Fn(&Catalog)) {
    let mut client = None;
    let mut first = true;
    loop {
        let asked = !first && tokio::time::timeout(interval, current.wanted.notified()).await.is_ok();
        let began = Instant::now();
        // A server that hangs is asked on another connection.
        let looked = tokio::time::timeout(PATIENCE, look(&current, &connector, &mut client)).await;
        match looked.unwrap_or_else(|_| Err(lost())) {
            Ok(Some(catalog)) => {
                tracing::info!(collections = catalog.tables.len(), "the schema has changed");
                current.set(catalog);
                on_change(&current.get());
                current.fresh.store(true, Ordering::Relaxed);
            }
            Ok(None) => current.fresh.store(true, Ordering::Relaxed),
            Err(problem) => {
                client = None;
                if current.fresh.swap(false, Ordering::Relaxed) || first {
                    tracing::warn!(code = problem.code, "the schema could not be read");
                }
            }
        }
        first = false;
        current.looks.send_modify(|looks| *looks += 1);
        if asked {
            // Requests for what is not there do not make a stream of looks.
            tokio::time::sleep((began.elapsed() * 4).clamp(Duration::from_millis(50), Duration::from_millis(500)))
                .await;
        }
    }
}

async fn look(
    current: &Current,
    connector: &Connector,
    client: &mut Option<Client>,
) -> Result<Option<Catalog>, Problem> {
    let client = match client {
        Some(open) if !open.is_closed() => open,
        place => place.insert(connector.connect(SETTINGS).await?),
    };
    let known = current.get();
    if fingerprint(client, &known.schemas).await? == known.fingerprint {
        return Ok(None);
    }
    read(client, &known.schemas).await.map(Some)
}
