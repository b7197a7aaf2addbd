//! What the server tells of itself as a whole, with the names, labels and types of `prometheus-postgres-exporter`.
//! The session is in the database `postgres`, where no tenant can set anything for it.

use super::query::{Collector, Query, Value, counter, gauge};
use super::text::Kind;

/// The exporter's label for the server of those metrics that its first versions had.
const SERVER: &[(&str, &str)] = &[("server", "localhost:5432")];
/// No label of that kind.
const NONE: &[(&str, &str)] = &[];

const fn untyped(name: &'static str, help: &'static str) -> Value {
    Value { name, kind: Kind::Untyped, help }
}

/// The collectors that `prometheus-postgres-exporter` runs by default, but for those of tables.
pub const COLLECTORS: &[Collector] = &[
    Collector { name: "database", queries: &[DATABASE, DATABASE_SIZE] },
    Collector { name: "locks", queries: &[LOCKS] },
    Collector { name: "replication", queries: &[REPLICATION] },
    Collector { name: "replication_slot", queries: &[SLOT, SLOT_FLUSHED, SLOT_STATUS, SLOTS] },
    Collector { name: "roles", queries: &[ROLES] },
    Collector { name: "stat_activity", queries: &[ACTIVITY] },
    Collector { name: "stat_archiver", queries: &[ARCHIVER] },
    Collector { name: "stat_bgwriter", queries: &[BGWRITER] },
    Collector { name: "stat_database", queries: &[STAT_DATABASE, CONFLICTS] },
    Collector { name: "stat_replication", queries: &[STAT_REPLICATION] },
    Collector { name: "static", queries: &[STATIC] },
    Collector { name: "wal", queries: &[WAL] },
    // The exporter has these too, and does not run them by default.
    Collector { name: "database_wraparound", queries: &[WRAPAROUND] },
    Collector { name: "long_running_transactions", queries: &[LONG_TRANSACTIONS] },
    Collector { name: "postmaster", queries: &[POSTMASTER] },
    Collector { name: "stat_checkpointer", queries: &[CHECKPOINTER] },
    Collector { name: "stat_statements", queries: &[STATEMENTS] },
];

const DATABASE: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["datname"],
    constant: NONE,
    values: &[gauge("pg_database_connection_limit", "Connection limit set for the database")],
    sql: "SELECT datname::text, datconnlimit::float8 FROM pg_database",
};

const DATABASE_SIZE: Query = Query {
    since: 0,
    opens_files: true,
    labels: &["datname"],
    constant: NONE,
    values: &[gauge("pg_database_size_bytes", "Disk space used by the database")],
    sql: "SELECT datname::text, pg_database_size(oid)::float8 FROM pg_database",
};

const LOCKS: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["datname", "mode"],
    constant: NONE,
    values: &[gauge("pg_locks_count", "Number of locks")],
    sql: "SELECT d.datname::text, m.mode, coalesce(l.count, 0)::float8
          FROM unnest(ARRAY['accesssharelock', 'rowsharelock', 'rowexclusivelock', 'shareupdateexclusivelock',
                 'sharelock', 'sharerowexclusivelock', 'exclusivelock', 'accessexclusivelock', 'sireadlock']) AS m(mode)
          CROSS JOIN pg_database d
          LEFT JOIN (SELECT database, lower(mode) AS mode, count(*) AS count FROM pg_locks
                     WHERE database IS NOT NULL GROUP BY 1, 2) l ON l.database = d.oid AND l.mode = m.mode",
};

const REPLICATION: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: NONE,
    values: &[
        gauge("pg_replication_lag_seconds", "Replication lag behind master in seconds"),
        gauge("pg_replication_is_replica", "Indicates if the server is a replica"),
        gauge("pg_replication_last_replay_seconds", "Age of last replay in seconds"),
    ],
    sql: "SELECT (CASE WHEN NOT pg_is_in_recovery() THEN 0
                       WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                       ELSE greatest(0, extract(epoch FROM now() - pg_last_xact_replay_timestamp())) END)::float8,
                 pg_is_in_recovery()::int::float8,
                 greatest(0, extract(epoch FROM now() - pg_last_xact_replay_timestamp()))::float8",
};

/// The position of WAL: of a replica what it has received.
macro_rules! position {
    () => {
        "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END"
    };
}

const SLOT: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["slot_name", "slot_type"],
    constant: NONE,
    values: &[
        gauge("pg_replication_slot_slot_current_wal_lsn", "current wal lsn value"),
        gauge("pg_replication_slot_slot_is_active", "whether the replication slot is active or not"),
        gauge(
            "pg_replication_slot_safe_wal_size_bytes",
            "number of bytes that can be written to WAL such that this slot is not in danger of getting in state lost",
        ),
    ],
    sql: concat!(
        "SELECT slot_name::text, slot_type, coalesce((",
        position!(),
        ") - '0/0', 0)::float8, active::int::float8, safe_wal_size::float8 FROM pg_replication_slots"
    ),
};

const SLOT_FLUSHED: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["slot_name", "slot_type"],
    constant: NONE,
    values: &[gauge(
        "pg_replication_slot_slot_confirmed_flush_lsn",
        "last lsn confirmed flushed to the replication slot",
    )],
    sql: "SELECT slot_name::text, slot_type, (coalesce(confirmed_flush_lsn, '0/0') - '0/0')::float8
          FROM pg_replication_slots WHERE active",
};

const SLOT_STATUS: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["slot_name", "slot_type", "wal_status"],
    constant: NONE,
    values: &[gauge("pg_replication_slot_wal_status", "availability of WAL files claimed by this slot")],
    sql: "SELECT slot_name::text, slot_type, wal_status, 1::float8 FROM pg_replication_slots WHERE wal_status IS NOT NULL",
};

const SLOTS: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["slot_name", "database"],
    constant: SERVER,
    values: &[
        gauge("pg_replication_slots_active", "Flag indicating if the slot is active"),
        gauge("pg_replication_slots_pg_wal_lsn_diff", "Replication lag in bytes"),
    ],
    sql: concat!(
        "SELECT slot_name::text, database::text, active::int::float8, coalesce(pg_wal_lsn_diff(",
        position!(),
        ", restart_lsn)::float8, 'NaN') FROM pg_replication_slots"
    ),
};

const ROLES: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["rolname"],
    constant: NONE,
    values: &[gauge("pg_roles_connection_limit", "Connection limit set for the role")],
    // Short-lived logins would each have a label of its own.
    sql: "SELECT rolname::text, rolconnlimit::float8 FROM pg_roles WHERE rolname NOT LIKE 'servicedb.%.%'",
};

/// An application chooses its own name, so the groups are bounded: the hundred with most sessions.
const ACTIVITY: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["datname", "state", "usename", "application_name", "backend_type", "wait_event_type", "wait_event"],
    constant: SERVER,
    values: &[
        gauge("pg_stat_activity_count", "number of connections in this state"),
        gauge("pg_stat_activity_max_tx_duration", "max duration in seconds any active transaction has been running"),
    ],
    sql: "SELECT d.datname::text, s.state, a.usename::text, a.application_name, a.backend_type, a.wait_event_type,
                 a.wait_event, coalesce(a.count, 0)::float8, coalesce(a.longest, 0)::float8
          FROM unnest(ARRAY['active', 'idle', 'idle in transaction', 'idle in transaction (aborted)',
                            'fastpath function call', 'disabled']) AS s(state)
          CROSS JOIN pg_database d
          LEFT JOIN (SELECT datname, state,
                            CASE WHEN usename LIKE 'servicedb.%.%' THEN 'servicedb.' || split_part(usename::text, '.', 2)
                                 ELSE usename::text END AS usename,
                            application_name, backend_type, wait_event_type, wait_event,
                            count(*) AS count, max(extract(epoch FROM now() - xact_start)) AS longest
                     FROM pg_stat_activity WHERE state IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7
                     ORDER BY count DESC LIMIT 100) a ON a.state = s.state AND a.datname = d.datname",
};

const ARCHIVER: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: SERVER,
    values: &[
        counter("pg_stat_archiver_archived_count", "Number of WAL files that have been successfully archived"),
        counter("pg_stat_archiver_failed_count", "Number of failed attempts for archiving WAL files"),
        gauge("pg_stat_archiver_last_archive_age", "Time in seconds since last WAL segment was successfully archived"),
    ],
    sql: "SELECT archived_count::float8, failed_count::float8,
                 coalesce(extract(epoch FROM now() - last_archived_time)::float8, 'NaN') FROM pg_stat_archiver",
};

const BGWRITER: Query = Query {
    since: 17,
    opens_files: false,
    labels: &[],
    constant: NONE,
    values: &[
        counter("pg_stat_bgwriter_buffers_clean_total", "Number of buffers written by the background writer"),
        counter(
            "pg_stat_bgwriter_maxwritten_clean_total",
            "Number of times the background writer stopped a cleaning scan because it had written too many buffers",
        ),
        counter("pg_stat_bgwriter_buffers_alloc_total", "Number of buffers allocated"),
        counter("pg_stat_bgwriter_stats_reset_total", "Time at which these statistics were last reset"),
    ],
    sql: "SELECT buffers_clean::float8, maxwritten_clean::float8, buffers_alloc::float8,
                 coalesce(trunc(extract(epoch FROM stats_reset)), 0)::float8 FROM pg_stat_bgwriter",
};

const STAT_DATABASE: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["datid", "datname"],
    constant: NONE,
    values: &[
        gauge(
            "pg_stat_database_numbackends",
            "Number of backends currently connected to this database. This is the only column in this view that returns a value reflecting current state; all other columns return the accumulated values since the last reset.",
        ),
        counter("pg_stat_database_xact_commit", "Number of transactions in this database that have been committed"),
        counter("pg_stat_database_xact_rollback", "Number of transactions in this database that have been rolled back"),
        counter("pg_stat_database_blks_read", "Number of disk blocks read in this database"),
        counter(
            "pg_stat_database_blks_hit",
            "Number of times disk blocks were found already in the buffer cache, so that a read was not necessary (this only includes hits in the PostgreSQL buffer cache, not the operating system's file system cache)",
        ),
        counter("pg_stat_database_tup_returned", "Number of rows returned by queries in this database"),
        counter("pg_stat_database_tup_fetched", "Number of rows fetched by queries in this database"),
        counter("pg_stat_database_tup_inserted", "Number of rows inserted by queries in this database"),
        counter("pg_stat_database_tup_updated", "Number of rows updated by queries in this database"),
        counter("pg_stat_database_tup_deleted", "Number of rows deleted by queries in this database"),
        counter(
            "pg_stat_database_conflicts",
            "Number of queries canceled due to conflicts with recovery in this database. (Conflicts occur only on standby servers; see pg_stat_database_conflicts for details.)",
        ),
        counter(
            "pg_stat_database_temp_files",
            "Number of temporary files created by queries in this database. All temporary files are counted, regardless of why the temporary file was created (e.g., sorting or hashing), and regardless of the log_temp_files setting.",
        ),
        counter(
            "pg_stat_database_temp_bytes",
            "Total amount of data written to temporary files by queries in this database. All temporary files are counted, regardless of why the temporary file was created, and regardless of the log_temp_files setting.",
        ),
        counter("pg_stat_database_deadlocks", "Number of deadlocks detected in this database"),
        counter(
            "pg_stat_database_blk_read_time",
            "Time spent reading data file blocks by backends in this database, in milliseconds",
        ),
        counter(
            "pg_stat_database_blk_write_time",
            "Time spent writing data file blocks by backends in this database, in milliseconds",
        ),
        counter("pg_stat_database_stats_reset", "Time at which these statistics were last reset"),
        counter(
            "pg_stat_database_active_time_seconds_total",
            "Time spent executing SQL statements in this database, in seconds",
        ),
    ],
    sql: "SELECT datid::text, datname::text, numbackends::float8, xact_commit::float8, xact_rollback::float8,
                 blks_read::float8, blks_hit::float8, tup_returned::float8, tup_fetched::float8, tup_inserted::float8,
                 tup_updated::float8, tup_deleted::float8, conflicts::float8, temp_files::float8, temp_bytes::float8,
                 deadlocks::float8, blk_read_time, blk_write_time,
                 coalesce(trunc(extract(epoch FROM stats_reset)), 0)::float8, active_time / 1000
          FROM pg_stat_database WHERE datname IS NOT NULL",
};

const CONFLICTS: Query = Query {
    since: 16,
    opens_files: false,
    labels: &["datid", "datname"],
    constant: SERVER,
    values: &[
        counter(
            "pg_stat_database_conflicts_confl_tablespace",
            "Number of queries in this database that have been canceled due to dropped tablespaces",
        ),
        counter(
            "pg_stat_database_conflicts_confl_lock",
            "Number of queries in this database that have been canceled due to lock timeouts",
        ),
        counter(
            "pg_stat_database_conflicts_confl_snapshot",
            "Number of queries in this database that have been canceled due to old snapshots",
        ),
        counter(
            "pg_stat_database_conflicts_confl_bufferpin",
            "Number of queries in this database that have been canceled due to pinned buffers",
        ),
        counter(
            "pg_stat_database_conflicts_confl_deadlock",
            "Number of queries in this database that have been canceled due to deadlocks",
        ),
        untyped(
            "pg_stat_database_conflicts_confl_active_logicalslot",
            "Unknown metric from pg_stat_database_conflicts",
        ),
    ],
    sql: "SELECT datid::text, datname::text, confl_tablespace::float8, confl_lock::float8, confl_snapshot::float8,
                 confl_bufferpin::float8, confl_deadlock::float8, confl_active_logicalslot::float8
          FROM pg_stat_database_conflicts",
};

const STAT_REPLICATION: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["application_name", "client_addr", "state", "slot_name"],
    constant: SERVER,
    values: &[
        gauge("pg_stat_replication_pg_current_wal_lsn_bytes", "WAL position in bytes"),
        gauge("pg_stat_replication_pg_wal_lsn_diff", "Lag in bytes between master and slave"),
        untyped("pg_stat_replication_reply_time", "Unknown metric from pg_stat_replication"),
    ],
    // The view has no slot_name: the exporter's label has the view's first column, the process id.
    sql: concat!(
        "SELECT application_name, host(client_addr), state, pid::text, coalesce(pg_wal_lsn_diff(",
        position!(),
        ", '0/0')::float8, 'NaN'), coalesce(pg_wal_lsn_diff(",
        position!(),
        ", replay_lsn)::float8, 'NaN'), trunc(extract(epoch FROM reply_time))::float8 FROM pg_stat_replication"
    ),
};

const STATIC: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["version", "short_version"],
    constant: SERVER,
    values: &[untyped("pg_static", "Version string as reported by postgres")],
    sql: "SELECT version(), substring(version() from '^\\w+ (\\d+\\.\\d+)') || '.0', 1::float8",
};

const WAL: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: NONE,
    values: &[
        gauge("pg_wal_segments", "Number of WAL segments"),
        gauge("pg_wal_size_bytes", "Total size of WAL segments"),
    ],
    sql: "SELECT count(*)::float8, sum(size)::float8 FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'",
};

const WRAPAROUND: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["datname"],
    constant: NONE,
    values: &[
        gauge(
            "pg_database_wraparound_age_datfrozenxid_seconds",
            "Age of the oldest transaction ID that has not been frozen.",
        ),
        gauge(
            "pg_database_wraparound_age_datminmxid_seconds",
            "Age of the oldest multi-transaction ID that has been replaced with a transaction ID.",
        ),
    ],
    sql: "SELECT datname::text, age(datfrozenxid)::float8, mxid_age(datminmxid)::float8
          FROM pg_database WHERE datallowconn",
};

const LONG_TRANSACTIONS: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: NONE,
    values: &[
        gauge("pg_long_running_transactions", "Current number of long running transactions"),
        gauge(
            "pg_long_running_transactions_oldest_timestamp_seconds",
            "The current maximum transaction age in seconds",
        ),
    ],
    sql: "SELECT count(*)::float8, coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
          FROM pg_stat_activity
          WHERE state IS DISTINCT FROM 'idle' AND query NOT LIKE 'autovacuum:%' AND xact_start IS NOT NULL
                AND pid <> pg_backend_pid()",
};

const POSTMASTER: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: NONE,
    values: &[gauge("pg_postmaster_start_time_seconds", "Time at which postmaster started")],
    sql: "SELECT extract(epoch FROM pg_postmaster_start_time())::float8",
};

const CHECKPOINTER: Query = Query {
    since: 17,
    opens_files: false,
    labels: &[],
    constant: NONE,
    values: &[
        counter("pg_stat_checkpointer_num_timed_total", "Number of scheduled checkpoints due to timeout"),
        counter("pg_stat_checkpointer_num_requested_total", "Number of requested checkpoints that have been performed"),
        counter(
            "pg_stat_checkpointer_restartpoints_timed_total",
            "Number of scheduled restartpoints due to timeout or after a failed attempt to perform it",
        ),
        counter("pg_stat_checkpointer_restartpoints_req_total", "Number of requested restartpoints"),
        counter("pg_stat_checkpointer_restartpoints_done_total", "Number of restartpoints that have been performed"),
        counter(
            "pg_stat_checkpointer_write_time_total",
            "Total amount of time that has been spent in the portion of processing checkpoints and restartpoints where files are written to disk, in milliseconds",
        ),
        counter(
            "pg_stat_checkpointer_sync_time_total",
            "Total amount of time that has been spent in the portion of processing checkpoints and restartpoints where files are synchronized to disk, in milliseconds",
        ),
        counter(
            "pg_stat_checkpointer_buffers_written_total",
            "Number of buffers written during checkpoints and restartpoints",
        ),
        counter("pg_stat_checkpointer_stats_reset_total", "Time at which these statistics were last reset"),
    ],
    sql: "SELECT num_timed::float8, num_requested::float8, restartpoints_timed::float8, restartpoints_req::float8,
                 restartpoints_done::float8, write_time, sync_time, buffers_written::float8,
                 coalesce(trunc(extract(epoch FROM stats_reset)), 0)::float8 FROM pg_stat_checkpointer",
};

/// The hundred statements that took most time, as the exporter's; without their texts.
const STATEMENTS: Query = Query {
    since: 17,
    opens_files: false,
    labels: &["user", "datname", "queryid"],
    constant: NONE,
    values: &[
        counter("pg_stat_statements_calls_total", "Number of times executed"),
        counter("pg_stat_statements_seconds_total", "Total time spent in the statement, in seconds"),
        counter("pg_stat_statements_rows_total", "Total number of rows retrieved or affected by the statement"),
        counter(
            "pg_stat_statements_block_read_seconds_total",
            "Total time the statement spent reading blocks, in seconds",
        ),
        counter(
            "pg_stat_statements_block_write_seconds_total",
            "Total time the statement spent writing blocks, in seconds",
        ),
    ],
    sql: "SELECT pg_get_userbyid(s.userid)::text, d.datname::text, s.queryid::text, sum(s.calls)::float8,
                 (sum(s.total_exec_time) / 1000)::float8, sum(s.rows)::float8,
                 (sum(s.shared_blk_read_time) / 1000)::float8, (sum(s.shared_blk_write_time) / 1000)::float8
          FROM public.pg_stat_statements(false) s JOIN pg_database d ON d.oid = s.dbid
          GROUP BY 1, 2, 3 ORDER BY 5 DESC LIMIT 100",
};
