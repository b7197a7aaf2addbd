//! What was done, in a table of the database `postgres`: it is replicated, so that a new primary knows it, and no
//! tenant can connect there.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::plan::Rebuilt;
use crate::agent::statement::{EnsureError, execute};
use crate::api::MaintenanceDone;
use crate::contract::maintenance::REPORTED;

/// How many rows are kept.
const KEPT: i64 = 1000;

/// A row of the history: what is reported, and what an index was after its rebuild.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// As status has it.
    #[serde(flatten)]
    pub done: MaintenanceDone,
    /// The size of an index after its rebuild, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_after: Option<i64>,
    /// The rows of an index after its rebuild.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_after: Option<f64>,
}

/// What is known from the history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was done last, the newest first.
    pub done: Vec<MaintenanceDone>,
    /// Each index after its last rebuild.
    pub rebuilt: HashMap<String, Rebuilt>,
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: "the history of the maintenance".to_owned(), source }
}

/// Reads it, and creates the table where it is missing.
///
/// # Errors
/// If the server refuses.
pub async fn read(client: &Client, database: &str) -> Result<History, EnsureError> {
    let statements = "CREATE TABLE IF NOT EXISTS servicedb.maintenance (
                          id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                          database text NOT NULL,
                          entry jsonb NOT NULL
                      )";
    execute(client, "the history of the maintenance", statements).await?;
    let rows = client
        .query(
            "SELECT entry::text FROM servicedb.maintenance WHERE database = $1 ORDER BY id DESC LIMIT 1000",
            &[&database],
        )
        .await
        .map_err(failed)?;
    let mut history = History::default();
    for row in rows {
        // One that another version wrote, and that cannot be read, is left out.
        let Ok(entry) = serde_json::from_str::<Entry>(row.try_get(0).map_err(failed)?) else { continue };
        history.note(entry, false);
    }
    Ok(history)
}

impl History {
    /// Takes an entry; those of a read come from the newest to the oldest.
    fn note(&mut self, entry: Entry, is_new: bool) {
        if let (Some(bytes), Some(rows)) = (entry.bytes_after, entry.rows_after) {
            let rebuilt = Rebuilt { bytes, rows };
            if is_new {
                self.rebuilt.insert(entry.done.object.clone(), rebuilt);
            } else {
                self.rebuilt.entry(entry.done.object.clone()).or_insert(rebuilt);
            }
        }
        if is_new {
            self.done.insert(0, entry.done);
            self.done.truncate(REPORTED);
        } else if self.done.len() < REPORTED {
            self.done.push(entry.done);
        }
    }

    /// Adds an entry, here and in the table, and removes the oldest ones.
    ///
    /// # Errors
    /// If the server refuses; then it is known here alone.
    pub async fn add(&mut self, client: &Client, database: &str, entry: Entry) -> Result<(), EnsureError> {
        let text = serde_json::json!(entry).to_string();
        self.note(entry, true);
        client
            .execute(
                "INSERT INTO servicedb.maintenance (database, entry) VALUES ($1, $2::text::jsonb)",
                &[&database, &text],
            )
            .await
            .map_err(failed)?;
        let oldest = "DELETE FROM servicedb.maintenance
                      WHERE id <= (SELECT max(id) FROM servicedb.maintenance) - $1";
        client.execute(oldest, &[&KEPT]).await.map_err(failed)?;
        Ok(())
    }
}

/// The time as Kubernetes has it, in whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(crate::contract::time::seconds(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MaintenanceAction;

    fn entry(object: &str, bytes_after: Option<i64>) -> Entry {
        let done = MaintenanceDone {
            action: MaintenanceAction::Reindex,
            object: object.to_owned(),
            at: Time(Timestamp::UNIX_EPOCH),
            milliseconds: 1,
            freed_bytes: None,
            failure: None,
        };
        Entry { done, bytes_after, rows_after: bytes_after.map(|_| 1.0) }
    }

    #[test]
    fn the_newest_rebuild_counts_and_the_list_is_bounded() {
        let mut history = History::default();
        for (object, bytes) in [("b", None), ("a", Some(3)), ("a", Some(2))] {
            history.note(entry(object, bytes), false);
        }
        assert_eq!(history.rebuilt["a"].bytes, 3, "read from the newest to the oldest");
        history.note(entry("a", Some(7)), true);
        assert_eq!((history.rebuilt["a"].bytes, history.done[0].object.as_str()), (7, "a"));
        (0..100).for_each(|_| history.note(entry("c", None), true));
        assert_eq!(history.done.len(), REPORTED);
    }

    #[test]
    fn an_entry_is_one_flat_document() {
        let text = serde_json::json!(entry("a", Some(5)));
        assert_eq!((&text["object"], &text["bytesAfter"]), (&"a".into(), &5.into()));
        let read: Entry = serde_json::from_value(text).expect("an entry");
        assert_eq!(read.bytes_after, Some(5));
    }
}
