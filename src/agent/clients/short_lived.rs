//! Short-lived logins: Vault makes and removes them. The leader removes those that Vault could not, because it was sealed,
//! or because the database was restored; and those of clients that are no longer declared so. It gives the others the
//! limits that are declared now.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::agent::ensure::{self, has_limits, has_role, limits};
use crate::agent::statement::{EnsureError, execute};
use crate::api::DynamicSpec;
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::postgres::ident;

/// For how long after the end of its validity Vault has the time to remove a login, in seconds.
const LEEWAY_SECONDS: f64 = 120.0;

/// How much longer than the maximum lifetime a login may be valid, in seconds: the clocks of Vault and the server may
/// differ.
pub const TOLERANCE_SECONDS: f64 = 600.0;

/// A short-lived login.
struct Login {
    name: String,
    /// Whether it may log in, can do nothing by an attribute, passes no role on, and is passed on to nobody.
    is_plain: bool,
    /// For how long it is valid from now on, in seconds; negative: it has been invalid for so long; none: without end.
    valid_for: Option<f64>,
    /// The roles that it is a member of.
    roles: Vec<String>,
    /// The limit of its sessions.
    limit: i32,
    /// Its settings for all databases.
    settings: Vec<String>,
}

impl Login {
    /// Whether it is one as Vault makes for this client, and not invalid for long. Others can only be by a superuser's
    /// hand, or of another client of this name.
    fn is_of(&self, names: &PostgresNames, name: &str, lifetimes: DynamicSpec) -> bool {
        let longest = lifetimes.max_ttl_seconds as f64 + TOLERANCE_SECONDS;
        let allowed = [names.client(name), names.clients()];
        self.is_plain
            && self.valid_for.is_some_and(|seconds| seconds > -LEEWAY_SECONDS && seconds < longest)
            && allowed.iter().all(|role| self.roles.contains(role))
            && self.roles.iter().all(|role| allowed.contains(role))
    }
}

/// The names of a client's logins.
///
/// # Errors
/// If the server refuses.
pub async fn of(client: &Client, name: &str) -> Result<Vec<String>, EnsureError> {
    let prefix = PostgresNames::short_lived_prefix(name);
    Ok(with_prefix(client, &prefix).await?.into_iter().map(|login| login.name).collect())
}

/// Removes the logins that are invalid or not as Vault makes them, and those of clients that have none; the others get
/// their client's limits. Returns whether nothing is left to do. The sessions of removed ones end, on all other instances
/// within seconds (see `sessions`).
///
/// # Errors
/// If the server does not tell which logins it has.
pub async fn keep(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    declared: &[clients::Client],
) -> Result<bool, EnsureError> {
    let wanted: BTreeMap<&str, (&clients::Client, DynamicSpec)> =
        declared.iter().filter_map(|client| Some((client.name.as_str(), (client, client.dynamic()?)))).collect();
    let mut is_complete = true;
    for login in with_prefix(client, PostgresNames::SHORT_LIVED).await? {
        let of = PostgresNames::client_of_short_lived(&login.name).and_then(|of| wanted.get(of));
        if let Some((of, _)) = of.filter(|(of, lifetimes)| login.is_of(names, &of.name, *lifetimes)) {
            if !has_limits(login.limit, &login.settings, of) {
                is_complete &= set_limits(client, names, &login.name, of).await;
            }
            continue;
        }
        let name = login.name;
        match drop_login(client, socket, names, &name).await {
            Ok(()) => tracing::info!(login = name, "a short-lived login is removed"),
            Err(error) => {
                tracing::warn!(%error, login = name, "a short-lived login cannot be removed; retrying");
                is_complete = false;
            }
        }
    }
    Ok(is_complete)
}

/// Gives a login the limits that are declared now; returns whether it has them.
async fn set_limits(client: &Client, names: &PostgresNames, login: &str, of: &clients::Client) -> bool {
    let what = format!("the limits of the login {login}");
    let statements = format!("BEGIN; {} COMMIT;", limits(&ident(login), &ident(&names.database), of));
    let result = execute(client, &what, &statements).await;
    if let Err(error) = &result {
        // Vault may have removed it since.
        tracing::warn!(%error, login, "a short-lived login does not have the declared limits; retrying");
    }
    result.is_ok()
}

async fn with_prefix(client: &Client, prefix: &str) -> Result<Vec<Login>, EnsureError> {
    let query = "SELECT r.rolname::text,
                        r.rolcanlogin AND NOT (r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication
                                               OR r.rolbypassrls)
                        AND NOT EXISTS (
                            SELECT FROM pg_catalog.pg_auth_members m
                            WHERE m.member = r.oid AND m.admin_option OR m.roleid = r.oid),
                        CASE WHEN pg_catalog.isfinite(r.rolvaliduntil)
                             THEN EXTRACT(epoch FROM r.rolvaliduntil - pg_catalog.now())::float8 END,
                        ARRAY(SELECT g.rolname::text
                              FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                              WHERE m.member = r.oid),
                        r.rolconnlimit,
                        COALESCE((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s
                                  WHERE s.setrole = r.oid AND s.setdatabase = 0), '{}')
                 FROM pg_catalog.pg_roles r WHERE pg_catalog.starts_with(r.rolname::text, $1::text) ORDER BY r.rolname";
    let failed = |source| EnsureError::Statement { what: "the short-lived logins".to_owned(), source };
    let read = |row: &tokio_postgres::Row| {
        Ok(Login {
            name: row.try_get(0)?,
            is_plain: row.try_get(1)?,
            valid_for: row.try_get(2)?,
            roles: row.try_get(3)?,
            limit: row.try_get(4)?,
            settings: row.try_get(5)?,
        })
    };
    let rows = client.query(query, &[&prefix]).await;
    rows.and_then(|rows| rows.iter().map(read).collect()).map_err(failed)
}

/// Takes the right to connect from a login, and ends its sessions: one with an open change of its own role would keep it.
async fn shut_out(client: &Client, what: &str, names: &PostgresNames, login: &str) -> Result<(), EnsureError> {
    let failed = |source| EnsureError::Statement { what: what.to_owned(), source };
    let all = names.clients();
    let query = "SELECT b.rolname::text FROM pg_catalog.pg_auth_members m
                 JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                 JOIN pg_catalog.pg_roles r ON r.oid = m.member
                 JOIN pg_catalog.pg_roles b ON b.oid = m.grantor
                 WHERE g.rolname = $1 AND r.rolname = $2";
    for row in client.query(query, &[&all, &login]).await.map_err(failed)? {
        let grantor: String = row.try_get(0).map_err(failed)?;
        let (all, role, grantor) = (ident(&all), ident(login), ident(&grantor));
        execute(client, what, &format!("REVOKE {all} FROM {role} GRANTED BY {grantor} CASCADE")).await?;
    }
    let query = "SELECT pg_catalog.pg_terminate_backend(pid, 2000) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
    client.query(query, &[&login]).await.map(drop).map_err(failed)
}

/// Ownership, rights and roles are catalogs: nothing of the tenant runs.
async fn drop_login(client: &Client, socket: &str, names: &PostgresNames, login: &str) -> Result<(), EnsureError> {
    let (what, role) = (format!("the removal of the login {login}"), ident(login));
    let is_shut_out = shut_out(client, &what, names, login).await;
    if execute(client, &what, &format!("DROP ROLE IF EXISTS {role}")).await.is_ok() {
        return Ok(());
    }
    is_shut_out?;
    // It owns something, or has a right of its own, by somebody's hand: that goes to nobody, as of a removed client.
    execute(client, &what, &format!("ALTER ROLE {role} NOLOGIN PASSWORD NULL")).await?;
    let nobody = names.clients();
    if !has_role(client, &nobody).await? {
        execute(client, &what, &format!("CREATE ROLE {} NOLOGIN", ident(&nobody))).await?;
    }
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let leave = format!(
        "BEGIN; SET LOCAL lock_timeout = '1s'; REASSIGN OWNED BY {role} TO {}; DROP OWNED BY {role}; COMMIT;",
        ident(&nobody)
    );
    execute(&tenant.client, &what, &leave).await?;
    execute(client, &what, &format!("BEGIN; DROP OWNED BY {role}; DROP ROLE {role}; COMMIT;")).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    #[test]
    fn a_login_that_vault_would_not_make_is_none_of_a_client() {
        let names = Names::new("messaging", "chat").postgres("chat_db");
        let lifetimes = DynamicSpec { ttl_seconds: 60, max_ttl_seconds: 3600 };
        let login = || Login {
            name: "servicedb.mail-bot.k3j29fhs7dk2mxqp".to_owned(),
            is_plain: true,
            valid_for: Some(60.0),
            roles: vec!["chat_db_clients".to_owned(), "chat_db_c_mail_bot".to_owned()],
            limit: -1,
            settings: vec!["role=chat_db_c_mail_bot".to_owned()],
        };
        let is_of = |login: Login| login.is_of(&names, "mail-bot", lifetimes);
        assert!(is_of(login()));
        assert!(is_of(Login { valid_for: Some(-60.0), ..login() }), "Vault has time to remove it");
        assert!(!is_of(Login { valid_for: Some(-121.0), ..login() }));
        assert!(is_of(Login { valid_for: Some(3700.0), ..login() }), "the clocks differ");
        assert!(!is_of(Login { valid_for: Some(4300.0), ..login() }));
        assert!(!is_of(Login { valid_for: None, ..login() }), "infinity");
        assert!(!is_of(Login { is_plain: false, ..login() }));
        assert!(!is_of(Login { roles: vec!["chat_db_c_other".to_owned()], ..login() }));
        assert!(
            !is_of(Login { roles: vec!["chat_db_clients".to_owned()], ..login() }),
            "it does not act as the client"
        );
        let more = ["chat_db_clients", "chat_db_c_mail_bot", "chat_db_owner"].map(str::to_owned);
        assert!(!is_of(Login { roles: more.to_vec(), ..login() }));
    }
}
