//! The pods of a migration Job: the result of the last one that ended, and the problem of one that
//! has not.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::contract::migration::{Failure, Outcome};
use crate::operator::context::error::Error;
use crate::operator::observe::pods::{is_image_pull, unschedulable};
use crate::operator::plan::drift;
use crate::operator::plan::migration;
use crate::operator::plan::tool;

/// The maximum length of a runtime's message in a condition.
const MAX_RUNTIME_MESSAGE: usize = 300;

/// The reason of a container that the kernel killed.
const OOM_KILLED: &str = "OOMKilled";
/// The cause and its remedy.
const MORE_MEMORY: &str = " (out of memory: increase spec.migrations.resources)";

/// A Job's pods, the newest first.
pub struct JobPods(Vec<Pod>);

/// The problem of a pod that has not ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// A reason of `api::conditions::reason`.
    pub reason: &'static str,
    /// The message.
    pub message: String,
    /// Whether Vault or PostgreSQL cannot be reached.
    pub away: bool,
}

/// Whether a Job failed because Vault or PostgreSQL cannot be reached.
pub fn is_away(failure: &Failure) -> bool {
    [reason::VAULT_UNREACHABLE, reason::NO_PRIMARY].contains(&failure.reason.as_str())
}

impl JobPods {
    /// Reads them.
    ///
    /// # Errors
    /// Any error of the API server.
    pub async fn of(client: &Client, names: &Names, job: &str) -> Result<Self, Error> {
        let api: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
        let selector = format!("batch.kubernetes.io/job-name={job}");
        let mut pods = api.list(&ListParams::default().labels(&selector)).await?.items;
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.creation_timestamp()));
        Ok(Self(pods))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a container of one of them runs or has run.
    pub fn has_started(&self) -> bool {
        let started = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
        self.0
            .iter()
            .flat_map(statuses)
            .any(|status| status.state.as_ref().is_some_and(started) || status.last_state.as_ref().is_some_and(started))
    }

    /// The result of the newest one that has ended: the termination message of one of Servicedb's
    /// containers, or the state of the others.
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.iter().find_map(outcome)
    }

    /// The termination message of the newest one that has ended.
    pub fn message(&self) -> Option<&str> {
        self.0
            .iter()
            .flat_map(statuses)
            .find_map(|status| status.state.as_ref()?.terminated.as_ref()?.message.as_deref())
    }

    /// The problem of the newest one, while it has not ended.
    pub fn hindrance(&self, now: Timestamp) -> Option<Hindrance> {
        let pod = self.0.first()?;
        if let Some(message) = unschedulable(pod, now) {
            return Some(Hindrance { reason: reason::UNSCHEDULABLE, message, away: false });
        }
        let evicted = pod.status.as_ref().filter(|status| status.reason.as_deref() == Some("Evicted"));
        if let Some(status) = evicted {
            let why = cut(status.message.as_deref().unwrap_or_default());
            let message = format!("pod {} was evicted: {why}", pod.name_any());
            return Some(Hindrance { reason: reason::MIGRATIONS_RUNNING, message, away: false });
        }
        statuses(pod).find_map(|status| {
            let (name, state) = (pod.name_any(), status.state.as_ref()?);
            if let Some(waiting) = &state.waiting {
                let why = waiting.reason.as_deref()?;
                let usual = ["PodInitializing", "ContainerCreating"].contains(&why);
                let failure = last_failure(status);
                let away = failure.as_ref().is_some_and(is_away);
                let message_of_failure = failure.map(|failure| failure.message);
                let message = message_of_failure.or_else(|| waiting.message.clone()).unwrap_or_default();
                let message = format!("pod {name}, container {}: {why}: {}", status.name, cut(&message));
                let reason = if is_image_pull(why) { reason::IMAGE_PULL_FAILED } else { reason::MIGRATIONS_RUNNING };
                return (!usual).then_some(Hindrance { reason, message, away });
            }
            // A sidecar that was restarted and retries.
            let failure = last_failure(status)?;
            let message = format!("pod {name}, container {}: {}", status.name, failure.message);
            Some(Hindrance { reason: reason::MIGRATIONS_RUNNING, message, away: is_away(&failure) })
        })
    }
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

fn outcome(pod: &Pod) -> Option<Outcome> {
    let ours =
        statuses(pod).filter(|status| [migration::MIGRATE, tool::RECORD, drift::DRIFT].contains(&status.name.as_str()));
    if let Some(outcome) = ours.filter_map(|status| reported(status.state.as_ref()?)).next() {
        return Some(outcome);
    }
    let lost = statuses(pod).filter(|status| status.name == tool::HOLD).find_map(last_failure);
    let failure = statuses(pod).find_map(|status| {
        let ended = status.state.as_ref()?.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
        let why = ended.reason.as_deref().unwrap_or("Error");
        let text = ended.message.as_deref().map(|text| format!(": {}", cut(text))).unwrap_or_default();
        let failure = |reason: &str, transient, message| Failure {
            reason: reason.to_owned(),
            transient,
            message,
            ..Failure::default()
        };
        match status.name.as_str() {
            migration::COPY => {
                let image = &status.image;
                let message = format!(
                    "the migrations cannot be copied from the image {image} ({why}, exit code {}){text}: it must \
                     have the folder of spec.migrations.source.image.path and the program cp",
                    ended.exit_code
                );
                Some(failure(reason::INVALID_MIGRATIONS, false, message))
            }
            tool::TOOL => {
                // It may have failed for the same reason as the session with the lock.
                let transient = ended.exit_code == tool::EXIT_TRANSIENT || lost.is_some();
                // Its own message may contain a password; the runtime's does not.
                let text = if why == "StartError" { text } else { String::new() };
                let begun = if let Some(lost) = &lost { format!(" ({})", lost.message) } else { text };
                let memory = if why == OOM_KILLED { MORE_MEMORY } else { "" };
                let message = format!(
                    "the team's own tool ended with exit code {} ({why}){memory}{begun}: kubectl logs {} -n {} -c {}",
                    ended.exit_code,
                    pod.name_any(),
                    pod.namespace().unwrap_or_default(),
                    tool::TOOL
                );
                Some(failure(reason::MIGRATION_FAILED, transient, message))
            }
            name if why == OOM_KILLED => {
                let message = format!("the container {name} of pod {} was killed{MORE_MEMORY}", pod.name_any());
                Some(failure(reason::OOM_KILLED, true, message))
            }
            _ => None,
        }
    });
    failure.or(lost).map(|failure| Outcome { failure: Some(failure), ..Outcome::default() })
}

/// The outcome in the termination message of one of Servicedb's containers.
fn reported(state: &ContainerState) -> Option<Outcome> {
    serde_json::from_str(state.terminated.as_ref()?.message.as_ref()?).ok()
}

/// The failure of one of Servicedb's containers that is or was restarted.
fn last_failure(status: &ContainerStatus) -> Option<Failure> {
    let states = [&status.state, &status.last_state];
    states.into_iter().flatten().find_map(|state| reported(state)?.failure)
}

/// The beginning of a text, on one line.
fn cut(text: &str) -> String {
    text.trim().chars().take(MAX_RUNTIME_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pods(init: Value, containers: Value) -> JobPods {
        let pod = json!({
            "metadata": {"name": "chat-db-migrate-1-abcde", "namespace": "messaging"},
            "status": {"initContainerStatuses": init, "containerStatuses": containers},
        });
        JobPods(vec![serde_json::from_value(pod).expect("a pod")])
    }

    fn container(name: &str, state: &Value, last: &Value) -> Value {
        json!({
            "name": name, "image": "team:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        })
    }

    fn ended(code: i32, message: &str) -> Value {
        json!({"terminated": {"exitCode": code, "reason": "Error", "message": message}})
    }

    #[test]
    fn a_folder_missing_in_the_image_is_reported_with_the_message_of_cp() {
        let copy = container("copy", &ended(1, "cp: can't stat '/migrations/.': No such file\n"), &json!({}));
        let migrate = container("migrate", &json!({"waiting": {"reason": "PodInitializing"}}), &json!({}));
        let failure =
            pods(json!([copy]), json!([migrate])).outcome().and_then(|outcome| outcome.failure).expect("a result");
        assert_eq!((failure.reason.as_str(), failure.transient), ("InvalidMigrations", false));
        assert!(failure.message.contains("team:1") && failure.message.contains("can't stat"), "{}", failure.message);
    }

    #[test]
    fn a_failed_tool_is_retried_only_after_a_transient_failure() {
        let lost = json!({"revision": "r", "applied": 0, "failure":
            {"reason": "NoPrimary", "message": "the session was lost", "transient": true}})
        .to_string();
        for (code, last, transient) in [(1, json!({}), false), (75, json!({}), true), (1, ended(75, &lost), true)] {
            let hold = container("hold", &json!({"running": {}}), &last);
            let tool = container("tool", &ended(code, ""), &json!({}));
            let failure = pods(json!([hold, tool]), json!([])).outcome().and_then(|outcome| outcome.failure);
            let failure = failure.expect("a result");
            assert_eq!(failure.transient, transient, "exit code {code}: {}", failure.message);
            let command = "kubectl logs chat-db-migrate-1-abcde -n messaging -c tool";
            assert!(failure.message.contains(command), "{}", failure.message);
        }
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_a_problem() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
        let found = pods(json!([container("copy", &waiting, &json!({}))]), json!([]));
        let Hindrance { reason, message, .. } = found.hindrance(Timestamp::now()).expect("a result");
        assert!(reason == "ImagePullFailed" && message.contains("ImagePullBackOff"), "{reason}: {message}");
        assert_eq!(found.outcome(), None);
        let usual = json!({"waiting": {"reason": "PodInitializing"}});
        assert_eq!(
            pods(json!([]), json!([container("migrate", &usual, &json!({}))])).hindrance(Timestamp::now()),
            None
        );
    }
}
