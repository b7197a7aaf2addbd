//! Maintenance windows: what is done in them, that it ends with them, requests, and rollouts that wait for one.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp, tz::TimeZone};
use kube::ResourceExt;
use serde_json::{Value, json};
use servicedb::api::{MaintenanceAction, MaintenanceDone, MaintenanceStatus, RequestState, ServiceDatabase};

use crate::harness::{
    Operator, READY, SOON, Sandbox, alone, column, database, plugin, run, shared, then_restore, until,
};
use crate::metrics_tls;

/// A table whose index and rows are mostly dead, and that autovacuum leaves alone.
const BLOATED: &str = "\
    CREATE TABLE visits (id bigint PRIMARY KEY, page text) WITH (autovacuum_enabled = false); \
    INSERT INTO visits SELECT n, 'page number ' || n FROM generate_series(1, ROWS) n; \
    CREATE INDEX by_page ON visits (page); \
    DELETE FROM visits WHERE id % 10 <> 0";

/// A window that opened a minute ago at most, and stays open for this long.
fn window(minutes: i64) -> Value {
    let opened = Timestamp::now().to_zoned(TimeZone::UTC);
    let schedule = format!("{} {} * * *", opened.minute(), opened.hour());
    json!({"schedule": schedule, "durationMinutes": minutes})
}

/// A window that opens in hours.
fn later() -> Value {
    let opens = (Timestamp::now() + SignedDuration::from_hours(5)).to_zoned(TimeZone::UTC);
    json!({"schedule": format!("{} {} * * *", opens.minute(), opens.hour()), "durationMinutes": 30})
}

async fn set(sandbox: &Sandbox, spec: Value) {
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": spec})).await;
}

fn maintenance(database: &ServiceDatabase) -> MaintenanceStatus {
    database.status.as_ref().and_then(|status| status.maintenance.as_deref().cloned()).unwrap_or_default()
}

async fn psql(sandbox: &Sandbox, sql: &str) -> String {
    let primary = sandbox.primary("shop").await;
    let output = sandbox.exec(&primary, &format!("psql -XAtd shop_db -c \"{sql}\"")).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn with_bloat(sandbox: &Sandbox, rows: u32) {
    let connection = sandbox.connect("shop").await;
    for statement in BLOATED.replace("ROWS", &rows.to_string()).split("; ") {
        run(&connection, statement).await.expect(statement);
    }
    run(&connection, "ANALYZE visits").await.expect("statistics");
    drop(connection);
    until("the server has counted the dead rows", SOON, || async {
        let counted = "SELECT n_dead_tup > 1000 FROM pg_stat_user_tables WHERE relname = 'visits'";
        if psql(sandbox, counted).await == "t" { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}

fn done<'a>(status: &'a MaintenanceStatus, action: MaintenanceAction, object: &str) -> Option<&'a MaintenanceDone> {
    status.done.iter().find(|done| done.action == action && done.object == object)
}

#[test]
fn a_window_vacuums_and_rebuilds_what_is_due_and_nothing_is_done_before() {
    shared("maintained", async |sandbox| {
        sandbox.create(database("shop", json!({"maintenance": {"windows": [later()]}}))).await;
        sandbox.ready("shop", READY).await;
        with_bloat(&sandbox, 200_000).await;
        let before: i64 = psql(&sandbox, "SELECT pg_relation_size('by_page')").await.parse().expect("a size");
        // A change of what is done reads what is due at once.
        set(&sandbox, json!({"maintenance": {"reindex": {"bloatPercent": 60}}})).await;
        let known = sandbox
            .wait("what is due is in status", "shop", READY, |database| {
                maintenance(database).due.iter().any(|due| due.object == "public.visits")
            })
            .await;
        let status = maintenance(&known);
        assert!(status.done.is_empty() && status.next_window.is_some() && status.open_until.is_none(), "{status:?}");

        set(&sandbox, json!({"maintenance": {"windows": [window(10)]}})).await;
        let ended = sandbox
            .wait("the window's work is done", "shop", READY, |database| {
                maintenance(database).last_run.is_some_and(|run| run.state != RequestState::Running)
            })
            .await;
        let status = maintenance(&ended);
        let run = status.last_run.clone().expect("a run");
        assert_eq!(run.state, RequestState::Done, "{status:?}");
        let vacuumed = done(&status, MaintenanceAction::Vacuum, "public.visits").expect("a VACUUM");
        assert_eq!(vacuumed.failure, None);
        let rebuilt = done(&status, MaintenanceAction::Reindex, "public.by_page").expect("a rebuild");
        assert!(rebuilt.freed_bytes.is_some_and(|freed| freed > before / 2), "{rebuilt:?}");
        let after: i64 = psql(&sandbox, "SELECT pg_relation_size('by_page')").await.parse().expect("a size");
        assert!(after < before / 4, "{before}, then {after}");
        let counted = psql(&sandbox, "SELECT count(*) FROM visits").await;
        assert_eq!(counted, "20000");
        // By a login that is no superuser.
        let role = "SELECT rolsuper FROM pg_roles WHERE rolname = 'servicedb_maintainer'";
        assert_eq!(psql(&sandbox, role).await, "f");

        let shown = plugin(&sandbox, &["maintenance", "shop"]).await;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("public.by_page") && shown.contains("Open:"), "{shown}");
    });
}

#[test]
fn a_request_is_answered_and_what_a_broken_off_rebuild_left_is_removed() {
    shared("on-request", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        with_bloat(&sandbox, 50_000).await;
        // As the end of a window leaves it: the server ends the statement at its limit. By then the copy is in the
        // catalog, also on a slow machine.
        let leave = "SET statement_timeout = '15s'; SET client_min_messages = error";
        let connection = sandbox.connect("shop").await;
        run(&connection, "BEGIN").await.expect("a transaction");
        run(&connection, "DELETE FROM visits WHERE id = 10").await.expect("a lock that a rebuild waits for");
        let rebuild = format!("{leave}; REINDEX INDEX CONCURRENTLY by_page").replace("; ", "\" -c \"");
        let primary = sandbox.primary("shop").await;
        let output = sandbox.exec(&primary, &format!("psql -XAtd shop_db -c \"{rebuild}\"")).await;
        assert!(!output.status.success(), "the rebuild was not broken off");
        run(&connection, "ROLLBACK").await.expect("its end");
        let invalid = "SELECT string_agg(indexrelid::regclass::text, ',') FROM pg_index WHERE NOT indisvalid";
        assert_eq!(psql(&sandbox, invalid).await, "by_page_ccnew");

        let asked = plugin(&sandbox, &["maintenance", "shop", "--now", "--timeout", "180"]).await;
        let said = String::from_utf8_lossy(&[asked.stdout, asked.stderr].concat()).into_owned();
        assert!(asked.status.success(), "{said}");
        assert_eq!(psql(&sandbox, invalid).await, "");
        let status = maintenance(&sandbox.get("shop").await);
        assert!(done(&status, MaintenanceAction::RemoveLeftover, "public.by_page_ccnew").is_some(), "{status:?}");
        assert!(done(&status, MaintenanceAction::Reindex, "public.by_page").is_some(), "{status:?}");
        assert_eq!(status.request.map(|request| request.state), Some(RequestState::Done));
    });
}

#[test]
fn a_window_that_ends_breaks_its_work_off_and_the_next_leaves_no_invalid_index() {
    shared("broken-off", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        with_bloat(&sandbox, 200_000).await;
        window_breaks_a_vacuum_off(&sandbox).await;
        psql(&sandbox, "VACUUM visits").await;
        // A window that opened in the same minute has been worked off already.
        let second = Timestamp::now().as_second() % 60;
        tokio::time::sleep(Duration::from_secs(u64::try_from(61 - second).expect("seconds"))).await;
        let mut broken_off = Err(String::new());
        for minutes in 5..8 {
            broken_off = window_breaks_it_off(&sandbox, minutes).await;
            if broken_off.is_ok() {
                break;
            }
        }
        assert_eq!(broken_off, Ok(()));
        set(&sandbox, json!({"maintenance": {"windows": [window(9)]}})).await;
        sandbox
            .wait("the next window is worked off", "shop", READY, |database| {
                let status = maintenance(database);
                done(&status, MaintenanceAction::Reindex, "public.by_page").is_some_and(|done| done.failure.is_none())
                    && status.last_run.is_some_and(|run| run.state != RequestState::Running)
            })
            .await;
        let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
        assert_eq!(psql(&sandbox, invalid).await, "0");
    });
}

/// Ends a window in the middle of a `VACUUM`, which waits for a page that a client's cursor holds; the next one does it.
async fn window_breaks_a_vacuum_off(sandbox: &Sandbox) {
    let last =
        |database: &ServiceDatabase| done(&maintenance(database), MaintenanceAction::Vacuum, "public.visits").cloned();
    let connection = sandbox.connect("shop").await;
    // A scan of the index alone holds the page at which it stands; `VACUUM` needs each page of an index for itself.
    for statement in [
        "SET enable_seqscan = off",
        "SET enable_bitmapscan = off",
        "BEGIN",
        "DECLARE here CURSOR FOR SELECT id FROM visits WHERE id > 0 ORDER BY id",
        "FETCH 1 FROM here",
    ] {
        run(&connection, statement).await.expect(statement);
    }
    let only = json!({"reindex": {"enabled": false}, "analyze": false, "freeze": false, "windows": [window(10)]});
    set(sandbox, json!({"maintenance": only})).await;
    until("VACUUM waits for the page", READY, || async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM %' AND wait_event = 'BufferPin'";
        let others = "SELECT coalesce(string_agg(concat_ws(' ', state, wait_event, query), '; '), '') \
                      FROM pg_stat_activity WHERE usename = 'servicedb_maintainer'";
        if psql(sandbox, waits).await == "1" { Ok(()) } else { Err(psql(sandbox, others).await) }
    })
    .await;
    // The window is over.
    set(sandbox, json!({"maintenance": {"windows": []}})).await;
    let ended = sandbox.wait("VACUUM is broken off", "shop", SOON, |database| last(database).is_some()).await;
    let failure = last(&ended).and_then(|done| done.failure).expect("a VACUUM that has failed");
    assert!(failure.contains("cancelled"), "{failure}");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM %' AND state = 'active'";
    assert_eq!(psql(sandbox, left).await, "0", "it goes on after its window");
    run(&connection, "ROLLBACK").await.expect("its end");
    drop(connection);
    set(sandbox, json!({"maintenance": {"windows": [window(11)]}})).await;
    sandbox
        .wait("the next window vacuums the table", "shop", READY, |database| {
            last(database).is_some_and(|done| done.failure.is_none())
        })
        .await;
    // The reindexing that follows begins from here.
    set(sandbox, json!({"maintenance": {"windows": [], "reindex": {"enabled": true}}})).await;
}

/// Ends a window of some minutes in the middle of a rebuild, which is then broken off.
///
/// # Errors
/// Why the rebuild ended before the window: on a slow machine the transaction that it waits for becomes too old for it,
/// or it waits for too long.
async fn window_breaks_it_off(sandbox: &Sandbox, minutes: i64) -> Result<(), String> {
    let last = |database: &ServiceDatabase| {
        done(&maintenance(database), MaintenanceAction::Reindex, "public.by_page").cloned()
    };
    let before = last(&sandbox.get("shop").await);
    let failure = |database: &ServiceDatabase| last(database).filter(|last| Some(last) != before.as_ref())?.failure;
    // A client's transaction, younger than a minute, for which a rebuild waits.
    let connection = sandbox.connect("shop").await;
    run(&connection, "BEGIN").await.expect("a transaction");
    run(&connection, "DELETE FROM visits WHERE id = 10").await.expect("a lock");
    let only = json!({"vacuum": false, "analyze": false, "freeze": false, "windows": [window(minutes)]});
    set(sandbox, json!({"maintenance": only})).await;
    sandbox
        .wait("the rebuild is in progress", "shop", READY, |database| {
            failure(database).is_some()
                || maintenance(database).last_run.is_some_and(|run| {
                    run.state == RequestState::Running && run.message.is_some_and(|text| text.contains("Reindex"))
                })
        })
        .await;
    until("the copy is there", SOON, || async {
        let found = psql(sandbox, "SELECT count(*) FROM pg_index WHERE NOT indisvalid").await;
        let has_ended = failure(&sandbox.get("shop").await).is_some();
        if found == "0" && !has_ended { Err("no copy".to_owned()) } else { Ok(()) }
    })
    .await;
    // The window is over.
    set(sandbox, json!({"maintenance": {"windows": []}})).await;
    let ended = sandbox.wait("the rebuild is broken off", "shop", SOON, |database| failure(database).is_some()).await;
    run(&connection, "ROLLBACK").await.expect("its end");
    let why = failure(&ended).expect("the failure that was waited for");
    if why.contains("cancelled") {
        return Ok(());
    }
    assert!(["open for", "lock timeout"].iter().any(|cause| why.contains(cause)), "{why}");
    Err(why)
}

#[test]
fn a_rollout_waits_for_its_window_and_brings_metrics_over_tls() {
    alone("windowed", async |sandbox| {
        let spec = json!({"instances": 2, "updatePolicy": "Window", "maintenance": {"windows": [later()]}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let uids = async || -> Vec<_> { sandbox.pods("shop").await.iter().map(ResourceExt::uid).collect() };
        let before = uids().await;
        let operator = Operator::of(sandbox.cluster);
        // The metrics move to a port of their own.
        let setting = "SERVICEDB_METRICS_TLS";
        let work = async {
            operator.set(setting, "true").await;
            let told = sandbox.condition("shop", "RolloutPending", "True", "WaitingForWindow", READY).await;
            assert!(told.message.contains("next window at"), "{}", told.message);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(uids().await, before, "a pod was replaced outside of the window");

            set(&sandbox, json!({"maintenance": {"windows": [window(10)]}})).await;
            let has_port = |pod: &Pod| {
                let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
                ports.any(|port| port.name.as_deref() == Some("metrics-tls"))
            };
            until("the pods are those of this operator", READY, || async {
                let all = sandbox.pods("shop").await.iter().filter(|pod| has_port(pod)).count();
                if all == 2 { Ok(()) } else { Err(format!("{all} of 2")) }
            })
            .await;
            sandbox.ready("shop", READY).await;
            sandbox.condition("shop", "RolloutPending", "False", "UpToDate", SOON).await;
            sandbox
                .wait("the rollout is finished", "shop", SOON, |database| maintenance(database).rollout.is_none())
                .await;
            let answer = column(&sandbox.connect("shop").await, "SELECT '1'").await.expect("a query");
            assert_eq!(answer, ["1"]);
            metrics_tls::is_scraped(&sandbox, "shop").await;
        };
        then_restore(work, operator.unset(setting)).await;
    });
}
