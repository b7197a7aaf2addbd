//! A service's connection to its database, with its own timeouts: an unresponsive address must not
//! hide that another instance answers already.

use std::net::IpAddr;
use std::time::Duration;

use servicedb::postgres::{ConnectError, Connection, describe};

use crate::harness::postgres::Credentials;
use crate::harness::{Sandbox, column, login_at};
use crate::subject::NAME;

/// The client's connection settings, read once: neither Vault nor the API server is used during a
/// fault.
#[derive(Clone)]
pub struct Way {
    /// The cluster IP of the primary's Service.
    pub address: IpAddr,
    /// What the server's certificate names.
    host: String,
    /// What Vault has for the service.
    pub credentials: Credentials,
}

impl Way {
    /// The way into the database of a place.
    pub async fn into(place: &Sandbox) -> Self {
        let names = place.names(NAME);
        Self {
            address: place.address(&names.base()).await,
            host: names.primary_host(),
            credentials: place.credentials(NAME).await,
        }
    }

    /// Removes all rows.
    ///
    /// # Errors
    /// What the server said.
    pub async fn empty(&self) -> Result<(), String> {
        let connection = self.connect(Duration::from_secs(5)).await?;
        column(&connection, "DELETE FROM written").await.map(drop).map_err(|refusal| refusal.message)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self, bound: Duration) -> Result<Connection, String> {
        match tokio::time::timeout(bound, login_at(self.address, &self.host, &self.credentials)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(ConnectError::Postgres { source, .. })) => Err(format!("no connection: {}", describe(&source))),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection in {} ms", bound.as_millis())),
        }
    }
}

/// What a server says of a row that it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The server.
    pub server: IpAddr,
    /// The timeline on which it writes.
    pub timeline: u32,
}

/// Writes a row in its own transaction; returns the server that acknowledged it.
///
/// # Errors
/// The server's refusal, or that none answered: then the row may be there.
pub async fn write(connection: &Connection, writer: usize, sequence: u64, bound: Duration) -> Result<Written, String> {
    let sql = format!(
        "INSERT INTO written VALUES ({writer}, {sequence}) \
         RETURNING host(inet_server_addr()) || ' ' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
    );
    let answer = match tokio::time::timeout(bound, column(connection, &sql)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(refusal)) => return Err(refusal.message),
        Err(_) => return Err(format!("no answer in {} ms", bound.as_millis())),
    };
    let said = answer.first().map(String::as_str).unwrap_or_default();
    let parsed = said.split_once(' ').and_then(|(server, timeline)| {
        Some(Written { server: server.parse().ok()?, timeline: u32::from_str_radix(timeline, 16).ok()? })
    });
    parsed.ok_or_else(|| format!("an answer that is none: {said:?}"))
}
