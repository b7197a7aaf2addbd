//! Compares a live object with its plan, and computes the patch that restores it. Two comparisons:
//! [`contains`] ignores fields that the plan does not set; [`is_whole`] accepts no addition in the
//! parts of an object in which an addition changes the meaning.

use serde_json::{Map, Value, json};

use super::quantity;

/// The parts of an object that are compared as a whole.
fn whole_parts(kind: &str) -> &'static [&'static str] {
    match kind {
        "Service" | "NetworkPolicy" | "PodDisruptionBudget" | "StatefulSet" | "Deployment" => &["spec"],
        "Role" => &["rules"],
        "RoleBinding" => &["subjects"],
        // Keys are files in a pod, or documents.
        "ConfigMap" => &["data", "binaryData"],
        _ => &[],
    }
}

/// Fields of a part that the API server allocates, or that cannot be changed after creation.
fn given(kind: &str) -> &'static [&'static str] {
    match kind {
        "Service" => &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        "Deployment" => &["selector"],
        "StatefulSet" => &["volumeClaimTemplates", "selector", "serviceName", "podManagementPolicy"],
        _ => &[],
    }
}

/// Whether this is the API server's default of a field.
fn is_default(key: &str, value: &Value, among: &Map<String, Value>) -> bool {
    match key {
        // An empty struct that Go always writes. Elsewhere an empty object has a meaning: as a
        // namespaceSelector it selects every namespace.
        "resources" | "securityContext" => value.as_object().is_some_and(Map::is_empty),
        "creationTimestamp" => value.is_null(),
        "type" => value == "ClusterIP",
        "sessionAffinity" => value == "None",
        "internalTrafficPolicy" => value == "Cluster",
        "protocol" => value == "TCP",
        "scheme" => value == "HTTP",
        "restartPolicy" => value == "Always",
        "dnsPolicy" => value == "ClusterFirst",
        "schedulerName" => value == "default-scheduler",
        "terminationMessagePath" => value == "/dev/termination-log",
        "terminationMessagePolicy" => value == "File",
        "apiVersion" => value == "v1",
        "serviceAccount" => among.get("serviceAccountName") == Some(value),
        "defaultMode" => *value == json!(0o644),
        "successThreshold" | "timeoutSeconds" => *value == json!(1),
        "failureThreshold" => *value == json!(3),
        "periodSeconds" | "revisionHistoryLimit" => *value == json!(10),
        "terminationGracePeriodSeconds" => *value == json!(30),
        "progressDeadlineSeconds" => *value == json!(600),
        "apiGroup" => value == "",
        _ => false,
    }
}

/// Whether `live` has all fields of `wanted`. Defaults of the API server and fields of others are
/// no difference.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    is_same(live, wanted, &Path::default(), false)
}

/// Whether a pod template is the wanted one, apart from the API server's defaults.
pub fn is_same_template(live: &Value, wanted: &Value) -> bool {
    is_same(live, wanted, &Path::default(), true)
}

/// Whether the parts of a live object that are compared as a whole equal the planned ones.
pub fn is_whole(kind: &str, live: &Value, wanted: &Value) -> bool {
    restoration(kind, live, wanted).is_none()
}

/// The parts of a live object that are compared as a whole.
pub fn parts(kind: &str, live: &Value) -> Value {
    whole_parts(kind).iter().map(|part| ((*part).to_owned(), live[*part].clone())).collect()
}

/// The merge patch that restores these parts; none if they are as planned. It replaces lists and
/// removes added entries and fields, which server-side apply would keep.
pub fn restoration(kind: &str, live: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = Map::new();
    for part in whole_parts(kind) {
        let (mut live, mut wanted) = (live[*part].clone(), wanted[*part].clone());
        if kind == "ConfigMap" && *part == "data" && wanted.is_null() {
            // The content of Patroni's ConfigMaps is not planned.
            continue;
        }
        for field in given(kind) {
            for side in [&mut live, &mut wanted] {
                side.as_object_mut().map(|side| side.remove(*field));
            }
        }
        let path = Path::default().then(part);
        if !is_same(&live, &wanted, &path, true) {
            patch.insert((*part).to_owned(), restored(&live, &wanted, &path));
        }
    }
    (!patch.is_empty()).then(|| patch.into())
}

fn restored(live: &Value, wanted: &Value, path: &Path<'_>) -> Value {
    let (Value::Object(live), Value::Object(wanted)) = (live, wanted) else { return wanted.clone() };
    let mut patch = Map::new();
    for (key, value) in live {
        if !wanted.contains_key(key) && !is_absent(value) && !is_default(key, value, live) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    for (key, value) in wanted {
        let path = path.then(key);
        match live.get(key) {
            Some(live) if is_same(live, value, &path, true) => {}
            Some(live) => {
                patch.insert(key.clone(), restored(live, value, &path));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch.into()
}

/// The last two fields of the path to a value.
#[derive(Clone, Copy, Default)]
struct Path<'a> {
    above: &'a str,
    field: &'a str,
}

impl<'a> Path<'a> {
    fn then(self, field: &'a str) -> Self {
        Self { above: self.field, field }
    }

    /// Whether the value is a quantity: in `resources`, or the size limit of an emptyDir.
    fn is_quantity(self) -> bool {
        matches!(self.above, "limits" | "requests") || self.field == "sizeLimit"
    }
}

fn is_same(live: &Value, wanted: &Value, path: &Path<'_>, whole: bool) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            let has_all = wanted.iter().all(|(key, value)| match live.get(key) {
                Some(live) => is_same(live, value, &path.then(key), whole),
                None => is_empty(value),
            });
            let added = |(key, value): (&String, &Value)| {
                !wanted.contains_key(key) && !is_absent(value) && !is_default(key, value, live)
            };
            has_all && !(whole && live.iter().any(added))
        }
        // Others may add an owner, which server-side apply leaves.
        (Value::Array(live), Value::Array(wanted)) if path.field == "ownerReferences" => {
            wanted.iter().all(|wanted| live.iter().any(|live| is_same(live, wanted, path, whole)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live.iter().zip(wanted).all(|(live, wanted)| is_same(live, wanted, path, whole))
        }
        (Value::String(live), Value::String(wanted)) if path.is_quantity() => quantity::is_same(live, wanted),
        (live, wanted) => live == wanted || (is_absent(live) && is_empty(wanted)),
    }
}

/// The API server drops empty fields that were sent.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

/// Whether a value is equivalent to a missing field.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let wanted = json!({"spec": {"ports": [{"port": 5432}], "empty": {}, "flag": false}});
        let live = json!({"spec": {"ports": [{"port": 5432, "protocol": "TCP"}], "clusterIP": "10.0.0.1"}});
        assert!(contains(&live, &wanted));
        assert!(is_whole("Service", &live, &wanted));
    }

    #[test]
    fn an_owner_that_others_added_is_no_difference() {
        let owners = |uids: &[&str]| {
            let owners: Vec<_> = uids.iter().map(|uid| json!({"uid": uid, "controller": *uid == "ours"})).collect();
            json!({"metadata": {"ownerReferences": owners}})
        };
        assert!(contains(&owners(&["theirs", "ours"]), &owners(&["ours"])));
        assert!(!contains(&owners(&["theirs"]), &owners(&["ours"])));
    }

    #[test]
    fn a_changed_or_missing_field_is_a_difference() {
        let wanted = json!({"spec": {"ports": [{"port": 5432}], "type": "ClusterIP"}});
        assert!(!contains(&json!({"spec": {"ports": [{"port": 5433}], "type": "ClusterIP"}}), &wanted));
        assert!(!contains(&json!({"spec": {"ports": [{"port": 5432}]}}), &wanted));
        assert!(!contains(&json!({"spec": {"ports": [{"port": 5432}, {"port": 1}], "type": "ClusterIP"}}), &wanted));
    }

    #[test]
    fn additions_that_change_the_meaning_are_removed() {
        let service =
            json!({"spec": {"type": "ClusterIP", "selector": {"a": "1"}, "ports": [{"name": "p", "port": 1}]}});
        for (kind, wanted, change, patch) in [
            (
                "Service",
                &service,
                json!({"spec": {"selector": {"b": "2"}}}),
                json!({"spec": {"selector": {"b": null}}}),
            ),
            (
                "Service",
                &service,
                json!({"spec": {"externalIPs": ["1.2.3.4"]}}),
                json!({"spec": {"externalIPs": null}}),
            ),
            (
                "Service",
                &service,
                json!({"spec": {"type": "NodePort", "ports": [{"name": "p", "port": 1, "nodePort": 30000}]}}),
                json!({"spec": {"type": "ClusterIP", "ports": [{"name": "p", "port": 1}]}}),
            ),
            (
                "NetworkPolicy",
                &json!({"spec": {"ingress": [{"from": [{"podSelector": {}}]}]}}),
                json!({"spec": {"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]}}),
                json!({"spec": {"ingress": [{"from": [{"podSelector": {}}]}]}}),
            ),
            (
                "PodDisruptionBudget",
                &json!({"spec": {"minAvailable": 1}}),
                json!({"spec": {"minAvailable": null, "maxUnavailable": 1}}),
                json!({"spec": {"minAvailable": 1, "maxUnavailable": null}}),
            ),
            ("ConfigMap", &json!({"data": {"a": "1"}}), json!({"data": {"b": "2"}}), json!({"data": {"b": null}})),
            (
                "ConfigMap",
                &json!({"data": {"a": "1"}}),
                json!({"binaryData": {"b": "Mg=="}}),
                json!({"binaryData": null}),
            ),
            (
                "Deployment",
                &json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "a"}]}}}}),
                json!({"spec": {"paused": true, "template": {"spec": {"hostNetwork": true}}}}),
                json!({"spec": {"paused": null, "template": {"spec": {"hostNetwork": null}}}}),
            ),
            (
                "RoleBinding",
                &json!({"subjects": [{"kind": "ServiceAccount", "name": "a"}]}),
                json!({"subjects": [{"kind": "ServiceAccount", "name": "a"}, {"kind": "User", "name": "b"}]}),
                json!({"subjects": [{"kind": "ServiceAccount", "name": "a"}]}),
            ),
        ] {
            let mut live = wanted.clone();
            merge_patch(&mut live, &change);
            let found = restoration(kind, &live, wanted);
            assert_eq!(found.as_ref(), Some(&patch), "{kind} {change}");
            merge_patch(&mut live, &patch);
            assert!(is_whole(kind, &live, wanted), "{kind} {change}: {live}");
        }
        assert!(is_whole("ConfigMap", &json!({"data": {"a": "1"}}), &json!({})), "Patroni's");
        assert!(is_whole("ServiceAccount", &json!({"imagePullSecrets": [{"name": "a"}]}), &json!({})));
    }

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

    fn template() -> Value {
        json!({"metadata": {"labels": {"a": "1"}}, "spec": {
            "serviceAccountName": "chat-db",
            "securityContext": {"fsGroup": 1},
            "containers": [{
                "name": "database", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1024Mi"}},
                "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"path": "/livez", "port": "agent"}, "periodSeconds": 10},
            }],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "vault", "configMap": {"name": "v"}}],
        }})
    }

    /// The template as an API server (1.36) stores it.
    fn stored() -> Value {
        json!({"metadata": {"creationTimestamp": null, "labels": {"a": "1"}}, "spec": {
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "serviceAccount": "chat-db", "serviceAccountName": "chat-db",
            "securityContext": {"fsGroup": 1},
            "containers": [{
                "name": "database", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "env": [{"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "livenessProbe": {
                    "httpGet": {"path": "/livez", "port": "agent", "scheme": "HTTP"}, "periodSeconds": 10,
                    "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "volumes": [
                {"name": "tmp", "emptyDir": {}}, {"name": "vault", "configMap": {"name": "v", "defaultMode": 420}},
            ],
        }})
    }

    #[test]
    fn a_template_is_compared_as_a_whole_and_to_the_last_digit() {
        assert!(is_same_template(&stored(), &template()));
        type Edit = fn(&mut Value);
        let edits: [(&str, Edit); 8] = [
            ("a variable", |pod| {
                add(&mut pod["spec"]["containers"][0]["env"], json!({"name": "PGTZ", "value": "UTC"}))
            }),
            ("less than a unit", |pod| pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "900m".into()),
            ("a request", |pod| pod["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "1"})),
            ("a container", |pod| add(&mut pod["spec"]["containers"], json!({"name": "b", "image": "i"}))),
            ("a label", |pod| pod["metadata"]["labels"]["b"] = "2".into()),
            ("an annotation", |pod| pod["metadata"]["annotations"] = json!({"b": "2"})),
            ("the node's network", |pod| pod["spec"]["hostNetwork"] = true.into()),
            ("text that looks like a quantity", |pod| pod["metadata"]["labels"]["a"] = "1000m".into()),
        ];
        for (what, edit) in edits {
            let mut live = stored();
            edit(&mut live);
            assert!(!is_same_template(&live, &template()), "{what}");
            let of_set = |template: &Value| json!({"spec": {"template": template}});
            let patch = restoration("StatefulSet", &of_set(&live), &of_set(&template())).expect(what);
            let mut set = of_set(&live);
            merge_patch(&mut set, &patch);
            assert!(is_same_template(&set["spec"]["template"], &template()), "{what}: {patch}");
        }
    }

    fn add(list: &mut Value, entry: Value) {
        list.as_array_mut().expect("a list").push(entry);
    }

    #[test]
    fn the_size_of_a_claim_is_not_restored_here() {
        let set = |size: &str| json!({"spec": {"volumeClaimTemplates": [size], "replicas": 1}});
        assert_eq!(restoration("StatefulSet", &set("1Gi"), &set("2Gi")), None);
        let scaled = json!({"spec": {"volumeClaimTemplates": ["2Gi"], "replicas": 2}});
        assert_eq!(restoration("StatefulSet", &scaled, &set("2Gi")), Some(json!({"spec": {"replicas": 1}})));
    }
}
