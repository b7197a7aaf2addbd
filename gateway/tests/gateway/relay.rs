//! A relay between a gateway and PostgreSQL, which can lose the answer to a write that is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// See the module.
pub struct Relay {
    /// Where the gateway is to connect to.
    pub port: u16,
    loses: Arc<AtomicBool>,
}

impl Relay {
    /// In front of the server at this port. Only connections whose first message has this name lose anything.
    pub async fn start(server: u16, name: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let loses = Arc::new(AtomicBool::new(false));
        let wanted = Arc::clone(&loses);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server, name.clone(), Arc::clone(&wanted)));
            }
        });
        Self { port, loses }
    }

    /// Loses what follows the next INSERT, and ends the connection once the server has committed it.
    pub fn lose_the_next(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    /// Whether it has lost something since then.
    pub fn has_lost(&self) -> bool {
        !self.loses.load(Ordering::SeqCst)
    }
}

async fn relay(mut client: TcpStream, port: u16, name: String, loses: Arc<AtomicBool>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let mut first = vec![0; 8192];
    let Ok(length) = client.read(&mut first).await else { return };
    if server.write_all(&first[..length]).await.is_err() {
        return;
    }
    let is_named = first[..length].windows(name.len()).any(|part| part == name.as_bytes());
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = answers(&mut from_server, &mut to_client, is_named.then_some(&*loses)) => {}
    }
}

/// Each message of the server: its kind, and the length of it without the kind.
async fn answers(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), wanted: Option<&AtomicBool>) {
    let mut loses = false;
    loop {
        let mut head = [0; 5];
        if from.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut rest = vec![0; length as usize - 4];
        if from.read_exact(&mut rest).await.is_err() {
            return;
        }
        let completes = |command: &str| head[0] == b'C' && rest.starts_with(command.as_bytes());
        let begins = completes("INSERT") && wanted.is_some_and(|wanted| wanted.swap(false, Ordering::SeqCst));
        loses = loses || begins;
        if loses && completes("COMMIT") {
            return;
        }
        if !loses && (to.write_all(&head).await.is_err() || to.write_all(&rest).await.is_err()) {
            return;
        }
    }
}
