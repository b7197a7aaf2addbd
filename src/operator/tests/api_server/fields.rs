//! Field managers, stored in `metadata.managedFields` as by a real server, and server-side apply.

use serde_json::{Map, Value, json};

/// The fields of metadata without an owner.
const UNOWNED: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
];

/// The fields that an object sets, as a tree whose leaves are empty.
pub fn of(object: &Value) -> Value {
    let Value::Object(map) = object else { return json!({}) };
    let mut tree = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let mut metadata = value.clone();
                if let Some(metadata) = metadata.as_object_mut() {
                    metadata.retain(|key, _| !UNOWNED.contains(&key.as_str()));
                }
                tree.insert("f:metadata".to_owned(), leaves(&metadata));
            }
            _ => {
                tree.insert(format!("f:{key}"), leaves(value));
            }
        }
    }
    Value::Object(tree)
}

fn leaves(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (format!("f:{key}"), leaves(value))).collect(),
        _ => json!({}),
    }
}

/// Makes a manager the owner of exactly these fields.
pub fn set(object: &mut Value, manager: &str, operation: &str, subresource: Option<&str>, owned: Value) {
    let mut entry = json!({
        "manager": manager, "operation": operation, "apiVersion": object["apiVersion"],
        "fieldsType": "FieldsV1", "fieldsV1": owned, "time": "2026-01-01T00:00:00Z",
    });
    if let Some(subresource) = subresource {
        entry["subresource"] = subresource.into();
    }
    let entries = entries(object);
    match entries.iter_mut().find(|entry| is(entry, manager, operation, subresource)) {
        Some(found) => *found = entry,
        None => entries.push(entry),
    }
}

/// Fields that were created by a first apply belong to the applier.
pub fn rename_update_to_apply(object: &mut Value, manager: &str) {
    if let Some(entry) = entries(object).iter_mut().find(|entry| is(entry, manager, "Update", None)) {
        entry["operation"] = "Apply".into();
    }
}

/// Server-side apply, forced: fields that the manager applied before and omits now are removed,
/// unless another manager owns them too; the others are set.
pub fn apply(live: &mut Value, config: &Value, manager: &str, subresource: Option<&str>) {
    let owned = of(config);
    let mut others = Vec::new();
    let mut before = json!({});
    for entry in entries(live).iter() {
        if is(entry, manager, "Apply", subresource) {
            before = entry["fieldsV1"].clone();
        } else {
            others.push(entry["fieldsV1"].clone());
        }
    }
    remove(live, &before, &owned, &others.iter().collect::<Vec<_>>());
    let mut config = config.clone();
    if let Some(metadata) = config["metadata"].as_object_mut() {
        metadata.retain(|key, _| !UNOWNED.contains(&key.as_str()));
    }
    merge(live, &config);
    set(live, manager, "Apply", subresource, owned);
}

fn remove(live: &mut Value, before: &Value, now: &Value, others: &[&Value]) {
    let Some(before) = before.as_object() else { return };
    for (field, tree) in before {
        let key = field.trim_start_matches("f:");
        let below: Vec<_> = others.iter().filter_map(|other| other.get(field)).collect();
        if let Some(now) = now.get(field) {
            if let Some(live) = live.get_mut(key) {
                remove(live, tree, now, &below);
            }
        } else if below.is_empty() {
            live.as_object_mut().and_then(|live| live.remove(key));
        } else if let Some(live) = live.get_mut(key) {
            remove(live, tree, &Value::Null, &below);
        }
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn entries(object: &mut Value) -> &mut Vec<Value> {
    let managed = &mut object["metadata"]["managedFields"];
    if managed.is_null() {
        *managed = json!([]);
    }
    managed.as_array_mut().expect("managedFields is a list")
}

fn is(entry: &Value, manager: &str, operation: &str, subresource: Option<&str>) -> bool {
    entry["manager"] == manager && entry["operation"] == operation && entry["subresource"].as_str() == subresource
}

#[test]
fn a_field_removed_from_the_config_is_removed_and_fields_of_others_are_kept() {
    let mut live = json!({"apiVersion": "v1", "metadata": {}, "data": {"theirs": "1"}});
    let owned = of(&live);
    set(&mut live, "kubectl", "Update", None, owned);
    apply(&mut live, &json!({"metadata": {"name": "x"}, "data": {"a": "1", "b": "1"}}), "servicedb", None);
    apply(&mut live, &json!({"metadata": {"name": "x"}, "data": {"a": "2"}}), "servicedb", None);
    assert_eq!(live["data"], json!({"theirs": "1", "a": "2"}));
}
