//! Patroni's REST API on this pod, over TLS with the agent's client certificate.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::pod::{PATRONI_PORT, TLS_DIR};

/// How long one request may take: the watchdog must learn soon that nobody answers.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The server's certificate names this host, which is resolved here, not by DNS.
const HOST: &str = "localhost";

/// What Patroni says of this member.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Whether this member holds the leader's lease.
    #[serde(skip)]
    pub leads: bool,
    /// Patroni's word for what PostgreSQL does, such as `running` or `creating replica`.
    #[serde(default)]
    pub state: String,
    /// The timeline, once PostgreSQL answers.
    #[serde(default)]
    pub timeline: Option<u32>,
    /// Whether a setting waits for a restart.
    #[serde(default)]
    pub pending_restart: bool,
    /// When Patroni last reached the API server, in seconds since 1970.
    #[serde(default)]
    pub dcs_last_seen: Option<i64>,
    /// Whether the leader goes on without the API server, since it sees all members.
    #[serde(default)]
    pub failsafe_mode_is_active: bool,
}

/// A client of the local Patroni.
#[derive(Clone)]
pub struct Rest {
    client: Client,
}

/// Why Patroni did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The certificates for the API are not readable.
    #[error("the certificates for Patroni's API in {TLS_DIR} are not readable: {0}")]
    Certificates(String),
    /// No answer.
    #[error("Patroni's API does not answer: {0}")]
    Silent(#[from] reqwest::Error),
    /// An answer that is an error.
    #[error("Patroni answered {0} to a change of its configuration")]
    Refused(StatusCode),
}

impl Rest {
    /// A client with the certificates as they are on disk now.
    ///
    /// # Errors
    /// If they are not readable.
    pub fn new() -> Result<Self, RestError> {
        let read = |file: &str| {
            std::fs::read(format!("{TLS_DIR}/{file}"))
                .map_err(|error| RestError::Certificates(format!("{file}: {error}")))
        };
        let mut identity = read("patroni.crt")?;
        identity.extend_from_slice(b"\n");
        identity.extend(read("patroni.key")?);
        let unreadable = |error: reqwest::Error| RestError::Certificates(error.to_string());
        let authority = Certificate::from_pem_bundle(&read("ca.crt")?).map_err(unreadable)?;
        let client = Client::builder()
            .tls_certs_only(authority)
            .identity(Identity::from_pem(&identity).map_err(unreadable)?)
            .resolve_to_addrs(
                HOST,
                &[
                    SocketAddr::from((Ipv4Addr::LOCALHOST, PATRONI_PORT)),
                    SocketAddr::from((Ipv6Addr::LOCALHOST, PATRONI_PORT)),
                ],
            )
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(unreadable)?;
        Ok(Self { client })
    }

    /// How this member is. `/leader` answers 200 to the holder of a living lease alone, with
    /// the same content as `/patroni`.
    ///
    /// # Errors
    /// If Patroni does not answer.
    pub async fn status(&self) -> Result<Status, RestError> {
        let response = self.client.get(url("leader")).send().await?;
        let leads = response.status() == StatusCode::OK;
        Ok(Status { leads, ..response.json().await? })
    }

    /// The dynamic configuration.
    ///
    /// # Errors
    /// If Patroni does not answer.
    pub async fn config(&self) -> Result<Value, RestError> {
        Ok(self.client.get(url("config")).send().await?.error_for_status()?.json().await?)
    }

    /// Changes the dynamic configuration. A patch that changes nothing still wakes Patroni.
    ///
    /// # Errors
    /// If Patroni does not answer or refuses.
    pub async fn patch_config(&self, patch: &Value) -> Result<(), RestError> {
        let response = self.client.patch(url("config")).json(patch).send().await?;
        if response.status().is_success() { Ok(()) } else { Err(RestError::Refused(response.status())) }
    }

    /// Makes Patroni look around now and not at its next loop.
    ///
    /// # Errors
    /// If Patroni does not answer.
    pub async fn wake(&self) -> Result<(), RestError> {
        self.patch_config(&serde_json::json!({ "failsafe_mode": true })).await
    }
}

fn url(path: &str) -> String {
    format!("https://{HOST}:{PATRONI_PORT}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_status_is_understood() {
        let status: Status = serde_json::from_str(
            r#"{"state":"running","role":"primary","timeline":3,"pending_restart":true,
                "failsafe_mode_is_active":true,"dcs_last_seen":1700000000,"patroni":{"version":"4.0.6"}}"#,
        )
        .expect("Patroni's answer");
        assert_eq!((status.timeline, status.dcs_last_seen), (Some(3), Some(1_700_000_000)));
        assert!(status.pending_restart && status.failsafe_mode_is_active && !status.leads);
        let early: Status = serde_json::from_str(r#"{"state":"stopped"}"#).expect("an early answer");
        assert_eq!(early.timeline, None);
    }
}
