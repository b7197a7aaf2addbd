//! `kubectl servicedb restore-point`: names the present state, as a target of a later restore.

use std::ffi::OsString;
use std::process::ExitCode;

use super::args::Connection;
use super::connection::{self, PluginError};
use super::psql::{self, Login};

/// The longest name that PostgreSQL keeps.
const LONGEST: usize = 63;

/// Reads a name of a state: it is part of a statement, and of the specs of restores.
///
/// # Errors
/// What a name has.
pub fn word(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > LONGEST || !text.chars().all(allowed) {
        return Err(format!("a name has 1 to {LONGEST} letters, digits, '.', '_' and '-'"));
    }
    Ok(text.to_owned())
}

/// The statement that names the state, and says what cannot be known: PostgreSQL has no list of these names, and they
/// are in WAL alone.
fn statement((namespace, name): (&str, &str), word: &str) -> String {
    format!(
        "SELECT pg_catalog.concat('{word} is the state at the WAL position ', lsn, pg_catalog.chr(10), 'No list of names \
         exists: if an earlier state has the name {word} too, --point restores that one. In that case: kubectl servicedb \
         restore {name} -n {namespace} --lsn ', lsn) FROM pg_catalog.pg_create_restore_point('{word}') AS named(lsn)"
    )
}

/// Names the present state, and ends the segment of WAL, so that it is archived at once.
///
/// # Errors
/// If there is no primary to go to, or kubectl cannot be run.
pub async fn run(connection: &Connection, name: &str, word: &str) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&client, &namespace, name).await?;
    let statement = statement((&namespace, name), word);
    let switch = "DO $$ BEGIN PERFORM pg_catalog.pg_switch_wal(); END $$";
    let arguments = ["-qAt", "-v", "ON_ERROR_STOP=1", "-c", &statement, "-c", switch].map(OsString::from);
    let login = Login::Superuser;
    let mut command = psql::command(connection, &client, &namespace, &resource, login, false, &arguments).await?;
    psql::end_with(&mut command).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_named_once_and_its_position_told_twice() {
        let statement = statement(("messaging", "chat"), "before");
        assert_eq!(statement.matches("pg_create_restore_point('before')").count(), 1, "{statement}");
        assert!(statement.contains("'before is the state at the WAL position ', lsn"), "{statement}");
        assert!(statement.contains("restore chat -n messaging --lsn ', lsn"), "{statement}");
    }

    #[test]
    fn a_name_is_no_part_of_a_statement() {
        assert_eq!(word("before-1.2_migration").as_deref(), Ok("before-1.2_migration"));
        for text in ["", "a'b", "a b", "a;b", "\u{fc}", &"x".repeat(64)] {
            assert!(word(text).is_err(), "{text}");
        }
    }
}
