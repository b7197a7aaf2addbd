//! Reads: rows of a collection.

use std::collections::BTreeSet;

use super::condition::Embedded;
use super::{Builder, Form, Statement, name, qualified};
use crate::catalog::{Catalog, Table};
use crate::problem::Problem;
use crate::request::{Aggregate, Column, Condition, Field, Item, Order, Query};

/// One column of a SELECT.
#[derive(Debug)]
pub(super) struct Output {
    /// The expression.
    pub(super) sql: String,
    /// Its name in the result.
    pub(super) name: String,
    /// Whether it is JSON that was made of embedded rows.
    pub(super) made: bool,
    /// The aggregate that is still to be applied, by the collection that the column is spread into, with the type that
    /// its result is cast to.
    pub(super) later: Option<(Aggregate, Option<String>)>,
}

/// The parts of a SELECT.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Its columns.
    pub(super) columns: Vec<Output>,
    /// After the table.
    pub(super) joins: String,
    /// With AND between them.
    pub(super) conditions: Vec<String>,
    grouped: Option<Vec<String>>,
    pub(super) order: Vec<String>,
    limit: String,
    /// The table's columns that are read.
    pub(super) used: BTreeSet<String>,
    /// Of each collection that is spread: its name, and the names and expressions of its columns.
    pub(super) spread: Vec<(String, Vec<(String, String)>)>,
}

impl Parts {
    /// `a AS "a", …`
    pub(super) fn projection(&self) -> String {
        let columns = self.columns.iter().map(|column| format!("{} AS {}", column.sql, name(&column.name)));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// # Errors
    /// If an aggregate makes groups of the rows.
    pub(super) fn without_groups(&self) -> Result<(), Problem> {
        match self.grouped {
            None => Ok(()),
            Some(_) => Err(Problem::request("PGRST123", "aggregates belong to reads of a collection")),
        }
    }

    /// The names of its columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Adds a column: with groups, as one of them or as an aggregate of each.
    pub(super) fn add(&mut self, mut column: Output) {
        if let Some(grouped) = &mut self.grouped {
            match column.later.take() {
                Some((aggregate, target)) => {
                    column.sql = cast(format!("pg_catalog.{}({})", aggregate.name(), column.sql), target.as_deref());
                }
                // JSON has no equality, its text has.
                None if column.made => {
                    grouped.push(format!("{}::pg_catalog.text", column.sql));
                    column.sql = format!("{}::pg_catalog.text::pg_catalog.json", column.sql);
                }
                None => grouped.push(column.sql.clone()),
            }
        }
        self.columns.push(column);
    }

    /// With groups, the expression of a column of a collection that is spread.
    fn spread_column(&self, collection: &str, field: &Field) -> Option<&str> {
        let (_, columns) = self.spread.iter().find(|(name, _)| name == collection && self.grouped.is_some())?;
        columns.iter().find(|(name, _)| *name == field.column).map(|(_, sql)| sql.as_str())
    }

    /// What follows the joins.
    pub(super) fn tail(&self) -> String {
        let mut sql = String::new();
        if !self.conditions.is_empty() {
            sql.push_str(&format!(" WHERE {}", self.conditions.join(" AND ")));
        }
        if let Some(grouped) = self.grouped.as_ref().filter(|grouped| !grouped.is_empty()) {
            sql.push_str(&format!(" GROUP BY {}", grouped.join(", ")));
        }
        if !self.order.is_empty() {
            sql.push_str(&format!(" ORDER BY {}", self.order.join(", ")));
        }
        sql + &self.limit
    }
}

/// The rows that a query asks for, one text each.
///
/// # Errors
/// If it names what is not there.
pub fn rows(catalog: &Catalog, table: &Table, query: &Query, form: Form) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let source = builder.source(table);
    let parts = builder.parts(table, "t0", query)?;
    let (columns, projection, tail) = (parts.names(), parts.projection(), parts.tail());
    let sql =
        format!("SELECT {} FROM (SELECT {projection} FROM {source} AS t0{}{tail}) AS r", form.of("r"), parts.joins);
    Ok(builder.finish_read(sql, columns))
}

/// The row with this key, and its version, if it is asked for and there is one.
///
/// # Errors
/// If the query names what is not there, or the id does not fit the key.
pub fn item(
    catalog: &Catalog,
    table: &Table,
    id: &[String],
    query: &Query,
    versioned: bool,
) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let mut parts = builder.parts(table, "t0", query)?;
    parts.without_groups()?;
    let key = builder.key(table, "t0", id)?;
    parts.conditions.extend(key);
    let version = if versioned && table.has_versions() { "t0.xmin::pg_catalog.text" } else { "NULL::pg_catalog.text" };
    let sql = format!(
        "SELECT {}, {version} FROM {} AS t0{} CROSS JOIN LATERAL (SELECT {}) AS r{}",
        Form::Json.of("r"),
        qualified(table),
        parts.joins,
        parts.projection(),
        parts.tail()
    );
    Ok(builder.finish(sql, parts.names()))
}

/// How many rows a query has without its range.
///
/// # Errors
/// If it names what is not there.
pub fn count(catalog: &Catalog, table: &Table, query: &Query) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let source = builder.source(table);
    let grouped = builder.aggregates(table, &query.select);
    let query = Query { order: Vec::new(), limit: None, offset: None, ..query.clone() };
    // Without groups, the columns do not matter, and neither does what is embedded and decides nothing.
    let needed = Query {
        select: query.select.iter().filter(|item| grouped || decides(item, &query.conditions)).cloned().collect(),
        ..query
    };
    let needed = if needed.select.is_empty() { Query { select: vec![Item::All], ..needed } } else { needed };
    let parts = builder.parts(table, "t0", &needed)?;
    let projection = if grouped { parts.projection() } else { String::new() };
    let sql = format!(
        "SELECT pg_catalog.count(*)::pg_catalog.text FROM (SELECT {projection} FROM {source} AS t0{}{}) AS r",
        parts.joins,
        parts.tail()
    );
    Ok(builder.finish_read(sql, vec!["count".to_owned()]))
}

/// Whether an item of a `select` decides which rows there are.
fn decides(item: &Item, conditions: &[Condition]) -> bool {
    fn names(condition: &Condition, name: &str) -> bool {
        match condition {
            Condition::Test { field, .. } => field.column == name,
            Condition::All(members) | Condition::Any(members) => members.iter().any(|member| names(member, name)),
            Condition::Not(inner) => names(inner, name),
        }
    }
    match item {
        Item::Embed(embed) => embed.inner || conditions.iter().any(|condition| names(condition, embed.name())),
        _ => false,
    }
}

impl Builder<'_> {
    /// The conditions of a row's key.
    pub(super) fn key(&mut self, table: &Table, alias: &str, id: &[String]) -> Result<Vec<String>, Problem> {
        if table.primary_key.is_empty() {
            return Err(Problem::request("SDB104", format!("\"{}\" has no primary key", table.name))
                .hint("use a filter in the query string"));
        }
        if table.primary_key.len() != id.len() {
            return Err(Problem::request(
                "SDB104",
                format!("the key of \"{}\" has {} parts", table.name, table.primary_key.len()),
            )
            .hint(format!("/{}/{{{}}}", table.name, table.primary_key.join("},{"))));
        }
        let pairs = table.primary_key.iter().zip(id);
        Ok(pairs.map(|(column, value)| format!("{alias}.{} = {}", name(column), self.parameter(value))).collect())
    }

    /// The parts of the SELECT of a query on a table with this alias.
    pub(super) fn parts(&mut self, table: &Table, alias: &str, query: &Query) -> Result<Parts, Problem> {
        let grouped = self.aggregates(table, &query.select).then(Vec::new);
        self.filled(table, alias, query, Parts { grouped, ..Parts::default() })
    }

    /// As [`Self::parts`], of a collection that is spread into another one, which makes the groups.
    pub(super) fn ungrouped(&mut self, table: &Table, alias: &str, query: &Query) -> Result<Parts, Problem> {
        self.filled(table, alias, query, Parts::default())
    }

    fn filled(&mut self, table: &Table, alias: &str, query: &Query, mut parts: Parts) -> Result<Parts, Problem> {
        let mut embedded = Embedded::new();
        let all = [Item::All];
        for item in if query.select.is_empty() { &all[..] } else { &query.select } {
            match item {
                Item::All => {
                    for column in &table.columns {
                        let sql = format!("{alias}.{}", name(&column.name));
                        parts.add(Output { sql, name: column.name.clone(), made: false, later: None });
                        parts.used.insert(column.name.clone());
                    }
                }
                Item::Column(column) => {
                    let column = self.column(table, alias, column, &mut parts.used)?;
                    parts.add(column);
                }
                Item::Embed(embed) => {
                    let way = self.embed(table, alias, embed, &mut parts)?;
                    embedded.push((embed.name().to_owned(), way));
                }
            }
        }
        let conditions = self.all(table, alias, &query.conditions, &embedded)?;
        parts.conditions.extend(conditions);
        read_by(&query.conditions, table, &mut parts.used);
        for order in &query.order {
            let sql = self.order(table, alias, query, order, &mut parts)?;
            parts.order.push(sql);
        }
        if let Some(limit) = query.limit {
            // A number, and no parameter, as the next one: the planner would take a tenth of the table for each, find its
            // plan for any value dear, and plan the statement anew each time.
            parts.limit.push_str(&format!(" LIMIT {limit}"));
        }
        if let Some(offset) = query.offset.filter(|offset| *offset > 0) {
            parts.limit.push_str(&format!(" OFFSET {offset}"));
        }
        Ok(parts)
    }

    /// Whether a `select` makes groups: by an aggregate of its own, or of what is spread into it.
    pub(super) fn aggregates(&self, table: &Table, select: &[Item]) -> bool {
        select.iter().any(|item| match item {
            Item::Column(column) => column.aggregate.is_some() || is_count(table, column),
            Item::Embed(embed) if embed.spread => {
                let relation = self.catalog.relation(table, &embed.relation, embed.hint.as_deref());
                relation.is_ok_and(|relation| !relation.many && self.aggregates(relation.target, &embed.query.select))
            }
            Item::Embed(_) | Item::All => false,
        })
    }

    /// A column of a `select`; adds those of the table that it reads.
    fn column(
        &mut self,
        table: &Table,
        alias: &str,
        column: &Column,
        used: &mut BTreeSet<String>,
    ) -> Result<Output, Problem> {
        let named = |title: &str| column.alias.clone().unwrap_or_else(|| title.to_owned());
        let Some(field) = column.field.as_ref().filter(|_| !is_count(table, column)) else {
            // A row each: of a collection that is spread, those that there are.
            let later = Some((Aggregate::Count, column.aggregate_cast.clone()));
            return Ok(Output { sql: "1".to_owned(), name: named("count"), made: false, later });
        };
        used.insert(field.column.clone());
        let (sql, _) = self.field(table, alias, field)?;
        let later = column.aggregate.map(|aggregate| (aggregate, column.aggregate_cast.clone()));
        let name = named(&title(field, column.aggregate));
        Ok(Output { sql: cast(sql, column.cast.as_deref()), name, made: false, later })
    }

    /// One member of an ORDER BY.
    fn order(
        &mut self,
        table: &Table,
        alias: &str,
        query: &Query,
        order: &Order,
        parts: &mut Parts,
    ) -> Result<String, Problem> {
        let sql = match &order.relation {
            Some(related) => match parts.spread_column(related, &order.field) {
                Some(sql) => sql.to_owned(),
                None => self.related(table, alias, query, related, &order.field)?,
            },
            // With groups, the order is one of the result's columns.
            None if parts.grouped.is_some() && table.column(&order.field.column).is_none() => {
                let known = parts.columns.iter().find(|column| column.name == order.field.column);
                known.ok_or_else(|| table.lacks(&order.field.column))?.sql.clone()
            }
            None => {
                parts.used.insert(order.field.column.clone());
                self.field(table, alias, &order.field)?.0
            }
        };
        let direction = if order.descending { " DESC" } else { "" };
        let nulls = match order.nulls_first {
            None => "",
            Some(true) => " NULLS FIRST",
            Some(false) => " NULLS LAST",
        };
        Ok(format!("{sql}{direction}{nulls}"))
    }
}

/// The columns that conditions read.
fn read_by(conditions: &[Condition], table: &Table, used: &mut BTreeSet<String>) {
    for condition in conditions {
        match condition {
            Condition::Test { field, .. } if table.column(&field.column).is_some() => {
                used.insert(field.column.clone());
            }
            Condition::Test { .. } => {}
            Condition::All(members) | Condition::Any(members) => read_by(members, table, used),
            Condition::Not(inner) => read_by(std::slice::from_ref(inner), table, used),
        }
    }
}

/// Whether it is `count` without parentheses, and no column.
fn is_count(table: &Table, column: &Column) -> bool {
    match &column.field {
        None => true,
        Some(field) => {
            let plain = field.column == "count" && field.path.is_empty() && column.aggregate.is_none();
            plain && table.column("count").is_none()
        }
    }
}

fn cast(sql: String, target: Option<&str>) -> String {
    match target {
        Some(target) => format!("CAST({sql} AS {target})"),
        None => sql,
    }
}

/// The name of a column in the result: of a way into JSON, its last key that is a name.
fn title(field: &Field, aggregate: Option<Aggregate>) -> String {
    if let Some(aggregate) = aggregate {
        return aggregate.name().to_owned();
    }
    let key = field.path.iter().rev().find_map(|step| match &step.key {
        crate::request::Key::Name(name) => Some(name.clone()),
        crate::request::Key::Index(_) => None,
    });
    key.unwrap_or_else(|| field.column.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planner_knows_the_range() {
        let table = serde_json::json!({
            "schema": "public", "name": "a", "kind": "r", "comment": null, "events": 0, "intercepts": false,
            "row_security": false, "columns": [], "primary_key": [], "unique": [], "indexes": [], "checks": [],
            "partitioning": null,
        });
        let table: Table = serde_json::from_value(table).expect("a table");
        let query = Query { limit: Some(20), offset: Some(40), ..Query::default() };
        let statement = rows(&Catalog::default(), &table, &query, Form::Json).expect("a statement");
        assert!(statement.sql.ends_with(" LIMIT 20 OFFSET 40) AS r"), "{}", statement.sql);
        assert!(statement.parameters.is_empty());
    }
}
