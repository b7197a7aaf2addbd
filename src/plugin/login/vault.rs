//! A login from Vault, with the user's own token, address and authority, as Vault's command line client has them.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::plugin::connection::PluginError;

/// How long a request may take: a user waits at a terminal.
const PATIENCE: Duration = Duration::from_secs(30);
/// The maximum number of redirects of a request: from a standby to the active server.
const REDIRECTS: usize = 2;

/// Vault, as the user.
pub struct Vault {
    http: Client,
    address: String,
    namespace: Option<String>,
    token: SecretString,
}

/// A login, and its lease.
pub struct Lease {
    /// The lease, by which it is given back.
    pub id: String,
    /// How long it is valid, in seconds.
    pub seconds: u64,
    /// The role in PostgreSQL.
    pub user: String,
    /// Its password.
    pub password: SecretString,
}

#[derive(Deserialize)]
struct Answer {
    lease_id: String,
    lease_duration: u64,
    data: Credentials,
}

#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

impl Vault {
    /// Reads `VAULT_ADDR`, `VAULT_TOKEN` or `~/.vault-token`, `VAULT_CACERT` and `VAULT_NAMESPACE`. Nothing is sent.
    ///
    /// # Errors
    /// If one is missing, or not readable.
    pub fn of_user() -> Result<Self, PluginError> {
        let setting = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = setting("VAULT_ADDR").ok_or_else(|| {
            PluginError::Login("VAULT_ADDR is not set: the address of Vault, such as https://vault.example:8200".into())
        })?;
        let token = setting("VAULT_TOKEN").or_else(written_token).ok_or_else(|| {
            PluginError::Login("there is no token of Vault: log in to it (vault login), or set VAULT_TOKEN".into())
        })?;
        let mut builder = Client::builder().timeout(PATIENCE).redirect(redirects());
        if let Some(file) = setting("VAULT_CACERT") {
            let problem = |error: &dyn std::error::Error| PluginError::Login(format!("VAULT_CACERT, {file}: {error}"));
            let pem = std::fs::read(&file).map_err(|error| problem(&error))?;
            let authority = Certificate::from_pem_bundle(&pem).map_err(|error| problem(&error))?;
            builder = builder.tls_certs_only(authority);
        }
        let http = builder.build().map_err(|error| PluginError::Login(format!("the client for Vault: {error}")))?;
        let address = address.trim_end_matches('/').to_owned();
        Ok(Self { http, address, namespace: setting("VAULT_NAMESPACE"), token: token.into() })
    }

    /// Gets a login at a path, which status has.
    ///
    /// # Errors
    /// If Vault refuses, or does not answer.
    pub async fn login(&self, path: &str) -> Result<Lease, PluginError> {
        let request = self.authorised(self.http.get(format!("{}/v1/{path}", self.address)));
        let answer = request.send().await.map_err(|error| self.unanswered(&error))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(PluginError::Login(refusal(status, path)));
        }
        let Answer { lease_id: id, lease_duration: seconds, data } = answer
            .json()
            .await
            .map_err(|_| PluginError::Login(format!("Vault's answer to a read of {path} is not a login")))?;
        Ok(Lease { id, seconds, user: data.username, password: data.password.into() })
    }

    /// Gives a login back; returns whether Vault took it.
    pub async fn give_back(&self, lease: &Lease) -> bool {
        let request = self.http.put(format!("{}/v1/sys/leases/revoke", self.address));
        let answer = self.authorised(request).json(&json!({"lease_id": lease.id})).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header("X-Vault-Request", "true").header("X-Vault-Token", self.token.expose_secret());
        match &self.namespace {
            Some(namespace) => request.header("X-Vault-Namespace", namespace),
            None => request,
        }
    }

    fn unanswered(&self, error: &reqwest::Error) -> PluginError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        PluginError::Login(format!("Vault at {} cannot be reached: {cause}", self.address))
    }
}

/// The token goes along with a redirect: it is followed only as Vault's own redirects are.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let from = attempt.previous().last().map_or("", |url| url.scheme());
        let is_first_few = attempt.previous().len() <= REDIRECTS;
        if is_first_few && is_vaults(attempt.status(), from, attempt.url().scheme()) {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// Whether a redirect keeps the request's method, and its encryption.
fn is_vaults(status: StatusCode, from: &str, to: &str) -> bool {
    matches!(status.as_u16(), 307 | 308) && (to == "https" || from == to)
}

/// The token that `vault login` writes.
fn written_token() -> Option<String> {
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?;
    let token = std::fs::read_to_string(PathBuf::from(home).join(".vault-token")).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// What Vault's refusal means. Its own words may echo the request.
fn refusal(status: StatusCode, path: &str) -> String {
    match status.as_u16() {
        403 => format!(
            "Vault denied it: your token is invalid, or none of its policies has\n  path \"{path}\" {{ capabilities = [\"read\"] }}"
        ),
        400 | 404 => format!(
            "Vault has no role for {path} (HTTP {status}): status.clients of the ServiceDatabase has whether the client is ready"
        ),
        300..=399 => {
            format!("Vault answers with a redirect (HTTP {status}): set VAULT_ADDR to the address of Vault itself")
        }
        503 => "Vault is sealed".to_owned(),
        _ => format!("Vault answered {status} to a read of {path}: see its log; PostgreSQL may be unavailable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_policy_that_the_user_needs() {
        let text = refusal(StatusCode::FORBIDDEN, "database/creds/servicedb.dev.messaging.chat.reader");
        assert!(
            text.contains("path \"database/creds/servicedb.dev.messaging.chat.reader\" { capabilities = [\"read\"] }")
        );
        assert!(refusal(StatusCode::SERVICE_UNAVAILABLE, "p").contains("sealed"));
    }

    #[test]
    fn a_redirect_takes_the_token_neither_to_another_method_nor_out_of_tls() {
        assert!(is_vaults(StatusCode::TEMPORARY_REDIRECT, "https", "https"));
        assert!(is_vaults(StatusCode::PERMANENT_REDIRECT, "http", "http"));
        assert!(!is_vaults(StatusCode::TEMPORARY_REDIRECT, "https", "http"));
        assert!(!is_vaults(StatusCode::FOUND, "https", "https"));
        assert!(refusal(StatusCode::FOUND, "p").contains("VAULT_ADDR"));
    }

    #[test]
    fn an_answer_of_vault_is_read() {
        let answer: Answer = serde_json::from_value(json!({
            "request_id": "r", "lease_id": "database/creds/x/y", "renewable": true, "lease_duration": 3600,
            "data": {"username": "servicedb.reader.k3j2", "password": "p"}, "warnings": null
        }))
        .expect("an answer");
        assert_eq!((answer.lease_id.as_str(), answer.lease_duration), ("database/creds/x/y", 3600));
        assert_eq!(answer.data.username, "servicedb.reader.k3j2");
    }
}
