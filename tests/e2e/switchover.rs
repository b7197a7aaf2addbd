//! What people ask for: another primary, a restart. Each gets an answer.

use serde_json::json;

use crate::harness::{NOTES, READY, SOON, Sandbox, Writer, config_map, database, plugin, shared};

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
        let now = sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", SOON).await.message;
        let other = (0..3).map(|ordinal| format!("shop-db-{ordinal}"));
        let other = other.into_iter().find(|pod| *pod != standby && !now.ends_with(pod.as_str())).expect("a third");
        let (done, said) = ask(&sandbox, &["switchover", "shop", "--to", &other]).await;
        assert!(!done && said.contains("synchronous standby"), "{said}");
        let (done, said) = ask(&sandbox, &["switchover", "shop", "--to", &standby]).await;
        assert!(!done && said.contains("leads"), "{said}");
        assert_ne!(before, standby);

        let mut times = Vec::new();
        for ordinal in 0..3 {
            times.push(started(&sandbox, &format!("shop-db-{ordinal}")).await);
        }
        let (done, said) = ask(&sandbox, &["restart", "shop"]).await;
        assert!(done, "{said}");
        for (ordinal, before) in times.iter().enumerate() {
            assert_ne!(started(&sandbox, &format!("shop-db-{ordinal}")).await, *before, "shop-db-{ordinal}");
        }
        assert_ne!(sandbox.primary("shop").await, standby, "the primary was restarted while it led");
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
