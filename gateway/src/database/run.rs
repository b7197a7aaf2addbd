//! Running statements whose rows are collected.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use futures::{StreamExt, try_join};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row, RowStream, Statement as Prepared};

use super::end::{End, Ended, end};
use super::explain::root;
use super::lease::Lease;
use super::outcome;
use super::parameter::Text;
use super::wait::in_time;
use crate::problem::{Problem, lost};
use crate::sql::{Charge, Statement};

/// What a request's last statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// One without a transaction.
    Read,
    /// One of a transaction that reads.
    ReadInTransaction,
    /// One of a transaction that writes.
    Write,
}

/// What a statement returned.
#[derive(Debug, Default)]
pub struct Rows {
    /// A text each, with the version of the row where there is one.
    pub rows: Vec<(String, Option<String>)>,
    /// How many rows the statement read or changed.
    pub affected: u64,
    /// The version of what a statement with one has read.
    pub(super) version: Option<String>,
}

/// A column's bytes, which are text.
struct Raw<'a>(&'a str);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(std::str::from_utf8(raw)?))
    }

    fn accepts(ty: &Type) -> bool {
        [Type::TEXT, Type::JSON].contains(ty)
    }
}

pub(super) fn text(row: &Row, at: usize) -> Result<Option<&str>, Problem> {
    if at >= row.len() {
        return Ok(None);
    }
    Ok(row.try_get::<_, Option<Raw<'_>>>(at)?.map(|raw| raw.0))
}

/// The version in a row of a statement with one.
pub(super) fn version_of(row: &Row) -> Result<Option<String>, Problem> {
    Ok(text(row, row.len().saturating_sub(1))?.map(str::to_owned))
}

/// A statement as the server knows it, which is about to run: its caller is charged.
///
/// # Errors
/// Any error of the server.
pub(super) async fn prepared(lease: &mut Lease, statement: &Statement) -> Result<Prepared, Problem> {
    let prepared = lease.prepare(&statement.sql).await?;
    if prepared.params().len() != statement.parameters.len() {
        return Err(Problem::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "SDB901",
            "a parameter of the statement was not used",
        ));
    }
    lease.charge(statement);
    Ok(prepared)
}

/// Sends a statement, when this is polled first.
///
/// # Errors
/// Any error of the server.
pub(super) async fn start(
    client: &Client,
    prepared: &Prepared,
    statement: &Statement,
) -> Result<Pin<Box<RowStream>>, Problem> {
    let parameters = statement.parameters.iter().map(|value| Text(value.as_deref()));
    Ok(Box::pin(client.query_raw(prepared, parameters).await?))
}

/// Begins a transaction, if there is one to begin.
pub(super) async fn begin(client: &Client, opening: Option<String>) -> Result<(), Problem> {
    match opening {
        // What follows may have been carried out without a transaction.
        Some(opening) => client.batch_execute(&opening).await.map_err(|_| lost()),
        None => Ok(()),
    }
}

/// All rows of a statement, if they are no larger than this.
///
/// # Errors
/// Any error of the server, and larger rows. The lease is clean after errors that the server reported.
pub async fn exactly(lease: &mut Lease, statement: &Statement, most: usize) -> Result<Rows, Problem> {
    let patience = lease.patience();
    let run = async {
        let prepared = prepared(lease, statement).await?;
        let (client, opening) = (lease.client(), lease.take_opening());
        let ((), rows) = try_join!(begin(&client, opening), rows(&client, &prepared, statement, most))?;
        Ok(rows)
    };
    in_time(patience, run).await
}

async fn rows(client: &Client, prepared: &Prepared, statement: &Statement, most: usize) -> Result<Rows, Problem> {
    let mut stream = start(client, prepared, statement).await?;
    let mut found = Rows::default();
    let mut size = 0;
    while let Some(row) = stream.next().await {
        let row = row?;
        if statement.versioned && found.version.is_none() {
            found.version = version_of(&row)?;
        }
        let version = if statement.versioned { None } else { text(&row, 1)? };
        let Some(value) = text(&row, 0)? else { continue };
        // Both are kept until the last row is there.
        size += value.len() + version.map_or(0, str::len);
        if size > most {
            let mut problem = Problem::request("SDB106", format!("the answer is larger than {most} bytes"))
                .hint("ask for fewer rows or columns, or with Prefer: return=minimal for none");
            // The rest is still on its way: the connection is closed, and so is the transaction.
            problem.connection_lost = true;
            return Err(problem);
        }
        found.rows.push((value.to_owned(), version.map(str::to_owned)));
    }
    found.affected = stream.rows_affected().unwrap_or(found.rows.len() as u64);
    Ok(found)
}

/// As [`exactly`], for the last statement of a request: what begins its transaction, what marks it, and what ends it are
/// sent with the statement, so that all of it is one round trip.
///
/// # Errors
/// Any error of the server, of the commit too, and larger rows; that it was committed, and its rows were lost.
pub(super) async fn at_last(
    lease: &mut Lease,
    statement: &Statement,
    most: usize,
    last: Last,
) -> Result<Rows, Problem> {
    let patience = lease.patience();
    let known = in_time(patience, async {
        let known = prepared(lease, statement).await?;
        Ok((known, if last == Last::Write { Some(lease.mark().await?) } else { None }))
    });
    let ((known, marking), client, opening) = (known.await?, lease.client(), lease.take_opening());
    let (mut marked, mut found) = (None, None);
    let how = if last == Last::Read { End::Restore } else { End::Commit };
    let all = async {
        let mark = async {
            if let Some(marking) = &marking {
                marked = outcome::mark(&client, marking).await?;
            }
            Ok(())
        };
        // Only what the server reports lets the rest come to its end.
        let rows = async {
            match rows(&client, &known, statement, most).await {
                Err(problem) if problem.connection_lost => Err(problem),
                rows => {
                    found = Some(rows);
                    Ok(())
                }
            }
        };
        let ended = async {
            match end(Arc::clone(&client), how).await {
                Ended { transaction: Err(problem), .. } if problem.connection_lost => Err(problem),
                ended => Ok(ended),
            }
        };
        try_join!(begin(&client, opening), mark, rows, ended)
    };
    let all = tokio::time::timeout(patience, all).await.map_err(|_| lost())?;
    match (all, marked, found) {
        (Ok((.., ended)), _, Some(rows)) => {
            lease.set_restored(ended.restored);
            rows.and_then(|rows| ended.transaction.map(|()| rows))
        }
        // The answer to the statement or to the commit was lost: unlike an error that the server gave for the statement.
        (Err(problem), Some(mark), found) if found.is_some() || problem.is_unknown() => {
            outcome::asked(lease.pool().connector(), &mark, None, problem).await?;
            found.unwrap_or_else(|| Err(outcome::unanswered()))
        }
        (Err(problem), ..) => Err(problem),
        (Ok(_), _, None) => Err(lost()),
    }
}

/// The number of rows that the planner expects.
///
/// # Errors
/// Any error of the server.
pub async fn plan_rows(lease: &mut Lease, statement: &Statement) -> Result<u64, Problem> {
    let sql = format!("EXPLAIN (FORMAT JSON) {}", statement.sql);
    let explain = Statement { sql, charge: Charge::Least, ..statement.clone() };
    let found = exactly(lease, &explain, 4 << 20).await?;
    let root = found.rows.first().and_then(|(text, _)| root(text));
    let unread = || Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "SDB902", "the plan could not be read");
    root.map(|root| root.rows as u64).ok_or_else(unread)
}
