//! Transactions: `{operations: […]}` at once, or begun, used by `Txn-Id` and ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::idempotency::{self, Begun};
use super::operation::{Operation, Reply, Target};
use super::peers::{self, Instance};
use super::{App, audit, perform};
use crate::config::Limits;
use crate::database::{Caller, Key, Session};
use crate::problem::Problem;

/// The header that names a transaction.
pub const TXN_ID: &str = "txn-id";

/// The body of `POST /transaction`: one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    operations: Option<Vec<Member>>,
    begin: Option<Value>,
    commit: Option<Value>,
    rollback: Option<Value>,
    isolation: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Member {
    method: String,
    path: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    prefer: String,
    if_match: Option<String>,
    accept: Option<String>,
    body: Option<Box<RawValue>>,
}

impl Member {
    fn operation(&self) -> Result<Operation, Problem> {
        let method =
            Method::from_bytes(self.method.as_bytes()).map_err(|_| Problem::request("SDB400", "no such method"))?;
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, &self.query));
        let path = path.strip_prefix("/api/db").unwrap_or(path);
        let mut headers = HeaderMap::new();
        let texts = [(header::IF_MATCH, self.if_match.as_deref()), (header::ACCEPT, self.accept.as_deref())];
        let prefer = (HeaderName::from_static("prefer"), Some(self.prefer.as_str()).filter(|text| !text.is_empty()));
        for (name, text) in texts.into_iter().chain([prefer]) {
            if let Some(text) = text {
                let value = HeaderValue::from_str(text)
                    .map_err(|_| Problem::request("SDB400", format!("\"{name}\" is not readable")))?;
                headers.insert(name, value);
            }
        }
        let body = self.body.as_ref().map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.get().as_bytes()));
        Ok(Operation {
            target: Target::parse(&method, path)?,
            method,
            query: query.to_owned(),
            headers,
            body,
            separate: false,
        })
    }
}

/// `POST /transaction`
///
/// # Errors
/// Those of the operations, with the place of the failed one; then nothing was done. A preference that cannot be kept.
pub async fn transaction(
    app: &App,
    caller: &Caller,
    operation: &Operation,
    key: Option<&Key>,
) -> Result<Reply, Problem> {
    if operation.method != Method::POST {
        return Err(super::not_allowed());
    }
    let body: Body = serde_json::from_slice(&operation.body)
        .map_err(|error| Problem::request("PGRST102", "the body could not be read").details(error.to_string()))?;
    let begin = begin(body.isolation.as_deref(), &app.config.limits)?;
    let is_trial = operation.prefer()?.rollback;
    // A trial may be repeated as it is: nothing of it stays, so no record of its key either.
    let key = key.filter(|_| !is_trial);
    match (&body.operations, &body.begin, &body.commit, &body.rollback) {
        (Some(members), None, None, None) => at_once(app, caller, members, &begin, key, is_trial).await,
        // Its end is a request of its own, which would have to remember the preference of this one.
        _ if is_trial => Err(Problem::request("SDB404", "a transaction of several requests has no tx=rollback")
            .hint("end it by {\"rollback\": \"<txn_id>\"}, or send the operations at once")),
        _ if key.is_some() => Err(idempotency::in_open_transaction()),
        (None, Some(_), None, None) => app.transactions.begin(app, caller, &begin).await,
        (None, None, Some(id), None) => app.transactions.end(caller, &named(id, operation)?, true).await,
        (None, None, None, Some(id)) => app.transactions.end(caller, &named(id, operation)?, false).await,
        _ => Err(Problem::request("SDB400", "a body has one of operations, begin, commit and rollback")),
    }
}

/// The statement that begins a transaction.
fn begin(isolation: Option<&str>, limits: &Limits) -> Result<String, Problem> {
    let level = match isolation.unwrap_or("read committed").to_ascii_lowercase().replace('-', " ").as_str() {
        "read committed" => "READ COMMITTED",
        "repeatable read" => "REPEATABLE READ",
        "serializable" => "SERIALIZABLE",
        _ => {
            return Err(Problem::request(
                "SDB400",
                "isolation is \"read committed\", \"repeatable read\" or \"serializable\"",
            ));
        }
    };
    // The server keeps the limits, too, whatever becomes of the gateway.
    let (idle, total) = (limits.transaction_idle_seconds + 5, limits.transaction_seconds + 5);
    Ok(format!(
        "BEGIN ISOLATION LEVEL {level}; SET LOCAL idle_in_transaction_session_timeout = '{idle}s'; \
         SELECT pg_catalog.set_config(name, '{total}s', true) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'"
    ))
}

/// The transaction that a body, or else the header, names.
fn named(value: &Value, operation: &Operation) -> Result<String, Problem> {
    let header = operation.headers.get(TXN_ID).and_then(|value| value.to_str().ok());
    value
        .as_str()
        .or(header)
        .map(str::to_owned)
        .ok_or_else(|| Problem::request("SDB400", "name the transaction, or send Txn-Id"))
}

/// The open transaction that an operation belongs to, and whether it commits it.
pub(super) fn id(operation: &Operation) -> Option<(String, bool)> {
    /// A body that ends a transaction.
    #[derive(Deserialize)]
    struct End {
        commit: Option<Value>,
        rollback: Option<Value>,
    }
    let header = || operation.headers.get(TXN_ID).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match &operation.target {
        Target::Transaction => {
            let end: End = serde_json::from_slice(&operation.body).ok()?;
            let commits = end.commit.is_some();
            named(&end.commit.or(end.rollback)?, operation).ok().map(|id| (id, commits))
        }
        Target::Collection(_)
        | Target::Item(..)
        | Target::Query(_)
        | Target::Count(_)
        | Target::Aggregate(_)
        | Target::Function(_)
        | Target::Search => header().map(|id| (id, false)),
        Target::Root
        | Target::OpenApi
        | Target::Schema(_)
        | Target::Migrations
        | Target::MigrationsStatus
        | Target::Stats
        | Target::Health
        | Target::Performance
        | Target::Connections => None,
    }
}

/// All operations in one transaction, which is rolled back at its end if it is a trial.
async fn at_once(
    app: &App,
    caller: &Caller,
    members: &[Member],
    begin: &str,
    key: Option<&Key>,
    is_trial: bool,
) -> Result<Reply, Problem> {
    if members.len() > app.config.limits.operations {
        return Err(Problem::request(
            "SDB401",
            format!("a transaction has at most {} operations", app.config.limits.operations),
        ));
    }
    let operations: Result<Vec<_>, _> = members
        .iter()
        .enumerate()
        .map(|(place, member)| member.operation().map_err(|problem| at(problem, place)))
        .collect();
    let (operations, catalog) = (operations?, app.current.get());
    // As a whole: an operation that was refused would undo those before it, again and again.
    app.pool.admit(caller)?;
    let mut session = match key {
        None => Session::shared(&app.pool, caller, begin),
        Some(key) => match idempotency::begin(app, caller, key, begin).await? {
            Begun::Now(session) => session,
            Begun::Before(reply) => return Ok(reply),
        },
    };
    let (mut results, mut written) = (Vec::new(), Vec::new());
    let mut failure = None;
    let (mut rows, mut size) = (0, 0);
    for (place, operation) in operations.iter().enumerate() {
        let done = match no_trial(operation) {
            Ok(()) => perform(&mut session, &catalog, &app.config, operation).await,
            Err(problem) => Err(problem),
        };
        match done {
            Ok(reply) => {
                rows += reply.rows;
                size += reply.body.len();
                results.push(result(&reply));
                written.push((operation, reply.rows, reply.status));
            }
            Err(problem) => failure = Some(at(problem, place)),
        }
        if failure.is_none() && size > app.config.limits.write_answer_bytes {
            failure = Some(Problem::request("SDB106", "the answers of the operations are too large together"));
        }
        if failure.is_some() {
            break;
        }
    }
    let done = match failure {
        Some(problem) => Err(problem),
        None => {
            let mut reply = Reply::json(StatusCode::OK, format!("{{\"results\":[{}]}}", results.join(",")));
            reply.rows = rows;
            Ok(reply)
        }
    };
    let reply = match (done, key) {
        (Ok(mut reply), _) if is_trial => {
            session.abandon().await;
            reply.header(HeaderName::from_static("preference-applied"), "tx=rollback");
            reply
        }
        (done, None) => session.finish(done).await?,
        (done, Some(_)) => idempotency::finish(session, &app.config.limits, done).await?,
    };
    for (operation, rows, status) in written {
        audit(caller, operation, operation.target.collection(), rows, status, is_trial);
    }
    Ok(reply)
}

/// Within a transaction, no operation is rolled back alone.
fn no_trial(operation: &Operation) -> Result<(), Problem> {
    match operation.prefer()?.rollback {
        false => Ok(()),
        true => Err(Problem::request("SDB404", "an operation of a transaction has no tx=rollback")
            .hint("roll the whole transaction back")),
    }
}

/// A problem of the operation at this place.
fn at(mut problem: Problem, place: usize) -> Problem {
    let told = problem.details.take().map_or(String::new(), |details| format!(": {details}"));
    problem.details = Some(format!("operation {place} failed, and nothing was done{told}"));
    problem
}

/// An answer as a member of the answer.
fn result(reply: &Reply) -> String {
    let mut headers = Map::new();
    for (name, value) in &reply.headers {
        if *name != header::CONTENT_TYPE {
            headers.insert(name.as_str().to_owned(), json!(value.to_str().unwrap_or_default()));
        }
    }
    let json =
        reply.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.to_str().unwrap_or_default().contains("json"));
    let body = match std::str::from_utf8(&reply.body) {
        Ok("") | Err(_) => "null".to_owned(),
        Ok(text) if json => text.to_owned(),
        Ok(text) => json!(text).to_string(),
    };
    format!("{{\"status\":{},\"headers\":{},\"body\":{body}}}", reply.status.as_u16(), Value::Object(headers))
}

/// An open transaction.
struct Open {
    caller: Caller,
    began: Instant,
    used: Mutex<Instant>,
    session: tokio::sync::Mutex<Option<Session>>,
}

/// The open transactions of this gateway.
pub struct Transactions {
    instance: Instance,
    open: Mutex<HashMap<String, Arc<Open>>>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { instance: rand::random(), open: Mutex::default() }
    }
}

impl Transactions {
    /// This process, as the ids of its transactions name it.
    pub(super) fn instance(&self) -> Instance {
        self.instance
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    async fn begin(&self, app: &App, caller: &Caller, begin: &str) -> Result<Reply, Problem> {
        if app.is_ending() {
            return Err(Problem::unavailable("SDB406", "this gateway is ending: begin the transaction again"));
        }
        // Its operations are charged, and not refused: meanwhile it would hold its locks.
        app.pool.admit(caller)?;
        let limits = &app.config.limits;
        let id = peers::new_id(self.instance);
        let open = Arc::new(Open {
            caller: caller.clone(),
            began: Instant::now(),
            used: Mutex::new(Instant::now()),
            session: tokio::sync::Mutex::new(None),
        });
        {
            // Counted and entered at once, so that no two requests take the last place.
            let mut all = self.lock();
            let own = all.values().filter(|other| other.caller == *caller).count();
            if own >= limits.transactions_of_a_caller || all.len() >= (limits.connections / 2).max(1) {
                return Err(Problem::unavailable("SDB402", "too many transactions are open")
                    .hint("end one, or send the operations at once"));
            }
            all.insert(id.clone(), Arc::clone(&open));
        }
        let mut session = Session::shared(&app.pool, caller, begin);
        if let Err(problem) = session.lease().await {
            self.lock().remove(&id);
            return session.finish(Err(problem)).await;
        }
        *open.session.lock().await = Some(session);
        let body = json!({
            "txn_id": id,
            "idle_seconds": limits.transaction_idle_seconds,
            "total_seconds": limits.transaction_seconds,
        });
        Ok(Reply::json(StatusCode::CREATED, body.to_string()))
    }

    fn find(&self, caller: &Caller, id: &str) -> Result<Arc<Open>, Problem> {
        let found = self.lock().get(id).filter(|open| open.caller == *caller).cloned();
        found.ok_or_else(|| match peers::instance(id) {
            Some(other) if other != self.instance => peers::gone(),
            _ => Problem::missing(
                "SDB403",
                "there is no such transaction: it was ended, rolled back after an error, or idle for too long",
            ),
        })
    }

    /// Runs an operation in an open transaction. An error of the database ends the transaction, and so does a change that
    /// the answer refuses.
    ///
    /// # Errors
    /// 404 without such a transaction, or if its time is over, and the operation's errors.
    pub async fn run(&self, app: &App, caller: &Caller, id: &str, operation: &Operation) -> Result<Reply, Problem> {
        no_trial(operation)?;
        let open = self.find(caller, id)?;
        let mut place = open.session.lock().await;
        let gone = || Problem::missing("SDB403", "the transaction has ended");
        let Some(mut session) = place.take() else { return Err(gone()) };
        // A caller whose next request always waits here keeps the sweeper out: it takes only what is free.
        let seconds = app.config.limits.transaction_seconds;
        if open.began.elapsed() > Duration::from_secs(seconds) {
            self.lock().remove(id);
            over(&open, session).await;
            let message = format!("the transaction was open for longer than {seconds} s, and was rolled back");
            return Err(Problem::missing("SDB403", message)
                .hint("begin it again and end it sooner, or send the operations at once"));
        }
        let catalog = app.current.get();
        let result = perform(&mut session, &catalog, &app.config, operation).await;
        touch(&open.used);
        match result {
            Err(problem) if problem.must_roll_back || problem.connection_lost => {
                self.lock().remove(id);
                let told = problem.details.clone().map_or(String::new(), |details| format!(": {details}"));
                session.finish(Err(problem.details(format!("the transaction was rolled back{told}")))).await
            }
            result => {
                *place = Some(session);
                result
            }
        }
    }

    async fn end(&self, caller: &Caller, id: &str, commit: bool) -> Result<Reply, Problem> {
        let open = self.find(caller, id)?;
        self.lock().remove(id);
        let session = open.session.lock().await.take();
        let session = session.ok_or_else(|| Problem::missing("SDB403", "the transaction has ended"))?;
        if !commit {
            session.abandon().await;
            return Ok(Reply::json(StatusCode::OK, json!({"txn_id": id, "status": "rolled back"}).to_string()));
        }
        session.finish(Ok(())).await?;
        Ok(Reply::json(StatusCode::OK, json!({"txn_id": id, "status": "committed"}).to_string()))
    }

    /// Rolls transactions back that are idle, or open, for too long.
    pub async fn sweep(&self, limits: &Limits) {
        let (idle, total) =
            (Duration::from_secs(limits.transaction_idle_seconds), Duration::from_secs(limits.transaction_seconds));
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let late: Vec<(String, Arc<Open>)> = {
                let all = self.lock();
                let late = |open: &Open| open.began.elapsed() > total || used(&open.used).elapsed() > idle;
                all.iter().filter(|(_, open)| late(open)).map(|(id, open)| (id.clone(), Arc::clone(open))).collect()
            };
            for (id, open) in late {
                // One that is at work is left to the statement's own limits, and to the next request that waits for it.
                if let Ok(mut place) = open.session.try_lock() {
                    self.lock().remove(&id);
                    if let Some(session) = place.take() {
                        over(&open, session).await;
                    }
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Open>>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Rolls a transaction back whose time is over.
async fn over(open: &Open, session: Session) {
    session.abandon().await;
    tracing::info!(caller = &*open.caller.name, "a transaction was rolled back: its time is over");
}

fn used(place: &Mutex<Instant>) -> Instant {
    *place.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn touch(place: &Mutex<Instant>) {
    *place.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
}
