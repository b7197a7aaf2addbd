//! The catalogue: what the exposed schemas have, read from PostgreSQL's own.

mod read;
mod relate;
mod steady;

pub use read::{SETTINGS, fingerprint, read};
pub use relate::{Junction, Relation};
pub(crate) use steady::STATE;
pub use steady::Steady;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::problem::Problem;

/// The exposed schemas as they were at one time.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The schemas, the default first.
    pub schemas: Vec<String>,
    /// Tables and views, by schema and name.
    pub tables: BTreeMap<(String, String), Table>,
    /// Foreign keys between them.
    pub keys: Vec<ForeignKey>,
    /// Functions, by schema and name.
    pub functions: BTreeMap<(String, String), Vec<Function>>,
    /// Changes with the schema.
    pub fingerprint: String,
}

/// A table or view.
#[derive(Debug, Clone, Deserialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Which commands it takes: 4 UPDATE, 8 INSERT, 16 DELETE.
    pub events: i32,
    /// Whether a change that reports no row may have written something: a trigger can take the row away or run for each
    /// statement, and a rule can write elsewhere. It is said of all tables with partitions or children: these have
    /// triggers of their own.
    pub intercepts: bool,
    /// Whether row policies are on.
    pub row_security: bool,
    /// Its columns, in their order.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in the key's order.
    pub primary_key: Vec<String>,
    /// The columns of each unique constraint.
    pub unique: Vec<Vec<String>>,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// Its check constraints, for document 001's model.
    pub checks: Vec<Check>,
    /// How it is partitioned.
    pub partitioning: Option<String>,
    /// Whether answers about it may be kept; absent, if that is not known.
    #[serde(skip)]
    pub steady: Option<Arc<Steady>>,
}

/// A column.
#[derive(Debug, Clone, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "facts of a column, each its own")]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as SQL, with its schema where that is not PostgreSQL's own.
    pub sql_type: String,
    /// The name of the type that values have: of a domain, the one beneath it.
    pub base: String,
    /// `pg_type.typcategory` of it.
    pub category: String,
    /// The schema of the operators that values are ordered by, if the type has some of its own: an array, an enum or a
    /// row has none.
    #[serde(default)]
    pub ordering: Option<String>,
    /// Whether the column's type is a domain.
    pub domain: bool,
    /// NOT NULL.
    pub required: bool,
    /// Its default as SQL.
    pub default: Option<String>,
    /// Whether it is computed.
    pub generated: bool,
    /// `a`: GENERATED ALWAYS AS IDENTITY, `d`: BY DEFAULT.
    pub identity: String,
    /// The length of `varchar(n)` and `char(n)`.
    pub length: Option<i32>,
    /// The values of an enum.
    pub values: Option<Vec<String>>,
    /// Its comment.
    pub comment: Option<String>,
}

impl Column {
    /// Whether it holds JSON.
    pub fn is_json(&self) -> bool {
        self.base == "json" || self.base == "jsonb"
    }

    /// Whether a row can be created without it.
    pub fn has_default(&self) -> bool {
        self.default.is_some() || self.generated || !self.identity.is_empty()
    }

    /// Whether no request may give it a value.
    pub fn is_read_only(&self) -> bool {
        self.generated || self.identity == "a"
    }
}

/// An index.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its columns or expressions.
    pub fields: Vec<String>,
    /// Whether it is unique.
    pub unique: bool,
}

/// A check constraint.
#[derive(Debug, Clone, Deserialize)]
pub struct Check {
    /// The columns it is about.
    pub columns: Vec<String>,
    /// Its definition.
    pub definition: String,
}

/// A foreign key.
#[derive(Debug, Clone, Deserialize)]
pub struct ForeignKey {
    /// Its name.
    pub name: String,
    /// The schema and name of the table that has it.
    pub from: (String, String),
    /// The columns there.
    pub from_columns: Vec<String>,
    /// The schema and name of the table that it refers to.
    pub to: (String, String),
    /// The columns there.
    pub to_columns: Vec<String>,
    /// Whether at most one row refers to each.
    pub unique: bool,
}

/// A function.
#[derive(Debug, Clone, Deserialize)]
pub struct Function {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Whether it may write: it is VOLATILE.
    pub volatile: bool,
    /// Whether it returns several rows.
    pub set: bool,
    /// Its result's type as SQL.
    pub result: String,
    /// `pg_type.typtype` of the result: `c` for rows, `p` for pseudo-types.
    pub result_kind: String,
    /// The table whose rows it returns.
    pub returns: Option<(String, String)>,
    /// The columns of its own: OUT arguments, or RETURNS TABLE.
    pub columns: Vec<Column>,
    /// Its arguments.
    pub arguments: Vec<Argument>,
}

/// An argument of a function.
#[derive(Debug, Clone, Deserialize)]
pub struct Argument {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its type as SQL.
    pub sql_type: String,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it is VARIADIC.
    pub variadic: bool,
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Its schema and name.
    pub fn key(&self) -> (String, String) {
        (self.schema.clone(), self.name.clone())
    }

    /// Whether its rows have a version (`xmin`).
    pub fn has_versions(&self) -> bool {
        self.kind == "r" || self.kind == "p"
    }

    /// The error about a column that it does not have.
    pub fn lacks(&self, column: &str) -> Problem {
        Problem::request("PGRST204", format!("\"{}\" has no column \"{column}\"", self.name))
    }
}

impl Catalog {
    /// The collection that a request names, `schema.table` or, in the default schema, `table`.
    ///
    /// # Errors
    /// If there is none.
    pub fn table(&self, schema: Option<&str>, name: &str) -> Result<&Table, Problem> {
        let default = match schema {
            Some(schema) => self.exposed(schema)?,
            None => self.schemas.first().map_or("public", String::as_str),
        };
        let plain = self.tables.get(&(default.to_owned(), name.to_owned()));
        let qualified = || {
            let (schema, name) = name.split_once('.')?;
            self.tables.get(&(schema.to_owned(), name.to_owned()))
        };
        plain.or_else(qualified).ok_or_else(|| {
            Problem::missing("PGRST205", format!("there is no collection \"{name}\" in the exposed schemas"))
        })
    }

    /// The schema, if it is exposed.
    ///
    /// # Errors
    /// If it is not.
    pub fn exposed(&self, schema: &str) -> Result<&str, Problem> {
        self.schemas.iter().find(|known| *known == schema).map(String::as_str).ok_or_else(|| {
            Problem::new(
                http::StatusCode::NOT_ACCEPTABLE,
                "PGRST106",
                format!("the schema \"{schema}\" is not exposed"),
            )
            .hint(format!("exposed are: {}", self.schemas.join(", ")))
        })
    }
}
