//! Expansion of volumes while the database serves, and of a full one.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{Cluster, NOTES, READY, SOON, Sandbox, Writer, condition, config_map, database, shared, until};

async fn resize(sandbox: &Sandbox, size: &str) {
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"storage": {"size": size}}})).await;
}

/// The size of a pod's volume in MiB, as its filesystem has it.
async fn mebibytes(sandbox: &Sandbox, pod: &str) -> u64 {
    let output = sandbox.exec(pod, "df --block-size=1M --output=size /var/lib/postgresql/data | tail -n 1").await;
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_default()
}

#[test]
fn volumes_grow_under_a_database_that_serves() {
    if !Cluster::is_local() {
        // It needs a StorageClass of the local cluster.
        return;
    }
    shared("growth", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({
            "instances": 2,
            "storage": {"size": "512Mi", "storageClassName": "growable"},
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
        });
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let uids = async || {
            let uid = async |pod: &str| sandbox.api::<Pod>().get(pod).await.expect("a pod").uid();
            (uid("shop-db-0").await, uid("shop-db-1").await)
        };
        let before = uids().await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(10).await;
        resize(&sandbox, "1Gi").await;
        until("both volumes have grown", READY, || async {
            let sizes = (mebibytes(&sandbox, "shop-db-0").await, mebibytes(&sandbox, "shop-db-1").await);
            if sizes.0 > 900 && sizes.1 > 900 { Ok(()) } else { Err(format!("{sizes:?} MiB")) }
        })
        .await;
        let ready = sandbox.ready("shop", READY).await;
        assert_eq!(ready.status.and_then(|status| status.volume_size).map(|size| size.0).as_deref(), Some("1Gi"));
        writer.goes_on(10).await;
        assert!(!writer.broke(), "a client's connection broke");
        assert_eq!(uids().await, before, "a pod was made anew");

        // The StatefulSet was kept in step: the next instance begins with the new size.
        let set = sandbox.api::<StatefulSet>().get("shop-db").await.expect("the StatefulSet");
        let templates = set.spec.and_then(|spec| spec.volume_claim_templates).expect("a claim's template");
        let size =
            templates[0].spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
        assert_eq!(size.map(|size| size.0.as_str()), Some("1Gi"));
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"instances": 3}})).await;
        sandbox.ready("shop", READY).await;
        assert!(mebibytes(&sandbox, "shop-db-2").await > 900);
        writer.all_are_there(&sandbox, "shop").await;

        let smaller = json!({"spec": {"storage": {"size": "512Mi"}}});
        let patch = kube::api::Patch::Merge(&smaller);
        let refused = sandbox.api::<ServiceDatabase>().patch("shop", &Default::default(), &patch).await;
        let message = refused.expect_err("a volume cannot shrink").to_string();
        assert!(message.contains("cannot shrink"), "{message}");
    });
}

#[test]
fn a_full_volume_is_told_and_recovers_by_growth() {
    if !Cluster::is_local() {
        return;
    }
    shared("full", async |sandbox| {
        let storage = json!({"size": "512Mi", "storageClassName": "growable"});
        sandbox.create(database("shop", json!({"storage": storage}))).await;
        sandbox.ready("shop", READY).await;
        // Another process fills it, to the last byte.
        let fill = "head -c 1G /dev/zero > /var/lib/postgresql/data/filler; sync; true";
        sandbox.exec("shop-db-0", fill).await;
        sandbox.exec("shop-db-0", "psql -XAtc 'CREATE TABLE public.t AS SELECT generate_series(1, 1000000)'").await;
        until("the full volume is reported", READY, || async {
            let found = sandbox.get("shop").await;
            let told: Vec<_> = ["Ready", "DatabaseAvailable"]
                .iter()
                .filter_map(|kind| condition(&found, kind))
                .filter(|condition| condition.reason == "VolumeFull" || condition.message.contains("is full"))
                .collect();
            if told.is_empty() { Err(crate::harness::describe(&found)) } else { Ok(()) }
        })
        .await;
        resize(&sandbox, "2Gi").await;
        sandbox.ready("shop", READY).await;
        assert!(mebibytes(&sandbox, "shop-db-0").await > 1900);
        let output = sandbox.exec("shop-db-0", "psql -XAtc 'CREATE TABLE public.u AS SELECT 1 AS a'").await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

#[test]
fn a_class_that_cannot_grow_says_so_and_the_size_can_be_set_back() {
    shared("fixed", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        resize(&sandbox, "1Gi").await;
        let told = sandbox.condition("shop", "Stalled", "True", "VolumeCannotGrow", SOON).await;
        assert!(told.message.contains("standard") && told.message.contains("256Mi"), "{}", told.message);
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "DatabaseAvailable").expect("a condition").status, "True");
        resize(&sandbox, "256Mi").await;
        sandbox.ready("shop", SOON).await;
    });
}
