//! Connections: the local socket as superuser (peer), or TCP with TLS and a password.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::immune;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An open connection; dropping it says goodbye to the server.
pub struct Connection {
    /// The client.
    pub client: Client,
    driver: JoinHandle<()>,
}

impl Connection {
    /// A connection whose messages this task moves.
    pub(super) fn new(client: Client, driver: JoinHandle<()>) -> Self {
        Self { client, driver }
    }

    /// Whether the connection is over: the server ended it, or the network.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.is_finished()
    }

    /// Waits until the connection is over.
    pub async fn closed(&mut self) {
        if !self.driver.is_finished() {
            // An error would be a cancelled task, which only dropping the connection does.
            let _ = (&mut self.driver).await;
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server refused, or was not there. `tokio_postgres` errors carry no password.
    #[error("connecting to {target} as {user}: {}", describe(source))]
    Postgres {
        /// Host and port, or socket.
        target: String,
        /// The role.
        user: String,
        /// The cause.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The local socket.
    #[error("connecting to {target}: {source}")]
    Socket {
        /// The socket.
        target: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The authority's certificate is not readable.
    #[error("the certificate authority for {target} is not readable: {problem}")]
    Authority {
        /// Host and port.
        target: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The server's message where there is one; `tokio_postgres` prints only "db error".
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            text
        }
    }
}

/// A login over TCP with TLS, as `sslmode=verify-full` does it.
pub struct TlsLogin<'a> {
    /// The host name; the server's certificate must name it.
    pub host: &'a str,
    /// The IP address to connect to instead of resolving `host`.
    pub address: Option<std::net::IpAddr>,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
    /// Its password.
    pub password: &'a SecretString,
    /// The authority, PEM.
    pub ca: &'a str,
    /// Shows in `pg_stat_activity`.
    pub application_name: &'a str,
    /// Startup options: one of [`super::immune`], or none for a session as any client has it.
    pub options: &'static str,
}

/// Connects over TCP with TLS and a password.
///
/// # Errors
/// If the authority is not readable, or the server refuses or is not there.
pub async fn over_tls(login: &TlsLogin<'_>) -> Result<Connection, ConnectError> {
    let target = format!("{}:{}", login.host, login.port);
    let tls = tls(login)?;

    let mut config = Config::new();
    config
        .host(login.host)
        .port(login.port)
        .dbname(login.database)
        .user(login.user)
        .password(login.password.expose_secret())
        .application_name(login.application_name)
        .options(login.options)
        .ssl_mode(tokio_postgres::config::SslMode::Require)
        .connect_timeout(CONNECT_TIMEOUT);
    if let Some(address) = login.address {
        config.hostaddr(address);
    }
    let (client, connection) = config.connect(tls).await.map_err(|source| ConnectError::Postgres {
        target: target.clone(),
        user: login.user.to_owned(),
        source,
    })?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "a PostgreSQL connection ended");
        }
    });
    Ok(Connection { client, driver })
}

/// Asks the server to end what a connection of this login is running. Whether it did shows in
/// how that ends.
///
/// # Errors
/// If the server cannot be asked.
pub async fn cancel_over_tls(login: &TlsLogin<'_>, client: &Client) -> Result<(), ConnectError> {
    let target = format!("{}:{}", login.host, login.port);
    client.cancel_token().cancel_query(tls(login)?).await.map_err(|source| ConnectError::Postgres {
        target,
        user: login.user.to_owned(),
        source,
    })
}

fn tls(login: &TlsLogin<'_>) -> Result<MakeRustlsConnect, ConnectError> {
    let authority =
        |problem: String| ConnectError::Authority { target: format!("{}:{}", login.host, login.port), problem };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(login.ca.as_bytes()) {
        let certificate = certificate.map_err(|error| authority(error.to_string()))?;
        roots.add(certificate).map_err(|error| authority(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| authority(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Connects over the local socket as the superuser `postgres`, by peer authentication.
///
/// # Errors
/// If the server refuses or is not there.
pub async fn over_socket(directory: &str, database: &str, application_name: &str) -> Result<Connection, ConnectError> {
    let mut config = local(directory, database, application_name);
    connect_locally(&mut config, immune::SUPERUSER, directory, "postgres").await
}

/// Connects over the local socket as a role that the server lets in there, and that is no superuser.
///
/// # Errors
/// If the server refuses or is not there.
pub async fn over_socket_as(
    directory: &str,
    database: &str,
    user: &str,
    application_name: &str,
) -> Result<Connection, ConnectError> {
    let mut config = local(directory, database, application_name);
    connect_locally(config.user(user), immune::MIGRATOR, directory, user).await
}

async fn connect_locally(
    config: &mut Config,
    options: &str,
    directory: &str,
    user: &str,
) -> Result<Connection, ConnectError> {
    let (client, connection) = with_options(config, options).await.map_err(|source| ConnectError::Postgres {
        target: directory.to_owned(),
        user: user.to_owned(),
        source,
    })?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "a local PostgreSQL connection ended");
        }
    });
    Ok(Connection { client, driver })
}

/// Connects with startup options; of a server before PostgreSQL 17 without the one that came with it.
async fn with_options(
    config: &mut Config,
    options: &str,
) -> Result<(Client, tokio_postgres::Connection<tokio_postgres::Socket, NoTlsStream>), tokio_postgres::Error> {
    match config.options(options).connect(NoTls).await {
        Err(error) if is_before_17(&error) => config.options(immune::before_17(options)).connect(NoTls).await,
        result => result,
    }
}

/// Whether a server refused a startup option that only later versions have.
pub(super) fn is_before_17(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_OBJECT)
}

/// Connects over the local socket as a role, and listens on a channel: each notification is a
/// message of the receiver, whose end is the connection's.
///
/// # Errors
/// If the server refuses or is not there.
pub async fn listen(
    directory: &str,
    database: &str,
    user: &str,
    application_name: &str,
    channel: &str,
) -> Result<(Connection, mpsc::Receiver<()>), ConnectError> {
    let failed = |source| ConnectError::Postgres { target: directory.to_owned(), user: user.to_owned(), source };
    let mut config = local(directory, database, application_name);
    let (client, mut connection) = with_options(config.user(user), immune::MIGRATOR).await.map_err(failed)?;
    // One waiting message says all: the content is read anew after it.
    let (sender, receiver) = mpsc::channel(1);
    let driver = tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(_) = message {
                let _ = sender.try_send(());
            }
        }
    });
    let connection = Connection { client, driver };
    connection.client.batch_execute(&format!("LISTEN {}", super::ident(channel))).await.map_err(failed)?;
    Ok((connection, receiver))
}

fn local(directory: &str, database: &str, application_name: &str) -> Config {
    let mut config = Config::new();
    config
        .host(directory)
        .port(crate::contract::pod::POSTGRES_PORT)
        .dbname(database)
        .user("postgres")
        .application_name(application_name)
        .connect_timeout(CONNECT_TIMEOUT);
    config
}
