//! The login of the data gateway: it has no rights of its own, and may become the roles of the clients that call it.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::memberships::{self, Membership};
use crate::agent::as_owner::as_owner;
use crate::agent::ensure::{self, has_role};
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::contract::desired::Gateway;
use crate::postgres::ident;

const WHAT: &str = "the gateway's login";
const ROLE: &str = PostgresNames::GATEWAY;
const LEDGER: &str = PostgresNames::LEDGER_SCHEMA;
/// The records of requests with an idempotency key.
const REQUESTS: &str = "servicedb.gateway_requests";
/// What the gateway does with them.
const OF_REQUESTS: &str = "SELECT, INSERT, UPDATE, DELETE";
/// The table, as `docs/gateway.md` has it for a gateway without the operator.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS servicedb.gateway_requests (
        caller text NOT NULL, key text NOT NULL, attempt uuid NOT NULL, request bytea NOT NULL,
        at timestamptz NOT NULL DEFAULT now(), status smallint, headers text, rows bigint, body bytea,
        PRIMARY KEY (caller, key)
    );
    CREATE INDEX IF NOT EXISTS gateway_requests_at ON servicedb.gateway_requests (at);";

/// Keeps the login as declared; without a gateway, one that cannot log in and has no rights. Nothing is written that is
/// so already.
///
/// The roles of clients exist before. Rights, roles and memberships are catalogs: nothing of the tenant runs. The role
/// itself stays, as the pooler's: what somebody has made it the owner of is not the gateway's to remove.
///
/// # Errors
/// If the server refuses.
pub async fn keep(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    (gateway, clients): (Option<Gateway>, &[clients::Client]),
) -> Result<(), EnsureError> {
    let exists = has_role(client, ROLE).await?;
    let Some(gateway) = gateway else {
        return if exists { refuse(client, socket, names).await } else { Ok(()) };
    };
    let mut wanted: BTreeSet<String> = clients.iter().map(|client| names.client(&client.name)).collect();
    if gateway.shared {
        wanted.insert(names.app());
    }
    let (mut statements, kept) = revocations(&memberships(client).await?, &wanted);
    let loses = !statements.is_empty();
    for role in wanted.difference(&kept) {
        statements += &format!("GRANT {} TO {ROLE} WITH ADMIN FALSE, INHERIT FALSE, SET TRUE;", ident(role));
    }
    if !is_login(client, names).await? {
        // The role without a login first: nobody logs in before it is as it has to be.
        let create = if exists { String::new() } else { format!("CREATE ROLE {ROLE} NOLOGIN;") };
        let database = ident(&names.database);
        execute(
            client,
            WHAT,
            &format!(
                "BEGIN; {create}
                 ALTER ROLE {ROLE} NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
                     CONNECTION LIMIT -1 PASSWORD NULL VALID UNTIL 'infinity';
                 ALTER ROLE {ROLE} RESET ALL; ALTER ROLE {ROLE} IN DATABASE {database} RESET ALL;
                 GRANT CONNECT ON DATABASE {database} TO {ROLE}; COMMIT;"
            ),
        )
        .await?;
        statements += &format!("ALTER ROLE {ROLE} LOGIN;");
    }
    if !statements.is_empty() {
        execute(client, WHAT, &format!("BEGIN; {statements} COMMIT;")).await?;
    }
    // A session that has become a role stays it. The gateway connects again.
    if loses {
        end_sessions(client).await?;
    }
    // What the owner can be in the way of comes last.
    show_ledger(socket, names).await?;
    keep_requests(socket, names).await
}

/// Takes a client's role from the gateway, whoever granted it, and ends the sessions that have become it: such a session
/// stays it. [`keep`] grants the role again where it is to be.
///
/// # Errors
/// If the server refuses.
pub async fn leave(client: &Client, role: &str) -> Result<(), EnsureError> {
    let query = "SELECT b.rolname::text
                 FROM pg_catalog.pg_auth_members m
                 JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                 JOIN pg_catalog.pg_roles r ON r.oid = m.member
                 JOIN pg_catalog.pg_roles b ON b.oid = m.grantor
                 WHERE g.rolname = $1 AND r.rolname = $2";
    let rows = client.query(query, &[&role, &ROLE]).await.map_err(failed)?;
    let mut statements = String::new();
    for row in &rows {
        let grantor: String = row.try_get(0).map_err(failed)?;
        statements += &format!("REVOKE {} FROM {ROLE} GRANTED BY {} CASCADE;", ident(role), ident(&grantor));
    }
    if !statements.is_empty() {
        execute(client, WHAT, &format!("BEGIN; {statements} COMMIT;")).await?;
    }
    // Also where it was revoked before: what ended then may have failed.
    // Each of the gateway's sessions has the name of the role that it acts as.
    let query = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                 WHERE usename = $1 AND application_name = $2";
    client.query(query, &[&ROLE, &role]).await.map(drop).map_err(failed)
}

/// The statements that revoke what is not wanted, and the roles whose membership is as it has to be.
fn revocations(found: &[Membership], wanted: &BTreeSet<String>) -> (String, BTreeSet<String>) {
    memberships::revocations(found, ROLE, |role| wanted.contains(role))
}

async fn memberships(client: &Client) -> Result<Vec<Membership>, EnsureError> {
    memberships::read(client, ROLE).await.map_err(failed)
}

/// Whether the login is as it has to be, in the server: without a password, an attribute, a limit or a setting.
async fn is_login(client: &Client, names: &PostgresNames) -> Result<bool, EnsureError> {
    let query = "SELECT r.rolcanlogin AND NOT (r.rolinherit OR r.rolsuper OR r.rolcreatedb OR r.rolcreaterole
                            OR r.rolreplication OR r.rolbypassrls OR r.rolpassword IS NOT NULL)
                        AND r.rolconnlimit = -1 AND COALESCE(r.rolvaliduntil = 'infinity', true)
                        AND pg_catalog.has_database_privilege(r.oid, $2, 'CONNECT')
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid)
                 FROM pg_catalog.pg_authid r WHERE r.rolname = $1";
    let row = client.query_opt(query, &[&ROLE, &names.database]).await.map_err(failed)?;
    row.map_or(Ok(false), |row| row.try_get(0).map_err(failed))
}

/// Lets the gateway show the ledger of the migrations.
async fn show_ledger(socket: &str, names: &PostgresNames) -> Result<(), EnsureError> {
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let query = "SELECT pg_catalog.has_schema_privilege($1, $2, 'USAGE') AND EXISTS (
                            SELECT FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a
                            WHERE d.defaclnamespace = pg_catalog.to_regnamespace($2) AND d.defaclobjtype = 'r'
                              AND a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)),
                        c.oid IS NOT NULL, COALESCE(pg_catalog.has_table_privilege($1, c.oid, 'SELECT'), true)
                 FROM (SELECT pg_catalog.to_regclass($3) AS oid) c";
    let table = format!("{LEDGER}.migrations");
    let row = tenant.client.query_one(query, &[&ROLE, &LEDGER, &table]).await.map_err(failed)?;
    let read = |at| row.try_get::<_, bool>(at).map_err(failed);
    let (in_schema, exists, may_read) = (read(0)?, read(1)?, read(2)?);
    if in_schema && may_read {
        return Ok(());
    }
    let owner = ident(&names.owner());
    let existing = if exists { format!("GRANT SELECT ON {table} TO {ROLE};") } else { String::new() };
    let statements = format!(
        "BEGIN; GRANT USAGE ON SCHEMA {LEDGER} TO {ROLE};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {LEDGER} GRANT SELECT ON TABLES TO {ROLE};
         {existing} COMMIT;"
    );
    execute(&tenant.client, WHAT, &statements).await
}

/// Keeps the table of idempotency keys, which only the gateway's login may use. It is the owner's, as the ledger is: the
/// owner can dump all of its database, and no superuser's session reads the table or writes into it.
async fn keep_requests(socket: &str, names: &PostgresNames) -> Result<(), EnsureError> {
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let query = "SELECT r.oid IS NOT NULL
                        AND pg_catalog.has_table_privilege($1, r.oid, 'SELECT')
                        AND pg_catalog.has_table_privilege($1, r.oid, 'INSERT')
                        AND pg_catalog.has_table_privilege($1, r.oid, 'UPDATE')
                        AND pg_catalog.has_table_privilege($1, r.oid, 'DELETE'),
                        ARRAY(SELECT DISTINCT COALESCE(g.rolname::text, '')
                              FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
                              LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
                              WHERE c.oid = r.oid AND a.grantee <> c.relowner AND g.rolname IS DISTINCT FROM $1)
                 FROM (SELECT pg_catalog.to_regclass($2) AS oid) r";
    let row = tenant.client.query_one(query, &[&ROLE, &REQUESTS]).await.map_err(failed)?;
    let (is_usable, others): (bool, Vec<String>) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if is_usable && others.is_empty() {
        return Ok(());
    }
    // By default the application and the reader have rights to what the owner creates.
    let mut roles: BTreeSet<String> = others.iter().filter(|role| !role.is_empty()).map(|role| ident(role)).collect();
    roles.extend(["PUBLIC".to_owned(), ident(&names.app()), ident(PostgresNames::READER)]);
    let roles = roles.into_iter().collect::<Vec<_>>().join(", ");
    let statements = format!(
        "BEGIN; {TABLE} REVOKE ALL ON {REQUESTS} FROM {roles} CASCADE;
         GRANT {OF_REQUESTS} ON {REQUESTS} TO {ROLE}; COMMIT;"
    );
    as_owner(socket, names, "the table of the gateway's idempotency keys", &statements).await
}

/// Removes the table of idempotency keys, if there is one.
async fn drop_requests(socket: &str, names: &PostgresNames) -> Result<(), EnsureError> {
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let query =
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1) AND relkind = 'r')";
    if tenant.client.query_one(query, &[&REQUESTS]).await.and_then(|row| row.try_get(0)).map_err(failed)? {
        as_owner(socket, names, "the table of the gateway's idempotency keys", &format!("DROP TABLE {REQUESTS}"))
            .await?;
    }
    Ok(())
}

/// Refuses further logins, takes the memberships back, and ends the sessions.
async fn refuse(client: &Client, socket: &str, names: &PostgresNames) -> Result<(), EnsureError> {
    let (revoke, _) = revocations(&memberships(client).await?, &BTreeSet::new());
    let query = "SELECT rolcanlogin OR rolpassword IS NOT NULL
                        OR EXISTS (SELECT FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
                                   WHERE d.datname = $2 AND a.grantee = r.oid)
                 FROM pg_catalog.pg_authid r WHERE rolname = $1";
    let is_open = client.query_one(query, &[&ROLE, &names.database]).await;
    let is_open: bool = is_open.and_then(|row| row.try_get(0)).map_err(failed)?;
    if !is_open && revoke.is_empty() {
        return Ok(());
    }
    execute(client, WHAT, &format!("BEGIN; ALTER ROLE {ROLE} NOLOGIN PASSWORD NULL; {revoke} COMMIT;")).await?;
    end_sessions(client).await?;
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let owner = ident(&names.owner());
    let statements = format!(
        "BEGIN; ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {LEDGER} REVOKE ALL ON TABLES FROM {ROLE};
         REVOKE ALL ON ALL TABLES IN SCHEMA {LEDGER} FROM {ROLE}; REVOKE ALL ON SCHEMA {LEDGER} FROM {ROLE}; COMMIT;"
    );
    execute(&tenant.client, WHAT, &statements).await?;
    tracing::info!("the data gateway is no longer declared: its login is refused");
    if let Err(error) = drop_requests(socket, names).await {
        tracing::warn!(%error, "the table of idempotency keys stays: drop what depends on it, and then {REQUESTS}");
    }
    // The last step: a run that is interrupted before it is repeated.
    execute(client, WHAT, &format!("REVOKE ALL ON DATABASE {} FROM {ROLE}", ident(&names.database))).await
}

async fn end_sessions(client: &Client) -> Result<(), EnsureError> {
    let query = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
    client.query(query, &[&ROLE]).await.map(drop).map_err(failed)
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: WHAT.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_documented_one() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(include_str!("../../../docs/gateway.md")).contains(&words(TABLE)));
    }

    #[test]
    fn each_grant_is_revoked_from_who_gave_it() {
        let membership = |role: &str, member: &str, grantor: &str, is_exact| Membership {
            role: role.into(),
            member: member.into(),
            grantor: grantor.into(),
            is_exact,
        };
        let found = [
            membership("shop_app", ROLE, "postgres", true),
            membership("shop_app", ROLE, "other", false),
            membership("shop_owner", ROLE, "postgres", true),
            membership(ROLE, "shop_a", "postgres", false),
        ];
        let (statements, kept) = revocations(&found, &BTreeSet::from(["shop_app".to_owned()]));
        assert_eq!(kept, BTreeSet::from(["shop_app".to_owned()]));
        assert_eq!(statements.matches("REVOKE").count(), 3, "{statements}");
        assert!(statements.contains(r#"FROM "servicedb_gateway" GRANTED BY "other""#), "{statements}");
        assert!(statements.contains(r#"REVOKE "servicedb_gateway" FROM "shop_a""#), "{statements}");
    }
}
