//! Patroni's REST API on this pod, over TLS with the agent's client certificate.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::pod::{PATRONI_PORT, TLS_DIR};

/// Timeout of a request: the watchdog must learn soon that Patroni does not answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same for a request that is answered when PostgreSQL has been stopped and started, or
/// another member leads: the duration of a shutdown checkpoint has no limit.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(300);
/// The server's certificate names this host, which is resolved here, not by DNS.
const HOST: &str = "localhost";

/// The state of this member, according to Patroni.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Whether this member holds the leader's lease.
    #[serde(skip)]
    pub leads: bool,
    /// Patroni's name for the state of PostgreSQL, such as `running` or `creating replica`.
    #[serde(default)]
    pub state: String,
    /// The timeline, once PostgreSQL answers.
    #[serde(default)]
    pub timeline: Option<u32>,
    /// Whether a setting waits for a restart.
    #[serde(default)]
    pub pending_restart: bool,
    /// Which settings wait, each with its value now and then.
    #[serde(default)]
    pub pending_restart_reason: BTreeMap<String, Pending>,
    /// When Patroni last reached the API server, in seconds since 1970.
    #[serde(default)]
    pub dcs_last_seen: Option<i64>,
    /// Whether the leader continues without the API server, since it reaches all members.
    #[serde(default)]
    pub failsafe_mode_is_active: bool,
}

/// The members of the cluster, as Patroni's record has them.
#[derive(Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

/// A member as Patroni's record has it.
#[derive(Deserialize)]
pub struct Member {
    /// Its name: the pod's.
    pub name: String,
    /// Where its PostgreSQL is reached.
    #[serde(default)]
    pub host: Option<String>,
    role: String,
    #[serde(default)]
    state: String,
}

/// Patroni's states of a member whose PostgreSQL answers.
const RUNS: [&str; 2] = ["running", "streaming"];

/// A setting that waits for a restart.
#[derive(Deserialize, Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its value now.
    pub old_value: Value,
    /// Its value after the restart.
    pub new_value: Value,
}

/// Settings that a replica must not have lower than its primary (PostgreSQL's "Hot Standby:
/// Administrator's Overview").
const SHARED_WITH_REPLICAS: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// Patroni's states of a member whose PostgreSQL does not run and is not being started, cloned or
/// rewound.
const IDLE: [&str; 3] = ["start failed", "stopped", "crashed"];

/// Patroni's state of a member whose PostgreSQL it is starting.
const STARTING: &str = "starting";

impl Status {
    /// Whether PostgreSQL does not run, and Patroni is not changing that.
    pub fn is_idle(&self) -> bool {
        IDLE.contains(&self.state.as_str())
    }

    /// Whether Patroni is trying to start PostgreSQL.
    pub fn is_starting(&self) -> bool {
        self.state == STARTING
    }

    /// Whether a setting waits for a restart that the primary must go through first, since its
    /// value becomes lower.
    pub fn primary_restarts_first(&self) -> bool {
        let number = |value: &Value| match value {
            Value::String(text) => text.parse::<i64>().ok(),
            other => other.as_i64(),
        };
        let lower = |pending: &Pending| {
            number(&pending.old_value).zip(number(&pending.new_value)).is_some_and(|(old, new)| new < old)
        };
        self.pending_restart_reason
            .iter()
            .any(|(name, pending)| SHARED_WITH_REPLICAS.contains(&name.as_str()) && lower(pending))
    }
}

/// A client of the local Patroni.
#[derive(Clone)]
pub struct Rest {
    client: Client,
}

/// An error of a request to Patroni.
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
    /// A request that was refused or failed.
    #[error("Patroni says: {message}")]
    Failed {
        /// 412 if a precondition is not met, 503 if it failed.
        code: StatusCode,
        /// Patroni's message.
        message: String,
    },
}

/// A transient reason for which Patroni did not hand the lead over. It is recognised by the message (`api.py`,
/// `poll_failover_result` and `is_failover_possible`): each status code is used for permanent reasons, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransientRefusal {
    /// PostgreSQL has a synchronous standby a loop before Patroni records it; or its member did not
    /// answer, as one that reloads its certificates. The lead stayed.
    NotYet,
    /// The handover was accepted and failed: the lead may have been given up and taken back meanwhile.
    Failed,
}

impl RestError {
    /// The reason for which the lead was not handed over, if it is transient.
    pub fn transient_refusal(&self) -> Option<TransientRefusal> {
        match self {
            Self::Failed { code: StatusCode::PRECONDITION_FAILED, message }
                if ["sync_standby", "no good candidates"].iter().any(|transient| message.contains(transient)) =>
            {
                Some(TransientRefusal::NotYet)
            }
            Self::Failed { code: StatusCode::SERVICE_UNAVAILABLE, message }
                if message.contains("Switchover failed") =>
            {
                Some(TransientRefusal::Failed)
            }
            _ => None,
        }
    }
}

impl Rest {
    /// A client with the certificates as they are on disk now.
    ///
    /// # Errors
    /// If they are not readable.
    pub fn new() -> Result<Self, RestError> {
        Self::with(TIMEOUT)
    }

    /// A client for requests that take long.
    ///
    /// # Errors
    /// If the certificates are not readable.
    pub fn patient() -> Result<Self, RestError> {
        Self::with(PATIENT_TIMEOUT)
    }

    fn with(timeout: Duration) -> Result<Self, RestError> {
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
            .timeout(timeout)
            .build()
            .map_err(unreadable)?;
        Ok(Self { client })
    }

    /// The state of this member. `/leader` answers 200 only on the holder of a valid lease, with
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

    /// The synchronous standbys by Patroni's record: only they are promoted.
    ///
    /// # Errors
    /// If Patroni does not answer.
    pub async fn synchronous_standbys(&self) -> Result<Vec<String>, RestError> {
        Ok(self.members_as("sync_standby").await?.into_iter().map(|member| member.name).collect())
    }

    /// The member that leads, if one does and runs.
    ///
    /// # Errors
    /// If Patroni does not answer.
    pub async fn leader(&self) -> Result<Option<Member>, RestError> {
        Ok(self.members_as("leader").await?.pop())
    }

    async fn members_as(&self, role: &str) -> Result<Vec<Member>, RestError> {
        let cluster: Cluster = self.client.get(url("cluster")).send().await?.error_for_status()?.json().await?;
        let wanted = |member: &Member| member.role == role && RUNS.contains(&&*member.state);
        Ok(cluster.members.into_iter().filter(wanted).collect())
    }

    /// Changes the dynamic configuration. A patch that changes nothing still wakes Patroni.
    ///
    /// # Errors
    /// If Patroni does not answer or refuses.
    pub async fn patch_config(&self, patch: &Value) -> Result<(), RestError> {
        let response = self.client.patch(url("config")).json(patch).send().await?;
        if response.status().is_success() { Ok(()) } else { Err(RestError::Refused(response.status())) }
    }

    /// Hands this member's lead over; returns when another member leads.
    ///
    /// # Errors
    /// If Patroni does not answer, refuses or fails.
    pub async fn switch_over(&self, from: &str, to: &str) -> Result<(), RestError> {
        self.post("switchover", &serde_json::json!({ "leader": from, "candidate": to })).await
    }

    /// Restarts PostgreSQL; returns when it answers again.
    ///
    /// # Errors
    /// If Patroni does not answer, refuses or fails.
    pub async fn restart(&self) -> Result<(), RestError> {
        self.post("restart", &serde_json::json!({})).await
    }

    /// Empties this member's data directory and clones the leader.
    ///
    /// # Errors
    /// If Patroni does not answer, refuses or fails, as without a leader.
    pub async fn reinitialise(&self) -> Result<(), RestError> {
        self.post("reinitialize", &serde_json::json!({ "force": true })).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(), RestError> {
        let response = self.client.post(url(path)).json(body).send().await?;
        let code = response.status();
        let message = response.text().await?.trim().chars().take(300).collect();
        if code == StatusCode::OK { Ok(()) } else { Err(RestError::Failed { code, message }) }
    }

    /// Starts Patroni's next loop now.
    ///
    /// # Errors
    /// If Patroni does not answer.
    pub async fn wake(&self) -> Result<(), RestError> {
        self.patch_config(&serde_json::json!({ "failsafe_mode": true })).await
    }
}

/// Starts the next loop of the pod's Patroni now.
///
/// # Errors
/// If Patroni does not answer, or its certificates are not readable.
pub async fn wake() -> Result<(), RestError> {
    Rest::new()?.wake().await
}

fn url(path: &str) -> String {
    format!("https://{HOST}:{PATRONI_PORT}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_transient_only_by_a_known_message() {
        let refusal = |code: u16, message: &str| {
            let code = StatusCode::from_u16(code).expect("a code");
            RestError::Failed { code, message: message.to_owned() }.transient_refusal()
        };
        let candidate = "candidate name does not match with sync_standby";
        assert_eq!(refusal(412, candidate), Some(TransientRefusal::NotYet));
        let none = "switchover is not possible: no good candidates have been found";
        assert_eq!(refusal(412, none), Some(TransientRefusal::NotYet));
        assert_eq!(refusal(503, "Switchover failed"), Some(TransientRefusal::Failed));
        for (code, message) in [
            (412, "leader name does not match"),
            (412, "candidate does not exists"),
            (503, "Switchover status unknown"),
            (503, "failed to write failover key into DCS"),
            (500, candidate),
        ] {
            assert_eq!(refusal(code, message), None, "{code} {message}");
        }
    }

    #[test]
    fn a_members_status_is_understood() {
        let status: Status = serde_json::from_str(
            r#"{"state":"running","role":"primary","timeline":3,"pending_restart":true,
                "failsafe_mode_is_active":true,"dcs_last_seen":1700000000,"patroni":{"version":"4.0.6"}}"#,
        )
        .expect("Patroni's answer");
        assert_eq!((status.timeline, status.dcs_last_seen), (Some(3), Some(1_700_000_000)));
        assert!(status.pending_restart && status.failsafe_mode_is_active && !status.leads);
        assert!(!status.primary_restarts_first());
        let newer: Status = serde_json::from_str(
            r#"{"state":"running","postmaster_start_time":"2026-11-28 22:38:00+00:00","role":"replica",
                "server_version":170012,"latest_end_lsn":83886080,
                "xlog":{"received_location":83886080,"replayed_location":83886080,"replayed_timestamp":null,"paused":false},
                "sync_standby":true,"timeline":2,"replication_state":"streaming","dcs_last_seen":1700000000,
                "database_system_identifier":"7","patroni":{"version":"4.1.5","scope":"chat-db","name":"chat-db-1"}}"#,
        )
        .expect("the answer of Patroni 4.1");
        assert_eq!((newer.state.as_str(), newer.timeline, newer.pending_restart), ("running", Some(2), false));
        let early: Status = serde_json::from_str(r#"{"state":"stopped"}"#).expect("an early answer");
        assert_eq!(early.timeline, None);
    }

    #[test]
    fn members_are_read_in_each_form_of_their_lag() {
        for lag in [
            r#""lag":0"#,
            r#""lag":"unknown""#,
            r#""lsn":"0/5000000","receive_lag":0,"receive_lsn":"0/5000000","replay_lag":0,"replay_lsn":"0/5000000","lag":0"#,
        ] {
            let text = format!(
                r#"{{"members":[{{"name":"chat-db-1","role":"sync_standby","state":"streaming","host":"10.0.0.8",
                    "api_url":"https://10.0.0.8:8008/patroni","port":5432,"timeline":2,{lag}}}],"scope":"chat-db"}}"#
            );
            let cluster: Cluster = serde_json::from_str(&text).expect(lag);
            let member = &cluster.members[0];
            assert_eq!((member.name.as_str(), member.host.as_deref()), ("chat-db-1", Some("10.0.0.8")));
            assert!(member.role == "sync_standby" && RUNS.contains(&&*member.state));
        }
    }

    #[test]
    fn the_primary_goes_first_where_a_shared_setting_becomes_lower() {
        let waits = |name: &str, old: Value, new: Value| {
            let pending = serde_json::json!({ name: { "old_value": old, "new_value": new } });
            let status =
                serde_json::json!({ "state": "running", "pending_restart": true, "pending_restart_reason": pending });
            serde_json::from_value::<Status>(status).expect("Patroni's answer").primary_restarts_first()
        };
        assert!(waits("max_connections", "200".into(), "100".into()));
        assert!(waits("max_worker_processes", 8.into(), 4.into()));
        assert!(!waits("max_connections", "100".into(), "200".into()));
        assert!(!waits("shared_buffers", "200".into(), "100".into()), "replicas may differ in it");
    }
}
