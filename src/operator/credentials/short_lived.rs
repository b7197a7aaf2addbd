//! The role of Vault's database secrets engine for a client with short-lived logins: the statements that make, renew and
//! remove a login, which Vault runs as `servicedb_vault`.

use std::time::Duration;

use crate::api::names::{PostgresNames, VaultNames};
use crate::api::{ClientSpec, DynamicSpec};
use crate::postgres::{ident, literal};
use crate::vault::DatabaseRole;

/// The role of a client. Each login has the memberships and the settings of a login with a record
/// (`agent::ensure::login`), and acts as the client's role from the start. The right to connect is the client's role's.
pub fn role(
    names: &PostgresNames,
    vault: &VaultNames,
    client: &ClientSpec,
    DynamicSpec { ttl_seconds, max_ttl_seconds }: DynamicSpec,
) -> DatabaseRole {
    let role = names.client(client.name());
    let mut creation = vec![
        format!(
            "CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' \
             CONNECTION LIMIT {}",
            client.connection_limit.unwrap_or(-1)
        ),
        format!("GRANT {} TO \"{{{{name}}}}\" WITH INHERIT TRUE, SET TRUE", ident(&role)),
        format!("GRANT {} TO \"{{{{name}}}}\" WITH INHERIT FALSE, SET FALSE", ident(&names.clients())),
        format!("ALTER ROLE \"{{{{name}}}}\" SET role = {}", literal(&role)),
    ];
    if let Some(seconds) = client.statement_timeout_seconds {
        creation.push(format!("ALTER ROLE \"{{{{name}}}}\" SET statement_timeout = '{seconds}s'"));
    }
    DatabaseRole {
        name: vault.engine_role(client.name()),
        connection: vault.engine_connection(),
        creation,
        renewal: vec!["ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'".to_owned()],
        // The agents end the sessions of roles that are gone, on all instances.
        revocation: vec!["DROP ROLE IF EXISTS \"{{name}}\"".to_owned()],
        ttl: seconds(ttl_seconds),
        max_ttl: seconds(max_ttl_seconds),
    }
}

/// The lifetime of a token that a client gets logins with. Vault ends a login with the token that asked for it.
pub fn token_ttl(lifetimes: DynamicSpec) -> Duration {
    seconds(lifetimes.max_ttl_seconds)
}

fn seconds(declared: i64) -> Duration {
    Duration::from_secs(u64::try_from(declared).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    fn of(client: &str) -> DatabaseRole {
        let client: ClientSpec = serde_yaml::from_str(client).expect("a client");
        let names = Names::new("messaging", "chat");
        let lifetimes = client.dynamic().expect("lifetimes");
        role(&names.postgres("chat_db"), &names.vault("dev"), &client, lifetimes)
    }

    #[test]
    fn a_login_acts_as_its_clients_role_and_is_admitted() {
        let role = of("{serviceAccountName: mail-bot, access: {mode: ReadOnly, dynamic: {}}}");
        assert_eq!(
            role.creation,
            [
                r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT -1"#,
                r#"GRANT "chat_db_c_mail_bot" TO "{{name}}" WITH INHERIT TRUE, SET TRUE"#,
                r#"GRANT "chat_db_clients" TO "{{name}}" WITH INHERIT FALSE, SET FALSE"#,
                r#"ALTER ROLE "{{name}}" SET role = 'chat_db_c_mail_bot'"#,
            ]
        );
        assert_eq!((role.ttl, role.max_ttl), (Duration::from_secs(3600), Duration::from_secs(86_400)));
        assert_eq!(role.name, "servicedb.dev.messaging.chat.mail-bot");
        assert_eq!(role.connection, "servicedb.dev.messaging.chat");
    }

    #[test]
    fn the_limits_of_the_client_are_those_of_each_login() {
        let role = of("{serviceAccountName: bot, connectionLimit: 3, statementTimeoutSeconds: 20, \
                       access: {mode: ReadOnly, dynamic: {ttlSeconds: 60, maxTtlSeconds: 120}}}");
        assert!(role.creation[0].ends_with("CONNECTION LIMIT 3"), "{role:?}");
        assert_eq!(role.creation[4], r#"ALTER ROLE "{{name}}" SET statement_timeout = '20s'"#);
        assert_eq!(role.ttl, Duration::from_secs(60));
    }

    /// Vault splits a statement at its semicolons, and takes one with the word END for a block.
    #[test]
    fn each_statement_is_one() {
        let role = of("{serviceAccountName: bot, statementTimeoutSeconds: 20, access: {mode: ReadOnly, dynamic: {}}}");
        for statement in role.creation.iter().chain(&role.renewal).chain(&role.revocation) {
            assert!(!statement.contains(';') && !statement.contains("END"), "{statement}");
            assert!(statement.contains("\"{{name}}\""), "{statement}");
        }
    }
}
