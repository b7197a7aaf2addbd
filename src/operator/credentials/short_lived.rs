//! The role of Vault's database secrets engine for a client with short-lived logins: the statements that make, renew and
//! remove a login. Each calls a function, which the leader's agent keeps, and which makes no other logins
//! (`agent::clients::engine`).

use std::time::Duration;

use crate::api::names::{PostgresNames, VaultNames};
use crate::api::{ClientSpec, DynamicSpec};
use crate::postgres::literal;
use crate::vault::DatabaseRole;

/// How much longer than a login the token may live that asked for it: the login may be asked for some time after it.
const TOKEN_LEEWAY: Duration = Duration::from_secs(600);

/// The role of a client. The functions know its rights and its limits, which therefore change without Vault.
pub fn role(vault: &VaultNames, client: &ClientSpec, lifetimes: DynamicSpec) -> DatabaseRole {
    let (make, renew, remove) = (PostgresNames::MAKE_LOGIN, PostgresNames::RENEW_LOGIN, PostgresNames::REMOVE_LOGIN);
    let of = literal(client.name());
    DatabaseRole {
        name: vault.engine_role(client.name()),
        connection: vault.engine_connection(),
        creation: vec![format!("SELECT {make}({of}, '{{{{name}}}}', '{{{{password}}}}', '{{{{expiration}}}}')")],
        renewal: vec![format!("SELECT {renew}({of}, '{{{{name}}}}', '{{{{expiration}}}}')")],
        revocation: vec![format!("SELECT {remove}('{{{{name}}}}')")],
        ttl: seconds(lifetimes.ttl_seconds),
        max_ttl: seconds(lifetimes.max_ttl_seconds),
    }
}

/// The lifetime of a token that a client gets logins with, and the longest with renewals. Vault ends a login with the
/// token that asked for it, so whoever renews a login renews the token as well.
pub fn token_lifetimes(lifetimes: DynamicSpec) -> (Duration, Duration) {
    (seconds(lifetimes.ttl_seconds) + TOKEN_LEEWAY, seconds(lifetimes.max_ttl_seconds) + TOKEN_LEEWAY)
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
        let lifetimes = client.dynamic().expect("lifetimes");
        role(&Names::new("messaging", "chat").vault("dev"), &client, lifetimes)
    }

    #[test]
    fn vault_calls_functions_and_makes_no_role_itself() {
        let role = of("{serviceAccountName: mail-bot, access: {mode: ReadOnly, dynamic: {}}}");
        let make = "SELECT servicedb.make_login('mail-bot', '{{name}}', '{{password}}', '{{expiration}}')";
        assert_eq!(role.creation, [make]);
        assert_eq!(role.renewal, ["SELECT servicedb.renew_login('mail-bot', '{{name}}', '{{expiration}}')"]);
        assert_eq!(role.revocation, ["SELECT servicedb.remove_login('{{name}}')"]);
        assert_eq!((role.ttl, role.max_ttl), (Duration::from_secs(3600), Duration::from_secs(86_400)));
        assert_eq!(role.name, "servicedb.dev.messaging.chat.mail-bot");
        assert_eq!(role.connection, "servicedb.dev.messaging.chat");
    }

    #[test]
    fn changed_limits_are_no_change_in_vault() {
        let limits = "connectionLimit: 3, statementTimeoutSeconds: 20";
        let dynamic = "access: {mode: ReadOnly, dynamic: {ttlSeconds: 60, maxTtlSeconds: 120}}";
        let limited = of(&format!("{{serviceAccountName: bot, {limits}, {dynamic}}}"));
        assert_eq!(limited, of(&format!("{{serviceAccountName: bot, {dynamic}}}")));
        assert_eq!(limited.ttl, Duration::from_secs(60));
    }

    /// Vault splits a statement at its semicolons, and takes one with the word END for a block.
    #[test]
    fn each_statement_is_one() {
        let role = of("{serviceAccountName: bot, access: {mode: ReadOnly, dynamic: {}}}");
        for statement in role.creation.iter().chain(&role.renewal).chain(&role.revocation) {
            assert!(!statement.contains(';') && !statement.contains("END"), "{statement}");
            assert!(statement.contains("'{{name}}'") && !statement.contains('\n'), "{statement}");
        }
    }

    #[test]
    fn a_token_outlives_the_login_that_it_asks_for_and_not_by_much() {
        let (ttl, longest) = token_lifetimes(DynamicSpec { ttl_seconds: 60, max_ttl_seconds: 2_592_000 });
        assert_eq!((ttl.as_secs(), longest.as_secs()), (660, 2_592_600));
        assert!(longest < Duration::from_secs(768 * 3600), "Vault's own maximum");
    }
}
