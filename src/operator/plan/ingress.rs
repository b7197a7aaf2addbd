//! What the NetworkPolicies of instances, pooler and gateway have in common.

use serde_json::{Value, json};

use crate::api::ClientSpec;
use crate::operator::context::options::Options;

/// The rule for the namespaces that read metrics at this port; none without such a namespace.
pub fn from_monitoring(options: &Options, port: u16) -> Option<Value> {
    let values = &options.monitoring_namespaces;
    let namespaces = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": values});
    let rule = json!({"from": [{"namespaceSelector": {"matchExpressions": [namespaces]}}], "ports": [tcp(port)]});
    (!values.is_empty()).then_some(rule)
}

/// The pods of a client, for a rule; none if it declares none.
pub fn pods_of(client: &ClientSpec) -> Option<Value> {
    let pods = client.pod_selector.as_ref()?;
    // Both in one peer: the pods of that namespace that the selector matches.
    Some(match client.account_namespace() {
        Some(namespace) => json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "podSelector": pods,
        }),
        None => json!({"podSelector": pods}),
    })
}

/// A port of a rule.
pub fn tcp(port: u16) -> Value {
    json!({"port": port, "protocol": "TCP"})
}
