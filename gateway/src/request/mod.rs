//! Requests: the query string and the JSON tree, both read into one [`Query`].

mod cursor;
mod filter;
mod order;
mod pairs;
mod prefer;
mod select;
mod tree;

pub use pairs::{Pairs, pairs};
pub use prefer::{Count, Missing, Prefer, Resolution, Return};
pub use select::columns;
pub use tree::{AggregateRequest, Function, aggregate, query};

use crate::problem::Problem;

/// A read of one collection: its columns, conditions, order and range, and those of what is embedded in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// What each row has; empty: all columns.
    pub select: Vec<Item>,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// The order of the rows.
    pub order: Vec<Order>,
    /// The largest number of rows.
    pub limit: Option<u64>,
    /// The number of rows that are skipped.
    pub offset: Option<u64>,
    /// The token of a page, empty for the first one. Without it, the rows are not divided into pages.
    pub page: Option<String>,
}

impl Query {
    /// The embedded collection of this name: its alias, where it has one, or else the collection's.
    pub fn embedded(&mut self, name: &str) -> Option<&mut Embed> {
        let named = |item: &Item, of: fn(&Embed) -> &str| matches!(item, Item::Embed(embed) if of(embed) == name);
        let place = self.select.iter().position(|item| named(item, Embed::name));
        let place =
            place.or_else(|| self.select.iter().position(|item| named(item, |embed| embed.relation.as_str())))?;
        match &mut self.select[place] {
            Item::Embed(embed) => Some(embed),
            _ => None,
        }
    }
}

/// A column, or a part of a JSON column.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The column.
    pub column: String,
    /// The way into its JSON.
    pub path: Vec<Step>,
}

/// One step into JSON: `->` or, as text, `->>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The key.
    pub key: Key,
    /// Whether the result is text.
    pub text: bool,
}

/// A key into JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// Of an object.
    Name(String),
    /// Of an array.
    Index(i32),
}

/// One member of a `select`.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `*`
    All,
    /// A column, perhaps under another name, cast or aggregated.
    Column(Column),
    /// Rows of another collection that belong to the row.
    Embed(Embed),
}

/// A column in a `select`.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The column; absent in `count()`.
    pub field: Option<Field>,
    /// Its name in the result.
    pub alias: Option<String>,
    /// The type that it is cast to, before an aggregate.
    pub cast: Option<String>,
    /// The aggregate.
    pub aggregate: Option<Aggregate>,
    /// The type that the aggregate is cast to.
    pub aggregate_cast: Option<String>,
}

/// An aggregate of a `select`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in SQL")]
pub enum Aggregate {
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

impl Aggregate {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            _ => return None,
        })
    }

    /// Its name, which is the name in the result, too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// An embedded collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// The collection, or the foreign key or column that leads to it.
    pub relation: String,
    /// Its name in the result.
    pub alias: Option<String>,
    /// Which way to it, if there are several: a foreign key, a column or a junction.
    pub hint: Option<String>,
    /// Whether rows without it are left out.
    pub inner: bool,
    /// Whether its columns become the row's own.
    pub spread: bool,
    /// Its columns, conditions, order and range.
    pub query: Query,
}

impl Embed {
    /// Its name in the result.
    pub fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.relation)
    }

    /// Whether it adds nothing to the result, and is there for conditions and the order: nothing is between its
    /// parentheses, or others of its kind.
    pub fn is_silent(&self) -> bool {
        self.query.select.iter().all(|item| matches!(item, Item::Embed(inner) if inner.is_silent()))
    }
}

/// A condition on a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A test of one column.
    Test {
        /// The column.
        field: Field,
        /// The test.
        test: Test,
    },
    /// All of these.
    All(Vec<Condition>),
    /// One of these.
    Any(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
}

/// A test of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// An operator with a value.
    Compare {
        /// The operator.
        operator: Operator,
        /// `any` or `all`: the value is an array then.
        quantifier: Option<Quantifier>,
        /// The value, as text.
        value: String,
    },
    /// One of these values.
    In(Vec<String>),
    /// `IS`.
    Is(Is),
    /// Full text.
    Text {
        /// The form of the query.
        form: TextForm,
        /// The text search configuration.
        configuration: Option<String>,
        /// The query.
        query: String,
    },
}

/// An operator that compares a column with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in PostgREST's dialect")]
pub enum Operator {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    Ilike,
    Match,
    Imatch,
    IsDistinct,
    Contains,
    Contained,
    Overlaps,
    StrictlyLeft,
    StrictlyRight,
    NotRight,
    NotLeft,
    Adjacent,
}

/// The names of the operators, with their SQL.
const OPERATORS: [(&str, Operator, &str); 19] = [
    ("eq", Operator::Eq, "="),
    ("neq", Operator::Neq, "<>"),
    ("gt", Operator::Gt, ">"),
    ("gte", Operator::Gte, ">="),
    ("lt", Operator::Lt, "<"),
    ("lte", Operator::Lte, "<="),
    ("like", Operator::Like, "LIKE"),
    ("ilike", Operator::Ilike, "ILIKE"),
    ("match", Operator::Match, "~"),
    ("imatch", Operator::Imatch, "~*"),
    ("isdistinct", Operator::IsDistinct, "IS DISTINCT FROM"),
    ("cs", Operator::Contains, "@>"),
    ("cd", Operator::Contained, "<@"),
    ("ov", Operator::Overlaps, "&&"),
    ("sl", Operator::StrictlyLeft, "<<"),
    ("sr", Operator::StrictlyRight, ">>"),
    ("nxr", Operator::NotRight, "&<"),
    ("nxl", Operator::NotLeft, "&>"),
    ("adj", Operator::Adjacent, "-|-"),
];

impl Operator {
    /// By its name in the dialect.
    pub fn named(name: &str) -> Option<Self> {
        OPERATORS.iter().find(|(known, ..)| *known == name).map(|(_, operator, _)| *operator)
    }

    /// Its SQL.
    pub fn sql(self) -> &'static str {
        OPERATORS.iter().find(|(_, operator, _)| *operator == self).map_or("=", |(.., sql)| *sql)
    }

    /// Whether the value is a pattern, in which `*` is written for `%`.
    pub fn is_pattern(self) -> bool {
        matches!(self, Self::Like | Self::Ilike)
    }

    /// Whether `any` and `all` may follow it.
    fn is_quantifiable(self) -> bool {
        !matches!(self, Self::Neq | Self::IsDistinct) && (self as usize) < (Self::Contains as usize)
    }
}

/// Whether one or each of several values must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in SQL")]
pub enum Quantifier {
    Any,
    All,
}

/// What `IS` tests for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in SQL")]
pub enum Is {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// The form of a full-text query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named by PostgreSQL's functions")]
pub enum TextForm {
    Query,
    Plain,
    Phrase,
    Web,
}

impl TextForm {
    /// By its name in the dialect.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "fts" => Self::Query,
            "plfts" => Self::Plain,
            "phfts" => Self::Phrase,
            "wfts" => Self::Web,
            _ => return None,
        })
    }

    /// PostgreSQL's function.
    pub fn function(self) -> &'static str {
        match self {
            Self::Query => "to_tsquery",
            Self::Plain => "plainto_tsquery",
            Self::Phrase => "phraseto_tsquery",
            Self::Web => "websearch_to_tsquery",
        }
    }
}

/// One member of an `order`.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The embedded collection that has the column.
    pub relation: Option<String>,
    /// The column.
    pub field: Field,
    /// Whether the highest comes first.
    pub descending: bool,
    /// Whether nulls come first; PostgreSQL's default otherwise.
    pub nulls_first: Option<bool>,
}

/// Values as the text of an array.
pub fn array(values: &[String]) -> String {
    let quoted = values.iter().map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// How much a request may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Conditions and embedded collections in all.
    pub conditions: usize,
    /// Levels of conditions, and of embedding.
    pub depth: usize,
}

impl Bounds {
    /// Takes one from what is left.
    fn take(&mut self) -> Result<(), Problem> {
        self.conditions = self.conditions.checked_sub(1).ok_or_else(|| {
            Problem::request("SDB101", "too many conditions and embedded collections in one request")
                .hint("split the request, or use in.(…)")
        })?;
        Ok(())
    }

    /// The bounds of one level below.
    fn below(&self) -> Result<Self, Problem> {
        let depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| Problem::request("SDB102", "conditions or embedded collections are nested too deeply"))?;
        Ok(Self { depth, ..*self })
    }
}
