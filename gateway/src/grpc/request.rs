//! Messages as operations.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::value::RawValue;

use super::proto::{Conflict, CountMode, Query, query};
use crate::problem::{Fault, Problem};
use crate::serve::{IDEMPOTENCY_KEY, Operation, TXN_ID, Target};

/// One object, and no array.
const OBJECT: HeaderValue = HeaderValue::from_static("application/vnd.pgrst.object+json");

/// The idempotency keys of a call: one at most is right.
pub(super) type Keys = Vec<HeaderValue>;

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

    /// Carried out once for this key, if there is one.
    pub(super) fn once(mut self, keys: &Keys) -> Self {
        for key in keys.iter() {
            self.operation.headers.append(HeaderName::from_static(IDEMPOTENCY_KEY), key.clone());
        }
        self
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
