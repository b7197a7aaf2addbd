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
        revocation: vec![revocation(&names.clients())],
        ttl: seconds(ttl_seconds),
        max_ttl: seconds(max_ttl_seconds),
    }
}

/// The statement that removes a login, as one block: its sessions on the primary end first, since one with an open change
/// of its own role would keep it. For that alone Vault's login has the login's rights, and only within this transaction. A
/// login on which something depends is refused, and the leader's agent removes it. The agents end the sessions of roles
/// that are gone on all instances.
fn revocation(clients: &str) -> String {
    let (vault, clients) = (PostgresNames::ENGINE, ident(clients));
    [
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{{name}}') THEN",
        &format!("GRANT \"{{{{name}}}}\" TO {vault} WITH INHERIT TRUE, SET FALSE;"),
        "PERFORM pg_catalog.pg_terminate_backend(pid, 2000) FROM pg_catalog.pg_stat_activity",
        "WHERE usename = '{{name}}';",
        &format!("REVOKE \"{{{{name}}}}\" FROM {vault} GRANTED BY {vault};"),
        &format!("REVOKE {clients} FROM \"{{{{name}}}}\" GRANTED BY {vault};"),
        "BEGIN DROP ROLE \"{{name}}\"; EXCEPTION WHEN dependent_objects_still_exist THEN",
        "ALTER ROLE \"{{name}}\" NOLOGIN PASSWORD NULL; END; END IF; END $$",
    ]
    .join(" ")
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
            let is_block = statement.starts_with("DO $$ BEGIN ") && statement.ends_with(" END $$");
            assert!(is_block || !statement.contains(';') && !statement.contains("END"), "{statement}");
            assert!(statement.contains("\"{{name}}\"") && !statement.contains('\n'), "{statement}");
        }
    }

    #[test]
    fn a_login_is_removed_after_its_sessions_or_refused() {
        let role = of("{serviceAccountName: bot, access: {mode: ReadOnly, dynamic: {}}}");
        let [statement] = role.revocation.as_slice() else { panic!("{role:?}") };
        let place = |part: &str| statement.find(part).unwrap_or_else(|| panic!("{part}: {statement}"));
        let inherits = place(r#"GRANT "{{name}}" TO servicedb_vault WITH INHERIT TRUE, SET FALSE;"#);
        let ends = place("pg_terminate_backend");
        let gives_back = place(r#"REVOKE "{{name}}" FROM servicedb_vault GRANTED BY servicedb_vault;"#);
        let drops = place(r#"DROP ROLE "{{name}}";"#);
        assert!(inherits < ends && ends < gives_back && gives_back < drops, "{statement}");
        assert!(place(r#"REVOKE "chat_db_clients" FROM "{{name}}" GRANTED BY servicedb_vault;"#) < drops);
        assert!(drops < place(r#"ALTER ROLE "{{name}}" NOLOGIN PASSWORD NULL;"#), "{statement}");
    }
}
