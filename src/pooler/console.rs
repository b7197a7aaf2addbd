//! PgBouncer's admin console, on the local socket.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use super::config::CONSOLE;
use crate::contract::pooler::{POOLER_PORT, RUN_DIR};
use crate::postgres::{Connection, local_console};

/// Timeout of a command: PgBouncer answers from memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// A row of a table, by the names of its columns.
pub type Row = BTreeMap<String, String>;

/// An open console.
pub struct Console {
    connection: Connection,
}

impl Console {
    /// Opens the console.
    ///
    /// # Errors
    /// If PgBouncer does not run or does not answer.
    pub async fn open() -> Result<Self, String> {
        let connecting = local_console(RUN_DIR, POOLER_PORT, CONSOLE);
        let connection = tokio::time::timeout(PATIENCE, connecting).await.map_err(|_| unanswered())?;
        Ok(Self { connection: connection.map_err(|error| error.to_string())? })
    }

    /// The table that a `SHOW` command prints.
    ///
    /// # Errors
    /// If PgBouncer does not answer.
    pub async fn table(&self, command: &str) -> Result<Vec<Row>, String> {
        let asked = self.connection.client.simple_query(command);
        let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| unanswered())?;
        let answer = answer.map_err(|error| crate::postgres::describe(&error))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                let cell = |(index, column): (usize, &tokio_postgres::SimpleColumn)| {
                    (column.name().to_owned(), row.get(index).unwrap_or_default().to_owned())
                };
                Some(row.columns().iter().enumerate().map(cell).collect())
            }
            _ => None,
        };
        Ok(answer.into_iter().filter_map(row).collect())
    }

    /// Runs a command without a result.
    ///
    /// # Errors
    /// If PgBouncer refuses or does not answer.
    pub async fn run(&self, command: &str) -> Result<(), String> {
        self.table(command).await.map(drop)
    }
}

fn unanswered() -> String {
    format!("PgBouncer does not answer within {} s", PATIENCE.as_secs())
}
