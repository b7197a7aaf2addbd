//! `Idempotency-Key`: a request with one is carried out once, and its answer is sent again to who repeats it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use ring::digest::{Context, SHA256};
use serde_json::Map;

use super::App;
use super::operation::{Operation, Reply, Target};
use super::transaction::TXN_ID;
use crate::config::Limits;
use crate::database::{Caller, Earlier, Kept, Key, Session, claim, earlier, keep};
use crate::problem::Problem;

/// The header with the key.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header of an answer that was sent before.
pub const REPLAYED: &str = "idempotent-replayed";

/// The longest key.
const LONGEST: usize = 255;

/// A request with a key.
pub(super) enum Begun {
    /// It is carried out in this session.
    Now(Session),
    /// It was carried out before.
    Before(Reply),
}

/// The key of a request that writes. One that only reads may be repeated as it is: its key does not count.
///
/// # Errors
/// If the key cannot be used.
pub(super) fn key(caller: &Caller, operation: &Operation) -> Result<Option<Key>, Problem> {
    let mut values = operation.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next().filter(|_| writes(operation)) else { return Ok(None) };
    let invalid = || {
        Problem::request(
            "SDB121",
            format!("Idempotency-Key is not one text of 1 to {LONGEST} printable ASCII characters"),
        )
        .hint("choose a UUID for each request, and send the same one when you repeat it")
    };
    let text = text(value).filter(|_| values.next().is_none()).ok_or_else(invalid)?;
    if operation.headers.contains_key(TXN_ID) {
        return Err(in_open_transaction());
    }
    Ok(Some(Key { caller: caller.name.clone(), text: text.to_owned(), request: digest(operation) }))
}

/// The answer to a key where it would not make the request happen once.
pub(super) fn in_open_transaction() -> Problem {
    Problem::request("SDB126", "the requests of an open transaction have no Idempotency-Key")
        .hint("send the operations at once, with one key for all of them")
}

/// With the quotation marks of the IETF's draft, or without.
fn text(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_fine = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_fine.then_some(text)
}

/// Whether a request may write, and is no part of another one.
pub(super) fn writes(operation: &Operation) -> bool {
    let method = &operation.method;
    match operation.target {
        Target::Collection(_) | Target::Item(..) => {
            [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
        }
        Target::Function(_) | Target::Transaction => *method == Method::POST,
        _ => false,
    }
}

/// The digest of what the request asks for. It stays the same from one version of the gateway to the next.
fn digest(operation: &Operation) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    };
    add(operation.method.as_str().as_bytes());
    let (kind, id): (&str, &[String]) = match &operation.target {
        Target::Function(_) => ("function", &[]),
        Target::Item(_, id) => ("item", id),
        Target::Transaction => ("transaction", &[]),
        _ => ("collection", &[]),
    };
    add(kind.as_bytes());
    add(operation.target.collection().as_bytes());
    add(&(id.len() as u64).to_be_bytes());
    id.iter().for_each(|part| add(part.as_bytes()));
    add(operation.query.as_bytes());
    for name in ["prefer", header::ACCEPT.as_str(), "content-profile", header::IF_MATCH.as_str()] {
        let values = operation.headers.get_all(name);
        add(&(values.iter().count() as u64).to_be_bytes());
        values.iter().for_each(|value| add(value.as_bytes()));
    }
    add(&operation.body);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Begins a request with a key, in a transaction that `begin` begins.
///
/// # Errors
/// 422 for the key of another request, 409 while the first one is under way, 410 if its answer was not kept.
pub(super) async fn begin(app: &App, caller: &Caller, key: &Key, begin: &str) -> Result<Begun, Problem> {
    let mut session = Session::claiming(&app.pool, caller, begin);
    match claim(&mut session, key).await {
        Ok(true) => return Ok(Begun::Now(session)),
        Ok(false) => session.abandon().await,
        Err(problem) => {
            session.finish::<()>(Err(problem)).await?;
        }
    }
    let earlier = earlier(&app.pool, caller, key).await?.ok_or_else(|| {
        let message = "a request with this Idempotency-Key is under way";
        let mut problem = Problem::new(StatusCode::CONFLICT, "SDB123", message);
        problem.retry_after = Some(1);
        problem
    })?;
    if earlier.request != key.request {
        let message = "this Idempotency-Key was used for another request";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "SDB122", message)
            .hint("each request has a key of its own; only its repetitions have the same one"));
    }
    again(earlier).map(Begun::Before)
}

/// The answer of before.
fn again(Earlier { answer, .. }: Earlier) -> Result<Reply, Problem> {
    let Some(body) = answer.body else {
        let message = "this request was carried out before, and its answer was not kept";
        return Err(Problem::new(StatusCode::GONE, "SDB124", message)
            .details(format!("its status was {}, and it was about {} rows", answer.status, answer.rows))
            .hint("read what it wrote"));
    };
    let mut reply = Reply::new(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK));
    let headers: Map<String, serde_json::Value> = serde_json::from_str(&answer.headers).unwrap_or_default();
    for (name, value) in &headers {
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), value.as_str()) {
            reply.header(name, value);
        }
    }
    reply.headers.insert(REPLAYED, HeaderValue::from_static("true"));
    reply.body = Bytes::from(body);
    reply.rows = answer.rows;
    Ok(reply)
}

/// Ends a request with a key: after success its answer is kept, in its transaction.
///
/// # Errors
/// Those of the request, and of the commit.
pub(super) async fn finish(
    mut session: Session,
    limits: &Limits,
    result: Result<Reply, Problem>,
) -> Result<Reply, Problem> {
    let result = match result {
        Ok(reply) => keep(&mut session, &kept(&reply, limits)).await.map(|()| reply),
        Err(problem) => Err(problem),
    };
    let finished = session.finish(result).await;
    finished.map_err(|problem| match problem.is_unknown() {
        true => problem.hint("repeat the request with the same Idempotency-Key: it is carried out once"),
        false => problem,
    })
}

/// Removes expired records, again and again: first at once, so that the answers that others have kept are counted before
/// this process keeps any.
pub async fn forget(app: &App) {
    let pause = Duration::from_secs(app.config.limits.forget_seconds.max(1));
    loop {
        match crate::database::forget(&app.pool).await {
            Ok(0) => {}
            Ok(records) => tracing::debug!(records, "expired idempotency keys were removed"),
            Err(problem) => tracing::warn!(code = problem.code, "expired idempotency keys could not be removed"),
        }
        tokio::time::sleep(pause).await;
    }
}

fn kept(reply: &Reply, limits: &Limits) -> Kept {
    let headers = reply.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let headers: Map<String, serde_json::Value> =
        headers.map(|(name, value)| (name.to_owned(), value.into())).collect();
    Kept {
        status: reply.status.as_u16(),
        headers: serde_json::Value::Object(headers).to_string(),
        rows: reply.rows,
        body: (reply.body.len() <= limits.kept_answer_bytes).then(|| reply.body.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn operation(target: Target, change: impl FnOnce(&mut Operation)) -> Operation {
        let mut operation = Operation {
            method: Method::POST,
            target,
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
            separate: false,
        };
        change(&mut operation);
        operation
    }

    #[test]
    fn each_part_of_a_request_counts() {
        let collection = |name: &str| Target::Collection(name.to_owned());
        let header = |name: &'static str| {
            move |one: &mut Operation| {
                one.headers.insert(name, HeaderValue::from_static("x"));
            }
        };
        let item = |id: &[&str]| Target::Item("a".to_owned(), id.iter().map(|part| (*part).to_owned()).collect());
        let requests = [
            operation(collection("a"), |_| {}),
            operation(collection("b"), |_| {}),
            operation(collection("a"), |one| one.method = Method::PATCH),
            operation(collection("a"), |one| one.query = "select=id".to_owned()),
            operation(collection("a"), |one| one.body = Bytes::from_static(b"{ }")),
            operation(collection("a"), header("prefer")),
            operation(collection("a"), header("accept")),
            operation(collection("a"), header("content-profile")),
            operation(collection("a"), header("if-match")),
            operation(Target::Function("a".to_owned()), |_| {}),
            operation(item(&["bc"]), |_| {}),
            operation(item(&["b", "c"]), |_| {}),
            operation(Target::Transaction, |_| {}),
        ];
        let digests: std::collections::HashSet<_> = requests.iter().map(digest).collect();
        assert_eq!(digests.len(), requests.len());
        assert_eq!(digest(&requests[0]), digest(&operation(collection("a"), header("user-agent"))));
    }

    #[test]
    fn a_key_is_printable_ascii() {
        let long = "x".repeat(LONGEST);
        let longer = "x".repeat(LONGEST + 1);
        for (value, wanted) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            ("\"a b\"", Some("a b")),
            ("\"", Some("\"")),
            (long.as_str(), Some(long.as_str())),
            (longer.as_str(), None),
            ("", None),
            ("\"\"", None),
            ("a\tb", None),
            ("é", None),
        ] {
            assert_eq!(text(&HeaderValue::from_bytes(value.as_bytes()).expect("a value")), wanted, "{value}");
        }
    }
}
