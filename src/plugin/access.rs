//! `kubectl servicedb access`: what each client with a login of its own may do with which table, as the database has
//! it, and what differs from the declaration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use super::args::Connection;
use super::connection::{PluginError, connect, read};
use super::psql::{self, Login};
use super::table::plain;
use crate::api::ClientStatus;

/// The longest time that kubectl and psql may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The seconds that the server may take.
const SECONDS: u32 = 20;

/// The output format.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// Columns for a terminal.
    Table,
    /// A table in Markdown.
    Markdown,
}

/// One cell: what a client may do with a table.
#[derive(Deserialize, Debug)]
struct Row {
    role: String,
    relation: String,
    /// Of the whole table, and of columns with their names.
    privileges: Vec<String>,
    /// Commands that a row policy limits.
    limited: Vec<String>,
}

/// Effective rights, those that PUBLIC has included, from catalogs alone: nothing of the tenant is evaluated.
const QUERY: &str = "\
WITH roles AS (SELECT oid, rolname FROM pg_roles WHERE rolname = ANY (string_to_array('{ROLES}', ','))),
relations AS (
    SELECT c.oid, c.relname, n.nspname, c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_'
      AND n.nspname <> ALL (ARRAY['information_schema', 'servicedb', 'servicedb_extensions'])),
cells AS (
    SELECT r.rolname AS role, t.nspname || '.' || t.relname AS relation,
        ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
              WHERE has_table_privilege(r.oid, t.oid, p)) ||
        ARRAY(SELECT p || ' (' || string_agg(a.attname, ', ' ORDER BY a.attnum) || ')'
              FROM pg_attribute a, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p
              WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND NOT has_table_privilege(r.oid, t.oid, p) AND has_column_privilege(r.oid, t.oid, a.attnum, p)
              GROUP BY p ORDER BY p) AS privileges,
        ARRAY(SELECT DISTINCT CASE o.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                            WHEN 'd' THEN 'DELETE' ELSE 'all' END
              FROM pg_policy o WHERE o.polrelid = t.oid AND r.oid = ANY (o.polroles) ORDER BY 1) AS limited
    FROM roles r CROSS JOIN relations t WHERE has_schema_privilege(r.oid, t.nspname, 'USAGE'))
SELECT role, relation, privileges, limited FROM cells WHERE privileges <> ARRAY[]::text[]";

/// Prints the matrix.
///
/// # Errors
/// If the resource or the database cannot be read.
pub async fn run(connection: &Connection, name: &str, output: Matrix) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let clients = resource.status.as_ref().map(|status| status.clients.clone()).unwrap_or_default();
    if clients.is_empty() {
        println!("{name} has no client with a login of its own: all clients share one, with the right to all data");
        return Ok(ExitCode::SUCCESS);
    }
    // Names of roles have lower-case letters, digits and '_' alone; a status is not trusted for that.
    let roles: Vec<&str> = clients.iter().map(|client| client.role.as_str()).filter(|role| is_plain(role)).collect();
    let query = QUERY.replace("{ROLES}", &roles.join(","));
    let statement = format!("SELECT coalesce(json_agg(r), '[]') FROM ({query}) r");
    let arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", &statement].map(Into::into);
    let login = Login::Reader { seconds: SECONDS };
    let mut command = psql::command(connection, &client, &namespace, &resource, login, false, &arguments).await?;
    command.stdin(Stdio::null()).kill_on_drop(true);
    let failed = |problem: &str| PluginError::Query(format!("the rights in {name} cannot be read: {problem}"));
    let answer = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(output) => output.map_err(|source| PluginError::Kubectl { program: psql::program(), source })?,
        Err(_) => return Err(failed("timeout")),
    };
    if !answer.status.success() {
        return Err(failed(&plain(&String::from_utf8_lossy(&answer.stderr))));
    }
    let text = String::from_utf8_lossy(&answer.stdout);
    let rows: Vec<Row> = serde_json::from_str(text.trim()).map_err(|error| failed(&error.to_string()))?;
    let differs = clients.iter().any(|client| client.rights != "Applied");
    print!("{}", render(&clients, &rows, output));
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is_plain(role: &str) -> bool {
    role.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Tables as rows and clients as columns; below it what differs.
fn render(clients: &[ClientStatus], rows: &[Row], output: Matrix) -> String {
    let relations: BTreeSet<&str> = rows.iter().map(|row| row.relation.as_str()).collect();
    let cells: BTreeMap<(&str, &str), String> =
        rows.iter().map(|row| ((row.relation.as_str(), row.role.as_str()), cell(row))).collect();
    let mut lines = vec![
        std::iter::once("table".to_owned()).chain(clients.iter().map(|client| client.name.clone())).collect::<Vec<_>>(),
    ];
    for relation in relations {
        let of =
            |client: &ClientStatus| cells.get(&(relation, client.role.as_str())).cloned().unwrap_or_else(|| "–".into());
        lines.push(std::iter::once(plain(relation)).chain(clients.iter().map(of)).collect());
    }
    let mut text = String::new();
    match output {
        Matrix::Markdown => {
            for (index, line) in lines.iter().enumerate() {
                let escaped: Vec<_> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
                let _ = writeln!(text, "| {} |", escaped.join(" | "));
                if index == 0 {
                    let _ = writeln!(text, "|{}", "---|".repeat(line.len()));
                }
            }
        }
        Matrix::Table => {
            let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
            let widths: Vec<_> = (0..=clients.len()).map(width).collect();
            for line in &lines {
                let padded: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
                let _ = writeln!(text, "  {}", padded.join("   ").trim_end());
            }
        }
    }
    text.push('\n');
    let sessions = |client: &ClientStatus| Some(format!("{} {}", client.name, client.sessions?));
    let sessions: Vec<_> = clients.iter().filter_map(sessions).collect();
    // A document for a team has no momentary numbers.
    if output == Matrix::Table && !sessions.is_empty() {
        let _ = writeln!(text, "sessions, at most five minutes ago: {}", sessions.join(", "));
    }
    for client in clients.iter().filter(|client| client.message.is_some() || client.rights != "Applied") {
        let _ = writeln!(text, "{}: {}", client.name, rights(client));
    }
    if clients.iter().all(|client| client.rights == "Applied") {
        text.push_str("the rights are those that spec.clients declares\n");
    }
    text
}

/// Whether the rights are the declared ones, and what is told of it.
fn rights(client: &ClientStatus) -> String {
    match client.message.as_deref().map(plain).filter(|message| !message.is_empty()) {
        Some(message) => format!("{}: {message}", client.rights),
        None if client.rights == "Unknown" => "not reported yet".to_owned(),
        None => client.rights.clone(),
    }
}

/// The privileges, with `*` where a row policy limits one.
fn cell(row: &Row) -> String {
    let mark = |privilege: &str| {
        let limited = row.limited.iter().any(|command| command == "all" || privilege.starts_with(command.as_str()));
        if limited { format!("{privilege}*") } else { privilege.to_owned() }
    };
    plain(&row.privileges.iter().map(|privilege| mark(privilege)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, rights: &str, message: Option<&str>) -> ClientStatus {
        ClientStatus {
            name: name.into(),
            role: format!("files_db_c_{name}"),
            rights: rights.into(),
            message: message.map(str::to_owned),
            ..ClientStatus::default()
        }
    }

    fn rows() -> Vec<Row> {
        serde_json::from_str(
            r#"[{"role": "files_db_c_picker", "relation": "public.files", "privileges": ["SELECT", "INSERT"], "limited": []},
                {"role": "files_db_c_downloader", "relation": "public.files", "privileges": ["SELECT (file_path, id)"], "limited": ["SELECT"]}]"#,
        )
        .expect("rows")
    }

    #[test]
    fn the_matrix_has_a_column_for_each_client() {
        let clients = [client("picker", "Applied", None), client("downloader", "Applied", None)];
        assert_eq!(
            render(&clients, &rows(), Matrix::Markdown),
            "| table | picker | downloader |\n|---|---|---|\n\
             | public.files | SELECT, INSERT | SELECT (file_path, id)* |\n\n\
             the rights are those that spec.clients declares\n"
        );
    }

    #[test]
    fn sessions_are_for_a_person_and_not_for_a_document() {
        let counted = ClientStatus { sessions: Some(3), ..client("picker", "Applied", None) };
        let clients = [counted, client("downloader", "Applied", None)];
        let told = "sessions, at most five minutes ago: picker 3\n";
        assert!(render(&clients, &rows(), Matrix::Table).contains(told));
        assert!(!render(&clients, &rows(), Matrix::Markdown).contains("sessions"));
    }

    #[test]
    fn what_differs_is_told() {
        let drift = Some("not declared: DELETE on public.files (granted by files_db_owner)");
        let text = render(&[client("picker", "GrantDrift", drift)], &rows(), Matrix::Table);
        assert!(
            text.ends_with("picker: GrantDrift: not declared: DELETE on public.files (granted by files_db_owner)\n"),
            "{text}"
        );
        assert!(!text.contains("are those"), "{text}");
    }

    #[test]
    fn a_new_client_is_not_reported_yet() {
        let text = render(&[client("reports", "Unknown", None)], &[], Matrix::Table);
        assert!(text.ends_with("reports: not reported yet\n"), "{text}");
        let text = render(&[client("reports", "GrantPending", None)], &[], Matrix::Table);
        assert!(text.ends_with("reports: GrantPending\n"), "{text}");
    }

    #[test]
    fn a_role_of_the_status_is_no_statement() {
        assert!(is_plain("files_db_c_picker") && !is_plain("x'); DROP TABLE files; --"));
    }
}
