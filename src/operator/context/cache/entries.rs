//! The entries of the cache.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;

use crate::operator::credentials::role_ids::RoleIds;
use crate::vault::VaultError;

/// Namespace, kind and name of an object.
pub type ObjectKey = (String, String, String);

/// The cached plan of an object that must not exist.
pub const ABSENT: &str = "absent";

/// Pods in front of a database, which have certificates of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Front {
    /// The pooler's.
    Pooler,
    /// The data gateway's.
    Gateway,
}

/// An object that was observed to match its plan.
pub struct Observed {
    pub owner: String,
    /// The name of the ServiceDatabase.
    pub resource: String,
    pub plan: String,
    pub resource_version: Option<String>,
    pub at: Instant,
}

impl Observed {
    /// Whether its observation has started and not ended.
    pub fn is_in_progress(&self) -> bool {
        self.plan.is_empty()
    }
}

/// The stored form of an object to which the API server adds fields at each write.
pub struct Stored {
    pub owner: String,
    /// The hash of its parts that are compared as a whole.
    pub parts: String,
    pub generation: Option<i64>,
}

/// The entries of one resource.
#[derive(Clone, Default)]
pub struct Entries {
    pub failures: u32,
    pub credentials: Credentials,
    pub primary: Option<String>,
    pub undone: Option<Timestamp>,
    pub missing: Option<Instant>,
    pub account: Option<Timestamp>,
}

/// The entries of one resource on its credentials.
#[derive(Clone, Default)]
pub struct Credentials {
    pub vault: Option<VerifiedVault>,
    pub secrets: Option<Instant>,
    pub certificates: Option<VerifiedCertificates>,
    /// The certificates that kubelets were last prompted to update, and when.
    pub prompted: Option<(String, Instant)>,
    /// When the certificates of the pods in front of the database were observed.
    pub fronts: BTreeMap<Front, Instant>,
    pub pending: Option<i64>,
    /// The same, by client with a login of its own.
    pub client_pending: BTreeMap<String, i64>,
    pub damaged: bool,
    pub bindings: BTreeMap<String, (String, i64, Instant)>,
}

/// Records that Vault's objects were observed in the desired state.
#[derive(Clone)]
pub struct VerifiedVault {
    pub fingerprint: String,
    pub at: Instant,
    pub role_ids: RoleIds,
    /// Why the database secrets engine does not take its part.
    pub engine: Option<VaultError>,
    /// How many times they were observed with this fingerprint since the first.
    pub resyncs: usize,
}

/// Records that the certificates were observed in the desired state.
#[derive(Clone)]
pub struct VerifiedCertificates {
    pub at: Instant,
    pub due: Option<Timestamp>,
    pub authorities: String,
}
