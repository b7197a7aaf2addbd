//! Volumes and pods that somebody's mistake could take: nothing goes that the spec did not give up.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{NOTES, READY, SOON, Sandbox, Writer, condition, config_map, database, describe, shared, until};
use crate::nodes::Evictions;

/// The uids of the volume claims that nobody has deleted, by name.
async fn claims(sandbox: &Sandbox) -> BTreeMap<String, Option<String>> {
    let claims = sandbox.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.expect("claims").items;
    let kept = claims.into_iter().filter(|claim| claim.metadata.deletion_timestamp.is_none());
    kept.map(|claim| (claim.name_any(), claim.uid())).collect()
}

async fn scale_to_zero(sandbox: &Sandbox) {
    sandbox.patch::<StatefulSet>("shop-db", &json!({"spec": {"replicas": 0}})).await;
}

async fn pod_uid(sandbox: &Sandbox, pod: &str) -> Option<String> {
    let pod = sandbox.api::<Pod>().get_opt(pod).await.expect("a pod")?;
    pod.metadata.deletion_timestamp.is_none().then(|| pod.uid()).flatten()
}

async fn with_notes(sandbox: &Sandbox, mut spec: serde_json::Value) {
    sandbox.create(config_map("migrations", &[NOTES])).await;
    spec["migrations"] = json!({"source": {"configMap": {"name": "migrations"}}});
    sandbox.create(database("shop", spec)).await;
    sandbox.ready("shop", READY).await;
}

#[test]
fn a_stateful_set_that_another_hand_scales_to_zero_keeps_its_volumes() {
    shared("scaled-away", async |sandbox| {
        with_notes(&sandbox, json!({"instances": 2, "storage": {"scaleDownPolicy": "Delete"}})).await;
        let before = claims(&sandbox).await;
        assert_eq!(before.len(), 2);
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;

        let first = pod_uid(&sandbox, "shop-db-0").await;
        scale_to_zero(&sandbox).await;
        until("the first instance is another pod", READY, || async {
            let now = pod_uid(&sandbox, "shop-db-0").await;
            if now.is_some() && now != first { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        sandbox.ready("shop", READY).await;
        writer.goes_on(20).await;
        assert_eq!(claims(&sandbox).await, before, "a volume went, and the spec had given up none");

        let paused = |paused: bool| json!({"spec": {"paused": paused}});
        sandbox.patch::<ServiceDatabase>("shop", &paused(true)).await;
        sandbox.condition("shop", "Stalled", "True", "Paused", SOON).await;
        scale_to_zero(&sandbox).await;
        until("the pods are gone", READY, || async {
            let pods = sandbox.pods("shop").await.len();
            if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
        })
        .await;
        assert_eq!(claims(&sandbox).await, before);
        sandbox.patch::<ServiceDatabase>("shop", &paused(false)).await;
        sandbox.ready("shop", READY).await;
        writer.goes_on(20).await;
        assert_eq!(claims(&sandbox).await, before);
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn a_deleted_claim_is_told_and_the_only_copy_is_kept() {
    shared("deleted-claim", async |sandbox| {
        with_notes(&sandbox, json!({})).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        let (pod, claim) = (pod_uid(&sandbox, "shop-db-0").await, claims(&sandbox).await);
        sandbox.api::<PersistentVolumeClaim>().delete("data-shop-db-0", &Default::default()).await.expect("a deletion");
        let told = sandbox.condition("shop", "Stalled", "True", "VolumeTerminating", SOON).await;
        assert!(told.message.contains("set spec.instances to 2"), "{}", told.message);

        // Neither a change nor a drain takes the pod.
        let resources = json!({"spec": {"resources": {"requests": {"cpu": "30m"}}}});
        sandbox.patch::<ServiceDatabase>("shop", &resources).await;
        sandbox.condition("shop", "Stalled", "True", "VolumeTerminating", SOON).await;
        let evictions = Evictions::of(&sandbox).await;
        until("no eviction takes the pod", SOON, || evictions.are_refused("shop-db-0")).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(pod_uid(&sandbox, "shop-db-0").await, pod, "the pod with the only copy was replaced");
        assert!(!writer.broke(), "a client's connection broke");

        // The way out.
        let instances = |instances: i32| json!({"spec": {"instances": instances}});
        sandbox.patch::<ServiceDatabase>("shop", &instances(2)).await;
        until("every claim is a new one, and all is well", READY, || async {
            let now = claims(&sandbox).await;
            let found = sandbox.get("shop").await;
            let ready = condition(&found, "Ready").is_some_and(|ready| ready.status == "True");
            let is_new = now.len() == 2 && now["data-shop-db-0"] != claim["data-shop-db-0"];
            if ready && is_new { Ok(()) } else { Err(format!("{now:?}; {}", describe(&found))) }
        })
        .await;
        sandbox.patch::<ServiceDatabase>("shop", &instances(1)).await;
        sandbox.ready("shop", READY).await;
        writer.goes_on(20).await;
        writer.all_are_there(&sandbox, "shop").await;

        // Claim and pod are gone, and a new claim is there at once, with nothing on it.
        sandbox.api::<PersistentVolumeClaim>().delete("data-shop-db-0", &Default::default()).await.expect("a deletion");
        sandbox.api::<Pod>().delete("shop-db-0", &Default::default()).await.expect("a deletion");
        let told = sandbox.condition("shop", "Stalled", "True", "DataLost", READY).await;
        assert!(told.message.contains("data-shop-db-1 may have an older copy"), "{}", told.message);
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "DatabaseAvailable").expect("a condition").reason, "DataLost");
    });
}

#[test]
fn a_pod_that_would_be_refused_replaces_none() {
    shared("refused-pod", async |sandbox| {
        with_notes(&sandbox, json!({})).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        let pod = pod_uid(&sandbox, "shop-db-0").await;
        let class = |name: serde_json::Value| json!({"spec": {"scheduling": {"priorityClassName": name}}});
        sandbox.patch::<ServiceDatabase>("shop", &class("of-nobody".into())).await;
        let told = sandbox.condition("shop", "Stalled", "True", "PodRefused", SOON).await;
        assert!(told.message.contains("no PriorityClass with name of-nobody was found"), "{}", told.message);
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "DatabaseAvailable").expect("a condition").status, "True");
        writer.goes_on(20).await;
        assert_eq!(pod_uid(&sandbox, "shop-db-0").await, pod, "the pod was replaced");
        assert!(!writer.broke(), "a client's connection broke");

        sandbox.patch::<ServiceDatabase>("shop", &class(serde_json::Value::Null)).await;
        sandbox.ready("shop", SOON).await;
        assert_eq!(pod_uid(&sandbox, "shop-db-0").await, pod, "nothing had changed");

        // A quota that the old pod fills is no refusal: its successor fits.
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
            "spec": {"hard": {"pods": "1"}},
        });
        sandbox.create(quota).await;
        until("the quota counts", SOON, || async {
            let quota = sandbox.api::<k8s_openapi::api::core::v1::ResourceQuota>().get("full").await;
            let used = quota.map_err(|error| error.to_string())?.status.and_then(|status| status.used);
            if used.is_some_and(|used| used.contains_key("pods")) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        sandbox.patch::<ServiceDatabase>("shop", &class("system-cluster-critical".into())).await;
        until("the instance is another pod", READY, || async {
            let now = pod_uid(&sandbox, "shop-db-0").await;
            if now.is_some() && now != pod { Ok(()) } else { Err(describe(&sandbox.get("shop").await)) }
        })
        .await;
        sandbox.ready("shop", READY).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}
