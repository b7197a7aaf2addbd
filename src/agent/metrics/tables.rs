//! What the server tells of the tenant's tables, with the names, labels and types of
//! `prometheus-postgres-exporter`. The session is in the tenant's database and reads catalogs and statistics only.
//!
//! The size of a table waits for its lock. Tables whose lock is held exclusively have no size in that scrape:
//! a long `ALTER TABLE` or `VACUUM FULL` would keep every metric from being read.

use super::query::{Collector, Query, counter, gauge};

/// The collectors.
pub const COLLECTORS: &[Collector] = &[
    Collector { name: "stat_user_tables", queries: &[STATISTICS, SIZES, COUNT] },
    Collector { name: "statio_user_tables", queries: &[BLOCKS] },
    Collector { name: "stat_progress_vacuum", queries: &[VACUUM, VACUUM_PHASE] },
];

/// The tables that have metrics: the largest, as `VACUUM` and `ANALYZE` last saw them. A tenant may create any number.
macro_rules! chosen {
    () => {
        "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                AND n.nspname !~ '^pg_toast' ORDER BY c.relpages DESC, c.oid LIMIT 300)"
    };
}

const TABLE: &[&str] = &["datname", "schemaname", "relname"];

/// The size of the database, and the position of WAL.
pub const SIZE: &str =
    "SELECT pg_database_size(current_database()), (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_lsn() END - '0/0')::int8";

/// The largest tables with their indexes, by the sizes that the last `VACUUM` or `ANALYZE` saw; none is locked.
pub const LARGEST: &str = "\
    SELECT \"left\"(n.nspname || '.' || c.relname, 127),
           ((c.relpages + coalesce(t.relpages, 0) + coalesce(sum(i.relpages), 0))
            * current_setting('block_size')::int8)::int8
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
         LEFT JOIN pg_index x ON x.indrelid = c.oid LEFT JOIN pg_class i ON i.oid = x.indexrelid
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND n.nspname !~ '^pg_toast'
    GROUP BY 1, c.relpages, t.relpages ORDER BY 2 DESC LIMIT 10";

const STATISTICS: Query = Query {
    since: 0,
    opens_files: false,
    labels: TABLE,
    constant: &[],
    values: &[
        counter("pg_stat_user_tables_seq_scan", "Number of sequential scans initiated on this table"),
        counter("pg_stat_user_tables_seq_tup_read", "Number of live rows fetched by sequential scans"),
        counter("pg_stat_user_tables_idx_scan", "Number of index scans initiated on this table"),
        counter("pg_stat_user_tables_idx_tup_fetch", "Number of live rows fetched by index scans"),
        counter("pg_stat_user_tables_n_tup_ins", "Number of rows inserted"),
        counter("pg_stat_user_tables_n_tup_upd", "Number of rows updated"),
        counter("pg_stat_user_tables_n_tup_del", "Number of rows deleted"),
        counter(
            "pg_stat_user_tables_n_tup_hot_upd",
            "Number of rows HOT updated (i.e., with no separate index update required)",
        ),
        gauge("pg_stat_user_tables_n_live_tup", "Estimated number of live rows"),
        gauge("pg_stat_user_tables_n_dead_tup", "Estimated number of dead rows"),
        gauge("pg_stat_user_tables_n_mod_since_analyze", "Estimated number of rows changed since last analyze"),
        gauge(
            "pg_stat_user_tables_last_vacuum",
            "Last time at which this table was manually vacuumed (not counting VACUUM FULL)",
        ),
        gauge(
            "pg_stat_user_tables_last_autovacuum",
            "Last time at which this table was vacuumed by the autovacuum daemon",
        ),
        gauge("pg_stat_user_tables_last_analyze", "Last time at which this table was manually analyzed"),
        gauge(
            "pg_stat_user_tables_last_autoanalyze",
            "Last time at which this table was analyzed by the autovacuum daemon",
        ),
        counter(
            "pg_stat_user_tables_vacuum_count",
            "Number of times this table has been manually vacuumed (not counting VACUUM FULL)",
        ),
        counter(
            "pg_stat_user_tables_autovacuum_count",
            "Number of times this table has been vacuumed by the autovacuum daemon",
        ),
        counter("pg_stat_user_tables_analyze_count", "Number of times this table has been manually analyzed"),
        counter(
            "pg_stat_user_tables_autoanalyze_count",
            "Number of times this table has been analyzed by the autovacuum daemon",
        ),
    ],
    sql: concat!(
        "SELECT current_database()::text, schemaname::text, relname::text, seq_scan::float8, seq_tup_read::float8,
                coalesce(idx_scan, 0)::float8, coalesce(idx_tup_fetch, 0)::float8, n_tup_ins::float8,
                n_tup_upd::float8, n_tup_del::float8, n_tup_hot_upd::float8, n_live_tup::float8, n_dead_tup::float8,
                n_mod_since_analyze::float8,
                coalesce(trunc(extract(epoch FROM last_vacuum)), 0)::float8,
                coalesce(trunc(extract(epoch FROM last_autovacuum)), 0)::float8,
                coalesce(trunc(extract(epoch FROM last_analyze)), 0)::float8,
                coalesce(trunc(extract(epoch FROM last_autoanalyze)), 0)::float8,
                vacuum_count::float8, autovacuum_count::float8, analyze_count::float8, autoanalyze_count::float8
         FROM pg_stat_all_tables WHERE relid IN ",
        chosen!()
    ),
};

const SIZES: Query = Query {
    since: 0,
    opens_files: true,
    labels: TABLE,
    constant: &[],
    values: &[
        gauge("pg_stat_user_tables_index_size_bytes", "Total disk space used by this index, in bytes"),
        gauge("pg_stat_user_tables_table_size_bytes", "Total disk space used by this table, in bytes"),
    ],
    sql: concat!(
        "WITH locked AS MATERIALIZED (
             SELECT coalesce(i.indrelid, l.relation) AS relid FROM pg_locks l LEFT JOIN pg_index i ON i.indexrelid = l.relation
             WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())),
         measured AS MATERIALIZED (
             SELECT c.oid, c.relname, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid IN ",
        chosen!(),
        "          AND NOT EXISTS (SELECT FROM locked WHERE locked.relid = c.oid))
         SELECT current_database()::text, nspname::text, relname::text, pg_indexes_size(oid)::float8,
                pg_table_size(oid)::float8 FROM measured"
    ),
};

const COUNT: Query = Query {
    since: 0,
    opens_files: false,
    labels: &[],
    constant: &[],
    values: &[gauge(
        "servicedb_tables",
        "Number of tables in the database; only the largest 300 have metrics of their own",
    )],
    sql: "SELECT count(*)::float8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                AND n.nspname !~ '^pg_toast'",
};

const BLOCKS: Query = Query {
    since: 0,
    opens_files: false,
    labels: TABLE,
    constant: &[],
    values: &[
        counter("pg_statio_user_tables_heap_blocks_read", "Number of disk blocks read from this table"),
        counter("pg_statio_user_tables_heap_blocks_hit", "Number of buffer hits in this table"),
        counter("pg_statio_user_tables_idx_blocks_read", "Number of disk blocks read from all indexes on this table"),
        counter("pg_statio_user_tables_idx_blocks_hit", "Number of buffer hits in all indexes on this table"),
        counter(
            "pg_statio_user_tables_toast_blocks_read",
            "Number of disk blocks read from this table's TOAST table (if any)",
        ),
        counter(
            "pg_statio_user_tables_toast_blocks_hit",
            "Number of buffer hits in this table's TOAST table (if any)",
        ),
        counter(
            "pg_statio_user_tables_tidx_blocks_read",
            "Number of disk blocks read from this table's TOAST table indexes (if any)",
        ),
        counter(
            "pg_statio_user_tables_tidx_blocks_hit",
            "Number of buffer hits in this table's TOAST table indexes (if any)",
        ),
    ],
    sql: concat!(
        "SELECT current_database()::text, schemaname::text, relname::text, coalesce(heap_blks_read, 0)::float8,
                coalesce(heap_blks_hit, 0)::float8, coalesce(idx_blks_read, 0)::float8, coalesce(idx_blks_hit, 0)::float8,
                coalesce(toast_blks_read, 0)::float8, coalesce(toast_blks_hit, 0)::float8,
                coalesce(tidx_blks_read, 0)::float8, coalesce(tidx_blks_hit, 0)::float8
         FROM pg_statio_all_tables WHERE relid IN ",
        chosen!()
    ),
};

/// The name of a table of this database as `regclass` prints it, and the number of one of another.
const VACUUM: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["datname", "relname"],
    constant: &[],
    values: &[
        gauge("pg_stat_progress_vacuum_heap_blks", "Total number of heap blocks in the table being vacuumed."),
        gauge("pg_stat_progress_vacuum_heap_blks_scanned", "Number of heap blocks scanned so far."),
        gauge("pg_stat_progress_vacuum_heap_blks_vacuumed", "Number of heap blocks vacuumed so far."),
        gauge("pg_stat_progress_vacuum_index_vacuums", "Number of completed index vacuum cycles."),
        gauge(
            "pg_stat_progress_vacuum_max_dead_tuples",
            "Maximum number of dead tuples that can be stored before cleanup is performed.",
        ),
        gauge("pg_stat_progress_vacuum_num_dead_tuples", "Current number of dead tuples found so far."),
    ],
    sql:
        "SELECT d.datname::text, s.relid::regclass::text, coalesce(s.param2, 0)::float8, coalesce(s.param3, 0)::float8,
                 coalesce(s.param4, 0)::float8, coalesce(s.param5, 0)::float8, coalesce(s.param6, 0)::float8,
                 coalesce(s.param7, 0)::float8
          FROM pg_stat_get_progress_info('VACUUM') s LEFT JOIN pg_database d ON d.oid = s.datid",
};

const VACUUM_PHASE: Query = Query {
    since: 0,
    opens_files: false,
    labels: &["datname", "relname", "phase"],
    constant: &[],
    values: &[gauge(
        "pg_stat_progress_vacuum_phase",
        "Current vacuum phase (1 = active, 0 = inactive). Label 'phase' is human-readable.",
    )],
    sql: "SELECT d.datname::text, s.relid::regclass::text, p.phase, (p.number - 1 IS NOT DISTINCT FROM s.param1)::int::float8
          FROM pg_stat_get_progress_info('VACUUM') s LEFT JOIN pg_database d ON d.oid = s.datid
          CROSS JOIN unnest(ARRAY['initializing', 'scanning heap', 'vacuuming indexes', 'vacuuming heap',
                 'cleaning up indexes', 'truncating heap', 'performing final cleanup']) WITH ORDINALITY AS p(phase, number)",
};
