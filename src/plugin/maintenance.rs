//! `kubectl servicedb maintenance`: shows the windows, what is due and what was done; or requests a run now, and follows
//! it to its end.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::age::{age, duration};
use super::args::Connection;
use super::connection::{PluginError, connect, read};
use super::request::{self, Request};
use super::table::{Table, plain};
use crate::api::{MaintenanceAction, MaintenanceStatus, RequestState, ServiceDatabase};

/// Shows the maintenance, or with a time to wait requests a run.
///
/// # Errors
/// If the resource cannot be read or changed.
pub async fn run(connection: &Connection, name: &str, now: bool, timeout: Duration) -> Result<ExitCode, PluginError> {
    if now {
        return request::run(connection, name, &Request::Maintenance, timeout).await;
    }
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    print!("{}", text(&resource, Timestamp::now()));
    Ok(ExitCode::SUCCESS)
}

fn text(resource: &ServiceDatabase, now: Timestamp) -> String {
    let mut text = String::new();
    for window in &resource.spec.maintenance.windows {
        let zone = window.time_zone.as_deref().unwrap_or("UTC");
        let _ = writeln!(text, "Window:    {:?} in {zone}, {} minutes", window.schedule, window.duration_minutes);
    }
    if resource.spec.maintenance.windows.is_empty() {
        let _ = writeln!(text, "Window:    none: nothing is done unless it is requested (--now)");
    }
    let default = MaintenanceStatus::default();
    let status = resource.status.as_ref().and_then(|status| status.maintenance.as_deref()).unwrap_or(&default);
    if let Some(until) = &status.open_until {
        let _ = writeln!(text, "Open:      until {}", until.0);
    }
    if let Some(next) = &status.next_window {
        let _ = writeln!(text, "Next:      {}", next.0);
    }
    if let Some(why) = &status.waits_for {
        let _ = writeln!(text, "Waits:     {}", plain(why));
    }
    if let Some(run) = &status.last_run {
        let state = match run.state {
            RequestState::Running => "in progress",
            RequestState::Done => "done",
            RequestState::Failed => "incomplete",
        };
        let message = plain(run.message.as_deref().unwrap_or_default());
        let _ = writeln!(text, "Last run:  {state}, began {} ago: {message}", age(run.started_at.0, now));
    }
    let surveyed = status.surveyed_at.as_ref().map(|at| format!(", read {} ago", age(at.0, now))).unwrap_or_default();
    let count = status.due_count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let _ = writeln!(text, "\nDue: {count}{surveyed}");
    if !status.due.is_empty() {
        let mut table = Table::new(["ACTION", "OBJECT", "WHY"]);
        for due in &status.due {
            table.row([label(due.action).to_owned(), due.object.clone(), due.reason.clone()]);
        }
        text += &table.render();
    }
    if !status.done.is_empty() {
        let mut table = Table::new(["ACTION", "OBJECT", "AGO", "TOOK", "FREED", "FAILURE"]);
        for done in &status.done {
            table.row([
                label(done.action).to_owned(),
                done.object.clone(),
                age(done.at.0, now),
                duration(done.milliseconds),
                done.freed_bytes.map(|bytes| format!("{} KiB", bytes >> 10)).unwrap_or_default(),
                done.failure.clone().unwrap_or_default(),
            ]);
        }
        let _ = write!(text, "\nDone\n{}", table.render());
    }
    text
}

fn label(action: MaintenanceAction) -> &'static str {
    match action {
        MaintenanceAction::UpdateExtension => "update extension",
        MaintenanceAction::RemoveLeftover => "remove leftover",
        MaintenanceAction::Freeze => "freeze",
        MaintenanceAction::Vacuum => "vacuum",
        MaintenanceAction::Analyze => "analyze",
        MaintenanceAction::Reindex => "reindex",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_due_and_done_are_shown_and_nothing_controls_the_terminal() {
        let resource = serde_json::json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
            "spec": {"storage": {"size": "1Gi"}, "maintenance": {"windows": [
                {"schedule": "0 3 * * SUN", "durationMinutes": 90, "timeZone": "Europe/Berlin"}]}},
            "status": {"maintenance": {
                "nextWindow": "2026-12-06T02:00:00Z", "surveyedAt": "2026-11-29T02:00:00Z", "dueCount": 1,
                "due": [{"action": "Reindex", "object": "public.\"a\u{1b}[31m\"", "reason": "80 % of 9 KiB are unused"}],
                "done": [{"action": "Vacuum", "object": "public.t", "at": "2026-11-29T02:00:00Z", "milliseconds": 1500,
                          "freedBytes": 2048, "failure": "broken off"}],
            }},
        });
        let resource: ServiceDatabase = serde_json::from_value(resource).expect("a resource");
        let shown = text(&resource, "2026-11-29T02:01:00Z".parse().expect("a time"));
        assert!(shown.contains("\"0 3 * * SUN\" in Europe/Berlin, 90 minutes"), "{shown}");
        assert!(shown.contains("Next:      2026-12-06T02:00:00Z") && shown.contains("Due: 1, read 60s ago"), "{shown}");
        assert!(shown.contains("vacuum") && shown.contains("2 KiB") && shown.contains("broken off"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}
