//! The extensions of a database. An extension's script runs as the superuser, with its target schema first in
//! the search path, and those of the extensions that it requires after it: an object that a tenant created
//! there could be called instead of the intended one.
//!
//! PostgreSQL marks extensions as trusted whose scripts are safe against that. They are created as the owner,
//! by a login that is no superuser, into `public`. All others, and those that they require, go into a
//! schema in which only the superuser can create objects.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::as_owner::as_owner;
use super::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::postgres::ident;

/// The schema in which a tenant may create objects.
const PUBLIC: &str = "public";
/// The schema in which only the superuser may.
const GUARDED: &str = PostgresNames::EXTENSIONS_SCHEMA;
/// A condition on a schema `n`: only a superuser owns it or may create in it.
pub(super) const IS_GUARDED: &str = "(SELECT r.rolsuper FROM pg_roles r WHERE r.oid = n.nspowner)
    AND NOT EXISTS (SELECT FROM aclexplode(n.nspacl) x LEFT JOIN pg_roles g ON g.oid = x.grantee
                    WHERE x.privilege_type = 'CREATE' AND g.rolsuper IS NOT TRUE)";

/// The schemas of extensions, by the extension's name.
pub type Places = BTreeMap<String, String>;

/// An extension's properties, from its control file.
#[derive(Clone, Debug, Default, PartialEq)]
struct Available {
    /// Whether the owner of a database may create it.
    trusted: bool,
    /// The schema that its control file sets.
    schema: Option<String>,
    requires: Vec<String>,
}

/// An extension that the database has.
#[derive(Clone, Debug, PartialEq)]
struct Installed {
    schema: String,
    guarded: bool,
}

/// The way in which an extension is created.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// As the owner; into this schema unless its control file sets one.
    AsOwner(Option<&'static str>),
    /// As the superuser, into a guarded schema.
    Guarded(String),
    /// As the superuser, into its schema in the database that this one is compared with.
    AsFound(String),
}

/// Creates the guarded schema before a tenant can, and the declared extensions that are missing. Problems of
/// single extensions are returned, since the rest serves.
///
/// `found` has the schemas of the extensions in a database that this one is compared with.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn install(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    declared: &[String],
    found: &Places,
) -> Result<Vec<String>, EnsureError> {
    guard(client, GUARDED).await?;
    let installed = installed(client).await?;
    if declared.iter().all(|name| installed.contains_key(name)) {
        return Ok(Vec::new());
    }
    let available = available(client).await?;
    let mut problems = Vec::new();
    for (name, step) in plan(declared, &available, &installed, found) {
        let done = match step {
            Ok(step) => create(client, socket, names, &name, &step).await,
            Err(problem) => Err(EnsureError::Extension { name, problem }),
        };
        problems.extend(done.err().map(|error| error.to_string()));
    }
    Ok(problems)
}

/// The schemas of the extensions that a database has, as far as the agent chooses them.
///
/// # Errors
/// If the server fails the query.
pub async fn places(client: &Client) -> Result<Places, tokio_postgres::Error> {
    let query = "SELECT e.extname::pg_catalog.text, n.nspname::pg_catalog.text
                 FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
                 WHERE n.nspname = ANY ($1)";
    let rows = client.query(query, &[&[PUBLIC, GUARDED].as_slice()]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The steps to the declared extensions and to those that they require, prerequisites first. It is
/// `CREATE EXTENSION … CASCADE` with a schema of its own for each: CASCADE would put a prerequisite
/// into the schema of the extension that requires it.
fn plan(
    declared: &[String],
    available: &BTreeMap<String, Available>,
    installed: &BTreeMap<String, Installed>,
    found: &Places,
) -> Vec<(String, Result<Step, String>)> {
    let requires = |name: &String| available.get(name).map(|it| it.requires.as_slice()).unwrap_or_default();
    // Depth first; a circle of requirements, which PostgreSQL refuses, ends here, too.
    fn visit<'a>(name: &'a String, requires: &impl Fn(&String) -> &'a [String], all: &mut Vec<&'a String>) {
        if !all.contains(&name) {
            let at = all.len();
            all.push(name);
            requires(name).iter().for_each(|needed| visit(needed, requires, all));
            all[at..].rotate_left(1);
        }
    }
    let (mut ordered, mut guarded) = (Vec::new(), Vec::new());
    for name in declared {
        visit(name, &requires, &mut ordered);
        if available.get(name).is_some_and(|it| !it.trusted) {
            visit(name, &requires, &mut guarded);
        }
    }
    let missing = ordered.into_iter().filter(|name| !installed.contains_key(*name));
    let step = |name: &String| {
        let Some(it) = available.get(name) else { return Err("the database's image does not contain it".to_owned()) };
        if let Some(schema) = found.get(name).filter(|_| it.schema.is_none()) {
            return Ok(Step::AsFound(schema.clone()));
        }
        if !guarded.contains(&name) {
            return Ok(Step::AsOwner(it.schema.is_none().then_some(PUBLIC)));
        }
        let open =
            it.requires.iter().find_map(|needed| Some((needed, installed.get(needed).filter(|it| !it.guarded)?)));
        match open {
            Some((needed, Installed { schema, .. })) => Err(format!(
                "it runs as the superuser and requires {needed}, which is in the schema {schema}, where other roles may \
                 create objects: move {needed} (kubectl servicedb psql --superuser: ALTER EXTENSION {} SET SCHEMA {GUARDED})",
                ident(needed)
            )),
            None => Ok(Step::Guarded(it.schema.clone().unwrap_or_else(|| GUARDED.to_owned()))),
        }
    };
    missing.map(|name| (name.clone(), step(name))).collect()
}

async fn create(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    name: &str,
    step: &Step,
) -> Result<(), EnsureError> {
    let what = format!("spec.postgres.extensions, {name}");
    let create = |schema: Option<&str>| {
        let schema = schema.map(|schema| format!(" SCHEMA {}", ident(schema))).unwrap_or_default();
        format!("CREATE EXTENSION IF NOT EXISTS {}{schema}", ident(name))
    };
    match step {
        Step::AsFound(schema) => execute(client, &what, &create(Some(schema))).await,
        Step::Guarded(schema) => {
            if schema != "pg_catalog" && !guard(client, schema).await? {
                let problem = format!(
                    "it runs as the superuser, and other roles may create objects in its schema {schema}: rename that \
                     schema (ALTER SCHEMA {} RENAME TO …)",
                    ident(schema)
                );
                return Err(EnsureError::Extension { name: name.to_owned(), problem });
            }
            execute(client, &what, &create(Some(schema))).await
        }
        Step::AsOwner(schema) => as_owner(socket, names, &what, &create(*schema)).await,
    }
}

/// Creates a schema if it is missing. Returns whether it is guarded.
async fn guard(client: &Client, schema: &str) -> Result<bool, EnsureError> {
    let what = format!("schema {schema}");
    let failed = |source| EnsureError::Statement { what: what.clone(), source };
    let query = format!("SELECT {IS_GUARDED} FROM pg_namespace n WHERE n.nspname = $1");
    let is_guarded = async || -> Result<Option<bool>, EnsureError> {
        let row = client.query_opt(&query, &[&schema]).await.map_err(failed)?;
        row.map(|row| row.try_get(0).map_err(failed)).transpose()
    };
    if is_guarded().await?.is_none() {
        execute(client, &what, &format!("CREATE SCHEMA {}", ident(schema))).await?;
    }
    let guarded = is_guarded().await?.unwrap_or(false);
    if guarded {
        execute(client, &what, &format!("GRANT USAGE ON SCHEMA {} TO PUBLIC", ident(schema))).await?;
    }
    Ok(guarded)
}

async fn installed(client: &Client) -> Result<BTreeMap<String, Installed>, EnsureError> {
    let query = format!(
        "SELECT e.extname::text, n.nspname::text, {IS_GUARDED}
         FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    );
    read(client, &query, |row| Ok((row.try_get(0)?, Installed { schema: row.try_get(1)?, guarded: row.try_get(2)? })))
        .await
}

async fn available(client: &Client) -> Result<BTreeMap<String, Available>, EnsureError> {
    let query = "SELECT v.name::text, v.trusted OR NOT v.superuser, v.schema::text, v.requires::text[]
                 FROM pg_available_extension_versions v JOIN pg_available_extensions e
                   ON e.name = v.name AND e.default_version = v.version";
    read(client, query, |row| {
        let requires = row.try_get::<_, Option<Vec<String>>>(3)?.unwrap_or_default();
        Ok((row.try_get(0)?, Available { trusted: row.try_get(1)?, schema: row.try_get(2)?, requires }))
    })
    .await
}

async fn read<T>(
    client: &Client,
    query: &str,
    row: impl Fn(&tokio_postgres::Row) -> Result<(String, T), tokio_postgres::Error>,
) -> Result<BTreeMap<String, T>, EnsureError> {
    let failed = |source| EnsureError::Statement { what: "the list of extensions".to_owned(), source };
    let rows = client.query(query, &[]).await.map_err(failed)?;
    rows.iter().map(row).collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available() -> BTreeMap<String, Available> {
        let of = |trusted, schema: Option<&str>, requires: &[&str]| Available {
            trusted,
            schema: schema.map(str::to_owned),
            requires: requires.iter().map(|&name| name.to_owned()).collect(),
        };
        BTreeMap::from(
            [
                ("cube", of(true, None, &[])),
                ("earthdistance", of(false, None, &["cube"])),
                ("hstore", of(true, None, &[])),
                ("plpgsql", of(true, Some("pg_catalog"), &[])),
                ("tiger", of(false, Some("tiger"), &["earthdistance", "hstore"])),
                ("one", of(false, None, &["other"])),
                ("other", of(false, None, &["one"])),
            ]
            .map(|(name, it)| (name.to_owned(), it)),
        )
    }

    fn steps(
        declared: &[&str],
        installed: &[(&str, bool)],
        found: &[(&str, &str)],
    ) -> Vec<(String, Result<Step, String>)> {
        let declared: Vec<String> = declared.iter().map(|&name| name.to_owned()).collect();
        let installed = installed.iter().map(|&(name, guarded)| {
            let schema = if guarded { GUARDED } else { PUBLIC }.to_owned();
            (name.to_owned(), Installed { schema, guarded })
        });
        let found = found.iter().map(|&(name, schema)| (name.to_owned(), schema.to_owned())).collect();
        plan(&declared, &available(), &installed.collect(), &found)
    }

    fn ok(name: &str, step: Step) -> (String, Result<Step, String>) {
        (name.to_owned(), Ok(step))
    }

    #[test]
    fn trusted_extensions_are_the_owners_and_others_never_meet_objects_of_a_tenant() {
        let guarded = || Step::Guarded(GUARDED.to_owned());
        assert_eq!(
            steps(&["hstore", "earthdistance", "cube", "plpgsql"], &[], &[]),
            [
                ok("hstore", Step::AsOwner(Some(PUBLIC))),
                // Trusted, and in the search path of one that is not.
                ok("cube", guarded()),
                ok("earthdistance", guarded()),
                ok("plpgsql", Step::AsOwner(None)),
            ]
        );
        let tiger = steps(&["tiger", "hstore", "cube", "earthdistance"], &[], &[]);
        assert_eq!(
            tiger[..3].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["cube", "earthdistance", "hstore"]
        );
        assert_eq!(tiger[2].1, Ok(guarded()));
        assert_eq!(tiger[3], ok("tiger", Step::Guarded("tiger".to_owned())));
    }

    #[test]
    fn a_required_extension_is_created_without_being_declared() {
        let guarded = || Step::Guarded(GUARDED.to_owned());
        assert_eq!(steps(&["earthdistance"], &[], &[]), [ok("cube", guarded()), ok("earthdistance", guarded())]);
        // In a comparison it goes where the live database has it.
        let found = [("earthdistance", PUBLIC), ("cube", PUBLIC)];
        let as_found = || Step::AsFound(PUBLIC.to_owned());
        assert_eq!(steps(&["earthdistance"], &[], &found), [ok("cube", as_found()), ok("earthdistance", as_found())]);
    }

    #[test]
    fn an_installed_extension_stays_in_its_schema() {
        assert_eq!(
            steps(
                &["hstore", "earthdistance", "cube"],
                &[("hstore", false), ("cube", false), ("earthdistance", false)],
                &[]
            ),
            []
        );
        assert_eq!(
            steps(&["earthdistance"], &[("cube", true)], &[]),
            [ok("earthdistance", Step::Guarded(GUARDED.to_owned()))]
        );
        // Its script would have the tenant's schema in its path.
        let refused = steps(&["cube", "earthdistance"], &[("cube", false)], &[]).remove(0).1;
        assert!(refused.is_err_and(|problem| problem.contains("cube") && problem.contains(PUBLIC)));
    }

    #[test]
    fn a_database_for_a_comparison_has_them_where_the_other_has_them() {
        let found = [("earthdistance", PUBLIC), ("cube", PUBLIC)];
        assert_eq!(
            steps(&["earthdistance", "cube", "hstore"], &[], &found),
            [
                ok("cube", Step::AsFound(PUBLIC.to_owned())),
                ok("earthdistance", Step::AsFound(PUBLIC.to_owned())),
                ok("hstore", Step::AsOwner(Some(PUBLIC))),
            ]
        );
    }

    #[test]
    fn an_unknown_extension_and_a_circle_are_reported() {
        assert!(steps(&["nothing"], &[], &[])[0].1.is_err());
        assert_eq!(steps(&["one", "other"], &[], &[]).len(), 2, "a circle has an end");
    }
}
