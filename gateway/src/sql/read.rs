//! Reads: rows of a collection with what is embedded in them.

use std::collections::BTreeSet;

use super::condition::Embedded;
use super::{Builder, Form, Statement, name, qualified};
use crate::catalog::{Catalog, Relation, Table};
use crate::problem::Problem;
use crate::request::{Aggregate, Column, Condition, Embed, Field, Item, Order, Query};

/// The parts of a SELECT.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Expressions with their names.
    pub(super) columns: Vec<(String, String)>,
    /// After the table.
    pub(super) joins: String,
    /// With AND between them.
    pub(super) conditions: Vec<String>,
    grouped: Option<Vec<String>>,
    pub(super) order: Vec<String>,
    limit: String,
    /// The table's columns that are read.
    pub(super) used: BTreeSet<String>,
}

impl Parts {
    /// `a AS "a", …`
    pub(super) fn projection(&self) -> String {
        self.columns.iter().map(|(sql, column)| format!("{sql} AS {}", name(column))).collect::<Vec<_>>().join(", ")
    }

    /// # Errors
    /// If an aggregate makes groups of the rows.
    pub(super) fn without_groups(&self) -> Result<(), Problem> {
        match self.grouped {
            None => Ok(()),
            Some(_) => Err(Problem::request("PGRST123", "aggregates belong to reads of a collection")),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(_, name)| name.clone()).collect()
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
    let parts = builder.parts(table, "t0", query)?;
    let (columns, projection, tail) = (parts.names(), parts.projection(), parts.tail());
    let sql = format!(
        "SELECT {} FROM (SELECT {projection} FROM {} AS t0{}{tail}) AS r",
        form.of("r"),
        qualified(table),
        parts.joins
    );
    Ok(builder.finish(sql, columns))
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
    let grouped = query.select.iter().any(aggregates);
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
        "SELECT pg_catalog.count(*)::pg_catalog.text FROM (SELECT {projection} FROM {} AS t0{}{}) AS r",
        qualified(table),
        parts.joins,
        parts.tail()
    );
    Ok(builder.finish(sql, vec!["count".to_owned()]))
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

pub(super) fn aggregates(item: &Item) -> bool {
    match item {
        Item::Column(column) => column.aggregate.is_some(),
        Item::Embed(embed) => embed.spread && embed.query.select.iter().any(aggregates),
        Item::All => false,
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
        let mut parts = Parts::default();
        let mut embedded = Embedded::new();
        let grouping = query.select.iter().any(aggregates);
        let mut grouped = Vec::new();
        let all = [Item::All];
        for item in if query.select.is_empty() { &all[..] } else { &query.select } {
            match item {
                Item::All => {
                    for column in &table.columns {
                        let sql = format!("{alias}.{}", name(&column.name));
                        grouped.push(sql.clone());
                        parts.columns.push((sql, column.name.clone()));
                        parts.used.insert(column.name.clone());
                    }
                }
                Item::Column(column) => {
                    let (sql, title) = self.column(table, alias, column)?;
                    parts.used.extend(column.field.iter().map(|field| field.column.clone()));
                    if column.aggregate.is_none() {
                        grouped.push(sql.clone());
                    }
                    parts.columns.push((sql, title));
                }
                Item::Embed(embed) => {
                    let way = self.embed(table, alias, embed, &mut parts, &mut grouped, grouping)?;
                    embedded.push((embed.name().to_owned(), way));
                }
            }
        }
        parts.grouped = grouping.then_some(grouped);
        let conditions = self.all(table, alias, &query.conditions, &embedded)?;
        parts.conditions.extend(conditions);
        read_by(&query.conditions, table, &mut parts.used);
        for order in &query.order {
            let sql = self.order(table, alias, query, order, &mut parts)?;
            parts.order.push(sql);
        }
        if let Some(limit) = query.limit {
            // A number, and no parameter: the planner would take a tenth of the table for it, find its plan for any value
            // dear, and plan the statement anew each time.
            parts.limit.push_str(&format!(" LIMIT {limit}"));
        }
        if let Some(offset) = query.offset.filter(|offset| *offset > 0) {
            parts.limit.push_str(&format!(" OFFSET {}", self.parameter(offset.to_string())));
        }
        Ok(parts)
    }

    /// A column of a `select` and its name in the result.
    fn column(&mut self, table: &Table, alias: &str, column: &Column) -> Result<(String, String), Problem> {
        let Some(field) = &column.field else {
            let sql = cast("pg_catalog.count(*)".to_owned(), column.aggregate_cast.as_deref());
            return Ok((sql, column.alias.clone().unwrap_or_else(|| "count".to_owned())));
        };
        let (sql, _) = self.field(table, alias, field)?;
        let sql = cast(sql, column.cast.as_deref());
        let sql = match column.aggregate {
            Some(aggregate) => {
                cast(format!("pg_catalog.{}({sql})", aggregate.name()), column.aggregate_cast.as_deref())
            }
            None => sql,
        };
        let title = column.alias.clone().unwrap_or_else(|| title(field, column.aggregate));
        Ok((sql, title))
    }

    /// Adds an embedded collection; returns the SQL that it has no row.
    fn embed(
        &mut self,
        table: &Table,
        alias: &str,
        embed: &Embed,
        parts: &mut Parts,
        grouped: &mut Vec<String>,
        grouping: bool,
    ) -> Result<String, Problem> {
        let catalog = self.catalog;
        let relation = catalog.relation(table, &embed.relation, embed.hint.as_deref())?;
        parts.used.extend(relation.on.iter().map(|(here, _)| (*here).to_owned()));
        if embed.spread && relation.many {
            return Err(Problem::request(
                "PGRST119",
                format!("\"{}\" has several rows: it cannot be spread", embed.name()),
            ));
        }
        let inside = self.alias();
        let outside = self.alias();
        // Nothing between the parentheses: only for conditions.
        let silent = embed.query.select.is_empty();
        let (from, joined) = self.joined(alias, &inside, &relation);
        let mut inner = self.parts(relation.target, &inside, &embed.query)?;
        inner.conditions.splice(0..0, joined);
        if silent {
            inner.columns.clear();
        }
        let select = format!("SELECT {} FROM {from}{}{}", inner.projection(), inner.joins, inner.tail());
        let kind = if embed.inner { "JOIN" } else { "LEFT JOIN" };
        if relation.many {
            let on = if embed.inner { format!("{outside}.n > 0") } else { "true".to_owned() };
            parts.joins.push_str(&format!(
                " {kind} LATERAL (SELECT coalesce(pg_catalog.json_agg(pg_catalog.row_to_json(r.*)), '[]') AS j, \
                 pg_catalog.count(*) AS n FROM ({select}) AS r) AS {outside} ON {on}"
            ));
        } else if embed.spread {
            parts.joins.push_str(&format!(
                " {kind} LATERAL (SELECT r.*, true AS \"#found\" FROM ({select} LIMIT 1) AS r) AS {outside} ON true"
            ));
            for (_, column) in &inner.columns {
                let sql = format!("{outside}.{}", name(column));
                grouped.push(sql.clone());
                parts.columns.push((sql, column.clone()));
            }
            return Ok(format!("{outside}.\"#found\" IS NULL"));
        } else {
            parts.joins.push_str(&format!(
                " {kind} LATERAL (SELECT pg_catalog.row_to_json(r.*) AS j FROM ({select}) AS r LIMIT 1) AS {outside} ON true"
            ));
        }
        if !silent {
            // JSON has no equality, its text has.
            let sql = if grouping {
                format!("{outside}.j::pg_catalog.text::pg_catalog.json")
            } else {
                format!("{outside}.j")
            };
            grouped.push(format!("{outside}.j::pg_catalog.text"));
            parts.columns.push((sql, embed.name().to_owned()));
        }
        Ok(if relation.many { format!("{outside}.n = 0") } else { format!("{outside}.j IS NULL") })
    }

    /// The FROM of a related collection, and the conditions that tie it to its origin.
    fn joined(&mut self, outer: &str, inner: &str, relation: &Relation<'_>) -> (String, Vec<String>) {
        let tie = |one: &str, other: &str, on: &[(&str, &str)]| -> Vec<String> {
            on.iter().map(|(here, there)| format!("{one}.{} = {other}.{}", name(here), name(there))).collect()
        };
        let target = format!("{} AS {inner}", qualified(relation.target));
        match &relation.junction {
            None => (target, tie(outer, inner, &relation.on)),
            Some(junction) => {
                let between = self.alias();
                let on = tie(&between, inner, &junction.on).join(" AND ");
                let from = format!("{target} JOIN {} AS {between} ON {on}", qualified(junction.table));
                (from, tie(outer, &between, &relation.on))
            }
        }
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
            Some(related) => self.related(table, alias, query, related, &order.field)?,
            // With groups, the order is one of the result's columns.
            None if parts.grouped.is_some() && table.column(&order.field.column).is_none() => {
                let known = parts.columns.iter().find(|(_, name)| *name == order.field.column);
                known.ok_or_else(|| table.lacks(&order.field.column))?.0.clone()
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

    /// A column of an embedded collection of which each row has one.
    fn related(
        &mut self,
        table: &Table,
        alias: &str,
        query: &Query,
        related: &str,
        field: &Field,
    ) -> Result<String, Problem> {
        let embed = query.select.iter().find_map(|item| match item {
            Item::Embed(embed) if embed.name() == related => Some(embed),
            _ => None,
        });
        let embed = embed.ok_or_else(|| {
            Problem::request("PGRST108", format!("\"{related}\" is not embedded in this request"))
                .hint(format!("name it in select: select=*,{related}()"))
        })?;
        let catalog = self.catalog;
        let relation = catalog.relation(table, &embed.relation, embed.hint.as_deref())?;
        if relation.many {
            return Err(Problem::request("PGRST118", format!("\"{related}\" has several rows: it orders nothing")));
        }
        let inside = self.alias();
        let (from, mut conditions) = self.joined(alias, &inside, &relation);
        let (column, _) = self.field(relation.target, &inside, field)?;
        conditions.extend(self.all(relation.target, &inside, &embed.query.conditions, &Embedded::new())?);
        Ok(format!("(SELECT {column} FROM {from} WHERE {} LIMIT 1)", conditions.join(" AND ")))
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
