//! Writes. A body goes to PostgreSQL as one JSON parameter, and comes apart there.

use super::condition::Embedded;
use super::{Builder, Charge, Form, Statement, name, qualified};
use crate::catalog::{Catalog, Column, Table};
use crate::problem::Problem;
use crate::request::{Condition, Item, Query, Resolution};

/// What is created.
#[derive(Debug)]
pub struct Insert<'a> {
    /// An array of objects.
    pub rows: &'a str,
    /// The number of them.
    pub count: usize,
    /// The columns that it gives values.
    pub columns: &'a [String],
    /// The columns that decide whether a row is there already; the primary key otherwise.
    pub on_conflict: Option<&'a [String]>,
    /// What becomes of a row that is there already.
    pub resolution: Option<Resolution>,
    /// Whether a column that a row lacks gets its default, and not null.
    pub defaults: bool,
}

/// What a write returns of its rows.
#[derive(Debug)]
pub struct Returning<'a> {
    /// The columns, and what is embedded.
    pub query: &'a Query,
    /// The form of a row.
    pub form: Form,
    /// Whether the version of each row belongs to it: a caller needs the right to read all columns for that.
    pub versions: bool,
}

/// Creates rows.
///
/// # Errors
/// If it names what is not there.
pub fn insert(
    catalog: &Catalog,
    table: &Table,
    insert: &Insert<'_>,
    returning: Option<&Returning<'_>>,
) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let body = builder.parameter(insert.rows);
    let mut names = Vec::new();
    let mut definitions = Vec::new();
    let mut values = Vec::new();
    for column in insert.columns {
        let column = table.column(column).ok_or_else(|| table.lacks(column))?;
        let quoted = name(&column.name);
        definitions.push(format!("{quoted} {}", column.sql_type));
        let default = if insert.defaults { builder.default(table, column) } else { None };
        values.push(match default {
            Some(default) => {
                let key = builder.parameter(&column.name);
                format!("CASE WHEN e.v::pg_catalog.jsonb ? {key}::pg_catalog.text THEN r.{quoted} ELSE {default} END")
            }
            None => format!("r.{quoted}"),
        });
        names.push(quoted);
    }
    let source = match (insert.defaults, definitions.is_empty()) {
        (_, true) => format!("pg_catalog.json_array_elements({body}::pg_catalog.json) AS e(v)"),
        (true, _) => format!(
            "pg_catalog.json_array_elements({body}::pg_catalog.json) AS e(v), \
             LATERAL pg_catalog.json_to_record(e.v) AS r({})",
            definitions.join(", ")
        ),
        (false, _) => format!("pg_catalog.json_to_recordset({body}::pg_catalog.json) AS r({})", definitions.join(", ")),
    };
    let list = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let conflict = conflict(table, insert, &names)?;
    let write =
        format!("INSERT INTO {} AS t0{list} SELECT {} FROM {source}{conflict}", qualified(table), values.join(", "));
    // Of a row that went to a partition, the server tells no system column.
    let statement = builder.returning(table, write, returning, table.kind == "r")?;
    Ok(Statement { charge: Charge::Rows(insert.count), ..statement })
}

/// `ON CONFLICT …`
fn conflict(table: &Table, insert: &Insert<'_>, names: &[String]) -> Result<String, Problem> {
    let Some(resolution) = insert.resolution else { return Ok(String::new()) };
    let key = insert.on_conflict.unwrap_or(&table.primary_key);
    if key.is_empty() {
        return match (resolution, insert.on_conflict) {
            (Resolution::IgnoreDuplicates, None) => Ok(" ON CONFLICT DO NOTHING".to_owned()),
            _ => {
                Err(Problem::request("SDB104", format!("\"{}\" has no primary key", table.name))
                    .hint("name on_conflict="))
            }
        };
    }
    for column in key {
        table.column(column).ok_or_else(|| table.lacks(column))?;
    }
    let key = key.iter().map(|column| name(column)).collect::<Vec<_>>();
    let action = match resolution {
        Resolution::IgnoreDuplicates => "DO NOTHING".to_owned(),
        Resolution::MergeDuplicates if names.is_empty() => "DO NOTHING".to_owned(),
        Resolution::MergeDuplicates => {
            let set = names.iter().map(|column| format!("{column} = EXCLUDED.{column}"));
            format!("DO UPDATE SET {}", set.collect::<Vec<_>>().join(", "))
        }
    };
    Ok(format!(" ON CONFLICT ({}) {action}", key.join(", ")))
}

/// Which rows a write changes.
pub enum Which<'a> {
    /// Those for which all of these hold.
    Conditions(&'a [Condition]),
    /// The one with this key and, where it is given, this version.
    Key {
        /// The parts of the key.
        id: &'a [String],
        /// The version.
        version: Option<&'a str>,
    },
}

/// What rows are changed to.
#[derive(Debug)]
pub struct Change<'a> {
    /// An object.
    pub object: &'a str,
    /// The columns that get its values.
    pub columns: &'a [String],
    /// The columns that get their defaults.
    pub defaults: &'a [String],
}

/// Changes rows.
///
/// # Errors
/// If it names what is not there.
pub fn update(
    catalog: &Catalog,
    table: &Table,
    change: &Change<'_>,
    which: &Which<'_>,
    returning: Option<&Returning<'_>>,
) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let mut definitions = Vec::new();
    let mut set = Vec::new();
    for column in change.defaults {
        let column = table.column(column).ok_or_else(|| table.lacks(column))?;
        set.push(format!("{} = DEFAULT", name(&column.name)));
    }
    for column in change.columns {
        let column = table.column(column).ok_or_else(|| table.lacks(column))?;
        let quoted = name(&column.name);
        definitions.push(format!("{quoted} {}", column.sql_type));
        set.push(format!("{quoted} = r.{quoted}"));
    }
    let source = if definitions.is_empty() {
        String::new()
    } else {
        let body = builder.parameter(change.object);
        format!(" FROM pg_catalog.json_to_record({body}::pg_catalog.json) AS r({})", definitions.join(", "))
    };
    let filter = builder.which(table, which)?;
    let write = format!("UPDATE {} AS t0 SET {}{source}{filter}", qualified(table), set.join(", "));
    builder.returning(table, write, returning, table.has_versions())
}

/// Removes rows.
///
/// # Errors
/// If it names what is not there.
pub fn delete(
    catalog: &Catalog,
    table: &Table,
    which: &Which<'_>,
    returning: Option<&Returning<'_>>,
) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let filter = builder.which(table, which)?;
    let write = format!("DELETE FROM {} AS t0{filter}", qualified(table));
    builder.returning(table, write, returning, table.has_versions())
}

impl Builder<'_> {
    /// The default of a column as SQL. An identity has none in the catalogue: its sequence gives it.
    fn default(&mut self, table: &Table, column: &Column) -> Option<String> {
        if column.identity != "d" {
            return column.default.clone();
        }
        let (table, column) = (self.parameter(qualified(table)), self.parameter(&column.name));
        Some(format!(
            "pg_catalog.nextval(pg_catalog.pg_get_serial_sequence({table}::pg_catalog.text, \
             {column}::pg_catalog.text)::pg_catalog.regclass)"
        ))
    }

    /// The WHERE of a write.
    fn which(&mut self, table: &Table, which: &Which<'_>) -> Result<String, Problem> {
        let conditions = match which {
            Which::Conditions(conditions) => self.all(table, "t0", conditions, &Embedded::new())?,
            Which::Key { id, version } => {
                let mut conditions = self.key(table, "t0", id)?;
                if let Some(version) = version {
                    conditions.push(format!("t0.xmin = {}", self.parameter(*version)));
                }
                conditions
            }
        };
        Ok(if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) })
    }

    /// A write that returns the rows it has changed, with the version of each where it can.
    fn returning(
        mut self,
        table: &Table,
        write: String,
        returning: Option<&Returning<'_>>,
        has_versions: bool,
    ) -> Result<Statement, Problem> {
        let Some(returning) = returning else { return Ok(self.finish(write, Vec::new())) };
        // Which rows, the write has decided.
        let query = Query { conditions: Vec::new(), limit: None, offset: None, ..returning.query.clone() };
        let parts = self.parts(table, "w", &query)?;
        parts.without_groups()?;
        let mut returned: Vec<_> = parts.used.iter().map(|column| format!("t0.{}", name(column))).collect();
        let version = if has_versions && returning.versions {
            returned.push("t0.xmin::pg_catalog.text AS \"#version\"".to_owned());
            "w.\"#version\""
        } else {
            "NULL::pg_catalog.text"
        };
        if returned.is_empty() {
            returned.push("true AS \"#row\"".to_owned());
        }
        let columns = parts.names();
        let (joins, projection) = (&parts.joins, parts.projection());
        let leaves_out = |item: &Item| matches!(item, Item::Embed(embed) if embed.inner);
        let rows = if query.select.iter().any(leaves_out) {
            // A row that the answer leaves out was changed all the same: it counts, and is NULL.
            format!("LEFT JOIN LATERAL (SELECT {projection} FROM (SELECT) AS one{joins}) AS r ON true")
        } else {
            format!("{joins} CROSS JOIN LATERAL (SELECT {projection}) AS r")
        };
        let sql = format!(
            "WITH w AS ({write} RETURNING {}) SELECT {}, {version} FROM w {rows}{}",
            returned.join(", "),
            returning.form.of("r"),
            parts.tail()
        );
        Ok(self.finish(sql, columns))
    }
}
