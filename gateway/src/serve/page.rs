//! Pages: `page_token` of a request, `Next-Page-Token` of its answer.
//!
//! A token has the values of the page's last row in the columns of the order. They become parameters of a comparison, which the
//! caller could write as a filter: a token is not signed, and a digest of the request keeps it from another one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};
use serde_json::Value;

use super::operation::Operation;
use crate::catalog::{Catalog, Table};
use crate::database::Caller;
use crate::problem::Problem;
use crate::request::{Order, Query};
use crate::sql::{self, Form, LONGEST_TOKEN, Statement, total_order, unfit};

/// The header with the token of the next page. The last page has none.
pub const NEXT_PAGE_TOKEN: &str = "next-page-token";

/// The form of tokens.
const VERSION: u8 = 1;
/// The bytes of the digest in a token.
const BOUND: usize = 16;

/// A row's text, and the values of the order's columns in it.
type Row = (String, Option<String>);

/// The page that a request asks for.
pub(super) struct Page {
    order: Vec<Order>,
    /// The values of the last row of the page before.
    after: Option<Vec<Option<String>>>,
    limit: Option<u64>,
    binding: [u8; BOUND],
}

impl Page {
    /// The page, if the request asks for one: by a JSON tree in its body, or by its query string.
    ///
    /// # Errors
    /// If the token is of another request, or the query cannot be divided into pages.
    pub(super) fn asked(
        caller: &Caller,
        operation: &Operation,
        catalog: &Catalog,
        table: &Table,
        query: &Query,
        tree: bool,
    ) -> Result<Option<Self>, Problem> {
        let Some(token) = &query.page else { return Ok(None) };
        let refused = |message: &str| Err(Problem::request("SDB131", message));
        if query.offset.is_some_and(|offset| offset > 0) {
            return refused("page_token and offset do not go together");
        }
        if query.limit == Some(0) {
            return refused("page_token needs a limit of at least 1");
        }
        if operation.separate {
            return refused("a stream has no pages: list the documents, or leave page_token out");
        }
        let order = total_order(catalog, table, query)?;
        let binding = binding(caller, operation, table, &order, tree)?;
        let after = if token.is_empty() { None } else { Some(read(token, &binding).ok_or_else(unfit)?) };
        Ok(Some(Self { order, after, limit: query.limit, binding }))
    }

    /// The statement of its rows and of the row after them.
    ///
    /// # Errors
    /// If the query names what is not there, or the token has other values.
    pub(super) fn statement(
        &self,
        catalog: &Catalog,
        table: &Table,
        query: &Query,
        form: Form,
    ) -> Result<Statement, Problem> {
        sql::page(catalog, table, query, &self.order, self.after.as_deref(), form)
    }

    /// Takes the row after the page away. If there is one, the token of the page that it begins.
    ///
    /// # Errors
    /// If the token is too long.
    pub(super) fn cut(&self, rows: &mut Vec<Row>) -> Result<Option<String>, Problem> {
        let limit = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        if rows.len() <= limit {
            return Ok(None);
        }
        rows.truncate(limit);
        let values = rows.last().and_then(|(_, values)| values.as_deref()).unwrap_or_default();
        let mut token = vec![VERSION];
        token.extend(self.binding);
        token.extend(values.as_bytes());
        let token = URL_SAFE_NO_PAD.encode(token);
        if token.len() > LONGEST_TOKEN {
            let message = "the last row of the page has too long a value in a column of the order for a page_token";
            return Err(Problem::request("SDB132", message).hint("order by shorter columns"));
        }
        Ok(Some(token))
    }
}

/// The values in a token, if it is of this request.
fn read(token: &str, binding: &[u8]) -> Option<Vec<Option<String>>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let values = bytes.strip_prefix(&[VERSION])?.strip_prefix(binding)?;
    serde_json::from_slice(values).ok()
}

/// A digest of what must be the same in all pages of a walk: caller, collection, order, and all of the query but the token
/// and the limit.
fn binding(
    caller: &Caller,
    operation: &Operation,
    table: &Table,
    order: &[Order],
    tree: bool,
) -> Result<[u8; BOUND], Problem> {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &str| {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    };
    [&*caller.name, &table.schema, &table.name].into_iter().for_each(&mut add);
    // With the key, which the query does not name.
    order.iter().for_each(|member| add(&member.field.column));
    if tree {
        let mut tree: Value = serde_json::from_slice(&operation.body)
            .map_err(|error| Problem::request("PGRST102", "the body could not be read").details(error.to_string()))?;
        if let Some(members) = tree.as_object_mut() {
            members.retain(|name, _| !["limit", "pageToken"].contains(&name.as_str()));
        }
        add("tree");
        add(&tree.to_string());
    } else {
        add("text");
        for (key, value) in form_urlencoded::parse(operation.query.as_bytes()) {
            if !["limit", "page_token"].contains(&&*key) {
                add(&key);
                add(&value);
            }
        }
    }
    let mut binding = [0; BOUND];
    binding.copy_from_slice(&context.finish().as_ref()[..BOUND]);
    Ok(binding)
}

/// Refuses a page of what is no list of a collection's rows.
///
/// # Errors
/// If the query asks for one.
pub(super) fn without_pages(query: &Query) -> Result<(), Problem> {
    match query.page {
        None => Ok(()),
        Some(_) => Err(Problem::request("SDB131", "page_token belongs to reads of a collection")
            .hint("a condition on a column of this name is written and=(page_token.eq.…)")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::serve::Target;

    fn page(query: &str, order: &[&str]) -> [u8; BOUND] {
        let operation = Operation {
            method: Method::GET,
            target: Target::Collection("a".to_owned()),
            query: query.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            separate: false,
        };
        let caller = Caller { name: "shop/app".into(), role: "app".into() };
        let table = serde_json::json!({
            "schema": "public", "name": "a", "kind": "r", "comment": null, "events": 0, "intercepts": false,
            "row_security": false, "columns": [], "primary_key": ["id"], "unique": [], "indexes": [], "checks": [],
            "partitioning": null,
        });
        let table: Table = serde_json::from_value(table).expect("a table");
        let order: Vec<Order> = order
            .iter()
            .map(|column| Order {
                relation: None,
                field: crate::request::Field { column: (*column).to_owned(), path: Vec::new() },
                descending: false,
                nulls_first: None,
            })
            .collect();
        binding(&caller, &operation, &table, &order, false).expect("a digest")
    }

    #[test]
    fn only_the_limit_and_the_token_may_change() {
        let first = page("b=eq.1&limit=3&page_token=", &["id"]);
        assert_eq!(first, page("b=eq.1&page_token=x&limit=4", &["id"]));
        for other in ["b=eq.2&page_token=", "page_token=", "b=eq.1&select=id&page_token=", "b=eq.1&order=b&page_token="]
        {
            assert_ne!(first, page(other, &["id"]), "{other}");
        }
        assert_ne!(first, page("b=eq.1", &["other"]));
    }

    #[test]
    fn a_token_of_another_request_is_not_read() {
        let page = Page { order: Vec::new(), after: None, limit: Some(1), binding: [7; BOUND] };
        let row = |values: &str| ("{}".to_owned(), Some(values.to_owned()));
        assert_eq!(page.cut(&mut vec![row("[\"1\"]")]).expect("the last page"), None);
        let mut rows = vec![row("[\"a\\\"b\", null]"), row("[]")];
        let token = page.cut(&mut rows).expect("a token").expect("a next page");
        assert_eq!((rows.len(), read(&token, &[7; BOUND])), (1, Some(vec![Some("a\"b".to_owned()), None])));
        assert_eq!(read(&token, &[8; BOUND]), None);
        for other in ["", "x", "AQ", "é", &token[1..], &format!("{token}A")] {
            assert_eq!(read(other, &[7; BOUND]), None, "{other}");
        }
        // The statement cuts it off.
        let long = format!("[\"{}\"]", "x".repeat(LONGEST_TOKEN));
        for cut in [&long[..LONGEST_TOKEN], &long] {
            assert_eq!(page.cut(&mut vec![row(cut), row("[]")]).expect_err("too long").code, "SDB132");
        }
    }
}
