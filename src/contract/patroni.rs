//! Patroni's dynamic configuration, which all members share: the operator writes it into the first
//! `config` ConfigMap, so that the first start already uses it; the leader's agent patches it when
//! the desired state changes. Both use one function, so that they never differ.

use serde_json::{Map, Value, json};

use super::desired::Desired;
use super::{extension, pod, wal};
use crate::api::names::PostgresNames;

/// How long the leader's key is valid without renewal, in seconds.
pub const TTL_SECONDS: u64 = 20;
/// The interval of Patroni's loop, in seconds.
pub const LOOP_WAIT_SECONDS: u64 = 5;
/// How long Patroni retries the API server, in seconds; `ttl ≥ loop_wait + 2 × retry_timeout`,
/// otherwise Patroni rewrites all three.
pub const RETRY_TIMEOUT_SECONDS: u64 = 7;
/// The same for a database of one instance: no other instance can take over, so longer times are
/// sufficient, and the API server gets half as many writes.
const LONE_TTL_SECONDS: u64 = 40;
const LONE_LOOP_WAIT_SECONDS: u64 = 10;
const LONE_RETRY_TIMEOUT_SECONDS: u64 = 15;

/// A synchronous standby has every commit, whatever its lag of uncommitted data, and only a standby
/// that Patroni has recorded as such is promoted: no lag excludes it.
const NO_LIMIT: i64 = 1 << 60;

/// `max_worker_processes` with pg_cron: PostgreSQL's eight, one for its scheduler, and one for each of the five jobs that
/// it runs at once. Parallel queries would take the place of its jobs otherwise.
const WORKERS_WITH_CRON: &str = "14";

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
        // Without synchronous members the timeline excludes a copy from before the last promotion.
        "check_timeline": !desired.synchronous,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": parameters(desired),
        },
    })
}

/// The server's settings: Servicedb's defaults first, including the WAL limits derived from the
/// volume's size, then the spec's, the reserved ones last.
pub fn parameters(desired: &Desired) -> Map<String, Value> {
    let ours = [
        ("max_connections", "100"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("max_prepared_transactions", "0"),
        ("max_locks_per_transaction", "64"),
        ("max_worker_processes", if desired.declares(extension::CRON) { WORKERS_WITH_CRON } else { "8" }),
        ("track_commit_timestamp", "off"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
        ("log_checkpoints", "off"),
        // The text of such a statement may have a secret, and each has its own.
        ("pg_stat_statements.track_utility", "off"),
        // A standby whose node failed sends nothing: commits wait for it for this long (the server's
        // default of a minute would be a minute without writes).
        ("wal_sender_timeout", "10s"),
        ("wal_receiver_timeout", "10s"),
    ];
    let reserved = [
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        ("wal_log_hints", "on"),
        // On from the first start, so that backups need no restart later.
        ("archive_mode", "on"),
        ("archive_command", desired.archive_command()),
        ("ssl", "on"),
        ("password_encryption", "scram-sha-256"),
        // An agent that passes the files of the collector on has it in its own configuration, which goes over this one.
        ("logging_collector", "off"),
        ("unix_socket_directories", pod::SOCKET_DIR),
        // The readiness probe holds one of these, so exhausted connections do not look like a failure;
        // Patroni and the agent need the others.
        ("superuser_reserved_connections", "8"),
    ];
    let mut parameters = Map::new();
    if desired.archive.is_some() {
        // At most a minute of writes is not in the store.
        parameters.insert("archive_timeout".to_owned(), "60s".into());
    }
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
    let path = search_path(desired.parameters.get("search_path").map(String::as_str));
    parameters.insert("search_path".to_owned(), path.into());
    for (name, file) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")] {
        parameters.insert(name.to_owned(), format!("{}/{file}", pod::TLS_DIR).into());
    }
    parameters
}

/// The server's search path, for the application's sessions and for migrations alike: that of the
/// spec, or PostgreSQL's own, with the schema of extensions last, so that they are found and hide
/// nothing. A path that is set for a database or a role must include that schema itself.
pub fn search_path(declared: Option<&str>) -> String {
    let (path, schema) = (declared.unwrap_or("\"$user\", public"), PostgresNames::EXTENSIONS_SCHEMA);
    if path.trim().is_empty() || path.contains(schema) { path.to_owned() } else { format!("{path}, {schema}") }
}

/// Keys of Patroni's dynamic configuration that are left to people, or to the agent
/// (`member_slots_ttl`): they cost no failover and no safety.
const LEFT_ALONE: [&str; 3] = ["slots", "ignore_slots", "member_slots_ttl"];

/// The `PATCH /config` by which `current` becomes `wanted`; none if it already is. It removes every
/// other key but [`LEFT_ALONE`], as `pause`, `standby_cluster` or `synchronous_node_count`: one
/// written by hand would end failover, or change when a commit is acknowledged.
pub fn patch(current: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = difference(current, wanted).unwrap_or_else(|| json!({}));
    let has = |of: &Value, key: &str| of.as_object().is_some_and(|of| of.contains_key(key));
    for key in keys(Some(current)).filter(|key| !has(wanted, key) && !LEFT_ALONE.contains(&key.as_str())) {
        patch[key] = Value::Null;
    }
    if current["postgresql"].is_object() {
        for key in keys(current.get("postgresql")).filter(|key| !has(&wanted["postgresql"], key)) {
            patch["postgresql"][key] = Value::Null;
        }
        let then = &wanted["postgresql"]["parameters"];
        for name in keys(current.pointer(PARAMETERS)).filter(|name| !has(then, name)) {
            patch["postgresql"]["parameters"][name] = Value::Null;
        }
    }
    (patch != json!({})).then_some(patch)
}

/// Where the server's settings are in the dynamic configuration.
pub const PARAMETERS: &str = "/postgresql/parameters";

/// The keys that a patch changes, such as `pause` or `postgresql.parameters.work_mem`.
pub fn changed_keys(patch: &Value) -> Vec<String> {
    fn collect(path: &str, value: &Value, found: &mut Vec<String>) {
        match value.as_object().filter(|entries| !entries.is_empty()) {
            Some(entries) => {
                for (key, value) in entries {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    collect(&path, value, found);
                }
            }
            None => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    if !patch.is_null() {
        collect("", patch, &mut found);
    }
    found
}

fn keys(of: Option<&Value>) -> impl Iterator<Item = &String> {
    of.and_then(Value::as_object).into_iter().flat_map(Map::keys)
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
        _ => (text(current) != text(wanted)).then(|| wanted.clone()),
    }
}

/// A value as Patroni compares it: by its text, so that it takes `100` for `"100"` and writes neither.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
    fn a_number_that_patronictl_wrote_for_a_text_is_no_difference() {
        assert_eq!(difference(&json!({"max_connections": 100}), &json!({"max_connections": "100"})), None);
        let other = json!({"max_connections": "200"});
        assert_eq!(difference(&json!({"max_connections": 100}), &other), Some(other));
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
    fn the_jobs_of_the_scheduler_take_no_worker_of_a_query() {
        let mut desired = desired(1);
        assert_eq!(parameters(&desired)["max_worker_processes"], "8");
        desired.extensions.push(extension::CRON.to_owned());
        assert_eq!(parameters(&desired)["max_worker_processes"], "14");
        desired.parameters.insert("max_worker_processes".to_owned(), "20".to_owned());
        assert_eq!(parameters(&desired)["max_worker_processes"], "20");
    }

    #[test]
    fn extensions_are_found_whatever_the_spec_says() {
        assert_eq!(parameters(&desired(1))["search_path"], r#""$user", public, servicedb_extensions"#);
        assert_eq!(search_path(Some("app, public")), "app, public, servicedb_extensions");
        assert_eq!(search_path(Some("servicedb_extensions, app")), "servicedb_extensions, app");
        assert_eq!(search_path(Some("")), "");
    }

    #[test]
    fn wal_is_bounded_by_the_volume_where_its_size_is_known_and_the_spec_is_silent() {
        let mut desired = desired(1);
        assert!(!parameters(&desired).contains_key("max_wal_size"), "an older operator sends no size");
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
        current["slots"] = json!({ "audit": { "type": "logical" } });
        assert_eq!(patch(&current, &wanted), None, "slots are people's");
        current["ttl"] = json!(30);
        current["postgresql"]["parameters"]["work_mem"] = json!("1MB");
        assert_eq!(
            patch(&current, &wanted),
            Some(json!({ "ttl": 20, "postgresql": { "parameters": { "work_mem": null } } }))
        );
        assert_eq!(patch(&json!({}), &wanted), Some(wanted));
    }

    #[test]
    fn a_key_by_hand_that_costs_failover_or_safety_is_undone() {
        let wanted = dynamic_configuration(&desired(3));
        let by_hand = [
            ("/pause", json!(true)),
            ("/standby_cluster", json!({ "host": "elsewhere" })),
            ("/synchronous_mode_strict", json!(true)),
            ("/synchronous_node_count", json!(2)),
            ("/maximum_lag_on_syncnode", json!(1)),
            ("/primary_start_timeout", json!(86400)),
            ("/primary_stop_timeout", json!(1)),
            ("/synchronous_mode", json!(false)),
            ("/failsafe_mode", json!(false)),
            ("/maximum_lag_on_failover", json!(0)),
            ("/postgresql/use_slots", json!(false)),
            ("/postgresql/pre_promote", json!("false")),
            ("/postgresql/callbacks", json!({ "on_role_change": "command" })),
            ("/postgresql/recovery_conf", json!({ "recovery_min_apply_delay": "1d" })),
        ];
        for (path, value) in by_hand {
            let mut current = wanted.clone();
            let (parent, key) = path.rsplit_once('/').expect("a path");
            let right = wanted.pointer(path).cloned().unwrap_or(Value::Null);
            current.pointer_mut(parent).expect("the parent")[key] = value;
            let patch = patch(&current, &wanted).expect("it is undone");
            assert_eq!(patch.pointer(path), Some(&right), "{path}");
            assert_eq!(changed_keys(&patch), [path[1..].replace('/', ".")]);
        }
    }
}
