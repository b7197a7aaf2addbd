//! Patroni's dynamic configuration, which members share: the operator writes it beside the
//! first `config` ConfigMap, so that the first start already has it; the leader's agent
//! patches it when the desired state changes. One function, so that the two never differ.

use serde_json::{Map, Value, json};

use super::desired::Desired;
use super::{pod, wal};
use crate::api::names::PostgresNames;

/// How long the leader's key lives without renewal, in seconds.
pub const TTL_SECONDS: u64 = 20;
/// Patroni's loop, in seconds.
pub const LOOP_WAIT_SECONDS: u64 = 5;
/// How long Patroni retries the API server, in seconds; `ttl ≥ loop_wait + 2 × retry_timeout`,
/// or Patroni rewrites all three.
pub const RETRY_TIMEOUT_SECONDS: u64 = 7;
/// The same for a database of one instance: nobody can take over, so nobody needs to hurry,
/// and the API server is written to half as often.
const LONE_TTL_SECONDS: u64 = 40;
const LONE_LOOP_WAIT_SECONDS: u64 = 10;
const LONE_RETRY_TIMEOUT_SECONDS: u64 = 15;

/// A synchronous standby has every commit, however far it is behind with what is not committed, and
/// only one that Patroni has written down as such is promoted: no lag speaks against it.
const NO_LIMIT: i64 = 1 << 60;

/// Patroni's timings for a desired state, in seconds: `ttl`, `loop_wait`, `retry_timeout`.
pub fn timings(desired: &Desired) -> (u64, u64, u64) {
    if desired.instances > 1 {
        (TTL_SECONDS, LOOP_WAIT_SECONDS, RETRY_TIMEOUT_SECONDS)
    } else {
        (LONE_TTL_SECONDS, LONE_LOOP_WAIT_SECONDS, LONE_RETRY_TIMEOUT_SECONDS)
    }
}

/// The dynamic configuration for a desired state.
pub fn dynamic_configuration(desired: &Desired) -> Value {
    let (ttl, loop_wait, retry_timeout) = timings(desired);
    json!({
        "ttl": ttl,
        "loop_wait": loop_wait,
        "retry_timeout": retry_timeout,
        "failsafe_mode": true,
        "maximum_lag_on_failover": if desired.synchronous { NO_LIMIT } else { desired.maximum_lag_bytes },
        "synchronous_mode": desired.synchronous,
        // Without synchronous members the timeline bars a copy from before the last promotion.
        "check_timeline": !desired.synchronous,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": parameters(desired),
        },
    })
}

/// The server's settings: ours first, the bounds of WAL by the volume's size among them, the spec's
/// over them, the reserved ones last.
pub fn parameters(desired: &Desired) -> Map<String, Value> {
    let ours = [
        ("max_connections", "100"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("max_prepared_transactions", "0"),
        ("max_locks_per_transaction", "64"),
        ("max_worker_processes", "8"),
        ("track_commit_timestamp", "off"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
        ("log_checkpoints", "off"),
        // A standby whose node is gone says nothing: commits wait for it until this much later
        // (the server's own minute would be a minute without writes).
        ("wal_sender_timeout", "10s"),
        ("wal_receiver_timeout", "10s"),
    ];
    let reserved = [
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        ("wal_log_hints", "on"),
        // On from the first day, so that backups later need no restart.
        ("archive_mode", "on"),
        ("archive_command", "/bin/true"),
        ("ssl", "on"),
        ("password_encryption", "scram-sha-256"),
        ("logging_collector", "off"),
        ("unix_socket_directories", pod::SOCKET_DIR),
        // Readiness holds one of these, so a full connection table does not look like death;
        // Patroni and the agent's work need the others.
        ("superuser_reserved_connections", "8"),
    ];
    let mut parameters = Map::new();
    for (name, value) in ours {
        parameters.insert(name.to_owned(), value.into());
    }
    for (name, value) in desired.volume_bytes.map(|volume| wal::budget(volume).settings()).into_iter().flatten() {
        parameters.insert(name.to_owned(), value.into());
    }
    for (name, value) in &desired.parameters {
        parameters.insert(name.clone(), value.clone().into());
    }
    for (name, value) in reserved {
        parameters.insert(name.to_owned(), value.into());
    }
    let path = desired.parameters.get("search_path").map_or("\"$user\", public", String::as_str);
    parameters.insert("search_path".to_owned(), with_extensions(path).into());
    for (name, file) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")] {
        parameters.insert(name.to_owned(), format!("{}/{file}", pod::TLS_DIR).into());
    }
    parameters
}

/// A search path with the schema of extensions last, so that they are found and hide nothing. Who
/// sets another for a database or a role names it there.
fn with_extensions(path: &str) -> String {
    let schema = PostgresNames::EXTENSIONS_SCHEMA;
    if path.trim().is_empty() || path.contains(schema) { path.to_owned() } else { format!("{path}, {schema}") }
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
        let parameters =
            [("max_connections".to_owned(), "200".to_owned()), ("ssl".to_owned(), "off".to_owned())].into();
        Desired { instances, parameters, ..Desired::sample() }
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
    fn extensions_are_found_whatever_the_spec_says() {
        assert_eq!(parameters(&desired(1))["search_path"], r#""$user", public, servicedb_extensions"#);
        assert_eq!(with_extensions("app, public"), "app, public, servicedb_extensions");
        assert_eq!(with_extensions("servicedb_extensions, app"), "servicedb_extensions, app");
        assert_eq!(with_extensions(""), "");
    }

    #[test]
    fn wal_is_bounded_by_the_volume_where_its_size_is_known_and_the_spec_is_silent() {
        let mut desired = desired(1);
        assert!(!parameters(&desired).contains_key("max_wal_size"), "an operator before this said no size");
        desired.volume_bytes = Some(512 << 20);
        desired.parameters.insert("wal_keep_size".to_owned(), "80MB".to_owned());
        let parameters = parameters(&desired);
        assert_eq!(
            (&parameters["max_wal_size"], &parameters["max_slot_wal_keep_size"]),
            (&json!("64MB"), &json!("128MB"))
        );
        assert_eq!(parameters["wal_keep_size"], "80MB");
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
