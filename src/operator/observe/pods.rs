//! Database pods: trimmed to the fields that the operator reads, and with an agent's report only if
//! it is current.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec};
use kube::ResourceExt;

use crate::api::conditions::reason;
use crate::api::names::{
    ANNOTATION_EVICTION, ANNOTATION_PREPARE_EVICTION, ANNOTATION_REPORT, LABEL_NAME, LABEL_ROLE, LABEL_SCOPE,
    ROLE_PRIMARY,
};
use crate::contract::report::{Phase, Report, Role, Trouble};
use crate::operator::apply::object::controller_uid;

/// The label with the revision of the template of a pod, set by the StatefulSet's controller.
const LABEL_REVISION: &str = "controller-revision-hash";
/// The runtime records a container's start once its process runs, so an agent may start slightly
/// before its container. It first overwrites its predecessor's report.
const START_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// How long a pod may wait for a node or a volume before this is reported as trouble: a claim that
/// is being provisioned looks the same for a short time.
const SCHEDULING_PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// How long an agent may run before its first report.
const SILENCE: SignedDuration = SignedDuration::from_secs(15);
/// The lifetime of the token that Kubernetes mounts into a pod.
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_secs(3607);
/// The number of restarts of a container after which it is reported as crashing.
const CRASHES_BEFORE_ALARM: i32 = 3;

/// One database pod.
#[derive(Clone, Debug)]
pub struct DatabasePod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version.
    pub resource_version: Option<String>,
    /// Whether it has no controller, as while the StatefulSet is recreated.
    pub orphaned: bool,
    /// The node that it runs on.
    pub node: Option<String>,
    /// The revision of its template.
    pub revision: Option<String>,
    /// Whether it is terminating.
    pub terminating: bool,
    /// Whether its container is not created yet, as while a mounted Secret is missing.
    pub mounting: bool,
    /// Whether it is Ready and not terminating.
    pub ready: bool,
    /// Whether it has the primary's label.
    pub labelled_primary: bool,
    /// Whether its annotation requests the preparation of its eviction.
    pub eviction_asked: bool,
    /// The operator's answer to that, from its annotation.
    pub eviction_answer: Option<String>,
    /// The report of the running agent.
    pub report: Option<Report>,
    /// Whether it has run for some time without a report of its agent.
    pub silent: bool,
    /// Whether it has run for that time and is not ready.
    pub lingers: bool,
    /// Its trouble, from Kubernetes or its agent.
    pub trouble: Option<Trouble>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Whether its token is of an earlier ServiceAccount, and therefore void. Set from the ServiceAccount.
    pub has_void_token: bool,
    /// Why its volume is deleted with it; none if it is permanent. Set from the claims, not from
    /// the pod.
    pub volume_end: Option<VolumeEnd>,
}

/// Why an instance's volume is deleted with its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeEnd {
    /// The claim was deleted, and is kept only while the pod runs.
    Deleted,
    /// The claim no longer exists: its finalizer was removed.
    Missing,
    /// The claim has lost its PersistentVolume: no other pod can mount it.
    Lost,
}

impl DatabasePod {
    /// Reads a pod.
    pub fn from(pod: &Pod, now: Timestamp) -> Self {
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let ready = !terminating && condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
        let report = current_report(pod);
        let trouble = trouble_of(pod, now).or_else(|| report.as_ref().and_then(|report| report.trouble.clone()));
        let long = !terminating && running_since(pod).is_some_and(|since| now.duration_since(since) > SILENCE);
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            resource_version: pod.resource_version(),
            orphaned: controller_uid(&pod.metadata).is_none(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            revision: pod.labels().get(LABEL_REVISION).cloned(),
            terminating,
            mounting: !terminating && is_mounting(pod),
            ready,
            silent: long && report.is_none(),
            lingers: long && !ready,
            labelled_primary: pod.labels().get(LABEL_ROLE).is_some_and(|role| role == ROLE_PRIMARY),
            eviction_asked: pod.annotations().contains_key(ANNOTATION_PREPARE_EVICTION),
            eviction_answer: pod.annotations().get(ANNOTATION_EVICTION).cloned(),
            report,
            trouble,
            created_at: pod.creation_timestamp().map(|created| created.0),
            has_void_token: false,
            volume_end: None,
        }
    }

    /// Notes whether its token is void: it belongs to the ServiceAccount that existed when the pod was created. A
    /// kubelet requests another token only after four fifths of the lifetime; after all of it every pod has a new one.
    pub fn compare_with_account(&mut self, account_made: Option<Timestamp>, now: Timestamp) {
        let (Some(pod), Some(account)) = (self.created_at, account_made) else { return };
        self.has_void_token = pod < account && now.duration_since(account) < TOKEN_LIFETIME;
    }

    /// Whether the pod claims to be the primary: its label and its agent agree.
    pub fn claims_the_lead(&self) -> bool {
        self.labelled_primary && self.runs_as(Role::Primary)
    }

    /// Whether it is a replica that serves.
    pub fn is_replica(&self) -> bool {
        self.ready && self.runs_as(Role::Replica)
    }

    /// Whether its agent reports that it cannot reach Vault.
    pub fn misses_vault(&self) -> bool {
        let vault = self.report.as_ref().and_then(|report| report.vault.as_ref());
        vault.is_some_and(|health| !health.ok && health.reason.as_deref() == Some(reason::VAULT_UNREACHABLE))
    }

    fn runs_as(&self, role: Role) -> bool {
        let runs = |report: &Report| report.role == Some(role) && matches!(report.phase, Phase::Running);
        self.report.as_ref().is_some_and(runs)
    }
}

/// Removes the fields of a pod that the operator never reads: with hundreds of pods, the specs,
/// managed fields and Patroni's annotation would use most of the memory.
pub fn trim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    let node_name = pod.spec.take().and_then(|spec| spec.node_name);
    pod.spec = Some(PodSpec { node_name, ..PodSpec::default() });
    if let Some(annotations) = &mut pod.metadata.annotations {
        let read = [ANNOTATION_EVICTION, ANNOTATION_PREPARE_EVICTION, ANNOTATION_REPORT];
        annotations.retain(|key, _| read.contains(&key.as_str()));
    }
    if let Some(labels) = &mut pod.metadata.labels {
        labels.retain(|key, _| [LABEL_NAME, LABEL_REVISION, LABEL_ROLE, LABEL_SCOPE].contains(&key.as_str()));
    }
}

/// A fingerprint of the relevant fields of a trimmed pod: other changes (Patroni writes its pod in
/// every loop) do not trigger a reconcile.
pub fn fingerprint(pod: &Pod) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    pod.uid().hash(&mut hasher);
    pod.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    pod.annotations().get(ANNOTATION_REPORT).hash(&mut hasher);
    pod.annotations().contains_key(ANNOTATION_PREPARE_EVICTION).hash(&mut hasher);
    pod.labels().get(LABEL_ROLE).hash(&mut hasher);
    condition(pod, "Ready").map(|condition| &condition.status).hash(&mut hasher);
    // With the latest possible time, so that the passing of time is no change.
    trouble_of(pod, Timestamp::MAX).map(|trouble| (trouble.reason, trouble.message)).hash(&mut hasher);
    container(pod).map(|status| status.restart_count).hash(&mut hasher);
    hasher.finish()
}

/// The report, if the running agent wrote it: of this pod, and not before the container's start.
fn current_report(pod: &Pod) -> Option<Report> {
    let report: Report = serde_json::from_str(pod.annotations().get(ANNOTATION_REPORT)?).ok()?;
    if Some(report.pod_uid.as_str()) != pod.metadata.uid.as_deref() {
        return None;
    }
    let started = running_since(pod)?;
    (started.duration_since(report.agent_started_at) <= START_TOLERANCE).then_some(report)
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == "database")
}

fn running_since(pod: &Pod) -> Option<Timestamp> {
    Some(container(pod)?.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
}

fn is_mounting(pod: &Pod) -> bool {
    let waiting = |status: &ContainerStatus| status.state.as_ref()?.waiting.as_ref()?.reason.clone();
    container(pod).and_then(waiting).is_some_and(|why| why == "ContainerCreating")
}

fn trouble_of(pod: &Pod, now: Timestamp) -> Option<Trouble> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    if let Some(scheduled) = unscheduled(pod) {
        let message = unschedulable(pod, now)?;
        let unbound = scheduled.contains("PersistentVolumeClaim");
        let reason = if unbound { reason::VOLUME_PENDING } else { reason::UNSCHEDULABLE };
        return Some(trouble(reason, message));
    }
    let status = container(pod)?;
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let why = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        return match why {
            _ if is_image_pull(why) => {
                Some(trouble(reason::IMAGE_PULL_FAILED, format!("pod {name}: {why}: {message}")))
            }
            "CrashLoopBackOff" | "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some(trouble(
                    reason::CRASH_LOOP,
                    format!("pod {name}: {why}: {message}; see kubectl logs {name} -n {namespace} -c database"),
                ))
            }
            _ => None,
        };
    }
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref())?;
    let unready = !status.ready && status.restart_count >= CRASHES_BEFORE_ALARM;
    let why = last.reason.as_deref().unwrap_or("unknown");
    // By the kernel, with all its processes: even the first time is reported.
    if why == "OOMKilled" && !status.ready {
        let message = format!(
            "the container of pod {name} was OOM-killed {}",
            if status.restart_count == 1 { "once".to_owned() } else { format!("{} times", status.restart_count) }
        );
        return Some(trouble(reason::OOM_KILLED, message));
    }
    unready.then(|| {
        let message = format!(
            "pod {name} was restarted {} times, last for {why} (exit code {}); see kubectl logs {name} -n \
             {namespace} -c database --previous",
            status.restart_count, last.exit_code
        );
        trouble(reason::CRASH_LOOP, message)
    })
}

/// The scheduler's message of a pod that has no node.
fn unscheduled(pod: &Pod) -> Option<String> {
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    Some(scheduled.message.clone().unwrap_or_default())
}

/// The scheduler's message of a pod that has been without a node for some time.
pub fn unschedulable(pod: &Pod, now: Timestamp) -> Option<String> {
    let why = unscheduled(pod)?;
    let since = condition(pod, "PodScheduled")?.last_transition_time.as_ref().map_or(now, |time| time.0);
    let long = now.duration_since(since) >= SCHEDULING_PATIENCE;
    long.then(|| format!("pod {} cannot be scheduled: {why}", pod.name_any()))
}

/// Whether a container waits because its image cannot be pulled.
pub fn is_image_pull(why: &str) -> bool {
    ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"].contains(&why)
}

fn trouble(reason: &str, message: String) -> Trouble {
    Trouble { reason: reason.to_owned(), message }
}

#[cfg(test)]
impl DatabasePod {
    /// A ready pod whose agent has just started, for tests to change.
    pub fn sample(name: &str) -> Self {
        let report = Report::starting(name.to_owned(), Timestamp::UNIX_EPOCH);
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": name, "uid": name, "annotations": {ANNOTATION_REPORT: serde_json::json!(report).to_string()},
            },
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "database", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
                    "state": {"running": {"startedAt": "1970-01-01T00:00:00Z"}},
                }],
            },
        }));
        Self::from(&pod.expect("a pod"), Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(report_uid: &str, agent_started_at: &str, ready: &str) -> Pod {
        let mut report = Report::starting(report_uid.to_owned(), agent_started_at.parse().expect("a timestamp"));
        report.phase = Phase::Running;
        report.role = Some(Role::Primary);
        serde_json::from_value(json!({
            "metadata": {
                "name": "chat-db-0", "uid": "u1",
                "labels": {LABEL_ROLE: ROLE_PRIMARY},
                "annotations": {ANNOTATION_REPORT: json!(report).to_string()},
            },
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{
                    "name": "database", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:10Z"}},
                }],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn a_primary_needs_the_label_and_a_current_report() {
        let after = "2026-01-01T00:00:10.5Z";
        let claims = |uid: &str, started: &str| {
            DatabasePod::from(&pod(uid, started, "True"), Timestamp::now()).claims_the_lead()
        };
        assert!(claims("u1", after));
        assert!(!claims("u0", after), "an earlier pod's report");
        assert!(!claims("u1", "2026-01-01T00:00:07Z"), "an earlier container's");
        assert!(!DatabasePod::from(&pod("u1", after, "False"), Timestamp::now()).ready);
    }

    #[test]
    fn a_token_is_void_that_is_older_than_the_service_account_for_as_long_as_tokens_live() {
        let mut pod = DatabasePod::sample("chat-db-0");
        let at = |seconds| Timestamp::from_second(seconds).expect("a timestamp");
        let mut is_void = |created, account: Option<i64>, now| {
            pod.created_at = Some(at(created));
            pod.compare_with_account(account.map(at), at(now));
            pod.has_void_token
        };
        assert!(is_void(100, Some(101), 102));
        assert!(!is_void(100, Some(100), 102), "a pod needs its ServiceAccount to be created");
        assert!(!is_void(100, Some(50), 102));
        assert!(!is_void(100, Some(101), 101 + 3607), "the kubelet has another token by then");
        is_void(100, Some(101), 102);
        assert!(is_void(100, None, 102), "what is not known changes nothing");
    }

    #[test]
    fn patronis_own_annotation_does_not_trigger_a_reconcile() {
        let mut before = pod("u1", "2026-01-01T00:00:11Z", "True");
        let mut after = before.clone();
        after.annotations_mut().insert("status".to_owned(), "{\"xlog_location\":1}".to_owned());
        trim(&mut before);
        trim(&mut after);
        assert_eq!(fingerprint(&before), fingerprint(&after));
    }
}
