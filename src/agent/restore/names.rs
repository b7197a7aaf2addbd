//! A restored database gets the names of the service that it now belongs to, and its former logins none: the
//! credentials are new. Its jobs rest.

use tokio_postgres::Client;

use super::vault_logins;
use crate::agent::clients::rights::noted_connect;
use crate::agent::ensure;
use crate::agent::extensions::jobs;
use crate::api::names::{Names, PostgresNames};
use crate::postgres::{describe, ident, literal};
use crate::restore::recovery::SOCKET;

/// Renames the database and its roles, takes the former passwords away, and rests the jobs.
///
/// # Errors
/// PostgreSQL's.
pub async fn take_over(service: &str, own: &PostgresNames) -> Result<(), String> {
    let connection = ensure::connect_at(SOCKET, "postgres").await.map_err(|error| error.to_string())?;
    let client = &connection.client;
    let former = Names::new("", service).postgres(&database(client).await?);
    let mut statements = String::from("BEGIN; DELETE FROM servicedb.credentials;");
    statements += &clients(client, &former, own).await?;
    // Those of the source: Vault knows this database by another name, and the leader removes them.
    for login in vault_logins::read(client).await? {
        statements += &format!("ALTER ROLE {} NOLOGIN PASSWORD NULL;", ident(&login));
    }
    let logins = (1..=2).flat_map(|generation| {
        [
            (former.login(generation), own.login(generation)),
            (former.migrator_login(generation), own.migrator_login(generation)),
        ]
    });
    for (before, now) in logins {
        if ensure::has_role(client, &before).await.map_err(|error| error.to_string())? {
            statements += &format!("ALTER ROLE {} NOLOGIN PASSWORD NULL;", ident(&before));
            statements += &format!("ALTER ROLE {} RESET ALL;", ident(&before));
            statements += &renamed("ROLE", &before, &now);
        }
    }
    for (before, now) in [(former.owner(), own.owner()), (former.app(), own.app())] {
        statements += &renamed("ROLE", &before, &now);
    }
    statements += &renamed("DATABASE", &former.database, &own.database);
    // Its owner may have closed it.
    statements += &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true;", ident(&own.database));
    client.batch_execute(&(statements + "COMMIT;")).await.map_err(|error| describe(&error))?;
    let restored = ensure::connect_at(SOCKET, &own.database).await.map_err(|error| error.to_string())?;
    jobs::rest(&restored.client, &former, own).await.map_err(|error| error.to_string())
}

/// Clients with a login of their own: their roles get the names that this service gives them, their logins lose their
/// passwords, and nothing is remembered of their credentials. Those that this resource does not declare are removed.
async fn clients(client: &Client, former: &PostgresNames, own: &PostgresNames) -> Result<String, String> {
    let exists = client.query_one("SELECT pg_catalog.to_regclass('servicedb.clients') IS NOT NULL", &[]).await;
    if !exists.map_err(|error| describe(&error))?.get::<_, bool>(0) {
        return Ok(String::new());
    }
    let rows = client.query("SELECT client FROM servicedb.clients", &[]).await.map_err(|error| describe(&error))?;
    let mut statements = forgotten(former, own);
    for name in rows.iter().map(|row| row.get::<_, String>(0)) {
        for turn in 1..=2 {
            let (before, now) = (former.client_login(&name, turn), own.client_login(&name, turn));
            if ensure::has_role(client, &before).await.map_err(|error| error.to_string())? {
                let role = ident(&before);
                statements += &format!("ALTER ROLE {role} NOLOGIN PASSWORD NULL; ALTER ROLE {role} RESET ALL;");
                statements += &renamed("ROLE", &before, &now);
            }
        }
        let (before, now) = (former.client(&name), own.client(&name));
        if ensure::has_role(client, &before).await.map_err(|error| error.to_string())? {
            statements += &renamed("ROLE", &before, &now);
        }
    }
    let (before, now) = (former.clients(), own.clients());
    if ensure::has_role(client, &before).await.map_err(|error| error.to_string())? {
        statements += &renamed("ROLE", &before, &now);
    }
    Ok(statements)
}

/// Nothing is remembered of the clients' credentials. What was granted as declared is so under the new name of the
/// database, too: otherwise the right would be nobody's.
fn forgotten(former: &PostgresNames, own: &PostgresNames) -> String {
    format!(
        "UPDATE servicedb.clients SET generation = 0, rotated_at = NULL, logins = NULL,
                                      granted = pg_catalog.array_replace(granted, {}, {});",
        literal(&noted_connect(&former.database)),
        literal(&noted_connect(&own.database))
    )
}

fn renamed(kind: &str, before: &str, now: &str) -> String {
    if before == now {
        return String::new();
    }
    format!("ALTER {kind} {} RENAME TO {};", ident(before), ident(now))
}

/// The name of the restored database: beside PostgreSQL's own there is one.
async fn database(client: &Client) -> Result<String, String> {
    // By their names: an owner may make a template of the own one.
    let query = "SELECT datname::text FROM pg_catalog.pg_database
                 WHERE datname <> ALL (ARRAY['postgres', 'template0', 'template1'])";
    let found = client.query(query, &[]).await.map_err(|error| describe(&error))?;
    match &found[..] {
        [row] => Ok(row.get(0)),
        _ => Err(format!("the backup has {} databases beside PostgreSQL's own, and one is expected", found.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_names_the_database_is_known_by_its_new_name() {
        let names = |database: &str| Names::new("messaging", "chat").postgres(database);
        let statement = forgotten(&names("chat_db"), &names("it's"));
        let replaced = "array_replace(granted, 'CONNECT on the database chat_db', 'CONNECT on the database it''s')";
        assert!(statement.contains(replaced), "{statement}");
    }
}
