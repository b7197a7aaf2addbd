//! Connections on which a tenant's code may answer: the client limits the size of the answer, since
//! such code can change every setting of its session.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_postgres::{Config, NoTls};

use super::connect::{ConnectError, Connection, is_before_17};
use super::immune;
use crate::contract::pod::POSTGRES_PORT;

/// Connects over the local socket as a role that the server accepts there. `options` are settings
/// of the session, as `-c name=value`; after `limit` bytes from the server the connection is closed.
///
/// The caller must limit the time.
///
/// # Errors
/// If the server refuses the connection or does not run.
pub async fn bounded_over_socket(
    directory: &str,
    database: &str,
    user: &str,
    application_name: &str,
    options: &str,
    limit: usize,
) -> Result<Connection, ConnectError> {
    let path = format!("{directory}/.s.PGSQL.{POSTGRES_PORT}");
    let open = async |options: &str| {
        let stream =
            UnixStream::connect(&path).await.map_err(|source| ConnectError::Socket { target: path.clone(), source })?;
        let mut config = Config::new();
        config.dbname(database).user(user).application_name(application_name).options(options);
        let failed = |source| ConnectError::Postgres { target: directory.to_owned(), user: user.to_owned(), source };
        config.connect_raw(Limited { stream, left: limit }, NoTls).await.map_err(failed)
    };
    let (client, mut connection) = match open(options).await {
        Err(ConnectError::Postgres { source, .. }) if is_before_17(&source) => {
            open(&immune::before_17(options)).await?
        }
        result => result?,
    };
    // Notices are dropped: otherwise they would appear in this process's log.
    let driver = tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(_)) = messages.next().await {}
    });
    Ok(Connection::new(client, driver))
}

/// A stream that fails after a number of bytes.
struct Limited<S> {
    stream: S,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let got = buffer.filled().len() - before;
        match self.left.checked_sub(got) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Ok(()))
            }
            None => {
                // An error has no bytes.
                buffer.set_filled(before);
                Poll::Ready(Err(std::io::Error::other("the server's answer exceeds the size limit")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn more_than_the_limit_is_an_error() {
        let mut whole = Vec::new();
        Limited { stream: [7; 10].as_slice(), left: 10 }.read_to_end(&mut whole).await.expect("exactly the limit");
        assert_eq!(whole.len(), 10);
        let refused = Limited { stream: [7; 11].as_slice(), left: 10 }.read_to_end(&mut Vec::new()).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("exceeds the size limit")));
    }
}
