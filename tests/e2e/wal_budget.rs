//! A small volume under writes: WAL stays within its share, the slot of a disconnected replica is
//! dropped, and other data that fills the volume is reported in time.

use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{Cluster, READY, SOON, Sandbox, condition, database, describe, shared, until};

async fn psql(sandbox: &Sandbox, pod: &str, sql: &str) -> String {
    let output = sandbox.exec(pod, &format!("psql -XqAt -v ON_ERROR_STOP=1 -c \"{sql}\"")).await;
    assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// MiB of WAL files.
async fn wal(sandbox: &Sandbox, pod: &str) -> u64 {
    let size = psql(sandbox, pod, "SELECT sum(size) / 1024 / 1024 FROM pg_ls_waldir()").await;
    size.split('.').next().and_then(|size| size.parse().ok()).expect("a size")
}

#[test]
fn wal_never_fills_a_small_volume_and_an_absent_replica_gives_way() {
    if !Cluster::is_local() {
        // It needs a StorageClass that enforces sizes.
        return;
    }
    shared("wal", async |sandbox| {
        let storage = json!({"size": "512Mi", "storageClassName": "growable"});
        sandbox.create(database("shop", json!({"instances": 2, "storage": storage}))).await;
        sandbox.ready("shop", READY).await;
        let primary = sandbox.primary("shop").await;
        let replica = if primary == "shop-db-0" { "shop-db-1" } else { "shop-db-0" };
        assert_eq!(psql(&sandbox, &primary, "SHOW max_slot_wal_keep_size").await, "128MB");

        // It is there, and receives nothing any more; the primary notices after ten seconds.
        let receiver = psql(&sandbox, replica, "SELECT pid FROM pg_stat_wal_receiver").await;
        sandbox.exec(replica, &format!("kill -STOP {receiver}")).await;
        psql(&sandbox, &primary, "CREATE TABLE public.churn (body text)").await;
        let started = psql(&sandbox, &primary, "SELECT pg_postmaster_start_time()").await;
        let mut most = 0;
        // 1.2 GB of WAL, more than twice the volume, beside a table of 20 MB.
        for _ in 0..60 {
            let churn = "TRUNCATE public.churn; INSERT INTO public.churn SELECT repeat(md5(i::text), 4) FROM \
                         generate_series(1, 120000) AS i";
            psql(&sandbox, &primary, churn).await;
            most = most.max(wal(&sandbox, &primary).await);
        }
        println!("at most {most} MiB of WAL on 512 MiB");
        // max_wal_size (64 MB) is soft: a busy machine's checkpoint removes later. 128 MB are kept for the replica.
        assert!(most <= 400, "{most} MiB of WAL");
        assert_eq!(psql(&sandbox, &primary, "SELECT pg_postmaster_start_time()").await, started);
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "DatabaseAvailable").expect("a condition").status, "True", "{}", describe(&found));

        // The WAL that it needs is gone, and so is the slot that held it: it is cloned.
        sandbox.exec(replica, &format!("kill -CONT {receiver}")).await;
        sandbox.ready("shop", READY).await;
        let rows = "SELECT count(*) FROM public.churn";
        until("the replica has it all", SOON, || async {
            let rows = psql(&sandbox, replica, rows).await;
            if rows == "120000" { Ok(()) } else { Err(rows) }
        })
        .await;
    });
}

#[test]
fn a_volume_is_told_before_it_is_full() {
    if !Cluster::is_local() {
        return;
    }
    shared("filling", async |sandbox| {
        let storage = json!({"size": "512Mi", "storageClassName": "growable"});
        sandbox.create(database("shop", json!({"storage": storage}))).await;
        sandbox.ready("shop", READY).await;
        let filler = "/var/lib/postgresql/data/filler";
        let fill = format!(
            "set -- $(df --block-size=1M --output=size,used,avail /var/lib/postgresql/data | tail -n 1); \
             head -c $(( ($3 - $1 * 13 / 100) * 1048576 )) /dev/zero > {filler}; sync"
        );
        sandbox.exec("shop-db-0", &fill).await;
        // The agent may have measured it while it was filled.
        let told = |found: &ServiceDatabase| {
            condition(found, "VolumeNearlyFull")
                .is_some_and(|told| told.reason == "VolumeFilling" && told.message.contains("shop-db-0 is 85 % full"))
        };
        let found = sandbox.wait("shop-db-0 is reported as 85 % full", "shop", SOON, told).await;
        assert_eq!(condition(&found, "Ready").expect("a condition").status, "True", "{}", describe(&found));
        sandbox.exec("shop-db-0", &format!("rm {filler}; sync")).await;
        sandbox.condition("shop", "VolumeNearlyFull", "False", "VolumeHasRoom", SOON).await;

        // What a team sets itself is held against the volume.
        let parameters = json!({"spec": {"postgres": {"parameters": {"max_wal_size": "1GB"}}}});
        sandbox.patch::<ServiceDatabase>("shop", &parameters).await;
        let told = sandbox.condition("shop", "Ready", "False", "InvalidSpec", SOON).await;
        assert!(told.message.contains("max_wal_size = 1GB") && told.message.contains("512 MB"), "{}", told.message);
    });
}
