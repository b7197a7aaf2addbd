//! The extensions that the image has and those that the database has.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Row};

use super::plan::{Available, Installed, Version};
use crate::agent::statement::EnsureError;

/// A condition on a schema `n`: only a superuser owns it or may create in it.
pub const IS_GUARDED: &str = "(SELECT r.rolsuper FROM pg_roles r WHERE r.oid = n.nspowner)
    AND NOT EXISTS (SELECT FROM aclexplode(n.nspacl) x LEFT JOIN pg_roles g ON g.oid = x.grantee
                    WHERE x.privilege_type = 'CREATE' AND g.rolsuper IS NOT TRUE)";

/// The extensions of the database, by their names.
///
/// # Errors
/// If the server fails the query.
pub async fn installed(client: &Client) -> Result<BTreeMap<String, Installed>, EnsureError> {
    let query = format!(
        "SELECT e.extname::text, e.extversion, n.nspname::text, {IS_GUARDED},
                (SELECT NOT a.rolsuper FROM pg_roles a WHERE a.oid = e.extowner), e.extrelocatable,
                NOT EXISTS (
                    SELECT FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
                    WHERE (x.oid = e.oid OR x.oid IN (
                        SELECT d.refobjid FROM pg_depend d
                        WHERE d.classid = 'pg_extension'::regclass AND d.refclassid = 'pg_extension'::regclass
                          AND d.objid = e.oid))
                      AND n.nspname <> 'pg_catalog' AND NOT ({IS_GUARDED}))
         FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    );
    let mut found = BTreeMap::new();
    for row in read(client, &query).await? {
        let it = || -> Result<_, tokio_postgres::Error> {
            let it = Installed {
                version: row.try_get(1)?,
                schema: row.try_get(2)?,
                guarded: row.try_get(3)?,
                by_owner: row.try_get(4)?,
                relocatable: row.try_get(5)?,
                closed: row.try_get(6)?,
            };
            Ok((row.try_get(0)?, it))
        };
        found.extend([it().map_err(failed)?]);
    }
    Ok(found)
}

/// The extensions of the image, by their names, with the versions to which those of the database can be updated.
///
/// # Errors
/// If the server fails the query.
pub async fn available(client: &Client) -> Result<BTreeMap<String, Available>, EnsureError> {
    let query = "SELECT v.name::text, v.version, v.version = e.default_version, v.trusted OR NOT v.superuser,
                        v.schema::text, v.requires::text[]
                 FROM pg_available_extension_versions v JOIN pg_available_extensions e ON e.name = v.name";
    let mut found: BTreeMap<String, Available> = BTreeMap::new();
    for row in read(client, query).await? {
        add(&row, &mut found).map_err(failed)?;
    }
    // Of extensions of the image alone: the function fails for another one. The scripts of PostGIS lead to the present
    // version by a pseudo-version of this name.
    let query = "SELECT e.name::text, p.target
                 FROM pg_available_extensions e, LATERAL pg_extension_update_paths(e.name) p
                 WHERE e.installed_version IS NOT NULL AND p.source = e.installed_version AND p.path IS NOT NULL
                   AND p.target <> 'ANY'";
    for row in read(client, query).await? {
        let (name, target): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        found.entry(name).or_default().updates.insert(target);
    }
    Ok(found)
}

fn add(row: &Row, found: &mut BTreeMap<String, Available>) -> Result<(), tokio_postgres::Error> {
    let version = Version {
        trusted: row.try_get(3)?,
        schema: row.try_get(4)?,
        requires: row.try_get::<_, Option<Vec<String>>>(5)?.unwrap_or_default(),
    };
    let name: String = row.try_get(1)?;
    let it = found.entry(row.try_get(0)?).or_default();
    if row.try_get::<_, Option<bool>>(2)? == Some(true) {
        it.default.clone_from(&name);
    }
    it.versions.insert(name, version);
    Ok(())
}

async fn read(client: &Client, query: &str) -> Result<Vec<Row>, EnsureError> {
    client.query(query, &[]).await.map_err(failed)
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: "the list of extensions".to_owned(), source }
}
