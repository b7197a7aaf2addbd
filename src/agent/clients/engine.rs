//! The login of Vault's database secrets engine: it may create logins, and make them members of the roles of the clients
//! whose logins are short-lived, and of no others. Its password is set where it is proved (`agent::credentials`). A role
//! that it has created for another purpose is refused.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::memberships::{self, Allowed, Membership};
use crate::agent::ensure::has_role;
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::postgres::ident;

const WHAT: &str = "the login of Vault's database secrets engine";
const ROLE: &str = PostgresNames::ENGINE;
/// The roles of every database, none of which may create roles. They are not refused, whatever somebody has given them: the
/// database would fail.
const OURS: [&str; 11] = [
    ROLE,
    PostgresNames::REPLICATOR,
    PostgresNames::REWINDER,
    PostgresNames::READER,
    PostgresNames::AS_OWNER,
    PostgresNames::MONITOR,
    PostgresNames::QUERIES,
    PostgresNames::AUDIT,
    PostgresNames::MAINTAINER,
    PostgresNames::POOLER,
    PostgresNames::GATEWAY,
];

/// Keeps its memberships as declared; without such a client, a login that is refused and has none. Nothing is written
/// that is so already. The roles of the clients exist before. The role itself stays, as the gateway's. Other roles that may
/// create roles, or that it administers, are refused.
///
/// # Errors
/// If the server refuses.
pub async fn keep(client: &Client, names: &PostgresNames, declared: &[&clients::Client]) -> Result<(), EnsureError> {
    let exists = has_role(client, ROLE).await?;
    if declared.is_empty() {
        return if exists { refuse(client, names).await } else { Ok(()) };
    }
    let mut wanted: BTreeSet<String> = declared.iter().map(|client| names.client(&client.name)).collect();
    // Its members are admitted by `pg_hba.conf`.
    wanted.insert(names.clients());
    let (mut statements, kept) = revocations(&memberships(client).await?, &wanted);
    for role in wanted.difference(&kept) {
        // It passes these roles on, and never has their rights.
        statements += &format!("GRANT {} TO {ROLE} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;", ident(role));
    }
    let strange = strange(client, names).await?;
    statements += &refusals(&strange);
    if statements.is_empty() {
        return Ok(());
    }
    let create = if exists { String::new() } else { format!("CREATE ROLE {ROLE} NOLOGIN;") };
    execute(client, WHAT, &format!("BEGIN; {create} {statements} COMMIT;")).await?;
    end_sessions(client, &strange).await
}

/// The roles that may create roles, and those with a login or a password that Vault's login administers and should not: no
/// other role of a database may create roles, but superusers, so that whoever controls Vault's engine has made them.
async fn strange(client: &Client, names: &PostgresNames) -> Result<Vec<String>, EnsureError> {
    let mut ours = vec![names.owner(), names.app(), names.clients()];
    ours.extend([1, 2].into_iter().flat_map(|generation| [names.login(generation), names.migrator_login(generation)]));
    ours.extend(OURS.map(str::to_owned));
    let query = "SELECT r.rolname::text FROM pg_catalog.pg_authid r
                 WHERE NOT r.rolsuper AND NOT pg_catalog.starts_with(r.rolname::text, 'pg_')
                   AND r.rolname::text <> ALL ($1)
                   AND (r.rolcreaterole
                        OR (r.rolcanlogin OR r.rolpassword IS NOT NULL)
                           AND NOT pg_catalog.starts_with(r.rolname::text, $3::text)
                           AND EXISTS (SELECT FROM pg_catalog.pg_auth_members m
                                       JOIN pg_catalog.pg_roles e ON e.oid = m.member
                                       WHERE m.roleid = r.oid AND m.admin_option AND e.rolname = $2))
                 ORDER BY r.rolname";
    let rows = client.query(query, &[&ours, &ROLE, &PostgresNames::SHORT_LIVED]).await;
    rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect()).map_err(failed)
}

/// The statements that refuse roles.
fn refusals(roles: &[String]) -> String {
    roles.iter().map(|role| format!("ALTER ROLE {} NOLOGIN NOCREATEROLE PASSWORD NULL;", ident(role))).collect()
}

/// Ends the sessions of roles that are refused.
async fn end_sessions(client: &Client, roles: &[String]) -> Result<(), EnsureError> {
    if roles.is_empty() {
        return Ok(());
    }
    for role in roles {
        tracing::warn!(role, "a role that only Vault's login can have made is refused");
    }
    let query =
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename::text = ANY ($1)";
    client.query(query, &[&roles]).await.map(drop).map_err(failed)
}

/// The statements that revoke what is not wanted, and the roles whose membership is as it has to be. PostgreSQL makes whoever
/// creates a role a member of it, with the right to remove it.
fn revocations(found: &[Membership], wanted: &BTreeSet<String>) -> (String, BTreeSet<String>) {
    let is_its_own = |role: &str| PostgresNames::client_of_short_lived(role).is_some();
    memberships::revocations(found, ROLE, |role| is_its_own(role) || wanted.contains(role))
}

async fn memberships(client: &Client) -> Result<Vec<Membership>, EnsureError> {
    memberships::read(client, ROLE, Allowed::Admin).await.map_err(failed)
}

/// Refuses further logins, takes the memberships back, and ends the sessions. The logins that it made are removed before.
async fn refuse(client: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    let (revoke, _) = revocations(&memberships(client).await?, &BTreeSet::new());
    let query = "SELECT rolcanlogin OR rolcreaterole OR rolpassword IS NOT NULL
                 FROM pg_catalog.pg_authid WHERE rolname = $1";
    let is_open: bool = client.query_one(query, &[&ROLE]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if !is_open && revoke.is_empty() {
        return Ok(());
    }
    let strange = strange(client, names).await?;
    let refusals = refusals(&strange);
    let refuse = format!("BEGIN; ALTER ROLE {ROLE} NOLOGIN NOCREATEROLE PASSWORD NULL; {revoke} {refusals} COMMIT;");
    execute(client, WHAT, &refuse).await?;
    let query = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
    client.query(query, &[&ROLE]).await.map_err(failed)?;
    end_sessions(client, &strange).await?;
    tracing::info!(
        "no client has short-lived logins any more: the login of Vault's database secrets engine is refused"
    );
    Ok(())
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: WHAT.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_of_another_purpose_is_refused_with_its_password() {
        let statements = refusals(&["builder".to_owned(), "a\"b".to_owned()]);
        assert_eq!(
            statements,
            r#"ALTER ROLE "builder" NOLOGIN NOCREATEROLE PASSWORD NULL;ALTER ROLE "a""b" NOLOGIN NOCREATEROLE PASSWORD NULL;"#
        );
        assert_eq!(refusals(&[]), "");
    }

    #[test]
    fn it_keeps_the_roles_that_it_passes_on_and_those_that_it_made_and_no_other() {
        let membership = |role: &str, member: &str, grantor: &str, is_exact| Membership {
            role: role.into(),
            member: member.into(),
            grantor: grantor.into(),
            is_exact,
        };
        let found = [
            membership("shop_c_reader", ROLE, "postgres", true),
            membership("servicedb.reader.k3j29fhs7dk2mxqp", ROLE, "postgres", true),
            membership("servicedb.reader.k3j29fhs7dk2mxqp", ROLE, ROLE, false),
            membership("shop_c_writer", ROLE, "postgres", true),
            membership("shop_clients", ROLE, "postgres", false),
            membership(ROLE, "shop_a", "postgres", true),
        ];
        let wanted = BTreeSet::from(["shop_c_reader".to_owned(), "shop_clients".to_owned()]);
        let (statements, kept) = revocations(&found, &wanted);
        assert_eq!(
            wanted.difference(&kept).collect::<Vec<_>>(),
            ["shop_clients"],
            "it is granted again, as it has to be"
        );
        assert_eq!(statements.matches("REVOKE").count(), 4, "{statements}");
        assert!(statements.contains(r#"REVOKE "shop_c_writer" FROM "servicedb_vault""#), "{statements}");
        assert!(statements.contains(r#"REVOKE "servicedb_vault" FROM "shop_a""#), "{statements}");
        assert!(statements.contains(r#"mxqp" FROM "servicedb_vault" GRANTED BY "servicedb_vault""#), "{statements}");
    }
}
