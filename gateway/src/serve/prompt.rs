//! A client that must begin in time. hyper has a limit for the head of a request by HTTP/1.1, and none for the beginning
//! of HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream whose first bytes must arrive in time.
pub(super) struct Prompt<S> {
    inner: S,
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Prompt<S> {
    /// So many bytes must arrive within this time.
    pub(super) fn new(inner: S, bytes: usize, time: Duration) -> Self {
        Self { inner, missing: bytes, deadline: Box::pin(tokio::time::sleep(time)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.missing == 0 {
            return read;
        }
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if self.missing > 0 && read.is_pending() && self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn who_does_not_begin_is_let_go_and_who_has_begun_may_pause() {
        let time = Duration::from_millis(30);
        let (mut client, server) = duplex(64);
        client.write_all(b"a").await.expect("a byte");
        let mut prompt = Prompt::new(server, 3, time);
        let error = prompt.read_exact(&mut [0; 3]).await.expect_err("too late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut client, server) = duplex(64);
        let mut prompt = Prompt::new(server, 3, time);
        client.write_all(b"abc").await.expect("bytes");
        prompt.read_exact(&mut [0; 3]).await.expect("in time");
        let late = async {
            tokio::time::sleep(2 * time).await;
            client.write_all(b"d").await
        };
        let (read, written) = tokio::join!(prompt.read_u8(), late);
        assert_eq!((read.expect("a byte"), written.is_ok()), (b'd', true));
    }
}
