//! An API server in memory: enough of Kubernetes for the operator's own requests.
//!
//! It knows GET, LIST with label selectors (`key`, `!key`, `key=value`), POST, PUT, PATCH
//! (server-side apply, merge) with and without `/status`, and DELETE; resourceVersion, uid,
//! generation, preconditions, finalizers, field managers, deletion in the foreground, and garbage
//! collection of controlled objects. Every request is recorded.
//!
//! Its limits: no schema, few defaults (of a Service and a StatefulSet), no admission, no watches;
//! apply treats every list as atomic, and always forces.

mod fields;
pub mod http;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

pub use http::client;
use store::Store;

use crate::operator::tests::faults::Faults;

/// The key of an object: plural, namespace, name.
pub type Key = (String, String, String);

/// One request, as it was received.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// GET, LIST, POST, DRY-RUN, PUT, APPLY, MERGE, DELETE.
    pub verb: &'static str,
    /// The kind's plural, with `/status` for the subresource.
    pub resource: String,
    /// The object's name; empty for a list.
    pub name: String,
    /// The body.
    pub body: Value,
}

impl Recorded {
    /// Whether it can change an object.
    pub fn mutates(&self) -> bool {
        !["GET", "LIST", "DRY-RUN"].contains(&self.verb)
    }

    /// Verb, kind and name.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.verb, self.resource, self.name)
    }
}

/// The API server; clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    store: Arc<Mutex<Store>>,
    requests: Arc<Mutex<Vec<Recorded>>>,
    lateness: Arc<Mutex<Duration>>,
    faults: Faults,
}

impl ApiServer {
    /// An empty server, whose mutating requests can be made to fail.
    pub fn new(faults: Faults) -> Self {
        Self { store: Arc::default(), requests: Arc::default(), lateness: Arc::default(), faults }
    }

    /// The store, for changes by other clients.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on changes are executed at once and answered after this delay.
    pub fn answer_changes_after(&self, delay: Duration) {
        *self.lateness.lock().unwrap_or_else(PoisonError::into_inner) = delay;
    }

    fn lateness(&self) -> Duration {
        *self.lateness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, request: Recorded) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }
}

/// The key of an object.
pub fn key(plural: &str, namespace: &str, name: &str) -> Key {
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}
