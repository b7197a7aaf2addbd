//! Messages as operations.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::proto::{Conflict, CountMode, Query, query};
use crate::problem::{Fault, Problem};
use crate::request::Prefer;
use crate::serve::{IDEMPOTENCY_KEY, Operation, READ_AFTER, READ_REPLICA, TXN_ID, Target};

/// One object, and no array.
const OBJECT: HeaderValue = HeaderValue::from_static("application/vnd.pgrst.object+json");

/// The metadata that may ask for something: the headers of the same names by REST.
pub(super) struct Asked {
    /// The idempotency keys: one at most is right.
    keys: Vec<HeaderValue>,
    /// The caller's token, for the pod that has the call's transaction.
    token: Option<HeaderValue>,
    /// The position that a replica must have reached.
    after: Option<HeaderValue>,
    prefer: Prefer,
}

impl Asked {
    /// By these metadata.
    ///
    /// # Errors
    /// About unknown preferences, with `handling=strict`.
    pub(super) fn read(metadata: &HeaderMap) -> Result<Self, Problem> {
        let keys = metadata.get_all(IDEMPOTENCY_KEY).iter().cloned().collect();
        let token = metadata.get(header::AUTHORIZATION).cloned();
        Ok(Self { keys, token, after: metadata.get(READ_AFTER).cloned(), prefer: Prefer::read(metadata)? })
    }
}

/// An operation under construction.
pub(super) struct Call {
    operation: Operation,
    prefer: Vec<&'static str>,
    pairs: Vec<(&'static str, String)>,
}

impl Call {
    /// On what a path would name.
    pub(super) fn new(method: Method, target: Target) -> Self {
        let operation = Operation {
            method,
            target,
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            separate: false,
        };
        Self { operation, prefer: Vec::new(), pairs: Vec::new() }
    }

    /// On what a query of a collection names: `by_text` and `by_tree` are the targets of both forms.
    pub(super) fn query(query: Option<Query>, by_text: Target, by_tree: Target) -> Self {
        match query.and_then(|query| query.form) {
            Some(query::Form::Tree(tree)) => Self::new(Method::POST, by_tree).body(tree),
            Some(query::Form::Text(text)) => {
                let mut call = Self::new(Method::GET, by_text);
                call.operation.query = text;
                call
            }
            None => Self::new(Method::GET, by_text),
        }
    }

    /// A page of what the query names, if one is asked for.
    pub(super) fn page(mut self, size: i32, token: &str) -> Result<Self, Problem> {
        let size = u32::try_from(size).map_err(|_| Problem::request("SDB400", "\"page_size\" is negative"))?;
        if size == 0 && token.is_empty() {
            return Ok(self);
        }
        if self.operation.method == Method::GET {
            // The last of several of a name counts.
            let mut pairs = form_urlencoded::Serializer::new(std::mem::take(&mut self.operation.query));
            if size > 0 {
                pairs.append_pair("limit", &size.to_string());
            }
            self.operation.query = pairs.append_pair("page_token", token).finish();
            return Ok(self);
        }
        let unreadable = |error: serde_json::Error| {
            Problem::request("PGRST102", "the query's tree could not be read").details(error.to_string())
        };
        let mut tree: Map<String, Value> = serde_json::from_slice(&self.operation.body).map_err(unreadable)?;
        if size > 0 {
            tree.insert("limit".to_owned(), size.into());
        }
        tree.insert("pageToken".to_owned(), token.into());
        self.operation.body = Value::Object(tree).to_string().into();
        Ok(self)
    }

    /// With a body.
    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.operation.body = body;
        self
    }

    /// With a preference.
    pub(super) fn prefer(mut self, preference: Option<&'static str>) -> Self {
        self.prefer.extend(preference);
        self
    }

    /// With a pair of the query string, unless its value is empty.
    pub(super) fn pair(mut self, name: &'static str, value: String) -> Self {
        if !value.is_empty() {
            self.pairs.push((name, value));
        }
        self
    }

    /// With the rows that a write has changed, or without.
    pub(super) fn returning(self, omit: bool) -> Self {
        self.prefer(Some(if omit { "return=minimal" } else { "return=representation" }))
    }

    /// With one object as the answer.
    pub(super) fn singular(mut self) -> Self {
        self.operation.headers.insert(header::ACCEPT, OBJECT);
        self
    }

    /// Only for this version, unless it is empty.
    pub(super) fn version(self, etag: &str) -> Result<Self, Problem> {
        self.header(header::IF_MATCH, "etag", etag)
    }

    /// In this transaction, unless it is empty.
    pub(super) fn within(self, transaction: &str) -> Result<Self, Problem> {
        self.header(HeaderName::from_static(TXN_ID), "transaction", transaction)
    }

    /// With what the metadata ask for: carried out once for a key, and read from a replica. The other preferences are
    /// members of the messages.
    pub(super) fn asked(mut self, asked: &Asked) -> Self {
        for key in &asked.keys {
            self.operation.headers.append(HeaderName::from_static(IDEMPOTENCY_KEY), key.clone());
        }
        if let Some(token) = &asked.token {
            self.operation.headers.insert(header::AUTHORIZATION, token.clone());
        }
        if let Some(after) = &asked.after {
            self.operation.headers.insert(HeaderName::from_static(READ_AFTER), after.clone());
        }
        self.prefer(asked.prefer.replica.then_some(READ_REPLICA)).prefer(asked.prefer.read_after.then_some(READ_AFTER))
    }

    fn header(mut self, name: HeaderName, field: &str, value: &str) -> Result<Self, Problem> {
        if !value.is_empty() {
            let unreadable = |_| Problem::request("SDB400", format!("\"{field}\" is not readable"));
            self.operation.headers.insert(name, HeaderValue::from_str(value).map_err(unreadable)?);
        }
        Ok(self)
    }

    /// The operation.
    pub(super) fn operation(mut self) -> Operation {
        if !self.pairs.is_empty() {
            let mut query = form_urlencoded::Serializer::new(String::new());
            self.operation.query = query.extend_pairs(&self.pairs).finish();
        }
        if let Ok(prefer) = HeaderValue::from_str(&self.prefer.join(", ")) {
            self.operation.headers.insert(HeaderName::from_static("prefer"), prefer);
        }
        self.operation
    }
}

/// How documents are counted.
pub(super) fn counting(mode: i32) -> Result<Option<&'static str>, Problem> {
    Ok(match CountMode::try_from(mode).map_err(|_| unknown("count mode"))? {
        CountMode::Unspecified => None,
        CountMode::Exact => Some("count=exact"),
        CountMode::Planned => Some("count=planned"),
        CountMode::Estimated => Some("count=estimated"),
    })
}

/// What becomes of a document that is there already.
pub(super) fn resolution(conflict: i32) -> Result<Option<&'static str>, Problem> {
    Ok(match Conflict::try_from(conflict).map_err(|_| unknown("conflict"))? {
        Conflict::Unspecified => None,
        Conflict::Ignore => Some("resolution=ignore-duplicates"),
        Conflict::Merge => Some("resolution=merge-duplicates"),
    })
}

/// The error about a number that no name of an enum has.
pub(super) fn unknown(field: &str) -> Problem {
    Problem::request("SDB400", format!("this {field} is not known"))
}

/// Names as the dialect lists them.
pub(super) fn names(names: &[String]) -> String {
    let quoted = names.iter().map(|name| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")));
    quoted.collect::<Vec<_>>().join(",")
}

/// A document, if it is one JSON object.
pub(super) fn document(document: Bytes) -> Result<Bytes, Problem> {
    is_object(&document)
        .then_some(document)
        .ok_or_else(|| Problem::request("PGRST102", "the document is no JSON object"))
}

/// Documents as one array.
pub(super) fn array(documents: &[Bytes]) -> Result<Bytes, Problem> {
    let wrong = documents.iter().enumerate().filter(|(_, document)| !is_object(document));
    let faults: Vec<_> = wrong
        .map(|(place, _)| Fault { pointer: format!("/{place}"), message: "is no JSON object".to_owned() })
        .collect();
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let mut text = vec![b'['];
    text.extend(documents.join(&b','));
    text.push(b']');
    Ok(Bytes::from(text))
}

fn is_object(document: &[u8]) -> bool {
    document.trim_ascii_start().first() == Some(&b'{') && serde_json::from_slice::<&RawValue>(document).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_in_both_forms() {
        let target = Target::Collection("a".to_owned());
        let call = |form| Call::query(form, target.clone(), target.clone());
        let by_text = || call(Some(Query { form: Some(query::Form::Text("select=id&limit=3".to_owned())) }));
        let tree = Bytes::from_static(br#"{"select": ["id"], "limit": 3}"#);
        let by_tree = || call(Some(Query { form: Some(query::Form::Tree(tree.clone())) }));
        for (size, token, text, tree) in [
            (0, "", "select=id&limit=3", r#"{"select": ["id"], "limit": 3}"#),
            (2, "", "select=id&limit=3&limit=2&page_token=", r#"{"limit":2,"pageToken":"","select":["id"]}"#),
            (0, "x&y", "select=id&limit=3&page_token=x%26y", r#"{"limit":3,"pageToken":"x&y","select":["id"]}"#),
        ] {
            assert_eq!(by_text().page(size, token).expect("a call").operation().query, text);
            let body = by_tree().page(size, token).expect("a call").operation().body;
            let parsed = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("JSON");
            assert_eq!(parsed(&body), parsed(tree.as_bytes()));
        }
        assert_eq!(call(None).page(1, "").expect("a call").operation().query, "limit=1&page_token=");
        assert_eq!(by_text().page(-1, "").err().map(|problem| problem.code.clone()).as_deref(), Some("SDB400"));
    }

    #[test]
    fn nothing_but_one_object_is_a_document() {
        for (text, fine) in [
            ("{}", true),
            (" {\"a\": [1]} ", true),
            ("{\"a\":1},{\"a\":2}", false),
            ("[{}]", false),
            ("", false),
            ("{", false),
        ] {
            assert_eq!(document(Bytes::from(text)).is_ok(), fine, "{text}");
            assert_eq!(array(&[Bytes::from("{}"), Bytes::from(text)]).is_ok(), fine, "{text}");
        }
        assert_eq!(array(&[]).expect("none"), "[]");
        assert_eq!(names(&["a".to_owned(), "b\"\\,".to_owned()]), r#""a","b\"\\,""#);
    }
}
