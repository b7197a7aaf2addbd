//! The node of the primary is cut off in the stages of a major upgrade: it ends with one version that serves, and no
//! acknowledged row is lost. It takes minutes, and cuts nodes off: `dev/campaigns.sh upgrade_campaign`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use servicedb::api::{RequestState, ServiceDatabase, UpgradePhase, UpgradeStatus};

use crate::cluster_faults::{Fault, THIS_MACHINE, operator_on_this_machine, three_nodes};
use crate::harness::{
    Cluster, NOTES, READY, Sandbox, Writer, alone, condition, config_map, database, describe, plugin, until,
};

/// How long the node is away: longer than Patroni's lease.
const AWAY: Duration = Duration::from_secs(70);

async fn upgrade(sandbox: &Sandbox, name: &str) -> Option<UpgradeStatus> {
    sandbox.get(name).await.status?.upgrade.map(|upgrade| *upgrade)
}

/// Whether both instances serve, one streaming from the other.
fn is_whole(found: &ServiceDatabase) -> bool {
    let instances = found.status.as_ref().and_then(|status| status.instances.as_deref());
    instances == Some("2/2") && condition(found, "SynchronousReplication").is_some_and(|told| told.status == "True")
}

/// An upgrade in one of whose stages the primary's node is away.
async fn cut_off_in(sandbox: &Arc<Sandbox>, name: &str, stages: &[UpgradePhase]) {
    // The API server's machine is never cut off.
    let term =
        json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [THIS_MACHINE]}]});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
    let spec = json!({
        "instances": 2, "storage": {"size": "1Gi"}, "postgres": {"version": "17"}, "backup": {"enabled": false},
        "scheduling": {"affinity": {"nodeAffinity": required}},
        "migrations": {"source": {"configMap": {"name": "migrations"}}},
    });
    sandbox.create(database(name, spec)).await;
    sandbox.ready(name, READY).await;
    sandbox.wait("both instances serve", name, READY, is_whole).await;
    let writer = Writer::start(sandbox.clone(), name);
    writer.goes_on(20).await;

    sandbox.patch::<ServiceDatabase>(name, &json!({"spec": {"postgres": {"version": "18"}}})).await;
    until("the upgrade is pending", READY, || async {
        let phase = upgrade(sandbox, name).await.map(|upgrade| upgrade.phase);
        if phase == Some(UpgradePhase::Pending) { Ok(()) } else { Err(format!("{phase:?}")) }
    })
    .await;
    let primary = sandbox.primary(name).await;
    let pods = sandbox.pods(name).await;
    let pod = pods.into_iter().find(|pod| pod.metadata.name.as_ref() == Some(&primary));
    let node = pod.and_then(|pod| pod.spec?.node_name).expect("the primary's node");
    let asked = plugin(sandbox, &["upgrade", name, "--yes", "--timeout", "0"]).await;
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    until(&format!("the upgrade is {stages:?}"), READY, || async {
        match upgrade(sandbox, name).await {
            Some(upgrade) if stages.contains(&upgrade.phase) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let cut = Fault::cut(&node).await;
    tokio::time::sleep(AWAY).await;
    let meanwhile = upgrade(sandbox, name).await.map(|upgrade| (upgrade.phase, upgrade.message));
    println!("{name}: {node} was away, and the upgrade {meanwhile:?}");
    cut.mend().await;

    let ended = until("the upgrade has ended", READY * 4, || async {
        let found = upgrade(sandbox, name).await.ok_or("no upgrade")?;
        let state = found.last_request.as_ref().map(|request| request.state);
        if matches!(state, Some(RequestState::Done | RequestState::Failed)) {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    println!("{name}: {ended:?}");
    let version = match ended.phase {
        UpgradePhase::Upgraded => "18.",
        UpgradePhase::Failed => "17.",
        _ => panic!("it ended between the versions: {ended:?}"),
    };
    let found = sandbox.wait("both instances serve", name, READY * 2, is_whole).await;
    let serves = found.status.as_ref().and_then(|status| status.postgres_version.as_deref()).unwrap_or_default();
    assert!(serves.starts_with(version), "{ended:?}, and it runs {serves}: {}", describe(&found));
    writer.goes_on(20).await;
    writer.all_are_there(sandbox, name).await;
    sandbox.delete::<ServiceDatabase>(name).await;
}

#[test]
#[ignore = "takes minutes, and cuts nodes off: dev/campaigns.sh upgrade_campaign"]
fn an_upgrade_ends_with_one_version_if_the_primarys_node_is_cut_off() {
    if !Cluster::is_local() {
        return;
    }
    alone("upgrade-nodes", async |sandbox: Arc<Sandbox>| {
        three_nodes(&sandbox).await;
        operator_on_this_machine(&sandbox).await;
        sandbox.create(config_map("migrations", &[NOTES])).await;
        for (name, stages) in [
            ("rehearsing", &[UpgradePhase::Rehearsing][..]),
            ("stopping", &[UpgradePhase::Stopping, UpgradePhase::Switching]),
            ("switching", &[UpgradePhase::Switching]),
        ] {
            cut_off_in(&sandbox, name, stages).await;
        }
    });
}
