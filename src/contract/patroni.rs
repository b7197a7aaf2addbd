//! Patroni's dynamic configuration, which members share: the operator writes it beside the
//! first `config` ConfigMap, so that the first start already has it; the leader's agent
//! patches it when the desired state changes. One function, so that the two never differ.

use serde_json::{Map, Value, json};

use super::desired::Desired;
use super::pod;

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

/// The dynamic configuration for a desired state.
pub fn dynamic_configuration(desired: &Desired) -> Value {
    let (ttl, loop_wait, retry_timeout) = if desired.instances > 1 {
        (TTL_SECONDS, LOOP_WAIT_SECONDS, RETRY_TIMEOUT_SECONDS)
    } else {
        (LONE_TTL_SECONDS, LONE_LOOP_WAIT_SECONDS, LONE_RETRY_TIMEOUT_SECONDS)
    };
    json!({
        "ttl": ttl,
        "loop_wait": loop_wait,
        "retry_timeout": retry_timeout,
        "failsafe_mode": true,
        "maximum_lag_on_failover": desired.maximum_lag_bytes,
        "synchronous_mode": desired.synchronous,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": parameters(desired),
        },
    })
}

/// The server's settings: ours first, the spec's over them, the reserved ones last.
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
        // Readiness holds one of these, so a full connection table does not look like death.
        ("superuser_reserved_connections", "5"),
    ];
    let mut parameters = Map::new();
    for (name, value) in ours {
        parameters.insert(name.to_owned(), value.into());
    }
    for (name, value) in &desired.parameters {
        parameters.insert(name.clone(), value.clone().into());
    }
    for (name, value) in reserved {
        parameters.insert(name.to_owned(), value.into());
    }
    for (name, file) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")] {
        parameters.insert(name.to_owned(), format!("{}/{file}", pod::TLS_DIR).into());
    }
    parameters
}
