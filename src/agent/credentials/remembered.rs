//! The tables `servicedb.credentials` and `servicedb.clients`: the last promoted generations, as this database has them.
//! They are readable without Vault.

use k8s_openapi::jiff::Timestamp;
use tokio_postgres::Client;

use super::error::CredentialsError;
use crate::api::names::PostgresNames;
use crate::contract::clients::ClientReport;
use crate::contract::report::CredentialsReport;

/// The generation that was promoted last.
///
/// # Errors
/// If the server refuses.
pub async fn remembered(client: &Client) -> Result<Option<CredentialsReport>, CredentialsError> {
    let row = client
        .query_opt(
            "SELECT generation, (EXTRACT(epoch FROM rotated_at) * 1000000)::bigint FROM servicedb.credentials",
            &[],
        )
        .await?;
    Ok(row.map(|row| CredentialsReport {
        generation: row.get(0),
        rotated_at: Timestamp::from_microsecond(row.get(1)).unwrap_or_default(),
        versions: None,
    }))
}

/// Records a promoted generation; `logins` is the [`fingerprint`] of the logins that were proved.
///
/// # Errors
/// If the server refuses.
pub async fn remember(client: &Client, promoted: &CredentialsReport, logins: &str) -> Result<(), CredentialsError> {
    client
        .execute(
            "INSERT INTO servicedb.credentials AS known (only_row, generation, rotated_at, logins)
             VALUES (true, $1, pg_catalog.to_timestamp($2::float8), $3)
             ON CONFLICT (only_row) DO UPDATE
             SET generation = excluded.generation, rotated_at = excluded.rotated_at, logins = excluded.logins
             WHERE known.generation <> excluded.generation OR known.logins IS DISTINCT FROM excluded.logins",
            // Seconds are enough for a time that people read.
            &[&promoted.generation, &(promoted.rotated_at.as_second() as f64), &logins],
        )
        .await?;
    Ok(())
}

/// Whether the logins of this generation are as they were proved. If so, a record whose login is refused
/// is wrong; otherwise the server is: after a failover that lost the last change, or where somebody set
/// a password by hand.
///
/// # Errors
/// If the server refuses.
pub async fn are_as_proved(client: &Client, names: &PostgresNames, generation: i64) -> Result<bool, CredentialsError> {
    let known = client
        .query_opt("SELECT logins FROM servicedb.credentials WHERE generation = $1", &[&generation])
        .await?
        .and_then(|row| row.get::<_, Option<String>>(0));
    Ok(known.is_some() && known == Some(fingerprint(client, names, generation).await?))
}

/// A fingerprint of the logins as the server has them: it changes when somebody changes a
/// password, a validity or the right to log in.
///
/// # Errors
/// If the server refuses.
pub async fn fingerprint(client: &Client, names: &PostgresNames, generation: i64) -> Result<String, CredentialsError> {
    fingerprint_of(client, &[names.login(generation), names.migrator_login(generation)]).await
}

/// The same, of logins by their names.
///
/// # Errors
/// If the server refuses.
pub async fn fingerprint_of(client: &Client, logins: &[String]) -> Result<String, CredentialsError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(COALESCE(pg_catalog.string_agg(
                    pg_catalog.concat_ws(' ', rolname, rolpassword, rolcanlogin, rolvaliduntil), ',' ORDER BY rolname
             ), ''), 'UTF8')), 'hex') FROM pg_catalog.pg_authid WHERE rolname = ANY ($1)",
            &[&logins],
        )
        .await?;
    Ok(row.get(0))
}

/// What the database remembers of a client; the default for one that it does not know.
///
/// # Errors
/// If the server refuses.
pub async fn known_client(client: &Client, name: &str) -> Result<ClientReport, CredentialsError> {
    let query = "SELECT generation, (EXTRACT(epoch FROM rotated_at) * 1000000)::bigint
                 FROM servicedb.clients WHERE client = $1 AND removed_at IS NULL";
    let row = client.query_opt(query, &[&name]).await?;
    let name = name.to_owned();
    Ok(match row {
        Some(row) => ClientReport {
            name,
            generation: row.get(0),
            rotated_at: row.get::<_, Option<i64>>(1).and_then(|at| Timestamp::from_microsecond(at).ok()),
            ..ClientReport::default()
        },
        None => ClientReport { name, ..ClientReport::default() },
    })
}

/// Whether the login of this generation is as it was proved.
///
/// # Errors
/// If the server refuses.
pub async fn is_as_proved(
    client: &Client,
    names: &PostgresNames,
    name: &str,
    generation: i64,
) -> Result<bool, CredentialsError> {
    let query = "SELECT logins FROM servicedb.clients WHERE client = $1 AND generation = $2 AND removed_at IS NULL";
    let known = client.query_opt(query, &[&name, &generation]).await?.and_then(|row| row.get::<_, Option<String>>(0));
    Ok(known.is_some() && known == Some(fingerprint_of_client(client, names, name, generation).await?))
}

/// A fingerprint of a client's login as the server has it.
///
/// # Errors
/// If the server refuses.
pub async fn fingerprint_of_client(
    client: &Client,
    names: &PostgresNames,
    name: &str,
    generation: i64,
) -> Result<String, CredentialsError> {
    fingerprint_of(client, &[names.client_login(name, generation)]).await
}

/// A fingerprint of a login of Vault's database secrets engine as the server has it; none if it is missing.
///
/// # Errors
/// If the server refuses.
pub async fn fingerprint_of_engine(client: &Client, login: &str) -> Result<Option<String>, CredentialsError> {
    let query = "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat_ws(' ',
                        r.rolpassword, r.rolcanlogin, r.rolcreaterole, r.rolinherit, r.rolsuper, r.rolcreatedb,
                        r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil,
                        pg_catalog.has_database_privilege(r.oid, 'postgres', 'CONNECT'),
                        (SELECT pg_catalog.string_agg(s.setconfig::text, ',' ORDER BY s.setdatabase)
                         FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid)), 'UTF8')), 'hex')
                 FROM pg_catalog.pg_authid r WHERE r.rolname = $1";
    Ok(client.query_opt(query, &[&login]).await?.map(|row| row.get(0)))
}
