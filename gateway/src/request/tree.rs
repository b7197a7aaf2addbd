//! The query as a JSON tree, and aggregates.
//!
//! ```json
//! {"select": ["title", {"embed": "directors", "select": ["name"], "inner": true}],
//!  "where": {"or": [{"column": "year", "operator": "gte", "value": 1990}, {"not": {"column": "title", "operator": "is", "value": null}}]},
//!  "order": [{"column": "year", "descending": true}], "limit": 10}
//! ```

use serde::Deserialize;
use serde_json::Value;

use super::cursor::Cursor;
use super::filter::{is, unknown_operator};
use super::select::select;
use super::{Bounds, Condition, Embed, Field, Item, Operator, Order, Problem, Quantifier, Query, Test, TextForm};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Tree {
    select: Vec<Selected>,
    r#where: Option<Node>,
    order: Vec<Ordered>,
    limit: Option<u32>,
    offset: Option<u32>,
    page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Selected {
    Text(String),
    Embed(Box<Embedded>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Embedded {
    embed: String,
    r#as: Option<String>,
    hint: Option<String>,
    #[serde(default)]
    inner: bool,
    #[serde(default)]
    spread: bool,
    #[serde(default)]
    select: Vec<Selected>,
    r#where: Option<Node>,
    #[serde(default)]
    order: Vec<Ordered>,
    limit: Option<u32>,
    offset: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Node {
    And(And),
    Or(Or),
    Not(Not),
    Test(Tested),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct And {
    and: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Or {
    or: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Not {
    not: Box<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tested {
    column: String,
    operator: String,
    #[serde(default)]
    value: Value,
    configuration: Option<String>,
    quantifier: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Ordered {
    column: String,
    embed: Option<String>,
    #[serde(default)]
    descending: bool,
    nulls: Option<Nulls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Nulls {
    First,
    Last,
}

/// The body of `/{collection}/aggregate`.
#[derive(Debug, Default)]
pub struct AggregateRequest {
    /// The rows.
    pub conditions: Vec<Condition>,
    /// The columns of a group.
    pub group_by: Vec<Field>,
    /// What is computed.
    pub functions: Vec<Function>,
    /// Conditions on what was computed.
    pub having: Vec<Condition>,
    /// By columns of the result.
    pub order: Vec<Order>,
    /// The largest number of groups.
    pub limit: Option<u64>,
    /// The number of groups that are skipped.
    pub offset: Option<u64>,
}

/// One function of an aggregate request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Function {
    /// `count`, `sum`, `avg`, `min`, `max`, `percentile_cont`, `percentile_disc`.
    pub function: String,
    /// The column; without one `count` counts rows.
    pub column: Option<String>,
    /// The name in the result.
    pub r#as: Option<String>,
    /// Whether equal values count once.
    #[serde(default)]
    pub distinct: bool,
    /// Of a percentile: between 0 and 1.
    pub fraction: Option<f64>,
}

impl Function {
    /// Its name in the result.
    pub fn name(&self) -> String {
        self.r#as.clone().unwrap_or_else(|| match &self.column {
            Some(column) => format!("{}_{column}", self.function),
            None => self.function.clone(),
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct AggregateTree {
    r#where: Option<Node>,
    group_by: Vec<String>,
    aggregates: Vec<Function>,
    having: Option<Node>,
    order: Vec<Ordered>,
    limit: Option<u32>,
    offset: Option<u32>,
}

/// Reads the body of `/{collection}/query`.
///
/// # Errors
/// If it is no such tree, or asks for more than the bounds allow.
pub fn query(body: &[u8], mut bounds: Bounds) -> Result<Query, Problem> {
    let tree: Tree = object(body)?;
    Ok(Query {
        select: selected(tree.select, &mut bounds)?,
        conditions: conditions(tree.r#where, &mut bounds)?,
        order: ordered(tree.order)?,
        limit: tree.limit.map(u64::from),
        offset: tree.offset.map(u64::from),
        page: tree.page_token,
    })
}

/// Reads the body of `/{collection}/aggregate`.
///
/// # Errors
/// If it is no such tree, or asks for more than the bounds allow.
pub fn aggregate(body: &[u8], mut bounds: Bounds) -> Result<AggregateRequest, Problem> {
    let tree: AggregateTree = object(body)?;
    if tree.aggregates.is_empty() && tree.group_by.is_empty() {
        return Err(Problem::request("SDB103", "\"aggregates\" and \"groupBy\" are both empty"));
    }
    Ok(AggregateRequest {
        conditions: conditions(tree.r#where, &mut bounds)?,
        group_by: tree.group_by.iter().map(|column| field(column)).collect::<Result<_, _>>()?,
        functions: tree.aggregates,
        having: conditions(tree.having, &mut bounds)?,
        order: ordered(tree.order)?,
        limit: tree.limit.map(u64::from),
        offset: tree.offset.map(u64::from),
    })
}

/// A body that is an object; an array would be read as the members in their order.
fn object<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    let unreadable = |details: String| Problem::request("PGRST102", "the body could not be read").details(details);
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(unreadable("it is no object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))
}

fn field(text: &str) -> Result<Field, Problem> {
    let mut cursor = Cursor::new(text);
    let field = cursor.field()?;
    if cursor.is_at_end() { Ok(field) } else { Err(cursor.unexpected("the end of the column's name")) }
}

fn selected(members: Vec<Selected>, bounds: &mut Bounds) -> Result<Vec<Item>, Problem> {
    let mut found = Vec::new();
    for member in members {
        match member {
            Selected::Text(text) => found.extend(select(&text, bounds)?),
            Selected::Embed(embedded) => {
                bounds.take()?;
                let mut inner = bounds.below()?;
                found.push(Item::Embed(Embed {
                    relation: embedded.embed,
                    alias: embedded.r#as,
                    hint: embedded.hint,
                    inner: embedded.inner,
                    spread: embedded.spread,
                    query: Query {
                        select: if embedded.select.is_empty() {
                            vec![Item::All]
                        } else {
                            selected(embedded.select, &mut inner)?
                        },
                        conditions: conditions(embedded.r#where, &mut inner)?,
                        order: ordered(embedded.order)?,
                        limit: embedded.limit.map(u64::from),
                        offset: embedded.offset.map(u64::from),
                        page: None,
                    },
                }));
                bounds.conditions = inner.conditions;
            }
        }
    }
    Ok(found)
}

fn conditions(node: Option<Node>, bounds: &mut Bounds) -> Result<Vec<Condition>, Problem> {
    node.map(|node| condition(node, bounds)).into_iter().collect()
}

fn condition(node: Node, bounds: &mut Bounds) -> Result<Condition, Problem> {
    let mut inner = bounds.below()?;
    let found = match node {
        Node::And(group) => Condition::All(members(group.and, &mut inner)?),
        Node::Or(group) => Condition::Any(members(group.or, &mut inner)?),
        Node::Not(group) => Condition::Not(Box::new(condition(*group.not, &mut inner)?)),
        Node::Test(tested) => {
            inner.take()?;
            Condition::Test { field: field(&tested.column)?, test: test(tested)? }
        }
    };
    bounds.conditions = inner.conditions;
    Ok(found)
}

fn members(nodes: Vec<Node>, bounds: &mut Bounds) -> Result<Vec<Condition>, Problem> {
    nodes.into_iter().map(|node| condition(node, bounds)).collect()
}

fn test(tested: Tested) -> Result<Test, Problem> {
    let name = tested.operator.as_str();
    if name == "in" {
        let Value::Array(values) = tested.value else {
            return Err(Problem::request("PGRST100", "\"in\" takes an array"));
        };
        return values.iter().map(text).collect::<Result<_, _>>().map(Test::In);
    }
    if name == "is" {
        return match tested.value {
            Value::Null => is("null"),
            Value::Bool(value) => is(if value { "true" } else { "false" }),
            value => is(&text(&value)?),
        }
        .map(Test::Is);
    }
    if let Some(form) = TextForm::named(name) {
        return Ok(Test::Text { form, configuration: tested.configuration, query: text(&tested.value)? });
    }
    let operator = Operator::named(name).ok_or_else(|| unknown_operator(name))?;
    let quantifier = match tested.quantifier.as_deref() {
        None => None,
        Some("any") if operator.is_quantifiable() => Some(Quantifier::Any),
        Some("all") if operator.is_quantifiable() => Some(Quantifier::All),
        Some(other) => return Err(Problem::request("PGRST100", format!("\"{other}\" is no quantifier of \"{name}\""))),
    };
    Ok(Test::Compare { operator, quantifier, value: text(&tested.value)? })
}

/// A value as PostgreSQL reads it.
fn text(value: &Value) -> Result<String, Problem> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Array(members) if members.iter().all(|member| !member.is_array() && !member.is_object()) => {
            let members: Result<Vec<_>, _> = members.iter().map(text).collect();
            super::array(&members?)
        }
        Value::Null => {
            return Err(Problem::request("PGRST100", "null is no value to compare with")
                .hint("use {\"operator\": \"is\", \"value\": null}"));
        }
        other => other.to_string(),
    })
}

fn ordered(members: Vec<Ordered>) -> Result<Vec<Order>, Problem> {
    members
        .into_iter()
        .map(|member| {
            Ok(Order {
                relation: member.embed,
                field: field(&member.column)?,
                descending: member.descending,
                nulls_first: member.nulls.map(|nulls| matches!(nulls, Nulls::First)),
            })
        })
        .collect()
}
