//! The first initialisation, killed at several points: the result is either no database or one
//! complete database.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use serde_json::json;
use servicedb::api::ServiceDatabase;
use servicedb::contract::pod::VOLUME;

use crate::harness::{READY, SOON, Sandbox, column, database, shared, until};

/// What the volume shows when everything in the container is killed, in the order in which a
/// first start comes to it.
const POINTS: [(&str, &str); 6] = [
    ("initdb has begun", "-d pgdata.new"),
    ("initdb has made its folders", "-d pgdata.new/global"),
    ("the bootstrap writes catalogs", "-e pgdata.new/base/1/PG_VERSION"),
    ("template0 is being copied", "-d pgdata.new/base/4"),
    ("the data has its name", "-d pgdata"),
    ("the server has started", "-e pgdata/postmaster.pid"),
];

/// So little that each point is met, on whichever machine.
const LIMIT: &str = "120m";
/// How often a point may be missed: who watches comes into a container that has started, and
/// may come too late.
const TRIES: usize = 6;

#[test]
fn an_initialisation_that_is_killed_leaves_nothing_or_a_whole_database() {
    shared("initdb", async |sandbox| {
        let mut name = create(&sandbox, 0).await;
        let mut missed = 0;
        for (point, condition) in POINTS {
            while !kill(&sandbox, &name, point, condition).await {
                missed += 1;
                assert!(missed < TRIES, "{point}: [ {condition} ] was over before the watch began, {missed} times");
                sandbox.delete::<ServiceDatabase>(&name).await;
                name = create(&sandbox, missed).await;
            }
        }
        let (pod, set) = (format!("{name}-db-0"), format!("{name}-db"));
        let fast = json!({"spec": {"resources": {"limits": null}}});
        sandbox.patch::<ServiceDatabase>(&name, &fast).await;
        until("the pods are made without the limit", SOON, || async {
            let set = sandbox.api::<StatefulSet>().get(&set).await;
            let text = set.map_err(|error| error.to_string())?.spec.map(|spec| json!(spec).to_string());
            if text.is_some_and(|text| !text.contains(LIMIT)) { Ok(()) } else { Err("the limit is there".to_owned()) }
        })
        .await;
        sandbox.delete::<Pod>(&pod).await;
        sandbox.ready(&name, READY).await;

        let connection = sandbox.connect(&name).await;
        let system = column(&connection, "SELECT system_identifier FROM pg_control_system()").await;
        let known = sandbox.api::<ConfigMap>().get(&format!("{set}-config")).await.expect("Patroni's ConfigMap");
        assert_eq!(system.expect("a system"), known.annotations().get("initialize").cloned().as_slice());
        let metadata = sandbox.vault().metadata(&sandbox.vault_names(&name).runtime()).await.expect("a record");
        assert_eq!(metadata["current_version"], json!(1), "the credentials were promoted more than once");
        let left = sandbox.exec(&pod, &format!("ls {VOLUME}")).await;
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        assert!(!left.contains("pgdata.new"), "{left}");
    });
}

/// Creates a database that starts slowly; its name.
async fn create(sandbox: &Sandbox, number: usize) -> String {
    let name = format!("shop-{number}");
    let slow = json!({"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": LIMIT}});
    sandbox.create(database(&name, json!({"resources": slow, "deletionPolicy": "Delete"}))).await;
    name
}

/// Kills all that runs in the container when the volume shows this, and has another pod made,
/// since one that ends again and again is started later and later. `false`: the
/// initialisation was further already.
async fn kill(sandbox: &Sandbox, name: &str, point: &str, condition: &str) -> bool {
    let pod = &format!("{name}-db-0");
    let before = until("the container runs", READY, || async {
        let pod = sandbox.api::<Pod>().get_opt(pod).await.map_err(|error| error.to_string())?.ok_or("no pod")?;
        let statuses = pod.status.clone().unwrap_or_default().container_statuses.unwrap_or_default();
        let runs = statuses.iter().any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
        let ends = pod.metadata.deletion_timestamp.is_some();
        if runs && !ends { Ok(pod) } else { Err(format!("running: {runs}, ending: {ends}")) }
    })
    .await;
    // The shell waits by itself: a program started for each wait would take the processor time
    // that initdb has so little of.
    let missed = if condition.contains("pgdata.new") { "[ -d pgdata ]" } else { "false" };
    let script = format!(
        "cd {VOLUME}; bash -c 'exec 3<> <(:); \
         until [ {condition} ]; do if {missed}; then exit 1; fi; read -rt 0.01 -u 3; done; true' \
         || {{ echo missed; exit; }}; \
         echo killed at: $(ls -d pgdata*) $(ls pgdata.new 2>/dev/null | wc -l); kill -9 -1"
    );
    let killed = tokio::time::timeout(READY, sandbox.exec(pod, &script)).await;
    let killed = killed.unwrap_or_else(|_| panic!("{point}: [ {condition} ] was not met"));
    let told = String::from_utf8_lossy(&killed.stdout).into_owned();
    if told.starts_with("missed") {
        println!("{point}: missed");
        return false;
    }
    assert!(told.starts_with("killed at:"), "{point}: {told} {}", String::from_utf8_lossy(&killed.stderr));
    println!("{point}: {}", told.trim_end());
    until("the killed container is noticed", SOON, || async {
        let pod = sandbox.api::<Pod>().get(pod).await.map_err(|error| error.to_string())?;
        let statuses = pod.status.clone().unwrap_or_default().container_statuses.unwrap_or_default();
        let restarts: i32 = statuses.iter().map(|status| status.restart_count).sum();
        let ended = statuses.iter().any(|status| status.state.as_ref().is_some_and(|state| state.running.is_none()));
        if restarts > 0 || ended { Ok(()) } else { Err("the container runs on".to_owned()) }
    })
    .await;
    sandbox.delete::<Pod>(pod).await;
    until("another pod is made", READY, || async {
        let now = sandbox.api::<Pod>().get_opt(pod).await.map_err(|error| error.to_string())?.ok_or("no pod")?;
        if now.uid() == before.uid() { Err("it is ending".to_owned()) } else { Ok(()) }
    })
    .await;
    true
}
