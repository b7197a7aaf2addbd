//! The template of the pods: what this version would make, what was accepted, and what of it
//! waits for a person's word. A new version of the operator never changes a running template by
//! itself; what spec says of the pods is followed at once, in either template.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::{PendingRollout, UpdatePolicy};
use crate::operator::apply::object::{ANNOTATION_TEMPLATE, contains, short_hash};
use crate::operator::context::options::Options;
use crate::operator::plan;
use crate::operator::validate::Database;

/// How many changes are told.
const TOLD: usize = 12;
/// How long one may be.
const LONGEST: usize = 200;

/// What of a pod's spec, and of its container, follows the resource's spec.
const OF_SPEC: [&str; 4] = ["affinity", "priorityClassName", "tolerations", "topologySpreadConstraints"];

/// The template of the pods.
#[derive(Clone, Debug)]
pub struct Template {
    /// What the pods shall be made from.
    pub body: Value,
    /// What waits for an approval.
    pub pending: Option<PendingRollout>,
}

/// Chooses the template, given the StatefulSet that is there, or the template that was kept while
/// it is made anew.
pub fn choose(database: &Database, options: &Options, live: Option<&StatefulSet>, kept: Option<&Value>) -> Template {
    let ours = plan::template(database, options);
    let accepted = live
        .and_then(|live| accepted(live, &ours))
        .or_else(|| kept.cloned())
        .map(|accepted| with_spec(accepted, &ours));
    match accepted {
        Some(accepted) if accepted != ours => {
            let id = id(&ours);
            if database.update_policy == UpdatePolicy::Automatic || database.approved_rollout.as_ref() == Some(&id) {
                return Template { body: ours, pending: None };
            }
            let mut changes = Vec::new();
            differences("", &accepted, &ours, &mut changes);
            changes.truncate(TOLD);
            Template { body: accepted, pending: Some(PendingRollout { id, changes }) }
        }
        _ => Template { body: ours, pending: None },
    }
}

/// Whether a StatefulSet has this template, and its controller has seen it: only then its
/// revision tells which pods are older.
pub fn is_live(template: &Value, live: &StatefulSet) -> bool {
    let seen = live.status.as_ref().and_then(|status| status.observed_generation) == live.metadata.generation;
    let has = || Some(serde_json::from_str::<Value>(live.annotations().get(ANNOTATION_TEMPLATE)?).ok()? == *template);
    seen && has().unwrap_or(false)
}

/// The template that was written down with the StatefulSet.
pub fn written(live: &StatefulSet) -> Option<Value> {
    let text = live.annotations().get(ANNOTATION_TEMPLATE)?;
    serde_json::from_str(text).ok().filter(|template: &Value| template["spec"]["containers"][0].is_object())
}

/// The template that was accepted last. Where nobody wrote it down, it is what is there; the API
/// server's defaults in it are no difference.
fn accepted(live: &StatefulSet, ours: &Value) -> Option<Value> {
    written(live).or_else(|| {
        let there = serde_json::to_value(&live.spec.as_ref()?.template).ok()?;
        Some(if contains(&there, ours) { ours.clone() } else { there })
    })
}

/// A template with what another one has from the resource's spec.
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
    template
}

/// What names a template, whatever spec says.
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
