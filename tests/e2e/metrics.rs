//! The metrics of an instance, beside those of Debian's `prometheus-postgres-exporter` in the same pod.

use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::exposition::Page;
use crate::harness::{NOTES, Operator, READY, SOON, Sandbox, config_map, database, plugin, run, shared, until};
use crate::pod_log;

/// What differs from the exporter, and why. A name that ends in `*` stands for all that begin so.
const DIFFERENT: [(&str, &str); 10] = [
    ("go_*", "the exporter's own runtime, which the agent does not have"),
    ("process_*", "of the exporter's process; the agent has its own memory and CPU time under two of these names"),
    ("promhttp_*", "of the exporter's HTTP server"),
    ("postgres_exporter_*", "the exporter's version and configuration"),
    ("pg_exporter_*", "each counts its own scrapes"),
    ("pg_scrape_collector_*", "the agent has more collectors, and the exporter's older ones are in none"),
    ("pg_stat_activity_*", "each sees its own session at work, and the other's idle"),
    ("pg_locks_count", "each sees the locks of its own query"),
    ("pg_stat_database_numbackends", "the exporter's sessions come and go"),
    ("pg_settings_extra_float_digits", "the exporter's driver changes it for its own session"),
];

/// Reads the agent's page and, with the exporter beside it, one of the exporter before and one after.
const THREE_PAGES: &str = r#"
export DATA_SOURCE_NAME="postgresql:///metered_db?host=/run/postgresql&user=servicedb_monitor&sslmode=disable"
prometheus-postgres-exporter --web.listen-address=127.0.0.1:9187 >/tmp/exporter.log 2>&1 &
exporter=$!
python3 - <<'END'
import json, time, urllib.request
def read(port):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
for attempt in range(50):
    try:
        read(9187)
        break
    except OSError:
        time.sleep(0.2)
read(8010)
time.sleep(6)
print(json.dumps([read(9187), read(8010), read(9187)]))
END
code=$?
kill $exporter
exit $code
"#;

/// The agent's page of a pod.
async fn page(sandbox: &Sandbox, pod: &str) -> Page {
    let script =
        "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:8010/metrics\").read().decode())'";
    let output = sandbox.exec(pod, script).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Page::read(&String::from_utf8_lossy(&output.stdout))
}

/// The differences between a page and two of the reference, one read before it and one after.
fn differences(page: &Page, before: &Page, after: &Page) -> Vec<String> {
    let is_left_out = |name: &str| {
        DIFFERENT.iter().any(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
    };
    let mut found = Vec::new();
    for (name, kind) in before.types.iter().filter(|(name, _)| !is_left_out(name)) {
        match page.types.get(name) {
            None => found.push(format!("{name} is missing")),
            Some(other) if other != kind => found.push(format!("{name} is a {other}, not a {kind}")),
            Some(_) => {}
        }
    }
    for (series, first) in before.samples.iter().filter(|((name, _), _)| !is_left_out(name)) {
        let Some(last) = after.samples.get(series) else { continue };
        match page.samples.get(series) {
            None if page.types.contains_key(&series.0) => found.push(format!("{series:?} is missing")),
            None => {}
            Some(value) => {
                let (low, high) = (first.min(*last), first.max(*last));
                let slack = if low == high { 0.0 } else { 1.0 + high.abs() * 0.01 };
                let both_nan = value.is_nan() && first.is_nan();
                if !both_nan && !(low - slack..=high + slack).contains(value) {
                    found.push(format!("{series:?} is {value}, not from {low} to {high}"));
                }
            }
        }
    }
    // Nothing that the reference does not have, under one of its names.
    for series in page.samples.keys().filter(|(name, _)| before.types.contains_key(name) && !is_left_out(name)) {
        if !before.samples.contains_key(series) && !after.samples.contains_key(series) {
            found.push(format!("{series:?} is additional"));
        }
    }
    found
}

#[test]
fn an_instance_has_the_exporters_metrics_and_its_own() {
    shared("metrics", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 2, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("metered", spec)).await;
        let ready = sandbox.ready("metered", READY).await;
        let primary = ready.status.and_then(|status| status.primary).expect("a primary");
        let replica = if primary == "metered-db-0" { "metered-db-1" } else { "metered-db-0" };
        let connection = sandbox.connect("metered").await;
        run(&connection, "INSERT INTO notes SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 2000) AS i")
            .await
            .expect("rows");
        // The server writes its statistics within a second, and idle sessions theirs after ten.
        run(&connection, "SELECT pg_stat_force_next_flush()").await.expect("statistics");

        let output = sandbox.exec(&primary, THREE_PAGES).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let pages: Vec<String> = serde_json::from_slice(&output.stdout).expect("three pages");
        // The exporter names the server by the socket's folder, as it was told to reach it.
        let pages: Vec<_> =
            pages.iter().map(|text| Page::read(&text.replace("/run/postgresql:5432", "localhost:5432"))).collect();
        let [before, ours, after] = pages.as_slice() else { panic!("three pages") };
        assert!(before.types.len() > 300, "the exporter has {} metrics", before.types.len());
        assert_eq!(differences(ours, before, after), [""; 0]);
        let failed = ours.labelled("pg_scrape_collector_success", "collector", "stat_statements");
        assert_eq!(failed, [1.0], "the statistics of statements are there from the first start");
        let not_read: Vec<_> = ours
            .samples
            .iter()
            .filter(|((name, _), value)| name == "pg_scrape_collector_success" && **value != 1.0)
            .collect();
        assert!(not_read.is_empty(), "{not_read:?}");
        assert!(ours.types.contains_key("pg_stat_statements_calls_total"));

        // Servicedb's own.
        for (name, value) in [
            ("servicedb_up", 1.0),
            ("servicedb_primary", 1.0),
            ("servicedb_synchronous_standbys", 1.0),
            ("servicedb_credentials_generation", 1.0),
            ("servicedb_migrations_applied", 1.0),
            ("servicedb_restart_pending", 0.0),
        ] {
            assert_eq!(ours.value(name), Some(value), "{name}");
        }
        assert!(ours.labelled("servicedb_standby_lag_bytes", "standby", replica).len() == 1);
        assert!(ours.labelled("servicedb_certificate_expiry_timestamp_seconds", "certificate", "server")[0] > 1.7e9);
        let of_replica = page(&sandbox, replica).await;
        for (name, value) in [
            ("pg_replication_is_replica", 1.0),
            ("servicedb_streaming", 1.0),
            ("servicedb_primary", 0.0),
            ("servicedb_promotions_total", 0.0),
            ("servicedb_log_dropped_bytes_total", 0.0),
        ] {
            assert_eq!(of_replica.value(name), Some(value), "{name}");
        }

        // A thousand scrapes cost what a few do.
        let scrapes = ours.value("pg_exporter_scrapes_total").expect("a count");
        let flood = "python3 - <<'END'\nimport threading, urllib.request\ndef read():\n    for i in range(125):\n        urllib.request.urlopen('http://127.0.0.1:8010/metrics', timeout=20).read()\nthreads = [threading.Thread(target=read) for i in range(8)]\n[thread.start() for thread in threads]\n[thread.join() for thread in threads]\nEND";
        let begin = Instant::now();
        assert!(sandbox.exec(&primary, flood).await.status.success());
        let most = begin.elapsed().as_secs_f64() / 5.0 + 3.0;
        let now = page(&sandbox, &primary).await.value("pg_exporter_scrapes_total").expect("a count");
        assert!(now - scrapes <= most, "{} collections in {:?}", now - scrapes, begin.elapsed());

        // The operator's, of this resource.
        let of_it = |operator: &Page, name: &str, label: &str, content: &str| {
            let series = operator.samples.iter().find(|((of, labels), _)| {
                of == name
                    && labels.get("servicedb").is_some_and(|of| of == "metered")
                    && labels.get("namespace").is_some_and(|of| *of == sandbox.namespace)
                    && labels.get(label).is_some_and(|of| of == content)
            });
            series.map(|(_, value)| *value)
        };
        // Another test may have ended the operator: the next one has them once it has reconciled.
        until("the operator's metrics of the resource", SOON, || async {
            let operator = Page::read(&Operator::of(sandbox.cluster).metrics().await);
            let available = of_it(&operator, "servicedb_condition", "condition", "DatabaseAvailable");
            let expiry = of_it(&operator, "servicedb_secret_id_expiry_timestamp_seconds", "approle", "instance");
            let is_there = available == Some(1.0) && expiry.is_some_and(|at| at > 1.7e9);
            if is_there { Ok(()) } else { Err(format!("{available:?}, {expiry:?}")) }
        })
        .await;

        own_queries(&sandbox, &primary, replica).await;
        plugin_shows_it(&sandbox).await;
        pod_log::audit(&sandbox, &primary).await;
        pod_log::structured(&sandbox, &primary).await;

        // A failover is counted by the instance that is promoted.
        sandbox.delete::<Pod>(&primary).await;
        until("the promotion is counted", SOON, || async {
            let page = page(&sandbox, replica).await;
            let found = (page.value("servicedb_promotions_total"), page.value("servicedb_primary"));
            if found == (Some(1.0), Some(1.0)) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        sandbox.ready("metered", READY).await;
    });
}

/// A team's own metrics, from a ConfigMap that is changed while it is used; a wrong one is told.
async fn own_queries(sandbox: &Sandbox, primary: &str, replica: &str) {
    let definitions = |last: &str| {
        let notes = "notes:\n  query: SELECT count(*) AS count FROM notes\n  metrics: [count: {usage: GAUGE}]\n";
        let mine = "mine: {query: SELECT 1 AS v, primary: true, metrics: [v: {usage: GAUGE}]}\n";
        config_map("metered-queries", &[("queries.yaml", &format!("{notes}{mine}{last}"))])
    };
    let source = json!({"spec": {"monitoring": {"queries": {"name": "metered-queries"}}}});
    sandbox.patch::<ServiceDatabase>("metered", &source).await;
    sandbox.condition("metered", "CustomMetricsRead", "False", "QueriesInvalid", SOON).await;
    let wrong = "wrong: {query: SELECT nothing FROM notes, metrics: [nothing: {usage: GAUGE}]}\n";
    sandbox.create(definitions(wrong)).await;
    let told = sandbox.condition("metered", "CustomMetricsRead", "False", "QueryFailed", SOON).await;
    // The team has granted nothing yet.
    assert!(told.message.contains("notes: ") && told.message.contains("wrong: "), "{}", told.message);
    let grant = "psql -X -q -h /run/postgresql -U servicedb_local -d metered_db -c 'SET ROLE metered_db_owner' -c 'GRANT USAGE ON SCHEMA public TO servicedb_queries' -c 'GRANT SELECT ON notes TO servicedb_queries'";
    assert!(sandbox.exec(primary, grant).await.status.success());
    sandbox.patch::<ConfigMap>("metered-queries", &json!({"data": definitions("")["data"]})).await;
    sandbox.condition("metered", "CustomMetricsRead", "True", "QueriesRead", READY).await;
    for (pod, is_primary) in [(primary, true), (replica, false)] {
        until("the team's metrics", SOON, || async {
            let page = page(sandbox, pod).await;
            let found = (page.value("notes_count"), page.value("mine_v"), page.value("servicedb_custom_queries_valid"));
            if found == (Some(2000.0), is_primary.then_some(1.0), Some(1.0)) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }
    sandbox.delete::<ConfigMap>("metered-queries").await;
    sandbox.condition("metered", "CustomMetricsRead", "False", "QueriesInvalid", SOON).await;
    sandbox.patch::<ServiceDatabase>("metered", &json!({"spec": {"monitoring": {"queries": null}}})).await;
    until("the team's metrics are gone", SOON, || async {
        let text = format!("{:?}", page(sandbox, primary).await.samples.keys());
        if text.contains("notes_count") { Err(text) } else { Ok(()) }
    })
    .await;
}

/// `kubectl servicedb queries`, `activity` and `top`, beside a session that waits for another's lock.
async fn plugin_shows_it(sandbox: &Sandbox) {
    let holder = sandbox.connect("metered").await;
    run(&holder, "BEGIN").await.expect("a transaction");
    run(&holder, "LOCK TABLE notes IN EXCLUSIVE MODE").await.expect("a lock");
    let waiter = sandbox.connect("metered").await;
    // Without the bound of other statements: it waits for as long as the plugin takes to show it.
    let waits = tokio::spawn(async move { waiter.client.batch_execute("DELETE FROM notes WHERE id = -1").await });
    let shown = async |arguments: &[&str]| {
        let output = plugin(sandbox, arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    until("the wait is seen", SOON, || async {
        let text = shown(&["activity", "metered"]).await;
        let tree = text.split("Waits for locks").nth(1).unwrap_or_default().to_owned();
        let holds = tree.lines().any(|line| line.contains("idle in transaction") && line.contains("LOCK TABLE notes"));
        let below = tree.lines().any(|line| line.contains("└ ") && line.contains("DELETE FROM notes"));
        if holds && below { Ok(()) } else { Err(text) }
    })
    .await;
    run(&holder, "ROLLBACK").await.expect("the end");
    waits.await.expect("no panic").expect("no row");
    let text = shown(&["queries", "metered", "--by", "calls", "--limit", "50"]).await;
    assert!(text.contains("INSERT INTO notes SELECT") && text.contains("metered_db_app"), "{text}");
    let text = shown(&["top", "metered", "--once"]).await;
    assert!(text.contains("transactions") && text.contains("WAL"), "{text}");
    let text = shown(&["top"]).await;
    assert!(text.contains("metered") && text.contains("2/2"), "{text}");
    assert!(shown(&["queries", "metered", "--reset"]).await.contains("anew"));
    let text = shown(&["queries", "metered", "--limit", "50"]).await;
    assert!(!text.contains("INSERT INTO notes SELECT"), "{text}");
}
