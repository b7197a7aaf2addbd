//! `kubectl servicedb activity`: the sessions of an instance, and who waits for whom, as a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde::Deserialize;

use super::args::Connection;
use super::connection::PluginError;
use super::queries::milliseconds;
use super::statistics::Source;
use super::table::{Table, plain};

/// The longest text of a statement.
const WIDTH: usize = 90;

/// Sessions that do something, hold a transaction open, or are waited for; and how many there are of each state. Of the
/// state `disabled` the cause is shown: Vault's login, and the agent where it handles secrets, report no statements.
const QUERY: &str = "\
    SELECT pid, coalesce(usename, backend_type) AS login, coalesce(host(client_addr), 'socket') AS address,
           CASE state WHEN 'disabled' THEN 'track_activities is off' ELSE coalesce(state, '') END AS state,
           xact_start IS NOT NULL AS in_transaction, coalesce(wait_event_type || ': ' || wait_event, '') AS waits,
           coalesce(extract(epoch FROM clock_timestamp() - xact_start) * 1000, 0) AS transaction_ms,
           coalesce(extract(epoch FROM clock_timestamp() - query_start) * 1000, 0) AS statement_ms,
           CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) ELSE '{}' END AS blocked_by,
           \"left\"(coalesce(query, ''), 1000) AS query
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND usename <> 'servicedb_monitor'
    ORDER BY xact_start NULLS LAST, pid LIMIT 500";

#[derive(Deserialize, Debug, Clone)]
struct Session {
    pid: i32,
    login: String,
    address: String,
    state: String,
    in_transaction: bool,
    waits: String,
    transaction_ms: f64,
    statement_ms: f64,
    blocked_by: Vec<i32>,
    query: String,
}

/// Prints the sessions.
///
/// # Errors
/// If the statistics cannot be read.
pub async fn run(connection: &Connection, name: &str, pod: Option<String>) -> Result<ExitCode, PluginError> {
    let source = Source::of(connection, name, pod).await?;
    let sessions: Vec<Session> = source.rows(QUERY).await?;
    print!("{}", render(&sessions));
    Ok(ExitCode::SUCCESS)
}

fn render(sessions: &[Session]) -> String {
    let mut text = String::new();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for session in sessions {
        *counts.entry((session.login.as_str(), session.state.as_str())).or_default() += 1;
    }
    let mut table = Table::new(["LOGIN", "STATE", "SESSIONS"]);
    for ((login, state), count) in counts {
        table.row([login.to_owned(), state.to_owned(), count.to_string()]);
    }
    text += &table.render();

    let tree = tree(sessions);
    if !tree.is_empty() {
        text += "\nWaits for locks: each session waits for the one above it\n";
        text += &tree;
    }
    let busy: Vec<_> = sessions.iter().filter(|session| session.in_transaction).collect();
    if !busy.is_empty() {
        text += "\nTransactions, the oldest first\n";
        let mut table =
            Table::new(["PID", "LOGIN", "ADDRESS", "STATE", "OPEN", "STATEMENT SINCE", "WAITS", "STATEMENT"]);
        for session in busy {
            table.row([
                session.pid.to_string(),
                session.login.clone(),
                session.address.clone(),
                session.state.clone(),
                milliseconds(session.transaction_ms),
                milliseconds(session.statement_ms),
                session.waits.clone(),
                short(&session.query),
            ]);
        }
        text += &table.render();
    }
    text
}

/// The sessions that wait for locks below those that they wait for, each once: one that waits for several is below the
/// last of them, since in a queue everybody waits for all before. A deadlock, which the server ends within a second, is
/// shown from its lowest process on.
fn tree(sessions: &[Session]) -> String {
    let of = |pid: i32| sessions.iter().find(|session| session.pid == pid);
    let waiting: BTreeSet<i32> =
        sessions.iter().filter(|session| !session.blocked_by.is_empty()).map(|session| session.pid).collect();
    let holders: BTreeSet<i32> = sessions.iter().flat_map(|session| session.blocked_by.iter().copied()).collect();
    let mut roots: Vec<i32> = holders.difference(&waiting).copied().collect();
    if roots.is_empty() {
        roots.extend(holders.first());
    }
    let (mut text, mut printed) = (String::new(), BTreeSet::new());
    for root in roots {
        branch(root, 0, &mut printed, &of, sessions, &mut text);
    }
    text
}

fn branch<'a>(
    pid: i32,
    depth: usize,
    printed: &mut BTreeSet<i32>,
    of: &impl Fn(i32) -> Option<&'a Session>,
    sessions: &[Session],
    text: &mut String,
) {
    let indent = "  ".repeat(depth + 1);
    let mark = if depth == 0 { "" } else { "└ " };
    let line = match of(pid) {
        Some(session) => format!(
            "{pid} {} {}, open {}: {}",
            session.login,
            session.state,
            milliseconds(session.transaction_ms),
            short(&session.query)
        ),
        // A prepared transaction has the number 0.
        None if pid == 0 => "a prepared transaction".to_owned(),
        None => format!("{pid}, a process of the server"),
    };
    text.push_str(&format!("{indent}{mark}{line}\n"));
    if !printed.insert(pid) {
        return;
    }
    for session in sessions.iter().filter(|session| session.blocked_by.contains(&pid)) {
        // Below the last one that it waits for: the others are printed by then.
        let nearest = session.blocked_by.iter().all(|blocker| printed.contains(blocker));
        if nearest && !printed.contains(&session.pid) {
            branch(session.pid, depth + 1, printed, of, sessions, text);
        }
    }
}

fn short(text: &str) -> String {
    let text = plain(text);
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(pid: i32, state: &str, blocked_by: &[i32]) -> Session {
        Session {
            pid,
            login: "chat_a".into(),
            address: "10.0.0.9".into(),
            state: state.into(),
            in_transaction: state != "idle",
            waits: String::new(),
            transaction_ms: 5000.0,
            statement_ms: 10.0,
            blocked_by: blocked_by.to_vec(),
            query: format!("statement of {pid}"),
        }
    }

    #[test]
    fn who_waits_is_below_whom_it_waits_for() {
        let sessions = [
            session(10, "idle in transaction", &[]),
            session(11, "active", &[10]),
            session(12, "active", &[11, 10]),
            session(13, "idle", &[]),
        ];
        let text = tree(&sessions);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "  10 chat_a idle in transaction, open 5.0 s: statement of 10",
                "    └ 11 chat_a active, open 5.0 s: statement of 11",
                "      └ 12 chat_a active, open 5.0 s: statement of 12",
            ]
        );
        assert!(!render(&sessions).contains("statement of 13"), "an idle session is only counted");
    }

    #[test]
    fn a_session_that_reports_no_activity_is_only_counted() {
        let vault = Session { in_transaction: false, ..session(688, "track_activities is off", &[]) };
        let text = render(&[vault]);
        assert!(text.contains("track_activities is off") && !text.contains("Transactions"), "{text}");
    }

    #[test]
    fn a_queue_in_which_each_waits_for_all_before_has_a_line_for_each() {
        let blocked: Vec<Vec<i32>> = (1..=60).map(|pid| (1..pid).collect()).collect();
        let sessions: Vec<_> = (1..).zip(&blocked).map(|(pid, before)| session(pid, "active", before)).collect();
        assert_eq!(tree(&sessions).lines().count(), 60);
    }

    #[test]
    fn a_circle_and_a_prepared_transaction_end() {
        let circle = [session(1, "active", &[2]), session(2, "active", &[1])];
        assert_eq!(tree(&circle).lines().count(), 2);
        assert!(tree(&[session(1, "active", &[0])]).starts_with("  a prepared transaction\n    └ 1 "));
    }
}
