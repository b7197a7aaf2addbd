//! Statements. Names come from the catalogue and are quoted; all values but the numbers of LIMIT and OFFSET are
//! parameters, as text, of the type that the server infers. PostgreSQL makes the JSON: one value for each row.

mod aggregate;
mod condition;
mod embed;
mod function;
mod page;
mod read;
mod version;
mod write;

pub use aggregate::{aggregate, search};
pub use function::{Call, Returned, call};
pub use page::{LONGEST_TOKEN, page, total_order, unfit};
pub use read::{count, item, rows};
pub use version::versioned;
pub use write::{Change, Insert, Returning, Which, delete, insert, update};

use std::sync::Arc;

use crate::catalog::{Catalog, Column, Steady, Table};
use crate::problem::Problem;
use crate::request::{Field, Key};

/// A statement with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Its text.
    pub sql: String,
    /// Its parameters, in text form.
    pub parameters: Vec<Option<String>>,
    /// The names of the result's columns, in their order.
    pub columns: Vec<String>,
    /// The cost that its caller is charged.
    pub charge: Charge,
    /// The collections that it reads, of a read whose answer may be kept.
    pub reads: Vec<Arc<Steady>>,
    /// Whether the last column of its result is the version of what it reads.
    pub versioned: bool,
}

impl Statement {
    /// One without parameters.
    pub fn plain(sql: impl Into<String>, charge: Charge) -> Self {
        let (parameters, columns, reads) = (Vec::new(), Vec::new(), Vec::new());
        Self { sql: sql.into(), parameters, columns, charge, reads, versioned: false }
    }
}

/// The cost of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// None: it is about the database and not about its rows.
    Nothing,
    /// The least one: it plans another statement.
    Least,
    /// That of its plan.
    Plan,
    /// An insert of so many rows from one parameter.
    Rows(usize),
}

/// Whether a row is JSON or a line of CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named by the media types")]
pub enum Form {
    #[default]
    Json,
    /// Without members that are null.
    JsonWithoutNulls,
    Csv,
}

impl Form {
    /// The expression of a row as text. Written `r.*`, the row is meant even if it has a column `r`.
    fn of(self, row: &str) -> String {
        match self {
            Self::Json => format!("pg_catalog.row_to_json({row}.*)::pg_catalog.text"),
            Self::JsonWithoutNulls => {
                format!("pg_catalog.json_strip_nulls(pg_catalog.row_to_json({row}.*))::pg_catalog.text")
            }
            // As a composite value, without its parentheses.
            Self::Csv => {
                let text = format!("({row}.*)::pg_catalog.text");
                format!("pg_catalog.substr({text}, 2, pg_catalog.length({text}) - 2)")
            }
        }
    }
}

/// A name as SQL.
pub fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table as SQL.
pub fn qualified(table: &Table) -> String {
    format!("{}.{}", name(&table.schema), name(&table.name))
}

/// A statement under construction.
struct Builder<'a> {
    catalog: &'a Catalog,
    parameters: Vec<Option<String>>,
    aliases: usize,
    /// The judgements about the collections that it reads.
    reads: Vec<Option<Arc<Steady>>>,
}

impl<'a> Builder<'a> {
    fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, parameters: Vec::new(), aliases: 0, reads: Vec::new() }
    }

    /// Adds a parameter.
    fn parameter(&mut self, value: impl Into<String>) -> String {
        self.parameters.push(Some(value.into()));
        format!("${}", self.parameters.len())
    }

    /// A name that the statement does not have yet.
    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("t{}", self.aliases)
    }

    /// The column of a field, and whether the field is JSON.
    fn field(&mut self, table: &Table, alias: &str, field: &Field) -> Result<(String, Kind), Problem> {
        let column = table.column(&field.column).ok_or_else(|| table.lacks(&field.column))?;
        let mut sql = format!("{alias}.{}", name(&column.name));
        if field.path.is_empty() {
            return Ok((sql, Kind::of(column)));
        }
        if !column.is_json() {
            sql = format!("pg_catalog.to_jsonb({sql})");
        }
        for step in &field.path {
            let key = match &step.key {
                Key::Name(key) => format!("{}::pg_catalog.text", self.parameter(key)),
                Key::Index(index) => format!("{}::pg_catalog.int4", self.parameter(index.to_string())),
            };
            sql = format!("({sql} {} {key})", if step.text { "->>" } else { "->" });
        }
        let text = field.path.last().is_some_and(|step| step.text);
        Ok((sql, if text { Kind::Text } else { Kind::Json }))
    }

    fn finish(self, sql: String, columns: Vec<String>) -> Statement {
        let (reads, parameters) = (Vec::new(), self.parameters);
        Statement { sql, parameters, columns, charge: Charge::Plan, reads, versioned: false }
    }

    /// As [`Self::finish`], of a read with one column that names all it reads by [`Self::source`].
    fn finish_read(mut self, sql: String, columns: Vec<String>) -> Statement {
        let reads = std::mem::take(&mut self.reads).into_iter().collect::<Option<Vec<_>>>();
        Statement { reads: reads.unwrap_or_default(), ..self.finish(sql, columns) }
    }

    /// A table that it reads, as SQL.
    fn source(&mut self, table: &Table) -> String {
        self.reads.push(table.steady.clone());
        qualified(table)
    }
}

/// What full text has to know of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vector,
    Json,
    Text,
    Other,
}

impl Kind {
    fn of(column: &Column) -> Self {
        match column.base.as_str() {
            "tsvector" => Self::Vector,
            "json" | "jsonb" => Self::Json,
            _ if column.category == "S" => Self::Text,
            _ => Self::Other,
        }
    }
}
