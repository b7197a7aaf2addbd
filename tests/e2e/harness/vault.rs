//! The tests' Vault client: plain HTTP requests, so that the product's own client is not used to
//! test itself.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::cluster::dev_file;

/// The mount of KV v2 that the local operator is installed with.
pub const KV: &str = "secret";
/// How often a request is sent that may be repeated.
const TRIES: u32 = 5;

/// Vault, as its root.
pub struct Vault {
    /// The client that trusts Vault's certificate.
    pub http: reqwest::Client,
    /// Such as `https://10.96.0.20:8200`.
    pub address: String,
    root: String,
}

/// Vault's settings from `make cluster`, or the environment's `VAULT_*`.
fn setting(name: &str) -> Option<String> {
    let given = std::env::var(name).ok().filter(|value| !value.is_empty());
    let written = std::fs::read_to_string(dev_file("vault.env")).unwrap_or_default();
    let prefix = format!("export {name}=");
    given.or_else(|| written.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned)))
}

/// The authority that signed Vault's certificate, PEM.
pub fn authority() -> String {
    let path = setting("VAULT_CACERT").expect("the file of Vault's authority; `make cluster` writes it");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An answer of Vault.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null where there is none.
    pub body: Value,
}

impl Vault {
    /// Connects with what `make cluster` wrote, or with the environment's `VAULT_*`.
    pub async fn connect() -> Result<Self, String> {
        let file = dev_file("vault.env");
        let missing = |name: &str| {
            format!("no Vault: neither the environment nor {} has {name}; run `make cluster`", file.display())
        };
        let address = setting("VAULT_ADDR").ok_or_else(|| missing("VAULT_ADDR"))?;
        let root = setting("VAULT_TOKEN").ok_or_else(|| missing("VAULT_TOKEN"))?;
        let mut builder = reqwest::Client::builder().timeout(Duration::from_secs(15));
        if let Some(path) = setting("VAULT_CACERT") {
            let pem = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
            let ca = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| format!("{path}: {error}"))?;
            builder = builder.tls_certs_only(ca);
        }
        let vault = Self { http: builder.build().map_err(|error| error.to_string())?, address, root };
        match vault.ask_again(Method::GET, "sys/health", None, None).await {
            Ok(answer) if answer.status == 200 => Ok(vault),
            Ok(answer) => {
                Err(format!("Vault is not in service (HTTP {}); run `make cluster`, which unseals it", answer.status))
            }
            Err(problem) => Err(format!("{problem}; run `make cluster`")),
        }
    }

    /// The same Vault, whose certificate another authority has signed.
    pub fn trusting(&self, authority: &str) -> Self {
        let roots = reqwest::Certificate::from_pem_bundle(authority.as_bytes()).expect("an authority");
        let builder = reqwest::Client::builder().timeout(Duration::from_secs(15)).tls_certs_only(roots);
        let http = builder.build().expect("a client");
        Self { http, address: self.address.clone(), root: self.root.clone() }
    }

    /// One request with a token, or without.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.address));
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response =
            request.send().await.map_err(|error| format!("Vault at {} does not answer: {error}", self.address))?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|error| error.to_string())?;
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }

    /// The same, repeated where there is no answer and the request may come twice: a machine that stalls answers late.
    ///
    /// # Errors
    /// If there is no answer to any.
    async fn ask_again(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let tries = if method == Method::PUT || method == Method::POST { 1 } else { TRIES };
        for _ in 1..tries {
            if let Ok(answer) = self.ask(method.clone(), path, token, body).await {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.ask(method, path, token, body).await
    }

    /// One request as root.
    async fn root(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.ask_again(method, path, Some(&self.root), body).await.expect("an answer of Vault")
    }

    /// The object at a path, or none.
    pub async fn read(&self, path: &str) -> Option<Value> {
        let answer = self.root(Method::GET, path, None).await;
        match answer.status {
            200 => Some(answer.body["data"].clone()),
            404 => None,
            status => panic!("Vault: reading {path} gave HTTP {status}"),
        }
    }

    /// The object at a path, where Vault may not have it yet.
    ///
    /// # Errors
    /// Vault's answer, if it is another.
    pub async fn try_read(&self, path: &str) -> Result<Value, String> {
        let answer = self.ask(Method::GET, path, Some(&self.root), None).await?;
        match answer.status {
            200 => Ok(answer.body["data"].clone()),
            status => Err(format!("Vault: reading {path} gave HTTP {status}: {}", answer.body["errors"])),
        }
    }

    /// The names below a path.
    pub async fn list(&self, path: &str) -> Vec<String> {
        let method = Method::from_bytes(b"LIST").expect("a method");
        let answer = self.root(method, path, None).await;
        match answer.status {
            200 => serde_json::from_value(answer.body["data"]["keys"].clone()).expect("a list of keys"),
            404 => Vec::new(),
            status => panic!("Vault: listing {path} gave HTTP {status}"),
        }
    }

    /// The newest version of a KV record, or none.
    pub async fn record(&self, path: &str) -> Option<Value> {
        // A deleted version answers 404 with metadata.
        self.read(&format!("{KV}/data/{path}")).await.map(|record| record["data"].clone())
    }

    /// The metadata of a KV record, or none.
    pub async fn metadata(&self, path: &str) -> Option<Value> {
        self.read(&format!("{KV}/metadata/{path}")).await
    }

    /// Deletes a KV record with all versions.
    pub async fn forget(&self, path: &str) {
        self.root(Method::DELETE, &format!("{KV}/metadata/{path}"), None).await;
    }

    /// Writes as root, and expects success.
    pub async fn write(&self, path: &str, body: &Value) {
        let answer = self.root(Method::PUT, path, Some(body)).await;
        assert!(answer.status < 300, "Vault: writing {path} gave HTTP {}", answer.status);
    }

    /// Deletes as root; a missing object is not an error.
    pub async fn delete(&self, path: &str) {
        self.root(Method::DELETE, path, None).await;
    }

    /// Logs in with AppRole; the token, or the status of the refusal.
    pub async fn approle_login(&self, role_id: &str, secret_id: &str) -> Result<Value, u16> {
        self.login("auth/approle/login", &json!({"role_id": role_id, "secret_id": secret_id})).await
    }

    /// Logs in with a ServiceAccount's token; Vault's `auth`, or the status of the refusal.
    pub async fn kubernetes_login(&self, role: &str, jwt: &str) -> Result<Value, u16> {
        self.login("auth/kubernetes/login", &json!({"role": role, "jwt": jwt})).await
    }

    async fn login(&self, path: &str, body: &Value) -> Result<Value, u16> {
        let answer = self.ask(Method::POST, path, None, Some(body)).await.expect("an answer of Vault");
        if answer.status == 200 { Ok(answer.body["auth"].clone()) } else { Err(answer.status) }
    }

    /// A token with this policy alone, as a person may have one, for some minutes.
    pub async fn person(&self, policy: &str) -> String {
        let body = json!({"policies": [policy], "no_default_policy": true, "ttl": "15m"});
        let answer = self.root(Method::POST, "auth/token/create", Some(&body)).await;
        let token = answer.body["auth"]["client_token"].as_str();
        token
            .unwrap_or_else(|| panic!("Vault: a token gave HTTP {}: {}", answer.status, answer.body["errors"]))
            .to_owned()
    }

    /// The environment in which a person uses Vault's command line client, and the plugin, with this token.
    pub fn environment(&self, token: &str) -> Vec<(&'static str, String)> {
        let mut all = vec![("VAULT_ADDR", self.address.clone()), ("VAULT_TOKEN", token.to_owned())];
        all.extend(setting("VAULT_CACERT").map(|path| ("VAULT_CACERT", path)));
        all
    }

    /// The status that a token gets at a path.
    pub async fn status_with(&self, token: &str, method: Method, path: &str, body: Option<&Value>) -> u16 {
        self.ask_again(method, path, Some(token), body).await.expect("an answer of Vault").status
    }

    /// Moves a mount, with all that is in it, and waits until it is there.
    pub async fn move_mount(&self, from: &str, to: &str) {
        let answer = self.root(Method::POST, "sys/remount", Some(&json!({"from": from, "to": to}))).await;
        let id = answer.body["data"]["migration_id"].as_str().unwrap_or_else(|| panic!("{}", answer.body)).to_owned();
        super::until("the mount has moved", super::SOON, || async {
            let status = self.read(&format!("sys/remount/status/{id}")).await.unwrap_or_default();
            let told = status["migration_info"]["status"].as_str().unwrap_or_default().to_owned();
            if told == "success" { Ok(()) } else { Err(told) }
        })
        .await;
    }

    /// Seals Vault.
    pub async fn seal(&self) {
        let answer = self.root(Method::PUT, "sys/seal", None).await;
        assert!(answer.status < 300, "sealing Vault gave HTTP {}", answer.status);
    }

    /// The key that unseals Vault. Read before sealing: without it Vault must not be sealed.
    pub fn unseal_key() -> String {
        let path: PathBuf = dev_file("vault-init.json");
        let beside = std::env::var_os("VAULT_CACERT")
            .map(PathBuf::from)
            .and_then(|ca| Some(ca.parent()?.join("vault-init.json")))
            .filter(|_| !path.exists());
        let path = beside.unwrap_or(path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let keys: Value = serde_json::from_str(&text).expect("Vault's keys as JSON");
        keys["keys_base64"][0].as_str().expect("an unseal key").to_owned()
    }

    /// Unseals Vault.
    pub async fn unseal(&self, key: &str) {
        self.try_unseal(key).await.unwrap_or_else(|problem| panic!("{problem}: run dev/vault.sh unseal"));
    }

    /// Unseals a Vault that may not be up yet.
    ///
    /// # Errors
    /// If it does not answer, or stays sealed.
    pub async fn try_unseal(&self, key: &str) -> Result<(), String> {
        let answer = self.ask(Method::PUT, "sys/unseal", None, Some(&json!({"key": key}))).await?;
        if answer.body["sealed"] == json!(false) {
            Ok(())
        } else {
            Err(format!("Vault stayed sealed: {}", answer.body))
        }
    }
}
