//! Connections to the database.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{self, ConfigError, Database};
use crate::problem::Problem;

/// The name of the gateway's own connections in `pg_stat_activity`.
const APPLICATION: &str = "servicedb-gateway";
/// The longest time of a login.
const LOGIN: Duration = Duration::from_secs(10);
/// The same at a replica, whose place the primary takes.
const REPLICA_LOGIN: Duration = Duration::from_secs(2);
/// How long the files of a certificate may not belong together while they are renewed.
const RENEWAL: Duration = Duration::from_millis(100);
/// The longest time that a cancel request may take.
const CANCEL: Duration = Duration::from_secs(5);

/// The code of a caller's role that the login cannot take: no sign of a database that does not answer.
pub(super) const ROLE: &str = "SDB305";

/// Makes connections. Certificates and password are read at each, since they are renewed.
#[derive(Debug, Clone)]
pub struct Connector {
    database: Database,
    /// The longest time of a login.
    login: Duration,
}

impl Connector {
    /// For this database.
    pub fn new(database: Database) -> Self {
        Self { database, login: LOGIN }
    }

    /// For the replicas of this database, if it has any.
    pub fn of_replicas(database: &Database) -> Option<Self> {
        let replicas = database.replicas.as_ref()?;
        let database = Database { host: replicas.host.clone(), port: replicas.port, ..database.clone() };
        Some(Self { database, login: REPLICA_LOGIN })
    }

    /// A connection with these startup options.
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub async fn connect(&self, options: &str) -> Result<Client, Problem> {
        Ok(self.connect_as(APPLICATION, options).await?.0)
    }

    /// A connection with this name in `pg_stat_activity`. For callers it is that of their role: the view has the login
    /// alone, and sessions are counted by client. With it comes the task that has its socket: what it waits for from the
    /// server keeps it open, though nobody has the client any more.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_as(&self, name: &str, options: &str) -> Result<(Client, AbortHandle), Problem> {
        let password = self.password().map_err(unusable)?;
        let mut config = Config::new();
        config
            .host(&self.database.host)
            .port(self.database.port)
            .dbname(&self.database.name)
            .user(&self.database.user)
            .application_name(name)
            .options(options)
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30));
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        match self.renewed_tls().await.map_err(unusable)? {
            Some(tls) => {
                config.ssl_mode(SslMode::Require);
                let (client, connection) = in_time(self.login, config.connect(tls)).await?;
                Ok((client, tokio::spawn(connection).abort_handle()))
            }
            None => {
                let (client, connection) = in_time(self.login, config.connect(NoTls)).await?;
                Ok((client, tokio::spawn(connection).abort_handle()))
            }
        }
    }

    /// Asks the server to end what a connection runs. Behind one address of several servers another one may be asked,
    /// which knows nothing of it.
    pub async fn cancel(&self, token: CancelToken) {
        let cancelled = async {
            match self.tls() {
                Ok(Some(tls)) => token.cancel_query(tls).await,
                Ok(None) => token.cancel_query(NoTls).await,
                Err(_) => Ok(()),
            }
        };
        if let Ok(Err(error)) = tokio::time::timeout(CANCEL, cancelled).await {
            tracing::debug!(%error, "a statement could not be cancelled");
        }
    }

    /// The files as they are now. Certificate and key are two files: between both a renewal may have come.
    async fn renewed_tls(&self) -> Result<Option<MakeRustlsConnect>, ConfigError> {
        match self.tls() {
            Err(_) => {
                tokio::time::sleep(RENEWAL).await;
                self.tls()
            }
            found => found,
        }
    }

    fn password(&self) -> Result<Option<SecretString>, ConfigError> {
        let Some(path) = &self.database.password_file else { return Ok(None) };
        let text = String::from_utf8_lossy(&config::file(path)?).trim_end().to_owned();
        Ok(Some(SecretString::from(text)))
    }

    fn tls(&self) -> Result<Option<MakeRustlsConnect>, ConfigError> {
        let Some(ca) = &self.database.ca else { return Ok(None) };
        let invalid = |path: &std::path::Path, error: &dyn std::fmt::Display| ConfigError::File {
            path: path.to_owned(),
            problem: error.to_string(),
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&config::file(ca)?) {
            let certificate = certificate.map_err(|error| invalid(ca, &error))?;
            roots.add(certificate).map_err(|error| invalid(ca, &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(ca, &error))?
            .with_root_certificates(roots);
        let config = match &self.database.client {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(&config::file(&files.certificate)?).collect();
                let chain = chain.map_err(|error| invalid(&files.certificate, &error))?;
                let key = PrivateKeyDer::from_pem_slice(&config::file(&files.key)?)
                    .map_err(|error| invalid(&files.key, &error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| invalid(&files.certificate, &error))?
            }
        };
        Ok(Some(MakeRustlsConnect::new(config)))
    }
}

/// The settings that the database and the login give to a new session, as a text. A session keeps those that it began
/// with, though they are changed: they decide how values are read and written, and what policies see.
pub(super) const DEFAULTS: &str = "SELECT coalesce(pg_catalog.string_agg(c.setting, E'\\n' \
     ORDER BY s.setdatabase, s.setrole, c.place), '') FROM pg_catalog.pg_db_role_setting s \
     CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) WITH ORDINALITY AS c(setting, place) \
     WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())) \
     AND s.setrole IN (0, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = session_user))";

/// Startup options of a session as this role: they count before the first statement, and `RESET` brings them back.
pub fn session(role: &str, schemas: &[String], statement_milliseconds: u64, claims: &str) -> String {
    let path: Vec<_> = schemas.iter().map(|schema| format!("\"{}\"", schema.replace('"', "\"\""))).collect();
    let settings = [
        format!("role={role}"),
        format!("search_path={}", path.join(",")),
        format!("statement_timeout={statement_milliseconds}"),
        "lock_timeout=10000".to_owned(),
        "idle_in_transaction_session_timeout=30000".to_owned(),
        // Ends the statement of a connection that was closed under it.
        "client_connection_check_interval=1000".to_owned(),
        "datestyle=ISO".to_owned(),
        // As many digits as tell each number from the next.
        "extra_float_digits=1".to_owned(),
        "client_encoding=UTF8".to_owned(),
        "standard_conforming_strings=on".to_owned(),
        format!("request.jwt.claims={claims}"),
    ];
    settings.iter().map(|setting| format!("-c {}", escaped(setting))).collect::<Vec<_>>().join(" ")
}

/// White space and backslashes within one startup option.
fn escaped(option: &str) -> String {
    let mut text = String::new();
    for next in option.chars() {
        if next == '\\' || next.is_whitespace() {
            text.push('\\');
        }
        text.push(next);
    }
    text
}

async fn in_time<T>(
    patience: Duration,
    login: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(patience, login).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            let cause = error
                .as_db_error()
                .map_or_else(|| sources(&error), |db| format!("{} ({})", db.message(), db.code().code()));
            tracing::warn!(cause, "the database refused a connection, or could not be reached");
            // The server answers, but not to this caller's role.
            let role = error.as_db_error().is_some_and(|db| ["22023", "42501", "42704"].contains(&db.code().code()));
            Err(if role { forbidden_role() } else { down() })
        }
        Err(_) => {
            tracing::warn!("the database accepted a connection and did not answer");
            Err(down())
        }
    }
}

fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn unusable(error: ConfigError) -> Problem {
    tracing::error!(%error, "the settings of the database cannot be used");
    down()
}

/// The answer to callers whose role is missing, or is not one of the login's.
fn forbidden_role() -> Problem {
    Problem::unavailable(ROLE, "the gateway cannot take the role of this caller")
        .hint("grant the role to the gateway's login, WITH INHERIT FALSE, SET TRUE")
}

fn down() -> Problem {
    let mut problem = Problem::unavailable("08001", "the database cannot be reached");
    problem.connection_lost = true;
    problem
}
