//! Reads that a replica may answer, by `Prefer: read=replica`. `Read-After` has the position that the replica must have
//! reached: the answer to a write with `Prefer: read-after` has it.

use std::time::Duration;

use http::{HeaderName, Method};

use super::operation::{Operation, Reply, Target};
use super::transaction::TXN_ID;
use super::{App, idempotency, perform, read};
use crate::catalog::Catalog;
use crate::database::{Answer, Caller, Position, Session, position};
use crate::problem::Problem;

/// The header with a position, and the preference for it.
pub const READ_AFTER: &str = "read-after";
/// The preference for a replica.
pub const READ_REPLICA: &str = "read=replica";

/// How long the answer to a committed write waits for its position.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer of a replica; none, if the request asks for none, or the primary is to answer it.
///
/// # Errors
/// Those that the primary would give, too.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    operation: &Operation,
    catalog: &Catalog,
) -> Result<Option<(Reply, Option<Answer>)>, Problem> {
    if !reads(operation) || !operation.prefer()?.replica {
        return Ok(None);
    }
    let after = after(operation)?;
    let answered = match &app.replicas {
        // Its future is large, and most requests have none.
        Some(_) => Box::pin(attempt(app, caller, operation, catalog, after.as_ref())).await?,
        None => None,
    };
    app.metrics.wished_replica(answered.is_some());
    Ok(answered.map(|(mut reply, answer)| {
        reply.apply(READ_REPLICA);
        (reply, answer)
    }))
}

async fn attempt(
    app: &App,
    caller: &Caller,
    operation: &Operation,
    catalog: &Catalog,
    after: Option<&Position>,
) -> Result<Option<(Reply, Option<Answer>)>, Problem> {
    let Some(pool) = &app.replicas else { return Ok(None) };
    let plan = read::planned(catalog, &app.config, caller, operation)?;
    let begin = plan.as_ref().and_then(read::Plan::begin);
    let Some(mut session) = Session::on_replica(pool, caller, begin, after).await else { return Ok(None) };
    let answered = match plan {
        Some(plan) => plan.stream(session, &app.config).await.map(|(reply, answer)| (reply, Some(answer))),
        None => {
            let result = perform(&mut session, catalog, &app.config, operation).await;
            session.finish(result).await.map(|reply| (reply, None))
        }
    };
    match answered {
        Ok(answered) => Ok(Some(answered)),
        Err(problem) if may_differ(&problem) => {
            tracing::debug!(code = problem.code, "a replica could not answer");
            Ok(None)
        }
        Err(problem) => Err(problem),
    }
}

/// Whether the primary may answer where a replica gave this error: it can write, has newer tables and roles, and cancels
/// no statement for what it replays. A statement that takes too long is not begun again.
fn may_differ(problem: &Problem) -> bool {
    let is_of_server = problem.must_roll_back || problem.connection_lost;
    is_of_server && !["57014", "SDB106"].contains(&problem.code.as_str())
}

/// Whether an operation reads rows, and nothing else.
fn reads(operation: &Operation) -> bool {
    match operation.target {
        Target::Collection(_) | Target::Item(..) => [Method::GET, Method::HEAD].contains(&operation.method),
        Target::Query(_) | Target::Count(_) | Target::Aggregate(_) | Target::Search => true,
        _ => false,
    }
}

/// The position in the header.
fn after(operation: &Operation) -> Result<Option<Position>, Problem> {
    let Some(value) = operation.headers.get(READ_AFTER) else { return Ok(None) };
    let position = value.to_str().ok().and_then(|text| Position::parse(text.trim()));
    let invalid = || {
        Problem::request("SDB133", "Read-After is no position")
            .hint("send the Read-After of the answer to a write with Prefer: read-after")
    };
    position.map(Some).ok_or_else(invalid)
}

/// Adds the position after a write that asks for it. It is read after the commit, by a statement of its own, so that other
/// writes cost nothing more; a write that is committed does not fail for it, nor does its answer wait for long.
pub(super) async fn mark(app: &App, caller: &Caller, operation: &Operation, reply: &mut Reply) {
    let is_committed = operation.target == Target::Transaction || !operation.headers.contains_key(TXN_ID);
    let wished = operation.prefer().is_ok_and(|prefer| prefer.read_after && !prefer.rollback);
    if !wished || !is_committed || !idempotency::writes(operation) {
        return;
    }
    match tokio::time::timeout(PATIENCE, position(&app.pool, caller)).await {
        Ok(Ok(position)) => {
            reply.header(HeaderName::from_static(READ_AFTER), &position);
            reply.apply(READ_AFTER);
        }
        Ok(Err(problem)) => tracing::warn!(code = problem.code, "the position after a write could not be read"),
        Err(_) => tracing::warn!("the position after a write could not be read in time"),
    }
}
