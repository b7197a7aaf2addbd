//! A caller of a database's data gateway.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::PostParams;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::sandbox::Sandbox;

/// A caller: its token, and the gateway as a client knows it.
#[derive(Clone)]
pub struct Caller {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Caller {
    /// A caller of the gateway of a database, with this token; empty: with none.
    pub async fn new(sandbox: &Sandbox, name: &str, token: &str) -> Self {
        Self::at(sandbox, name, token, None).await
    }

    /// The same of one pod of the gateway, by its address.
    pub async fn of_pod(sandbox: &Sandbox, name: &str, token: &str, pod: IpAddr) -> Self {
        Self::at(sandbox, name, token, Some(pod)).await
    }

    async fn at(sandbox: &Sandbox, name: &str, token: &str, pod: Option<IpAddr>) -> Self {
        let names = sandbox.names(name);
        let map = sandbox.api::<ConfigMap>().get(&names.gateway()).await.expect("the settings");
        let ca = map.data.and_then(|mut data| data.remove("ca.crt")).expect("an authority").into_bytes();
        let host = names.gateway_host();
        let address = match pod {
            Some(pod) => SocketAddr::new(pod, 8443),
            None => SocketAddr::new(sandbox.address(&names.gateway()).await, 443),
        };
        let client = reqwest::Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).expect("PEM"))
            .resolve(&host, address)
            // Longer than a request may wait for the database.
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client");
        Self { client, base: format!("https://{host}:{}/api/db", address.port()), token: token.to_owned() }
    }

    /// With a token of a ServiceAccount for this gateway.
    pub async fn of(sandbox: &Sandbox, name: &str, account: &str) -> Self {
        let audience = format!("{name}.{}.servicedb", sandbox.namespace);
        Self::new(sandbox, name, &token(sandbox, account, &audience).await).await
    }

    /// Status and body, or why there is none.
    ///
    /// # Errors
    /// If the gateway does not answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Value), String> {
        self.send(self.client.request(method, format!("{}/{path}", self.base)), body).await
    }

    /// The same of a POST with an idempotency key.
    ///
    /// # Errors
    /// If the gateway does not answer.
    pub async fn post_once(&self, key: &str, path: &str, body: Value) -> Result<(StatusCode, Value), String> {
        let request = self.client.post(format!("{}/{path}", self.base)).header("idempotency-key", key);
        self.send(request, Some(body)).await
    }

    /// The same within an open transaction.
    ///
    /// # Errors
    /// If the gateway does not answer.
    pub async fn within(
        &self,
        transaction: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), String> {
        let request = self.client.request(method, format!("{}/{path}", self.base)).header("txn-id", transaction);
        self.send(request, body).await
    }

    async fn send(&self, mut request: RequestBuilder, body: Option<Value>) -> Result<(StatusCode, Value), String> {
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Status and body of a GET.
    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Status and body of a POST.
    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, path, Some(body)).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }
}

/// A token of a ServiceAccount for an audience.
pub async fn token(sandbox: &Sandbox, account: &str, audience: &str) -> String {
    let spec = TokenRequestSpec {
        audiences: vec![audience.to_owned()],
        expiration_seconds: Some(3600),
        bound_object_ref: None,
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api = sandbox.api::<ServiceAccount>();
    let answer = api.create_token_request(account, &PostParams::default(), &request).await;
    answer.expect("a token").status.expect("a token").token
}
