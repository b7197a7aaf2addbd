//! Records of requests with an idempotency key, so that each is carried out once.
//!
//! The record is a row that is written first in the transaction of the request, and completed with the answer at its end:
//! it is there if the transaction is committed, and not otherwise. It is written as the gateway's login: no role of a
//! caller has a right to the table.

use std::sync::Arc;

use futures::try_join;
use tokio_postgres::types::ToSql;

use super::outcome::{Claim, Mark};
use super::pool::{Caller, Own, Pool};
use super::session::Session;
use super::wait::in_time;
use crate::problem::{Problem, lost};

/// What the gateway's login needs is its statements' tables and columns; `docs/gateway.md` has it for a gateway without
/// the operator.
///
/// Of two requests with the same key, the later one does not wait for the first: the lock is held until the first has
/// ended, visibly for all. A record that has expired is taken over.
const CLAIM: &str = "\
INSERT INTO servicedb.gateway_requests AS r (caller, key, attempt, request)
SELECT $1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text::pg_catalog.uuid, $4::pg_catalog.bytea
WHERE pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(pg_catalog.concat($1, ' ', $2), 24))
ON CONFLICT (caller, key) DO UPDATE SET attempt = excluded.attempt, request = excluded.request, at = excluded.at,
    status = NULL, headers = NULL, rows = NULL, body = NULL
WHERE r.at < pg_catalog.now() - interval '24 hours'
RETURNING r.ctid::pg_catalog.text, pg_catalog.pg_current_xact_id()::pg_catalog.text,
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// By its place: a serializable transaction that looked for it in the index would conflict with its neighbours there. The
/// operators are named, since what has run in the transaction may have set another search path.
const KEEP: &str = "\
UPDATE servicedb.gateway_requests SET status = $3, headers = $4, rows = $5, body = $6
WHERE ctid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.tid
  AND attempt OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.uuid";

const EARLIER: &str = "\
SELECT request, status, headers, rows, body FROM servicedb.gateway_requests
WHERE caller = $1 AND key = $2 AND at >= pg_catalog.now() - interval '24 hours'";

const IS_KEPT: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'servicedb' AND c.relname = 'gateway_requests'
                 AND pg_catalog.has_table_privilege(c.oid, 'DELETE'))";

/// How many bytes the answers have. Of a small table its size is enough; that of a larger one does not become smaller
/// when its rows are removed. A large answer is not read for it, only the row that names it.
const SIZE: &str = "\
SELECT CASE WHEN s.bytes <= HALF THEN s.bytes ELSE
    (SELECT coalesce(sum(pg_catalog.pg_column_size(body)), 0)::pg_catalog.int8 FROM servicedb.gateway_requests) END
FROM (SELECT pg_catalog.pg_total_relation_size('servicedb.gateway_requests')) AS s(bytes)";

/// Several gateways may remove at the same time.
const FORGET: &str = "\
DELETE FROM servicedb.gateway_requests WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM servicedb.gateway_requests WHERE at < pg_catalog.now() - interval '24 hours'
    ORDER BY at LIMIT 1000 FOR UPDATE SKIP LOCKED))";
/// The rows of a batch of [`FORGET`].
const BATCH: u64 = 1_000;
/// The most batches in a row.
const BATCHES: u32 = 100;

/// What names a request for at least 24 hours.
#[derive(Debug, Clone)]
pub struct Key {
    /// Whose it is: a ServiceAccount has its keys for itself.
    pub caller: Arc<str>,
    /// The text that the caller chose.
    pub text: String,
    /// The digest of all that the request is.
    pub request: [u8; 32],
}

/// The answer to a request, as it is kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// The status.
    pub status: u16,
    /// The headers, a JSON object.
    pub headers: String,
    /// How many rows it is about.
    pub rows: u64,
    /// The body; nothing, if it is not kept.
    pub body: Option<Vec<u8>>,
}

/// A request that was carried out before.
#[derive(Debug)]
pub struct Earlier {
    /// The digest of all that it was.
    pub request: Vec<u8>,
    /// Its answer.
    pub answer: Kept,
}

impl Session {
    /// One of a request with an idempotency key, which [`claim`] is to come first in.
    pub fn claiming(pool: &Arc<Pool>, caller: &Caller, begin: &str) -> Self {
        Self::shared(pool, caller, &format!("{begin}; SET LOCAL ROLE NONE"))
    }
}

/// Begins the record of a request, as the first statement of its transaction; false, if the request was carried out
/// before, or is under way.
///
/// # Errors
/// Any error of the server; that there is no table for records.
pub async fn claim(session: &mut Session, key: &Key) -> Result<bool, Problem> {
    let attempt = format!("{:032x}", rand::random::<u128>());
    let lease = session.lease().await?;
    let (client, patience) = (lease.client(), lease.patience());
    let row = in_time(patience, async {
        let statement = lease.prepare(CLAIM).await?;
        let (caller, request) = (&*key.caller, key.request.as_slice());
        let parameters: [&(dyn ToSql + Sync); 4] = [&caller, &key.text, &attempt, &request];
        let claim = client.query_opt(&statement, &parameters);
        Ok(try_join!(claim, client.batch_execute("RESET ROLE"))?.0)
    });
    let Some(row) = row.await.map_err(without_table)? else { return Ok(false) };
    let (caller, key) = (Arc::clone(&key.caller), key.text.clone());
    let mark = Mark::new(row.try_get(1)?, row.try_get(2)?);
    session.set_claim(Claim { caller, key, attempt, mark, place: row.try_get(0)? });
    Ok(true)
}

/// Completes the record of a request with its answer, as the last statement before the commit; without the body, if there
/// is no room for it.
///
/// # Errors
/// Any error of the server; that the record is gone.
pub async fn keep(session: &mut Session, answer: &Kept) -> Result<(), Problem> {
    let claim = session.claim().ok_or_else(lost)?;
    let (place, attempt) = (claim.place.clone(), claim.attempt.clone());
    let (status, rows) =
        (i16::try_from(answer.status).unwrap_or(i16::MAX), i64::try_from(answer.rows).unwrap_or(i64::MAX));
    let lease = session.lease().await?;
    let (client, patience) = (lease.client(), lease.patience());
    let body = answer.body.as_ref().filter(|body| lease.pool().kept().take(body.len()));
    let keep = async {
        let statement = lease.prepare(KEEP).await?;
        let parameters: [&(dyn ToSql + Sync); 6] = [&place, &attempt, &status, &answer.headers, &rows, &body];
        let keep = client.execute(&statement, &parameters);
        // Deferred triggers run at the commit, as the caller.
        Ok::<_, Problem>(try_join!(keep, client.batch_execute("RESET ROLE"))?.0)
    };
    let role = async { Ok(client.batch_execute("SET LOCAL ROLE NONE").await?) };
    let ((), kept) = in_time(patience, async { try_join!(role, keep) }).await?;
    if kept == 1 {
        return Ok(());
    }
    let message = "something that the request ran has removed the record of its idempotency key";
    Err(Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "SDB904", message).roll_back())
}

/// The request with this key that was carried out within 24 hours.
///
/// # Errors
/// Any error of the server; that there is no table for records.
pub async fn earlier(pool: &Arc<Pool>, caller: &Caller, key: &Key) -> Result<Option<Earlier>, Problem> {
    let mut session = Session::claiming(pool, caller, "BEGIN READ ONLY");
    let found = recall(&mut session, key).await.map_err(without_table);
    session.finish(found).await
}

async fn recall(session: &mut Session, key: &Key) -> Result<Option<Earlier>, Problem> {
    let lease = session.lease().await?;
    let (client, patience) = (lease.client(), lease.patience());
    let row = in_time(patience, async {
        let statement = lease.prepare(EARLIER).await?;
        Ok(client.query_opt(&statement, &[&&*key.caller, &key.text]).await?)
    });
    let Some(row) = row.await? else { return Ok(None) };
    let status: Option<i16> = row.try_get(1)?;
    let headers: Option<String> = row.try_get(2)?;
    let rows: Option<i64> = row.try_get(3)?;
    let answer = Kept {
        status: status.and_then(|status| u16::try_from(status).ok()).unwrap_or(200),
        headers: headers.unwrap_or_default(),
        rows: rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0),
        body: row.try_get(4)?,
    };
    Ok(Some(Earlier { request: row.try_get(0)?, answer }))
}

/// Removes some of the records that have expired: how many. Counts what is left, even if none can be removed.
///
/// # Errors
/// Any error of the server.
pub async fn forget(pool: &Pool) -> Result<u64, Problem> {
    let own = pool.own().await?;
    if !own.value::<bool>(IS_KEPT).await? {
        return Ok(0);
    }
    own.execute("SET default_transaction_read_only = off").await?;
    let gone = remove(&own).await;
    let room = pool.kept();
    let bytes = own.value::<i64>(&SIZE.replace("HALF", &(room.most() / 2).to_string())).await?;
    if room.counted(u64::try_from(bytes).unwrap_or(0)) {
        tracing::warn!(
            bytes,
            "answers to requests with an idempotency key are not kept any more: keptAnswersBytes is reached"
        );
    }
    gone
}

/// Removes records that have expired, batch by batch: how many.
async fn remove(own: &Own) -> Result<u64, Problem> {
    let mut gone = 0;
    for _ in 0..BATCHES {
        let batch = own.execute(FORGET).await?;
        gone += batch;
        if batch < BATCH {
            break;
        }
    }
    Ok(gone)
}

/// A request is not carried out without the record that its caller counts on.
fn without_table(problem: Problem) -> Problem {
    if !["42P01", "3F000", "42501", "42703", "42P10"].contains(&problem.code.as_str()) {
        return problem;
    }
    tracing::error!(code = problem.code, "the table of idempotency keys is missing, or is not as it has to be");
    Problem::unavailable("SDB125", "idempotency keys cannot be used: the table servicedb.gateway_requests is missing")
        .hint("the operator makes it within seconds; without the operator, see docs/gateway.md")
        .roll_back()
}
