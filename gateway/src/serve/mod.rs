//! HTTP: a request becomes an operation, and what comes of it an answer.

mod body;
mod function;
mod idempotency;
mod listen;
mod metrics;
mod monitor;
mod openapi;
mod operation;
mod page;
mod peers;
mod prompt;
mod put;
mod read;
mod replica;
mod schema;
mod search;
mod transaction;
mod write;

pub use body::{Bodies, Received};
pub use idempotency::{IDEMPOTENCY_KEY, REPLAYED, forget};
pub use listen::{Certificate, serve};
pub use metrics::Metrics;
pub use operation::{Operation, Reply, Target};
pub use page::NEXT_PAGE_TOKEN;
pub use peers::Peers;
pub use replica::{READ_AFTER, READ_REPLICA};
pub use transaction::{TXN_ID, Transactions};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

use self::idempotency::Begun;
use self::peers::Forwarded;
use crate::auth::Authenticator;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::current::Current;
use crate::database::{Answer, Caller, Key, Pool, Session};
use crate::problem::Problem;

/// What all requests share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The catalogue.
    pub current: Arc<Current>,
    /// The connections.
    pub pool: Arc<Pool>,
    /// The connections to replicas, if there are any.
    pub replicas: Option<Arc<Pool>>,
    /// Who may call.
    pub auth: Authenticator,
    /// The bodies of requests.
    pub bodies: Bodies,
    /// Statistics.
    pub metrics: Metrics,
    /// Open transactions.
    pub transactions: Transactions,
    /// The other pods of this gateway, if it can reach them.
    pub peers: Option<Peers>,
    /// Set when the gateway is about to end.
    pub ending: AtomicBool,
}

impl App {
    /// Whether the gateway is about to end: it begins no transaction, and clients are sent to another one.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// The service of callers.
pub fn router(app: Arc<App>) -> Router {
    Router::new().fallback(handle).with_state(app)
}

/// The service of probes and Prometheus.
pub fn metrics_router(app: Arc<App>) -> Router {
    let metrics = |State(app): State<Arc<App>>| async move {
        let text = app.metrics.text(app.pool.state(), app.transactions.count(), app.current.is_fresh());
        ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
    };
    // Ready is who knows the schema. Without a database it stays so: an answer that says what is missing is better than none.
    let ready = |State(app): State<Arc<App>>| async move {
        if app.is_ending() {
            (StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending")
        } else if app.current.is_known() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the schema was not read yet")
        }
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .with_state(app)
}

async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if calls_grpc(&parts.headers) {
        // Each service that there is has a route of its own.
        return tonic::Status::unimplemented("there is no such service").into_http();
    }
    if path == peers::PATH && parts.method == Method::GET && app.peers.is_some() {
        return peers::encoded(app.transactions.instance()).into_response();
    }
    let Some(path) = path.strip_prefix("/api/db").filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Problem::missing("PGRST125", "there is nothing at this path")
            .hint("paths begin with /api/db")
            .into_response();
    };
    let caller = match app.auth.caller(&parts.headers).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let target = match Target::parse(&parts.method, path) {
        Ok(target) => target,
        Err(problem) => return problem.into_response(),
    };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let received = match app.bodies.receive(body).await {
        Ok(received) => received,
        Err(problem) => return problem.into_response(),
    };
    let (method, headers, body) = (parts.method, parts.headers, received.bytes.clone());
    let operation = Operation { method, target, query, headers, body, separate: false };
    let result = execute(&app, &caller, &operation).await;
    let mut response = match result {
        Ok((mut reply, answer)) => {
            peers::mark(&operation, &mut reply);
            respond(&operation, reply, answer)
        }
        Err(problem) => problem.into_response(),
    };
    // Who has no transaction here goes on elsewhere.
    let leaves = app.is_ending() && !operation.headers.contains_key(TXN_ID);
    if leaves && parts.version == Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether a request is a call of gRPC, whose client reads the status of gRPC and not that of HTTP.
fn calls_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.and_then(|kind| kind.strip_prefix("application/grpc")).is_some_and(|rest| !rest.starts_with("-web"))
}

fn respond(operation: &Operation, reply: Reply, answer: Option<Answer>) -> Response {
    let is_head = operation.method == Method::HEAD;
    let length = answer.as_ref().and_then(Answer::bytes).filter(|_| !is_head);
    let body = match answer {
        Some(answer) => answer.into_body(),
        None if is_head => Body::empty(),
        None => reply.body.into(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    // Answers depend on who asks.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

/// Carries an operation out, and records it; one of a transaction in another pod is carried out and recorded there.
///
/// # Errors
/// Why it was not carried out.
pub async fn execute(app: &App, caller: &Caller, operation: &Operation) -> Result<(Reply, Option<Answer>), Problem> {
    let began = Instant::now();
    let mut result = match peers::forward(app, operation).await {
        Forwarded::Answered(result) => return result.map(|reply| (reply, None)),
        Forwarded::Unanswered(problem) => Err(problem),
        Forwarded::Not => dispatch(app, caller, operation).await,
    };
    if let Ok((reply, _)) = &mut result {
        replica::mark(app, caller, operation, reply).await;
    }
    record(app, caller, operation, began.elapsed(), &result);
    result
}

fn record(
    app: &App,
    caller: &Caller,
    operation: &Operation,
    duration: Duration,
    result: &Result<(Reply, Option<Answer>), Problem>,
) {
    let (status, rows, code) = match result {
        Ok((reply, _)) => (reply.status, reply.rows, None),
        Err(problem) => (problem.status, 0, Some(problem.code.clone())),
    };
    let kind = kind(operation);
    // Only collections that there are: the number of labels stays bounded.
    let named = operation.target.collection();
    let catalog = app.current.get();
    let collection = if catalog.table(operation.schema(), named).is_ok() { named } else { "" };
    // An answer of before is about no further write.
    if !result.as_ref().is_ok_and(|(reply, _)| reply.headers.contains_key(REPLAYED)) {
        // One that failed says so by its status.
        let is_trial = result.is_ok() && operation.prefer().is_ok_and(|prefer| prefer.rollback);
        audit(caller, operation, collection, rows, status, is_trial);
    }
    let pattern = metrics::pattern(&operation.query);
    if duration.as_millis() >= u128::from(app.config.limits.slow_milliseconds) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(caller = &*caller.name, operation = kind, collection, pattern, milliseconds, "slow");
    }
    app.metrics.record(metrics::Record {
        service: caller.name.to_string(),
        collection: collection.to_owned(),
        operation: kind,
        duration,
        rows,
        pattern,
        status: status.as_u16(),
        code,
    });
}

/// Logs a write with its caller. That of a trial is told from one that took place.
pub(crate) fn audit(
    caller: &Caller,
    operation: &Operation,
    collection: &str,
    rows: u64,
    status: StatusCode,
    is_trial: bool,
) {
    let kind = kind(operation);
    // A function that is called by POST may write.
    let writes = ["insert", "update", "delete", "transaction"].contains(&kind)
        || kind == "function" && operation.method == Method::POST;
    if writes {
        let rolled_back = is_trial.then_some(true);
        tracing::info!(target: "audit", caller = &*caller.name, role = &*caller.role, operation = kind, collection, rows, rolled_back, status = status.as_u16());
    }
}

/// The kind of an operation, in document 001's words.
fn kind(operation: &Operation) -> &'static str {
    match (&operation.target, operation.method.as_str()) {
        (Target::Collection(_), "POST") => "insert",
        (Target::Collection(_) | Target::Item(..), "PUT" | "PATCH") => "update",
        (Target::Collection(_) | Target::Item(..), "DELETE") => "delete",
        (Target::Aggregate(_) | Target::Count(_), _) => "aggregate",
        (Target::Collection(_) | Target::Item(..) | Target::Query(_), _) => "find",
        (Target::Search, _) => "search",
        (Target::Function(_), _) => "function",
        (Target::Transaction, _) => "transaction",
        _ => "information",
    }
}

pub(crate) fn not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST117", "this path does not take this method")
}

async fn dispatch(app: &App, caller: &Caller, operation: &Operation) -> Result<(Reply, Option<Answer>), Problem> {
    // `/health` tells the rest.
    if !app.current.is_known() && operation.target != Target::Health && !app.current.changed(&app.current.get()).await {
        return Err(Problem::unavailable("SDB118", "the schema of the database could not be read yet"));
    }
    let key = idempotency::key(caller, operation)?;
    if let Some(reply) = about(app, caller, operation, key.as_ref()).await? {
        return Ok((reply, None));
    }
    if let Some(id) = operation.headers.get(transaction::TXN_ID) {
        let id = id.to_str().unwrap_or_default();
        return Ok((app.transactions.run(app, caller, id, operation).await?, None));
    }
    app.pool.admit(caller)?;
    let catalog = app.current.get();
    match attempt(app, caller, operation, &catalog, key.as_ref()).await {
        // Perhaps it is there by now.
        Err(problem) if problem.suggests_another_schema() && app.current.changed(&catalog).await => {
            attempt(app, caller, operation, &app.current.get(), key.as_ref()).await
        }
        result => result,
    }
}

/// Requests about the database and not about its rows.
async fn about(app: &App, caller: &Caller, operation: &Operation, key: Option<&Key>) -> Result<Option<Reply>, Problem> {
    let reads = operation.method == Method::GET || operation.method == Method::HEAD;
    let reply = match (&operation.target, reads) {
        (Target::Root | Target::OpenApi, true) => {
            Reply::json(StatusCode::OK, openapi::document(&app.current.get()).to_string())
        }
        (Target::Schema(collection), true) => {
            let catalog = app.current.get();
            match schema::schema(&catalog, &app.config, operation.schema(), collection) {
                Err(_) if app.current.changed(&catalog).await => {
                    schema::schema(&app.current.get(), &app.config, operation.schema(), collection)?
                }
                result => result?,
            }
        }
        (Target::Migrations, true) => monitor::migrations(app, false).await?,
        (Target::MigrationsStatus, true) => monitor::migrations(app, true).await?,
        (Target::Migrations, false) if operation.method == Method::POST => return Err(monitor::migrate()),
        (Target::Stats, true) => monitor::stats(app, caller).await?,
        (Target::Health, true) => monitor::health(app, caller).await,
        (Target::Performance, true) => monitor::performance(app, caller),
        (Target::Connections, true) => monitor::connections(app, caller).await?,
        (Target::Transaction, _) => transaction::transaction(app, caller, operation, key).await?,
        (
            Target::Root
            | Target::OpenApi
            | Target::Schema(_)
            | Target::Migrations
            | Target::MigrationsStatus
            | Target::Stats
            | Target::Health
            | Target::Performance
            | Target::Connections,
            false,
        ) => return Err(not_allowed()),
        _ => return Ok(None),
    };
    Ok(Some(reply))
}

/// Runs an operation in a session of its own, on a replica where it asks for one and one can answer it.
async fn attempt(
    app: &App,
    caller: &Caller,
    operation: &Operation,
    catalog: &Catalog,
    key: Option<&Key>,
) -> Result<(Reply, Option<Answer>), Problem> {
    if let Some(answered) = replica::answer(app, caller, operation, catalog).await? {
        return Ok(answered);
    }
    let reads = operation.method == Method::GET || operation.method == Method::HEAD;
    if let Some(plan) = read::planned(catalog, &app.config, caller, operation)? {
        let session = Session::new(&app.pool, caller, plan.begin());
        let (reply, answer) =
            plan.stream(session, &app.config).await.map_err(|problem| by_reading(problem, plan.begin()))?;
        return Ok((reply, Some(answer)));
    }
    let begin = match &operation.target {
        // A write in it is refused by the server.
        Target::Function(_) if reads => Some("BEGIN READ ONLY"),
        Target::Function(_) | Target::Collection(_) => Some("BEGIN"),
        Target::Item(..) if !reads => Some("BEGIN"),
        _ => None,
    };
    let trial = begin.filter(|_| operation.prefer().is_ok_and(|prefer| prefer.rollback));
    if let (None, Some(begin), Some(key)) = (trial, begin, key) {
        let mut session = match idempotency::begin(app, caller, key, begin).await? {
            Begun::Now(session) => session,
            Begun::Before(reply) => return Ok((reply, None)),
        };
        let result = perform(&mut session, catalog, &app.config, operation).await;
        return Ok((idempotency::finish(session, &app.config.limits, result).await?, None));
    }
    let mut session = match trial {
        Some(begin) => Session::shared(&app.pool, caller, begin),
        None => Session::new(&app.pool, caller, begin),
    };
    let result = perform(&mut session, catalog, &app.config, operation).await;
    if trial.is_some() && result.is_ok() {
        session.abandon().await;
        return Ok((result?, None));
    }
    let finished = session.finish(result).await;
    Ok((finished.map_err(|problem| by_reading(problem, begin))?, None))
}

/// A write where only reads are allowed: in a transaction of that kind, it is the request's fault.
fn by_reading(mut problem: Problem, begin: Option<&str>) -> Problem {
    if problem.code == "25006" && begin.is_some_and(|begin| begin.contains("READ ONLY")) {
        problem.status = StatusCode::METHOD_NOT_ALLOWED;
        problem.message = "this request only reads, and a function that it runs writes".to_owned();
        problem.retry_after = None;
    }
    problem
}

/// Runs an operation in a session.
pub(crate) async fn perform(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
) -> Result<Reply, Problem> {
    let most = config.limits.write_answer_bytes;
    match (&operation.target, operation.method.as_str()) {
        (Target::Collection(name), "GET" | "HEAD") => {
            read::plan(catalog, config, session.caller(), operation, name, false)?.collect(session, most).await
        }
        (Target::Query(name), "POST") => {
            read::plan(catalog, config, session.caller(), operation, name, true)?.collect(session, most).await
        }
        (Target::Collection(name), "POST") => write::create(session, catalog, config, operation, name).await,
        (Target::Collection(name), "PUT") => put::put(session, catalog, config, operation, name).await,
        (Target::Collection(name), "PATCH") => write::change(session, catalog, config, operation, name).await,
        (Target::Collection(name), "DELETE") => write::remove(session, catalog, config, operation, name).await,
        (Target::Item(name, id), "GET" | "HEAD") => read::item(session, catalog, config, operation, name, id).await,
        (Target::Item(name, id), "PUT" | "PATCH") => {
            write::change_item(session, catalog, config, operation, name, id).await
        }
        (Target::Item(name, id), "DELETE") => write::remove_item(session, catalog, config, operation, name, id).await,
        (Target::Count(name), "GET" | "POST") => read::count(session, catalog, config, operation, name).await,
        (Target::Aggregate(name), "POST") => read::aggregate(session, catalog, config, operation, name).await,
        (Target::Search, "POST") => search::search(session, catalog, config, operation).await,
        (Target::Function(name), "GET" | "HEAD" | "POST") => {
            function::call(session, catalog, config, operation, name).await
        }
        _ => Err(not_allowed()),
    }
}
