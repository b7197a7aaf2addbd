//! Collections that are embedded in the rows of another one, each by a join.

use super::condition::Embedded;
use super::read::{Output, Parts};
use super::{Builder, name};
use crate::catalog::{Relation, Table};
use crate::problem::Problem;
use crate::request::{Embed, Field, Item, Query};

impl Builder<'_> {
    /// Adds an embedded collection; returns the SQL that it has no row.
    pub(super) fn embed(
        &mut self,
        table: &Table,
        alias: &str,
        embed: &Embed,
        parts: &mut Parts,
    ) -> Result<String, Problem> {
        let catalog = self.catalog;
        let relation = catalog.relation(table, &embed.relation, embed.hint.as_deref())?;
        parts.used.extend(relation.on.iter().map(|(here, _)| (*here).to_owned()));
        let (inside, outside) = (self.alias(), self.alias());
        let (from, joined) = self.joined(alias, &inside, &relation);
        let spread_one = embed.spread && !relation.many;
        if embed.spread && relation.many && self.aggregates(relation.target, &embed.query.select) {
            return Err(Problem::request(
                "PGRST127",
                format!("\"{}\" has several rows: spread, it has no aggregates", embed.name()),
            ));
        }
        let mut inner = if spread_one {
            self.ungrouped(relation.target, &inside, &embed.query)?
        } else {
            self.parts(relation.target, &inside, &embed.query)?
        };
        inner.conditions.splice(0..0, joined);
        if embed.is_silent() {
            inner.columns.clear();
        }
        let kind = if embed.inner { "JOIN" } else { "LEFT JOIN" };
        let on = if embed.inner && relation.many { format!("{outside}.n > 0") } else { "true".to_owned() };
        let projection = if embed.spread { numbered(&inner) } else { inner.projection() };
        let select = format!("SELECT {projection} FROM {from}{}{}", inner.joins, inner.tail());
        let (made, absent) = match (embed.spread, relation.many) {
            (false, true) => (
                format!(
                    "coalesce(pg_catalog.json_agg(pg_catalog.row_to_json(r.*)), '[]') AS j, \
                     pg_catalog.count(*) AS n FROM ({select}) AS r"
                ),
                format!("{outside}.n = 0"),
            ),
            (false, false) => (
                format!("pg_catalog.row_to_json(r.*) AS j FROM ({select}) AS r LIMIT 1"),
                format!("{outside}.j IS NULL"),
            ),
            (true, true) => {
                let arrays = (0..inner.columns.len())
                    .map(|place| format!("coalesce(pg_catalog.json_agg(r.\"#{place}\"), '[]') AS \"#{place}\", "));
                (
                    format!("{}pg_catalog.count(*) AS n FROM ({select}) AS r", arrays.collect::<String>()),
                    format!("{outside}.n = 0"),
                )
            }
            (true, false) => (
                format!("r.*, true AS \"#found\" FROM ({select}) AS r LIMIT 1"),
                format!("{outside}.\"#found\" IS NULL"),
            ),
        };
        parts.joins.push_str(&format!(" {kind} LATERAL (SELECT {made}) AS {outside} ON {on}"));
        if embed.spread {
            let mut spread = Vec::new();
            for (place, column) in inner.columns.into_iter().enumerate() {
                let sql = format!("{outside}.\"#{place}\"");
                spread.push((column.name.clone(), sql.clone()));
                parts.add(Output { sql, made: column.made || relation.many, ..column });
            }
            parts.spread.push((embed.name().to_owned(), spread));
        } else if !embed.is_silent() {
            let sql = format!("{outside}.j");
            parts.add(Output { sql, name: embed.name().to_owned(), made: true, later: None });
        }
        Ok(absent)
    }

    /// The FROM of a related collection, and the conditions that tie it to its origin.
    fn joined(&mut self, outer: &str, inner: &str, relation: &Relation<'_>) -> (String, Vec<String>) {
        let tie = |one: &str, other: &str, on: &[(&str, &str)]| -> Vec<String> {
            on.iter().map(|(here, there)| format!("{one}.{} = {other}.{}", name(here), name(there))).collect()
        };
        let target = format!("{} AS {inner}", self.source(relation.target));
        match &relation.junction {
            None => (target, tie(outer, inner, &relation.on)),
            Some(junction) => {
                let between = self.alias();
                let on = tie(&between, inner, &junction.on).join(" AND ");
                let from = format!("{target} JOIN {} AS {between} ON {on}", self.source(junction.table));
                (from, tie(outer, &between, &relation.on))
            }
        }
    }

    /// A column of an embedded collection of which each row has one.
    pub(super) fn related(
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

/// Columns by their places: two may have one name.
fn numbered(parts: &Parts) -> String {
    let columns = parts.columns.iter().enumerate().map(|(place, column)| format!("{} AS \"#{place}\"", column.sql));
    columns.collect::<Vec<_>>().join(", ")
}
