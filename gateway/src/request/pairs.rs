//! The query string.

use super::cursor::Cursor;
use super::filter::{condition, members};
use super::order::order;
use super::select::{columns, select};
use super::{Bounds, Condition, Problem, Query};

/// What a query string asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairs {
    /// The read.
    pub query: Query,
    /// `columns=`: those that a write takes from the body.
    pub columns: Option<Vec<String>>,
    /// `on_conflict=`: the columns of the constraint.
    pub on_conflict: Option<Vec<String>>,
    /// A function's arguments.
    pub arguments: Vec<(String, String)>,
}

/// Reads a query string; pairs whose key `is_argument` accepts are a function's.
///
/// # Errors
/// If a part of it cannot be read, or it asks for more than the bounds allow.
pub fn pairs(text: &str, mut bounds: Bounds, is_argument: impl Fn(&str) -> bool) -> Result<Pairs, Problem> {
    let mut found = Pairs::default();
    let mut rest = Vec::new();
    // `select` first: the others name what it embeds.
    for (key, value) in form_urlencoded::parse(text.as_bytes()).into_owned() {
        match key.as_str() {
            key if is_argument(key) => found.arguments.push((key.to_owned(), value)),
            "select" => found.query.select = select(&value, &mut bounds)?,
            "columns" => found.columns = Some(columns(&value)?),
            "on_conflict" => found.on_conflict = Some(columns(&value)?),
            "page_token" => found.query.page = Some(value),
            _ => rest.push((key, value)),
        }
    }
    for (key, value) in rest {
        let (way, last) = split(&key)?;
        let mut query = &mut found.query;
        for name in &way {
            query = match query.embedded(name) {
                Some(embed) => &mut embed.query,
                None => {
                    return Err(Problem::request("PGRST108", format!("\"{name}\" is not embedded in this request"))
                        .hint(format!("name it in select: select=*,{name}(*)")));
                }
            };
        }
        apply(query, last, &value, &mut bounds)?;
    }
    Ok(found)
}

/// The last part of a key.
enum Last<'a> {
    Order,
    Limit,
    Offset,
    Group { any: bool, negated: bool },
    Field(&'a str),
}

/// Splits a key at its dots: `roles.film.not.or` leads to the embedded `film`.
fn split(key: &str) -> Result<(Vec<String>, Last<'_>), Problem> {
    let mut cursor = Cursor::new(key);
    let mut way = Vec::new();
    loop {
        let here = cursor.rest();
        let last = match here {
            "order" => Last::Order,
            "limit" => Last::Limit,
            "offset" => Last::Offset,
            "and" => Last::Group { any: false, negated: false },
            "or" => Last::Group { any: true, negated: false },
            "not.and" => Last::Group { any: false, negated: true },
            "not.or" => Last::Group { any: true, negated: true },
            _ => {
                let name = cursor.name()?;
                if cursor.skip(".") {
                    way.push(name);
                    continue;
                }
                Last::Field(here)
            }
        };
        return Ok((way, last));
    }
}

/// Adds one pair to a read.
fn apply(query: &mut Query, last: Last<'_>, value: &str, bounds: &mut Bounds) -> Result<(), Problem> {
    match last {
        Last::Order => query.order = order(value)?,
        Last::Limit => query.limit = Some(number("limit", value)?),
        // A negative one skips nothing.
        Last::Offset if value.parse::<i64>().is_ok_and(i64::is_negative) => query.offset = Some(0),
        Last::Offset => query.offset = Some(number("offset", value)?),
        Last::Group { any, negated } => {
            let members = members(value, bounds)?;
            let group = if any { Condition::Any(members) } else { Condition::All(members) };
            query.conditions.push(if negated { Condition::Not(Box::new(group)) } else { group });
        }
        Last::Field(text) => {
            let mut cursor = Cursor::new(text);
            let field = cursor.field()?;
            if !cursor.is_at_end() {
                return Err(cursor.unexpected("the end of the column's name"));
            }
            query.conditions.push(condition(field, value, bounds)?);
        }
    }
    Ok(())
}

/// A number of rows.
fn number(name: &str, value: &str) -> Result<u64, Problem> {
    // PostgreSQL's own are signed.
    value.parse().ok().filter(|number| i64::try_from(*number).is_ok()).ok_or_else(|| {
        Problem::new(http::StatusCode::RANGE_NOT_SATISFIABLE, "PGRST103", format!("\"{name}\" is not a number of rows"))
    })
}
