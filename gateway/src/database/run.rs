//! Running statements whose rows are collected.

use std::error::Error;
use std::pin::Pin;

use futures::StreamExt;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Row, RowStream};

use super::parameter::Text;
use super::pool::Lease;
use super::wait::in_time;
use crate::problem::Problem;
use crate::sql::Statement;

/// What a statement returned.
#[derive(Debug, Default)]
pub struct Rows {
    /// A text each, with the version of the row where there is one.
    pub rows: Vec<(String, Option<String>)>,
    /// How many rows the statement read or changed.
    pub affected: u64,
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

/// Sends a statement.
///
/// # Errors
/// Any error of the server.
pub(super) async fn start(lease: &mut Lease, statement: &Statement) -> Result<Pin<Box<RowStream>>, Problem> {
    let prepared = lease.prepare(&statement.sql).await?;
    if prepared.params().len() != statement.parameters.len() {
        return Err(Problem::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "SDB901",
            "a parameter of the statement was not used",
        ));
    }
    let parameters = statement.parameters.iter().map(|value| Text(value.as_deref()));
    Ok(Box::pin(lease.client().query_raw(&prepared, parameters.collect::<Vec<_>>()).await?))
}

/// All rows of a statement, if they are no larger than this.
///
/// # Errors
/// Any error of the server, and larger rows. The lease is clean after errors that the server reported.
pub async fn exactly(lease: &mut Lease, statement: &Statement, most: usize) -> Result<Rows, Problem> {
    in_time(lease.patience(), collected(lease, statement, most)).await
}

async fn collected(lease: &mut Lease, statement: &Statement, most: usize) -> Result<Rows, Problem> {
    let mut stream = start(lease, statement).await?;
    let mut found = Rows::default();
    let mut size = 0;
    while let Some(row) = stream.next().await {
        let row = row?;
        let Some(value) = text(&row, 0)? else { continue };
        size += value.len();
        if size > most {
            let mut problem = Problem::request("SDB106", format!("the answer is larger than {most} bytes"))
                .hint("ask for fewer rows or columns, or with Prefer: return=minimal for none");
            // The rest is still on its way: the connection is closed, and so is the transaction.
            problem.connection_lost = true;
            return Err(problem);
        }
        found.rows.push((value.to_owned(), text(&row, 1)?.map(str::to_owned)));
    }
    found.affected = stream.rows_affected().unwrap_or(found.rows.len() as u64);
    Ok(found)
}

/// The number of rows that the planner expects.
///
/// # Errors
/// Any error of the server.
pub async fn plan_rows(lease: &mut Lease, statement: &Statement) -> Result<u64, Problem> {
    let explain = Statement { sql: format!("EXPLAIN (FORMAT JSON) {}", statement.sql), ..statement.clone() };
    let found = exactly(lease, &explain, 4 << 20).await?;
    let plan = found.rows.first().and_then(|(text, _)| serde_json::from_str::<serde_json::Value>(text).ok());
    let rows = plan.and_then(|plan| plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_u64));
    rows.ok_or_else(|| Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "SDB902", "the plan could not be read"))
}
