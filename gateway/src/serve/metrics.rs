//! Statistics: metrics for Prometheus, and document 001's query execution statistics of the last requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::cost::{Costs, LIMITED};
use crate::database::PoolState;
use crate::request::{Operator, TextForm};

/// How many requests are remembered.
const RECENT: usize = 1_000;
/// How many of a caller are shown.
const SHOWN: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
    collection: String,
    operation: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabel {
    server: &'static str,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Record {
    /// The caller.
    pub service: String,
    /// The collection, if it is one.
    pub collection: String,
    /// `find`, `insert`, `update`, `delete`, `aggregate` or another word.
    pub operation: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// Rows read or changed.
    pub rows: u64,
    /// The query string without its values.
    pub pattern: String,
    /// The status of the answer.
    pub status: u16,
    /// The code of the problem.
    pub code: Option<String>,
}

/// See the module.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Family<OperationLabel, Histogram>,
    replica_reads: Family<ServerLabel, Counter>,
    limited: Family<ServiceLabel, Counter>,
    connections: Gauge,
    idle: Gauge,
    waiting: Gauge,
    breaker: Gauge,
    transactions: Gauge,
    schema: Gauge,
    recent: Mutex<VecDeque<(u64, SystemTime, Record)>>,
    number: std::sync::atomic::AtomicU64,
}

impl Metrics {
    /// Without a request yet; with what was charged, if there are limits by cost, and with the cache, if there is one.
    pub fn new(costs: Option<&Costs>, cache: Option<&Cache>) -> Self {
        let mut registry = Registry::with_prefix("servicedb_gateway");
        let requests = Family::<Labels, Counter>::default();
        let durations = Family::<OperationLabel, Histogram>::new_with_constructor(|| {
            Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0])
        });
        registry.register("requests", "Requests by service, collection, operation and status", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time to the beginning of the answer",
            Unit::Seconds,
            durations.clone(),
        );
        let replica_reads = Family::<ServerLabel, Counter>::default();
        registry.register(
            "replica_reads",
            "Requests with Prefer: read=replica, by the server that they were left to",
            replica_reads.clone(),
        );
        let limited = Family::<ServiceLabel, Counter>::default();
        registry.register(
            "limited",
            "Requests that were refused by the limit of their cost, by service",
            limited.clone(),
        );
        if let Some(costs) = costs {
            costs.register(&mut registry);
        }
        if let Some(cache) = cache {
            cache.register(&mut registry);
        }
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            connections: gauge("connections_active", "Connections to the database in use"),
            idle: gauge("connections_idle", "Open connections to the database that are not in use"),
            waiting: gauge("requests_waiting", "Requests that wait for a connection"),
            breaker: gauge("breaker_open", "1 while requests fail at once since the database cannot be reached"),
            transactions: gauge("transactions_open", "Interactive transactions"),
            schema: gauge("schema_fresh", "1 if the last look at the schema succeeded"),
            registry,
            requests,
            durations,
            replica_reads,
            limited,
            recent: Mutex::default(),
            number: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Adds a request.
    pub fn record(&self, record: Record) {
        let labels = Labels {
            service: record.service.clone(),
            collection: record.collection.clone(),
            operation: record.operation.to_owned(),
            status: record.status,
        };
        self.requests.get_or_create(&labels).inc();
        if record.code.as_deref() == Some(LIMITED) {
            self.limited.get_or_create(&ServiceLabel { service: record.service.clone() }).inc();
        }
        let operation = OperationLabel { operation: record.operation.to_owned() };
        self.durations.get_or_create(&operation).observe(record.duration.as_secs_f64());
        let number = self.number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back((number, SystemTime::now(), record));
    }

    /// Counts a read that asks for a replica: whether one has answered it, or it is left to the primary.
    pub fn wished_replica(&self, answered: bool) {
        let server = if answered { "replica" } else { "primary" };
        self.replica_reads.get_or_create(&ServerLabel { server }).inc();
    }

    /// The text for Prometheus.
    pub fn text(&self, pool: PoolState, transactions: usize, schema_fresh: bool) -> String {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.connections.set(number(pool.active));
        self.idle.set(number(pool.idle));
        self.waiting.set(number(pool.waiting));
        self.breaker.set(i64::from(pool.breaker_open));
        self.transactions.set(number(transactions));
        self.schema.set(i64::from(schema_fresh));
        let mut text = String::new();
        // Writing into a text does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// A caller's last requests, and their times by collection and operation.
    pub fn performance(&self, service: &str) -> Value {
        let recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own: Vec<_> = recent.iter().filter(|(.., record)| record.service == service).collect();
        let mut groups: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for (.., record) in &own {
            let times = groups.entry((&record.collection, record.operation)).or_default();
            times.push(record.duration.as_secs_f64() * 1000.0);
        }
        let summaries = groups.into_iter().map(|((collection, operation), mut times)| {
            times.sort_by(f64::total_cmp);
            // The nearest rank: at least this share is not above it.
            let at = |share: f64| rounded(times[((times.len() as f64 * share).ceil() as usize).max(1) - 1]);
            json!({
                "collection": collection, "operation_type": operation, "count": times.len(),
                "mean_ms": rounded(times.iter().sum::<f64>() / times.len() as f64), "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99),
            })
        });
        let queries = own.iter().rev().take(SHOWN).map(|(number, time, record)| {
            json!({
                "query_id": number.to_string(), "timestamp": jiff::Timestamp::try_from(*time).map(|time| time.to_string()).ok(),
                "service_name": record.service, "collection": record.collection, "operation_type": record.operation,
                "execution_time_ms": rounded(record.duration.as_secs_f64() * 1000.0), "documents_processed": record.rows,
                "index_used": null, "query_pattern": record.pattern, "success": record.status < 400,
                "error_message": record.code,
            })
        });
        json!({"summary": summaries.collect::<Vec<_>>(), "queries": queries.collect::<Vec<_>>()})
    }
}

fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1000.0).round() / 1000.0
}

/// A query string without its values: keys and operators.
pub fn pattern(query: &str) -> String {
    let pair = |(key, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        let kept = match key.as_ref() {
            "select" | "order" | "columns" | "on_conflict" => value.into_owned(),
            "limit" | "offset" | "page_token" => "$".to_owned(),
            key if ["and", "or"].contains(&key.rsplit('.').next().unwrap_or(key)) => "$".to_owned(),
            _ => {
                // Only what is an operator: anything else may be a value.
                let (nots, rest) = match value.strip_prefix("not.") {
                    Some(rest) => ("not.", rest),
                    None => ("", value.as_ref()),
                };
                let name = rest.split(['.', '(']).next().unwrap_or_default();
                if is_operator(name) { format!("{nots}{name}.$") } else { "$".to_owned() }
            }
        };
        format!("{key}={kept}")
    };
    form_urlencoded::parse(query.as_bytes()).map(pair).collect::<Vec<_>>().join("&")
}

fn is_operator(name: &str) -> bool {
    ["in", "is"].contains(&name) || Operator::named(name).is_some() || TextForm::named(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_no_value() {
        let found = pattern(
            "select=a,b&age=gte.18&name=not.ilike.*smith*&or=(a.eq.secret,b.eq.2)&limit=5&argument=secret.text&word=secret",
        );
        assert_eq!(found, "select=a,b&age=gte.$&name=not.ilike.$&or=$&limit=$&argument=$&word=$");
    }
}
