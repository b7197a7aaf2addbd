//! What a failed test shows: the resources, their pods, events and logs.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use servicedb::api::ServiceDatabase;

use super::operator::Operator;
use super::sandbox::Sandbox;

/// How many lines of a log are shown.
const TAIL: i64 = 30;

/// Everything of a namespace that helps; never a Secret.
pub async fn of(sandbox: &Sandbox) -> String {
    let mut text = format!("\n===== {} =====\n", sandbox.namespace);
    let all = ListParams::default();
    for mut database in sandbox.api::<ServiceDatabase>().list(&all).await.into_iter().flatten() {
        database.metadata.managed_fields = None;
        let _ = writeln!(text, "--- ServiceDatabase\n{}", serde_yaml::to_string(&database).unwrap_or_default());
    }
    for event in sandbox.api::<Event>().list(&all).await.into_iter().flatten() {
        let object = &event.involved_object;
        let _ = writeln!(
            text,
            "event {} {}: {}: {}",
            object.kind.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default(),
        );
    }
    for pod in sandbox.api::<Pod>().list(&all).await.into_iter().flatten() {
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
    let log = Operator::of(sandbox.cluster).logs(None).await;
    let mentions: Vec<_> = log.lines().filter(|line| line.contains(&sandbox.namespace)).collect();
    let from = mentions.len().saturating_sub(TAIL as usize);
    let _ = writeln!(text, "--- the operator's log on this namespace\n{}\n=====", mentions[from..].join("\n"));
    text
}
