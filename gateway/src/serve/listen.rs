//! Accepting connections: TLS with a certificate that is renewed, limits, and a graceful end.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::config::{self, ConfigError, Tls};

/// How long a handshake, and the head of a request, may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long requests may take to end at shutdown.
const END: Duration = Duration::from_secs(25);
/// How often the certificate's file is looked at.
const CERTIFICATE: Duration = Duration::from_secs(10);

/// The server's certificate; renewed files count for the next connection.
pub struct Certificate {
    files: Tls,
    acceptor: RwLock<TlsAcceptor>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn read(files: &Tls) -> Result<Self, ConfigError> {
        Ok(Self { files: files.clone(), acceptor: RwLock::new(acceptor(files)?) })
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Reads changed files again.
    pub async fn renew(&self) {
        let mut known = modified(&self.files);
        loop {
            tokio::time::sleep(CERTIFICATE).await;
            let now = modified(&self.files);
            if now == known {
                continue;
            }
            match acceptor(&self.files) {
                Ok(acceptor) => {
                    *self.acceptor.write().unwrap_or_else(std::sync::PoisonError::into_inner) = acceptor;
                    known = now;
                    tracing::info!("the renewed certificate is served");
                }
                // Perhaps one of both files is not written yet.
                Err(error) => {
                    tracing::warn!(%error, "the renewed certificate cannot be used; the former one is served")
                }
            }
        }
    }
}

fn modified(files: &Tls) -> [Option<SystemTime>; 2] {
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).and_then(|found| found.modified()).ok())
}

fn acceptor(files: &Tls) -> Result<TlsAcceptor, ConfigError> {
    let invalid = |path: &std::path::Path, error: &dyn std::fmt::Display| ConfigError::File {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&config::file(&files.certificate)?).collect();
    let chain = chain.map_err(|error| invalid(&files.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&config::file(&files.key)?).map_err(|error| invalid(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&files.certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| invalid(&files.certificate, &error))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Serves on a listener until `stop` is set; then requests under way may end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    certificate: Option<Arc<Certificate>>,
    clients: usize,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(clients));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
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
    if tokio::time::timeout(END, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    certificate: Option<Arc<Certificate>>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let _ = stream.set_nodelay(true);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).half_close(false);
    let service = TowerToHyperService::new(router);
    let ended = match certificate {
        None => watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await,
        Some(certificate) => {
            let handshake = certificate.acceptor().accept(stream);
            let Ok(Ok(stream)) = tokio::time::timeout(HEAD, handshake).await else { return };
            watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
