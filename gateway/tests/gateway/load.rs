//! A client that costs little: it shares its machine with what it measures. Requests are bytes, and of an answer only the
//! status and the length are read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Requests a second, and the 50th and 99th percentile of their times.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    pub rate: f64,
    pub half: Duration,
    pub most: Duration,
}

impl Speed {
    /// Of these times of requests that were sent within this time.
    pub fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort();
        let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        Self { rate: times.len() as f64 / took.as_secs_f64(), half, most }
    }
}

/// A request: its head, which ends with the token, and its body.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub body: String,
}

impl Request {
    /// As it is sent.
    pub fn bytes(&self, token: &str) -> Vec<u8> {
        let body = match self.body.len() {
            0 => String::new(),
            length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
        };
        let (method, path) = (self.method, &self.path);
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{body}\r\n{}",
            self.body
        )
        .into_bytes()
    }
}

/// Trusts this authority.
pub fn connector(authority: &Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("a file") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A connection with TLS to an address of this machine.
pub async fn connect(connector: &TlsConnector, address: &str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await.expect("a handshake")
}

/// Sends a request and reads its answer.
pub async fn ask(stream: &mut TlsStream<TcpStream>, request: &[u8], buffer: &mut Vec<u8>) {
    stream.write_all(request).await.expect("sent");
    stream.flush().await.expect("sent");
    buffer.clear();
    loop {
        assert!(stream.read_buf(buffer).await.expect("an answer") > 0, "the connection ended");
        if let Some(end) = complete(buffer) {
            assert_eq!(end, buffer.len(), "more than one answer");
            return;
        }
    }
}

/// Where the answer ends, if it is complete.
fn complete(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).expect("a head");
    assert!(text.starts_with("HTTP/1.1 2"), "{text}{}", String::from_utf8_lossy(&buffer[head..]));
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().expect("a length"))
    });
    let end = head + length.expect("an answer with its length");
    (buffer.len() >= end).then_some(end)
}

/// Asks from so many connections for a time, on a thread of its own.
pub async fn load(
    authority: &Path,
    address: &str,
    token: &str,
    clients: usize,
    time: Duration,
    request: impl Fn(usize) -> Request + Clone + Send + 'static,
) -> Speed {
    let (connector, address, token) = (connector(authority), address.to_owned(), token.to_owned());
    let run = async move {
        let streams = futures::future::join_all((0..clients).map(|_| connect(&connector, &address))).await;
        let (count, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let clients = streams.into_iter().map(|mut stream| {
            let (token, count, request) = (token.clone(), Arc::clone(&count), request.clone());
            async move {
                let (mut times, mut buffer) = (Vec::new(), Vec::new());
                while began.elapsed() < time {
                    // Far apart, as at random.
                    let number = count.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919);
                    let bytes = request(number).bytes(&token);
                    let sent = Instant::now();
                    ask(&mut stream, &bytes, &mut buffer).await;
                    times.push(sent.elapsed());
                }
                times
            }
        });
        // A task each: only those that were answered are polled.
        let tasks = clients.map(tokio::spawn).collect::<Vec<_>>();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("a client"));
        }
        Speed::of(times, began.elapsed())
    };
    let thread =
        move || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(run);
    tokio::task::spawn_blocking(thread).await.expect("a client")
}
