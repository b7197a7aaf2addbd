//! Faults of a database.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use servicedb::api::names::{ANNOTATION_REPORT, ANNOTATION_SWITCHOVER, ANNOTATION_SWITCHOVER_TO};
use servicedb::api::{RequestState, ServiceDatabase};
use tokio::time::Instant;

use crate::harness::Sandbox;
use crate::harness::objects::{ADDRESS, OF_SHOP, objects};
use crate::subject::NAME;

/// The file's first line is the pid.
const SIGNAL_POSTMASTER: &str = "kill -SIGNAL $(head -n 1 /var/lib/postgresql/data/pgdata/postmaster.pid)";
/// Patroni is the agent's child; the child by which it starts PostgreSQL has the same command.
const SIGNAL_PATRONI: &str = r#"
for p in /proc/[0-9]*; do
  { read -r comm <$p/comm && [ "$comm" = python3 ] || continue
    while read -r key value _; do [ "$key" != PPid: ] || break; done <$p/status
    read -r parent <"/proc/$value/comm" && [ "$parent" = servicedb ] || continue; } 2>/dev/null
  kill -SIGNAL "${p#/proc/}" && exit 0
done
echo "no Patroni runs" >&2
exit 1
"#;
/// How long a command in a container may take: a node may be gone.
const COMMAND: Duration = Duration::from_secs(15);
/// How long a switchover may take before it never ends.
const SWITCHOVER: Duration = Duration::from_secs(120);

/// Deletes a pod: gracefully, or without a grace.
///
/// # Errors
/// What the API server said.
pub async fn delete(place: &Sandbox, pod: &str, at_once: bool) -> Result<(), String> {
    let parameters = if at_once { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
    let deleted = place.api::<Pod>().delete(pod, &parameters).await;
    deleted.map(drop).map_err(|error| format!("deleting {pod}: {error}"))
}

/// Sends the postmaster a signal, such as `KILL`.
///
/// # Errors
/// If it does not run, or its pod cannot be reached.
pub async fn signal_postmaster(place: &Sandbox, pod: &str, signal: &str) -> Result<(), String> {
    command(place, pod, &SIGNAL_POSTMASTER.replace("SIGNAL", signal)).await.map(drop)
}

/// Sends Patroni a signal, such as `KILL`.
///
/// # Errors
/// If it does not run, or its pod cannot be reached.
pub async fn signal_patroni(place: &Sandbox, pod: &str, signal: &str) -> Result<(), String> {
    command(place, pod, &SIGNAL_PATRONI.replace("SIGNAL", signal)).await.map(drop)
}

/// Runs a shell script in a database's container; what it printed.
///
/// # Errors
/// If it fails, or its pod cannot be reached.
pub async fn command(place: &Sandbox, pod: &str, script: &str) -> Result<String, String> {
    let ran = tokio::time::timeout(COMMAND, place.exec(pod, script)).await;
    let output = ran.map_err(|_| format!("a command in {pod} took longer than {} s", COMMAND.as_secs()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("a command in {pod}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Deletes an object of the database, as the dice fall; which one it was.
///
/// # Errors
/// What the API server said.
pub async fn delete_object(place: &Sandbox, dice: usize) -> Result<String, String> {
    // The writers hold the address of the primary's Service.
    let all: Vec<_> = OF_SHOP.iter().filter(|object| **object != ADDRESS).collect();
    let (kind, name) = *all[dice % all.len()];
    let deleted = objects(place, kind).delete(name, &DeleteParams::default()).await;
    deleted.map(|_| format!("{kind} {name}")).map_err(|error| format!("deleting {kind} {name}: {error}"))
}

/// The objects of the database that are not there.
pub async fn missing_objects(place: &Sandbox) -> Vec<String> {
    let mut missing = Vec::new();
    for (kind, name) in OF_SHOP {
        match objects(place, kind).get_opt(name).await {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(format!("{kind} {name} is missing")),
            Err(error) => missing.push(format!("{kind} {name}: {error}")),
        }
    }
    missing
}

/// Takes the agent's report off a pod.
///
/// # Errors
/// What the API server said.
pub async fn remove_report(place: &Sandbox, pod: &str) -> Result<(), String> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_REPORT: null}}}));
    let patched = place.api::<Pod>().patch(pod, &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(|error| format!("taking the report off {pod}: {error}"))
}

/// Scales the StatefulSet to zero.
///
/// # Errors
/// What the API server said.
pub async fn scale_to_zero(place: &Sandbox) -> Result<(), String> {
    let set = place.names(NAME).base();
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let patched = place.api::<StatefulSet>().patch(&set, &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(|error| format!("scaling {set}: {error}"))
}

/// Asks for another primary, this one or whichever is fit; the request's token.
///
/// # Errors
/// What the API server said.
pub async fn ask_for_switchover(place: &Sandbox, to: Option<&str>) -> Result<String, String> {
    let token = format!("{:016x}", rand::random::<u64>());
    let annotations = json!({ANNOTATION_SWITCHOVER: token, ANNOTATION_SWITCHOVER_TO: to});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let api = place.api::<ServiceDatabase>();
    let patched = api.patch(NAME, &PatchParams::default(), &patch).await;
    patched.map(|_| token).map_err(|error| format!("asking for a switchover: {error}"))
}

/// Waits for the end of a switchover.
///
/// # Errors
/// Why it was not done.
pub async fn switched_over(place: &Sandbox, token: &str) -> Result<(), String> {
    let started = Instant::now();
    let mut last = String::new();
    while started.elapsed() < SWITCHOVER {
        match place.api::<ServiceDatabase>().get(NAME).await {
            Ok(database) => {
                let told = database.status.and_then(|status| status.switchover);
                let told = told.filter(|told| told.request == token);
                last = format!("{told:?}");
                match told.map(|told| (told.state, told.message.unwrap_or_default())) {
                    Some((RequestState::Done, _)) => return Ok(()),
                    Some((RequestState::Failed, why)) => return Err(format!("the switchover was not done: {why}")),
                    Some((RequestState::Running, _)) | None => {}
                }
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("the switchover did not end within {} s: {last}", SWITCHOVER.as_secs()))
}

/// Waits until a pod of this name is another one than it was.
///
/// # Errors
/// If it is not in time.
pub async fn replaced(place: &Sandbox, before: &Pod, bound: Duration) -> Result<(), String> {
    let (name, started) = (before.name_any(), Instant::now());
    while started.elapsed() < bound {
        if let Ok(Some(now)) = place.api::<Pod>().get_opt(&name).await
            && now.uid() != before.uid()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Err(format!("{name} was not replaced within {} s", bound.as_secs()))
}
