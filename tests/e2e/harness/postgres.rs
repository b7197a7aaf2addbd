//! Logins to a database, as a service makes them: credentials from Vault, TLS `verify-full`.
//! The connection goes to the Service's cluster IP, which this machine reaches; the host name
//! of the record is what the server's certificate must name.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::DeleteParams;
use servicedb::postgres::{ConnectError, Connection, TlsLogin, over_tls};
use tokio_postgres::SimpleQueryMessage;

use super::sandbox::Sandbox;
use super::wait::until;
use super::{READY, SOON};

/// How long a statement may take, whatever becomes of the server meanwhile.
const STATEMENT: Duration = Duration::from_secs(60);

/// What a service reads from Vault.
#[derive(Clone)]
pub struct Credentials {
    /// The login.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database.
    pub database: String,
    /// The host name.
    pub host: String,
    /// The authority that signed the server's certificate, PEM.
    pub ca: String,
}

impl Sandbox {
    /// The credentials of a database, as Vault has them for its service.
    pub async fn credentials(&self, name: &str) -> Credentials {
        self.credentials_and_generation(name).await.1
    }

    /// The same, and their generation, in one look.
    pub async fn credentials_and_generation(&self, name: &str) -> (i64, Credentials) {
        self.credentials_at(name, &self.vault_names(name).runtime()).await
    }

    /// The credentials of a client that has a login of its own.
    pub async fn credentials_of(&self, name: &str, client: &str) -> (i64, Credentials) {
        self.credentials_at(name, &self.vault_names(name).client_runtime(client)).await
    }

    /// A new short-lived login of a client. Where the server is comes from the shared record: it is the same for all.
    pub async fn leased(&self, name: &str, client: &str) -> Credentials {
        let shared = self.credentials(name).await;
        until(&format!("Vault makes a login of {client} of {name}"), SOON, || self.try_leased(name, client, &shared))
            .await
    }

    /// The same, where Vault may not have the client yet.
    ///
    /// # Errors
    /// Vault's answer.
    pub async fn try_leased(&self, name: &str, client: &str, shared: &Credentials) -> Result<Credentials, String> {
        let path = format!("database/creds/{}", self.vault_names(name).engine_role(client));
        let login = self.vault().try_read(&path).await?;
        let text = |key: &str| login[key].as_str().unwrap_or_default().to_owned();
        Ok(Credentials { user: text("username"), password: text("password"), ..shared.clone() })
    }

    async fn credentials_at(&self, name: &str, path: &str) -> (i64, Credentials) {
        let record = self.vault().record(path).await.unwrap_or_else(|| panic!("Vault has no {path}"));
        let prefix = name.replace('-', "_").to_uppercase();
        let key = |key: &str| {
            let key = format!("{prefix}_DB_{key}");
            record[&key].as_str().unwrap_or_else(|| panic!("{path} has no {key}")).to_owned()
        };
        let generation = record["SERVICEDB_GENERATION"].as_str().and_then(|text| text.parse().ok());
        let credentials = Credentials {
            user: key("USER"),
            password: key("PASSWORD"),
            database: key("NAME"),
            host: key("HOST"),
            ca: key("CA"),
        };
        (generation.unwrap_or_else(|| panic!("{path} has no generation")), credentials)
    }

    /// The cluster IP of a Service.
    pub async fn address(&self, service: &str) -> IpAddr {
        let service =
            self.api::<Service>().get(service).await.unwrap_or_else(|error| panic!("Service {service}: {error}"));
        let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        address.parse().unwrap_or_else(|_| panic!("the Service has no cluster IP: {address:?}"))
    }

    /// Logs in with credentials at the primary of a database, whose own they need not be.
    ///
    /// # Errors
    /// If the server refuses or is not there.
    pub async fn login(&self, name: &str, credentials: &Credentials) -> Result<Connection, ConnectError> {
        let names = self.names(name);
        let address = self.address(&names.base()).await;
        login_at(address, &names.primary_host(), credentials).await
    }

    /// Deletes the primary's pod without its grace, and waits until another server answers: another instance, or the next
    /// pod of this name, which still holds the lease.
    pub async fn lose_primary(&self, name: &str) {
        let credentials = self.credentials(name).await;
        let started = || async {
            let connection = self.login(name, &credentials).await.map_err(|error| error.to_string())?;
            let started = column(&connection, "SELECT pg_catalog.pg_postmaster_start_time()::text").await;
            started.map_err(|refusal| refusal.message)
        };
        let before = started().await.expect("a primary");
        let at_once = DeleteParams::default().grace_period(0);
        self.api::<Pod>().delete(&self.primary(name).await, &at_once).await.expect("the primary's pod");
        until("another server answers", READY, || async {
            let now = started().await?;
            if now == before { Err(format!("the one of {now:?}")) } else { Ok(()) }
        })
        .await;
    }

    /// Logs in at the primary with what Vault has, once the server is reached: status may tell of a database before its
    /// Service leads there.
    ///
    /// # Panics
    /// At once if the server refuses the login.
    pub async fn connect(&self, name: &str) -> Connection {
        until(&format!("a login at {name}"), SOON, || async {
            let credentials = self.credentials(name).await;
            let connection = self.login(name, &credentials).await.map_err(|error| {
                let is_refused = sqlstate(&error).is_some_and(|code| code.starts_with("28"));
                assert!(!is_refused, "{name}: {error}");
                error.to_string()
            })?;
            // Just after a switchover, the way may still lead to the former primary.
            match column(&connection, "SELECT pg_catalog.pg_is_in_recovery()").await {
                Ok(found) if found == ["f"] => Ok(connection),
                Ok(_) => Err("a replica answers".to_owned()),
                Err(refusal) => Err(refusal.message),
            }
        })
        .await
    }
}

/// Logs in at an address, where the server's certificate must name `host`.
///
/// # Errors
/// If the server refuses or is not there.
pub async fn login_at(address: IpAddr, host: &str, credentials: &Credentials) -> Result<Connection, ConnectError> {
    let password = credentials.password.clone().into();
    over_tls(&TlsLogin {
        host,
        address: Some(address),
        port: 5432,
        database: &credentials.database,
        user: &credentials.user,
        password: &password,
        ca: &credentials.ca,
        application_name: "e2e",
        options: "",
    })
    .await
}

/// The SQLSTATE of a refused login; none if the server was not reached.
pub fn sqlstate(error: &ConnectError) -> Option<String> {
    match error {
        ConnectError::Postgres { source, .. } => source.code().map(|code| code.code().to_owned()),
        ConnectError::Socket { .. } | ConnectError::Authority { .. } | ConnectError::Unanswered { .. } => None,
    }
}

/// Runs statements; the number of rows that the last one returned or changed.
///
/// # Errors
/// The server's, or a lost connection's.
pub async fn run(connection: &Connection, sql: &str) -> Result<u64, Refusal> {
    let messages = answer(connection, sql).await?;
    let counts = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::CommandComplete(count) => Some(*count),
        _ => None,
    });
    Ok(counts.last().unwrap_or(0))
}

/// Runs a query; the first column of its rows.
///
/// # Errors
/// The server's, or a lost connection's.
pub async fn column(connection: &Connection, sql: &str) -> Result<Vec<String>, Refusal> {
    let messages = answer(connection, sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    Ok(rows.collect())
}

async fn answer(connection: &Connection, sql: &str) -> Result<Vec<SimpleQueryMessage>, Refusal> {
    match tokio::time::timeout(STATEMENT, connection.client.simple_query(sql)).await {
        Ok(Ok(messages)) => Ok(messages),
        Ok(Err(error)) => Err(Refusal::from(&error)),
        Err(_) => Err(Refusal { sqlstate: None, constraint: None, message: "no answer in time".to_owned() }),
    }
}

/// The documented `pg_dump` (docs/migrations.md) as the application, as a command in its primary's
/// container.
pub fn dump_command(credentials: &Credentials) -> String {
    format!(
        "PGPASSWORD='{}' pg_dump --no-owner --no-privileges --exclude-schema='servicedb*' \
         'host=127.0.0.1 user={} dbname={} sslmode=require'",
        credentials.password, credentials.user, credentials.database
    )
}

/// Why a statement failed.
#[derive(Debug)]
pub struct Refusal {
    /// The server's SQLSTATE; none if the connection broke.
    pub sqlstate: Option<String>,
    /// The constraint that refused.
    pub constraint: Option<String>,
    /// What was said.
    pub message: String,
}

impl From<&tokio_postgres::Error> for Refusal {
    fn from(error: &tokio_postgres::Error) -> Self {
        let db = error.as_db_error();
        Self {
            sqlstate: db.map(|db| db.code().code().to_owned()),
            constraint: db.and_then(|db| db.constraint().map(str::to_owned)),
            message: db.map_or_else(|| error.to_string(), |db| db.message().to_owned()),
        }
    }
}
