//! The diagnostics of a failed test: the resources, their pods, events and logs.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use serde_json::Value;
use servicedb::api::ServiceDatabase;
use servicedb::api::names::{ANNOTATION_REPORT, LABEL_SCOPE};

use super::operator::Operator;
use super::sandbox::Sandbox;

/// How many lines of a log are shown.
const TAIL: i64 = 150;
/// How many of them come first, of each database pod: a summary of a run shows only the beginning.
const BRIEF: usize = 14;
/// Lines of these logs that tell nothing.
const NOISE: [&str; 3] = ["checkpoint", "HINT:", "connection received"];
/// Reasons of events of every start.
const USUAL: [&str; 8] = [
    "Created",
    "ExternalProvisioning",
    "Provisioning",
    "ProvisioningSucceeded",
    "Pulled",
    "Scheduled",
    "Started",
    "SuccessfulCreate",
];

/// A line of a log; of PostgreSQL's, which are long, what tells most.
fn brief(line: &str) -> String {
    let parsed = serde_json::from_str::<Value>(line).ok().filter(|line| line["logger"] == "postgres");
    let fields = ["timestamp", "error_severity", "user", "message", "detail"];
    let brief =
        parsed.map(|line| fields.iter().filter_map(|field| line[*field].as_str()).collect::<Vec<_>>().join(" "));
    brief.unwrap_or_else(|| line.to_owned())
}

/// Prints the relevant objects of a namespace, the most telling first; never a Secret.
pub async fn of(sandbox: &Sandbox) -> String {
    let mut text = format!("\n===== {} =====\n", sandbox.namespace);
    let all = ListParams::default();
    let databases = sandbox.api::<ServiceDatabase>().list(&all).await.map(|list| list.items).unwrap_or_default();
    for database in &databases {
        for condition in database.status.iter().flat_map(|status| &status.conditions) {
            let (name, message) = (database.name_any(), &condition.message);
            let _ = writeln!(text, "{name}: {} {} {}: {message}", condition.type_, condition.status, condition.reason);
        }
    }
    let pods: Vec<_> = sandbox.api::<Pod>().list(&all).await.into_iter().flatten().collect();
    for pod in pods.iter().filter(|pod| pod.labels().contains_key(LABEL_SCOPE)) {
        let report = pod.annotations().get(ANNOTATION_REPORT).map(String::as_str).unwrap_or_default();
        let _ = writeln!(text, "{}: {report}", pod.name_any());
        let parameters = LogParams { tail_lines: Some(TAIL), ..LogParams::default() };
        let log = sandbox.api::<Pod>().logs(&pod.name_any(), &parameters).await.unwrap_or_default();
        let telling: Vec<_> = log.lines().filter(|line| !NOISE.iter().any(|noise| line.contains(noise))).collect();
        for line in &telling[telling.len().saturating_sub(BRIEF)..] {
            let _ = writeln!(text, "  {}", brief(line).chars().take(240).collect::<String>());
        }
    }
    let mut events = sandbox.api::<Event>().list(&all).await.map(|list| list.items).unwrap_or_default();
    events.sort_by_key(last_seen);
    let is_usual = |event: &Event| event.reason.as_deref().is_some_and(|reason| USUAL.contains(&reason));
    for event in events.iter().filter(|event| !is_usual(event)) {
        let object = &event.involved_object;
        let _ = writeln!(
            text,
            "{} {} {}: {}: {}",
            last_seen(event).unwrap_or_default(),
            object.kind.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default(),
        );
    }
    let log = Operator::of(sandbox.cluster).logs(None).await;
    let mentions: Vec<_> = log.lines().filter(|line| line.contains(&sandbox.namespace)).collect();
    let from = mentions.len().saturating_sub(TAIL as usize);
    let _ = writeln!(text, "--- the operator's log on this namespace\n{}", mentions[from..].join("\n"));
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        let containers = serde_json::to_string(&status.container_statuses).unwrap_or_default();
        let _ = writeln!(text, "--- pod {} {}: {containers}", pod.name_any(), status.phase.unwrap_or_default());
        let _ = writeln!(text, "annotations {:?}", pod.annotations());
        for previous in [true, false] {
            let parameters = LogParams { previous, tail_lines: Some(TAIL), ..LogParams::default() };
            if let Ok(log) = sandbox.api::<Pod>().logs(&pod.name_any(), &parameters).await {
                let _ = writeln!(text, "{}log:\n{log}", if previous { "previous " } else { "" });
            }
        }
    }
    for mut database in databases {
        database.metadata.managed_fields = None;
        let _ = writeln!(text, "--- ServiceDatabase\n{}", serde_yaml::to_string(&database).unwrap_or_default());
    }
    text.push_str("=====\n");
    text
}

/// When an event was last observed, as text that sorts by time.
fn last_seen(event: &Event) -> Option<String> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let single = event.event_time.as_ref();
    let time = series.or(single).map(|time| time.0.to_string());
    let classic = event.last_timestamp.as_ref().or(event.first_timestamp.as_ref()).map(|time| time.0.to_string());
    // To the second, since the two kinds differ below it.
    Some(time.max(classic)?.chars().take(19).collect())
}
