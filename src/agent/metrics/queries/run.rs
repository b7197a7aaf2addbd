//! Runs a team's queries: as a login that has the rights that the team granted it, each in a transaction that only
//! reads and is rolled back. A query may call the team's functions, so the client limits the time and the size of the
//! answers, and a session that does not end is ended.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::{Kind as TypeKind, Type};
use tokio_postgres::{Client, Row, Statement};

use super::definition::{Column, Definition, Usage, clipped};
use crate::agent::metrics::text::Family;
use crate::agent::reader;
use crate::api::names::PostgresNames;
use crate::postgres::{ConnectError, Connection, bounded_over_socket, describe, ident, immune};

/// The name in `pg_stat_activity`.
const APPLICATION: &str = "servicedb queries";
/// Timeout of the connection.
const CONNECT: Duration = Duration::from_secs(3);
/// The longest time of a query. The server's own limit is a second shorter, and a tenant's code may evade it.
const LONGEST: Duration = Duration::from_secs(3);
/// The most rows of a query.
pub const MOST_ROWS: usize = 200;
/// The longest content of a label, in characters.
const LONGEST_LABEL: usize = 128;
/// The maximum number of bytes that the server may send in one session.
const SIZE: usize = 4 << 20;

/// Why a query gives no metrics. No message has a value of a row: PostgreSQL's own is shown only where it has not run
/// the query yet.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement is refused.
    #[error("{}", clipped(&describe(.0)))]
    Refused(tokio_postgres::Error),
    /// It failed while it ran.
    #[error("{}", failure(.0))]
    Failed(tokio_postgres::Error),
    /// It did not end in time.
    #[error("it took longer than {} s", LONGEST.as_secs())]
    TooLong,
    /// It is no query, or its columns are others than the definition has.
    #[error("{0}")]
    Other(String),
}

/// A session for some queries.
pub struct Session {
    connection: Connection,
    process: i32,
    socket: String,
}

impl Session {
    /// Opens one.
    ///
    /// # Errors
    /// If the server refuses, or does not answer in time.
    pub async fn open(socket: &str, database: &str) -> Result<Self, ConnectError> {
        let target = || (socket.to_owned(), PostgresNames::QUERIES.to_owned());
        let opening = async {
            let login = PostgresNames::QUERIES;
            let connection = bounded_over_socket(socket, database, login, APPLICATION, immune::QUERIES, SIZE).await?;
            // Before the team's code can run, which could change the answer.
            let row = connection.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await;
            let process = row.and_then(|row| row.try_get(0)).map_err(|source| {
                let (target, user) = target();
                ConnectError::Postgres { target, user, source }
            })?;
            Ok(Self { connection, process, socket: socket.to_owned() })
        };
        let unanswered = |_| {
            let (target, user) = target();
            ConnectError::Unanswered { target, user }
        };
        timeout(CONNECT, opening).await.map_err(unanswered)?
    }

    /// Whether it can run another query.
    pub fn is_open(&self) -> bool {
        !self.connection.is_closed()
    }

    /// Runs a query; returns its metrics and the number of their samples. A session that a query has blocked is over.
    ///
    /// # Errors
    /// If the query is wrong, fails, or does not end in time.
    pub async fn run(&self, definition: &Definition) -> Result<(Vec<Family>, usize), QueryError> {
        let client = &self.connection.client;
        let running = async {
            client.batch_execute("START TRANSACTION READ ONLY").await.map_err(QueryError::Failed)?;
            let result = rows(client, definition).await;
            // Settings that the query has changed are as before.
            let end = client.batch_execute("ROLLBACK").await.map_err(QueryError::Failed);
            let rows = result?;
            end.and_then(|()| families(definition, &rows))
        };
        if let Ok(result) = timeout(LONGEST, running).await {
            return result;
        }
        // Code that still runs there may ignore both the end of its client and a request to cancel it.
        reader::end(&self.socket, self.process, PostgresNames::QUERIES).await;
        Err(QueryError::TooLong)
    }
}

/// The statement is prepared by itself first: so it is one complete statement, and its types are known. Then it is
/// wrapped, so that the server sends no more rows and no longer labels than are used.
async fn rows(client: &Client, definition: &Definition) -> Result<Vec<Row>, QueryError> {
    let inner = client.prepare(&definition.sql).await.map_err(QueryError::Refused)?;
    let wrapped = wrap(definition, &inner)?;
    let outer = client.prepare(&wrapped).await.map_err(QueryError::Refused)?;
    client.query(&outer, &[]).await.map_err(QueryError::Failed)
}

fn wrap(definition: &Definition, inner: &Statement) -> Result<String, QueryError> {
    if !inner.params().is_empty() {
        return Err(QueryError::Other("it has parameters, which nobody sets".to_owned()));
    }
    if inner.columns().is_empty() {
        return Err(QueryError::Other("it returns no rows: it must be a query".to_owned()));
    }
    let columns = definition.columns.iter().map(|column| {
        let mut found = inner.columns().iter().filter(|found| found.name() == column.name);
        match (found.next(), found.next()) {
            (Some(found), None) => expression(column, found.type_()),
            (None, _) => Err(format!("it has no column {}", column.name)),
            (Some(_), Some(_)) => Err(format!("it has two columns {}", column.name)),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(QueryError::Other)?;
    // A comment at the end of the query ends with its line.
    Ok(format!("SELECT {} FROM (\n{}\n) AS q LIMIT {}", columns.join(", "), definition.sql, MOST_ROWS + 1))
}

/// A label as text, and a value as `float8`.
fn expression(column: &Column, of: &Type) -> Result<String, String> {
    let name = format!("q.{}", ident(&column.name));
    if column.usage == Usage::Label {
        return Ok(format!("pg_catalog.\"left\"({name}::pg_catalog.text, {LONGEST_LABEL})"));
    }
    let mut base = of;
    while let TypeKind::Domain(of) = base.kind() {
        base = of;
    }
    match *base {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => {
            Ok(format!("{name}::pg_catalog.float8"))
        }
        Type::BOOL => Ok(format!("{name}::pg_catalog.int4::pg_catalog.float8")),
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::DATE | Type::INTERVAL => {
            Ok(format!("pg_catalog.date_part('epoch', {name})"))
        }
        _ => Err(format!(
            "its column {} is of the type {}, and a metric needs a number, a boolean, a time or an interval",
            column.name,
            clipped(of.name()),
        )),
    }
}

fn families(definition: &Definition, rows: &[Row]) -> Result<(Vec<Family>, usize), QueryError> {
    if rows.len() > MOST_ROWS {
        return Err(QueryError::Other(format!("it returns more than {MOST_ROWS} rows: aggregate, or limit them")));
    }
    let mut families: Vec<Option<Family>> = definition.columns.iter().map(family).collect();
    let (mut series, mut samples) = (BTreeSet::new(), 0);
    for row in rows {
        let mut labels = Vec::new();
        for (index, column) in definition.columns.iter().enumerate() {
            if column.usage == Usage::Label {
                let content = row.try_get::<_, Option<&str>>(index).map_err(QueryError::Failed)?;
                labels.push((column.name.as_str(), content.unwrap_or_default()));
            }
        }
        for (index, family) in families.iter_mut().enumerate() {
            let Some(family) = family else { continue };
            if let Some(value) = row.try_get::<_, Option<f64>>(index).map_err(QueryError::Failed)? {
                family.sample(labels.iter().copied(), value);
                samples += 1;
            }
        }
        if !series.insert(labels) {
            return Err(QueryError::Other("two of its rows have the same labels".to_owned()));
        }
    }
    Ok((families.into_iter().flatten().collect(), samples))
}

fn family(column: &Column) -> Option<Family> {
    let Usage::Value { metric, kind, help } = &column.usage else { return None };
    Some(Family::new(metric.clone(), *kind, help.clone()))
}

/// A failure by its SQLSTATE: PostgreSQL's message may quote a value.
fn failure(error: &tokio_postgres::Error) -> String {
    let Some(code) = error.code() else { return "the session ended while it ran".to_owned() };
    match code.code() {
        "42501" => format!("{} lacks a right to what it reads (SQLSTATE 42501): grant it", PostgresNames::QUERIES),
        "57014" => "it took longer than 2 s, or was cancelled (SQLSTATE 57014)".to_owned(),
        "55P03" => "it waited for a lock (SQLSTATE 55P03)".to_owned(),
        "25006" => "it would write (SQLSTATE 25006)".to_owned(),
        code => format!("it failed with SQLSTATE {code}; the message is in PostgreSQL's log"),
    }
}
