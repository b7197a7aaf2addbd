//! Volumes and pods are protected against mistakes: nothing is removed that the spec did not give up.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{READY, SOON, Sandbox, Writer, condition, describe, pod_uid, shared, until, with_notes};
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
            // The operator may put the replicas back before a pod is deleted.
            if now == first {
                scale_to_zero(&sandbox).await;
            }
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

        // The remedy.
        let instances = |instances: i32| json!({"spec": {"instances": instances}});
        sandbox.patch::<ServiceDatabase>("shop", &instances(2)).await;
        until("every claim is a new one, and all is well", 2 * READY, || async {
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
