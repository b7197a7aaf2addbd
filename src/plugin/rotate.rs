//! `kubectl servicedb rotate`: requests new credentials, and waits until they are in Vault.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{PluginError, annotate, connect, read};
use crate::api::ServiceDatabase;
use crate::api::names::{ANNOTATION_REISSUE, ANNOTATION_ROTATE, ANNOTATION_ROTATE_CLIENT};

/// The interval at which the result is polled.
const POLL: Duration = Duration::from_millis(500);

/// The request.
pub struct Request {
    /// Also if the record of the present credentials is missing in Vault.
    pub reissue: bool,
    /// For this client with a login of its own alone.
    pub client: Option<String>,
    /// How long to wait for the result; zero: do not wait.
    pub timeout: Duration,
}

/// Requests new credentials, and waits until status reports that they are in Vault.
pub async fn run(connection: &Connection, name: &str, request: &Request) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let (annotation, token) = match &request.client {
        Some(of) if !has_client(&resource, of) => {
            eprintln!("error: {name} has no client {of} with a login of its own (status.clients)");
            return Ok(ExitCode::FAILURE);
        }
        Some(of) if has_short_lived(&resource, of) => {
            eprintln!(
                "error: the logins of {of} are short-lived: each is new, and there is none to rotate. kubectl servicedb \
                 rotate {name} -n {namespace} gives Vault's own login a new password"
            );
            return Ok(ExitCode::FAILURE);
        }
        Some(of) => (ANNOTATION_ROTATE_CLIENT, format!("{of}/{now}")),
        None if request.reissue => (ANNOTATION_REISSUE, now),
        None => (ANNOTATION_ROTATE, now),
    };
    annotate(&client, &namespace, name, &[(annotation, Some(token.clone()))]).await?;
    if request.timeout.is_zero() {
        println!("requested new credentials; status.credentials shows when they are in Vault");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + request.timeout;
    loop {
        let resource = read(&client, &namespace, name).await?;
        let credentials = resource.status.as_ref().and_then(|status| status.credentials.clone()).unwrap_or_default();
        let echo = match &request.client {
            Some(_) => &credentials.rotate_client_request,
            None if request.reissue => &credentials.reissue_request,
            None => &credentials.rotate_request,
        };
        if echo.as_deref() == Some(token.as_str()) {
            let clients = resource.status.iter().flat_map(|status| &status.clients);
            match clients.into_iter().find(|client| Some(&client.name) == request.client.as_ref()) {
                Some(client) => println!("{}", done(client.generation, &client.vault_path)),
                None => {
                    println!("{}", done(credentials.generation, credentials.vault_path.as_deref().unwrap_or_default()))
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            eprintln!("error: {}", late(&resource, request.timeout));
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn has_client(resource: &ServiceDatabase, name: &str) -> bool {
    resource.status.iter().flat_map(|status| &status.clients).any(|client| client.name == name)
}

fn has_short_lived(resource: &ServiceDatabase, name: &str) -> bool {
    let clients = resource.status.iter().flat_map(|status| &status.clients);
    clients.into_iter().any(|client| client.name == name && client.dynamic.is_some())
}

fn done(generation: i64, path: &str) -> String {
    format!(
        "generation {generation} was proved by a login and is in Vault at {path}\n\
         the login before it is good until the next rotation: services must have read the new one by then"
    )
}

/// The problem, from the resource's conditions.
fn late(resource: &ServiceDatabase, waited: Duration) -> String {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let messages: Vec<_> = conditions
        .filter(|condition| ["CredentialsReady", "VaultReachable", "Stalled"].contains(&condition.type_.as_str()))
        .filter(|condition| !condition.message.is_empty())
        .map(|condition| format!("\n  {}={}: {}", condition.type_, condition.status, condition.message))
        .collect();
    format!(
        "no new credentials within {} s; the request is kept and done when possible:{}",
        waited.as_secs(),
        messages.concat()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cause_of_the_delay_is_reported() {
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
