//! A reverse proxy in front of the API server or Vault, which injects the case's fault at one
//! call. HTTP/1.1 only, so that a broken connection affects one request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::agents::Agents;
use super::call::{Actor, Call, Side};
use super::gate::{Fault, Gate};
use super::process::Pulse;
use crate::harness::{Signed, signed};

/// A throw-away authority, and the proxies' certificate by it.
pub struct Tls {
    /// The authority, PEM.
    pub authority: String,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// For proxies at these addresses.
    pub fn new(addresses: &[IpAddr]) -> Self {
        let Signed { authority, certificate, key } = signed(addresses.iter().map(ToString::to_string).collect());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a TLS server");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { authority, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

/// Where requests go.
#[derive(Clone)]
pub struct Upstream {
    /// Which of the two it is.
    pub side: Side,
    /// Such as `https://10.96.0.20:8200`, without a slash at its end.
    pub address: String,
    /// A client that trusts its certificate, and has no identity of its own.
    pub client: reqwest::Client,
}

/// The data of a case's proxy.
pub struct Proxy {
    /// Where requests go.
    pub upstream: Upstream,
    /// The case's numbering.
    pub gate: Arc<Gate>,
    /// The case's operator.
    pub operator: Arc<Pulse>,
    /// The case's agents.
    pub agents: Agents,
    /// The case's namespace.
    pub namespace: String,
}

/// The cause of a missing answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the fault that was ordered")]
    Ordered,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    #[error(transparent)]
    Upstream(#[from] reqwest::Error),
}

type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Serves on an address until the task is aborted; connections end with it.
pub async fn serve(listener: TcpListener, tls: Arc<Tls>, proxy: Arc<Proxy>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("a proxy cannot accept: {error}");
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let own = listener.local_addr();
        let (tls, proxy) = (tls.clone(), proxy.clone());
        connections.spawn(async move {
            // Who breaks off is killed or gone; the next connection will be whole.
            let _ = connection(stream, peer, own, &tls, proxy).await;
        });
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    own: io::Result<SocketAddr>,
    tls: &Tls,
    proxy: Arc<Proxy>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    // The operator is on this machine; an agent comes with its pod's address.
    let actor = if peer.ip() == own?.ip() { Actor::Operator } else { Actor::Agent };
    let stream = tls.acceptor.accept(stream).await?;
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { proxy.handle(actor, peer.ip(), request).await }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

impl Proxy {
    async fn handle(&self, actor: Actor, peer: IpAddr, request: Request<Incoming>) -> Result<Response<Body>, NoAnswer> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let Some(call) = Call::of(self.upstream.side, &head.method, head.uri.path(), &body, &self.namespace) else {
            return self.forward(head, body).await;
        };
        let answer = match self.gate.meet(actor, &call) {
            None => self.forward(head, body).await,
            Some(Fault::BeforeSend) => {
                self.kill(actor, peer);
                Err(NoAnswer::Ordered)
            }
            Some(Fault::AfterCommit) => {
                self.forward_whole(head, body).await?;
                self.kill(actor, peer);
                Err(NoAnswer::Ordered)
            }
            Some(Fault::Conflict) => Ok(self.conflict()),
            Some(Fault::ServerError) => Ok(self.server_error()),
            Some(Fault::LostReply) => {
                self.forward_whole(head, body).await?;
                Err(NoAnswer::Ordered)
            }
        };
        self.gate.passed();
        answer
    }

    async fn forward(&self, head: http::request::Parts, body: Bytes) -> Result<Response<Body>, NoAnswer> {
        let mut headers = head.headers;
        for name in [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
            headers.remove(name);
        }
        let address = format!("{}{}", self.upstream.address, head.uri);
        let sent = self.upstream.client.request(head.method, address).headers(headers).body(body).send().await?;
        let (mut head, body) = http::Response::<reqwest::Body>::from(sent).into_parts();
        for name in [CONNECTION, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        head.version = http::Version::HTTP_11;
        // Not collected: a watch never ends.
        Ok(Response::from_parts(head, body.map_err(Into::into).boxed()))
    }

    /// Forwards, and waits until the answer is here to its end.
    async fn forward_whole(&self, head: http::request::Parts, body: Bytes) -> Result<(), NoAnswer> {
        // What the answer is does not matter: nobody will read it.
        let _ = self.forward(head, body).await?.into_body().collect().await;
        Ok(())
    }

    fn kill(&self, actor: Actor, peer: IpAddr) {
        match actor {
            Actor::Operator => self.operator.kill(),
            Actor::Agent | Actor::AgentInPostgres => self.agents.kill(peer),
        }
    }

    fn conflict(&self) -> Response<Body> {
        match self.upstream.side {
            Side::Kubernetes => kubernetes_failure(StatusCode::CONFLICT, "Conflict"),
            Side::Vault => {
                let said = "check-and-set parameter did not match the current version";
                answer(StatusCode::BAD_REQUEST, &json!({"errors": [said]}))
            }
        }
    }

    fn server_error(&self) -> Response<Body> {
        match self.upstream.side {
            Side::Kubernetes => kubernetes_failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Side::Vault => answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"errors": ["internal error"]})),
        }
    }
}

fn kubernetes_failure(code: StatusCode, reason: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault that a test ordered", "reason": reason, "code": code.as_u16(),
    });
    answer(code, &status)
}

fn answer(code: StatusCode, content: &serde_json::Value) -> Response<Body> {
    let body = Full::new(Bytes::from(content.to_string())).map_err(|never| match never {}).boxed();
    Response::builder().status(code).header(CONTENT_TYPE, "application/json").body(body).expect("an answer")
}
