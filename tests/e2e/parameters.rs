//! Parameters and extensions of a running database: invalid ones are reported, the running server
//! is not changed, and Ready is never wrong.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{
    NOTES, READY, SOON, Sandbox, Writer, column, condition, config_map, database, plugin, run, shared, until,
};

async fn set(sandbox: &Sandbox, parameters: serde_json::Value) {
    let patch = json!({"spec": {"postgres": {"parameters": parameters}}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
}

/// Legacy names of zones, and the collations that a C library names.
async fn zones_and_locales(sandbox: &Sandbox) {
    assert_eq!(shown(sandbox, "timezone").await, "Europe/Kiev");
    let connection = sandbox.connect("shop").await;
    let noon = "SELECT (timestamp '2026-01-01 12:00' AT TIME ZONE 'US/Pacific' AT TIME ZONE 'UTC')::text";
    assert_eq!(column(&connection, noon).await.expect("a zone"), ["2026-01-01 20:00:00"]);
    run(&connection, "SET timezone = 'Asia/Calcutta'").await.expect("a zone");
    for collation in ["en_US.utf8", "de_DE.utf8", "fr_FR.utf8", "en_US", "de-x-icu"] {
        let sort = format!("SELECT w FROM (VALUES ('b'), ('A'), ('a')) AS t (w) ORDER BY w COLLATE \"{collation}\"");
        assert_eq!(column(&connection, &sort).await.expect(collation), ["a", "A", "b"], "{collation}");
    }
    let own = column(&connection, "SELECT w FROM (VALUES ('a'), ('B')) AS t (w) ORDER BY w").await.expect("rows");
    assert_eq!(own, ["B", "a"], "the database's own order is by code point");
}

/// An extension whose library is preloaded works as soon as it is declared: PostgreSQL is not
/// restarted, and before that its library writes nothing.
async fn preloaded_extensions(sandbox: &Sandbox) {
    let started = "SELECT pg_postmaster_start_time()::text";
    let before = column(&sandbox.connect("shop").await, started).await.expect("a time");
    assert_eq!(shown(sandbox, "pgaudit.log").await, "none");
    let names = ["tablefunc", "earthdistance", "pg_trgm", "pg_stat_statements", "pgaudit", "vector"];
    let extensions = names.map(|name| json!({"name": name}));
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"extensions": extensions}}})).await;
    until("statements are counted", SOON, || async {
        let connection = sandbox.connect("shop").await;
        column(&connection, "SELECT 'counted'").await.map_err(|refusal| refusal.message)?;
        let counted = "SELECT calls::text FROM pg_stat_statements WHERE query LIKE 'SELECT $1%' AND calls > 0 LIMIT 1";
        let rows = column(&connection, counted).await.map_err(|refusal| refusal.message)?;
        if rows.is_empty() { Err("no statement is counted".to_owned()) } else { Ok(()) }
    })
    .await;
    // Without a restart, too: a parameter of the library.
    set(sandbox, json!({"pgaudit.log": "ddl"})).await;
    until("the audit is on", SOON, || async {
        match shown(sandbox, "pgaudit.log").await.as_str() {
            "ddl" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let connection = sandbox.connect("shop").await;
    run(&connection, "CREATE TEMPORARY TABLE audited (id int)").await.expect("a table");
    until("the statement is in the log", SOON, || async {
        let log = sandbox.api::<Pod>().logs("shop-db-0", &LogParams::default()).await.expect("a log");
        if log.contains("AUDIT: SESSION") && log.contains("audited") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    set(sandbox, json!({"pgaudit.log": null})).await;
    let ready = sandbox.ready("shop", SOON).await;
    assert!(condition(&ready, "Ready").expect("a condition").message.contains("as declared"));
    let after = column(&sandbox.connect("shop").await, started).await.expect("a time");
    assert_eq!(after, before, "PostgreSQL was restarted");
}

/// A collation whose recorded version is another is a condition that names its indexes, until they
/// are built again.
async fn changed_collations(sandbox: &Sandbox) {
    let psql = async |sql: &str| {
        let output =
            sandbox.exec("shop-db-0", &format!("psql -XAtq -v ON_ERROR_STOP=1 shop_db <<'END'\n{sql}\nEND")).await;
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    };
    psql(
        "CREATE TABLE public.words (word text COLLATE \"en_US.utf8\"); CREATE INDEX by_word ON public.words (word);
         UPDATE pg_collation SET collversion = '1' WHERE collname = 'en_US.utf8';",
    )
    .await;
    let told = sandbox.condition("shop", "CollationsChanged", "True", "CollationVersionChanged", READY).await;
    assert!(told.message.contains("en_US.utf8") && told.message.contains("reindex public.by_word"), "{}", told.message);
    let shown = plugin(sandbox, &["status", "shop"]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("CollationsChanged"), "kubectl servicedb status");
    sandbox.ready("shop", SOON).await;
    psql("REINDEX TABLE public.words; ALTER COLLATION \"en_US.utf8\" REFRESH VERSION;").await;
    sandbox.condition("shop", "CollationsChanged", "False", "CollationsUpToDate", READY).await;
    psql("DROP TABLE public.words").await;
}

async fn shown(sandbox: &Sandbox, parameter: &str) -> String {
    let connection = sandbox.connect("shop").await;
    let rows = column(&connection, &format!("SELECT current_setting('{parameter}')")).await.expect("a setting");
    rows.concat()
}

#[test]
fn ready_tells_of_a_parameter_that_is_refused_or_waits() {
    shared("parameters", async |sandbox| {
        let postgres = json!({
            // The server's own zone has a legacy name.
            "parameters": {"work_mem": "8MB", "timezone": "Europe/Kiev"},
            // One that makes a type of its own, one that makes operators, and one that is not trusted
            // and requires another.
            "extensions": [{"name": "tablefunc"}, {"name": "earthdistance"}, {"name": "pg_trgm"}],
        });
        sandbox.create(database("shop", json!({"postgres": postgres}))).await;
        sandbox.ready("shop", READY).await;
        zones_and_locales(&sandbox).await;
        preloaded_extensions(&sandbox).await;
        changed_collations(&sandbox).await;
        let connection = sandbox.connect("shop").await;
        let schemas = "SELECT extname || ' in ' || extnamespace::regnamespace FROM pg_extension ORDER BY 1";
        let found = column(&connection, schemas).await.expect("the extensions");
        let wanted = [
            "cube in servicedb_extensions",
            "earthdistance in servicedb_extensions",
            "pg_stat_statements in servicedb_extensions",
            "pg_trgm in public",
            "pgaudit in servicedb_extensions",
            "plpgsql in pg_catalog",
            "tablefunc in public",
            "vector in servicedb_extensions",
        ];
        assert_eq!(found, wanted);

        for (wrong, named) in [(json!({"work_mem": "lots"}), "work_mem"), (json!({"nonsense": "1"}), "nonsense")] {
            set(&sandbox, wrong).await;
            let told = sandbox.condition("shop", "Stalled", "True", "InvalidSpec", SOON).await;
            assert!(told.message.contains("spec.postgres.parameters"), "{}", told.message);
            assert!(told.message.contains(named) && !told.message.contains(".conf"), "{}", told.message);
            assert_eq!(shown(&sandbox, "work_mem").await, "8MB", "what runs is as it was");
            let available = sandbox.get("shop").await;
            assert_eq!(condition(&available, "DatabaseAvailable").expect("a condition").status, "True");
            set(&sandbox, json!({"nonsense": null, "work_mem": "8MB"})).await;
            sandbox.ready("shop", SOON).await;
        }

        // With one instance PostgreSQL is restarted in its place, up as down; the pod stays.
        let before = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid();
        for value in ["177", "155"] {
            set(&sandbox, json!({"max_connections": value})).await;
            until("the parameter is in effect", READY, || async {
                let Ok(connection) = sandbox.login("shop", &sandbox.credentials("shop").await).await else {
                    return Err("no connection".to_owned());
                };
                let now =
                    column(&connection, "SHOW max_connections").await.map_err(|refusal| refusal.message)?.concat();
                if now == value { Ok(()) } else { Err(now) }
            })
            .await;
            sandbox.ready("shop", SOON).await;
        }
        assert_eq!(sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid(), before);
    });
}

/// Replicas first where a shared value becomes higher, the primary first where it becomes lower:
/// in the other order a replica would not start.
#[test]
fn a_parameter_that_needs_a_restart_comes_to_all_instances() {
    shared("restarts", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 2, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        for value in ["177", "90"] {
            writer.goes_on(10).await;
            set(&sandbox, json!({"max_connections": value})).await;
            until("both have the value", READY, || async {
                let mut found = Vec::new();
                for pod in ["shop-db-0", "shop-db-1"] {
                    let output = sandbox.exec(pod, "psql -XAtc 'SHOW max_connections'").await;
                    found.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
                }
                if found == [value, value] { Ok(()) } else { Err(format!("{found:?}")) }
            })
            .await;
            sandbox.ready("shop", READY).await;
        }
        writer.goes_on(10).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn a_parameter_with_which_postgresql_cannot_start_is_taken_back() {
    shared("unstartable", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        // It is fine by itself; there are no such pages.
        set(&sandbox, json!({"huge_pages": "on"})).await;
        let told = sandbox.condition("shop", "Ready", "False", "CrashLoop", READY).await;
        assert!(told.message.contains("does not start"), "{}", told.message);
        // Nobody leads any more who could bring the right spec to Patroni.
        set(&sandbox, json!({"huge_pages": null})).await;
        sandbox.ready("shop", READY).await;
        assert_eq!(shown(&sandbox, "huge_pages").await, "try");

        // The same from the start.
        let spec = json!({"postgres": {"parameters": {"huge_pages": "on"}}});
        sandbox.create(database("fresh", spec)).await;
        sandbox.condition("fresh", "Ready", "False", "CrashLoop", READY).await;
        let patch = json!({"spec": {"postgres": {"parameters": null}}});
        sandbox.patch::<ServiceDatabase>("fresh", &patch).await;
        sandbox.ready("fresh", READY).await;
    });
}
