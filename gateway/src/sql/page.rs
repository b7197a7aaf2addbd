//! One page of a collection's rows: those after the last row of the page before, in an order in which no two rows are equal.

use super::{Builder, Form, Statement, name, qualified};
use crate::catalog::{Catalog, Column, Table};
use crate::problem::Problem;
use crate::request::{Field, Order, Query};

/// The most columns of an order: a function of PostgreSQL takes 100 arguments, and a primary key has 32 columns at most.
const MOST: usize = 64;
/// The longest token, in bytes: as a header and in a URL, it must pass the limits of clients and proxies.
pub const LONGEST_TOKEN: usize = 4096;

/// One member of the order.
struct Key<'a> {
    sql: String,
    order: &'a Order,
    /// Whether it is never null.
    required: bool,
    /// The type of its parameter, where the server does not infer one.
    cast: String,
}

impl Key<'_> {
    /// Whether its nulls come before its values.
    fn nulls_first(&self) -> bool {
        self.order.nulls_first.unwrap_or(self.order.descending)
    }

    /// The operator between a later value and an earlier one.
    fn operator(&self) -> &'static str {
        if self.order.descending { "<" } else { ">" }
    }

    /// It in an ORDER BY.
    fn ordering(&self) -> String {
        let direction = if self.order.descending { " DESC" } else { "" };
        let nulls = match self.order.nulls_first {
            None => "",
            Some(true) => " NULLS FIRST",
            Some(false) => " NULLS LAST",
        };
        format!("{}{direction}{nulls}", self.sql)
    }
}

/// The order of pages: the request's, and then the columns of the primary key that it lacks. They have the direction of the
/// last column before them, so that an index over all of them serves it, forwards or backwards.
///
/// # Errors
/// About a collection without a primary key, groups, the columns of an embedded collection, columns that are not there, and
/// those that are ordered by operators that a comparison does not find.
pub fn total_order(catalog: &Catalog, table: &Table, query: &Query) -> Result<Vec<Order>, Problem> {
    let refused = |message: String| Err(Problem::request("SDB131", message));
    if table.primary_key.is_empty() {
        return refused(format!("\"{}\" has no primary key: page_token needs one", table.name))
            .map_err(|problem| problem.hint("use limit and offset, with an order in which no two rows are equal"));
    }
    if Builder::new(catalog).aggregates(table, &query.select) {
        return refused("page_token and aggregates do not go together".to_owned());
    }
    let mut missing: Vec<&String> = table.primary_key.iter().collect();
    let mut order: Vec<Order> = Vec::new();
    for member in &query.order {
        if let Some(related) = &member.relation {
            return refused(format!(
                "page_token needs an order by columns of the collection, and not of \"{related}\""
            ));
        }
        if table.column(&member.field.column).is_none() {
            return Err(table.lacks(&member.field.column));
        }
        // What follows the whole key, or a column for the second time, decides nothing.
        if missing.is_empty() || order.iter().any(|known| known.field == member.field) {
            continue;
        }
        missing.retain(|column| **column != member.field.column || !member.field.path.is_empty());
        order.push(member.clone());
    }
    let descending = order.last().is_some_and(|last| last.descending);
    order.extend(missing.into_iter().map(|column| Order {
        relation: None,
        field: Field { column: column.clone(), path: Vec::new() },
        descending,
        nulls_first: None,
    }));
    if order.len() > MOST {
        return refused(format!("page_token allows an order by {MOST} columns at most"));
    }
    if let Some(column) = order.iter().find_map(|member| unreachable_operators(catalog, table, member)) {
        let message =
            format!("page_token does not know the order of the type {}, of \"{}\"", column.sql_type, column.name);
        return refused(message).map_err(|problem| {
            problem.hint(
                "its operators are in a schema that is not exposed: use limit and offset, or order by another column",
            )
        });
    }
    Ok(order)
}

/// The column of a member of the order, if its values are ordered by operators that no comparison finds: ORDER BY takes
/// those of the type, wherever they are, and a comparison those of PostgreSQL and of the exposed schemas. It would take
/// another type's, and leave rows out.
fn unreachable_operators<'a>(catalog: &Catalog, table: &'a Table, member: &Order) -> Option<&'a Column> {
    // A way into JSON ends in PostgreSQL's own types.
    let column = table.column(&member.field.column).filter(|_| member.field.path.is_empty())?;
    let schema = column.ordering.as_ref()?;
    (schema != "pg_catalog" && !catalog.schemas.contains(schema)).then_some(column)
}

/// The rows of a page and the one after them, one text each with the values of the order's columns as an array of texts:
/// `after` has those of the last row before.
///
/// # Errors
/// If the query names what is not there, or the values do not fit the order.
pub fn page(
    catalog: &Catalog,
    table: &Table,
    query: &Query,
    order: &[Order],
    after: Option<&[Option<String>]>,
    form: Form,
) -> Result<Statement, Problem> {
    let mut builder = Builder::new(catalog);
    let limit = query.limit.map(|limit| limit.saturating_add(1).min(i64::MAX.unsigned_abs()));
    let mut parts = builder.parts(table, "t0", &Query { order: Vec::new(), limit, ..query.clone() })?;
    let keys: Vec<Key<'_>> = order.iter().map(|member| builder.ordered(table, member)).collect::<Result<_, _>>()?;
    if let Some(after) = after {
        parts.conditions.push(builder.after(&keys, after)?);
    }
    parts.order = keys.iter().map(Key::ordering).collect();
    let columns = parts.names();
    let values = parts.columns.iter().enumerate().map(|(place, column)| format!("{} AS c{place}", column.sql));
    let values = values.chain(keys.iter().enumerate().map(|(place, key)| format!("{} AS k{place}", key.sql)));
    let members = columns.iter().enumerate().map(|(place, column)| format!("s.c{place} AS {}", name(column)));
    // Texts are made of the page's rows alone, after the limit. Of an array that no token has room for, only so many
    // characters are sent for each row: a token of them is longer than the longest one, so that none is taken for a whole.
    let texts = (0..keys.len()).map(|place| format!("s.k{place}::pg_catalog.text"));
    let sql = format!(
        "SELECT {}, pg_catalog.\"left\"(pg_catalog.json_build_array({})::pg_catalog.text, {LONGEST_TOKEN}) \
         FROM (SELECT {} FROM {} AS t0{}{}) AS s CROSS JOIN LATERAL (SELECT {}) AS r",
        form.of("r"),
        texts.collect::<Vec<_>>().join(", "),
        values.collect::<Vec<_>>().join(", "),
        qualified(table),
        parts.joins,
        parts.tail(),
        members.collect::<Vec<_>>().join(", "),
    );
    Ok(builder.finish(sql, columns))
}

impl Builder<'_> {
    fn ordered<'q>(&mut self, table: &Table, order: &'q Order) -> Result<Key<'q>, Problem> {
        let column = table.column(&order.field.column).ok_or_else(|| table.lacks(&order.field.column))?;
        let (sql, _) = self.field(table, "t0", &order.field)?;
        let is_column = order.field.path.is_empty();
        // Rows are compared as rows of any type, for which the server takes no parameter.
        let is_row = is_column && column.category == "C";
        let cast = if is_row { format!("::{}", column.sql_type) } else { String::new() };
        Ok(Key { sql, order, required: is_column && column.required, cast })
    }

    /// The condition of the rows that come after these values.
    fn after(&mut self, keys: &[Key<'_>], values: &[Option<String>]) -> Result<String, Problem> {
        if keys.len() != values.len() || keys.iter().zip(values).any(|(key, value)| key.required && value.is_none()) {
            return Err(unfit());
        }
        let descending = keys.iter().filter(|key| key.order.descending).count();
        let is_uniform = descending == 0 || descending == keys.len();
        if let (true, Some(first)) = (is_uniform && keys.iter().all(|key| key.required), keys.first()) {
            // An index finds the first of them.
            let columns: Vec<_> = keys.iter().map(|key| key.sql.as_str()).collect();
            let values: Vec<_> = keys.iter().zip(values).map(|(key, value)| self.value(key, value)).collect();
            return Ok(format!("(ROW({}) {} ROW({}))", columns.join(", "), first.operator(), values.join(", ")));
        }
        let mut rest = None;
        for (key, value) in keys.iter().zip(values).rev() {
            rest = Some(self.beyond(key, value, rest));
        }
        rest.ok_or_else(unfit)
    }

    /// The condition of the rows whose key comes after a value, or is equal to it and `rest` holds. The last key has no
    /// rest: no two rows are equal in it.
    fn beyond(&mut self, key: &Key<'_>, value: &Option<String>, rest: Option<String>) -> String {
        let (sql, operator) = (&key.sql, key.operator());
        let nulls_follow = !key.required && !key.nulls_first();
        let rest = rest.unwrap_or_else(|| "false".to_owned());
        // A row of nulls IS NULL, too, and is ordered as a value.
        let (null, not_null) = (format!("{sql} IS NOT DISTINCT FROM NULL"), format!("{sql} IS DISTINCT FROM NULL"));
        if value.is_none() {
            return match nulls_follow {
                true => format!("({null} AND {rest})"),
                false => format!("({not_null} OR {rest})"),
            };
        }
        let value = self.value(key, value);
        if nulls_follow {
            return format!("({sql} {operator} {value} OR {null} OR ({sql} = {value} AND {rest}))");
        }
        // The first comparison alone says where an index begins.
        format!("({sql} {operator}= {value} AND ({sql} {operator} {value} OR {rest}))")
    }

    fn value(&mut self, key: &Key<'_>, value: &Option<String>) -> String {
        let parameter = self.parameter(value.clone().unwrap_or_default());
        format!("{parameter}{}", key.cast)
    }
}

/// The error about the token of another request, or about none of ours.
pub fn unfit() -> Problem {
    Problem::request("SDB130", "page_token is not of this request")
        .hint("send the request of the first page with its Next-Page-Token: only limit may change. An empty page_token begins again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Column as Selected, Item};

    fn table() -> Table {
        let column = |name: &str, ordering: &str| {
            serde_json::json!({
                "name": name, "sql_type": "x", "base": "x", "category": "S", "ordering": ordering, "domain": false,
                "required": true, "default": null, "generated": false, "identity": "", "length": null, "values": null,
                "comment": null,
            })
        };
        let columns = [column("id", "pg_catalog"), column("near", "public"), column("far", "elsewhere")];
        let table = serde_json::json!({
            "schema": "public", "name": "a", "kind": "r", "comment": null, "events": 0, "intercepts": false,
            "row_security": false, "columns": columns, "primary_key": ["id"], "unique": [], "indexes": [], "checks": [],
            "partitioning": null,
        });
        serde_json::from_value(table).expect("a table")
    }

    fn by(column: &str) -> Query {
        let field = Field { column: column.to_owned(), path: Vec::new() };
        Query { order: vec![Order { relation: None, field, descending: false, nulls_first: None }], ..Query::default() }
    }

    #[test]
    fn an_order_that_no_comparison_has_is_refused() {
        let (catalog, mut table) = (Catalog { schemas: vec!["public".to_owned()], ..Catalog::default() }, table());
        for (column, members) in [("id", 1), ("near", 2)] {
            assert_eq!(total_order(&catalog, &table, &by(column)).expect("an order").len(), members, "{column}");
        }
        assert_eq!(total_order(&catalog, &table, &by("far")).expect_err("citext elsewhere").code, "SDB131");
        // The key belongs to each order.
        table.primary_key.push("far".to_owned());
        assert_eq!(total_order(&catalog, &table, &by("id")).expect_err("the key").code, "SDB131");
    }

    #[test]
    fn a_count_without_parentheses_makes_groups() {
        let field = Some(Field { column: "count".to_owned(), path: Vec::new() });
        let count = Selected { field, alias: None, cast: None, aggregate: None, aggregate_cast: None };
        let query = Query { select: vec![Item::Column(count)], ..Query::default() };
        assert_eq!(total_order(&Catalog::default(), &table(), &query).expect_err("groups").code, "SDB131");
    }
}
