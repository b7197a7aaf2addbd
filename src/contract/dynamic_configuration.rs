//! Patroni's dynamic configuration: what all members of one database share.
//!
//! The operator puts it into the annotation `config` of the ConfigMap `<name>-db-config` when
//! it makes that, and never again; from then on the leader's agent patches it where the
//! desired state differs. Patroni reads and rewrites it as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::desired::Desired;
use super::pod::{SOCKET_DIR, TLS_DIR};

/// How long a leader's lease lasts, in seconds.
pub fn ttl(desired: &Desired) -> u64 {
    if desired.instances > 1 { 20 } else { 30 }
}

/// How often Patroni looks around, in seconds. One instance has nobody to fail over to, and
/// each look writes to the API server, so it looks less often.
pub fn loop_wait(desired: &Desired) -> u64 {
    if desired.instances > 1 { 5 } else { 10 }
}

/// What `<name>-db-config` shall hold.
pub fn dynamic_configuration(desired: &Desired) -> Value {
    json!({
        "ttl": ttl(desired),
        "loop_wait": loop_wait(desired),
        // ttl >= loop_wait + 2 * retry_timeout, or Patroni rewrites all three.
        "retry_timeout": if desired.instances > 1 { 7 } else { 10 },
        "failsafe_mode": true,
        "synchronous_mode": desired.synchronous && desired.instances > 1,
        "maximum_lag_on_failover": desired.maximum_lag_bytes,
        "postgresql": {
            "use_slots": true,
            "use_pg_rewind": true,
            "parameters": parameters(desired),
        },
    })
}

/// PostgreSQL's settings: defaults, then the spec's, then those that are Servicedb's alone.
pub fn parameters(desired: &Desired) -> BTreeMap<String, String> {
    let tls = |file: &str| format!("{TLS_DIR}/{file}");
    // Patroni's own defaults for what members must agree on, written out so that the first
    // start by the agent and a start by Patroni are the same start.
    let defaults = [
        ("max_connections", "100"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("max_prepared_transactions", "0"),
        ("max_locks_per_transaction", "64"),
        ("max_worker_processes", "8"),
        ("track_commit_timestamp", "off"),
        ("wal_keep_size", "128MB"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
    ];
    let fixed = [
        ("archive_command", "/bin/true".to_owned()),
        ("archive_mode", "on".to_owned()),
        ("hot_standby", "on".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("password_encryption", "scram-sha-256".to_owned()),
        ("ssl", "on".to_owned()),
        ("ssl_ca_file", tls("ca.crt")),
        ("ssl_cert_file", tls("server.crt")),
        ("ssl_key_file", tls("server.key")),
        // The agent's readiness and work, Patroni's heartbeat and REST API.
        ("superuser_reserved_connections", "8".to_owned()),
        ("unix_socket_directories", SOCKET_DIR.to_owned()),
        ("wal_level", "replica".to_owned()),
        ("wal_log_hints", "on".to_owned()),
    ];
    let mut parameters: BTreeMap<String, String> =
        defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    parameters.extend(desired.parameters.clone());
    parameters.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    parameters
}

/// What to `PATCH /config` with so that `current` becomes `wanted`; none if it already is.
/// Keys that neither names, such as `pause`, stay as they are.
pub fn patch(current: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = difference(current, wanted).unwrap_or_else(|| json!({}));
    // A setting that the spec no longer has goes; the other keys of Patroni's are people's.
    let path = "/postgresql/parameters";
    if let (Some(Value::Object(now)), Some(Value::Object(then))) = (current.pointer(path), wanted.pointer(path)) {
        for name in now.keys().filter(|name| !then.contains_key(*name)) {
            patch["postgresql"]["parameters"][name] = Value::Null;
        }
    }
    (patch != json!({})).then_some(patch)
}

fn difference(current: &Value, wanted: &Value) -> Option<Value> {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => {
            let changed: serde_json::Map<_, _> = wanted
                .iter()
                .filter_map(|(key, value)| {
                    let changed = match current.get(key) {
                        Some(now) => difference(now, value),
                        None => Some(value.clone()),
                    };
                    changed.map(|value| (key.clone(), value))
                })
                .collect();
            (!changed.is_empty()).then_some(Value::Object(changed))
        }
        _ => (current != wanted).then(|| wanted.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(instances: i32) -> Desired {
        Desired {
            version: 1,
            uid: "u".into(),
            database: "chat_db".into(),
            instances,
            parameters: [("max_connections".to_owned(), "200".to_owned()), ("ssl".to_owned(), "off".to_owned())].into(),
            extensions: vec![],
            synchronous: true,
            maximum_lag_bytes: 7,
            credential_generation: 1,
            primary_host: "h".into(),
        }
    }

    #[test]
    fn patroni_keeps_the_timings() {
        for instances in [1, 2, 9] {
            let configuration = dynamic_configuration(&desired(instances));
            let get = |key: &str| configuration[key].as_u64().expect("a number");
            assert!(get("ttl") >= get("loop_wait") + 2 * get("retry_timeout"), "{configuration}");
        }
    }

    #[test]
    fn the_spec_sets_defaults_and_never_what_is_servicedbs() {
        let parameters = parameters(&desired(1));
        assert_eq!(parameters["max_connections"], "200");
        assert_eq!(parameters["ssl"], "on");
    }

    #[test]
    fn one_instance_never_waits_for_a_replica() {
        assert_eq!(dynamic_configuration(&desired(1))["synchronous_mode"], false);
        assert_eq!(dynamic_configuration(&desired(2))["synchronous_mode"], true);
    }

    #[test]
    fn a_patch_has_what_differs_and_removes_what_the_spec_dropped() {
        let wanted = dynamic_configuration(&desired(3));
        assert_eq!(patch(&wanted, &wanted), None);
        let mut current = wanted.clone();
        current["pause"] = json!(true);
        assert_eq!(patch(&current, &wanted), None, "a person's pause is not touched");
        current["ttl"] = json!(30);
        current["postgresql"]["parameters"]["work_mem"] = json!("1MB");
        assert_eq!(
            patch(&current, &wanted),
            Some(json!({ "ttl": 20, "postgresql": { "parameters": { "work_mem": null } } }))
        );
        assert_eq!(patch(&json!({}), &wanted), Some(wanted));
    }
}
