//! The password of the login of Vault's database secrets engine. It is in this process, in PostgreSQL as a verifier, and
//! in the engine's configuration, which Vault never shows. Vault proves it by a login before it stores the configuration.
//!
//! Two logins take turns: the one that Vault has stays valid until Vault has proved the other. So no request for a
//! short-lived login meets a password that Vault does not have.

use secrecy::SecretString;
use tokio_postgres::Client;

use super::error::CredentialsError;
use super::{Run, authorities, expose};
use crate::agent::ensure::UNLOGGED;
use crate::agent::patroni::rest::Rest;
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients::Engine;
use crate::postgres::{generate_password, literal, scram_verifier};
use crate::vault::{DatabaseConnection, KnownConnection, VaultError};

/// The maximum number of its sessions, of all servers of Vault.
const SESSIONS: i32 = 20;
/// The maximum number of sessions of one server of Vault.
const SESSIONS_OF_ONE: u32 = 4;

/// The settings of its sessions: its statements resolve to nothing but PostgreSQL's own objects, none waits forever, and
/// no verifier is in a log or in the statistics of statements (see [`UNLOGGED`]). Neither `spec.postgres.parameters` nor
/// stopped writes keep services from new logins.
const SETTINGS: [(&str, &str); 19] = [
    ("search_path", "pg_catalog"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("lock_timeout", "5s"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("log_min_messages", "panic"),
    ("log_min_error_statement", "panic"),
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_duration_sample", "-1"),
    ("log_transaction_sample_rate", "0"),
    ("log_duration", "off"),
    ("debug_print_parse", "off"),
    ("track_activities", "off"),
    ("pgaudit.log", "none"),
    ("pg_stat_statements.track", "none"),
];

impl Run<'_> {
    /// Gives the login that Vault does not have a new password, and Vault the connection with it; returns that login. The
    /// functions and both logins exist before.
    ///
    /// # Errors
    /// If a step fails: Vault goes on with the login that it has, and another run sets another password.
    pub async fn connect_engine(&self, engine: &Engine, roles: &[String]) -> Result<&'static str, CredentialsError> {
        let vault = self.records.vault.as_ref();
        let known = vault.read_database_connection(&engine.mount, &engine.connection).await?;
        let login = next(known.as_ref());
        let ca = authorities(self.desired)?;
        let password = generate_password();
        open(self.client, login, &scram_verifier(&password)).await?;
        self.wait_for_replay().await?;
        if !Rest::new()?.status().await?.leads {
            return Err(CredentialsError::NotLeading);
        }
        let host = &self.desired.primary_host;
        let wanted = connection(engine, login, roles, host, password, ca);
        match vault.write_database_connection(&engine.mount, &wanted).await {
            Ok(()) => {}
            // PostgreSQL's refusal may be a 404 here: that a role does not exist.
            Err(VaultError::Unexpected { status: 400 | 404, path, .. }) => {
                return Err(CredentialsError::EngineRefused { path, host: host.clone() });
            }
            Err(error) => return Err(error.into()),
        }
        remember(self.client, self.desired.clients.iter().filter(|client| client.dynamic().is_some())).await?;
        tracing::info!(
            connection = engine.connection,
            login,
            "Vault has proved the login of its database secrets engine"
        );
        Ok(login)
    }

    /// Whether Vault still has the connection as it was written, with this login. If Vault does not answer or refuses, the
    /// connection counts as present: the password that it has stays valid.
    pub async fn has_connection(&self, engine: &Engine, login: &str, roles: &[String]) -> bool {
        match self.records.vault.read_database_connection(&engine.mount, &engine.connection).await {
            Ok(known) => known.is_some_and(|known| is_as_written(&known, login, roles, &self.desired.primary_host)),
            Err(VaultError::MountMissing { .. }) => false,
            Err(error) => {
                tracing::debug!(%error, "the connection of Vault's database secrets engine cannot be read");
                true
            }
        }
    }
}

/// The login that Vault gets next: the one that it does not have.
fn next(known: Option<&KnownConnection>) -> &'static str {
    let [first, second] = PostgresNames::ENGINES;
    if known.is_some_and(|known| known.username == first) { second } else { first }
}

fn is_as_written(known: &KnownConnection, login: &str, roles: &[String], host: &str) -> bool {
    // Their order is no difference.
    let has_roles = known.roles.len() == roles.len() && roles.iter().all(|role| known.roles.contains(role));
    known.url == Engine::url(host) && known.username == login && has_roles
}

fn connection(
    engine: &Engine,
    login: &str,
    roles: &[String],
    host: &str,
    password: SecretString,
    ca: String,
) -> DatabaseConnection {
    let Engine { connection, .. } = engine;
    DatabaseConnection {
        name: connection.clone(),
        url: Engine::url(host),
        username: login.to_owned(),
        password,
        ca,
        roles: roles.to_vec(),
        // The name of Vault's caller is not part of it: anybody may have chosen that one.
        username_template: format!(
            "{{{{ printf \"{}%s.%s\" (replace \"{connection}.\" \"\" .RoleName) (random 16 | lowercase) }}}}",
            PostgresNames::SHORT_LIVED
        ),
        sessions: SESSIONS_OF_ONE,
    }
}

/// Sets the stored verifier of a login, its attributes and settings.
async fn open(client: &Client, login: &str, verifier: &SecretString) -> Result<(), EnsureError> {
    let what = "the login of Vault's database secrets engine";
    execute(client, what, UNLOGGED).await?;
    let settings = SETTINGS.map(|(name, value)| format!("ALTER ROLE {login} SET {name} = {};", literal(value)));
    let statements = format!(
        "ALTER ROLE {login} LOGIN NOCREATEROLE NOINHERIT NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS
             CONNECTION LIMIT {SESSIONS} VALID UNTIL 'infinity' PASSWORD {};
         ALTER ROLE {login} RESET ALL; ALTER ROLE {login} IN DATABASE postgres RESET ALL; {}",
        literal(expose(verifier)),
        settings.concat()
    );
    execute(client, what, &statements).await?;
    execute(client, what, "COMMIT").await
}

/// Records that Vault has made logins possible for these clients, which holds on each later primary: the generation of
/// their rows, which no record has, is 1.
async fn remember<'a>(
    client: &Client,
    clients: impl Iterator<Item = &'a crate::contract::clients::Client>,
) -> Result<(), CredentialsError> {
    let names: Vec<&str> = clients.map(|client| client.name.as_str()).collect();
    let update = "UPDATE servicedb.clients SET generation = 1
                  WHERE client = ANY ($1) AND removed_at IS NULL AND generation = 0";
    client.execute(update, &[&names]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_is_to_a_database_without_tenants_and_names_only_roles_in_logins() {
        let engine = Engine { mount: "database".to_owned(), connection: "servicedb.dev.messaging.chat".to_owned() };
        let roles = [engine.role("reader")];
        let (host, password) = ("chat-db.messaging.svc", "p".to_owned().into());
        let connection = connection(&engine, "servicedb_vault2", &roles, host, password, "pem".to_owned());
        assert_eq!(connection.username, "servicedb_vault2");
        assert_eq!(
            connection.url,
            "postgresql://{{username}}:{{password}}@chat-db.messaging.svc:5432/postgres?sslmode=verify-full&connect_timeout=5"
        );
        assert_eq!(
            connection.username_template,
            r#"{{ printf "servicedb.%s.%s" (replace "servicedb.dev.messaging.chat." "" .RoleName) (random 16 | lowercase) }}"#
        );
        assert_eq!(connection.roles, ["servicedb.dev.messaging.chat.reader"]);
    }

    #[test]
    fn a_connection_that_another_writer_changed_is_not_the_written_one() {
        let roles = ["c.a".to_owned(), "c.b".to_owned()];
        let known = || KnownConnection {
            url: Engine::url("h"),
            username: "servicedb_vault2".to_owned(),
            roles: vec!["c.b".to_owned(), "c.a".to_owned()],
        };
        let is_as_written = |known: KnownConnection| is_as_written(&known, "servicedb_vault2", &roles, "h");
        assert!(is_as_written(known()));
        assert!(!is_as_written(KnownConnection { url: Engine::url("other"), ..known() }));
        assert!(!is_as_written(KnownConnection { username: "postgres".to_owned(), ..known() }));
        assert!(
            !is_as_written(KnownConnection { username: "servicedb_vault".to_owned(), ..known() }),
            "the former one"
        );
        assert!(!is_as_written(KnownConnection { roles: vec!["*".to_owned(), "c.a".to_owned()], ..known() }));
    }

    #[test]
    fn the_login_that_vault_has_is_never_the_next_one() {
        let known = |username: &str| KnownConnection { username: username.to_owned(), ..KnownConnection::default() };
        assert_eq!(next(None), "servicedb_vault");
        assert_eq!(next(Some(&known("servicedb_vault"))), "servicedb_vault2");
        assert_eq!(next(Some(&known("servicedb_vault2"))), "servicedb_vault");
        assert_eq!(next(Some(&known("postgres"))), "servicedb_vault", "somebody changed it");
    }

    /// What the transaction that sets its own password keeps out of the log, its sessions keep out, too.
    #[test]
    fn its_statements_are_in_no_log() {
        for setting in
            ["log_min_messages", "log_statement", "log_min_error_statement", "track_activities", "pgaudit.log"]
        {
            assert!(UNLOGGED.contains(setting) && SETTINGS.iter().any(|(name, _)| *name == setting), "{setting}");
        }
    }
}
