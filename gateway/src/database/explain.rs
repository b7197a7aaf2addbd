//! The planner's cost of statements, which runs none of them.

use serde::Deserialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::cost::{Ask, LEAST};

/// The first version that plans a statement without its parameters' values.
const GENERIC: u32 = 160_000;

/// What comes before a statement whose plan is asked for. A planner runs functions: they write nothing, wait for no lock,
/// and do not occupy the connection for long.
const PLAN: &str = "BEGIN READ ONLY; SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '2s'; \
                    EXPLAIN (GENERIC_PLAN, FORMAT JSON)";

/// Answers the questions for the costs of statements, on a connection whose role is the one that they ran as. Those that
/// a lost connection, or an error, leaves unanswered are dropped.
pub(super) async fn explain(client: &Client, asks: Vec<Ask>) {
    let Ok(version) = value(client, "SHOW server_version_num").await else { return };
    let is_generic = version.and_then(|text| text.parse::<u32>().ok()).is_some_and(|version| version >= GENERIC);
    for ask in asks {
        if !is_generic {
            if ask.costs().is_untold() {
                tracing::warn!(
                    "PostgreSQL before 16 gives no generic plans: each statement is charged as the least one"
                );
            }
            ask.answer(LEAST);
            continue;
        }
        // As a simple query: only so does the text keep its parameters open.
        match value(client, &format!("{PLAN} {}; ROLLBACK", ask.sql())).await {
            Ok(plan) => match plan.as_deref().and_then(root) {
                Some(root) => ask.answer(root.cost),
                None => ask.presume(),
            },
            Err(error) => {
                let Some(code) = error.code() else { return };
                tracing::debug!(sqlstate = code.code(), "the cost of a statement could not be read");
                if *code == SqlState::QUERY_CANCELED {
                    ask.presume();
                }
                if client.batch_execute("ROLLBACK").await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A plan, of which the rest is skipped: it can be nested more deeply than a JSON value that is read as a whole.
#[derive(Deserialize)]
struct Explained {
    #[serde(rename = "Plan")]
    plan: Root,
}

/// The node of a plan that all others are beneath.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Root {
    /// Of the whole plan, in units.
    #[serde(rename = "Total Cost")]
    pub(super) cost: f64,
    /// How many rows are expected.
    #[serde(rename = "Plan Rows")]
    pub(super) rows: f64,
}

/// Reads the root of a plan in JSON.
pub(super) fn root(plan: &str) -> Option<Root> {
    let [explained] = serde_json::from_str::<[Explained; 1]>(plan).ok()?;
    Some(explained.plan)
}

/// The only value that a statement returns.
async fn value(client: &Client, sql: &str) -> Result<Option<String>, Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_that_of_the_whole_plan() {
        let inner = r#"{"Total Cost": 2445.0, "Plan Rows": 100}"#;
        let plan = format!(
            r#"[{{"Plan": {{"Node Type": "Limit", "Total Cost": 8.31, "Plan Rows": 20, "Plans": [{inner}]}}}}]"#
        );
        assert_eq!(root(&plan), Some(Root { cost: 8.31, rows: 20.0 }));
        assert_eq!(root("[]"), None);
        assert_eq!(root("null"), None);
    }

    #[test]
    fn a_deep_plan_has_a_cost() {
        let (begin, end) = (r#"{"Total Cost": 9.5, "Plan Rows": 1, "Plans": ["#, "]}");
        let plan = format!(r#"[{{"Plan": {}{}}}]"#, begin.repeat(1000), end.repeat(1000));
        assert!(serde_json::from_str::<serde_json::Value>(&plan).is_err(), "it is too deep to be read as a whole");
        assert_eq!(root(&plan), Some(Root { cost: 9.5, rows: 1.0 }));
    }
}
