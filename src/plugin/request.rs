//! `kubectl servicedb switchover`, `restart`, `restore`, `upgrade` and `maintenance --now`: sends the request, and waits
//! for the result in status.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{PluginError, annotate, connect, read};
use super::ready;
use crate::api::names::{
    ANNOTATION_MAINTAIN, ANNOTATION_RESTART, ANNOTATION_RESTORE, ANNOTATION_RESTORE_STORE, ANNOTATION_RESTORE_TO,
    ANNOTATION_SWITCHOVER, ANNOTATION_SWITCHOVER_TO, ANNOTATION_UPGRADE, ANNOTATION_UPGRADE_ACTION,
};
use crate::api::{RequestState, RequestStatus, RestoreTarget, ServiceDatabase, UpgradeAction};

/// The interval at which the result is polled.
const POLL: Duration = Duration::from_millis(250);

/// The request.
pub enum Request {
    /// Another primary: this pod, or the healthiest.
    Switchover(Option<String>),
    /// A restart of PostgreSQL on every instance.
    Restart,
    /// A restore in place, from the store that is named.
    Restore(RestoreTarget, Option<String>),
    /// A run of the maintenance.
    Maintenance,
    /// A step of a major upgrade.
    Upgrade(UpgradeAction),
}

impl Request {
    fn annotations(&self, token: &str) -> Vec<(&'static str, Option<String>)> {
        match self {
            // An option of an earlier request does not apply to this one.
            Self::Switchover(to) => {
                vec![(ANNOTATION_SWITCHOVER, Some(token.to_owned())), (ANNOTATION_SWITCHOVER_TO, to.clone())]
            }
            Self::Restart => vec![(ANNOTATION_RESTART, Some(token.to_owned()))],
            Self::Maintenance => vec![(ANNOTATION_MAINTAIN, Some(token.to_owned()))],
            Self::Restore(target, store) => {
                let target = serde_json::json!(target).to_string();
                vec![
                    (ANNOTATION_RESTORE, Some(token.to_owned())),
                    (ANNOTATION_RESTORE_TO, Some(target)),
                    (ANNOTATION_RESTORE_STORE, store.clone()),
                ]
            }
            Self::Upgrade(action) => {
                let action = Some(format!("{action:?}"));
                vec![(ANNOTATION_UPGRADE, Some(token.to_owned())), (ANNOTATION_UPGRADE_ACTION, action)]
            }
        }
    }

    fn answer<'a>(&self, resource: &'a ServiceDatabase, token: &str) -> Option<&'a RequestStatus> {
        let status = resource.status.as_ref()?;
        let answer = match self {
            Self::Switchover(_) => status.switchover.as_ref(),
            Self::Restart => status.restart.as_ref(),
            Self::Maintenance => status.maintenance.as_ref()?.request.as_ref(),
            Self::Restore(..) => status.restore.as_ref().map(|restore| &restore.run),
            Self::Upgrade(_) => status.upgrade.as_ref().and_then(|upgrade| upgrade.last_request.as_ref()),
        };
        answer.filter(|answer| answer.request == token)
    }

    /// Whether the replicas are cloned again once it is done.
    fn clones_replicas(&self) -> bool {
        matches!(self, Self::Upgrade(UpgradeAction::Start | UpgradeAction::Back))
    }

    /// How the request is withdrawn, if it can be.
    fn withdraw(&self, namespace: &str, name: &str) -> Option<String> {
        matches!(self, Self::Restore(..)).then(|| {
            format!(
                "until the directories are exchanged it can be withdrawn: kubectl annotate -n {namespace} servicedatabase \
                 {name} {ANNOTATION_RESTORE}-"
            )
        })
    }

    /// The progress of a request that is not answered yet.
    fn progress(&self, resource: &ServiceDatabase, answer: Option<&RequestStatus>) -> Option<String> {
        match self {
            Self::Switchover(_) | Self::Restart => ready_message(&resource.status.as_ref()?.conditions),
            Self::Restore(..) | Self::Upgrade(_) => answer?.message.clone(),
            Self::Maintenance => {
                let waits = resource.status.as_ref()?.maintenance.as_ref()?.waits_for.clone();
                waits.map(|why| format!("waiting: {why}")).or_else(|| answer?.message.clone())
            }
        }
    }
}

/// Sends the request, and waits until status has the result, if there is a time to wait.
pub async fn run(
    connection: &Connection,
    name: &str,
    request: &Request,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    annotate(&client, &namespace, name, &request.annotations(&token)).await?;
    if timeout.is_zero() {
        println!("requested; kubectl servicedb status {name} -n {namespace} shows its progress");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + timeout;
    let mut shown = request.progress(&resource, None);
    loop {
        let resource = read(&client, &namespace, name).await?;
        let answer = request.answer(&resource, &token);
        if let Some(answer) = answer.filter(|answer| answer.state != RequestState::Running) {
            let message = answer.message.as_deref().unwrap_or_default();
            if answer.state == RequestState::Done {
                println!("{message}");
                if request.clones_replicas() {
                    ready::wait(&client, &namespace, name, deadline).await?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!("error: {message}");
            return Ok(ExitCode::FAILURE);
        }
        let now = request.progress(&resource, answer);
        if now != shown {
            if let Some(now) = now.as_ref().filter(|_| answer.is_some()) {
                println!("{now}");
            }
            shown = now;
        }
        if Instant::now() >= deadline {
            let taken_up = if answer.is_some() { "it is in progress" } else { "no operator has handled it" };
            let withdraw = request.withdraw(&namespace, name).map(|how| format!("; {how}")).unwrap_or_default();
            eprintln!(
                "error: no answer within {} s: {taken_up}; the request is kept: kubectl servicedb status {name} -n \
                 {namespace}{withdraw}",
                timeout.as_secs()
            );
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The progress, from the condition Ready.
fn ready_message(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> Option<String> {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "False")?;
    Some(ready.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_without_a_store_removes_that_of_an_earlier_one() {
        let asked = |store: Option<&str>| {
            Request::Restore(RestoreTarget::default(), store.map(str::to_owned)).annotations("t").pop().expect("one")
        };
        assert_eq!(asked(None), (ANNOTATION_RESTORE_STORE, None));
        assert_eq!(asked(Some("other")), (ANNOTATION_RESTORE_STORE, Some("other".to_owned())));
    }

    #[test]
    fn a_restore_says_how_it_is_withdrawn() {
        let how = Request::Restore(RestoreTarget::default(), None).withdraw("messaging", "chat").unwrap_or_default();
        assert!(how.ends_with("kubectl annotate -n messaging servicedatabase chat servicedb.dev/restore-"), "{how}");
        assert_eq!(Request::Restart.withdraw("messaging", "chat"), None);
    }

    #[test]
    fn a_switchover_without_a_target_removes_an_earlier_target() {
        let asked = Request::Switchover(None).annotations("t");
        assert_eq!(asked, [(ANNOTATION_SWITCHOVER, Some("t".to_owned())), (ANNOTATION_SWITCHOVER_TO, None)]);
    }
}
