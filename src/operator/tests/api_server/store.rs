//! The stored objects, and the effect of each verb.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Key;
use super::fields;

/// A refusal, as in a `Status`.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// The reason, for clients.
    pub reason: &'static str,
    /// The message, for people.
    pub message: String,
}

/// The result of a verb.
pub type Answer = Result<Value, Refusal>;

/// The type of a patch.
pub enum PatchKind<'a> {
    /// Server-side apply, by this manager.
    Apply(&'a str),
    /// A JSON merge patch.
    Merge,
}

/// The objects.
#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    uids: u64,
    refusals: BTreeMap<String, String>,
    unpatchable: Option<Key>,
    webhook: Option<(String, Edit)>,
}

/// A change of an object.
pub type Edit = fn(&mut Value);

impl Store {
    /// An object.
    pub fn get(&self, key: &Key) -> Answer {
        self.objects.get(key).cloned().ok_or_else(|| not_found(key))
    }

    /// The objects of a namespace that have these labels.
    pub fn list(&self, plural: &str, namespace: &str, selector: &str) -> Value {
        let of_kind = self.objects.iter().filter(|((kind, place, _), _)| kind == plural && place == namespace);
        let items: Vec<_> = of_kind.map(|(_, object)| object).filter(|object| selects(selector, object)).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    /// Every object, by its key.
    pub fn all(&self) -> &BTreeMap<Key, Value> {
        &self.objects
    }

    /// From now on refuses new objects of a kind with this message; none: accepts them again.
    pub fn refuse(&mut self, plural: &str, words: Option<&str>) {
        match words {
            Some(words) => self.refusals.insert(plural.to_owned(), words.to_owned()),
            None => self.refusals.remove(plural),
        };
    }

    /// From now on refuses every change of an object, as of an immutable field.
    pub fn refuse_changes(&mut self, key: Option<Key>) {
        self.unpatchable = key;
    }

    /// From now on changes each object of a kind when it is created or patched, as an admission
    /// webhook.
    pub fn admit_with(&mut self, plural: &str, webhook: Edit) {
        self.webhook = Some((plural.to_owned(), webhook));
    }

    /// The result of a dry run of a creation.
    pub fn admit(&self, plural: &str, object: Value) -> Answer {
        match self.refusals.get(plural) {
            Some(words) => Err(refusal(403, "Forbidden", words.clone())),
            None => Ok(object),
        }
    }

    /// Creates an object; a given uid is kept, so that a fixture can choose one.
    pub fn create(&mut self, key: &Key, mut object: Value, manager: &str) -> Answer {
        if self.objects.contains_key(key) {
            return Err(refusal(409, "AlreadyExists", format!("{} {:?} already exists", key.0, key.2)));
        }
        self.admit(&key.0, Value::Null)?;
        self.uids += 1;
        let owned = fields::of(&object);
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{}", self.uids).into();
        }
        metadata["namespace"] = key.1.clone().into();
        metadata["creationTimestamp"] = "2026-06-01T00:00:00Z".into();
        if object.get("spec").is_some() {
            object["metadata"]["generation"] = 1.into();
        }
        fields::set(&mut object, manager, "Update", None, owned);
        set_defaults(&key.0, &mut object);
        self.put(key, object)
    }

    /// Replaces an object, if it still has the given version.
    pub fn replace(&mut self, key: &Key, object: Value) -> Answer {
        let live = self.get(key)?;
        check_preconditions(key, &live, &object["metadata"])?;
        self.put(key, object)
    }

    /// Changes an object; only apply creates a missing one.
    pub fn patch(&mut self, key: &Key, patch: &Value, kind: PatchKind<'_>, status: bool) -> Answer {
        let live = match (self.get(key), &kind) {
            (Ok(live), _) => live,
            (Err(_), PatchKind::Apply(manager)) if !status && patch["metadata"]["uid"].is_null() => {
                let made = self.create(key, patch.clone(), manager)?;
                let mut owned = made.clone();
                fields::rename_update_to_apply(&mut owned, manager);
                return self.put(key, owned);
            }
            (Err(refusal), _) => return Err(refusal),
        };
        check_preconditions(key, &live, &patch["metadata"])?;
        if self.unpatchable.as_ref() == Some(key) {
            return Err(refusal(422, "Invalid", format!("{} {:?}: the field is immutable", key.0, key.2)));
        }
        let mut changed = live.clone();
        match kind {
            PatchKind::Apply(manager) => fields::apply(&mut changed, patch, manager, status.then_some("status")),
            PatchKind::Merge => merge_patch(&mut changed, patch),
        }
        // Status is written only through /status, and everything else only without it.
        let kept = if status { &["spec", "data"][..] } else { &["status"][..] };
        for part in kept {
            changed[*part] = live[*part].clone();
        }
        prune(&mut changed);
        if let Some((_, webhook)) = self.webhook.as_ref().filter(|(plural, _)| *plural == key.0) {
            webhook(&mut changed);
        }
        if changed["spec"] != live["spec"] {
            let generation = live["metadata"]["generation"].as_i64().unwrap_or(0);
            changed["metadata"]["generation"] = (generation + 1).into();
        }
        set_defaults(&key.0, &mut changed);
        self.put(key, changed)
    }

    /// Deletes an object, or marks it if a finalizer or its dependents block the deletion.
    pub fn delete(&mut self, key: &Key, options: &Value) -> Answer {
        let mut live = self.get(key)?;
        check_preconditions(key, &live, &options["preconditions"])?;
        if options["propagationPolicy"] == "Foreground" {
            let finalizers = &mut live["metadata"]["finalizers"];
            if finalizers.is_null() {
                *finalizers = json!([]);
            }
            if let Some(list) = finalizers.as_array_mut().filter(|list| !list.contains(&json!("foregroundDeletion"))) {
                list.push("foregroundDeletion".into());
            }
        }
        if live["metadata"]["deletionTimestamp"].is_null() {
            live["metadata"]["deletionTimestamp"] = "2026-06-01T00:00:00Z".into();
        }
        self.put(key, live)
    }

    /// Changes an object as another client, status and spec.
    pub fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(key).expect("an object to edit");
        let before = object["spec"].clone();
        change(&mut object);
        if object["spec"] != before {
            object["metadata"]["generation"] = (object["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
            set_defaults(&key.0, &mut object);
        }
        self.put(key, object).expect("an object to edit");
    }

    /// Stores an object with a new version if it differs; removes it, with the objects that it
    /// controls, if nothing blocks its deletion.
    fn put(&mut self, key: &Key, mut object: Value) -> Answer {
        let metadata = &object["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        if !metadata["deletionTimestamp"].is_null() && !held {
            self.objects.remove(key);
            self.collect_garbage(object["metadata"]["uid"].as_str().unwrap_or_default());
            return Ok(object);
        }
        if self.objects.get(key) != Some(&object) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.objects.insert(key.clone(), object.clone());
        }
        Ok(object)
    }

    fn collect_garbage(&mut self, owner: &str) {
        let owned = |object: &Value| {
            let references = object["metadata"]["ownerReferences"].as_array();
            references.is_some_and(|references| references.iter().any(|reference| reference["uid"] == owner))
        };
        let orphans: Vec<_> =
            self.objects.iter().filter(|(_, object)| owned(object)).map(|(key, _)| key.clone()).collect();
        for key in orphans {
            self.delete(&key, &Value::Null).expect("an orphan");
        }
    }
}

fn check_preconditions(key: &Key, live: &Value, wanted: &Value) -> Result<(), Refusal> {
    for (field, name) in [("uid", "uid"), ("resourceVersion", "resource version")] {
        if !wanted[field].is_null() && wanted[field] != live["metadata"][field] {
            return Err(refusal(409, "Conflict", format!("{} {:?}: the {name} differs", key.0, key.2)));
        }
    }
    Ok(())
}

/// RFC 7386.
fn merge_patch(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *into = patch.clone() };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().and_then(|into| into.remove(key));
        } else {
            merge_patch(&mut into[key], value);
        }
    }
}

/// Removes the nulls that indexing created.
fn prune(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

/// Adds fields as a real server does, which must not count as drift.
fn set_defaults(plural: &str, object: &mut Value) {
    let mut default = |pointer: &[&str], value: Value| {
        let field = pointer.iter().fold(&mut *object, |at, step| &mut at[*step]);
        if field.is_null() {
            *field = value;
        }
    };
    match plural {
        "services" => {
            default(&["spec", "clusterIP"], "10.0.0.1".into());
            default(&["spec", "type"], "ClusterIP".into());
            default(&["spec", "sessionAffinity"], "None".into());
        }
        "statefulsets" => {
            default(&["spec", "revisionHistoryLimit"], 10.into());
            default(&["spec", "template", "spec", "dnsPolicy"], "ClusterFirst".into());
            default(&["spec", "template", "spec", "restartPolicy"], "Always".into());
            // Its controller has observed every change.
            let generation = object["metadata"]["generation"].clone();
            object["status"] = json!({"replicas": 0, "observedGeneration": generation});
        }
        _ => {}
    }
}

fn selects(selector: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    selector.split(',').filter(|term| !term.is_empty()).all(|term| match term.split_once('=') {
        Some((key, value)) => labels[key] == value,
        None => match term.strip_prefix('!') {
            Some(key) => labels[key].is_null(),
            None => !labels[term].is_null(),
        },
    })
}

fn not_found(key: &Key) -> Refusal {
    refusal(404, "NotFound", format!("{} {:?} not found", key.0, key.2))
}

fn refusal(code: u16, reason: &'static str, message: String) -> Refusal {
    Refusal { code, reason, message }
}
