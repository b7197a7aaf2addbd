//! Calls of functions: `/rpc/{function}`.

use http::StatusCode;

use super::{Builder, Form, Statement, name};
use crate::catalog::{Catalog, Function, Table};
use crate::problem::Problem;
use crate::request::Query;

/// What a call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// Nothing.
    Void,
    /// One value.
    Value,
    /// One row.
    Row,
    /// Several values or rows.
    Set,
}

/// The arguments of a call.
#[derive(Debug)]
pub enum Call<'a> {
    /// Members of one JSON object.
    Object {
        /// Their names.
        names: &'a [String],
        /// The object.
        text: &'a str,
    },
    /// Pairs of the query string.
    Pairs(&'a [(String, String)]),
}

impl Call<'_> {
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Object { names, .. } => names.iter().map(String::as_str).collect(),
            Self::Pairs(pairs) => pairs.iter().map(|(name, _)| name.as_str()).collect(),
        }
    }
}

/// Calls a function.
///
/// # Errors
/// If there is none with these arguments, or several, or the query names what is not there.
pub fn call(
    catalog: &Catalog,
    functions: &[Function],
    call: &Call<'_>,
    query: &Query,
    form: Form,
) -> Result<(Statement, Returned), Problem> {
    let function = choose(functions, &call.names())?;
    let mut builder = Builder::new(catalog);
    let mut given = Vec::new();
    let source = match call {
        Call::Pairs(pairs) => {
            for (key, value) in *pairs {
                let Some(argument) = function.arguments.iter().find(|argument| argument.name == *key) else { continue };
                let value = builder.parameter(value);
                let variadic = if argument.variadic { "VARIADIC " } else { "" };
                given.push(format!("{variadic}{} => {value}::{}", name(key), argument.sql_type));
            }
            String::new()
        }
        Call::Object { names, text } if !names.is_empty() => {
            let body = builder.parameter(*text);
            let mut definitions = Vec::new();
            for argument in function.arguments.iter().filter(|argument| names.contains(&argument.name)) {
                let quoted = name(&argument.name);
                let variadic = if argument.variadic { "VARIADIC " } else { "" };
                definitions.push(format!("{quoted} {}", argument.sql_type));
                given.push(format!("{variadic}{quoted} => a.{quoted}"));
            }
            format!("pg_catalog.json_to_record({body}::pg_catalog.json) AS a({}), LATERAL ", definitions.join(", "))
        }
        Call::Object { .. } => String::new(),
    };
    let called = format!("{}.{}({})", name(&function.schema), name(&function.name), given.join(", "));
    let rows = rows_of(catalog, function);
    let Some(table) = rows else {
        let sql = match form {
            Form::Csv => format!("SELECT t0.v::pg_catalog.text FROM {source}{called} AS t0(v)"),
            _ => format!("SELECT pg_catalog.to_json(t0.v)::pg_catalog.text FROM {source}{called} AS t0(v)"),
        };
        let result = match () {
            () if function.result == "void" => Returned::Void,
            () if function.set => Returned::Set,
            () => Returned::Value,
        };
        let sql = if result == Returned::Void {
            format!("SELECT NULL::pg_catalog.text FROM {source}{called} AS t0(v)")
        } else {
            sql
        };
        return Ok((builder.finish(sql, vec![function.name.clone()]), result));
    };
    let parts = builder.parts(&table, "t0", query)?;
    let sql = format!(
        "SELECT {} FROM (SELECT {} FROM {source}{called} AS t0{}{}) AS r",
        form.of("r"),
        parts.projection(),
        parts.joins,
        parts.tail()
    );
    let columns = parts.names();
    Ok((builder.finish(sql, columns), if function.set { Returned::Set } else { Returned::Row }))
}

/// The function that takes these arguments.
fn choose<'a>(functions: &'a [Function], names: &[&str]) -> Result<&'a Function, Problem> {
    let mut fitting = functions.iter().filter(|function| {
        let known = |name: &&str| function.arguments.iter().any(|argument| argument.name == **name);
        let given = function.arguments.iter().filter(|argument| argument.required && !argument.variadic);
        names.iter().all(known) && given.clone().all(|argument| names.contains(&argument.name.as_str()))
    });
    let first = fitting.next();
    match (first, fitting.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            Err(Problem::new(StatusCode::MULTIPLE_CHOICES, "PGRST203", "several functions take these arguments")
                .hint("give the functions different names"))
        }
        (None, _) => {
            let signatures = functions.iter().map(|function| {
                let arguments: Vec<_> = function.arguments.iter().map(|argument| argument.name.as_str()).collect();
                format!("{}({})", function.name, arguments.join(", "))
            });
            Err(Problem::missing("PGRST202", format!("no function takes the arguments ({})", names.join(", ")))
                .hint(format!("there is: {}", signatures.collect::<Vec<_>>().join("; "))))
        }
    }
}

/// The rows that a function returns, as a table; none, if it returns values.
fn rows_of(catalog: &Catalog, function: &Function) -> Option<Table> {
    if let Some(table) = function.returns.as_ref().and_then(|key| catalog.tables.get(key)) {
        return Some(table.clone());
    }
    // One OUT argument is a value; RETURNS TABLE with one column is a set of rows.
    if function.columns.is_empty() || function.columns.len() == 1 && !function.set {
        return None;
    }
    Some(Table {
        schema: function.schema.clone(),
        name: function.name.clone(),
        kind: "F".to_owned(),
        comment: None,
        events: 0,
        intercepts: false,
        row_security: false,
        columns: function.columns.clone(),
        primary_key: Vec::new(),
        unique: Vec::new(),
        indexes: Vec::new(),
        checks: Vec::new(),
        partitioning: None,
        steady: None,
    })
}
