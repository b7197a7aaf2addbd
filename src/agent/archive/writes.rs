//! With `spec.backup.whenVolumeFills: StopWrites`: sessions are read-only while WAL that cannot be archived fills
//! the volume.

use std::time::Duration;

use tokio_postgres::Client;

use crate::agent::ensure;
use crate::agent::report::{Area, Reporter};
use crate::api::conditions::reason;
use crate::postgres::describe;

/// Timeout of the change.
const LIMIT: Duration = Duration::from_secs(10);

/// A superuser alone can set it there, and Patroni does not; a copy of the data directory may bring it along.
const SET: &str = "
    SELECT COALESCE(bool_or(setting = 'on'), false) FROM pg_catalog.pg_file_settings
    WHERE name = 'default_transaction_read_only' AND sourcefile LIKE '%/postgresql.auto.conf'";
/// Transactions that have written keep their right to, also those of pg_cron's jobs. Servicedb's own are few and short.
const END_WRITERS: &str = "
    SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE backend_xid IS NOT NULL AND backend_type IN ('client backend', 'pg_cron')
      AND pid <> pg_catalog.pg_backend_pid() AND application_name NOT LIKE 'servicedb%'";

/// Whether the primary's sessions are read-only.
pub struct Writes<'a> {
    reporter: &'a Reporter,
    /// As the server has it; none: not known yet.
    stopped: Option<bool>,
}

impl<'a> Writes<'a> {
    /// Of a leader that has not looked yet.
    pub fn new(reporter: &'a Reporter) -> Self {
        Self { reporter, stopped: None }
    }

    /// Stops writes while WAL waits for this store, or lets them resume.
    pub async fn follow(&mut self, waits_for: Option<&str>) {
        let stops = waits_for.is_some();
        if self.stopped != Some(stops) {
            match tokio::time::timeout(LIMIT, apply(stops)).await {
                Ok(Ok(changed)) => {
                    self.stopped = Some(stops);
                    match (changed, stops) {
                        (true, true) => tracing::warn!("the volume is nearly full: sessions are read-only"),
                        (true, false) => tracing::info!("sessions may write again"),
                        (false, _) => {}
                    }
                }
                Ok(Err(error)) => tracing::warn!(error, stops, "whether sessions may write cannot be changed"),
                Err(_) => tracing::warn!(stops, "the change of whether sessions may write timed out"),
            }
        }
        let trouble = waits_for.map(|store| {
            let message = format!(
                "WAL that waits for the store {store} fills the volume: sessions are read-only until there is room \
                 (spec.backup.whenVolumeFills); increase spec.storage.size, or correct what ContinuousArchiving reports"
            );
            (reason::WRITES_STOPPED, message)
        });
        self.reporter.trouble(Area::Writes, trouble);
    }
}

/// Changes the server's setting, if it is another; returns whether it was.
async fn apply(stops: bool) -> Result<bool, String> {
    let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
    let client = &connection.client;
    let change = change(client, stops).await.map_err(|error| describe(&error))?;
    if change && stops {
        client.execute(END_WRITERS, &[]).await.map_err(|error| describe(&error))?;
    }
    Ok(change)
}

async fn change(client: &Client, stops: bool) -> Result<bool, tokio_postgres::Error> {
    if client.query_one(SET, &[]).await?.try_get::<_, bool>(0)? == stops {
        return Ok(false);
    }
    // Each alone: it cannot be part of a transaction.
    client
        .batch_execute(if stops {
            "ALTER SYSTEM SET default_transaction_read_only = on"
        } else {
            "ALTER SYSTEM RESET default_transaction_read_only"
        })
        .await?;
    client.batch_execute("SELECT pg_catalog.pg_reload_conf()").await?;
    Ok(true)
}
