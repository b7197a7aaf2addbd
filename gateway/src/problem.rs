//! Errors, as RFC 9457 problem details with PostgREST's `code`, `message`, `details` and `hint` as members.

use std::ops::{Deref, DerefMut};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio_postgres::error::{DbError, SqlState};

/// The code of a connection that ended under a request.
const LOST: &str = "08006";

/// An answer other than the one that was asked for. Boxed: it is large, and results carry it everywhere.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", _0.message)]
pub struct Problem(Box<Parts>);

impl Deref for Problem {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

/// The parts of a problem.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The status of the answer.
    pub status: StatusCode,
    /// PostgreSQL's SQLSTATE, PostgREST's code, or one of ours.
    pub code: String,
    /// What happened.
    pub message: String,
    /// More about it.
    pub details: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Each fault of a body.
    pub faults: Vec<Fault>,
    /// How many rows there are, where a range begins after the last one.
    pub total: Option<u64>,
    /// After how many seconds the request may succeed.
    pub retry_after: Option<u64>,
    /// Whether the connection may be used no longer.
    pub connection_lost: bool,
    /// Whether the transaction that it happened in must be rolled back: it has failed in the database, or a change was
    /// made that the answer refuses.
    pub must_roll_back: bool,
}

/// One fault of a body.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// Where: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

impl Problem {
    /// A problem without details.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code: code.to_owned(),
            message: message.into(),
            details: None,
            hint: None,
            faults: Vec::new(),
            total: None,
            retry_after: None,
            connection_lost: false,
            must_roll_back: false,
        }))
    }

    /// A request that cannot be carried out as it is (400).
    pub fn request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Something that is not there (404).
    pub fn missing(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// A database that does not answer, or has no room (503).
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        problem.retry_after = Some(1);
        problem
    }

    /// Adds details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that the transaction must be rolled back.
    #[must_use]
    pub fn roll_back(mut self) -> Self {
        self.must_roll_back = true;
        self
    }

    /// All faults of a body.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let mut problem = Self::request("SDB100", "the body does not fit the collection");
        problem.details = Some(
            faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.message)).collect::<Vec<_>>().join("; "),
        );
        problem.faults = faults;
        problem
    }

    /// The answer's body.
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".into(), json!(format!("urn:servicedb:problem:{}", self.code)));
        body.insert("title".into(), json!(self.status.canonical_reason().unwrap_or("Error")));
        body.insert("status".into(), json!(self.status.as_u16()));
        body.insert("detail".into(), json!(self.message));
        body.insert("code".into(), json!(self.code));
        body.insert("message".into(), json!(self.message));
        body.insert("details".into(), json!(self.details));
        body.insert("hint".into(), json!(self.hint));
        if !self.faults.is_empty() {
            body.insert("errors".into(), json!(self.faults));
        }
        Value::Object(body)
    }

    /// The problem of an answer, as another pod of the gateway sends it; nothing, if it has none.
    pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Body {
            code: String,
            message: String,
            details: Option<String>,
            hint: Option<String>,
            #[serde(default)]
            errors: Vec<Fault>,
        }
        let body: Body = serde_json::from_slice(body).ok()?;
        let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let mut problem = Self::new(status, &body.code, body.message);
        (problem.details, problem.hint, problem.faults) = (body.details, body.hint, body.errors);
        problem.retry_after = text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        problem.total = text(header::CONTENT_RANGE).and_then(|range| range.strip_prefix("*/")?.parse().ok());
        Some(problem)
    }

    /// Whether nobody has told what became of a statement.
    pub fn is_unknown(&self) -> bool {
        self.connection_lost && self.code == LOST
    }

    /// Whether the catalogue may be older than the schema.
    pub fn suggests_another_schema(&self) -> bool {
        ["42P01", "42703", "42883", "3F000", "42704", "PGRST204", "PGRST205", "PGRST200", "PGRST202"]
            .contains(&self.code.as_str())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json; charset=utf-8"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(range) = self.total.and_then(|total| HeaderValue::from_str(&format!("*/{total}")).ok()) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The answer to an error of the database.
impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => of_database(db).roll_back(),
            None => {
                tracing::debug!(%error, "a connection to the database failed");
                lost()
            }
        }
    }
}

/// At most so many bytes of a text.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// A connection that ended under a request.
pub fn lost() -> Problem {
    let mut problem = Problem::unavailable(LOST, "the connection to the database was lost");
    problem.details = Some("whether a write was carried out is not known".to_owned());
    problem.connection_lost = true;
    problem
}

/// An error that the server reported. Its message is passed on where it is about the caller's data.
fn of_database(db: &DbError) -> Problem {
    let code = db.code().code();
    let status = status(db.code());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let mut problem = Problem::unavailable(code, "the database is not available");
        problem.connection_lost = true;
        return problem;
    }
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        // The text may be about the statement, which is ours.
        tracing::error!(sqlstate = code, message = db.message(), "a statement of the gateway failed");
        return Problem::new(status, code, "the database reported an error that the gateway did not expect");
    }
    let mut problem = Problem::new(status, code, db.message());
    problem.details = db.detail().map(str::to_owned);
    problem.hint = db.hint().map(str::to_owned);
    if status == StatusCode::CONFLICT && code.starts_with("40") {
        problem.retry_after = Some(0);
    }
    problem
}

/// The status for a SQLSTATE.
fn status(state: &SqlState) -> StatusCode {
    let code = state.code();
    match code {
        "23505" | "23503" | "23P01" | "40001" | "40P01" | "55P03" => StatusCode::CONFLICT,
        "42501" => StatusCode::FORBIDDEN,
        "42P01" | "3F000" => StatusCode::NOT_FOUND,
        "57014" => StatusCode::GATEWAY_TIMEOUT,
        "25P04" | "25P03" => StatusCode::GATEWAY_TIMEOUT,
        // The server became a replica, or its volume is nearly full: the next connection may find another one.
        "25006" => StatusCode::SERVICE_UNAVAILABLE,
        "53300" | "53200" | "53400" | "53100" => StatusCode::SERVICE_UNAVAILABLE,
        // A function has ended, or made, prepared statements: the connection's own are no longer known.
        "26000" | "42P05" => StatusCode::SERVICE_UNAVAILABLE,
        "54000" | "54001" | "54011" | "54023" => StatusCode::BAD_REQUEST,
        "42703" | "42883" | "42804" | "42846" | "42704" | "42803" | "42P10" | "42725" | "428C9" | "42P18" | "42702" => {
            StatusCode::BAD_REQUEST
        }
        _ if code.starts_with("PT") => {
            // It is an error, whatever it names.
            let named = code[2..].parse().ok().filter(|code| (400..600).contains(code));
            named.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::BAD_REQUEST)
        }
        _ => match &code[..2] {
            "08" | "57" => StatusCode::SERVICE_UNAVAILABLE,
            // An aborted transaction.
            "25" => StatusCode::CONFLICT,
            "28" => StatusCode::FORBIDDEN,
            "0A" | "26" | "34" | "42" | "53" | "54" | "55" | "58" | "F0" | "XX" => StatusCode::INTERNAL_SERVER_ERROR,
            // The caller's data, and what functions of the schema raise.
            _ => StatusCode::BAD_REQUEST,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_read_as_it_was_sent() {
        let fault = Fault { pointer: "/a".to_owned(), message: "is missing".to_owned() };
        let mut sent = Problem::invalid(vec![fault.clone()]).hint("add it");
        (sent.retry_after, sent.total) = (Some(3), Some(7));
        let (status, body) = (sent.status, sent.body().to_string());
        let headers = sent.clone().into_response().headers().clone();
        let read = Problem::read(status, &headers, body.as_bytes()).expect("a problem");
        assert_eq!((read.status, &read.code, &read.message), (sent.status, &sent.code, &sent.message));
        assert_eq!((&read.details, &read.hint, &read.faults), (&sent.details, &sent.hint, &vec![fault]));
        assert_eq!((read.retry_after, read.total), (Some(3), Some(7)));
        assert!(Problem::read(status, &headers, b"<html>").is_none());
        assert!(Problem::read(status, &headers, b"{}").is_none());
    }
}
