//! `/health`, `/stats`, `/performance`, `/connections`, `/migrations`.

use http::StatusCode;
use serde_json::{Value, json};

use super::App;
use super::operation::Reply;
use crate::database::{Caller, Session};
use crate::problem::Problem;
use crate::sql::{Charge, Statement};

fn statement(sql: &str) -> Statement {
    Statement::plain(sql, Charge::Nothing)
}

/// One JSON value of the database, as the caller.
async fn value(app: &App, caller: &Caller, sql: &str) -> Result<String, Problem> {
    let mut session = Session::new(&app.pool, caller, None);
    let found = session.last(&statement(sql), app.config.limits.write_answer_bytes).await;
    let found = session.finish(found).await?;
    Ok(found.rows.into_iter().next().map_or_else(|| "null".to_owned(), |(text, _)| text))
}

/// `GET /health`
pub async fn health(app: &App, caller: &Caller) -> Reply {
    let primary =
        value(app, caller, "SELECT pg_catalog.to_json(NOT pg_catalog.pg_is_in_recovery())::pg_catalog.text").await;
    let database = match &primary {
        Ok(writable) => json!({"status": "ok", "writable": writable == "true"}),
        Err(problem) => json!({"status": "unavailable", "code": problem.code}),
    };
    let status = if primary.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let schema = if app.current.is_fresh() { "ok" } else { "stale" };
    let state = if primary.is_ok() { "ok" } else { "unavailable" };
    Reply::json(status, json!({"status": state, "database": database, "schema": schema}).to_string())
}

/// Of the database and of the exposed collections. Sizes and estimates need no right on the rows.
const STATS: &str = "\
SELECT pg_catalog.json_build_object(
 'database', (SELECT pg_catalog.json_build_object('name', d.datname, 'size_bytes',
   CASE WHEN pg_catalog.has_database_privilege(d.datid, 'CONNECT') THEN pg_catalog.pg_database_size(d.datid) END,
   'connections', d.numbackends, 'commits', d.xact_commit, 'rollbacks', d.xact_rollback, 'deadlocks', d.deadlocks,
   'rows_returned', d.tup_returned, 'rows_fetched', d.tup_fetched, 'rows_inserted', d.tup_inserted,
   'rows_updated', d.tup_updated, 'rows_deleted', d.tup_deleted,
   'cache_hit_ratio', pg_catalog.round(d.blks_hit::pg_catalog.numeric / nullif(d.blks_hit + d.blks_read, 0), 4), 'since', d.stats_reset)
   FROM pg_catalog.pg_stat_database d WHERE d.datname = pg_catalog.current_database()),
 'collections', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('schema', s.schemaname, 'name', s.relname,
   'documents', s.n_live_tup, 'size_bytes', pg_catalog.pg_total_relation_size(s.relid), 'inserted', s.n_tup_ins,
   'updated', s.n_tup_upd, 'deleted', s.n_tup_del, 'sequential_scans', s.seq_scan, 'index_scans', s.idx_scan)
   ORDER BY s.schemaname, s.relname), '[]') FROM pg_catalog.pg_stat_user_tables s WHERE s.schemaname = ANY (SCHEMAS))
)::pg_catalog.text";

/// `GET /stats`
///
/// # Errors
/// Any error of the server.
pub async fn stats(app: &App, caller: &Caller) -> Result<Reply, Problem> {
    let mut sql = statement(&STATS.replace("SCHEMAS", "$1::pg_catalog.name[]"));
    sql.parameters.push(Some(crate::request::array(&app.config.schemas)));
    let mut session = Session::new(&app.pool, caller, None);
    let found = session.last(&sql, app.config.limits.write_answer_bytes).await;
    let found = session.finish(found).await?;
    let text = found.rows.into_iter().next().map_or_else(|| "null".to_owned(), |(text, _)| text);
    let Some(cache) = app.pool.cache() else { return Ok(Reply::json(StatusCode::OK, text)) };
    let mut stats: Value = serde_json::from_str(&text).unwrap_or_default();
    stats["cache"] = cache.state(&app.current.get());
    Ok(Reply::json(StatusCode::OK, stats.to_string()))
}

/// `GET /connections`
///
/// # Errors
/// Any error of the server.
pub async fn connections(app: &App, caller: &Caller) -> Result<Reply, Problem> {
    let database = "SELECT pg_catalog.json_build_object('connections', (SELECT d.numbackends FROM pg_catalog.pg_stat_database d \
                    WHERE d.datname = pg_catalog.current_database()), 'max_connections', \
                    pg_catalog.current_setting('max_connections')::pg_catalog.int4)::pg_catalog.text";
    let database: Value = serde_json::from_str(&value(app, caller, database).await?).unwrap_or_default();
    let replicas = app.replicas.as_ref().map(|pool| pool.state());
    let body = json!({"pool": app.pool.state(), "replicas": replicas, "open_transactions": app.transactions.count(), "database": database});
    Ok(Reply::json(StatusCode::OK, body.to_string()))
}

/// `GET /performance`: document 001's query execution statistics, of the caller's own requests.
pub fn performance(app: &App, caller: &Caller) -> Reply {
    Reply::json(StatusCode::OK, app.metrics.performance(&caller.name).to_string())
}

/// The ledger in document 001's model. The script of a migration stays in its source.
const MIGRATIONS: &str = "\
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('id', m.id::pg_catalog.text, 'name', m.name,
 'created_at', m.started_at, 'executed_at', m.started_at + pg_catalog.make_interval(secs => m.duration_ms / 1000.0),
 'status', m.status, 'database', pg_catalog.current_database(), 'collection_or_table', NULL, 'description', m.name,
 'version', coalesce(pg_catalog.to_jsonb(m) ->> 'version_text', m.version::pg_catalog.text), 'script', NULL,
 'dependencies', '[]'::pg_catalog.json, 'error', m.error, 'checksum', m.checksum)
 ORDER BY pg_catalog.to_jsonb(m) ->> 'ordinal', m.version), '[]')::pg_catalog.text FROM servicedb.migrations m";

/// `GET /migrations` and `GET /migrations/status`
///
/// # Errors
/// Any error of the server.
pub async fn migrations(app: &App, status: bool) -> Result<Reply, Problem> {
    // As the gateway's login: a client's role has no right on the ledger.
    let own = app.pool.own().await?;
    let there = own.value("SELECT pg_catalog.to_regclass('servicedb.migrations') IS NOT NULL").await?;
    let list = if there { own.value(MIGRATIONS).await? } else { "[]".to_owned() };
    if !status {
        return Ok(Reply::json(StatusCode::OK, list));
    }
    let rows: Vec<Value> = serde_json::from_str(&list).unwrap_or_default();
    let count = |wanted: &str| rows.iter().filter(|row| row["status"] == wanted).count();
    let newest = rows.iter().rev().find(|row| row["status"] == "completed").map(|row| row["version"].clone());
    let body = json!({
        "version": newest, "completed": count("completed"), "pending": count("pending"),
        "executing": count("executing"), "failed": count("failed"),
    });
    Ok(Reply::json(StatusCode::OK, body.to_string()))
}

/// `POST /migrations`
pub fn migrate() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "SDB114", "the gateway runs no migrations").hint(
        "change spec.migrations of the ServiceDatabase; the migration Job is the only one that changes the schema",
    )
}
