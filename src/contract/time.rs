//! Times as documents and messages have them.

use k8s_openapi::jiff::Timestamp;

/// The time in whole seconds: Kubernetes stores no parts of them, and no reader needs them.
pub fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
