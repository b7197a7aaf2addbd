//! One request or statement on the wire: its sender, whether it is mutating, and its name.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The API server.
    Kubernetes,
    /// Vault.
    Vault,
}

/// The sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The operator's process.
    Operator,
    /// The agent of a database pod, to Vault.
    Agent,
    /// The same, to PostgreSQL.
    AgentInPostgres,
}

/// A mutating request or statement.
#[derive(Clone, Debug)]
pub struct Call {
    /// Method and path without the parts that differ between cases, such as `PATCH configmaps/chat-db-desired`.
    pub name: String,
    /// Whether a conflict is a possible answer.
    pub can_conflict: bool,
}

impl Call {
    /// The call that a request is; none if it changes nothing that outlives the process.
    pub fn of(side: Side, method: &Method, path: &str, body: &[u8], namespace: &str) -> Option<Self> {
        let reads = [Method::GET, Method::HEAD].contains(method) || method.as_str() == "LIST";
        if reads || !counts(side, path) {
            return None;
        }
        let content: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let mut name = format!("{method} {}", short(side, path).replace(namespace, "NAMESPACE"));
        if side == Side::Kubernetes
            && *method == Method::POST
            && let Some(made) = content["metadata"]["name"].as_str()
        {
            name = format!("{name}/{made}");
        }
        let can_conflict = match side {
            Side::Kubernetes => true,
            Side::Vault => !content["options"]["cas"].is_null(),
        };
        Some(Self { name, can_conflict })
    }
}

/// Excluded requests, which do not affect the compared state: the leader election's renewals,
/// events, and requests that only create or look up a token.
fn counts(side: Side, path: &str) -> bool {
    match side {
        Side::Kubernetes => !["leases", "events"].contains(&short(side, path).split('/').next().unwrap_or_default()),
        Side::Vault => !path.ends_with("/login") && !path.starts_with("/v1/auth/token/") && !path.ends_with("/lookup"),
    }
}

/// The path without the common prefix.
fn short(side: Side, path: &str) -> &str {
    match side {
        Side::Kubernetes => {
            path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')).map_or(path, |(_, rest)| rest)
        }
        Side::Vault => path.trim_start_matches("/v1/"),
    }
}

#[test]
fn what_changes_nothing_that_lasts_is_not_counted() {
    let post = |side, path: &str, body: &str| Call::of(side, &Method::POST, path, body.as_bytes(), "ns");
    assert!(post(Side::Kubernetes, "/apis/coordination.k8s.io/v1/namespaces/ns/leases", "{}").is_none());
    assert!(post(Side::Kubernetes, "/apis/events.k8s.io/v1/namespaces/ns/events", "{}").is_none());
    assert!(post(Side::Vault, "/v1/auth/approle/login", "{}").is_none());
    assert!(Call::of(Side::Vault, &Method::GET, "/v1/sys/health", b"", "ns").is_none());
    let made = post(Side::Kubernetes, "/api/v1/namespaces/ns/secrets", r#"{"metadata": {"name": "chat-db-ca"}}"#);
    assert_eq!(made.expect("a call").name, "POST secrets/chat-db-ca");
    let written =
        post(Side::Vault, "/v1/secret/data/dev/ns/chat/pending", r#"{"options": {"cas": 0}}"#).expect("a call");
    assert_eq!((written.name.as_str(), written.can_conflict), ("POST secret/data/dev/NAMESPACE/chat/pending", true));
}
