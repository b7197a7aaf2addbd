//! `GET /schema/{c}`: a collection in document 001's model.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::operation::Reply;
use crate::catalog::{Catalog, Column, Table};
use crate::config::Config;
use crate::problem::Problem;

/// Describes a collection.
///
/// # Errors
/// 404 without it.
pub fn schema(catalog: &Catalog, config: &Config, schema: Option<&str>, collection: &str) -> Result<Reply, Problem> {
    let table = catalog.table(schema, collection)?;
    let fields: Vec<Value> = table.columns.iter().map(|column| field(catalog, table, column)).collect();
    let indexes: Vec<Value> = table
        .indexes
        .iter()
        .map(|index| json!({"name": index.name, "fields": index.fields, "unique": index.unique}))
        .collect();
    let partitioning = table.partitioning.as_ref().map(|text| {
        let (strategy, key) = text.split_once(' ').unwrap_or((text, ""));
        json!({"strategy": strategy.to_lowercase(), "key": key.trim_matches(['(', ')'])})
    });
    let access = if table.row_security { "grants and row policies" } else { "grants" };
    let body = json!({
        "name": table.name, "database": config.database.name, "schema": table.schema,
        "kind": match table.kind.as_str() { "v" => "view", "m" => "materialized view", "f" => "foreign table", "p" => "partitioned table", _ => "table" },
        "description": table.comment, "fields": fields, "primary_key": table.primary_key, "indexes": indexes,
        "relations": relations(catalog, table), "partitioning": partitioning, "security": {"access_control": access},
    });
    Ok(Reply::json(StatusCode::OK, body.to_string()))
}

fn field(catalog: &Catalog, table: &Table, column: &Column) -> Value {
    let mut constraints = Vec::new();
    if table.primary_key.contains(&column.name) {
        constraints.push("primary key".to_owned());
    }
    if column.required {
        constraints.push("not null".to_owned());
    }
    if table.unique.iter().any(|columns| *columns == [column.name.clone()]) {
        constraints.push("unique".to_owned());
    }
    if column.is_read_only() {
        constraints.push("computed by the database".to_owned());
    }
    for key in catalog.keys.iter().filter(|key| key.from == table.key() && key.from_columns.contains(&column.name)) {
        constraints.push(format!("references {}.{} ({})", key.to.0, key.to.1, key.to_columns.join(", ")));
    }
    let checks = table.checks.iter().filter(|check| check.columns.contains(&column.name));
    constraints.extend(checks.map(|check| check.definition.clone()));
    if let Some(length) = column.length {
        constraints.push(format!("at most {length} characters"));
    }
    let mut found = Map::new();
    found.insert("name".into(), json!(column.name));
    found.insert("type".into(), json!(column.sql_type));
    found.insert("required".into(), json!(column.required && !column.has_default()));
    found.insert("default_value".into(), json!(column.default));
    found.insert("constraints".into(), json!(constraints));
    if let Some(values) = &column.values {
        found.insert("values".into(), json!(values));
    }
    if let Some(comment) = &column.comment {
        found.insert("description".into(), json!(comment));
    }
    Value::Object(found)
}

fn relations(catalog: &Catalog, table: &Table) -> Vec<Value> {
    let here = table.key();
    let relation = |name: &str, other: &(String, String), columns: &[String], kind: &str| json!({"foreign_key": name, "collection": other.1, "schema": other.0, "columns": columns, "kind": kind});
    let mut found = Vec::new();
    for key in &catalog.keys {
        if key.from == here {
            found.push(relation(&key.name, &key.to, &key.from_columns, "many-to-one"));
        }
        if key.to == here {
            let kind = if key.unique { "one-to-one" } else { "one-to-many" };
            found.push(relation(&key.name, &key.from, &key.from_columns, kind));
        }
    }
    found
}
