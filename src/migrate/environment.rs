//! The environment of migration Jobs, and their access to the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::files;
use super::outcome::Stopped;
use super::session::Limits;
use super::source::MigrationSet;
use crate::api::conditions::reason;
use crate::api::names::{Names, PostgresNames};
use crate::contract::extension::{self, Extension};
use crate::contract::migration::Policy;
use crate::contract::pod;
use crate::contract::records::MigratorRecord;
use crate::postgres::{Connection, TlsLogin, immune, over_tls};
use crate::vault::{Vault, pod as pod_vault};

/// A Job's settings, from its environment.
pub struct Job {
    /// The names in PostgreSQL, including the database's.
    pub names: PostgresNames,
    /// The primary's host name.
    pub host: String,
    /// The revision that the ledger records on completion.
    pub revision: String,
    /// How to apply it.
    pub policy: Policy,
    /// The folder with the files of an image; the revision then identifies the image reference.
    pub image_folder: Option<PathBuf>,
    /// The database's extensions.
    pub extensions: Vec<Extension>,
    /// The search path that the spec sets for the server, if it sets one.
    pub search_path: Option<String>,
}

/// A login to the database.
pub struct Access {
    /// The role.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// The authority of the database, PEM.
    pub ca: String,
}

impl Job {
    /// Reads it.
    ///
    /// # Errors
    /// If a value is missing or invalid.
    pub fn from_environment() -> Result<Self, Stopped> {
        let read = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
        let get = |variable: &str| {
            read(variable).ok_or_else(|| {
                let message =
                    format!("the environment variable {variable} is not set; the operator sets it in its Jobs");
                Stopped::refused(reason::MIGRATION_FAILED, None, message)
            })
        };
        let names = Names::new("", get(pod::ENV_SERVICE)?).postgres(&get(pod::ENV_DATABASE)?);
        let policy = serde_json::from_str(&get(pod::ENV_MIGRATION_POLICY)?).map_err(|error| {
            let message = format!("the environment variable {} is not readable: {error}", pod::ENV_MIGRATION_POLICY);
            Stopped::refused(reason::MIGRATION_FAILED, None, message)
        })?;
        let image_folder = read(pod::ENV_IMAGE_FOLDER).map(PathBuf::from);
        let names_of = |list: String| list.split(',').map(str::to_owned).collect::<Vec<_>>();
        let extensions = read(pod::ENV_EXTENSIONS).map(names_of).unwrap_or_default();
        let options = read(pod::ENV_EXTENSION_OPTIONS).map(|options| serde_json::from_str(&options)).transpose();
        let options = options.map_err(|error| {
            let message = format!("the environment variable {} is not readable: {error}", pod::ENV_EXTENSION_OPTIONS);
            Stopped::refused(reason::MIGRATION_FAILED, None, message)
        })?;
        Ok(Self {
            names,
            host: get(pod::ENV_HOST)?,
            revision: get(pod::ENV_REVISION)?,
            policy,
            image_folder,
            extensions: extension::declared(&extensions, &options.unwrap_or_default()),
            search_path: read(pod::ENV_SEARCH_PATH),
        })
    }

    /// The role that owns the schema.
    pub fn owner(&self) -> String {
        self.names.owner()
    }

    /// The timeouts.
    pub fn limits(&self) -> Limits {
        Limits {
            table_lock: Duration::from_secs(self.policy.lock_timeout_seconds.into()),
            statement: Duration::from_secs(self.policy.statement_timeout_seconds.into()),
            ..Limits::default()
        }
    }

    /// Reads the migrator's record at each attempt: a rotation may have happened in between.
    ///
    /// # Errors
    /// If Vault does not return it.
    pub async fn access(&self) -> Result<Access, Stopped> {
        let unavailable = |reason: &str, message: String| Stopped::unavailable(reason, message);
        let (vault, settings) =
            pod_vault::client().map_err(|error| unavailable(reason::VAULT_UNREACHABLE, error.to_string()))?;
        let path = format!("{}/migrator", settings.folder);
        let record = vault.read_kv(&path).await.map_err(|error| unavailable(error.reason(), error.to_string()))?;
        let Some(record) = record else {
            let message =
                format!("Vault has no record {path} yet: the operator writes it with the database's credentials");
            return Err(unavailable(reason::CREDENTIALS_PENDING, message));
        };
        let MigratorRecord { user, password, ca, .. } = MigratorRecord::from_data(&record.data)
            .map_err(|error| unavailable(reason::CREDENTIALS_PENDING, error.to_string()))?;
        Ok(Access { user, password, ca })
    }

    /// The login. `name` is shown in `pg_stat_activity`.
    pub fn login<'a>(&'a self, access: &'a Access, name: &'a str) -> TlsLogin<'a> {
        TlsLogin {
            host: &self.host,
            address: None,
            port: pod::POSTGRES_PORT,
            database: &self.names.database,
            user: &access.user,
            password: &access.password,
            ca: &access.ca,
            application_name: name,
            options: immune::MIGRATOR,
        }
    }
}

impl Job {
    /// A session as the migrator, and its credentials.
    ///
    /// # Errors
    /// If Vault or the database is unavailable.
    pub async fn connect(&self) -> Result<(Access, Connection), Stopped> {
        let access = self.access().await?;
        let connection = over_tls(&self.login(&access, &session_name()))
            .await
            .map_err(|error| Stopped::unavailable(reason::NO_PRIMARY, error.to_string()))?;
        Ok((access, connection))
    }

    /// The files of the revision.
    ///
    /// # Errors
    /// If a file cannot be read, or is not a migration.
    pub fn files(&self) -> Result<MigrationSet, Stopped> {
        files::read(self.image_folder.as_deref().unwrap_or(Path::new(pod::MIGRATIONS_DIR)), self.policy.format)
    }
}

/// The application name of a session of this pod, which contains the pod's name.
pub fn session_name() -> String {
    format!("migrate/{}", std::env::var("HOSTNAME").unwrap_or_default())
}
