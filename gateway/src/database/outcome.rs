//! What became of a commit whose answer was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::connect::Connector;
use super::end::{End, Ended, end};
use crate::catalog::SETTINGS;
use crate::problem::{Problem, lost};

/// How long the database is asked.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(300);

/// The transaction and the timeline, read before the commit. A transaction id says nothing on another timeline: it can
/// have been given out again there. Nothing, if the transaction has written nothing.
const WRITTEN: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text, \
                       pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// The same before the one write of a transaction: nothing that it runs can have done anything to the prepared statement.
/// A server that only reads gives out no transaction ids: the write itself is told so.
pub(super) const MARK: &str = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text, \
                               pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) \
                               WHERE NOT pg_catalog.pg_is_in_recovery()";

/// A transaction that is about to commit.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    id: String,
    timeline: String,
}

impl Mark {
    /// Of what the server has said.
    pub(super) fn new(id: String, timeline: String) -> Self {
        Self { id, timeline }
    }
}

/// A record that a transaction has begun, of a request with an idempotency key: it is there if the transaction is committed.
#[derive(Debug)]
pub(super) struct Claim {
    /// Whose key it is.
    pub(super) caller: Arc<str>,
    /// The key.
    pub(super) key: String,
    /// Another one for each time that somebody tries to carry the request out.
    pub(super) attempt: String,
    /// The transaction.
    pub(super) mark: Mark,
    /// Where the row is.
    pub(super) place: String,
}

/// Marks a transaction, by [`MARK`].
///
/// # Errors
/// Any error of the server.
pub(super) async fn mark(client: &Client, prepared: &Statement) -> Result<Option<Mark>, Problem> {
    let Some(row) = client.query_opt(prepared, &[]).await? else { return Ok(None) };
    Ok(Some(Mark { id: row.try_get(0)?, timeline: row.try_get(1)? }))
}

/// Commits. If the answer is lost, the database is asked what became of it.
///
/// # Errors
/// If the server did not answer in time: nothing is known.
pub(super) async fn commit(
    client: Arc<Client>,
    connector: &Connector,
    patience: Duration,
    claim: Option<&Claim>,
) -> Result<Ended, Problem> {
    // Sent together, so that the mark costs no round trip. If it fails, the server has rolled back.
    let both = futures::future::join(client.simple_query(WRITTEN), end(Arc::clone(&client), End::Commit));
    let (written, mut ended) = match (tokio::time::timeout(patience, both).await, claim) {
        (Ok(both), _) => both,
        (Err(_), None) => return Err(lost()),
        (Err(_), Some(claim)) => {
            let transaction = asked(connector, &claim.mark, Some(claim), lost()).await;
            return Ok(Ended { transaction, restored: false });
        }
    };
    let mark = written.map_err(Problem::from).map(|messages| read(&messages));
    ended.transaction = match (mark, ended.transaction) {
        (Ok(_), Ok(())) => Ok(()),
        (Err(problem), Ok(())) => Err(problem),
        (mark, Err(problem)) if problem.connection_lost => match (claim, mark) {
            // Known since it began.
            (Some(claim), _) => asked(connector, &claim.mark, Some(claim), lost()).await,
            (None, Ok(Some(mark))) => asked(connector, &mark, None, lost()).await,
            (None, _) => Err(problem),
        },
        (_, Err(problem)) => Err(problem),
    };
    Ok(ended)
}

fn read(messages: &[SimpleQueryMessage]) -> Option<Mark> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(Mark { id: row.get(0)?.to_owned(), timeline: row.get(1)?.to_owned() }),
        _ => None,
    })
}

/// What became of a transaction whose end was lost: nothing else than `unknown`, if the database cannot tell.
///
/// # Errors
/// That it was rolled back, or `unknown`.
pub(super) async fn asked(
    connector: &Connector,
    mark: &Mark,
    claim: Option<&Claim>,
    unknown: Problem,
) -> Result<(), Problem> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match tokio::time::timeout(PATIENCE, status(connector, mark, claim)).await {
            Ok(Ok(Some(status))) if status == "committed" => return Ok(()),
            Ok(Ok(Some(status))) if status == "aborted" => {
                let mut problem =
                    Problem::unavailable("SDB405", "the connection to the database was lost, and nothing was written");
                problem.connection_lost = true;
                return Err(problem);
            }
            // Another timeline without the record of the request, or an id of long ago.
            Ok(Ok(None)) => break,
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
    Err(unknown)
}

/// The answer to a write that is known to be committed, and whose rows were lost. It is no 503: clients repeat that, and
/// would carry the write out again.
pub(super) fn unanswered() -> Problem {
    let message =
        "the write was carried out and committed, and its answer was lost with the connection to the database";
    let mut problem =
        Problem::new(http::StatusCode::GONE, "SDB408", message).hint("do not repeat it: read what it wrote");
    problem.connection_lost = true;
    problem
}

/// Nothing, if this server cannot know. On another timeline only the record of the request proves that it was committed:
/// the attempt is named by no transaction's id.
async fn status(connector: &Connector, mark: &Mark, claim: Option<&Claim>) -> Result<Option<String>, Problem> {
    let client = connector.connect(SETTINGS).await?;
    let question = "SELECT CASE WHEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) = $1 \
                    THEN pg_catalog.pg_xact_status($2::pg_catalog.text::pg_catalog.xid8) END";
    let status: Option<String> = client.query_one(question, &[&mark.timeline, &mark.id]).await?.get(0);
    let (None, Some(claim)) = (&status, claim) else { return Ok(status) };
    let question = "SELECT 'committed' FROM servicedb.gateway_requests \
                    WHERE caller = $1 AND key = $2 AND attempt = $3::pg_catalog.text::pg_catalog.uuid";
    let record = client.query_opt(question, &[&&*claim.caller, &claim.key, &claim.attempt]).await?;
    Ok(record.map(|record| record.get(0)))
}
