//! The other pods of this gateway: a request of a transaction that one of them has is carried out there, once it is found.
//!
//! The id of a transaction names the process that began it by a number of its own, not by an address. A pod asks the
//! others for their numbers, at the addresses that the settings lead to, and at no other. It passes the request on with
//! the caller's token, which is verified there again.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::RwLock;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::operation::{Operation, Reply};
use super::transaction::{self, TXN_ID};
use super::{App, IDEMPOTENCY_KEY, READ_AFTER};
use crate::config::{self, ConfigError, Limits};
use crate::problem::{Problem, lost};

/// The number of a process of the gateway.
pub(super) type Instance = [u8; 8];

/// Where a pod tells its number to the others.
pub(super) const PATH: &str = "/peer";
/// Set on a request that was passed on: it is not passed on again.
const FORWARDED: &str = "servicedb-forwarded";
/// Of the answer to it: parts of a reply that no other header has.
const ROWS: &str = "servicedb-rows";
/// See [`ROWS`].
const TOTAL: &str = "servicedb-total";
/// The headers of a request that an operation depends on.
const PASSED_ON: [&str; 12] = [
    "authorization",
    "accept",
    "accept-profile",
    "content-profile",
    "content-type",
    "prefer",
    "range",
    "if-match",
    "if-none-match",
    TXN_ID,
    IDEMPOTENCY_KEY,
    READ_AFTER,
];
/// The headers of an answer that belong to its connection, and those that each answer gets.
const OF_CONNECTION: [&str; 6] =
    ["connection", "keep-alive", "transfer-encoding", "content-length", "date", "cache-control"];
/// What a query string of gRPC may have, and a URL may not.
const UNFIT: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');
/// How long a pod may take to accept a connection, and to tell its number.
const TIMEOUT: Duration = Duration::from_secs(2);
/// From one look for the others to the next, at least.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a connection is kept without use: less than the others wait for the next request on it.
const UNUSED: Duration = Duration::from_secs(3);
/// The longest URL that a request is passed on with, in bytes: a server takes no more than 64 KiB.
const LONGEST: usize = 60 << 10;
/// Between two questions whether a pod that does not answer is still there; after three it is not.
const ALIVE: Duration = Duration::from_secs(5);

/// A new id of a transaction of this process.
pub(super) fn new_id(instance: Instance) -> String {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&instance);
    id[8..].copy_from_slice(&rand::random::<[u8; 24]>());
    URL_SAFE_NO_PAD.encode(id)
}

/// The process that the id of a transaction names; nothing, if it is no id.
pub(super) fn instance(id: &str) -> Option<Instance> {
    let bytes = URL_SAFE_NO_PAD.decode(id).ok().filter(|bytes| bytes.len() == 32)?;
    bytes[..8].try_into().ok()
}

/// The number of a process, as it tells it.
pub(super) fn encoded(instance: Instance) -> String {
    URL_SAFE_NO_PAD.encode(instance)
}

/// The answer to a request of a transaction that no pod has any more.
pub(super) fn gone() -> Problem {
    let message = "the transaction is gone: the pod of the gateway that had it has ended, or cannot be reached";
    Problem::new(StatusCode::CONFLICT, "SDB410", message)
        .details(
            "this request has committed nothing; a commit of the transaction that was sent before, and not answered, \
             may have been carried out",
        )
        .hint("begin the transaction again, unless it was committed before")
}

/// The answer to a request that was passed on, and whose answer is missing.
fn unanswered(commits: bool) -> Problem {
    if !commits {
        // The caller gives it up: nobody else can commit it.
        return gone();
    }
    let mut problem = lost();
    "the pod of the gateway that has the transaction did not answer".clone_into(&mut problem.message);
    problem.details = Some("whether the transaction was committed is not known".to_owned());
    problem
}

/// What became of an operation.
pub(super) enum Forwarded {
    /// It is this pod's own.
    Not,
    /// Another pod has carried it out, or refused it.
    Answered(Result<Reply, Problem>),
    /// It is another pod's, which has not answered.
    Unanswered(Problem),
}

/// Passes an operation on to the pod that has its transaction.
pub(super) async fn forward(app: &App, operation: &Operation) -> Forwarded {
    let Some(peers) = app.peers.as_ref().filter(|_| !operation.headers.contains_key(FORWARDED)) else {
        return Forwarded::Not;
    };
    let Some((id, commits)) = transaction::id(operation) else { return Forwarded::Not };
    match instance(&id).filter(|instance| *instance != app.transactions.instance()) {
        // Boxed: few requests need its room.
        Some(instance) => Box::pin(peers.send(instance, operation, commits)).await,
        None => Forwarded::Not,
    }
}

/// Adds what the pod that has passed the request on has to know.
pub(super) fn mark(operation: &Operation, reply: &mut Reply) {
    if !operation.headers.contains_key(FORWARDED) {
        return;
    }
    reply.headers.insert(ROWS, HeaderValue::from(reply.rows));
    if let Some(total) = reply.total {
        reply.headers.insert(TOTAL, HeaderValue::from(total));
    }
}

/// The pods, as the settings lead to them.
pub struct Peers {
    settings: config::Peers,
    /// How long an operation may take.
    patience: Duration,
    /// Those that answered the last look: a client of each.
    known: RwLock<HashMap<Instance, reqwest::Client>>,
    /// The last look. Locked during one.
    looked: tokio::sync::Mutex<Option<Look>>,
}

/// A look for the other pods.
#[derive(Clone, Copy)]
struct Look {
    began: Instant,
    /// Whether their addresses were found.
    found: bool,
}

impl Peers {
    /// From the settings.
    ///
    /// # Errors
    /// If the authority's file cannot be used.
    pub fn new(settings: &config::Peers, limits: &Limits) -> Result<Self, ConfigError> {
        let patience = Duration::from_millis(limits.statement_milliseconds)
            + Duration::from_secs(limits.transaction_seconds)
            + 2 * ALIVE;
        let peers = Self {
            settings: settings.clone(),
            patience,
            known: RwLock::default(),
            looked: tokio::sync::Mutex::default(),
        };
        peers.client(SocketAddr::from(([127, 0, 0, 1], settings.port)))?;
        Ok(peers)
    }

    async fn send(&self, instance: Instance, operation: &Operation, commits: bool) -> Forwarded {
        let url = match self.url(operation) {
            Ok(url) => url,
            Err(problem) => return Forwarded::Unanswered(problem),
        };
        // A pod whose address another has by now is looked for once more, and so is one whose authority was renewed.
        for _ in 0..2 {
            let client = match self.find(instance).await {
                Ok(Some(client)) => client,
                Ok(None) => break,
                Err(problem) => return Forwarded::Unanswered(problem),
            };
            let request = client.request(operation.method.clone(), &url).headers(passed_on(&operation.headers));
            let request = if operation.body.is_empty() { request } else { request.body(operation.body.clone()) };
            match request.send().await {
                Ok(response) => return answered(response, commits).await,
                // Nothing of it was sent.
                Err(error) if error.is_connect() => {
                    let error = error.without_url();
                    tracing::warn!(%error, "a pod of the gateway cannot be reached");
                    self.lock().remove(&instance);
                }
                Err(error) => {
                    let error = error.without_url();
                    tracing::warn!(%error, "a pod of the gateway did not answer");
                    return Forwarded::Unanswered(unanswered(commits));
                }
            }
        }
        Forwarded::Unanswered(gone())
    }

    /// Where another pod takes the operation.
    ///
    /// # Errors
    /// If no URL names what it is about. The transaction goes on: nothing of it was sent.
    fn url(&self, operation: &Operation) -> Result<String, Problem> {
        let path = operation.target.path().ok_or_else(|| {
            let message = "a transaction in another pod of the gateway takes no collection and no key without a name";
            Problem::request("SDB400", message)
        })?;
        let query = utf8_percent_encode(&operation.query, UNFIT);
        let url = format!("{}/api/db{path}?{query}", self.base());
        if url.len() > LONGEST {
            let message = "the query is too long for a transaction in another pod of the gateway";
            return Err(Problem::request("SDB400", message).hint("send it as a tree"));
        }
        Ok(url)
    }

    fn base(&self) -> String {
        format!("https://{}:{}", self.settings.name, self.settings.port)
    }

    /// The pod with this number. An unknown one may be new.
    async fn find(&self, instance: Instance) -> Result<Option<reqwest::Client>, Problem> {
        let known = || self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&instance).cloned();
        if let Some(client) = known() {
            return Ok(Some(client));
        }
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        // A look that began after this request came has seen what there is, or that the addresses cannot be found: those who
        // wait do not look one after another.
        let before = *looked;
        let seen = match before {
            Some(look) if look.began >= asked => look,
            _ => {
                if let Some(before) = before {
                    // Ids that somebody makes up do not make a stream of looks.
                    tokio::time::sleep_until((before.began + PAUSE).into()).await;
                }
                let began = Instant::now();
                let look = Look { began, found: self.look().await };
                *looked = Some(look);
                look
            }
        };
        match known() {
            None if !seen.found => {
                let message = "the pod of the gateway that has the transaction cannot be found at the moment";
                Err(Problem::unavailable("SDB411", message))
            }
            found => Ok(found),
        }
    }

    /// Asks all pods for their numbers; whether there are addresses to ask.
    async fn look(&self) -> bool {
        let mut addresses = BTreeSet::new();
        for host in &self.settings.hosts {
            let found = tokio::net::lookup_host((host.as_str(), self.settings.port));
            match tokio::time::timeout(TIMEOUT, found).await {
                Ok(Ok(found)) => addresses.extend(found),
                Ok(Err(error)) => tracing::warn!(host, %error, "the pods of the gateway cannot be found"),
                Err(_) => tracing::warn!(host, "the pods of the gateway are not found in time"),
            }
        }
        if addresses.is_empty() {
            return false;
        }
        let asked = futures::future::join_all(addresses.into_iter().map(|address| self.ask(address))).await;
        *self.lock() = asked.into_iter().flatten().collect();
        true
    }

    async fn ask(&self, address: SocketAddr) -> Option<(Instance, reqwest::Client)> {
        let client = match self.client(address) {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "the pods of the gateway cannot be asked");
                return None;
            }
        };
        let request = client.get(format!("{}{PATH}", self.base())).timeout(TIMEOUT).send();
        let answer = async { request.await?.error_for_status()?.text().await };
        match answer.await {
            Ok(text) => {
                let told = URL_SAFE_NO_PAD.decode(text.trim()).ok();
                Some((told.and_then(|told| told.try_into().ok())?, client))
            }
            Err(error) => {
                let error = error.without_url();
                tracing::debug!(%address, %error, "a pod of the gateway does not answer");
                None
            }
        }
    }

    /// A client of the pod at this address, which must have the gateway's certificate. Made for each look, since the
    /// authority is renewed.
    fn client(&self, address: SocketAddr) -> Result<reqwest::Client, ConfigError> {
        let path = &self.settings.ca;
        let invalid = |error: reqwest::Error| ConfigError::File { path: path.clone(), problem: error.to_string() };
        let roots = reqwest::Certificate::from_pem_bundle(&config::file(path)?).map_err(invalid)?;
        let builder = reqwest::Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .resolve(&self.settings.name, address)
            .connect_timeout(TIMEOUT)
            .timeout(self.patience)
            .pool_idle_timeout(UNUSED)
            .tcp_keepalive(ALIVE)
            .tcp_keepalive_interval(ALIVE)
            .tcp_keepalive_retries(3_u32);
        builder.build().map_err(|error| ConfigError::Setting { setting: "peers", problem: error.to_string() })
    }

    fn lock(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Instance, reqwest::Client>> {
        self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        for value in headers.get_all(name) {
            passed.append(HeaderName::from_static(name), value.clone());
        }
    }
    if let Some(token) = passed.get_mut(header::AUTHORIZATION) {
        token.set_sensitive(true);
    }
    passed.insert(FORWARDED, HeaderValue::from_static("true"));
    passed
}

async fn answered(response: reqwest::Response, commits: bool) -> Forwarded {
    let (status, headers) = (response.status(), response.headers().clone());
    // No more than the largest answer within a transaction.
    match response.bytes().await {
        Ok(body) => {
            reply(status, headers, body).map_or_else(|| Forwarded::Unanswered(unanswered(commits)), Forwarded::Answered)
        }
        Err(error) => {
            let error = error.without_url();
            tracing::warn!(%error, "the answer of a pod of the gateway ended early");
            Forwarded::Unanswered(unanswered(commits))
        }
    }
}

/// An answer as the pod that has carried the operation out would give it; nothing, if it is none of the gateway's.
fn reply(status: StatusCode, headers: HeaderMap, body: Bytes) -> Option<Result<Reply, Problem>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/problem+json") {
        return Problem::read(status, &headers, &body).map(Err);
    }
    if status.is_client_error() || status.is_server_error() {
        return None;
    }
    let number = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut reply = Reply::new(status);
    (reply.body, reply.rows, reply.total) = (body, number(ROWS).unwrap_or(0), number(TOTAL));
    reply.headers = headers;
    for name in OF_CONNECTION.into_iter().chain([ROWS, TOTAL]) {
        reply.headers.remove(name);
    }
    Some(Ok(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_process_and_nothing_else() {
        let (one, other) = ([1; 8], [2; 8]);
        let id = new_id(one);
        assert_eq!((instance(&id), id.len()), (Some(one), 43));
        assert_ne!(id, new_id(one), "it cannot be guessed");
        assert_eq!(instance(&new_id(other)), Some(other));
        for text in ["", "nonsense", &id[1..], &format!("{id}AAAA"), &encoded(one)] {
            assert_eq!(instance(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_is_passed_on_with_its_token_and_without_its_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("authorization", "Bearer x"), ("host", "a"), ("prefer", "b"), ("content-length", "3"), (TXN_ID, "t")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.append("prefer", HeaderValue::from_static("c"));
        let passed = passed_on(&headers);
        assert_eq!(passed.get_all("prefer").iter().count(), 2);
        assert!(passed["authorization"].is_sensitive() && passed["authorization"] == "Bearer x");
        assert!(passed.contains_key(TXN_ID) && passed.contains_key(FORWARDED));
        assert!(!passed.contains_key("host") && !passed.contains_key("content-length"));
    }

    #[test]
    fn an_answer_comes_back_as_it_was_given() {
        let mut given = Reply::json(StatusCode::CREATED, "{}");
        (given.rows, given.total) = (3, Some(9));
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_static("true"));
        let operation = |headers| Operation {
            method: http::Method::GET,
            target: super::super::Target::Search,
            query: String::new(),
            headers,
            body: Bytes::new(),
            separate: false,
        };
        mark(&operation(HeaderMap::new()), &mut given);
        assert!(!given.headers.contains_key(ROWS), "clients are told nothing of it");
        mark(&operation(headers), &mut given);
        let mut sent = given.headers.clone();
        sent.insert(header::CONTENT_LENGTH, HeaderValue::from_static("2"));
        let back = reply(given.status, sent, given.body).expect("an answer").expect("no problem");
        assert_eq!((back.status, back.rows, back.total, &back.body[..]), (StatusCode::CREATED, 3, Some(9), &b"{}"[..]));
        assert_eq!(back.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);

        let body = Bytes::from(gone().body().to_string());
        let kind = |kind| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let problem = reply(StatusCode::CONFLICT, kind("application/problem+json; charset=utf-8"), body);
        assert_eq!(problem.expect("an answer").expect_err("a problem").code, "SDB410");
        assert!(reply(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, HeaderMap::new(), Bytes::new()).is_none());
    }

    #[test]
    fn only_a_commit_without_an_answer_is_unknown() {
        assert_eq!(
            (unanswered(true).status, unanswered(true).code.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "08006")
        );
        assert_eq!((unanswered(false).status, unanswered(false).code.as_str()), (StatusCode::CONFLICT, "SDB410"));
    }
}
