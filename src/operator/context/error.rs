//! Errors of a reconcile, classified by their remedy.

use crate::api::conditions::reason;
use crate::vault::VaultError;

/// An error of a reconcile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused, or was unavailable.
    #[error("the Kubernetes API: {}", describe(.0))]
    Kubernetes(#[from] kube::Error),
    /// A required object exists and belongs to another owner.
    #[error(
        "{kind} {name} exists and belongs to {holder}: Servicedb never adopts objects of others; rename or remove it"
    )]
    ObjectConflict {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Its owner.
        holder: String,
    },
    /// Vault refused, or was unavailable.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A record in Vault is not readable.
    #[error(transparent)]
    Record(#[from] crate::contract::records::RecordError),
    /// A record in Vault that belongs to another cluster's operator.
    #[error(
        "the record {path} in Vault belongs to another Kubernetes cluster (kube-system has uid {theirs} there, {ours} \
         here): give each cluster that shares a Vault a clusterId of its own; nothing was changed"
    )]
    ForeignRecord {
        /// The record.
        path: String,
        /// The uid in the record.
        theirs: String,
        /// This cluster's uid.
        ours: String,
    },
    /// A certificate could not be created or read.
    #[error("certificate of this database: {0}")]
    Certificate(#[from] rcgen::Error),
    /// JSON that could not be written or read.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The operator is stopping.
    #[error("the operator is stopping")]
    Stopping,
    /// The reconcile exceeded its timeout.
    #[error("the reconcile took longer than {0} s and was cancelled")]
    Timeout(u64),
}

impl Error {
    /// The condition reason for this error.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ObjectConflict { .. } => reason::OBJECT_CONFLICT,
            Self::Vault(error) => error.reason(),
            Self::Record(_) => reason::CREDENTIALS_PENDING,
            Self::ForeignRecord { .. } => reason::VAULT_RECORD_FOREIGN,
            Self::Kubernetes(_) | Self::Certificate(_) | Self::Json(_) | Self::Stopping | Self::Timeout(_) => {
                reason::KUBERNETES_ERROR
            }
        }
    }

    /// Whether another client wrote an object between the read and the write: normal for shared
    /// objects; the next reconcile reads the new version.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Kubernetes(kube::Error::Api(answer)) if answer.reason == "Conflict")
    }

    /// Whether the API server refuses an object because of its content, which comes from the spec:
    /// a retry would be refused too.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Kubernetes(kube::Error::Api(answer)) if answer.code == 422)
    }

    /// Whether the API server refuses a request for what it is, such as by a quota, a policy or a missing right.
    pub fn is_refusal(&self) -> bool {
        let Self::Kubernetes(kube::Error::Api(answer)) = self else { return false };
        (400..500).contains(&answer.code) && ![408, 409, 429].contains(&answer.code)
    }

    /// Whether the API server creates no objects in a namespace because it is being deleted or
    /// missing.
    pub fn is_of_terminating_namespace(&self) -> bool {
        let Self::Kubernetes(kube::Error::Api(answer)) = self else { return false };
        let Some(details) = &answer.details else { return false };
        let gone = answer.is_not_found() && details.kind == "namespaces";
        gone || details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// A bounded label for metrics and backoff.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Kubernetes(_) if self.is_of_terminating_namespace() => "ending_namespace",
            Self::Kubernetes(_) => "kubernetes",
            Self::ObjectConflict { .. } | Self::ForeignRecord { .. } => "object_conflict",
            Self::Vault(_) => "vault",
            Self::Record(_) | Self::Certificate(_) | Self::Json(_) => "data",
            Self::Stopping | Self::Timeout(_) => "timeout",
        }
    }
}

/// Only the API server's message: kube's own text repeats it in Debug form.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(status: Value) -> Error {
        Error::Kubernetes(kube::Error::Api(Box::new(serde_json::from_value(status).expect("a Status"))))
    }

    #[test]
    fn a_terminating_namespace_is_distinguished_from_a_missing_right() {
        let ending = answer(json!({
            "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": "configmaps \"chat-db-sync\" is forbidden: unable to create new content in namespace games because \
                        it is being terminated",
            "details": {"name": "chat-db-sync", "kind": "configmaps", "causes": [
                {"reason": "NamespaceTerminating", "message": "namespace games is being terminated", "field": "metadata.namespace"},
            ]},
        }));
        assert!(ending.is_of_terminating_namespace());
        assert_eq!(ending.class(), "ending_namespace");
        let gone = answer(json!({
            "status": "Failure", "code": 404, "reason": "NotFound", "message": "namespaces \"games\" not found",
            "details": {"name": "games", "kind": "namespaces"},
        }));
        assert!(gone.is_of_terminating_namespace());
        let refused = answer(json!({
            "status": "Failure", "code": 403, "reason": "Forbidden", "message": "exceeded quota",
            "details": {"name": "chat-db-sync", "kind": "configmaps"},
        }));
        assert!(!refused.is_of_terminating_namespace());
        assert_eq!(refused.class(), "kubernetes");
    }
}
