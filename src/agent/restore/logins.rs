//! The logins of services after a restore in place: those of the running database. A password that was retired since the
//! restored state does not come back, and one that services use now goes on to work.

use tokio_postgres::Client;

use super::vault_logins;
use crate::agent::ensure;
use crate::api::names::PostgresNames;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::{describe, ident, literal};
use crate::restore::recovery::SOCKET;

/// The stored verifiers of logins that may log in.
const QUERY: &str = "SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
                     WHERE rolname = ANY ($1) AND rolcanlogin AND rolpassword LIKE 'SCRAM-SHA-256$%'";

/// Gives the logins of the restored server the verifiers of the running one, and no password to those that it does
/// not have. A login that is missing is created when the credentials are proved.
///
/// # Errors
/// PostgreSQL's.
pub async fn keep(names: &PostgresNames) -> Result<(), String> {
    let connect = async |socket| ensure::connect_at(socket, "postgres").await.map_err(|error| error.to_string());
    let (running, restored) = (connect(SOCKET_DIR).await?, connect(SOCKET).await?);
    let logins: Vec<_> =
        (1..=2).flat_map(|generation| [names.login(generation), names.migrator_login(generation)]).collect();
    let mut logins = logins;
    for server in [&running.client, &restored.client] {
        logins.extend(of_clients(server, names).await?);
        logins.extend(vault_logins::read(server).await?);
    }
    logins.sort_unstable();
    logins.dedup();
    let verifiers = read(&running.client, &logins).await?;
    // A failed statement would be logged, with the verifier in it.
    let mut statements = ensure::UNLOGGED.to_owned();
    for (login, verifier) in &read(&restored.client, &logins).await? {
        match verifiers.iter().find(|(name, _)| name == login) {
            Some((_, now)) if now == verifier => {}
            Some((_, now)) => statements += &format!("ALTER ROLE {} PASSWORD {};", ident(login), literal(now)),
            None => statements += &format!("ALTER ROLE {} NOLOGIN PASSWORD NULL;", ident(login)),
        }
    }
    restored.client.batch_execute(&(statements + "COMMIT;")).await.map_err(|error| describe(&error))
}

/// The logins of clients that have one of their own.
async fn of_clients(client: &Client, names: &PostgresNames) -> Result<Vec<String>, String> {
    let exists = client.query_one("SELECT pg_catalog.to_regclass('servicedb.clients') IS NOT NULL", &[]).await;
    if !exists.map_err(|error| describe(&error))?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT client FROM servicedb.clients", &[]).await.map_err(|error| describe(&error))?;
    let clients = rows.iter().map(|row| row.get::<_, String>(0));
    Ok(clients.flat_map(|client| (1..=2).map(|turn| names.client_login(&client, turn)).collect::<Vec<_>>()).collect())
}

async fn read(client: &Client, logins: &[String]) -> Result<Vec<(String, String)>, String> {
    let rows = client.query(QUERY, &[&logins]).await.map_err(|error| describe(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
