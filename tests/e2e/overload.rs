//! A machine without CPU time for a database: a single instance, which no other can replace, is not stopped for it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::harness::{NOTES, READY, Sandbox, Writer, config_map, database, shared};

/// Longer than the lease of a single instance, and shorter than what the liveness probe allows.
const FROZEN_SECONDS: u32 = 50;

/// Patroni records the members with its first renewal, and the agent has to have read that: a loop, and the pause between
/// two readings.
const RECORDED: Duration = Duration::from_secs(20);

/// The postmaster: its pid, its data directory, the time of its start.
const POSTMASTER: &str = "head -n 3 /var/lib/postgresql/data/pgdata/postmaster.pid";

/// How long the agent may take to act after that: its reprieve, and the time of a stop.
const ACTS: Duration = Duration::from_secs(15);

/// A script that stops processes for that time.
fn frozen(processes: &str) -> String {
    format!("kill -STOP {processes}; sleep {FROZEN_SECONDS}; kill -CONT {processes}")
}

#[test]
fn a_single_instance_without_cpu_time_is_not_stopped() {
    shared("overload", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 1, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        tokio::time::sleep(RECORDED).await;
        let before = postmaster(&sandbox).await;
        // The first is an agent that finds the time for a renewal passed, although Patroni renewed; the second is a
        // machine that stood still, so that the lease is over. All but the shell and the container's first process.
        for (what, processes) in [("the agent", "$(pidof servicedb)"), ("all processes", "-1")] {
            let output = sandbox.exec("shop-db-0", &frozen(processes)).await;
            println!("{what}, for {FROZEN_SECONDS} s: {}", String::from_utf8_lossy(&output.stderr));
            // There is no event to wait for, only time.
            tokio::time::sleep(ACTS).await;
            writer.goes_on(20).await;
            sandbox.ready("shop", READY).await;
            assert_eq!(postmaster(&sandbox).await, before, "{what}: PostgreSQL was stopped");
        }
        let pod = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod");
        let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        assert!(statuses.iter().all(|status| status.restart_count == 0), "{statuses:?}");
        writer.all_are_there(&sandbox, "shop").await;
    });
}

async fn postmaster(sandbox: &Sandbox) -> String {
    let output = sandbox.exec("shop-db-0", POSTMASTER).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
