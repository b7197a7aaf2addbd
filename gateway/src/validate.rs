//! Bodies: all their faults at once, before the database sees them.
//!
//! PostgreSQL remains the judge: what is accepted here, it may still refuse.

use serde_json::{Map, Value};

use crate::catalog::{Column, Table};
use crate::problem::{Fault, Problem};

/// The most faults that are reported.
const MOST: usize = 100;

/// What a body is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// New rows.
    Create {
        /// Whether a column that a row lacks gets its default, and not null.
        defaults: bool,
    },
    /// A change of some columns.
    Change,
    /// All columns of a row.
    Replace,
}

/// A body that fits.
#[derive(Debug)]
pub struct Accepted {
    /// The columns that it gives values.
    pub columns: Vec<String>,
    /// Those of them that its first object lacks.
    pub absent: Vec<String>,
    /// The number of its objects.
    pub rows: usize,
    /// Whether it is an array.
    pub array: bool,
}

/// Checks a body; with `only`, other members are ignored.
///
/// # Errors
/// All faults at once.
pub fn check(table: &Table, body: &[u8], purpose: Purpose, only: Option<&[String]>) -> Result<Accepted, Problem> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::request("PGRST102", "the body is not JSON").details(error.to_string()))?;
    let (array, rows) = match &value {
        Value::Object(row) => (false, vec![row]),
        Value::Array(members) if matches!(purpose, Purpose::Create { .. }) => {
            let rows: Option<Vec<_>> = members.iter().map(Value::as_object).collect();
            (true, rows.ok_or_else(|| Problem::request("PGRST102", "each member of the array must be an object"))?)
        }
        _ => return Err(Problem::request("PGRST102", "the body must be an object")),
    };
    let columns = columns(&rows, purpose, only)?;
    if let Some(unknown) = columns.iter().find(|column| only.is_some() && table.column(column).is_none()) {
        return Err(table.lacks(unknown));
    }
    let mut faults = Faults::default();
    for (place, row) in rows.iter().enumerate() {
        let at = if array { format!("/{place}") } else { String::new() };
        check_row(table, row, purpose, &columns, &at, &mut faults);
    }
    // Of a replacement, what nobody may write stays as it is.
    let writable =
        |column: &String| purpose != Purpose::Replace || table.column(column).is_none_or(|found| !found.is_read_only());
    let columns: Vec<String> = columns.into_iter().filter(writable).collect();
    if faults.found.is_empty() {
        let lacks = |column: &&String| rows.first().is_some_and(|row| !row.contains_key(*column));
        let absent = columns.iter().filter(lacks).cloned().collect();
        Ok(Accepted { columns, absent, rows: rows.len(), array })
    } else {
        Err(Problem::invalid(faults.found))
    }
}

/// The columns of all rows together.
fn columns(rows: &[&Map<String, Value>], purpose: Purpose, only: Option<&[String]>) -> Result<Vec<String>, Problem> {
    if let Some(only) = only {
        return Ok(only.to_vec());
    }
    let mut columns: Vec<String> = Vec::new();
    for row in rows {
        if row.len() != rows[0].len() || !row.keys().all(|key| rows[0].contains_key(key)) {
            if purpose != (Purpose::Create { defaults: true }) {
                return Err(Problem::request("PGRST102", "all objects must have the same members")
                    .hint("name the columns (columns=a,b), or send Prefer: missing=default"));
            }
            columns.extend(row.keys().filter(|key| !rows[0].contains_key(*key)).cloned());
        }
    }
    let first = rows.first().into_iter().flat_map(|row| row.keys().cloned());
    let mut all: Vec<String> = first.chain(columns).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

#[derive(Default)]
struct Faults {
    found: Vec<Fault>,
}

impl Faults {
    fn add(&mut self, at: &str, member: &str, message: impl Into<String>) {
        if self.found.len() < MOST {
            let member = member.replace('~', "~0").replace('/', "~1");
            self.found.push(Fault { pointer: format!("{at}/{member}"), message: message.into() });
        }
    }
}

fn check_row(
    table: &Table,
    row: &Map<String, Value>,
    purpose: Purpose,
    columns: &[String],
    at: &str,
    faults: &mut Faults,
) {
    for name in columns {
        let Some(column) = table.column(name) else {
            faults.add(at, name, format!("\"{}\" has no such column", table.name));
            continue;
        };
        let value = row.get(name);
        if column.is_read_only() {
            if purpose != Purpose::Replace && value.is_some() {
                faults.add(at, name, "the database computes it: no value can be given");
            }
            continue;
        }
        match value {
            Some(Value::Null) if column.required => faults.add(at, name, "must not be null"),
            Some(Value::Null) => {}
            Some(value) => {
                if let Some(message) = fault(column, value) {
                    faults.add(at, name, message);
                }
            }
            None => {
                let filled = matches!(purpose, Purpose::Create { defaults: true }) && column.has_default();
                if column.required && !filled && purpose != Purpose::Change {
                    faults.add(at, name, "is required");
                }
            }
        }
    }
    let missing = table.columns.iter().filter(|column| !columns.contains(&column.name));
    for column in missing {
        match purpose {
            Purpose::Create { .. } if column.required && !column.has_default() => {
                faults.add(at, &column.name, "is required")
            }
            Purpose::Replace if !column.is_read_only() && !table.primary_key.contains(&column.name) => {
                faults.add(at, &column.name, "is missing: PUT replaces the whole document");
            }
            _ => {}
        }
    }
}

/// What is wrong with a value that is not null.
fn fault(column: &Column, value: &Value) -> Option<String> {
    if let Some(values) = &column.values {
        return match value {
            Value::String(text) if values.contains(text) => None,
            _ => Some(format!("must be one of {}", values.join(", "))),
        };
    }
    if column.category == "A" {
        return (!value.is_array() && !value.is_string()).then(|| "must be an array".to_owned());
    }
    match column.base.as_str() {
        "int2" => integer(value, i16::MIN.into(), i16::MAX.into()),
        "int4" => integer(value, i32::MIN.into(), i32::MAX.into()),
        "int8" => integer(value, i64::MIN, i64::MAX),
        "float4" | "float8" | "numeric" => match value {
            Value::Number(_) => None,
            Value::String(text) if text.trim().parse::<f64>().is_ok() => None,
            _ => Some("must be a number".to_owned()),
        },
        "bool" => match value {
            Value::Bool(_) => None,
            Value::String(text) if is_boolean(text) => None,
            Value::Number(number) if number.as_u64().is_some_and(|number| number < 2) => None,
            _ => Some("must be true or false".to_owned()),
        },
        "text" | "varchar" | "bpchar" => text(column, value),
        "uuid" => match value {
            Value::String(text) if is_uuid(text) => None,
            _ => Some("must be a UUID".to_owned()),
        },
        "date" | "timestamp" | "timestamptz" | "time" | "timetz" | "interval" | "bytea" | "inet" | "cidr"
        | "macaddr" => (!value.is_string()).then(|| format!("must be a text that is a {}", column.base)),
        _ => None,
    }
}

fn integer(value: &Value, least: i64, most: i64) -> Option<String> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let fits = number.is_some_and(|number| (least..=most).contains(&number));
    (!fits).then(|| format!("must be an integer between {least} and {most}"))
}

fn text(column: &Column, value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.as_str(),
        Value::Array(_) | Value::Object(_) => return Some("must be a text".to_owned()),
        _ => return None,
    };
    // PostgreSQL cuts spaces at the end off.
    let length = text.trim_end_matches(' ').chars().count();
    let most = usize::try_from(column.length?).ok()?;
    (length > most).then(|| format!("has {length} characters, at most {most} are allowed"))
}

fn is_boolean(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let words = ["true", "false", "yes", "no", "on", "off", "1", "0"];
    !text.is_empty() && text != "o" && words.iter().any(|word| word.starts_with(&text))
}

fn is_uuid(text: &str) -> bool {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let digits = inner.chars().filter(|c| *c != '-').count();
    digits == 32 && inner.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}
