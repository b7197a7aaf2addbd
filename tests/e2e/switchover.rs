//! Users' requests: a switchover, a restart. Each gets a result.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use servicedb::api::names::{ANNOTATION_EVICTION, ANNOTATION_PREPARE_EVICTION};

use crate::harness::{NOTES, READY, SOON, Sandbox, Writer, config_map, database, plugin, shared, until};
use crate::nodes::Evictions;

/// Runs the plugin; whether it succeeded, and all that it said.
async fn ask(sandbox: &Sandbox, arguments: &[&str]) -> (bool, String) {
    let output = plugin(sandbox, arguments).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn started(sandbox: &Sandbox, pod: &str) -> String {
    let output = sandbox.exec(pod, "psql -XAtc 'SELECT pg_postmaster_start_time()'").await;
    assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_lead_goes_where_it_can_and_every_instance_restarts() {
    shared("lead", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 3, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(10).await;

        let standby = sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", SOON).await.message;
        let standby = standby.rsplit(' ').next().expect("its name").to_owned();
        let before = sandbox.primary("shop").await;
        let (done, said) = ask(&sandbox, &["switchover", "shop"]).await;
        assert!(done && said.contains(&standby), "{said}");
        assert_eq!(sandbox.primary("shop").await, standby);
        sandbox.ready("shop", READY).await;

        // One that may lack what was committed is refused, and so is who leads already.
        // It may still be connecting to the new primary, which is another reason, or become the synchronous standby.
        until("a replica that is no synchronous standby is refused", SOON, || async {
            let now = sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", SOON).await.message;
            if sandbox.primary("shop").await != standby {
                let (_, said) = ask(&sandbox, &["switchover", "shop", "--to", &standby]).await;
                return Err(format!("another instance led: {said}"));
            }
            let mut pods = (0..3).map(|ordinal| format!("shop-db-{ordinal}"));
            let other = pods.find(|pod| *pod != standby && !now.ends_with(pod.as_str())).expect("a third");
            let (done, said) = ask(&sandbox, &["switchover", "shop", "--to", &other]).await;
            if !done && said.contains("synchronous standby") { Ok(()) } else { Err(said) }
        })
        .await;
        let (done, said) = ask(&sandbox, &["switchover", "shop", "--to", &standby]).await;
        assert!(!done && said.contains("leads"), "{said}");
        assert_ne!(before, standby);

        // An autoscaler tries an eviction before it cordons the node: it passes once the lead has moved.
        let evictions = Evictions::of(&sandbox).await;
        evictions.are_refused(&standby).await.expect("a refusal while it leads");
        let annotation = |value: Value| json!({"metadata": {"annotations": {ANNOTATION_PREPARE_EVICTION: value}}});
        sandbox.patch::<Pod>(&standby, &annotation("autoscaler".into())).await;
        until("its eviction passes", SOON, || async {
            let pod = sandbox.api::<Pod>().get(&standby).await.map_err(|error| error.to_string())?;
            let answer = pod.annotations().get(ANNOTATION_EVICTION).cloned().unwrap_or_default();
            if !answer.starts_with("Ready: ") {
                return Err(format!("the answer is {answer:?}"));
            }
            match evictions.are_refused(&standby).await {
                Ok(()) => Err(format!("{answer}, but the eviction is refused")),
                Err(_) => Ok(()),
            }
        })
        .await;
        until("another instance leads", SOON, || async {
            let leads = sandbox.primary("shop").await;
            if leads == standby { Err(format!("{leads} leads")) } else { Ok(()) }
        })
        .await;
        sandbox.patch::<Pod>(&standby, &annotation(Value::Null)).await;
        sandbox.ready("shop", READY).await;
        let (done, said) = ask(&sandbox, &["switchover", "shop"]).await;
        assert!(done, "{said}");
        sandbox.ready("shop", READY).await;

        let leads = sandbox.primary("shop").await;
        let mut times = Vec::new();
        for ordinal in 0..3 {
            times.push(started(&sandbox, &format!("shop-db-{ordinal}")).await);
        }
        let (done, said) = ask(&sandbox, &["restart", "shop"]).await;
        assert!(done, "{said}");
        for (ordinal, before) in times.iter().enumerate() {
            assert_ne!(started(&sandbox, &format!("shop-db-{ordinal}")).await, *before, "shop-db-{ordinal}");
        }
        assert_ne!(sandbox.primary("shop").await, leads, "the primary was restarted while it led");
        writer.goes_on(10).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn a_single_instance_has_nobody_to_hand_the_lead_to() {
    shared("single", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        let (done, said) = ask(&sandbox, &["switchover", "shop"]).await;
        assert!(!done && said.contains("no other instance"), "{said}");
        let before = started(&sandbox, "shop-db-0").await;
        let (done, said) = ask(&sandbox, &["restart", "shop"]).await;
        assert!(done, "{said}");
        assert_ne!(started(&sandbox, "shop-db-0").await, before);
        let told = sandbox.condition("shop", "SynchronousReplication", "False", "SingleInstance", SOON).await;
        assert!(told.message.contains("two instances"), "{}", told.message);
    });
}
