//! The template of the pods: this version's, the accepted one, and the changes that wait for
//! approval. A new version of the operator never changes a running template without approval;
//! changes of the spec are applied at once to both templates.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::pod_metadata::is_reserved;
use crate::api::{PendingRollout, UpdatePolicy};
use crate::operator::apply::compare::{contains, is_same_template};
use crate::operator::apply::object::{ANNOTATION_TEMPLATE, parsed_template, short_hash};
use crate::operator::context::options::Options;
use crate::operator::plan;
use crate::operator::validate::Database;

/// How many changes are reported.
const REPORTED: usize = 12;
/// The maximum length of one.
const LONGEST: usize = 200;

/// The fields of a pod's spec that come from the resource's spec.
const OF_SPEC: [&str; 4] = ["affinity", "priorityClassName", "tolerations", "topologySpreadConstraints"];

/// The template of the pods.
#[derive(Clone, Debug)]
pub struct Template {
    /// The template that is applied.
    pub body: Value,
    /// The changes that wait for approval, or for a window.
    pub pending: Option<PendingRollout>,
    /// The identifier of the update that is taken because a window is open.
    pub begun: Option<String>,
}

/// Chooses the template, given the live StatefulSet, or the template that is recorded for the time
/// without one. The recorded one is also used if the annotation of the StatefulSet was removed: its
/// template may have been changed too. `in_window`: whether a window admits an update.
pub fn choose(
    database: &Database,
    options: &Options,
    live: Option<&StatefulSet>,
    kept: Option<&Value>,
    in_window: bool,
) -> Template {
    let ours = plan::template(database, options);
    let accepted =
        live.and_then(written).or_else(|| kept.cloned()).or_else(|| live.and_then(|live| found(live, &ours))).map(
            |accepted| {
                let followed = with_spec(accepted.clone(), &ours);
                without_defaults(database, &accepted, followed)
            },
        );
    match accepted {
        Some(accepted) if accepted != ours => {
            let id = id(&ours);
            if database.update_policy == UpdatePolicy::Automatic || database.approved_rollout.as_ref() == Some(&id) {
                return Template { body: ours, pending: None, begun: None };
            }
            if database.update_policy == UpdatePolicy::Window && in_window {
                return Template { body: ours, pending: None, begun: Some(id) };
            }
            let mut changes = Vec::new();
            differences("", &accepted, &ours, &mut changes);
            changes.truncate(REPORTED);
            Template { body: accepted, pending: Some(PendingRollout { id, changes }), begun: None }
        }
        _ => Template { body: ours, pending: None, begun: None },
    }
}

/// Whether a StatefulSet has this template, and its controller has observed it: only then its
/// revision shows which pods are outdated. The annotation is not enough: the template may have been
/// changed without it. `stored` is the generation in which the API server itself adds fields to the
/// template.
pub fn is_live(template: &Value, live: &StatefulSet, stored: Option<i64>) -> bool {
    let observed = live.status.as_ref().and_then(|status| status.observed_generation) == live.metadata.generation;
    let noted = || Some(serde_json::from_str::<Value>(live.annotations().get(ANNOTATION_TEMPLATE)?).ok()? == *template);
    let has = || {
        let there = serde_json::to_value(&live.spec.as_ref()?.template).ok()?;
        Some(is_same_template(&there, template) || (stored.is_some() && stored == live.metadata.generation))
    };
    observed && noted().unwrap_or(false) && has().unwrap_or(false)
}

/// The template that is recorded in the StatefulSet's annotation.
pub fn written(live: &StatefulSet) -> Option<Value> {
    parsed_template(live.annotations().get(ANNOTATION_TEMPLATE)?)
}

/// The live template, if no accepted one is recorded. The API server's defaults in it are no
/// difference.
fn found(live: &StatefulSet, ours: &Value) -> Option<Value> {
    let there = serde_json::to_value(&live.spec.as_ref()?.template).ok()?;
    Some(if contains(&there, ours) { ours.clone() } else { there })
}

/// A template with the fields of another one that come from the resource's spec.
fn with_spec(mut template: Value, other: &Value) -> Value {
    let copy = |into: &mut Value, from: &Value, key: &str| match (into.as_object_mut(), from.get(key)) {
        (Some(into), Some(value)) => {
            into.insert(key.to_owned(), value.clone());
        }
        (Some(into), None) => {
            into.remove(key);
        }
        (None, _) => {}
    };
    for key in OF_SPEC {
        copy(&mut template["spec"], &other["spec"], key);
    }
    copy(&mut template["spec"]["containers"][0], &other["spec"]["containers"][0], "resources");
    for list in ["labels", "annotations"] {
        copy_metadata(&mut template["metadata"], &other["metadata"][list], list);
    }
    template
}

/// Copies a pod's labels or annotations from another template, except the operator's own.
fn copy_metadata(metadata: &mut Value, other: &Value, list: &str) {
    let ours = metadata[list].as_object().into_iter().flatten().filter(|(key, _)| is_reserved(key));
    let theirs = other.as_object().into_iter().flatten().filter(|(key, _)| !is_reserved(key));
    let all: serde_json::Map<_, _> = ours.chain(theirs).map(|(key, value)| (key.clone(), value.clone())).collect();
    match metadata.as_object_mut() {
        Some(metadata) if all.is_empty() => {
            metadata.remove(list);
        }
        Some(metadata) => {
            metadata.insert(list.to_owned(), all.into());
        }
        None => {}
    }
}

/// A template without the defaults that this version adds to the declared scheduling and the
/// accepted template does not have: they would replace every pod, which needs approval.
fn without_defaults(database: &Database, accepted: &Value, mut followed: Value) -> Value {
    let (before, spec) = (&accepted["spec"], &mut followed["spec"]);
    let declared = database.scheduling.affinity.as_ref().is_some_and(|affinity| affinity.pod_anti_affinity.is_some());
    if before["affinity"].is_object()
        && before["affinity"].get("podAntiAffinity").is_none()
        && !declared
        && let Some(affinity) = spec["affinity"].as_object_mut()
    {
        affinity.remove("podAntiAffinity");
    }
    if before["topologySpreadConstraints"] == json!(database.scheduling.topology_spread_constraints) {
        spec["topologySpreadConstraints"] = before["topologySpreadConstraints"].clone();
    }
    followed
}

/// An identifier of a template that is independent of the spec.
fn id(template: &Value) -> String {
    short_hash(&with_spec(template.clone(), &json!({"spec": {"containers": [{}]}})))
}

fn differences(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            for key in new.keys().chain(gone) {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differences(&at, old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differences(&format!("{path}[{index}]"), old, new, found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => found.push(format!("{path}: {} -> {}", short(old), short(new))),
    }
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST).chain(['…']).collect() }
}
