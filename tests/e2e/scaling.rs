//! Scaling: the primary is not restarted, and a removed instance leaves only its volume.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{NOTES, READY, SOON, Sandbox, Writer, column, config_map, database, plugin, shared, until};

async fn scale(sandbox: &Sandbox, instances: i32) {
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"instances": instances}})).await;
    let ready = sandbox.ready("shop", READY).await;
    let told = ready.status.and_then(|status| status.instances);
    assert_eq!(told, Some(format!("{instances}/{instances}")));
}

async fn one(sandbox: &Sandbox, query: &str) -> String {
    let connection = sandbox.connect("shop").await;
    column(&connection, query).await.expect("a query").join(" ")
}

async fn claims(sandbox: &Sandbox) -> Vec<String> {
    let claims = sandbox.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.expect("claims").items;
    claims.iter().map(ResourceExt::name_any).collect()
}

#[test]
fn nobody_notices_that_instances_come_and_go() {
    shared("scaling", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let started = "SELECT pg_postmaster_start_time()";
        let before = one(&sandbox, started).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(10).await;

        scale(&sandbox, 3).await;
        sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", SOON).await;
        writer.goes_on(10).await;
        scale(&sandbox, 1).await;
        until("the pods are gone", SOON, || async {
            let pods = sandbox.api::<Pod>().list(&ListParams::default().labels("servicedb.dev/scope=shop-db")).await;
            let pods = pods.map_err(|error| error.to_string())?.items;
            if pods.len() == 1 { Ok(()) } else { Err(format!("{} pods", pods.len())) }
        })
        .await;
        until("no replication slot keeps WAL for them", SOON, || async {
            let slots = one(&sandbox, "SELECT slot_name FROM pg_replication_slots").await;
            if slots.is_empty() { Ok(()) } else { Err(slots) }
        })
        .await;
        assert_eq!(claims(&sandbox).await.len(), 3, "scaleDownPolicy Retain keeps the volumes");
        writer.goes_on(10).await;
        assert!(!writer.broke(), "a client's connection broke");
        assert_eq!(one(&sandbox, started).await, before, "the primary was restarted");

        // One that comes again finds its volume, with what it had then.
        scale(&sandbox, 2).await;
        writer.goes_on(10).await;
        assert!(!writer.broke(), "a client's connection broke");
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn a_primary_that_goes_hands_the_lead_over_before() {
    shared("leaving", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({
            "instances": 3,
            "storage": {"scaleDownPolicy": "Delete"},
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
        });
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        // The last of three shall lead; it may take a step in between to be a standby that may.
        until("the last one leads", READY, || async {
            plugin(&sandbox, &["switchover", "shop", "--to", "shop-db-2"]).await;
            let leads = sandbox.get("shop").await.status.and_then(|status| status.primary);
            if leads.as_deref() == Some("shop-db-2") {
                return Ok(());
            }
            plugin(&sandbox, &["switchover", "shop"]).await;
            Err(format!("{leads:?} leads"))
        })
        .await;
        sandbox.ready("shop", READY).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(10).await;

        scale(&sandbox, 1).await;
        let leads = sandbox.get("shop").await.status.and_then(|status| status.primary);
        assert_eq!(leads.as_deref(), Some("shop-db-0"));
        writer.goes_on(10).await;
        writer.all_are_there(&sandbox, "shop").await;
        until("scaleDownPolicy Delete removes the volumes", SOON, || async {
            let left = claims(&sandbox).await;
            if left == ["data-shop-db-0"] { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    });
}

#[test]
fn one_that_was_away_for_too_long_is_cloned_again() {
    shared("away", async |sandbox| {
        sandbox.create(database("shop", json!({"instances": 2}))).await;
        sandbox.ready("shop", READY).await;
        scale(&sandbox, 1).await;
        until("no replication slot keeps WAL for it", SOON, || async {
            let slots = one(&sandbox, "SELECT slot_name FROM pg_replication_slots").await;
            if slots.is_empty() { Ok(()) } else { Err(slots) }
        })
        .await;
        let psql = async |sql: &str| {
            let output = sandbox.exec("shop-db-0", &format!("psql -XqAtc \"{sql}\"")).await;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        psql("CREATE TABLE public.later AS SELECT 1 AS id").await;
        // More than what Patroni lets PostgreSQL keep for nobody (wal_keep_size, 128 MB).
        let first = "SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}'";
        let needed = psql(first).await;
        for _ in 0..12 {
            psql("INSERT INTO public.later VALUES (1)").await;
            psql("SELECT pg_switch_wal()").await;
        }
        psql("CHECKPOINT").await;
        let left = psql(first).await;
        assert!(left > needed, "{left} is still there");

        scale(&sandbox, 2).await;
        let output = sandbox.exec("shop-db-1", "psql -XAtc 'SELECT count(*) FROM public.later'").await;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "13");
    });
}
