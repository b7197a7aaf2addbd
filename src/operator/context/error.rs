//! What can go wrong in a reconcile, by what there is to do about it.

use crate::api::conditions::reason;
use crate::vault::VaultError;

/// An error of a reconcile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused, or was not there.
    #[error("the Kubernetes API: {}", describe(.0))]
    Kubernetes(#[from] kube::Error),
    /// An object that the operator needs exists and belongs to somebody else.
    #[error(
        "{kind} {name} exists and belongs to {holder}: Servicedb never takes over what it did not make; rename or remove it"
    )]
    ObjectConflict {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Whom it belongs to.
        holder: String,
    },
    /// Vault refused, or was not there.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A record in Vault is not readable.
    #[error(transparent)]
    Record(#[from] crate::contract::records::RecordError),
    /// A record in Vault that another cluster's operator keeps.
    #[error(
        "the record {path} in Vault belongs to another Kubernetes cluster (kube-system has uid {theirs} there, {ours} \
         here): give each cluster that shares a Vault a clusterId of its own; nothing was changed"
    )]
    ForeignRecord {
        /// The record.
        path: String,
        /// The uid that the record carries.
        theirs: String,
        /// This cluster's.
        ours: String,
    },
    /// A certificate could not be made or read.
    #[error("a certificate of this database: {0}")]
    Certificate(#[from] rcgen::Error),
    /// JSON that could not be written or read.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The operator is on its way out.
    #[error("the operator is stopping")]
    Stopping,
    /// The reconcile took longer than it may.
    #[error("the reconcile took longer than {0} s and was cancelled")]
    Timeout(u64),
}

impl Error {
    /// The condition reason that this error is told with.
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

    /// Whether somebody wrote an object between our read and our write: the rule where several
    /// work on one, and the next reconcile reads what they wrote.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Kubernetes(kube::Error::Api(answer)) if answer.reason == "Conflict")
    }

    /// Whether the API server makes nothing new in a namespace because it is being deleted.
    pub fn is_of_ending_namespace(&self) -> bool {
        let Self::Kubernetes(kube::Error::Api(answer)) = self else { return false };
        let causes = answer.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// A bounded label for metrics and backoff.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Kubernetes(_) => "kubernetes",
            Self::ObjectConflict { .. } | Self::ForeignRecord { .. } => "object_conflict",
            Self::Vault(_) => "vault",
            Self::Record(_) | Self::Certificate(_) | Self::Json(_) => "data",
            Self::Stopping | Self::Timeout(_) => "timeout",
        }
    }
}

/// The API server's message alone: kube's own text repeats it in Debug form.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
