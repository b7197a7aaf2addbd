//! `kubectl servicedb upgrade`: says what will happen, asks, and has the upgrade rehearsed, made, taken back or finished.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Connection, UpgradeStep};
use super::confirm::approved;
use super::connection::{PluginError, connect, read};
use super::request;
use crate::api::{ServiceDatabaseStatus, UpgradeAction};

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
    println!("{}", consequences(name, action, &resource.status.unwrap_or_default()));
    if action != UpgradeAction::Check && !approved(yes)? {
        return Ok(ExitCode::FAILURE);
    }
    request::run(connection, name, &request::Request::Upgrade(action), timeout).await
}

/// What the step does, for the person who is asked.
fn consequences(name: &str, action: UpgradeAction, status: &ServiceDatabaseStatus) -> String {
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
            let rehearsed = if has_backup { "The newest backup" } else { "A copy" };
            format!(
                "{rehearsed} of {name} is upgraded first. Then every instance stops, the database is unavailable {long}, and the \
                 replicas are cloned again. The data from before is kept until --finish. {backup}"
            )
        }
        UpgradeAction::Back => {
            let since = upgrade.and_then(|upgrade| upgrade.switched_at.as_ref());
            let since = since.map_or_else(|| "since the upgrade".to_owned(), |at| format!("since {}", at.0));
            format!(
                "{name} returns to the data from before the upgrade: everything that was written {since} is LOST. Every \
                 instance stops, and the replicas are cloned again."
            )
        }
        UpgradeAction::Finish => {
            format!("The data of {name} from before the upgrade is removed: there is no way back then.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::UpgradeStatus;

    #[test]
    fn a_person_is_told_what_is_lost() {
        let mut upgrade = UpgradeStatus::pending(17, 18);
        upgrade.rehearsal_seconds = Some(9);
        upgrade.switched_at = serde_json::from_value("2026-11-29T12:00:00Z".into()).expect("a time");
        let status = ServiceDatabaseStatus { upgrade: Some(Box::new(upgrade)), ..ServiceDatabaseStatus::default() };
        let said = |action| consequences("chat", action, &status);
        assert!(said(UpgradeAction::Start).contains("about 9 s") && said(UpgradeAction::Start).contains("no store"));
        assert!(said(UpgradeAction::Back).contains("written since 2026-11-29T12:00:00Z is LOST"));
        let step = |check, back, finish| action(UpgradeStep { check, back, finish });
        assert_eq!(
            [step(true, false, false), step(false, true, false), step(false, false, true), step(false, false, false)],
            [UpgradeAction::Check, UpgradeAction::Back, UpgradeAction::Finish, UpgradeAction::Start]
        );
    }
}
