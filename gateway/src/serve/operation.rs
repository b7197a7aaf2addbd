//! One operation: a request's method, target, query string, preferences and body. A request is one operation, and so is
//! each member of a transaction.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;

use crate::problem::Problem;
use crate::request::{Bounds, Prefer};
use crate::sql::Form;

/// The largest number of rows: PostgreSQL's own are signed.
pub(super) const LARGEST: u64 = i64::MAX as u64;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The target.
    pub target: Target,
    /// The query string.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether rows are sent each for itself, and not as members of one array.
    pub separate: bool,
}

/// What a path names, below `/api/db`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the paths")]
pub enum Target {
    Root,
    OpenApi,
    Transaction,
    Search,
    Schema(String),
    Migrations,
    MigrationsStatus,
    Stats,
    Health,
    Performance,
    Connections,
    Function(String),
    Collection(String),
    Query(String),
    Count(String),
    Aggregate(String),
    Item(String, Vec<String>),
}

impl Target {
    /// By the path below `/api/db`, and the method: `/a/query` is a query only by POST.
    ///
    /// # Errors
    /// If nothing is there.
    pub fn parse(method: &Method, path: &str) -> Result<Self, Problem> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        Ok(match segments.as_slice() {
            [] => Self::Root,
            ["openapi.json"] => Self::OpenApi,
            ["transaction"] => Self::Transaction,
            ["search"] => Self::Search,
            ["schema", collection] => Self::Schema(decoded(collection)?),
            ["migrations"] => Self::Migrations,
            ["migrations", "status"] => Self::MigrationsStatus,
            ["stats"] => Self::Stats,
            ["health"] => Self::Health,
            ["performance"] => Self::Performance,
            ["connections"] => Self::Connections,
            ["rpc", function] => Self::Function(decoded(function)?),
            [collection] => Self::Collection(decoded(collection)?),
            [collection, "query"] if method == Method::POST => Self::Query(decoded(collection)?),
            [collection, "aggregate"] if method == Method::POST => Self::Aggregate(decoded(collection)?),
            [collection, "count"] if [Method::GET, Method::POST].contains(method) => Self::Count(decoded(collection)?),
            [collection, id] => Self::Item(decoded(collection)?, key(id)?),
            _ => return Err(Problem::missing("PGRST125", "there is nothing at this path")),
        })
    }

    /// A path that [`Self::parse`] reads as this target, whatever its names are; nothing, if no path names it.
    pub(super) fn path(&self) -> Option<String> {
        Some(match self {
            Self::Transaction => "/transaction".to_owned(),
            Self::Search => "/search".to_owned(),
            Self::Function(name) => format!("/rpc/{}", encoded(name)?),
            Self::Collection(name) => format!("/{}", encoded(name)?),
            Self::Query(name) => format!("/{}/query", encoded(name)?),
            Self::Count(name) => format!("/{}/count", encoded(name)?),
            Self::Aggregate(name) => format!("/{}/aggregate", encoded(name)?),
            Self::Item(name, id) => {
                let id: Vec<String> = id.iter().map(|part| bytes_encoded(part)).collect();
                let id = id.join(",");
                // An empty segment is none, and the standard of URLs takes these away.
                (!["", "%2E", "%2E%2E"].contains(&id.as_str())).then_some(())?;
                format!("/{}/{id}", encoded(name)?)
            }
            _ => return None,
        })
    }

    /// The collection, for statistics.
    pub fn collection(&self) -> &str {
        match self {
            Self::Collection(name)
            | Self::Query(name)
            | Self::Count(name)
            | Self::Aggregate(name)
            | Self::Item(name, _) => name,
            Self::Function(name) => name,
            _ => "",
        }
    }
}

/// A name as a segment of a path.
fn encoded(name: &str) -> Option<String> {
    (!["", ".", ".."].contains(&name)).then(|| bytes_encoded(name))
}

/// Each byte for itself: so no name is one of the fixed segments.
fn bytes_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn decoded(segment: &str) -> Result<String, Problem> {
    let text = percent_decode_str(segment).decode_utf8();
    text.map(|text| text.into_owned()).map_err(|_| Problem::request("PGRST100", "the path is not UTF-8"))
}

/// The parts of a key: `a,b`, each percent-encoded.
fn key(segment: &str) -> Result<Vec<String>, Problem> {
    segment.split(',').map(decoded).collect()
}

/// The answer to an operation, whole.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How many rows it is about, for statistics.
    pub rows: u64,
    /// How many there are without the range, if they were counted.
    pub total: Option<u64>,
}

impl Reply {
    /// Without headers and body.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), rows: 0, total: None }
    }

    /// Of JSON.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let mut reply = Self::new(status);
        reply.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        reply.body = body.into();
        reply
    }

    /// Names a preference that was applied, beside those that are named already.
    pub fn apply(&mut self, preference: &str) {
        let name = HeaderName::from_static("preference-applied");
        let before = self.headers.get(&name).and_then(|before| before.to_str().ok());
        let text = before.map_or_else(|| preference.to_owned(), |before| format!("{before}, {preference}"));
        self.header(name, &text);
    }

    /// Adds a header whose value is text.
    pub fn header(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }
}

/// The form of an answer, by `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// Of each row.
    pub form: Form,
    /// Whether it is one object and no array.
    pub singular: bool,
}

impl Media {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match (self.form, self.singular) {
            (Form::Csv, _) => "text/csv; charset=utf-8",
            (Form::JsonWithoutNulls, true) => "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8",
            (Form::JsonWithoutNulls, false) => "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8",
            (Form::Json, true) => "application/vnd.pgrst.object+json; charset=utf-8",
            (Form::Json, false) => "application/json; charset=utf-8",
        }
    }
}

impl Operation {
    /// The body as text.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.body).map_err(|_| Problem::request("PGRST102", "the body is not UTF-8"))
    }

    /// The form of the answer.
    ///
    /// # Errors
    /// If no form that is asked for exists (406).
    pub fn media(&self) -> Result<Media, Problem> {
        let Some(accept) = self.headers.get(header::ACCEPT) else {
            return Ok(Media { form: Form::Json, singular: false });
        };
        let accept = accept.to_str().unwrap_or_default();
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let stripped = parts.any(|parameter| parameter.eq_ignore_ascii_case("nulls=stripped"));
            let form = if stripped { Form::JsonWithoutNulls } else { Form::Json };
            match kind.as_str() {
                ""
                | "*/*"
                | "application/*"
                | "application/json"
                | "application/vnd.pgrst.array+json"
                | "application/vnd.pgrst.array" => {
                    return Ok(Media { form, singular: false });
                }
                "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => {
                    return Ok(Media { form, singular: true });
                }
                "text/csv" => return Ok(Media { form: Form::Csv, singular: false }),
                _ => {}
            }
        }
        Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "PGRST107", "none of these media types can be produced")
            .hint("application/json, application/vnd.pgrst.object+json, text/csv"))
    }

    /// The preferences.
    ///
    /// # Errors
    /// About unknown ones, with `handling=strict`.
    pub fn prefer(&self) -> Result<Prefer, Problem> {
        Prefer::read(&self.headers)
    }

    /// The schema that the headers name.
    pub fn schema(&self) -> Option<&str> {
        let reads = self.method == Method::GET || self.method == Method::HEAD;
        let name = if reads { "accept-profile" } else { "content-profile" };
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The rows that the `Range` header names, as offset and limit.
    ///
    /// # Errors
    /// If it is no range.
    pub fn range(&self) -> Result<Option<(u64, Option<u64>)>, Problem> {
        let Some(value) = self.headers.get(header::RANGE) else { return Ok(None) };
        let invalid = || Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "PGRST103", "the range is not <first>-<last>");
        let text = value.to_str().map_err(|_| invalid())?;
        let text = text.strip_prefix("items=").unwrap_or(text);
        let (first, last) = text.split_once('-').ok_or_else(invalid)?;
        let first: u64 = first.trim().parse().ok().filter(|first| *first <= LARGEST).ok_or_else(invalid)?;
        if last.trim().is_empty() {
            return Ok(Some((first, None)));
        }
        let last: u64 = last.trim().parse().map_err(|_| invalid())?;
        let length = last.checked_sub(first).ok_or_else(invalid)?;
        Ok(Some((first, Some(length.saturating_add(1).min(LARGEST)))))
    }

    /// The version that `If-Match` names: none without the header or with `*`.
    ///
    /// # Errors
    /// If it is no version of ours.
    pub fn if_match(&self) -> Result<Option<String>, Problem> {
        let Some(value) = self.headers.get(header::IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let version = inner.filter(|inner| inner.parse::<u32>().is_ok());
        // Any other tag is one that no row has.
        version.map(|version| Some(version.to_owned())).ok_or_else(changed)
    }
}

/// The answer to a version that is no longer the row's.
pub fn changed() -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "SDB107", "the document was changed since this version")
        .hint("read it again, and repeat the change with its new ETag")
}

/// The bounds of the settings.
pub fn bounds(limits: &crate::config::Limits) -> Bounds {
    Bounds { conditions: limits.conditions, depth: limits.depth }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_the_target_that_it_was_made_of() {
        let text = |text: &str| text.to_owned();
        for (method, target) in [
            (Method::POST, Target::Transaction),
            (Method::POST, Target::Search),
            (Method::POST, Target::Function(text("a b"))),
            (Method::GET, Target::Collection(text("stats"))),
            (Method::POST, Target::Collection(text("public.\u{e4}/?%#"))),
            (Method::POST, Target::Query(text("migrations"))),
            (Method::GET, Target::Count(text("schema"))),
            (Method::POST, Target::Aggregate(text("rpc"))),
            (Method::GET, Target::Item(text("a"), vec![text("count")])),
            (Method::DELETE, Target::Item(text("migrations"), vec![text("status")])),
            (Method::PATCH, Target::Item(text("a"), vec![text("x,y"), text(""), text("..")])),
        ] {
            let path = target.path().expect("a path");
            assert!(path.is_ascii() && http::Uri::try_from(path.as_str()).is_ok(), "{path}");
            assert_eq!(Target::parse(&method, &path).expect("a target"), target, "{path}");
        }
        for target in [
            Target::Collection(text("")),
            Target::Collection(text("..")),
            Target::Item(text("a"), Vec::new()),
            Target::Item(text("a"), vec![text(".")]),
            Target::Health,
        ] {
            assert_eq!(target.path(), None, "{target:?}");
        }
    }
}
