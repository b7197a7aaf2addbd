//! Conditions as SQL.

use super::{Builder, Kind};
use crate::catalog::Table;
use crate::problem::Problem;
use crate::request::{Condition, Field, Is, Quantifier, Test, array};

/// Collections that are embedded beside the conditions: the name of each, and the SQL that it has no row.
pub(super) type Embedded = Vec<(String, String)>;

impl Builder<'_> {
    /// All of these conditions; nothing, if there is none.
    pub(super) fn all(
        &mut self,
        table: &Table,
        alias: &str,
        conditions: &[Condition],
        embedded: &Embedded,
    ) -> Result<Vec<String>, Problem> {
        conditions.iter().map(|condition| self.condition(table, alias, condition, embedded)).collect()
    }

    fn condition(
        &mut self,
        table: &Table,
        alias: &str,
        condition: &Condition,
        embedded: &Embedded,
    ) -> Result<String, Problem> {
        Ok(match condition {
            Condition::All(members) if members.is_empty() => "true".to_owned(),
            Condition::Any(members) if members.is_empty() => "false".to_owned(),
            Condition::All(members) => format!("({})", self.all(table, alias, members, embedded)?.join(" AND ")),
            Condition::Any(members) => format!("({})", self.all(table, alias, members, embedded)?.join(" OR ")),
            Condition::Not(inner) => format!("(NOT {})", self.condition(table, alias, inner, embedded)?),
            Condition::Test { field, test } => match absent(table, field, embedded) {
                Some(absent) => match test {
                    Test::Is(Is::Null) => format!("({absent})"),
                    Test::Is(Is::NotNull) => format!("(NOT ({absent}))"),
                    _ => {
                        return Err(Problem::request(
                            "PGRST120",
                            format!("\"{}\" is embedded: only is.null and not.is.null test it", field.column),
                        ));
                    }
                },
                None => {
                    let (sql, kind) = self.field(table, alias, field)?;
                    self.test(&sql, kind, test)
                }
            },
        })
    }

    /// One test of an expression.
    pub(super) fn test(&mut self, sql: &str, kind: Kind, test: &Test) -> String {
        match test {
            Test::Compare { operator, quantifier, value } => {
                let value = if operator.is_pattern() { value.replace('*', "%") } else { value.clone() };
                let value = self.parameter(value);
                match quantifier {
                    None => format!("({sql} {} {value})", operator.sql()),
                    Some(Quantifier::Any) => format!("({sql} {} ANY ({value}))", operator.sql()),
                    Some(Quantifier::All) => format!("({sql} {} ALL ({value}))", operator.sql()),
                }
            }
            Test::In(values) => {
                let values = self.parameter(array(values));
                format!("({sql} = ANY ({values}))")
            }
            Test::Is(is) => {
                let what = match is {
                    Is::Null => "NULL",
                    Is::NotNull => "NOT NULL",
                    Is::True => "TRUE",
                    Is::False => "FALSE",
                    Is::Unknown => "UNKNOWN",
                };
                format!("({sql} IS {what})")
            }
            Test::Text { form, configuration, query } => {
                let configuration = configuration.as_ref().map(|name| {
                    // Written twice, it is one parameter.
                    format!("{}::pg_catalog.regconfig, ", self.parameter(name))
                });
                let configuration = configuration.unwrap_or_default();
                let query = self.parameter(query);
                let vector = match kind {
                    Kind::Vector => sql.to_owned(),
                    Kind::Other => format!("pg_catalog.to_tsvector({configuration}{sql}::pg_catalog.text)"),
                    Kind::Json | Kind::Text => format!("pg_catalog.to_tsvector({configuration}{sql})"),
                };
                format!("({vector} @@ pg_catalog.{}({configuration}{query}))", form.function())
            }
        }
    }
}

/// The SQL that an embedded collection has no row, if the field names one and no column.
fn absent<'e>(table: &Table, field: &Field, embedded: &'e Embedded) -> Option<&'e str> {
    if !field.path.is_empty() || table.column(&field.column).is_some() {
        return None;
    }
    embedded.iter().find(|(name, _)| *name == field.column).map(|(_, sql)| sql.as_str())
}
