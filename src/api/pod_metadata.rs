//! Additional labels and annotations of pods: `spec.podMetadata`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nulls::null_as_default;

/// Keys of a pod that the operator, Patroni or Kubernetes' controllers write.
pub const RESERVED_KEYS: &[&str] = &[
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-hash",
    "status",
];

/// Prefixes of these keys.
pub const RESERVED_PREFIXES: &[&str] =
    &["apps.kubernetes.io/", "batch.kubernetes.io/", "servicedb.dev/", "statefulset.kubernetes.io/"];

/// The syntax of a key in Kubernetes.
const KEY: &str = "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// The syntax of a label's value.
const LABEL: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$";

/// Labels and annotations of the pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,

    /// Annotations.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations_schema")]
    pub annotations: BTreeMap<String, String>,
}

impl PodMetadata {
    /// The first reserved key: `labels` or `annotations`, and the key.
    pub fn reserved(&self) -> Option<(&'static str, &str)> {
        let labels = self.labels.keys().map(|key| ("labels", key));
        let annotations = self.annotations.keys().map(|key| ("annotations", key));
        labels.chain(annotations).find(|(_, key)| is_reserved(key)).map(|(list, key)| (list, key.as_str()))
    }
}

/// Whether a spec may not set this key.
pub fn is_reserved(key: &str) -> bool {
    RESERVED_KEYS.contains(&key) || RESERVED_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = serde_json::json!({
        "rule": format!("self.all(key, self[key].matches('{LABEL}'))"),
        "message": "spec.podMetadata.labels: a label's value has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit"
    });
    schema("labels", "Labels.", 63, Some(value))
}

fn annotations_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schema("annotations", "Annotations.", 4096, None)
}

/// A map whose keys are valid and not reserved.
fn schema(list: &str, description: &str, length: u32, of_values: Option<serde_json::Value>) -> schemars::Schema {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ");
    let (keys, prefixes) = (quoted(RESERVED_KEYS), quoted(RESERVED_PREFIXES));
    let mut rules = vec![
        serde_json::json!({
            "rule": format!("self.all(key, key.matches('{KEY}'))"),
            "message": format!("spec.podMetadata.{list}: a key has an optional prefix, which is a DNS name and ends with '/', and a name of at most 63 letters, digits, '-', '_' and '.'")
        }),
        serde_json::json!({
            "rule": format!("self.all(key, !(key in [{keys}]) && ![{prefixes}].exists(prefix, key.startsWith(prefix)))"),
            "message": format!("spec.podMetadata.{list} sets a key that is reserved: Servicedb, Patroni or a controller of Kubernetes writes it (see the reference)")
        }),
    ];
    rules.extend(of_values);
    schemars::json_schema!({
        "type": "object",
        "description": description,
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": length },
        "x-kubernetes-validations": rules
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_key_is_found_in_labels_and_annotations() {
        let map = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        for key in ["servicedb.dev/role", "job-name", "batch.kubernetes.io/job-name", "app.kubernetes.io/name"] {
            let labels = PodMetadata { labels: map(key), annotations: map("team") };
            assert_eq!(labels.reserved(), Some(("labels", key)));
            let annotations = PodMetadata { labels: map("team"), annotations: map(key) };
            assert_eq!(annotations.reserved(), Some(("annotations", key)));
        }
        for key in ["team", "app.kubernetes.io/part-of", "karpenter.sh/do-not-disrupt"] {
            assert_eq!(PodMetadata { labels: map(key), annotations: map(key) }.reserved(), None, "{key}");
        }
    }
}
