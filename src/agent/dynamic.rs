//! Patroni's dynamic configuration, which all members share. The leader changes it to the desired state,
//! and reverts changes of others. With the present one PostgreSQL may not start, or may run while no
//! instance can lead: then each instance changes it, or a corrected spec would never reach them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::rest::{Rest, RestError};
use super::report::{Area, Reporter};
use super::settings;
use crate::api::conditions::reason;
use crate::backoff::Backoff;
use crate::contract::desired::Desired;
use crate::contract::patroni::{PARAMETERS, changed_keys, dynamic_configuration, patch};
use crate::contract::report::Undone;

/// Interval between two checks whether PostgreSQL cannot start, or another writer changed the configuration.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same while PostgreSQL refuses the parameters: each check runs `postgres`.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);
/// The number of consecutive checks until it is reported.
const SIGHTINGS: u32 = 3;
/// Keys that are reverted again within this time are not reported again: another writer repeats the change.
const REPEATS: SignedDuration = SignedDuration::from_mins(5);

/// Keeps it as desired, as long as this pod leads.
pub async fn keep(environment: &Environment, mut state: DesiredState, reporter: &Reporter) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut applied: Option<Arc<Desired>> = None;
    loop {
        let desired = desired::first(&mut state).await;
        match apply(environment, &desired).await {
            Ok(change) => {
                let refused = change.refused.is_some();
                // The running parameters are kept until the spec is corrected.
                let trouble = change.refused.map(|problem| (reason::INVALID_SPEC, problem));
                reporter.trouble(Area::Settings, trouble);
                backoff.reset();
                let keys = by_others(&change.patch, applied.as_ref() == Some(&desired));
                if !keys.is_empty() {
                    tracing::warn!(keys = keys.join(", "), "somebody changed Patroni's configuration; reverted");
                    reporter.update(|report| note(&mut report.undone, keys, Timestamp::now()));
                }
                applied = Some(desired);
                let wait = if refused { REFUSED_INTERVAL } else { INTERVAL };
                tokio::select! {
                    () = desired::changed(&mut state) => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the dynamic configuration cannot be changed; retrying");
                backoff.wait().await;
            }
        }
    }
}

/// The keys of a patch that another writer changed: all, if the desired state is the one that was
/// applied before; otherwise only those that no desired state has.
fn by_others(patch: &Value, unchanged: bool) -> Vec<String> {
    let removed = |key: &String| {
        let path = format!("/{}", key.replace('.', "/"));
        patch.pointer(&path) == Some(&Value::Null) && !path.starts_with(PARAMETERS)
    };
    changed_keys(patch).into_iter().filter(|key| unchanged || removed(key)).collect()
}

fn note(undone: &mut Option<Undone>, keys: Vec<String>, now: Timestamp) {
    let repeats = |before: &Undone| before.keys == keys && now.duration_since(before.at) < REPEATS;
    if !undone.as_ref().is_some_and(repeats) {
        *undone = Some(Undone { at: now, keys });
    }
}

/// Changes it while no instance leads, and reports a PostgreSQL that does not start.
pub async fn repair(environment: Environment, mut state: DesiredState, reporter: Reporter) {
    let mut sightings = Sightings::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Ok((idle, leaderless)) = check().await else { continue };
        let applies = sightings.count(idle, leaderless);
        if idle == Some(true) && sightings.idle == SIGHTINGS {
            let (pod, namespace) = (&environment.pod, &environment.names.namespace);
            let message =
                format!("PostgreSQL of {pod} does not start; see kubectl logs {pod} -n {namespace} -c database");
            reporter.trouble(Area::Server, Some((reason::CRASH_LOOP, message)));
        }
        if !applies {
            continue;
        }
        let desired = desired::first(&mut state).await;
        match apply(&environment, &desired).await {
            Ok(Change { refused: None, .. }) => {}
            Ok(Change { refused: Some(problem), .. }) => {
                reporter.trouble(Area::Server, Some((reason::INVALID_SPEC, problem)));
            }
            Err(error) => tracing::debug!(%error, "the dynamic configuration cannot be changed; retrying"),
        }
    }
}

/// The number of consecutive checks that found each state.
#[derive(Default)]
struct Sightings {
    /// PostgreSQL does not run here, and is not being started.
    idle: u32,
    /// No instance leads.
    leaderless: u32,
}

impl Sightings {
    /// Counts one more check, and returns whether this instance changes the configuration: at once where
    /// PostgreSQL does not run and no instance leads; where it runs, once none has led for longer than a
    /// failover takes.
    ///
    /// A check during an attempt of Patroni to start PostgreSQL (`idle` is none) counts neither way: on a busy
    /// machine most checks fall into one.
    fn count(&mut self, idle: Option<bool>, leaderless: bool) -> bool {
        self.idle = match idle {
            Some(true) => self.idle.saturating_add(1),
            Some(false) => 0,
            None => self.idle,
        };
        self.leaderless = if leaderless { self.leaderless.saturating_add(1) } else { 0 };
        leaderless && (idle == Some(true) || self.leaderless >= SIGHTINGS)
    }
}

/// Whether PostgreSQL does not run here (none while Patroni starts it), and whether no instance leads as a
/// primary: the leader of a standby cluster, into which somebody may have turned this one, does not count.
async fn check() -> Result<(Option<bool>, bool), RestError> {
    let rest = Rest::new()?;
    let status = rest.status().await?;
    let idle = (!status.is_starting()).then(|| status.is_idle());
    Ok((idle, rest.leader().await?.is_none()))
}

/// A change of the configuration.
struct Change {
    /// The patch that was sent; null without one.
    patch: Value,
    /// The reason for which PostgreSQL refuses the parameters, which then stay as they are.
    refused: Option<String>,
}

/// Applies the desired state to Patroni.
async fn apply(environment: &Environment, desired: &Desired) -> Result<Change, RestError> {
    let rest = Rest::new()?;
    let current = rest.config().await?;
    let mut wanted = dynamic_configuration(desired);
    if patch(&current, &wanted).is_none() {
        return Ok(Change { patch: Value::Null, refused: None });
    }
    let accepted = settings::check_change(environment, desired).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the settings cannot be checked before they are changed");
        Ok(())
    });
    if accepted.is_err() {
        keep_parameters(&mut wanted, &current);
    }
    let patch = patch(&current, &wanted).unwrap_or_default();
    if !patch.is_null() {
        tracing::info!("changing Patroni's dynamic configuration");
        rest.patch_config(&patch).await?;
    }
    Ok(Change { patch, refused: accepted.err() })
}

/// Replaces refused parameters by the present ones; without any, none are written.
fn keep_parameters(wanted: &mut Value, current: &Value) {
    match current.pointer(PARAMETERS) {
        Some(current) => {
            if let Some(wanted) = wanted.pointer_mut(PARAMETERS) {
                wanted.clone_from(current);
            }
        }
        None => {
            if let Some(postgresql) = wanted.get_mut("postgresql").and_then(Value::as_object_mut) {
                postgresql.remove("parameters");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_of_others_differ_from_changes_of_the_spec() {
        let patch = json!({ "pause": null, "ttl": 20, "postgresql": { "parameters": { "work_mem": null } } });
        assert_eq!(by_others(&patch, false), ["pause"], "the spec may have dropped work_mem, or changed the timings");
        assert_eq!(by_others(&patch, true), ["pause", "postgresql.parameters.work_mem", "ttl"]);
        assert!(by_others(&Value::Null, true).is_empty());
    }

    #[test]
    fn a_repeated_change_is_reported_once() {
        let (start, keys) = (Timestamp::UNIX_EPOCH, || vec!["pause".to_owned()]);
        let mut undone = None;
        note(&mut undone, keys(), start);
        note(&mut undone, keys(), start + SignedDuration::from_secs(5));
        assert_eq!(undone.as_ref().map(|undone| undone.at), Some(start));
        note(&mut undone, keys(), start + REPEATS);
        assert_eq!(undone.map(|undone| undone.at), Some(start + REPEATS));
    }

    #[test]
    fn refused_parameters_are_never_written() {
        let wanted = || json!({ "ttl": 20, "postgresql": { "use_slots": true, "parameters": { "work_mem": "much" } } });
        for (current, kept) in [
            (json!({ "postgresql": { "parameters": { "work_mem": "4MB" } } }), json!({ "work_mem": "4MB" })),
            (json!({ "postgresql": { "use_slots": false } }), Value::Null),
            (json!({}), Value::Null),
        ] {
            let mut wanted = wanted();
            keep_parameters(&mut wanted, &current);
            assert_eq!(wanted["postgresql"]["parameters"], kept, "{current}");
            let patch = patch(&current, &wanted).expect("the rest is written");
            assert!(!patch.to_string().contains("much"), "{patch}");
        }
    }

    #[test]
    fn a_server_that_runs_without_a_leader_gets_the_right_settings_too() {
        let mut sightings = Sightings::default();
        assert!(!sightings.count(Some(false), false), "the leader does it");
        assert!(!sightings.count(Some(false), true) && !sightings.count(Some(false), true), "a failover");
        assert!(sightings.count(Some(false), true));
        assert!(sightings.count(Some(false), true), "until it is done");
        assert!(!sightings.count(Some(false), false));
        assert!(!sightings.count(Some(false), true));
        assert!(sightings.count(Some(true), true), "this instance cannot lead");
        assert!(!sightings.count(Some(true), false) && sightings.idle == 2);
        assert!(!sightings.count(None, false) && sightings.idle == 2, "Patroni is starting it");
    }
}
