//! What the pods of a migration Job tell: how the last of them ended, and what hinders one that
//! has not.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::contract::migration::{Failure, Outcome};
use crate::operator::context::error::Error;
use crate::operator::observe::pods::is_image_pull;
use crate::operator::plan::drift;
use crate::operator::plan::migration;
use crate::operator::plan::tool;

/// What a container's message may have of a runtime's own words.
const RUNTIME_WORDS: usize = 300;

/// A Job's pods, the newest first.
pub struct JobPods(Vec<Pod>);

impl JobPods {
    /// Reads them.
    ///
    /// # Errors
    /// Whatever the API server said.
    pub async fn of(client: &Client, names: &Names, job: &str) -> Result<Self, Error> {
        let api: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
        let selector = format!("batch.kubernetes.io/job-name={job}");
        let mut pods = api.list(&ListParams::default().labels(&selector)).await?.items;
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.creation_timestamp()));
        Ok(Self(pods))
    }

    /// What the newest of them that has ended said: in its own words, where one of our
    /// containers did, or by what became of the others.
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.iter().find_map(outcome)
    }

    /// What hinders the newest, while it has not ended: a reason of `api::conditions::reason`, and
    /// what it is.
    pub fn hindrance(&self) -> Option<(&'static str, String)> {
        let pod = self.0.first()?;
        let evicted = pod.status.as_ref().filter(|status| status.reason.as_deref() == Some("Evicted"));
        if let Some(status) = evicted {
            let why = cut(status.message.as_deref().unwrap_or_default());
            return Some((reason::MIGRATIONS_RUNNING, format!("pod {} was evicted: {why}", pod.name_any())));
        }
        statuses(pod).find_map(|status| {
            let (name, state) = (pod.name_any(), status.state.as_ref()?);
            if let Some(waiting) = &state.waiting {
                let why = waiting.reason.as_deref()?;
                let usual = ["PodInitializing", "ContainerCreating"].contains(&why);
                let said = last_words(status).map(|failure| failure.message);
                let message = said.or_else(|| waiting.message.clone()).unwrap_or_default();
                let reason = if is_image_pull(why) { reason::IMAGE_PULL_FAILED } else { reason::MIGRATIONS_RUNNING };
                let told = || (reason, format!("pod {name}, container {}: {why}: {}", status.name, cut(&message)));
                return (!usual).then(told);
            }
            // A sidecar that was restarted, and tries again.
            let failure = last_words(status)?;
            let message = format!("pod {name}, container {}: {}", status.name, failure.message);
            Some((reason::MIGRATIONS_RUNNING, message))
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
    if let Some(outcome) = ours.filter_map(|status| said(status.state.as_ref()?)).next() {
        return Some(outcome);
    }
    let lost = statuses(pod).filter(|status| status.name == tool::HOLD).find_map(last_words);
    let failure = statuses(pod).find_map(|status| {
        let ended = status.state.as_ref()?.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
        let why = ended.reason.as_deref().unwrap_or("Error");
        let words = ended.message.as_deref().map(|words| format!(": {}", cut(words))).unwrap_or_default();
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
                    "the migrations cannot be copied out of the image {image} ({why}, exit code {}){words}: it must \
                     have the folder of spec.migrations.source.image.path and the program cp",
                    ended.exit_code
                );
                Some(failure(reason::INVALID_MIGRATIONS, false, message))
            }
            tool::TOOL => {
                // It may have failed for what took the session that held the lock.
                let transient = ended.exit_code == tool::EXIT_TRANSIENT || lost.is_some();
                // Its own words may have a password in them; the runtime's have not.
                let words = if why == "StartError" { words } else { String::new() };
                let begun = if let Some(lost) = &lost { format!(" ({})", lost.message) } else { words };
                let message = format!(
                    "the team's own tool ended with exit code {} ({why}){begun}: kubectl logs {} -c {}",
                    ended.exit_code,
                    pod.name_any(),
                    tool::TOOL
                );
                Some(failure(reason::MIGRATION_FAILED, transient, message))
            }
            _ => None,
        }
    });
    failure.or(lost).map(|failure| Outcome { failure: Some(failure), ..Outcome::default() })
}

/// What a container of ours left as it ended.
fn said(state: &ContainerState) -> Option<Outcome> {
    serde_json::from_str(state.terminated.as_ref()?.message.as_ref()?).ok()
}

/// Why a container of ours ended, which is restarted or was.
fn last_words(status: &ContainerStatus) -> Option<Failure> {
    let states = [&status.state, &status.last_state];
    states.into_iter().flatten().find_map(|state| said(state)?.failure)
}

/// Only the beginning, and on one line.
fn cut(words: &str) -> String {
    words.trim().chars().take(RUNTIME_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pods(init: Value, containers: Value) -> JobPods {
        let pod = json!({
            "metadata": {"name": "chat-db-migrate-1-abcde"},
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
    fn a_folder_that_is_not_in_the_image_is_told_by_what_cp_said() {
        let copy = container("copy", &ended(1, "cp: can't stat '/migrations/.': No such file\n"), &json!({}));
        let migrate = container("migrate", &json!({"waiting": {"reason": "PodInitializing"}}), &json!({}));
        let failure =
            pods(json!([copy]), json!([migrate])).outcome().and_then(|outcome| outcome.failure).expect("told");
        assert_eq!((failure.reason.as_str(), failure.transient), ("InvalidMigrations", false));
        assert!(failure.message.contains("team:1") && failure.message.contains("can't stat"), "{}", failure.message);
    }

    #[test]
    fn a_tool_that_failed_is_tried_again_only_where_that_may_help() {
        let lost = json!({"revision": "r", "applied": 0, "failure":
            {"reason": "NoPrimary", "message": "the session was lost", "transient": true}})
        .to_string();
        for (code, last, transient) in [(1, json!({}), false), (75, json!({}), true), (1, ended(75, &lost), true)] {
            let hold = container("hold", &json!({"running": {}}), &last);
            let tool = container("tool", &ended(code, ""), &json!({}));
            let failure = pods(json!([hold, tool]), json!([])).outcome().and_then(|outcome| outcome.failure);
            let failure = failure.expect("told");
            assert_eq!(failure.transient, transient, "exit code {code}: {}", failure.message);
            assert!(failure.message.contains("kubectl logs chat-db-migrate-1-abcde -c tool"), "{}", failure.message);
        }
    }

    #[test]
    fn an_image_that_cannot_be_had_hinders() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
        let found = pods(json!([container("copy", &waiting, &json!({}))]), json!([]));
        let (reason, message) = found.hindrance().expect("told");
        assert!(reason == "ImagePullFailed" && message.contains("ImagePullBackOff"), "{reason}: {message}");
        assert_eq!(found.outcome(), None);
        let usual = json!({"waiting": {"reason": "PodInitializing"}});
        assert_eq!(pods(json!([]), json!([container("migrate", &usual, &json!({}))])).hindrance(), None);
    }
}
