//! The metrics over TLS, at a port of their own: the kubelet's probes stay where they are. The certificate is that of
//! the database's server.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::contract::pod::{METRICS_TLS_PORT, TLS_DIR};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once; further clients wait.
const HANDSHAKES: usize = 32;
/// How long a certificate is used before its files are read again.
const KEPT: Duration = Duration::from_secs(10);
/// The pause after an error of the listener, such as that no descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves the metrics from now on.
///
/// # Errors
/// If the port cannot be bound.
pub async fn serve(metrics: Router) -> std::io::Result<()> {
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, METRICS_TLS_PORT))).await {
        Ok(listener) => listener,
        // A kernel without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], METRICS_TLS_PORT))).await?,
    };
    let encrypted = Encrypted::over(listener, Path::new(TLS_DIR).to_owned())?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(encrypted, metrics).await {
            tracing::error!(%error, "the listener of the metrics ended");
        }
    });
    Ok(())
}

/// A listener whose connections have completed their handshake: a client that is slow in it holds up nobody.
struct Encrypted {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Encrypted {
    fn over(listener: TcpListener, folder: PathBuf) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        tokio::spawn(accept(listener, folder, sender));
        Ok(Self { address, ready })
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The task that accepts ends only with the process.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, folder: PathBuf, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    let mut certificate = None::<(Instant, TlsAcceptor)>;
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if certificate.as_ref().is_none_or(|(at, _)| at.elapsed() >= KEPT) {
            match acceptor(&folder).await {
                Ok(acceptor) => certificate = Some((Instant::now(), acceptor)),
                // The files are being replaced: the former certificate is used meanwhile.
                Err(problem) => tracing::warn!(problem, "the certificate for the metrics cannot be used"),
            }
        }
        let Some((_, acceptor)) = certificate.clone() else { continue };
        let ready = ready.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                _ = ready.send((stream, peer)).await;
            }
        });
    }
}

async fn acceptor(folder: &Path) -> Result<TlsAcceptor, String> {
    let read = async |file: &str| {
        let path = folder.join(file);
        tokio::fs::read(&path).await.map_err(|error| format!("{}: {error}", path.display()))
    };
    let (certificate, key) = (read("server.crt").await?, read("server.key").await?);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
    let chain = chain.map_err(|error| format!("server.crt: {error}"))?;
    // The error names no content.
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| "server.key is not PEM".to_owned())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| error.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Writes a certificate of its own for `localhost`, and returns it.
    fn certify(folder: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(folder.join("server.crt"), made.cert.pem()).expect("a file");
        std::fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).expect("a file");
        made.cert.der().clone()
    }

    async fn page(port: u16, trusted: &CertificateDer<'static>) -> Result<String, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
        let mut stream = connecting.await.map_err(|error| error.to_string())?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = Vec::new();
        // The server may close without a word of TLS.
        _ = stream.read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn the_page_is_encrypted_by_the_present_certificate_and_a_silent_client_holds_up_nobody() {
        let folder = std::env::temp_dir().join(format!("servicedb-metrics-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let encrypted = Encrypted::over(listener, folder.clone()).expect("a listener");
        let port = encrypted.local_addr().expect("an address").port();
        tokio::spawn(axum::serve(encrypted, Router::new().route("/metrics", get(async || "pg_up 1"))).into_future());

        let first = certify(&folder);
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.expect("a connection"));
        }
        assert!(page(port, &first).await.expect("a page").ends_with("pg_up 1"));
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        assert!(page(port, other.cert.der()).await.is_err(), "another authority");
        // In plain text there is nothing.
        let mut plain = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("a request");
        let mut answer = Vec::new();
        _ = plain.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("pg_up"));

        // Files that are being replaced leave the former certificate; new ones are used after a while.
        std::fs::write(folder.join("server.key"), "").expect("a file");
        assert!(acceptor(&folder).await.is_err());
        certify(&folder);
        assert!(acceptor(&folder).await.is_ok());
        assert!(page(port, &first).await.is_ok(), "the certificate is kept for ten seconds");
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}
