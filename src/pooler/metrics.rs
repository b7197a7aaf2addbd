//! The pooler's own numbers, in the format of Prometheus: read from PgBouncer at each request, so that a
//! database or user that is gone leaves no series.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::console::{Console, Row};
use super::probes::State;
use crate::api::names::PostgresNames;

type Labels = Vec<(&'static str, String)>;
type Numbers = Family<Labels, Gauge>;
type Totals = Family<Labels, Counter>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

/// The text of the metrics.
///
/// # Errors
/// If PgBouncer does not answer.
pub async fn text(state: &State) -> Result<String, String> {
    let console = Console::open().await?;
    let pools = console.table("SHOW POOLS").await?;
    let totals = console.table("SHOW STATS").await?;
    let mut text = String::new();
    encode(&mut text, &registry(&pools, &totals, state)).map_err(|error| error.to_string())?;
    Ok(text)
}

fn number(row: &Row, column: &str) -> i64 {
    row.get(column).and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The label of a login. A client's short-lived logins are one: PgBouncer lists the pool of a login that is gone as well,
/// and each would keep its series.
fn label(login: String) -> String {
    match PostgresNames::client_of_short_lived(&login) {
        Some(client) => PostgresNames::short_lived_label(client),
        None => login,
    }
}

fn registry(pools: &[Row], totals: &[Row], state: &State) -> Registry {
    let mut registry = Registry::with_prefix("servicedb_pooler");
    let (clients, servers, waits) = (Numbers::default(), Numbers::default(), Seconds::default());
    let cell = |row: &Row, column: &str| row.get(column).cloned().unwrap_or_default();
    for row in pools.iter().filter(|row| cell(row, "database") != "pgbouncer") {
        let labels = vec![("database", cell(row, "database")), ("user", label(cell(row, "user")))];
        let with = |state: &str| [labels.clone(), vec![("state", state.to_owned())]].concat();
        for (column, state) in [("cl_active", "active"), ("cl_waiting", "waiting")] {
            clients.get_or_create(&with(state)).inc_by(number(row, column));
        }
        for column in ["sv_active", "sv_idle", "sv_used", "sv_login"] {
            servers.get_or_create(&with(column.trim_start_matches("sv_"))).inc_by(number(row, column));
        }
        // Precise enough: a float has 52 bits.
        let longest = number(row, "maxwait") as f64 + number(row, "maxwait_us") as f64 / 1e6;
        let known = waits.get_or_create(&labels).get();
        waits.get_or_create(&labels).set(longest.max(known));
    }
    registry.register("clients", "Client connections: linked to a server, or waiting for one", clients);
    registry.register("servers", "Connections to PostgreSQL", servers);
    registry.register_with_unit(
        "longest_wait",
        "How long the first client in the queue has waited",
        Unit::Seconds,
        waits,
    );
    let (queries, transactions) = (Totals::default(), Totals::default());
    for row in totals.iter().filter(|row| cell(row, "database") != "pgbouncer") {
        let labels = vec![("database", cell(row, "database"))];
        queries.get_or_create(&labels).inc_by(number(row, "total_query_count").unsigned_abs());
        transactions.get_or_create(&labels).inc_by(number(row, "total_xact_count").unsigned_abs());
    }
    registry.register("queries", "Queries since PgBouncer's start", queries);
    registry.register("transactions", "Transactions since PgBouncer's start", transactions);
    registry.register("holding", "Whether queries are held for a planned change", {
        let holding = Gauge::<i64>::default();
        holding.set(i64::from(state.holds));
        holding
    });
    registry.register("holds", "Planned changes for which queries were held", ConstCounter::new(state.held_count));
    registry.register_with_unit(
        "held",
        "How long queries were held, in sum",
        Unit::Seconds,
        ConstCounter::new(state.held_milliseconds as f64 / 1e3),
    );
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_by_database_and_user_and_the_console_is_left_out() {
        let row = |cells: &[(&str, &str)]| -> Row {
            cells.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let pools = [
            row(&[
                ("database", "chat_db"),
                ("user", "chat_a"),
                ("cl_active", "3"),
                ("cl_waiting", "2"),
                ("sv_active", "3"),
                ("maxwait", "1"),
                ("maxwait_us", "500000"),
            ]),
            row(&[("database", "pgbouncer"), ("user", "pgbouncer"), ("cl_active", "1")]),
        ];
        let totals = [row(&[("database", "chat_db"), ("total_query_count", "9"), ("total_xact_count", "8")])];
        let state = State { held_count: 2, held_milliseconds: 1500, ..State::default() };
        let mut text = String::new();
        encode(&mut text, &registry(&pools, &totals, &state)).expect("text");
        for line in [
            r#"servicedb_pooler_clients{database="chat_db",user="chat_a",state="waiting"} 2"#,
            r#"servicedb_pooler_longest_wait_seconds{database="chat_db",user="chat_a"} 1.5"#,
            r#"servicedb_pooler_transactions_total{database="chat_db"} 8"#,
            "servicedb_pooler_holds_total 2",
            "servicedb_pooler_held_seconds_total 1.5",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(!text.contains(r#""pgbouncer""#), "{text}");
    }

    #[test]
    fn the_short_lived_logins_of_a_client_are_one() {
        let pool = |user: &str, active: &str, wait: &str| -> Row {
            let cells = [
                ("database", "chat_db"),
                ("user", user),
                ("cl_active", active),
                ("sv_active", active),
                ("maxwait", wait),
            ];
            cells.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let pools = [
            pool("servicedb.people.k3j29fhs7dk2mxqp", "3", "4"),
            pool("servicedb.people.0000000000000000", "2", "1"),
            pool("servicedb.people-2.k3j29fhs7dk2mxqp", "7", "0"),
        ];
        let mut text = String::new();
        encode(&mut text, &registry(&pools, &[], &State::default())).expect("text");
        for line in [
            r#"servicedb_pooler_clients{database="chat_db",user="servicedb.people",state="active"} 5"#,
            r#"servicedb_pooler_clients{database="chat_db",user="servicedb.people-2",state="active"} 7"#,
            r#"servicedb_pooler_servers{database="chat_db",user="servicedb.people",state="active"} 5"#,
            r#"servicedb_pooler_longest_wait_seconds{database="chat_db",user="servicedb.people"} 4.0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(!text.contains("k3j29fhs7dk2mxqp"), "{text}");
    }
}
