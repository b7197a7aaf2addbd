//! What `prometheus-postgres-exporter` does not have, read from the server by the same session.

use super::query::{Collector, Query, gauge};

/// The collectors.
pub const COLLECTORS: &[Collector] = &[
    Collector { name: "servicedb_replication", queries: &[STANDBYS, RECEIVED, WAITING] },
    Collector { name: "servicedb_sessions", queries: &[CONNECTIONS, CONNECTION_LIMIT, LOCK_WAITS, OLDEST] },
];

const STANDBYS: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["standby", "sync_state"],
    constant: &[],
    values: &[
        gauge("servicedb_standby_lag_bytes", "Of the primary: WAL that a connected standby has not replayed"),
        gauge(
            "servicedb_standby_lag_seconds",
            "Of the primary: age of the last WAL that a connected standby replayed, while it lags",
        ),
    ],
    sql: "SELECT application_name, max(sync_state), max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))::float8,
                 coalesce(max(extract(epoch FROM replay_lag)), 0)::float8
          FROM pg_stat_replication WHERE state = 'streaming' AND NOT pg_is_in_recovery() GROUP BY 1 LIMIT 32",
};

const RECEIVED: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: &[],
    values: &[
        gauge("servicedb_replay_lag_bytes", "Of a replica: WAL that it has received and not replayed"),
        gauge("servicedb_streaming", "Of a replica: whether it streams from the primary"),
    ],
    sql: "SELECT greatest(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::float8,
                 (EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'))::int::float8
          WHERE pg_is_in_recovery()",
};

const WAITING: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: &[],
    values: &[gauge("servicedb_wal_waiting_segments", "Segments of WAL that wait for the archive")],
    sql: "SELECT count(*)::float8 FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'",
};

const CONNECTIONS: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["usename"],
    constant: &[],
    values: &[gauge("servicedb_connections", "Sessions of clients, by their login")],
    // A client's short-lived logins are one: each would have a label of its own.
    sql: "SELECT CASE WHEN usename LIKE 'servicedb.%.%' THEN 'servicedb.' || split_part(usename::text, '.', 2)
                      ELSE usename::text END, count(*)::float8 FROM pg_stat_activity
          WHERE backend_type = 'client backend' AND usename IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 128",
};

const CONNECTION_LIMIT: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: &[],
    values: &[
        gauge("servicedb_connections_used", "Sessions of clients, Servicedb's own included"),
        gauge("servicedb_connections_limit", "Sessions that logins other than superusers may have at once"),
    ],
    sql: "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::float8,
                 (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                  - coalesce(current_setting('reserved_connections', true), '0')::int)::float8",
};

const LOCK_WAITS: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: &[],
    values: &[
        gauge("servicedb_lock_waits", "Sessions that wait for a lock"),
        gauge("servicedb_lock_wait_longest_seconds", "How long the first of them waits"),
    ],
    sql: "SELECT count(*)::float8, coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8
          FROM pg_locks WHERE NOT granted",
};

const OLDEST: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: &[],
    values: &[gauge(
        "servicedb_idle_in_transaction_longest_seconds",
        "How long the session that holds a transaction open and does nothing has been idle",
    )],
    sql: "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)::float8
          FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
};
