//! The maintenance of a tenant's database on a real server: what is due is found and done, what a broken-off rebuild left
//! is removed and nothing else, and a tenant's code runs as nobody above the tenant.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use servicedb::agent::maintenance::plan::{Cause, Found, Size, due};
use servicedb::agent::maintenance::work::{Outcome, Place, perform};
use servicedb::agent::maintenance::{bloat, history, survey};
use servicedb::api::names::PostgresNames;
use servicedb::api::{MaintenanceAction, MaintenanceDone};
use servicedb::contract::maintenance::Tasks;

use crate::hostile::{TRAPS, none_was_a_superuser, promote, server, sprung, tenant};
use crate::server::Session;

async fn monitor(names: &PostgresNames) -> Session {
    let session = server().connect(&names.database, PostgresNames::MONITOR).await;
    session.client.batch_execute("SET search_path = pg_catalog").await.expect("a path");
    session
}

fn place(names: &PostgresNames) -> Place<'_> {
    Place { socket: server().socket(), names, reindex_percent: 50, room: None }
}

async fn done(names: &PostgresNames, found: &Found, seconds: i64) -> MaintenanceDone {
    let until = Timestamp::now() + SignedDuration::from_secs(seconds);
    match perform(place(names), found, until, std::future::pending()).await {
        Outcome::Ended(entry) => entry.done,
        Outcome::NotDue => panic!("{found:?} is not due"),
    }
}

fn found(object: &str, cause: Cause) -> Found {
    Found { object: object.to_owned(), cause }
}

fn bloat() -> Cause {
    Cause::Bloat(Size { bytes: 1 << 20, needed: 1 << 10, rows: 1.0, measured: false })
}

async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(session: &Session, sql: &str) -> T {
    session.client.query_one(sql, &[]).await.expect(sql).get(0)
}

/// Waits until the result of a query is true.
async fn comes_true(session: &Session, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !value::<bool>(session, sql).await {
        assert!(Instant::now() < deadline, "it does not come true: {sql}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether the rebuild of the index `i` has made its copy.
const HAS_COPY: &str = "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'i_ccnew')";

const BLOATED: &str = "
    CREATE TABLE visits (id bigint PRIMARY KEY, page text) WITH (autovacuum_enabled = false);
    INSERT INTO visits SELECT n, 'page number ' || n FROM generate_series(1, 60000) n;
    CREATE INDEX \"By Page\" ON visits (page);
    CREATE INDEX of_a_hundred ON visits ((id % 100));
    DELETE FROM visits WHERE id % 10 <> 0;
    ANALYZE visits";

#[tokio::test]
async fn what_is_due_is_found_and_done_and_then_is_not_due() {
    let (names, owner) = tenant("tended_db", &[]).await;
    for statement in BLOATED.split(';') {
        owner.client.batch_execute(statement).await.expect(statement);
    }
    drop(owner);
    let monitor = monitor(&names).await;
    let superuser = server().connect("postgres", "postgres").await;
    let mut kept = history::read(&superuser.client, &names.database).await.expect("a history");
    let look = async || {
        let found = survey::read(&monitor.client, 20).await.expect("a survey");
        due(&found, &Tasks::default(), &HashMap::new())
    };
    // The statistics of a session are there some moments after its end.
    let is_vacuum = |due: &Found| due.action() == MaintenanceAction::Vacuum && due.object == "public.visits";
    let mut all = look().await;
    for _ in 0..100 {
        if all.iter().any(is_vacuum) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        all = look().await;
    }
    assert!(all.iter().any(is_vacuum), "{all:?}");
    let rebuilt = found("public.\"By Page\"", bloat());
    assert!(
        all.iter().any(|due| due.object == rebuilt.object && due.action() == MaintenanceAction::Reindex),
        "{all:?}"
    );
    for due in &all {
        let entry =
            match perform(place(&names), due, Timestamp::now() + SignedDuration::from_mins(1), std::future::pending())
                .await
            {
                Outcome::Ended(entry) => entry,
                Outcome::NotDue => panic!("{due:?}"),
            };
        assert_eq!(entry.done.failure, None, "{due:?}");
        if due.object == rebuilt.object {
            assert!(entry.done.freed_bytes.is_some_and(|freed| freed > 1 << 20), "{:?}", entry.done);
            assert!(entry.bytes_after.is_some_and(|bytes| bytes < 1 << 20) && entry.rows_after == Some(6000.0));
        }
        kept.add(&superuser.client, &names.database, entry).await.expect("the history");
    }
    let again = look().await;
    assert!(!again.iter().any(|due| due.action() == MaintenanceAction::Reindex), "{again:?}");
    let read = history::read(&superuser.client, &names.database).await.expect("a history");
    assert_eq!(read.done, kept.done);
    assert!(read.rebuilt.contains_key(&rebuilt.object), "{:?}", read.rebuilt);
    assert!(history::read(&superuser.client, "another_db").await.expect("a history").done.is_empty());
}

#[tokio::test]
async fn the_bloat_of_tables_is_measured_where_the_extension_is_and_kept() {
    let (names, owner) = tenant("swollen_db", &[]).await;
    let made = "CREATE TABLE swollen (id int, body text) WITH (autovacuum_enabled = false);
                INSERT INTO swollen SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n;
                DELETE FROM swollen WHERE id % 10 <> 0;
                CREATE TABLE small (id int)";
    owner.client.batch_execute(made).await.expect("tables");
    for statement in ["VACUUM swollen", "DELETE FROM swollen WHERE id % 100 = 0", "ANALYZE swollen"] {
        owner.client.batch_execute(statement).await.expect(statement);
    }
    let monitor = monitor(&names).await;
    let until = Timestamp::now() + SignedDuration::from_mins(1);
    assert_eq!(bloat::measure(&monitor.client, until).await.expect("no extension"), None);
    assert_eq!(promote(&names, &["pgstattuple"]).await, [""; 0]);
    let measured = bloat::measure(&monitor.client, until).await.expect("a measurement").expect("the extension");
    let [table] = measured.tables.as_slice() else { panic!("{measured:?}") };
    assert_eq!(table.table, "public.swollen");
    assert!(table.bytes > 10 << 20 && table.free > 8 << 20, "{table:?}");
    assert!((100_000..200_000).contains(&table.dead), "200 rows of 500 bytes: {table:?}");
    // A table that somebody locks is left out, and does not hold the others up.
    owner.client.batch_execute("BEGIN; LOCK TABLE swollen").await.expect("a lock");
    monitor.client.batch_execute("SET lock_timeout = '500ms'").await.expect("a setting");
    assert_eq!(bloat::measure(&monitor.client, until).await.expect("a measurement").expect("it").tables, []);
    owner.client.batch_execute("ROLLBACK").await.expect("the end");
    assert_eq!(bloat::measure(&monitor.client, Timestamp::now()).await.expect("no time").expect("it").tables, []);

    let superuser = server().connect("postgres", "postgres").await;
    assert_eq!(bloat::read(&superuser.client, &names.database).await.expect("a table"), None);
    for _ in 0..2 {
        bloat::keep(&superuser.client, &names.database, &measured).await.expect("kept");
    }
    assert_eq!(bloat::read(&superuser.client, &names.database).await.expect("a table"), Some(measured));
}

#[tokio::test]
async fn a_rebuild_that_is_broken_off_leaves_a_copy_that_is_removed_and_no_other_index_is() {
    let (names, owner) = tenant("broken_off_db", &[]).await;
    let made = "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 100); CREATE INDEX i ON t (id);
                CREATE TABLE twice (id int); INSERT INTO twice VALUES (1), (1)";
    owner.client.batch_execute(made).await.expect("tables");
    // Invalid, of a name of its author's.
    owner
        .client
        .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY mine_ccnew ON twice (id)")
        .await
        .expect_err("a duplicate");
    let superuser = server().connect(&names.database, "postgres").await;
    let invalid = "SELECT coalesce(string_agg(c.relname, ',' ORDER BY c.relname), '') FROM pg_index x
                   JOIN pg_class c ON c.oid = x.indexrelid WHERE NOT x.indisvalid";

    owner.client.batch_execute("BEGIN; DELETE FROM t WHERE id = 1").await.expect("a transaction");
    let broken = done(&names, &found("public.i", bloat()), 15).await;
    let failure = broken.failure.expect("a failure");
    assert!(failure.contains("cancelled") && failure.contains("is over"), "{failure}");
    assert_eq!(value::<String>(&superuser, invalid).await, "i_ccnew,mine_ccnew", "the transaction still holds it");
    owner.client.batch_execute("ROLLBACK").await.expect("its end");

    let monitor = monitor(&names).await;
    // While a session works on the table it is no leftover.
    superuser.client.batch_execute("BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE").await.expect("a lock");
    assert_eq!(survey::leftovers(&monitor.client).await.expect("leftovers"), []);
    superuser.client.batch_execute("ROLLBACK").await.expect("its end");
    let leftovers = survey::leftovers(&monitor.client).await.expect("leftovers");
    assert_eq!(leftovers, [found("public.i_ccnew", Cause::LeftoverOf("public.i".to_owned()))]);
    assert_eq!(done(&names, &leftovers[0], 60).await.failure, None);
    assert_eq!(value::<String>(&superuser, invalid).await, "mine_ccnew");

    // One that was withdrawn ends at once, and its copy is removed by itself.
    let other = server().connect(&names.database, "postgres").await;
    other.client.batch_execute("BEGIN; DELETE FROM t WHERE id = 2").await.expect("a transaction");
    let (withdraw, withdrawn) = tokio::sync::oneshot::channel::<()>();
    let rebuild = found("public.i", bloat());
    let until = Timestamp::now() + SignedDuration::from_mins(2);
    let (outcome, ()) = tokio::join!(perform(place(&names), &rebuild, until, async { drop(withdrawn.await) }), async {
        comes_true(&superuser, HAS_COPY).await;
        withdraw.send(()).expect("it waits");
        let has_ended = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                                            AND state = 'active' AND query LIKE 'REINDEX%')";
        comes_true(&superuser, has_ended).await;
        other.client.batch_execute("ROLLBACK").await.expect("its end");
    });
    let Outcome::Ended(entry) = outcome else { panic!("it was due") };
    assert!(entry.done.failure.is_some_and(|why| why.contains("other work")));
    assert_eq!(value::<String>(&superuser, invalid).await, "mine_ccnew");
}

#[tokio::test]
async fn a_tenants_code_runs_as_the_tenant_in_all_of_it() {
    let (names, owner) = tenant("worked_db", &["hstore"]).await;
    owner.client.batch_execute(TRAPS).await.expect("the traps");
    let settings = format!("ALTER DATABASE {} SET role = '{}'", names.database, names.owner());
    owner.client.batch_execute(&settings).await.expect("a setting");
    let before = sprung(&names).len();
    let monitor = monitor(&names).await;
    survey::read(&monitor.client, 20).await.expect("a survey");
    assert_eq!(sprung(&names).split_off(before), [""; 0], "a survey runs no code of a tenant");

    let old = Cause::Age { of: "transaction ids", age: 1, limit: 1 };
    for due in [
        found("servicedb.migrations", old),
        found("servicedb.migrations", Cause::Unvacuumed { dead: 1, inserted: 0, live: 1 }),
        found("servicedb.migrations", Cause::Unanalyzed { has_statistics: true, changed: 1 }),
        found("servicedb.trap_expression", bloat()),
        found("servicedb.trap_predicate", bloat()),
    ] {
        assert_eq!(done(&names, &due, 60).await.failure, None, "{due:?}");
    }
    let sprung = sprung(&names).split_off(before);
    none_was_a_superuser(&sprung);
    assert!(sprung.iter().any(|line| line.contains("\"index expression\"")), "{sprung:?}");
    let mark = format!("ran as {} in a session of {}", names.owner(), PostgresNames::MAINTAINER);
    for line in &sprung {
        assert!(line.contains(&mark), "a tenant's code ran as another: {line}");
    }
    // The login is no superuser, and may not become one.
    let session = server().connect(&names.database, PostgresNames::MAINTAINER).await;
    for refused in
        ["RESET ROLE; SET ROLE postgres", "RESET ROLE; SELECT * FROM pg_authid", "RESET ROLE; CREATE ROLE more"]
    {
        session.client.batch_execute(refused).await.expect_err(refused);
    }
}

#[tokio::test]
async fn a_rebuild_that_holds_up_a_change_of_the_table_gives_way() {
    let (names, owner) = tenant("held_up_db", &[]).await;
    let made = "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 100); CREATE INDEX i ON t (id)";
    owner.client.batch_execute(made).await.expect("a table");
    // The rebuild waits for this transaction, with its lock on the table.
    owner.client.batch_execute("BEGIN; DELETE FROM t WHERE id = 1").await.expect("a transaction");
    let superuser = server().connect(&names.database, "postgres").await;
    let change = async {
        comes_true(&superuser, HAS_COPY).await;
        let session = crate::hostile::owner(&names).await;
        session.client.batch_execute("SET lock_timeout = '90s'; ALTER TABLE t ADD COLUMN b int").await
    };
    let rebuild = async {
        let started = Instant::now();
        let done = done(&names, &found("public.i", bloat()), 100).await;
        let took = started.elapsed();
        owner.client.batch_execute("ROLLBACK").await.expect("its end");
        (done.failure.expect("a failure"), took)
    };
    let ((failure, took), changed) = tokio::join!(rebuild, change);
    assert!(failure.contains("another session waits for a lock"), "{failure}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    changed.expect("the change");
}
