//! PostgreSQL's settings as files: written for the first start, and checked before a change.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::environment::Environment;
use super::memory;
use super::patroni::config;
use crate::api::names::Names;
use crate::contract;
use crate::contract::desired::Desired;
use crate::contract::memory::Bound;
use crate::contract::patroni::parameters;
use crate::contract::pod::{PGDATA, PGDATA_NEW, POSTGRES_PORT, RUN_DIR};
use crate::contract::setting::MB;
use crate::postgres::servers;

/// PostgreSQL computes no runtime setting without it.
const CONTROL_FILE: &str = "global/pg_control";
/// The file that initdb wrote, under Patroni's name for it.
const BASE: &str = "postgresql.base.conf";

/// Writes the settings as Patroni writes them: it then finds nothing to change, and a setting that the
/// spec drops later does not remain.
///
/// # Errors
/// If they cannot be written.
pub fn write_first(environment: &Environment, desired: &Desired) -> std::io::Result<()> {
    let folder = Path::new(PGDATA_NEW);
    std::fs::rename(folder.join("postgresql.conf"), folder.join(BASE))?;
    let base = std::iter::once(format!("include '{BASE}'"));
    let lines: Vec<_> = base.chain(lines(&environment.names, desired, desired.major())).collect();
    std::fs::write(folder.join("postgresql.conf"), lines.join("\n") + "\n")
}

/// The same for a folder that was restored, whose settings were another database's.
///
/// # Errors
/// If they cannot be written.
pub fn write_restored(names: &Names, desired: &Desired, folder: &Path) -> std::io::Result<()> {
    let base = std::iter::once(format!("include '{BASE}'"));
    let major = servers::major_of(folder).unwrap_or_else(|| desired.major());
    let lines: Vec<_> = base.chain(lines(names, desired, major)).collect();
    std::fs::write(folder.join("postgresql.conf"), lines.join("\n") + "\n")
}

/// Checks whether PostgreSQL would start with the desired settings; the inner error is its message. A reload
/// of the running server would not show it: Patroni drops invalid settings, and reports them only in its log.
///
/// # Errors
/// If the check cannot be made.
pub async fn check_change(environment: &Environment, desired: &Desired) -> std::io::Result<Result<(), String>> {
    let folder = Path::new(RUN_DIR).join("settings");
    std::fs::create_dir_all(&folder)?;
    let lines: Vec<_> = lines(&environment.names, desired, config::major(desired)).collect();
    std::fs::write(folder.join("postgresql.conf"), lines.join("\n") + "\n")?;
    // A folder that is enough of a data directory for this check; a server may run in the real one.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
    std::fs::create_dir_all(folder.join("global"))?;
    for file in ["PG_VERSION", CONTROL_FILE] {
        // For an instance without data the check is less complete.
        if let Err(error) = std::fs::copy(Path::new(PGDATA).join(file), folder.join(file)) {
            tracing::debug!(%error, file, "the settings are checked without a data directory");
        }
    }
    check(&folder, desired).await
}

/// Checks the settings in a folder as PostgreSQL does when it starts.
///
/// # Errors
/// If `postgres` cannot be run.
pub async fn check(folder: &Path, desired: &Desired) -> std::io::Result<Result<(), String>> {
    // The memory of the spec may not be this pod's yet.
    check_within(folder, desired, memory::bound()).await
}

/// The same with the memory of the pod in which the server will run, beside that of the spec.
///
/// # Errors
/// If `postgres` cannot be run.
pub async fn check_within(
    folder: &Path,
    desired: &Desired,
    of_pod: Option<Bound>,
) -> std::io::Result<Result<(), String>> {
    if desired.parameters.is_empty() {
        return Ok(Ok(()));
    }
    let refused = |problem| format!("PostgreSQL does not accept spec.postgres.parameters: {problem}");
    // Reads all settings and prints one, before it reads any data.
    let server = servers::program(servers::major_of(folder).unwrap_or_else(|| desired.major()), "postgres");
    if let Err(problem) = print(&server, folder, "max_connections").await? {
        return Ok(Err(refused(problem)));
    }
    if !folder.join(CONTROL_FILE).exists() {
        return Ok(Ok(()));
    }
    // Computes it from all settings, and allocates nothing.
    let megabytes = match print(&server, folder, "shared_memory_size").await? {
        Ok(printed) => printed.trim().parse::<u64>().unwrap_or_default(),
        Err(problem) => return Ok(Err(refused(problem))),
    };
    let bounds = [desired.memory.bound(), of_pod];
    let memory = |bound| contract::memory::check(&desired.parameters, megabytes.saturating_mul(MB), bound);
    let wal = |volume| contract::wal::check(&desired.parameters, volume);
    let checked = bounds.into_iter().flatten().try_for_each(memory);
    Ok(checked.and_then(|()| desired.volume_bytes.map_or(Ok(()), wal)))
}

/// The value of a setting with the files of a folder; the inner error is the message of `postgres`.
async fn print(server: &Path, folder: &Path, setting: &str) -> std::io::Result<Result<String, String>> {
    let mut command = Command::new(server);
    command.arg("-D").arg(folder).args(["-C", setting]);
    run(&mut command).await
}

fn lines(names: &Names, desired: &Desired, major: u16) -> impl Iterator<Item = String> {
    let mut settings = parameters(desired);
    // Patroni sets these on the command line.
    settings.insert("cluster_name".to_owned(), names.base().into());
    settings.insert("listen_addresses".to_owned(), "*".into());
    settings.insert("port".to_owned(), POSTGRES_PORT.to_string().into());
    settings.entry("wal_keep_size").or_insert("128MB".into());
    settings
        .extend(config::own_settings(desired, major).into_iter().map(|(name, value)| (name.to_owned(), value.into())));
    let line = |(name, value): (String, serde_json::Value)| {
        let value = value.as_str().unwrap_or_default().replace('\\', "\\\\").replace('\'', "''");
        format!("{name} = '{value}'")
    };
    settings.into_iter().map(line)
}

/// Runs a program to its end; the inner error is its message if it failed.
///
/// # Errors
/// If it cannot be run.
pub async fn succeed(command: &mut Command) -> std::io::Result<Result<(), String>> {
    Ok(run(command).await?.map(|_| ()))
}

/// The same, with its output.
async fn run(command: &mut Command) -> std::io::Result<Result<String, String>> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    Ok(if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(message_of(&String::from_utf8_lossy(&output.stderr)))
    })
}

/// The message in a program's output, short enough for a status.
fn message_of(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(message_of_line).filter(|line| !line.is_empty()).collect();
    // A line of the log names the wrong setting; the error after it only states that there is one.
    let marks = ["error:", "invalid value for parameter", "unrecognized configuration parameter"];
    let mut relevant: Vec<_> =
        lines.iter().copied().filter(|line| marks.iter().any(|mark| line.contains(mark))).collect();
    relevant.dedup();
    let text = if relevant.is_empty() {
        lines.last().copied().unwrap_or("it printed no message").to_owned()
    } else {
        relevant.join("; ")
    };
    text.chars().take(600).collect()
}

/// A line of the log without its time and process, which differ each time, and without the
/// file, which does not help the reader.
fn message_of_line(line: &str) -> &str {
    let message = ["LOG:  ", "FATAL:  ", "ERROR:  "].iter().find_map(|level| Some(line.split_once(level)?.1));
    let message = message.unwrap_or(line).trim();
    message.split_once(" in file \"").map_or(message, |(message, _)| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_setting_is_reported_with_postgres_message() {
        let output = "performing post-bootstrap initialization ... \n\
                    2026-01-01 FATAL:  invalid value for parameter \"work_mem\": \"much\"\nchild process exited";
        assert_eq!(message_of(output), "invalid value for parameter \"work_mem\": \"much\"");
        let output = "2026-11-21 14:23:49.359 GMT [55] LOG:  unrecognized configuration parameter \"nonsense\" in file \
                    \"/data/postgresql.conf\" line 18\n\
                    2026-11-21 14:23:49.359 GMT [55] FATAL:  configuration file \"/data/postgresql.conf\" contains errors";
        assert_eq!(message_of(output), "unrecognized configuration parameter \"nonsense\"");
        assert_eq!(message_of(""), "it printed no message");
    }

    #[test]
    fn a_setting_cannot_leave_its_quotes() {
        let names = Names::new("messaging", "chat");
        let desired =
            Desired { parameters: [("search_path".to_owned(), r"a'\b".to_owned())].into(), ..Desired::sample() };
        let lines: Vec<_> = lines(&names, &desired, 17).collect();
        assert!(lines.contains(&r"search_path = 'a''\\b, servicedb_extensions'".to_owned()), "{lines:?}");
        assert!(lines.contains(&"cluster_name = 'chat-db'".to_owned()));
    }
}
