//! `kubectl servicedb upgrade`: says what will happen, asks, and has the upgrade rehearsed, made, taken back or finished.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Connection, UpgradeStep};
use super::confirm::approved;
use super::connection::{PluginError, connect, read};
use super::request;
use super::table::plain;
use crate::api::names::Names;
use crate::api::{RequestState, ServiceDatabaseStatus, UpgradeAction, UpgradePhase, UpgradeStatus};
use crate::contract::server_version::FIRST;
use crate::contract::upgrade_step::{Facts, refusal};

/// The step that was chosen.
pub fn action(step: UpgradeStep) -> UpgradeAction {
    match (step.check, step.back, step.finish) {
        (true, ..) => UpgradeAction::Check,
        (_, true, _) => UpgradeAction::Back,
        (.., true) => UpgradeAction::Finish,
        _ => UpgradeAction::Start,
    }
}

/// Asks, sends the request, and waits for its result, if there is a time to wait.
///
/// # Errors
/// If the resource cannot be read or changed.
pub async fn run(
    connection: &Connection,
    name: &str,
    action: UpgradeAction,
    yes: bool,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let status = resource.status.unwrap_or_default();
    let has_replicas = resource.spec.instances > 1;
    let names = Names::new(namespace, name);
    if let Some(refusal) = refused(&names, action, resource.spec.postgres.version.as_deref(), &status) {
        eprintln!("error: {refusal}");
        return Ok(ExitCode::FAILURE);
    }
    println!("{}", consequences(name, action, has_replicas, &status));
    if action != UpgradeAction::Check && !approved(yes)? {
        return Ok(ExitCode::FAILURE);
    }
    request::run(connection, name, &request::Request::Upgrade(action), timeout).await
}

/// Why the operator would refuse the step, as far as status tells. `declared` is `spec.postgres.version`.
fn refused(
    names: &Names,
    action: UpgradeAction,
    declared: Option<&str>,
    status: &ServiceDatabaseStatus,
) -> Option<String> {
    let kept_by = status.upgrade.as_deref().and_then(|upgrade| upgrade.kept_by.as_deref());
    let of_data = status.postgres_major.and_then(|major| u16::try_from(major).ok());
    // A new database has none in status yet; the way back does not depend on it.
    let major = match action {
        UpgradeAction::Check | UpgradeAction::Start => of_data?,
        UpgradeAction::Back | UpgradeAction::Finish => of_data.unwrap_or(FIRST),
    };
    let declared: Option<u16> = declared.and_then(|declared| declared.parse().ok());
    let upgrade_to = declared.filter(|declared| *declared > major);
    refusal(action, &Facts { names, major, upgrade_to, kept_by, primary: status.primary.as_deref() })
}

/// What the step does, for the person who is asked.
fn consequences(name: &str, action: UpgradeAction, has_replicas: bool, status: &ServiceDatabaseStatus) -> String {
    let upgrade = status.upgrade.as_deref();
    let seconds = upgrade.and_then(|upgrade| upgrade.rehearsal_seconds);
    let has_backup = status.backup.as_ref().is_some_and(|backup| backup.newest.is_some());
    match action {
        UpgradeAction::Check if has_backup => {
            format!("A Job restores the newest backup of {name} and upgrades it; the database serves meanwhile.")
        }
        UpgradeAction::Check => format!("A copy of {name} is upgraded beside the database, which serves meanwhile."),
        UpgradeAction::Start => {
            let long = seconds.map_or_else(
                || "for as long as a copy of the data and pg_upgrade take".to_owned(),
                |seconds| format!("for about {seconds} s"),
            );
            let backup = if has_backup {
                "A full backup follows it."
            } else {
                "There is no store for backups: the data from before on the primary's volume is the only way back."
            };
            let known = checked(upgrade).map_or_else(
                || "With --check first, the outage and the warnings are known before an instance stops.".to_owned(),
                |said| format!("The last rehearsal: {}.", plain(said)),
            );
            let rehearsed = if has_backup { "The newest backup" } else { "A copy" };
            let outage = if has_replicas {
                format!("every instance stops, the database is unavailable {long}, and the replicas are cloned again")
            } else {
                format!("the database is unavailable {long}")
            };
            format!(
                "{rehearsed} of {name} is upgraded first. Then {outage}. The data from before is kept until --finish. \
                 {backup} {known}"
            )
        }
        UpgradeAction::Back => {
            let since = upgrade.and_then(|upgrade| upgrade.switched_at.as_ref());
            let since = since.map_or_else(|| "since the upgrade".to_owned(), |at| format!("since {}", at.0));
            let outage = if has_replicas {
                "Every instance stops, and the replicas are cloned again."
            } else {
                "The database is unavailable for some seconds."
            };
            format!(
                "{name} returns to the data from before the upgrade: everything that was written {since} is LOST. {outage}"
            )
        }
        UpgradeAction::Finish => {
            format!("The data of {name} from before the upgrade is removed: there is no way back then.")
        }
    }
}

/// The result of the rehearsal for the upgrade that is pending, with its warnings; none unless `--check` succeeded.
fn checked(upgrade: Option<&UpgradeStatus>) -> Option<&str> {
    let upgrade = upgrade.filter(|upgrade| upgrade.phase == UpgradePhase::Pending)?;
    let last = upgrade.last_request.as_ref().filter(|last| last.state == RequestState::Done)?;
    upgrade.action.filter(|action| *action == UpgradeAction::Check)?;
    last.message.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_tells_which_step_the_operator_would_refuse() {
        let names = Names::new("messaging", "chat");
        let said = |action, declared: Option<&str>, status: &ServiceDatabaseStatus| {
            refused(&names, action, declared, status).unwrap_or_default()
        };
        let mut status = ServiceDatabaseStatus { postgres_major: Some(17), ..ServiceDatabaseStatus::default() };
        for declared in [None, Some("17"), Some("16")] {
            assert!(said(UpgradeAction::Start, declared, &status).contains("names no higher version"), "{declared:?}");
        }
        assert_eq!(said(UpgradeAction::Start, Some("18"), &status), "");
        assert_eq!(said(UpgradeAction::Start, Some("18"), &ServiceDatabaseStatus::default()), "", "not known yet");
        assert!(said(UpgradeAction::Back, None, &ServiceDatabaseStatus::default()).contains("nothing to return to"));

        let kept = UpgradeStatus { kept_by: Some("chat-db-0".into()), ..UpgradeStatus::pending(16, 17) };
        status.upgrade = Some(Box::new(kept));
        status.primary = Some("chat-db-1".into());
        assert!(said(UpgradeAction::Back, None, &status).contains("--to chat-db-0"));
        assert!(said(UpgradeAction::Start, Some("18"), &status).contains("--finish removes it"));
        assert_eq!(said(UpgradeAction::Finish, None, &status), "");
    }

    #[test]
    fn a_person_is_told_what_is_lost() {
        let mut upgrade = UpgradeStatus::pending(17, 18);
        upgrade.rehearsal_seconds = Some(9);
        upgrade.switched_at = serde_json::from_value("2026-11-29T12:00:00Z".into()).expect("a time");
        let status = ServiceDatabaseStatus { upgrade: Some(Box::new(upgrade)), ..ServiceDatabaseStatus::default() };
        let said = |action| consequences("chat", action, true, &status);
        for action in [UpgradeAction::Start, UpgradeAction::Back] {
            assert!(said(action).contains("the replicas are cloned again"), "{action:?}");
            let alone = consequences("chat", action, false, &status);
            assert!(!alone.contains("replicas") && alone.contains("unavailable for"), "{action:?}: {alone}");
        }
        assert!(said(UpgradeAction::Start).contains("about 9 s") && said(UpgradeAction::Start).contains("no store"));
        assert!(said(UpgradeAction::Back).contains("written since 2026-11-29T12:00:00Z is LOST"));
        assert!(said(UpgradeAction::Start).contains("With --check first"), "{}", said(UpgradeAction::Start));
        let step = |check, back, finish| action(UpgradeStep { check, back, finish });
        assert_eq!(
            [step(true, false, false), step(false, true, false), step(false, false, true), step(false, false, false)],
            [UpgradeAction::Check, UpgradeAction::Back, UpgradeAction::Finish, UpgradeAction::Start]
        );
    }
    #[test]
    fn the_warnings_of_the_rehearsal_come_before_the_question() {
        let status = |action: &str, state: &str| {
            let upgrade = serde_json::json!({
                "from": 17, "to": 18, "phase": "Pending", "action": action,
                "lastRequest": {
                    "request": "t", "state": state, "startedAt": "2026-11-29T12:00:00Z",
                    "message": "a copy was upgraded; after the upgrade, reindex public.by_word"
                }
            });
            let upgrade = serde_json::from_value(upgrade).expect("an upgrade");
            ServiceDatabaseStatus { upgrade: Some(Box::new(upgrade)), ..ServiceDatabaseStatus::default() }
        };
        let said = |status: &ServiceDatabaseStatus| consequences("chat", UpgradeAction::Start, true, status);
        let checked = said(&status("Check", "Done"));
        assert!(
            checked.contains("The last rehearsal: a copy was upgraded; after the upgrade, reindex public.by_word.")
        );
        for (action, state) in [("Check", "Failed"), ("Finish", "Done")] {
            let said = said(&status(action, state));
            assert!(!said.contains("reindex") && said.contains("With --check first"), "{action} {state}: {said}");
        }
    }
}
