//! The extensions of a database. An extension's script runs as the superuser, with its target schema first in
//! the search path, and those of the extensions that it requires after it: an object that a tenant created
//! there could be called instead of the intended one.
//!
//! PostgreSQL marks extensions as trusted whose scripts are safe against that. They are created as the owner,
//! by a login that is no superuser, into `public` or the declared schema. All others, and those that they
//! require, go into a schema in which only the superuser can create objects.

mod catalog;
pub mod jobs;
mod plan;
pub mod scheduler;
pub(super) mod search_path;
mod version;

use tokio_postgres::Client;

use self::plan::{GUARDED, PUBLIC, Place, Step};
use super::as_owner::{as_owner, as_owner_in};
use super::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::extension::{CRON, Extension};
use crate::postgres::{ident, literal};

pub(super) use self::catalog::IS_GUARDED;
pub use self::plan::Places;

/// The search path of a session that creates or updates an extension as the owner. PostgreSQL sets another one for the
/// script, but `postgis_tiger_geocoder` sets it once more, from the session's default, and then needs PostGIS in it.
pub(super) const OWNERS_PATH: &str = "public,servicedb_extensions";

/// The extensions that are not as declared. The rest serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmet {
    /// Those that a person must correct, each with the problem.
    pub problems: Vec<String>,
    /// Those that a planned restart of PostgreSQL resolves, or another attempt.
    pub waiting: Vec<String>,
}

impl Unmet {
    /// Whether all are as declared.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Creates the guarded schema before a tenant can, and the declared extensions that are missing; updates and
/// moves the others as declared.
///
/// `found` has the schemas of the extensions in a database that this one is compared with.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn install(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    declared: &[Extension],
    found: &Places,
) -> Result<Unmet, EnsureError> {
    guard(client, GUARDED).await?;
    let installed = catalog::installed(client).await?;
    let declares_cron = declared.iter().any(|extension| extension.name == CRON);
    // Whether or not a step follows: a person may have reset its settings.
    let is_loaded = declares_cron && scheduler::prepare(client, names, !installed.contains_key(CRON)).await?;
    let mut unmet = Unmet::default();
    if !plan::is_met(declared, &installed) {
        let available = catalog::available(client).await?;
        for (name, step) in plan::plan(declared, &available, &installed, found, names.in_commands()) {
            if name == CRON && matches!(step, Ok(Step::Create(..))) && !is_loaded {
                match scheduler::lacking(client).await? {
                    Some(problem) => unmet.problems.push(EnsureError::Extension { name, problem }.to_string()),
                    None => unmet
                        .waiting
                        .push(format!("{CRON} is created after a restart of PostgreSQL, which loads its library")),
                }
                continue;
            }
            let done = match step {
                Ok(step) => take(client, socket, names, &name, &step).await,
                Err(problem) => Err(EnsureError::Extension { name, problem }),
            };
            unmet.problems.extend(done.err().map(|error| error.to_string()));
        }
    }
    // A session that reads the table, for one, holds it up: the rest does not wait for that.
    if declares_cron && let Err(error) = scheduler::admit(client, names).await {
        unmet.waiting.push(error.to_string());
    }
    Ok(unmet)
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

async fn take(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    name: &str,
    step: &Step,
) -> Result<(), EnsureError> {
    let what = format!("spec.postgres.extensions, {name}");
    let owners_schema = |schema: &str| match schema {
        PUBLIC => String::new(),
        _ => format!("CREATE SCHEMA IF NOT EXISTS {}; ", ident(schema)),
    };
    let path = search_path::of_database(client).await;
    let path = path.map_err(|source| EnsureError::Statement { what: what.clone(), source })?;
    let keeping = |statement: &str| search_path::keeping(&names.database, path.as_deref(), statement);
    match step {
        Step::Create(place, version) => {
            let create = |schema: Option<&str>| {
                let schema = schema.map(|schema| format!(" SCHEMA {}", ident(schema))).unwrap_or_default();
                let version = version.as_ref().map(|it| format!(" VERSION {}", literal(it))).unwrap_or_default();
                format!("CREATE EXTENSION IF NOT EXISTS {}{schema}{version}", ident(name))
            };
            match place {
                Place::AsFound(schema) => execute(client, &what, &keeping(&create(Some(schema)))).await,
                Place::Guarded(schema) => {
                    must_be_guarded(client, name, schema).await?;
                    execute(client, &what, &keeping(&create(Some(schema)))).await
                }
                Place::AsOwner(schema) => {
                    let prepare = schema.as_deref().map(owners_schema).unwrap_or_default();
                    let statements = prepare + &keeping(&create(schema.as_deref()));
                    as_owner_in(socket, names, OWNERS_PATH, &what, &statements).await
                }
            }
        }
        Step::Move { schema, by_owner } => {
            if *by_owner {
                as_owner(socket, names, &what, &owners_schema(schema)).await?;
                must_be_the_owners(client, names, name, schema).await?;
            } else {
                must_be_guarded(client, name, schema).await?;
            }
            // The objects of a trusted extension belong to the superuser, so its owner cannot move them. It is a change of
            // catalogs, which runs no code.
            execute(client, &what, &format!("ALTER EXTENSION {} SET SCHEMA {}", ident(name), ident(schema))).await
        }
        Step::Update { version, as_owner: by_owner } => {
            let statement = keeping(&format!("ALTER EXTENSION {} UPDATE TO {}", ident(name), literal(version)));
            if *by_owner {
                return as_owner_in(socket, names, OWNERS_PATH, &what, &statement).await;
            }
            execute(client, &what, &statement).await
        }
    }
}

/// Creates a schema if it is missing, for an extension that runs as the superuser.
async fn must_be_guarded(client: &Client, name: &str, schema: &str) -> Result<(), EnsureError> {
    if schema == "pg_catalog" || guard(client, schema).await? {
        return Ok(());
    }
    let problem = format!(
        "it runs as the superuser, and other roles may create objects in its schema {schema}: declare another schema, or \
         rename that one (ALTER SCHEMA {} RENAME TO …)",
        ident(schema)
    );
    Err(EnsureError::Extension { name: name.to_owned(), problem })
}

/// Checks that the owner may create objects in a schema, as its extension is moved there by the superuser.
async fn must_be_the_owners(
    client: &Client,
    names: &PostgresNames,
    name: &str,
    schema: &str,
) -> Result<(), EnsureError> {
    let query = "SELECT has_schema_privilege($1::text::name, n.oid, 'CREATE') FROM pg_namespace n WHERE n.nspname = $2";
    let failed = |source| EnsureError::Statement { what: format!("schema {schema}"), source };
    let row = client.query_opt(query, &[&names.owner(), &schema]).await.map_err(failed)?;
    if row.map(|row| row.try_get(0)).transpose().map_err(failed)? == Some(true) {
        return Ok(());
    }
    let problem =
        format!("the owner of the database may not create objects in the schema {schema}: declare another one");
    Err(EnsureError::Extension { name: name.to_owned(), problem })
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
    if let Some(guarded) = is_guarded().await? {
        return Ok(guarded);
    }
    // One message is one transaction. The rights of a schema that exists are those that somebody gave it.
    let schema = ident(schema);
    execute(client, &what, &format!("CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC")).await?;
    Ok(is_guarded().await?.unwrap_or(false))
}
