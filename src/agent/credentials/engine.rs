//! The password of the login of Vault's database secrets engine. It is in this process, in PostgreSQL as a verifier, and
//! in the engine's configuration, which Vault never shows. Vault proves it by a login before it stores the configuration.

use secrecy::SecretString;
use tokio_postgres::Client;

use super::error::CredentialsError;
use super::{Run, authorities, expose};
use crate::agent::ensure::{UNLOGGED, has_role};
use crate::agent::patroni::rest::Rest;
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients::Engine;
use crate::postgres::{generate_password, literal, scram_verifier};
use crate::vault::{DatabaseConnection, KnownConnection, VaultError};

const ROLE: &str = PostgresNames::ENGINE;
/// The maximum number of its sessions, of all servers of Vault.
const SESSIONS: i32 = 20;
/// The maximum number of sessions of one server of Vault.
const SESSIONS_OF_ONE: u32 = 4;

/// The settings of its sessions: its statements resolve to nothing but PostgreSQL's own objects, none waits forever, it
/// gets no rights of the roles that it creates, and no verifier is in a log (see [`UNLOGGED`]).
const SETTINGS: [(&str, &str); 16] = [
    ("search_path", "pg_catalog"),
    ("createrole_self_grant", ""),
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
    ("pg_stat_statements.track_utility", "off"),
];

impl Run<'_> {
    /// Gives the login a new password, and Vault the connection with it.
    ///
    /// # Errors
    /// If a step fails; another run sets another password.
    pub async fn connect_engine(&self, engine: &Engine, roles: &[String]) -> Result<(), CredentialsError> {
        let vault = self.records.vault.as_ref();
        // While Vault is unavailable, the password that it has stays valid.
        vault.health().await?;
        let ca = authorities(self.desired)?;
        let password = generate_password();
        set_password(self.client, &scram_verifier(&password)).await?;
        self.wait_for_replay().await?;
        if !Rest::new()?.status().await?.leads {
            return Err(CredentialsError::NotLeading);
        }
        let host = &self.desired.primary_host;
        match vault.write_database_connection(&engine.mount, &connection(engine, roles, host, password, ca)).await {
            Ok(()) => {}
            // PostgreSQL's refusal may be a 404 here: that a role does not exist.
            Err(VaultError::Unexpected { status: 400 | 404, path, .. }) => {
                return Err(CredentialsError::EngineRefused { path, host: host.clone() });
            }
            Err(error) => return Err(error.into()),
        }
        remember(self.client, self.desired.clients.iter().filter(|client| client.dynamic().is_some())).await?;
        tracing::info!(connection = engine.connection, "Vault has proved the login of its database secrets engine");
        Ok(())
    }

    /// Whether Vault still has the connection as it was written. If Vault does not answer or refuses, the connection counts
    /// as present: the password that it has stays valid.
    pub async fn has_connection(&self, engine: &Engine, roles: &[String]) -> bool {
        match self.records.vault.read_database_connection(&engine.mount, &engine.connection).await {
            Ok(known) => known.is_some_and(|known| is_as_written(&known, roles, &self.desired.primary_host)),
            Err(VaultError::MountMissing { .. }) => false,
            Err(error) => {
                tracing::debug!(%error, "the connection of Vault's database secrets engine cannot be read");
                true
            }
        }
    }
}

fn is_as_written(known: &KnownConnection, roles: &[String], host: &str) -> bool {
    // Their order is no difference.
    let has_roles = known.roles.len() == roles.len() && roles.iter().all(|role| known.roles.contains(role));
    known.url == Engine::url(host) && known.username == ROLE && has_roles
}

fn connection(engine: &Engine, roles: &[String], host: &str, password: SecretString, ca: String) -> DatabaseConnection {
    let Engine { connection, .. } = engine;
    DatabaseConnection {
        name: connection.clone(),
        url: Engine::url(host),
        username: ROLE.to_owned(),
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

/// Sets the stored verifier of the login, its attributes and settings, and creates it if it is missing.
async fn set_password(client: &Client, verifier: &SecretString) -> Result<(), EnsureError> {
    let what = "the login of Vault's database secrets engine";
    execute(client, what, UNLOGGED).await?;
    let create = if has_role(client, ROLE).await? { String::new() } else { format!("CREATE ROLE {ROLE} NOLOGIN;") };
    let settings = SETTINGS.map(|(name, value)| format!("ALTER ROLE {ROLE} SET {name} = {};", literal(value)));
    let statements = format!(
        "{create}
         ALTER ROLE {ROLE} LOGIN CREATEROLE NOINHERIT NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS
             CONNECTION LIMIT {SESSIONS} VALID UNTIL 'infinity' PASSWORD {};
         ALTER ROLE {ROLE} RESET ALL; ALTER ROLE {ROLE} IN DATABASE postgres RESET ALL;
         GRANT CONNECT ON DATABASE postgres TO {ROLE}; {}",
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
        let connection = connection(&engine, &roles, "chat-db.messaging.svc", "p".to_owned().into(), "pem".to_owned());
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
            username: ROLE.to_owned(),
            roles: vec!["c.b".to_owned(), "c.a".to_owned()],
        };
        let is_as_written = |known: KnownConnection| is_as_written(&known, &roles, "h");
        assert!(is_as_written(known()));
        assert!(!is_as_written(KnownConnection { url: Engine::url("other"), ..known() }));
        assert!(!is_as_written(KnownConnection { username: "postgres".to_owned(), ..known() }));
        assert!(!is_as_written(KnownConnection { roles: vec!["*".to_owned(), "c.a".to_owned()], ..known() }));
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
