//! The operator does not adopt objects that it did not create.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Resource;
use serde_json::json;

use crate::harness::{READY, SOON, Sandbox, condition, config_map, database, shared};

#[test]
fn a_foreign_service_is_refused_and_untouched() {
    shared("foreign", async |sandbox| {
        sandbox
            .create(json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "shop-db", "labels": {"owner": "somebody-else"}},
                "spec": {"selector": {"app": "somebody-else"}, "ports": [{"port": 80}]},
            }))
            .await;
        let before = sandbox.api::<Service>().get("shop-db").await.expect("the foreign Service");
        sandbox.create(database("shop", json!({}))).await;

        let stalled = sandbox.condition("shop", "Stalled", "True", "ObjectConflict", SOON).await;
        assert!(stalled.message.contains("Service shop-db"), "the message names no object: {}", stalled.message);
        let refused = sandbox.get("shop").await;
        let ready = condition(&refused, "Ready").expect("Ready");
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "ObjectConflict"));
        let after = sandbox.api::<Service>().get("shop-db").await.expect("the foreign Service");
        assert_eq!(after.meta().resource_version, before.meta().resource_version, "the foreign Service was written to");
        assert_eq!(after.spec, before.spec);

        // The operator continues without a notification.
        sandbox.delete::<Service>("shop-db").await;
        sandbox.ready("shop", READY).await;
        let own = sandbox.api::<Service>().get("shop-db").await.expect("the database's Service");
        assert_ne!(own.meta().uid, before.meta().uid);
    });
}

/// A changed object of the operator is corrected, and a deleted one is recreated.
#[test]
fn what_is_its_own_is_put_right() {
    shared("drift", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        let wanted = sandbox.api::<Service>().get("shop-db").await.expect("the Service").spec.expect("a spec");
        let desired = sandbox.api::<ConfigMap>().get("shop-db-desired").await.expect("the desired state");

        sandbox.patch::<Service>("shop-db", &json!({"spec": {"selector": {"servicedb.dev/role": "nobody"}}})).await;
        sandbox.delete::<ConfigMap>("shop-db-desired").await;
        // A new generation makes the operator look.
        touch(&sandbox, "shop").await;
        crate::harness::until("the drift is put right", SOON, || async {
            let service = sandbox.api::<Service>().get("shop-db").await.map_err(|error| error.to_string())?;
            let again =
                sandbox.api::<ConfigMap>().get_opt("shop-db-desired").await.map_err(|error| error.to_string())?;
            let selector = service.spec.and_then(|spec| spec.selector);
            let same = again.as_ref().is_some_and(|again| again.metadata.uid != desired.metadata.uid);
            if selector == wanted.selector && same {
                Ok(())
            } else {
                Err(format!("selector {selector:?}; desired state made again: {same}"))
            }
        })
        .await;
        sandbox.ready("shop", SOON).await;
    });
}

/// Changes something in spec that changes nothing in the database.
async fn touch(sandbox: &Sandbox, name: &str) {
    sandbox.create(config_map("unrelated", &[("a", "b")])).await;
    let replication = json!({"spec": {"replication": {"maximumLagBytes": 33_554_432}}});
    sandbox.patch::<servicedb::api::ServiceDatabase>(name, &replication).await;
    sandbox
        .wait("the operator saw the change", name, SOON, |database| {
            database.status.as_ref().and_then(|status| status.observed_generation) == database.metadata.generation
        })
        .await;
}
