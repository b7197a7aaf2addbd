//! The planner's cost of statements, which runs none of them.

use serde_json::Value;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::cost::{Ask, LEAST};

/// The first version that plans a statement without its parameters' values.
const GENERIC: u32 = 160_000;

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
        match value(client, &format!("EXPLAIN (GENERIC_PLAN, FORMAT JSON) {}", ask.sql())).await {
            Ok(plan) => ask.answer(plan.as_deref().and_then(cost).unwrap_or(LEAST)),
            Err(error) => {
                let Some(reported) = error.as_db_error() else { return };
                tracing::debug!(sqlstate = reported.code().code(), "the cost of a statement could not be read");
            }
        }
    }
}

/// The total cost of a plan.
fn cost(plan: &str) -> Option<f64> {
    serde_json::from_str::<Value>(plan).ok()?.pointer("/0/Plan/Total Cost")?.as_f64()
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
        let plan = r#"[{"Plan": {"Node Type": "Limit", "Total Cost": 8.31, "Plans": [{"Total Cost": 2445.0}]}}]"#;
        assert_eq!(cost(plan), Some(8.31));
        assert_eq!(cost("[]"), None);
    }
}
