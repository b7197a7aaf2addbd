//! Accepting connections: TLS with a certificate that is renewed, HTTP/1.1 and HTTP/2, limits, and a graceful end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::prompt::Prompt;
use crate::config::{self, ConfigError, Tls};

/// How long a handshake, and the head of a request, may take.
const HEAD: Duration = Duration::from_secs(10);
/// How often the certificate's file is looked at.
const CERTIFICATE: Duration = Duration::from_secs(10);
/// After how long a client that says nothing, or takes nothing, is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two questions whether a client is still there.
const PING: Duration = Duration::from_secs(20);
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 100;
/// What HTTP/2 takes of bodies before they are read: for a request, and for a connection.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// The largest head of a request by HTTP/2.
const HEADERS: u32 = 64 << 10;
/// Its name in a handshake.
const HTTP2: &[u8] = b"h2";
/// What a client of HTTP/2 sends first: the preface and the head of a frame.
const PREFACE: usize = 24 + 9;

/// The server's certificate; renewed files count for the next connection.
pub struct Certificate {
    files: Tls,
    /// The files' content.
    known: Mutex<[Vec<u8>; 2]>,
    acceptor: RwLock<TlsAcceptor>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn read(files: &Tls) -> Result<Self, ConfigError> {
        let known = content(files)?;
        let acceptor = RwLock::new(acceptor(files, &known)?);
        Ok(Self { files: files.clone(), known: Mutex::new(known), acceptor })
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Reads changed files again.
    pub async fn renew(&self) {
        loop {
            tokio::time::sleep(CERTIFICATE).await;
            match self.renewed() {
                Ok(true) => tracing::info!("the renewed certificate is served"),
                Ok(false) => {}
                // Perhaps one of both files is not written yet.
                Err(error) => {
                    tracing::warn!(%error, "the renewed certificate cannot be used; the former one is served")
                }
            }
        }
    }

    /// Whether the files have changed. By their content: a time says nothing where a link leads to other files.
    fn renewed(&self) -> Result<bool, ConfigError> {
        let now = content(&self.files)?;
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now == *known {
            return Ok(false);
        }
        let acceptor = acceptor(&self.files, &now)?;
        *self.acceptor.write().unwrap_or_else(std::sync::PoisonError::into_inner) = acceptor;
        *known = now;
        Ok(true)
    }
}

fn content(files: &Tls) -> Result<[Vec<u8>; 2], ConfigError> {
    Ok([config::file(&files.certificate)?, config::file(&files.key)?])
}

fn acceptor(files: &Tls, [certificate, key]: &[Vec<u8>; 2]) -> Result<TlsAcceptor, ConfigError> {
    let invalid = |path: &std::path::Path, error: &dyn std::fmt::Display| ConfigError::File {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| invalid(&files.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| invalid(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&files.certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| invalid(&files.certificate, &error))?;
    server.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Serves on a listener until `stop` has a time: then requests under way may end until then.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    certificate: Option<Arc<Certificate>>,
    clients: usize,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(clients));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            _ = stop.wait_for(Option::is_some) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(Option::is_some) => break,
        };
        let Ok((stream, peer)) = accepted else {
            // No descriptor is left, for example.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (router, certificate, watcher) = (router.clone(), certificate.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            connection(stream, peer, router, certificate, watcher).await;
        });
    }
    drop(listener);
    let deadline = stop.borrow().unwrap_or_else(Instant::now);
    if tokio::time::timeout_at(deadline.into(), graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    certificate: Option<Arc<Certificate>>,
    watcher: Watcher,
) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(&stream);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 3));
    // A client that takes nothing of its answer, too.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(SILENCE));
    let service = TowerToHyperService::new(router);
    let ended = match certificate {
        None => watcher.watch(http1().serve_connection(TokioIo::new(stream), service)).await,
        Some(certificate) => {
            let handshake = certificate.acceptor().accept(stream);
            let Ok(Ok(stream)) = tokio::time::timeout(HEAD, handshake).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
                let stream = Prompt::new(stream, PREFACE, HEAD);
                watcher.watch(http2().serve_connection(TokioIo::new(stream), service)).await
            } else {
                watcher.watch(http1().serve_connection(TokioIo::new(stream), service)).await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

fn http1() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).half_close(false);
    builder
}

fn http2() -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_header_list_size(HEADERS);
    builder
}
