//! The memory that the settings of a spec need, and the memory that is available.

use std::collections::BTreeMap;

use super::setting::{BLOCK, KB, MB, count, readable, size_in};

/// Shared memory that is never refused: a little more than PostgreSQL's defaults need.
const ALWAYS: u64 = 192 * MB;

/// The memory limit of the instance's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `spec.resources.limits.memory`: the kernel kills processes beyond it.
    Limit(u64),
    /// `spec.resources.requests.memory`: the scheduler uses it to find a node.
    Request(u64),
    /// The container's actual limit, for example from a LimitRange.
    Container(u64),
    /// The node's total memory.
    Node(u64),
}

impl Bound {
    /// The part that shared memory may take: sessions need the rest. Sessions normally exceed a
    /// request, but the memory taken at the start must be within it.
    pub fn share(self) -> u64 {
        let share = match self {
            Self::Limit(bytes) | Self::Container(bytes) | Self::Node(bytes) => bytes / 4 * 3,
            Self::Request(bytes) => bytes,
        };
        share.max(ALWAYS)
    }

    fn told(self) -> String {
        match self {
            Self::Limit(bytes) => format!("three quarters of spec.resources.limits.memory ({})", readable(bytes)),
            Self::Request(bytes) => format!("spec.resources.requests.memory ({}), without a limit", readable(bytes)),
            Self::Container(bytes) => format!("three quarters of its container's limit ({})", readable(bytes)),
            Self::Node(bytes) => {
                format!("three quarters of its node's memory ({}): spec.resources has no limit", readable(bytes))
            }
        }
    }
}

/// The shared memory that the spec sets explicitly; PostgreSQL needs more, which only it can compute.
pub fn named(parameters: &BTreeMap<String, String>) -> u64 {
    let size = |name: &str| size_in(parameters, name, BLOCK).unwrap_or_default();
    size("shared_buffers").saturating_add(size("wal_buffers"))
}

/// Checks an amount of shared memory against a bound.
///
/// # Errors
/// The requested amount, the parameter, the bound, and the remedy.
pub fn check(parameters: &BTreeMap<String, String>, asked: u64, bound: Bound) -> Result<(), String> {
    if asked <= bound.share() {
        return Ok(());
    }
    let by = at_start(parameters).map(|(name, value)| format!(", most of it by {name} = {value}")).unwrap_or_default();
    Err(format!(
        "spec.postgres.parameters ask for {} of shared memory{by}, and an instance may have {}, which is {}: lower the \
         parameter, or raise spec.resources.limits.memory",
        readable(asked),
        readable(bound.share()),
        bound.told(),
    ))
}

/// Of the parameters that the spec sets, the one that takes most of the memory at the start.
fn at_start(parameters: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    greatest(parameters, |name| {
        let number = |otherwise| parameters.get(name).and_then(|value| count(value)).unwrap_or(otherwise);
        Some(match name {
            "shared_buffers" | "wal_buffers" => size_in(parameters, name, BLOCK)?,
            // A lock with its structures, about 300 bytes, for each of a hundred connections.
            "max_locks_per_transaction" | "max_pred_locks_per_transaction" => number(64).saturating_mul(100 * 300),
            // A session's entry, its locks, and its statistics.
            "max_connections" | "max_prepared_transactions" => number(100).saturating_mul(24 * KB),
            "max_wal_senders" | "max_worker_processes" | "autovacuum_max_workers" => number(10).saturating_mul(24 * KB),
            "track_activity_query_size" => size_in(parameters, name, 1)?.saturating_mul(100),
            "min_dynamic_shared_memory" => size_in(parameters, name, MB)?,
            _ => return None,
        })
    })
}

/// Of all parameters that the spec sets, the one that may take most memory: at the start or while
/// sessions are active.
pub fn greediest(parameters: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    let connections = parameters.get("max_connections").and_then(|value| count(value)).unwrap_or(100);
    greatest(parameters, |name| {
        Some(match name {
            "shared_buffers" | "wal_buffers" => size_in(parameters, name, BLOCK)?,
            // Each session may take it several times; one in ten does so at a time.
            "work_mem" | "logical_decoding_work_mem" => {
                size_in(parameters, name, KB)?.saturating_mul(connections / 10 + 1)
            }
            "temp_buffers" => size_in(parameters, name, BLOCK)?.saturating_mul(connections / 10 + 1),
            "maintenance_work_mem" | "autovacuum_work_mem" => size_in(parameters, name, KB)?.saturating_mul(3),
            // A session takes about ten megabytes.
            "max_connections" => connections.saturating_mul(10 * MB),
            _ => return None,
        })
    })
}

fn greatest(parameters: &BTreeMap<String, String>, takes: impl Fn(&str) -> Option<u64>) -> Option<(&str, &str)> {
    let known = parameters.iter().filter_map(|(name, value)| Some((takes(name)?, name, value)));
    known.max_by_key(|(bytes, ..)| *bytes).map(|(_, name, value)| (name.as_str(), value.as_str()))
}

/// The remedy for a server that the kernel has killed because memory ran out.
pub fn advice(parameters: &BTreeMap<String, String>, limit: Option<u64>) -> String {
    let limit = match limit {
        Some(bytes) => format!("raise spec.resources.limits.memory ({})", readable(bytes)),
        None => "set spec.resources.requests.memory and limits.memory to what it needs".to_owned(),
    };
    match greediest(parameters) {
        Some((name, value)) => {
            format!("of spec.postgres.parameters {name} = {value} may take most: lower it, or {limit}")
        }
        None => format!("spec.postgres.parameters set nothing that takes memory: {limit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::GB;
    use super::*;

    fn parameters(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_is_asked_for_is_held_against_what_there_is() {
        let asks = parameters(&[("shared_buffers", "800GB"), ("max_connections", "200")]);
        assert_eq!(named(&asks), 800 * GB);
        let refused = check(&asks, 801 * GB, Bound::Limit(GB)).expect_err("a gigabyte");
        assert!(refused.contains("801 GB") && refused.contains("shared_buffers = 800GB"), "{refused}");
        assert!(refused.contains("768 MB") && refused.contains("limits.memory (1024 MB)"), "{refused}");
        assert!(check(&asks, 801 * GB, Bound::Node(64 * GB)).expect_err("a node").contains("has no limit"));
        assert_eq!(check(&asks, 768 * MB, Bound::Limit(GB)), Ok(()));
        assert_eq!(check(&asks, GB, Bound::Request(GB)), Ok(()));
        assert!(check(&asks, GB + 1, Bound::Request(GB)).is_err());
        assert_eq!(check(&asks, 150 * MB, Bound::Limit(100 * MB)), Ok(()), "the defaults are never refused");
    }

    #[test]
    fn the_parameter_that_takes_most_is_named() {
        let of = |settings: &[(&str, &str)]| greediest(&parameters(settings)).map(|(name, _)| name.to_owned());
        assert_eq!(of(&[("log_checkpoints", "on")]), None);
        assert_eq!(of(&[("shared_buffers", "1GB"), ("work_mem", "4MB")]).as_deref(), Some("shared_buffers"));
        assert_eq!(of(&[("shared_buffers", "1GB"), ("work_mem", "1GB")]).as_deref(), Some("work_mem"));
        assert_eq!(of(&[("max_connections", "5000"), ("work_mem", "1MB")]).as_deref(), Some("max_connections"));
        let locks = parameters(&[("max_locks_per_transaction", "1000000"), ("shared_buffers", "1GB")]);
        assert_eq!(at_start(&locks).map(|(name, _)| name), Some("max_locks_per_transaction"));
        assert!(advice(&locks, Some(GB)).contains("shared_buffers = 1GB"));
        assert!(advice(&BTreeMap::new(), None).contains("limits.memory"));
    }
}
