//! After a request that has the replicas cloned again: waits until every instance is ready.

use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::connection::{PluginError, read};
use crate::api::ServiceDatabase;
use crate::api::conditions::{READY, reason};

/// The interval at which the condition is polled.
const POLL: Duration = Duration::from_secs(1);
/// The reasons that end by themselves, once the replicas are cloned.
const PASSING: [&str; 4] = [reason::INSTANCES_NOT_READY, reason::NO_STANDBY, reason::NO_PRIMARY, reason::UPGRADING];

/// Waits until the database is Ready. What is left at the deadline, or does not end by itself, is printed: the request has
/// succeeded nevertheless.
///
/// # Errors
/// If the resource cannot be read.
pub async fn wait(client: &Client, namespace: &str, name: &str, deadline: Instant) -> Result<(), PluginError> {
    let mut is_told = false;
    loop {
        let resource = read(client, namespace, name).await?;
        let Some(unready) = unready(&resource) else { return Ok(()) };
        if !unready.passes || Instant::now() >= deadline {
            let message = unready.message;
            println!("not Ready yet: {message}; kubectl servicedb status {name} -n {namespace} shows its progress");
            return Ok(());
        }
        if !is_told {
            println!("waiting for the other instances, which clone the primary: {}", unready.message);
            is_told = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why a database is not Ready.
#[derive(Debug, PartialEq, Eq)]
struct Unready<'a> {
    message: &'a str,
    /// Whether it ends by itself.
    passes: bool,
}

fn unready(resource: &ServiceDatabase) -> Option<Unready<'_>> {
    let conditions = &resource.status.as_ref()?.conditions;
    let ready = conditions.iter().find(|condition| condition.type_ == READY && condition.status == "False")?;
    Some(Unready { message: &ready.message, passes: PASSING.contains(&ready.reason.as_str()) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(status: &str, reason: &str) -> ServiceDatabase {
        serde_json::from_value(json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
            "spec": {"storage": {"size": "1Gi"}},
            "status": {"conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": "1 of 2 instances are ready",
                "lastTransitionTime": "2026-11-29T12:00:00Z"
            }]}
        }))
        .expect("a resource")
    }

    #[test]
    fn replicas_that_are_cloned_are_waited_for_and_a_failure_is_not() {
        let message = "1 of 2 instances are ready";
        let found = |status, reason| unready(&resource(status, reason)).map(|unready| unready.passes);
        assert_eq!(found("True", "Ready"), None);
        assert_eq!(unready(&resource("False", "InstancesNotReady")), Some(Unready { message, passes: true }));
        assert_eq!(found("False", "Upgrading"), Some(true));
        for reason in ["MigrationFailed", "InvalidSpec", "VolumeFull"] {
            assert_eq!(found("False", reason), Some(false), "{reason}");
        }
    }
}
