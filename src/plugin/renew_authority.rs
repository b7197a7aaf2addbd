//! `kubectl servicedb renew-authority`: replaces the certificate authority, with an overlap in which
//! both are trusted.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{PluginError, annotate, connect, read};
use crate::api::names::{ANNOTATION_AUTHORITY_OVERLAP, ANNOTATION_RENEW_AUTHORITY};
use crate::api::{AuthorityPhase, ServiceDatabase};

/// The interval at which the result is polled.
const POLL: Duration = Duration::from_millis(500);

/// The request.
pub struct Request {
    /// How long clients have to read the new authority, in seconds; none: the operator's default.
    pub overlap: Option<u32>,
    /// How long to wait until it is published; zero: do not wait.
    pub timeout: Duration,
}

/// The progress of a requested change.
#[derive(Debug, PartialEq)]
enum Progress {
    /// No operator has handled it.
    Waiting,
    /// The new authority is not published everywhere yet, with the awaited event.
    Publishing(String),
    /// It is published; the next step.
    Published(String),
}

/// Requests a new authority, and waits until it is published: the next steps take longer.
pub async fn run(connection: &Connection, name: &str, request: &Request) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    read(&client, &namespace, name).await?;
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    let annotations = [
        (ANNOTATION_RENEW_AUTHORITY, Some(token.clone())),
        // An option of an earlier request does not apply to this one.
        (ANNOTATION_AUTHORITY_OVERLAP, request.overlap.map(|seconds| seconds.to_string())),
    ];
    annotate(&client, &namespace, name, &annotations).await?;
    if request.timeout.is_zero() {
        println!("requested; see status.certificates.change of {name} for its progress");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + request.timeout;
    loop {
        let progress = progress(&read(&client, &namespace, name).await?, &token);
        if let Progress::Published(next) = &progress {
            println!("{next}");
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            let waits = match progress {
                Progress::Publishing(message) => message,
                _ => "no operator has handled it".to_owned(),
            };
            eprintln!(
                "error: the new authority is not published within {} s: {waits}; the request is kept: kubectl servicedb \
                 status {name} -n {namespace}",
                request.timeout.as_secs()
            );
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn progress(resource: &ServiceDatabase, token: &str) -> Progress {
    let certificates = resource.status.as_ref().and_then(|status| status.certificates.clone()).unwrap_or_default();
    if certificates.renew_request.as_deref() == Some(token) {
        return Progress::Published("the new authority signs, and the former one was removed".to_owned());
    }
    let Some(change) = certificates.change.filter(|change| change.request.as_deref() == Some(token)) else {
        return Progress::Waiting;
    };
    let at = change.next_step_at.map_or_else(|| "later".to_owned(), |at| at.0.to_string());
    match change.phase {
        AuthorityPhase::Publishing => Progress::Publishing(change.message),
        AuthorityPhase::Announced => Progress::Published(format!(
            "the instances, the record in Vault and the Secret with the credentials have the new authority beside the \
             present one\nservices must have read it by {at}: then it signs the certificates"
        )),
        AuthorityPhase::Signing => {
            Progress::Published(format!("the new authority signs; the former one is trusted until {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resource(certificates: Value) -> ServiceDatabase {
        serde_json::from_value(json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
            "spec": {"storage": {"size": "1Gi"}}, "status": {"certificates": certificates},
        }))
        .expect("a resource")
    }

    #[test]
    fn a_request_is_published_once_everybody_can_read_the_authority() {
        let change = |request: &str, phase: &str| {
            let change = json!({"request": request, "phase": phase, "startedAt": "2026-01-01T00:00:00Z",
                "nextStepAt": "2026-01-08T00:00:00Z", "message": "waiting for chat-db-1"});
            progress(&resource(json!({"renewRequest": "before", "change": change})), "now")
        };
        assert_eq!(progress(&resource(json!({})), "now"), Progress::Waiting);
        assert_eq!(change("another", "Announced"), Progress::Waiting);
        assert_eq!(change("now", "Publishing"), Progress::Publishing("waiting for chat-db-1".to_owned()));
        assert!(matches!(change("now", "Announced"), Progress::Published(next) if next.contains("2026-01-08")));
        assert!(matches!(progress(&resource(json!({"renewRequest": "now"})), "now"), Progress::Published(_)));
    }
}
