//! Updates an extension. Its script runs as a superuser, with the extension's schema in its path: PostgreSQL marks those
//! as trusted whose scripts are safe there, and the owner updates them; any other only where the schema of the extension,
//! and those of the ones that it requires, belong to the superuser alone.

use k8s_openapi::jiff::Timestamp;

use super::session::{Session, WorkError};
use crate::agent::ensure;
use crate::agent::extensions::{IS_GUARDED, search_path};
use crate::api::names::PostgresNames;

/// Updates it to the version of the image.
///
/// # Errors
/// If it is refused, fails or is broken off.
pub async fn update(
    socket: &str,
    names: &PostgresNames,
    extension: &str,
    until: Timestamp,
    withdrawn: impl Future<Output = ()>,
) -> Result<(), WorkError> {
    let session = Session::monitor(socket, &names.database).await?;
    let sql = format!(
        "SELECT (SELECT v.trusted OR NOT v.superuser FROM pg_available_extension_versions v
                 JOIN pg_available_extensions a ON a.name = v.name AND a.default_version = v.version
                 WHERE v.name = e.extname)
                AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = e.extowner),
                NOT EXISTS (
                    SELECT FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
                    WHERE (x.oid = e.oid OR x.oid IN (
                        SELECT d.refobjid FROM pg_depend d
                        WHERE d.classid = 'pg_extension'::regclass AND d.refclassid = 'pg_extension'::regclass
                          AND d.objid = e.oid))
                      AND n.nspname <> 'pg_catalog' AND NOT ({IS_GUARDED}))
         FROM pg_extension e WHERE format('%I', e.extname) = $1"
    );
    let Some(row) = session.client().query_opt(&sql, &[&extension]).await? else { return Ok(()) };
    let (by_owner, is_guarded): (Option<bool>, bool) = (row.try_get(0)?, row.try_get(1)?);
    let path = search_path::of_database(session.client()).await?;
    let update = format!("ALTER EXTENSION {extension} UPDATE");
    let statement = search_path::keeping(&names.database, path.as_deref(), &update);
    if by_owner == Some(true) {
        let owner = Session::owner(socket, &names.database, &names.owner()).await?;
        return owner.run(&statement, until, withdrawn).await;
    }
    if !is_guarded {
        return Err(WorkError::Refused(format!(
            "its script runs as the superuser, and other roles may create objects in its schema, or in that of an \
             extension that it requires: move it (kubectl servicedb psql {} --superuser: ALTER EXTENSION {extension} SET \
             SCHEMA {})",
            names.in_commands(),
            PostgresNames::EXTENSIONS_SCHEMA
        )));
    }
    // The superuser's session limits its statements itself.
    let superuser =
        ensure::connect_at(socket, &names.database).await.map_err(|error| WorkError::Refused(error.to_string()))?;
    tokio::select! {
        result = superuser.client.batch_execute(&statement) => Ok(result?),
        () = withdrawn => Err(WorkError::BrokenOff("other work is under way")),
    }
}
