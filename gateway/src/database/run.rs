//! Running statements: collected, or row by row.

use std::error::Error;
use std::pin::Pin;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Row, RowStream};

use super::parameter::Text;
use super::pool::Lease;
use crate::problem::Problem;
use crate::sql::Statement;

/// The size of a piece of an answer.
const PIECE: usize = 32 << 10;

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

fn text(row: &Row, at: usize) -> Result<Option<&str>, Problem> {
    if at >= row.len() {
        return Ok(None);
    }
    Ok(row.try_get::<_, Option<Raw<'_>>>(at)?.map(|raw| raw.0))
}

async fn start(lease: &mut Lease, statement: &Statement) -> Result<Pin<Box<RowStream>>, Problem> {
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
    let mut stream = start(lease, statement).await?;
    let mut found = Rows::default();
    let mut size = 0;
    while let Some(row) = stream.next().await {
        let row = row?;
        let Some(value) = text(&row, 0)? else { continue };
        size += value.len();
        if size > most {
            return Err(Problem::request("SDB106", format!("the answer is larger than {most} bytes"))
                .hint("ask for fewer rows or columns, or with Prefer: return=minimal for none"));
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

/// What stands before, between and after the rows of an answer.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Before the first.
    pub before: String,
    /// Between two.
    pub between: &'static str,
    /// After the last.
    pub after: &'static str,
}

/// An answer: whole, or a stream.
pub struct Answer {
    /// Its body.
    pub body: Body,
    /// The number of its rows, if it is whole.
    pub rows: Option<u64>,
    /// Its size, if it is whole.
    pub bytes: Option<usize>,
}

/// The rows of a statement as they arrive; up to `buffer` bytes they are sent whole. In a transaction, it is committed
/// after the last.
///
/// # Errors
/// Any error of the server before the answer begins. Later, the connection of the client is closed, so that it does not
/// take a part for the whole.
pub async fn answer(
    mut lease: Lease,
    statement: &Statement,
    frame: Frame,
    buffer: usize,
    in_transaction: bool,
) -> Result<Answer, Problem> {
    lease.begin();
    let stream = match start(&mut lease, statement).await {
        Ok(stream) => stream,
        Err(problem) => {
            settle(&mut lease, &problem, in_transaction);
            return Err(problem);
        }
    };
    let mut state = Running { lease, stream, frame, piece: BytesMut::new(), rows: 0, in_transaction, done: false };
    state.piece.put_slice(state.frame.before.as_bytes());
    let mut whole = BytesMut::new();
    loop {
        match state.more().await {
            Ok(()) => {
                whole.unsplit(state.piece.split());
                if state.done {
                    let bytes = whole.len();
                    return Ok(Answer { body: Body::from(whole.freeze()), rows: Some(state.rows), bytes: Some(bytes) });
                }
                if whole.len() > buffer {
                    break;
                }
            }
            Err(problem) => {
                settle(&mut state.lease, &problem, in_transaction);
                return Err(problem);
            }
        }
    }
    let first = futures::stream::iter([Ok::<_, Problem>(whole.freeze())]);
    Ok(Answer { body: Body::from_stream(first.chain(pieces(state))), rows: None, bytes: None })
}

/// After an error that the server reported, nothing is open on a connection without a transaction.
fn settle(lease: &mut Lease, problem: &Problem, in_transaction: bool) {
    if !in_transaction && !problem.connection_lost {
        lease.end();
    }
}

fn pieces(state: Running) -> impl Stream<Item = Result<Bytes, Problem>> {
    futures::stream::unfold(Some(state), |state| async {
        let mut state = state?;
        if state.done {
            return None;
        }
        match state.more().await {
            Ok(()) => {
                let piece = state.piece.split().freeze();
                Some((Ok(piece), Some(state)))
            }
            Err(problem) => {
                tracing::warn!(code = problem.code, "an answer ended early");
                Some((Err(problem), None))
            }
        }
    })
}

/// A statement whose rows are sent.
struct Running {
    lease: Lease,
    stream: Pin<Box<RowStream>>,
    frame: Frame,
    piece: BytesMut,
    rows: u64,
    in_transaction: bool,
    done: bool,
}

impl Running {
    /// Fills the piece, or finishes.
    async fn more(&mut self) -> Result<(), Problem> {
        while self.piece.len() < PIECE {
            let Some(row) = self.stream.next().await else {
                self.piece.put_slice(self.frame.after.as_bytes());
                if self.in_transaction {
                    self.lease.client().batch_execute("COMMIT").await?;
                }
                self.lease.end();
                self.done = true;
                return Ok(());
            };
            let row = row?;
            if self.rows > 0 {
                self.piece.put_slice(self.frame.between.as_bytes());
            }
            self.rows += 1;
            self.piece.put_slice(text(&row, 0)?.unwrap_or("null").as_bytes());
        }
        Ok(())
    }
}
