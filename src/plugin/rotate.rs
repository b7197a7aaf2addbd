//! `kubectl servicedb rotate`: new credentials, and word of when they are there.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{PluginError, annotate, connect, read};
use crate::api::names::{ANNOTATION_REISSUE, ANNOTATION_ROTATE};
use crate::api::{CredentialsStatus, ServiceDatabase};

/// How often the answer is looked for.
const POLL: Duration = Duration::from_millis(500);

/// What is asked for.
pub struct Request {
    /// Although the record of the present credentials is gone from Vault.
    pub reissue: bool,
    /// How long to wait for the answer; zero: not at all.
    pub timeout: Duration,
}

/// Asks for new credentials, and waits until status says that they are in Vault.
pub async fn run(connection: &Connection, name: &str, request: &Request) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    read(&client, &namespace, name).await?;
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    let annotation = if request.reissue { ANNOTATION_REISSUE } else { ANNOTATION_ROTATE };
    annotate(&client, &namespace, name, &[(annotation, Some(token.clone()))]).await?;
    if request.timeout.is_zero() {
        println!("new credentials were asked for: status.credentials tells when they are in Vault");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + request.timeout;
    loop {
        let resource = read(&client, &namespace, name).await?;
        let credentials = resource.status.as_ref().and_then(|status| status.credentials.clone()).unwrap_or_default();
        let echo = if request.reissue { &credentials.reissue_request } else { &credentials.rotate_request };
        if echo.as_deref() == Some(token.as_str()) {
            println!("{}", done(&credentials));
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            eprintln!("error: {}", late(&resource, request.timeout));
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn done(credentials: &CredentialsStatus) -> String {
    let path = credentials.vault_path.as_deref().unwrap_or_default();
    format!(
        "generation {} was proved by a login and is in Vault at {path}\n\
         the login before it is good until the next rotation: services must have read the new one by then",
        credentials.generation
    )
}

/// What hinders it, as the resource tells.
fn late(resource: &ServiceDatabase, waited: Duration) -> String {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let told: Vec<_> = conditions
        .filter(|condition| ["CredentialsReady", "VaultReachable", "Stalled"].contains(&condition.type_.as_str()))
        .filter(|condition| !condition.message.is_empty())
        .map(|condition| format!("\n  {}={}: {}", condition.type_, condition.status, condition.message))
        .collect();
    format!(
        "no new credentials within {} s; the request stays and is done when it can be:{}",
        waited.as_secs(),
        told.concat()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_hinders_it_is_told() {
        let resource: ServiceDatabase = serde_json::from_value(json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
            "spec": {"storage": {"size": "1Gi"}},
            "status": {"conditions": [
                {"type": "VaultReachable", "status": "False", "reason": "VaultUnreachable", "message": "it is sealed",
                 "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Stalled", "status": "False", "reason": "NotStalled", "message": "",
                 "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]},
        }))
        .expect("a resource");
        let message = late(&resource, Duration::from_secs(60));
        assert!(message.contains("60 s") && message.ends_with("VaultReachable=False: it is sealed"), "{message}");
    }
}
