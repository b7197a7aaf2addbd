//! Aggregates of a collection, and the full-text search across collections.

use super::condition::Embedded;
use super::{Builder, Form, Kind, Statement, name};
use crate::catalog::{Catalog, Table};
use crate::problem::Problem;
use crate::request::{AggregateRequest, Condition, Field, Test};

/// The functions, and whether each takes a fraction.
const FUNCTIONS: [(&str, bool); 7] = [
    ("count", false),
    ("sum", false),
    ("avg", false),
    ("min", false),
    ("max", false),
    ("percentile_cont", true),
    ("percentile_disc", true),
];

/// Groups of a collection's rows.
///
/// # Errors
/// If it names what is not there.
pub fn aggregate(catalog: &Catalog, table: &Table, request: &AggregateRequest) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let source = builder.source(table);
    // The expressions of the result, by the names of its columns.
    let mut columns: Vec<(String, String)> = Vec::new();
    let mut groups = Vec::new();
    for field in &request.group_by {
        let (sql, _) = builder.field(table, "t0", field)?;
        groups.push(sql.clone());
        columns.push((sql, last(field)));
    }
    for function in &request.functions {
        let sql = builder.function(table, function)?;
        columns.push((sql, function.name()));
    }
    let conditions = builder.all(table, "t0", &request.conditions, &Embedded::new())?;
    let having: Result<Vec<_>, _> = request.having.iter().map(|node| builder.having(&columns, node)).collect();
    let mut order = Vec::new();
    for member in &request.order {
        let sql = result(&columns, &member.field)?;
        let direction = if member.descending { " DESC" } else { "" };
        let nulls = member.nulls_first.map_or("", |first| if first { " NULLS FIRST" } else { " NULLS LAST" });
        order.push(format!("{sql}{direction}{nulls}"));
    }
    let projection: Vec<_> = columns.iter().map(|(sql, column)| format!("{sql} AS {}", name(column))).collect();
    let clause = |word: &str, parts: &[String], separator: &str| {
        if parts.is_empty() { String::new() } else { format!(" {word} {}", parts.join(separator)) }
    };
    let mut sql = format!(
        "SELECT {} FROM (SELECT {} FROM {source} AS t0{}{}{}{}",
        Form::Json.of("r"),
        projection.join(", "),
        clause("WHERE", &conditions, " AND "),
        clause("GROUP BY", &groups, ", "),
        clause("HAVING", &having?, " AND "),
        clause("ORDER BY", &order, ", "),
    );
    if let Some(limit) = request.limit {
        // Numbers, and no parameters: the planner would take a tenth of the rows for each.
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    if let Some(offset) = request.offset {
        sql.push_str(&format!(" OFFSET {offset}"));
    }
    sql.push_str(") AS r");
    Ok(builder.finish_read(sql, columns.into_iter().map(|(_, name)| name).collect()))
}

/// Rows of several collections that have these words, the best first.
///
/// # Errors
/// If a declared column is not there.
pub fn search(
    catalog: &Catalog,
    collections: &[(&Table, &[String])],
    configuration: &str,
    words: &str,
    limit: u64,
    offset: u64,
) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let configuration = format!("{}::pg_catalog.regconfig", builder.parameter(configuration));
    let words = format!("pg_catalog.websearch_to_tsquery({configuration}, {})", builder.parameter(words));
    let mut members = Vec::new();
    for (table, columns) in collections {
        let mut texts = Vec::new();
        for column in *columns {
            let found = table.column(column).ok_or_else(|| table.lacks(column))?;
            let sql = format!("t0.{}", name(column));
            texts.push(match Kind::of(found) {
                Kind::Vector => sql,
                Kind::Json => format!("pg_catalog.to_tsvector({configuration}, coalesce({sql}, 'null'))"),
                _ => format!("pg_catalog.to_tsvector({configuration}, coalesce({sql}::pg_catalog.text, ''))"),
            });
        }
        let vector = texts.join(" || ");
        let title = builder.parameter(&table.name);
        let id = match table.primary_key.as_slice() {
            [] => "NULL::pg_catalog.json".to_owned(),
            [only] => format!("pg_catalog.to_json(t0.{})", name(only)),
            several => {
                let parts: Vec<_> = several.iter().map(|column| format!("t0.{}", name(column))).collect();
                format!("pg_catalog.json_build_array({})", parts.join(", "))
            }
        };
        members.push(format!(
            "SELECT {title}::pg_catalog.text AS collection, {id} AS id, pg_catalog.ts_rank({vector}, {words}) AS rank, \
             pg_catalog.row_to_json(t0.*) AS document FROM {} AS t0 WHERE ({vector}) @@ {words}",
            builder.source(table)
        ));
    }
    let sql = format!(
        "SELECT {} FROM (SELECT * FROM ({}) AS a ORDER BY a.rank DESC, a.collection, a.id::pg_catalog.text LIMIT {limit} OFFSET {offset}) AS r",
        Form::Json.of("r"),
        members.join(" UNION ALL ")
    );
    Ok(builder.finish_read(sql, ["collection", "id", "rank", "document"].map(str::to_owned).to_vec()))
}

impl Builder<'_> {
    fn function(&mut self, table: &Table, function: &crate::request::Function) -> Result<String, Problem> {
        let known = FUNCTIONS.iter().find(|(name, _)| *name == function.function);
        let (known, with_fraction) = known.ok_or_else(|| {
            Problem::request("SDB105", format!("\"{}\" is no aggregate function", function.function))
                .hint(FUNCTIONS.map(|(name, _)| name).join(", "))
        })?;
        let Some(column) = &function.column else {
            return if *known == "count" {
                Ok("pg_catalog.count(*)".to_owned())
            } else {
                Err(Problem::request("SDB105", format!("\"{known}\" needs a column")))
            };
        };
        let found = table.column(column).ok_or_else(|| table.lacks(column))?;
        let sql = format!("t0.{}", name(&found.name));
        if *with_fraction {
            let fraction = function.fraction.filter(|fraction| (0.0..=1.0).contains(fraction));
            let fraction = fraction
                .ok_or_else(|| Problem::request("SDB105", format!("\"{known}\" needs a fraction between 0 and 1")))?;
            let fraction = self.parameter(fraction.to_string());
            return Ok(format!("pg_catalog.{known}({fraction}::pg_catalog.float8) WITHIN GROUP (ORDER BY {sql})"));
        }
        let distinct = if function.distinct { "DISTINCT " } else { "" };
        Ok(format!("pg_catalog.{known}({distinct}{sql})"))
    }

    /// A condition on columns of the result.
    fn having(&mut self, columns: &[(String, String)], condition: &Condition) -> Result<String, Problem> {
        let group = |builder: &mut Self, members: &[Condition], separator: &str, nothing: &str| {
            let members: Result<Vec<_>, _> = members.iter().map(|member| builder.having(columns, member)).collect();
            let members = members?;
            Ok::<_, Problem>(if members.is_empty() {
                nothing.to_owned()
            } else {
                format!("({})", members.join(separator))
            })
        };
        match condition {
            Condition::All(members) => group(self, members, " AND ", "true"),
            Condition::Any(members) => group(self, members, " OR ", "false"),
            Condition::Not(inner) => Ok(format!("(NOT {})", self.having(columns, inner)?)),
            Condition::Test { field, test } => {
                if matches!(test, Test::Text { .. }) {
                    return Err(Problem::request("SDB105", "\"having\" has no full-text search"));
                }
                let sql = result(columns, field)?;
                Ok(self.test(&sql, Kind::Other, test))
            }
        }
    }
}

/// The expression of a column of the result.
fn result(columns: &[(String, String)], field: &Field) -> Result<String, Problem> {
    let found = columns.iter().find(|(_, name)| *name == field.column && field.path.is_empty());
    found.map(|(sql, _)| sql.clone()).ok_or_else(|| {
        Problem::request("PGRST204", format!("the result has no column \"{}\"", field.column))
            .hint("\"having\" and \"order\" name columns of the result, by \"as\" where it is given")
    })
}

fn last(field: &Field) -> String {
    let key = field.path.iter().rev().find_map(|step| match &step.key {
        crate::request::Key::Name(name) => Some(name.clone()),
        crate::request::Key::Index(_) => None,
    });
    key.unwrap_or_else(|| field.column.clone())
}
