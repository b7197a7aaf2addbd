//! Checks `spec.pooler`.

use crate::api::pooler::{MAXIMUM_POOLERS, POOLER_PARAMETERS};
use crate::api::{PoolMode, PoolerSpec, ServiceDatabaseSpec};

/// The database of PgBouncer's console: it accepts no other of this name.
const CONSOLE: &str = "pgbouncer";
/// PostgreSQL's `max_connections` where the spec sets none.
const DEFAULT_MAX_CONNECTIONS: i64 = 100;
/// Connections to an instance that are not the pooler's: three for superusers, the agent's, those of
/// replicas, migrations and backups, and some for clients that connect directly.
pub const OTHER_CONNECTIONS: i64 = 15;
/// Connections of a pooler's pod for the look-up of logins, and for its look at the server.
const LOOKUPS: i64 = 4;

/// The pooler. The server connections of all its pods, one of them being replaced, must fit into
/// `max_connections` beside those of the instance itself.
///
/// # Errors
/// The field, the problem, and the remedy.
pub fn check(spec: &ServiceDatabaseSpec) -> Result<Option<PoolerSpec>, String> {
    let Some(pooler) = &spec.pooler else { return Ok(None) };
    if !(1..=MAXIMUM_POOLERS).contains(&pooler.instances) {
        return Err(format!("spec.pooler.instances must be from 1 to {MAXIMUM_POOLERS}"));
    }
    if let Some(name) = pooler.parameters.keys().find(|name| !POOLER_PARAMETERS.contains(&name.as_str())) {
        return Err(format!(
            "spec.pooler.parameters sets {name}, which Servicedb owns or PgBouncer does not have: remove it"
        ));
    }
    if let Some((name, value)) = pooler.parameters.iter().find(|(name, value)| !is_valid(name, value)) {
        return Err(format!(
            "spec.pooler.parameters sets {name} to {value:?}, with which PgBouncer would not start: a number is needed \
             (seconds of a timeout may have a fraction)"
        ));
    }
    if spec.database.as_deref() == Some(CONSOLE) {
        return Err(format!(
            "spec.pooler: PgBouncer keeps the name {CONSOLE} for its console, and spec.database is {CONSOLE}: remove \
             spec.pooler, or load the data into a ServiceDatabase with another spec.database"
        ));
    }
    let holds = [("holdSeconds", pooler.hold_seconds()), ("upgradeHoldSeconds", pooler.upgrade_hold_seconds())];
    if let Some((field, _)) = holds.iter().find(|(_, seconds)| pooler.mode == PoolMode::Session && *seconds > 0) {
        return Err(format!(
            "spec.pooler.plannedChanges.{field} needs spec.pooler.mode Transaction: a session never ends by itself, so a \
             pause would wait for it"
        ));
    }
    if pooler.replicas && spec.instances < 2 {
        return Err("spec.pooler.replicas needs at least two instances: spec.instances is 1".to_owned());
    }
    let (maximum, wanted) = (max_connections(spec), connections(spec));
    let (pods, room) = (i64::from(pooler.instances) + 1, maximum - OTHER_CONNECTIONS);
    if wanted > room {
        return Err(format!(
            "spec.pooler.poolSize is {size}, and the pods could open {wanted} connections together: {pods} pods (one \
             more while they are replaced) of {size} and {LOOKUPS} for logins. max_connections is {maximum}, of which \
             {OTHER_CONNECTIONS} are for Servicedb, replicas and migrations, so {room} remain: set poolSize to at most \
             {fits}, or max_connections to at least {needed}",
            size = pooler.pool_size,
            fits = (room / pods - LOOKUPS).max(0),
            needed = wanted + OTHER_CONNECTIONS,
        ));
    }
    Ok(Some(pooler.clone()))
}

/// `max_connections`, as declared or by default.
pub fn max_connections(spec: &ServiceDatabaseSpec) -> i64 {
    let declared = spec.postgres.parameters.get("max_connections").and_then(|value| value.trim().parse::<i64>().ok());
    declared.unwrap_or(DEFAULT_MAX_CONNECTIONS)
}

/// The connections that all pods of the pooler could open together, one of them being replaced; 0 without one.
pub fn connections(spec: &ServiceDatabaseSpec) -> i64 {
    let of = |pooler: &PoolerSpec| (i64::from(pooler.instances) + 1) * (i64::from(pooler.pool_size) + LOOKUPS);
    spec.pooler.as_ref().map_or(0, of)
}

/// Whether PgBouncer starts with a value: all parameters that a spec may set are numbers, but two; those that count
/// something have no fraction.
fn is_valid(name: &str, value: &str) -> bool {
    match name {
        "ignore_startup_parameters" | "track_extra_parameters" => true,
        "application_name_add_host" | "stats_period" => is_count(value),
        _ if name.starts_with("log_") || name.starts_with("max_") || name.ends_with("_pool_size") => is_count(value),
        _ => !value.is_empty() && value.parse::<f64>().is_ok_and(|number| number >= 0.0 && number.is_finite()),
    }
}

fn is_count(value: &str) -> bool {
    value.parse::<i32>().is_ok_and(|count| count >= 0)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn a_value_with_which_pgbouncer_would_not_start_is_found() {
        for (name, value) in [("query_timeout", "30"), ("server_lifetime", "0.5"), ("log_connections", "1")] {
            assert!(is_valid(name, value), "{name} {value}");
        }
        for (name, value) in [("query_timeout", "abc"), ("min_pool_size", ""), ("server_lifetime", "-1")] {
            assert!(!is_valid(name, value), "{name} {value}");
        }
        // PgBouncer reads these as whole numbers, and does not start with another one.
        for name in ["reserve_pool_size", "max_prepared_statements", "stats_period", "log_connections"] {
            assert!(is_valid(name, "2") && !is_valid(name, "0.5") && !is_valid(name, "1e1"), "{name}");
        }
        assert!(is_valid("track_extra_parameters", "IntervalStyle, search_path"));
    }
}
