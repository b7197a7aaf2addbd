//! Connections: the local socket as superuser (peer), or TCP with TLS and a password.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::immune;

/// Timeout of the TCP connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of the whole login. `tokio_postgres` limits only the connect: the TLS handshake and the authentication
/// would wait forever for a server that was stopped, or whose pod has vanished, once the kernel accepted the connection.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection without traffic is probed after this time, and then every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Interval between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered probes after which the connection is closed.
const KEEPALIVE_RETRIES: u32 = 3;
/// The longest time that sent data may stay unacknowledged before the connection is closed.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a dropped connection may take to close.
const GOODBYE: Duration = Duration::from_secs(2);

/// An open connection; dropping it closes it.
pub struct Connection {
    /// The client.
    pub client: Client,
    driver: JoinHandle<()>,
}

impl Connection {
    /// A connection whose messages this task processes.
    pub(super) fn new(client: Client, driver: JoinHandle<()>) -> Self {
        Self { client, driver }
    }

    /// Whether the connection is closed, by the server or by a network failure.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.is_finished()
    }

    /// Waits until the connection is closed.
    pub async fn closed(&mut self) {
        if !self.driver.is_finished() {
            // An error means a cancelled task, which only dropping the connection causes.
            let _ = (&mut self.driver).await;
        }
    }
}

/// The client closes the connection once the server has answered all requests. A server that waits for
/// data (`COPY … FROM STDIN`) or runs an endless statement never does, and would keep the session with
/// its locks for as long as this process runs: its connection is closed after this time.
impl Drop for Connection {
    fn drop(&mut self) {
        let driver = self.driver.abort_handle();
        if driver.is_finished() {
            return;
        }
        // Without a runtime the task has ended with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(GOODBYE).await;
                driver.abort();
            });
        }
    }
}

/// The cause of a failed connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server refused, or does not run. `tokio_postgres` errors contain no password.
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
    /// The server accepted the connection, and the login did not end in time.
    #[error("connecting to {target} as {user}: the server accepted the connection and did not answer within {} s", LOGIN_TIMEOUT.as_secs())]
    Unanswered {
        /// Host and port, or socket.
        target: String,
        /// The role.
        user: String,
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
        /// The problem.
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
    /// Shown in `pg_stat_activity`.
    pub application_name: &'a str,
    /// Startup options: one of [`super::immune`], or none for a session like any client's.
    pub options: &'static str,
}

/// Connects over TCP with TLS and a password.
///
/// # Errors
/// If the authority is not readable, or the server refuses or does not run.
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
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(TCP_USER_TIMEOUT);
    if let Some(address) = login.address {
        config.hostaddr(address);
    }
    let (client, connection) = in_time(config.connect(tls), &target, login.user).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "a PostgreSQL connection ended");
        }
    });
    Ok(Connection { client, driver })
}

/// Waits for a login, [`LOGIN_TIMEOUT`] at most.
async fn in_time<T>(
    login: impl Future<Output = Result<T, tokio_postgres::Error>>,
    target: &str,
    user: &str,
) -> Result<T, ConnectError> {
    match tokio::time::timeout(LOGIN_TIMEOUT, login).await {
        Ok(result) => {
            result.map_err(|source| ConnectError::Postgres { target: target.to_owned(), user: user.to_owned(), source })
        }
        Err(_) => Err(ConnectError::Unanswered { target: target.to_owned(), user: user.to_owned() }),
    }
}

/// A login by client certificate, over TCP with TLS; the server's certificate must name the host.
pub struct CertificateLogin<'a> {
    /// The host name.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: &'a str,
    /// The role, which the certificate names.
    pub user: &'a str,
    /// The certificate, PEM.
    pub certificate: &'a [u8],
    /// Its key, PEM.
    pub key: &'a SecretString,
    /// The authority, PEM.
    pub ca: &'a str,
    /// Shown in `pg_stat_activity`.
    pub application_name: &'a str,
    /// Startup options: one of [`super::immune`].
    pub options: &'static str,
}

/// Connects over TCP with a client certificate, within this time.
///
/// # Errors
/// If a certificate is not readable, or the server refuses, does not run or does not answer in time.
pub async fn by_certificate(login: &CertificateLogin<'_>, patience: Duration) -> Result<Connection, ConnectError> {
    let target = format!("{}:{}", login.host, login.port);
    let unreadable = |problem: String| ConnectError::Authority { target: target.clone(), problem };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(login.certificate).collect();
    let chain = chain.map_err(|error| unreadable(error.to_string()))?;
    // The error names no content.
    let key = PrivateKeyDer::from_pem_slice(login.key.expose_secret().as_bytes());
    let key = key.map_err(|_| unreadable("the client's key is not PEM".to_owned()))?;
    let config = trusting(login.ca, &unreadable)?.with_client_auth_cert(chain, key);
    let tls = MakeRustlsConnect::new(config.map_err(|error| unreadable(error.to_string()))?);
    let mut config = Config::new();
    config
        .host(login.host)
        .port(login.port)
        .dbname(login.database)
        .user(login.user)
        .application_name(login.application_name)
        .options(login.options)
        .ssl_mode(tokio_postgres::config::SslMode::Require)
        .connect_timeout(patience)
        .tcp_user_timeout(patience);
    let connected = tokio::time::timeout(patience, in_time(config.connect(tls), &target, login.user)).await;
    let unanswered = || ConnectError::Unanswered { target: target.clone(), user: login.user.to_owned() };
    let (client, connection) = connected.map_err(|_| unanswered())??;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "a PostgreSQL connection ended");
        }
    });
    Ok(Connection { client, driver })
}

/// Requests that the server cancels the running statement of a connection of this login. The
/// result of that statement shows whether it did.
///
/// # Errors
/// If the request cannot be sent.
pub async fn cancel_over_tls(login: &TlsLogin<'_>, client: &Client) -> Result<(), ConnectError> {
    let target = format!("{}:{}", login.host, login.port);
    in_time(client.cancel_token().cancel_query(tls(login)?), &target, login.user).await
}

fn tls(login: &TlsLogin<'_>) -> Result<MakeRustlsConnect, ConnectError> {
    let authority =
        |problem: String| ConnectError::Authority { target: format!("{}:{}", login.host, login.port), problem };
    Ok(MakeRustlsConnect::new(trusting(login.ca, &authority)?.with_no_client_auth()))
}

/// A TLS client that trusts these authorities, PEM.
fn trusting(
    ca: &str,
    authority: &impl Fn(String) -> ConnectError,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>, ConnectError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate = certificate.map_err(|error| authority(error.to_string()))?;
        roots.add(certificate).map_err(|error| authority(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| authority(error.to_string()))?
        .with_root_certificates(roots);
    Ok(config)
}

/// Connects over the local socket as the superuser `postgres`, by peer authentication.
///
/// # Errors
/// If the server refuses or does not run.
pub async fn over_socket(directory: &str, database: &str, application_name: &str) -> Result<Connection, ConnectError> {
    let mut config = local(directory, database, application_name);
    connect_locally(&mut config, immune::SUPERUSER, directory, "postgres").await
}

/// Connects over the local socket as a role that the server accepts there, and that is not a superuser.
///
/// # Errors
/// If the server refuses or does not run.
pub async fn over_socket_as(
    directory: &str,
    database: &str,
    user: &str,
    application_name: &str,
) -> Result<Connection, ConnectError> {
    let mut config = local(directory, database, application_name);
    connect_locally(config.user(user), immune::MIGRATOR, directory, user).await
}

/// The same with startup options of the caller: one of [`super::immune`], or none.
///
/// # Errors
/// If the server refuses or does not run.
pub async fn over_socket_with(
    directory: &str,
    database: &str,
    user: &str,
    application_name: &str,
    options: &str,
) -> Result<Connection, ConnectError> {
    let mut config = local(directory, database, application_name);
    connect_locally(config.user(user), options, directory, user).await
}

async fn connect_locally(
    config: &mut Config,
    options: &str,
    directory: &str,
    user: &str,
) -> Result<Connection, ConnectError> {
    let (client, connection) = in_time(with_options(config, options), directory, user).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "a local PostgreSQL connection ended");
        }
    });
    Ok(Connection { client, driver })
}

/// Connects with startup options; before PostgreSQL 17, without the option that version added.
async fn with_options(
    config: &mut Config,
    options: &str,
) -> Result<(Client, tokio_postgres::Connection<tokio_postgres::Socket, NoTlsStream>), tokio_postgres::Error> {
    match config.options(options).connect(NoTls).await {
        Err(error) if is_before_17(&error) => config.options(immune::before_17(options)).connect(NoTls).await,
        result => result,
    }
}

/// Whether a server refused a startup option that only later versions support.
pub(super) fn is_before_17(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_OBJECT)
}

/// Connects to the admin console of a PgBouncer on its local socket, as the user of this name.
///
/// # Errors
/// If PgBouncer refuses or does not run.
pub async fn local_console(directory: &str, port: u16, name: &str) -> Result<Connection, ConnectError> {
    let mut config = Config::new();
    config.host(directory).port(port).dbname(name).user(name).connect_timeout(CONNECT_TIMEOUT);
    let (client, connection) = in_time(config.connect(NoTls), directory, name).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "a connection to the console ended");
        }
    });
    Ok(Connection { client, driver })
}

/// Connects over the local socket as a role, and listens on a channel: each notification is a
/// message of the receiver, which ends with the connection.
///
/// # Errors
/// If the server refuses or does not run.
pub async fn listen(
    directory: &str,
    database: &str,
    user: &str,
    application_name: &str,
    channel: &str,
) -> Result<(Connection, mpsc::Receiver<()>), ConnectError> {
    let failed = |source| ConnectError::Postgres { target: directory.to_owned(), user: user.to_owned(), source };
    let mut config = local(directory, database, application_name);
    let (client, mut connection) = in_time(with_options(config.user(user), immune::MIGRATOR), directory, user).await?;
    // One queued message is enough: the receiver reads the content again after it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_login_that_nobody_answers_ends_in_time() {
        let begin = tokio::time::Instant::now();
        let silence = std::future::pending::<Result<(), tokio_postgres::Error>>();
        let error = in_time(silence, "chat-db.messaging.svc:5432", "chat_a").await.expect_err("no login");
        assert_eq!(begin.elapsed(), LOGIN_TIMEOUT);
        assert!(matches!(error, ConnectError::Unanswered { .. }), "{error}");
        assert!(error.to_string().starts_with("connecting to chat-db.messaging.svc:5432 as chat_a: "), "{error}");
    }
}
