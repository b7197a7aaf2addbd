//! Processes that are killed or hang, and lost data: no acknowledged write is lost, and every
//! instance recovers automatically.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::{NOTES, READY, Sandbox, Writer, config_map, database, shared, until};

const KILL_POSTMASTER: &str = "kill -9 $(head -n 1 /var/lib/postgresql/data/pgdata/postmaster.pid)";

async fn begin(sandbox: &Arc<Sandbox>, instances: i32) -> Writer {
    sandbox.create(config_map("migrations", &[NOTES])).await;
    let spec = json!({"instances": instances, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
    sandbox.create(database("shop", spec)).await;
    sandbox.ready("shop", READY).await;
    let writer = Writer::start(sandbox.clone(), "shop");
    writer.goes_on(20).await;
    writer
}

/// Waits until status names another primary: before that it may be the status from before.
async fn another_leads(sandbox: &Sandbox, lost: &str) {
    until("another leads", READY, || async {
        let leads = sandbox.get("shop").await.status.and_then(|status| status.primary);
        if leads.as_ref().is_some_and(|leads| leads != lost) { Ok(()) } else { Err(format!("{leads:?}")) }
    })
    .await;
}

/// The pids of Patroni, which runs by Python.
fn to_patroni(signal: &str) -> String {
    format!(
        "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in python3*patroni*) kill -{signal} ${{p#/proc/}};; esac; done"
    )
}

#[test]
fn postgres_is_killed_and_patroni_is_killed_and_hangs() {
    shared("processes", async |sandbox| {
        let writer = begin(&sandbox, 2).await;
        for (what, script) in [
            ("the postmaster is killed", KILL_POSTMASTER.to_owned()),
            ("Patroni is killed", to_patroni("KILL")),
            ("Patroni is stopped", to_patroni("STOP")),
        ] {
            let leads = sandbox.primary("shop").await;
            let output = sandbox.exec(&leads, &script).await;
            println!("{what} on {leads}: {}", String::from_utf8_lossy(&output.stderr));
            writer.goes_on(20).await;
            // The agent of a stopped Patroni starts another one.
            sandbox.ready("shop", READY).await;
            writer.goes_on(20).await;
        }
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn a_lone_instance_comes_back_by_itself() {
    shared("lone", async |sandbox| {
        let writer = begin(&sandbox, 1).await;
        let before = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid();
        for script in [KILL_POSTMASTER.to_owned(), to_patroni("KILL"), to_patroni("STOP")] {
            sandbox.exec("shop-db-0", &script).await;
            writer.goes_on(20).await;
            sandbox.ready("shop", READY).await;
        }
        assert_eq!(sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid(), before);
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn the_primarys_data_is_gone() {
    shared("pgdata", async |sandbox| {
        let writer = begin(&sandbox, 2).await;
        let lost = sandbox.primary("shop").await;
        sandbox.exec(&lost, &format!("{KILL_POSTMASTER}; rm -rf /var/lib/postgresql/data/pgdata")).await;
        another_leads(&sandbox, &lost).await;
        sandbox.ready("shop", READY).await;
        writer.goes_on(20).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn the_primarys_volume_is_gone() {
    shared("volume", async |sandbox| {
        let writer = begin(&sandbox, 2).await;
        let lost = sandbox.primary("shop").await;
        let claim = format!("data-{lost}");
        let claims = sandbox.api::<PersistentVolumeClaim>();
        let before = claims.get(&claim).await.expect("its claim").uid();
        sandbox.delete::<PersistentVolumeClaim>(&claim).await;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        sandbox.api::<Pod>().delete(&lost, &now).await.expect("its pod is killed");
        until("it has another volume", READY, || async {
            let found = claims.get_opt(&claim).await.map_err(|error| error.to_string())?.ok_or("no claim")?;
            if found.uid() == before { Err("the old claim is there".to_owned()) } else { Ok(()) }
        })
        .await;
        another_leads(&sandbox, &lost).await;
        sandbox.ready("shop", READY).await;
        writer.goes_on(20).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}
