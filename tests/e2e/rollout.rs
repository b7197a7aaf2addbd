//! Pods that are made anew: by a change of spec one after another, by another version of the
//! operator only when somebody says so.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{
    NOTES, Operator, READY, SOON, Sandbox, Writer, alone, condition, config_map, database, is_ready, plugin, shared,
    until,
};

async fn uids(sandbox: &Sandbox) -> Vec<Option<String>> {
    sandbox.pods("shop").await.iter().map(ResourceExt::uid).collect()
}

fn cpu(pod: &Pod) -> Option<String> {
    let resources = pod.spec.as_ref()?.containers.first()?.resources.as_ref()?;
    Some(resources.requests.as_ref()?.get("cpu")?.0.clone())
}

#[test]
fn changed_resources_come_to_one_instance_after_another() {
    shared("rolling", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 3, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        let before = sandbox.ready("shop", READY).await.status.and_then(|status| status.primary).expect("a primary");
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(10).await;

        let resources = json!({"spec": {"resources": {"requests": {"cpu": "30m"}}}});
        sandbox.patch::<ServiceDatabase>("shop", &resources).await;
        sandbox.condition("shop", "Ready", "False", "RollingOut", SOON).await;
        until("all have the new template, and never two are away", READY, || async {
            let found = sandbox.pods("shop").await;
            let away = found.iter().filter(|pod| !stays_ready(pod)).count() + 3_usize.saturating_sub(found.len());
            assert!(away <= 1, "{away} instances are away at once");
            // The primary that was is the last.
            let is_new = |pod: &Pod| cpu(pod).as_deref() == Some("30m");
            let news = found.iter().filter(|pod| is_new(pod)).count();
            let of_primary = found.iter().find(|pod| pod.name_any() == before).is_some_and(is_new);
            assert!(!of_primary || news == 3, "the primary was replaced before the others");
            if news == 3 && away == 0 { Ok(()) } else { Err(format!("{news} are new, {away} away")) }
        })
        .await;
        let ready = sandbox.ready("shop", READY).await;
        assert_ne!(ready.status.and_then(|status| status.primary), Some(before));
        writer.goes_on(10).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}

/// Whether a pod serves, and is to go on.
fn stays_ready(pod: &Pod) -> bool {
    is_ready(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// A pod that no node has room for does not stand in the way of its own correction.
#[test]
fn a_mistake_in_resources_is_told_and_its_correction_followed() {
    shared("mistake", async |sandbox| {
        sandbox.create(database("shop", json!({"instances": 2}))).await;
        sandbox.ready("shop", READY).await;
        let ask = |cpu: &str| json!({"spec": {"resources": {"requests": {"cpu": cpu}}}});
        sandbox.patch::<ServiceDatabase>("shop", &ask("1000")).await;
        until("it is told that no node has room", READY, || async {
            let found = sandbox.get("shop").await;
            let ready = condition(&found, "Ready").cloned().expect("a condition");
            let told = ready.reason == "RollingOut" && ready.message.contains("cannot be scheduled");
            if told { Ok(()) } else { Err(ready.message) }
        })
        .await;
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "DatabaseAvailable").expect("a condition").status, "True");
        sandbox.patch::<ServiceDatabase>("shop", &ask("30m")).await;
        sandbox.ready("shop", READY).await;
        assert!(sandbox.pods("shop").await.iter().all(|pod| cpu(pod).as_deref() == Some("30m")));
    });
}

/// Another version of the operator, or another of its settings, would make other pods.
#[test]
fn another_operator_changes_no_pod_until_somebody_says_so() {
    alone("pending", async |sandbox| {
        sandbox.create(database("shop", json!({"instances": 2}))).await;
        sandbox.ready("shop", READY).await;
        let before = uids(&sandbox).await;
        let operator = Operator::of(sandbox.cluster);
        let setting = "SERVICEDB_IMAGE_PULL_SECRETS";
        let result = std::panic::AssertUnwindSafe(async {
            operator.set(setting, "of-another-version").await;
            let told = sandbox.condition("shop", "RolloutPending", "True", "ApprovalPending", SOON).await;
            assert!(told.message.contains("imagePullSecrets"), "{}", told.message);
            let ready = sandbox.ready("shop", SOON).await;
            assert_eq!(uids(&sandbox).await, before, "a pod was made anew, and nobody had said so");
            assert_eq!(ready.status.and_then(|status| status.rollout).map(|rollout| rollout.changes.len()), Some(1));

            // What spec asks for is done in the template that was accepted.
            sandbox
                .patch::<ServiceDatabase>("shop", &json!({"spec": {"resources": {"requests": {"cpu": "30m"}}}}))
                .await;
            sandbox.condition("shop", "Ready", "False", "RollingOut", SOON).await;
            sandbox.ready("shop", READY).await;
            let secrets = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.clone());
            assert!(sandbox.pods("shop").await.iter().all(|pod| secrets(pod).is_none()));

            let refused = plugin(&sandbox, &["rollout", "shop"]).await;
            assert!(!refused.status.success(), "nobody said yes");
            let approved = plugin(&sandbox, &["rollout", "shop", "--yes"]).await;
            let said = String::from_utf8_lossy(&approved.stdout).into_owned();
            assert!(approved.status.success() && said.contains("imagePullSecrets"), "{said}");
            until("the pods are those of this operator", READY, || async {
                let all = sandbox.pods("shop").await.iter().filter(|pod| secrets(pod).is_some()).count();
                if all == 2 { Ok(()) } else { Err(format!("{all} of 2")) }
            })
            .await;
            sandbox.ready("shop", READY).await;
            sandbox.condition("shop", "RolloutPending", "False", "UpToDate", SOON).await;
        });
        let result = futures::FutureExt::catch_unwind(result).await;
        operator.unset(setting).await;
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}
