//! Nodes that are cut off, drained, or without a kubelet.
//!
//! They need the local cluster with three nodes (`NODES=3 make cluster`), since they take its
//! nodes' network and kubelets away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::cluster_faults::{Door, Fault, Inside, Journal, Scene, address, clock, leader, node, shop, three_nodes};
use crate::harness::cluster::config;
use crate::harness::{
    Cluster, Load, Operator, READY, SOON, Sandbox, alone, column, condition, counter, database, describe, is_ready,
    pooler_address, run, shared, until,
};

/// By themselves on different nodes, also beside a node affinity; and where a constraint says so, in
/// different zones, although the node affinity draws them to one node.
#[test]
fn instances_are_spread_over_nodes_and_zones() {
    if !Cluster::is_local() {
        // Another cluster has other nodes and zones.
        return;
    }
    shared("spread", async |sandbox| {
        three_nodes(&sandbox).await;
        let drawn = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": {"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["dev-2"]},
            ]},
        }]}, "podAntiAffinity": {}});
        let constraint = json!({
            "topologyKey": "topology.kubernetes.io/zone",
            "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"servicedb.dev/scope": "zoned-db"}},
        });
        let zoned = json!({"affinity": drawn.clone(), "topologySpreadConstraints": [constraint]});
        let preferred = json!({"affinity": {"nodeAffinity": drawn["nodeAffinity"]}});
        // One after the other, and gone once its pods have nodes: twelve starting at once starve each other.
        for (name, scheduling, wanted) in [
            ("plain", json!({}), 3),
            ("preferred", preferred, 3),
            ("zoned", zoned, 3),
            // It shows that without the constraint they would not be where they are.
            ("drawn", json!({"affinity": drawn}), 1),
        ] {
            sandbox.create(database(name, json!({"instances": 3, "scheduling": scheduling}))).await;
            let nodes = until("every pod has a node", READY, || async {
                let found: Vec<_> =
                    sandbox.pods(name).await.iter().filter_map(|pod| pod.spec.clone()?.node_name).collect();
                if found.len() == 3 { Ok(BTreeSet::from_iter(found)) } else { Err(format!("{name}: {found:?}")) }
            })
            .await;
            assert_eq!(nodes.len(), wanted, "{name}: {nodes:?}");
            sandbox.delete::<ServiceDatabase>(name).await;
        }
    });
}

/// One database for all faults of nodes: creating one for each would take longer.
#[test]
fn no_node_takes_a_database_with_it() {
    if !Cluster::is_local() {
        // Not on an existing cluster: the test disturbs nodes.
        return;
    }
    alone("nodes", async |sandbox| {
        let scene = Scene::new(&sandbox).await;
        println!("the node of the primary is cut off");
        primary_cut_off(&scene).await;
        println!("the node of the synchronous standby is cut off");
        standby_cut_off(&scene).await;
        println!("the kubelet of the primary's node is stopped");
        kubelet_stopped(&scene).await;
        // Of those with the scene the last: its pods are elsewhere afterwards.
        println!("the primary's node is drained");
        drained(&scene).await;
        println!("the node of a single instance is drained");
        drained_of_a_single_instance(&sandbox).await;
    });
}

/// The primary's node loses its network: another instance leads, and before that the old one has
/// stopped accepting writes by itself.
async fn primary_cut_off(scene: &Scene) {
    let sandbox = &scene.sandbox;
    let (old, node) = scene.primary_elsewhere().await;
    let old_address = scene.addresses[&old].clone();
    let door = Door::of(sandbox, "shop").await;
    let outside = Journal::start(door.clone()).await;
    let inside = Inside::start(&sandbox.api::<Pod>().get(&old).await.expect("the primary's pod")).await;

    let cut = Fault::cut(&node).await;
    let cut_at = clock();
    let first = outside.moves_from(&old_address).await;
    let is_another = |found: &ServiceDatabase| {
        let primary = found.status.as_ref().and_then(|status| status.primary.as_ref());
        primary.is_some_and(|primary| *primary != old)
    };
    let found = sandbox.wait("another instance is the primary", "shop", READY, is_another).await;
    let new = found.status.and_then(|status| status.primary).expect("a primary");
    // The unreachable pod is not among the Service's endpoints.
    door.leads_to(&scene.addresses[&new], 20).await;
    assert_eq!(first.server, scene.addresses[&new], "the first to accept a write is another than the primary");
    outside.goes_on().await;
    assert!(scene.is_available().await, "{}", describe(&sandbox.get("shop").await));

    // Each side by its own clock's word, which is the same machine's.
    let promoted = promoted_at(sandbox, &new).await;
    let alone: Vec<_> = inside.entries().into_iter().filter(|entry| entry.began > cut_at).collect();
    let last = alone.last().expect("a write that the pod accepted after it was cut off: else nothing is shown");
    let (last, first) = (last.ended - cut_at, first.began - cut_at);
    println!(
        "after the cut {old} accepted {} writes until {last:.1} s; {new} was promoted at {:.1} s, and took the \
         first write at {first:.1} s",
        alone.len(),
        promoted - cut_at
    );
    assert!(last < first, "two primaries: {old} accepted a write at {last} s, {new} at {first} s");
    assert!(last < promoted - cut_at, "{old} accepted a write after the promotion of {new}");

    // Status reports the fault before the repair, so that Ready afterwards is a new status.
    scene.instances("2/3").await;
    cut.mend().await;
    sandbox.ready("shop", READY).await;
    scene.instances("3/3").await;
    assert_eq!(scene.primary().await, new, "the primary changed again");
    let more = inside.entries().into_iter().filter(|entry| entry.ended > last + cut_at + 1.0).count();
    assert_eq!(more, 0, "{old} accepted writes later");
    let mine: BTreeSet<_> = alone.iter().map(|entry| entry.id.to_string()).collect();
    for pod in [&old, &new] {
        // A replica may be some moments behind.
        until("what only the old primary had is gone", SOON, || async {
            let rows = inside_of(sandbox, pod, "SELECT id FROM local_writes").await?;
            let left: Vec<_> = rows.lines().filter(|row| mine.contains(*row)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{pod} has {left:?}")) }
        })
        .await;
    }
    until("the old primary follows", SOON, || async {
        let state = inside_of(sandbox, &old, "SELECT status FROM pg_stat_wal_receiver").await?;
        if state == "streaming" { Ok(()) } else { Err(format!("its receiver is {state:?}")) }
    })
    .await;
    drop(inside);
    outside.end(sandbox, "shop").await;
}

/// When a server was promoted, by the file that it wrote before it accepted anything.
async fn promoted_at(sandbox: &Sandbox, pod: &str) -> f64 {
    let query = "SELECT extract(epoch FROM (pg_stat_file('pg_wal/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) \
                 || '.history')).modification)";
    let text = inside_of(sandbox, pod, query).await.unwrap_or_else(|problem| panic!("{problem}"));
    text.parse().unwrap_or_else(|_| panic!("not a time: {text:?}"))
}

/// Asks a pod's server, whatever its role is.
async fn inside_of(sandbox: &Sandbox, pod: &str, query: &str) -> Result<String, String> {
    let output = sandbox.exec(pod, &format!("psql -XAt -d shop_db -c \"{query}\"")).await;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{pod}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// The node of the standby for which commits wait loses its network: they wait for another, and
/// the primary stays.
async fn standby_cut_off(scene: &Scene) {
    let sandbox = &scene.sandbox;
    // There is one pod on this machine: where the standby is that one, it becomes the primary.
    if scene.nodes[&scene.standby().await] == crate::cluster_faults::THIS_MACHINE {
        scene.switch_over().await;
    }
    let (primary, standby) = (scene.primary().await, scene.standby().await);
    assert_ne!(primary, standby);
    let outside = Journal::start(Door::of(sandbox, "shop").await).await;

    let cut = Fault::cut(&scene.nodes[&standby]).await;
    outside.goes_on().await;
    let names_another = |found: &ServiceDatabase| {
        let told = condition(found, "SynchronousReplication");
        told.is_some_and(|told| told.status == "True" && !told.message.contains(&standby))
    };
    sandbox.wait("commits wait for another standby", "shop", SOON, names_another).await;
    scene.instances("2/3").await;
    assert_eq!(scene.primary().await, primary);
    assert!(scene.is_available().await, "{}", describe(&sandbox.get("shop").await));
    outside.goes_on().await;

    cut.mend().await;
    sandbox.ready("shop", READY).await;
    scene.instances("3/3").await;
    assert_eq!(scene.primary().await, primary);
    let (entries, _) = outside.end(sandbox, "shop").await;
    let servers: BTreeSet<_> = entries.iter().map(|entry| entry.server.as_str()).collect();
    assert_eq!(servers, [scene.addresses[&primary].as_str()].into(), "who accepted writes");
}

/// A node is cordoned and its pods are evicted, as `kubectl drain` does it: the primary goes only
/// once another leads. Clients of a pooler see nothing of it.
async fn drained(scene: &Scene) {
    let sandbox = &scene.sandbox;
    let (old, node_name) = scene.primary_elsewhere().await;
    let outside = Journal::start(Door::of(sandbox, "shop").await).await;
    // The default hold is shorter than a change that a busy machine makes.
    let pooler = json!({"instances": 2, "poolSize": 5, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}, "plannedChanges": {"holdSeconds": 60}});
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"pooler": pooler}})).await;
    let (address, host) = pooler_address(sandbox).await;
    sandbox.ready("shop", READY).await;
    let load = Load::start(address, &host, &sandbox.credentials("shop").await, 6);
    load.goes_on(50).await;
    let before = sandbox.api::<Pod>().get(&old).await.expect("the primary's pod").uid();

    // While nobody empties the node, the lead stays where it is, and so does its pod.
    let evictions = Evictions::of(sandbox).await;
    let refused = evictions.ask(&old).await.expect_err("the primary's pod was evicted while it led");
    assert!(refused.contains(&sandbox.names("shop").primary_budget()), "{refused}");

    let cordon = Fault::cordoned(&node_name).await;
    let refusals = std::sync::Mutex::new(BTreeMap::new());
    until("the primary's pod is evicted", READY, || async {
        match evictions.ask(&old).await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                *refusals.lock().expect("the refusals").entry(refusal.clone()).or_insert(0) += 1;
                Err(refusal)
            }
        }
    })
    .await;
    let led_then = leader(sandbox, "shop").await;
    println!("{old} was evicted after {:?}; then {led_then:?} led", refusals.lock().expect("the refusals"));
    assert_ne!(led_then.as_ref(), Some(&old), "the pod was evicted while it led");
    let is_another = |found: &ServiceDatabase| {
        let primary = found.status.as_ref().and_then(|status| status.primary.as_ref());
        primary.is_some_and(|primary| *primary != old)
    };
    sandbox.wait("another instance is the primary", "shop", READY, is_another).await;
    outside.goes_on().await;

    moved(sandbox, &old, before.as_deref(), &node_name).await;
    sandbox.ready("shop", READY).await;
    load.goes_on(50).await;
    let found = load.stop().await;
    println!("through the pooler: {} rows, longest {:?}", found.acknowledged.len(), found.longest);
    assert!(found.unexpected().is_empty(), "{:?}", found.failures);
    found.is_stored(sandbox, "shop").await;
    cordon.mend().await;
    scene.instances("3/3").await;
    sandbox.ready("shop", READY).await;
    outside.end(sandbox, "shop").await;
}

/// No instance could take over from a single instance, so nothing blocks a drain.
async fn drained_of_a_single_instance(sandbox: &Arc<Sandbox>) {
    shop(sandbox, "single", json!({})).await;
    let connection = sandbox.connect("single").await;
    run(&connection, "INSERT INTO notes VALUES (1, 'x')").await.expect("a write");
    let pod = sandbox.pods("single").await.remove(0);
    let node_name = node(&pod);

    let cordon = Fault::cordoned(&node_name).await;
    let evicted = Evictions::of(sandbox).await.ask(&pod.name_any()).await;
    evicted.unwrap_or_else(|refusal| panic!("the eviction was refused: {refusal}"));
    moved(sandbox, &pod.name_any(), pod.uid().as_deref(), &node_name).await;
    sandbox.ready("single", READY).await;
    cordon.mend().await;
    let connection = sandbox.connect("single").await;
    assert_eq!(column(&connection, "SELECT body FROM notes").await.expect("the row"), ["x"]);
}

/// Evictions, as `kubectl drain` asks for them.
pub struct Evictions {
    pods: Api<Pod>,
}

impl Evictions {
    pub async fn of(sandbox: &Sandbox) -> Self {
        let mut config = config().await.unwrap_or_else(|problem| panic!("{problem}"));
        // By itself the client would ask again for minutes, and nobody would see a refusal.
        config.default_retry = false;
        let client = Client::try_from(config).expect("a client");
        Self { pods: Api::namespaced(client, &sandbox.namespace) }
    }

    /// Asks what an eviction would be told, without one: whether a budget refuses it.
    pub async fn are_refused(&self, pod: &str) -> Result<(), String> {
        let post_options = PostParams { dry_run: true, ..PostParams::default() };
        match self.pods.evict(pod, &EvictParams { post_options, ..EvictParams::default() }).await {
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Evicts a pod, or says which budget refuses.
    async fn ask(&self, pod: &str) -> Result<(), String> {
        match self.pods.evict(pod, &EvictParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 429 => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                Err(causes.map(|cause| cause.message.clone()).collect::<Vec<_>>().join("; "))
            }
            Err(error) => panic!("evicting {pod}: {error}"),
        }
    }
}

/// Waits until a pod of this name is Ready on another node than this.
async fn moved(sandbox: &Sandbox, pod: &str, before: Option<&str>, from: &str) {
    until("the pod is Ready on another node", READY, || async {
        let now = sandbox.api::<Pod>().get_opt(pod).await.map_err(|error| error.to_string())?.ok_or("it is gone")?;
        if now.uid().as_deref() != before && node(&now) != from && is_ready(&now) {
            Ok(())
        } else {
            Err(format!("on {:?}, Ready: {}", node(&now), is_ready(&now)))
        }
    })
    .await;
}

/// A kubelet that is gone says nothing of its pods, and Kubernetes takes them for not Ready. The
/// primary among them serves on, and that is what status tells.
async fn kubelet_stopped(scene: &Scene) {
    let sandbox = &scene.sandbox;
    let (primary, node_name) = scene.primary_elsewhere().await;
    let door = Door::of(sandbox, "shop").await;
    let outside = Journal::start(door.clone()).await;

    let stopped = Fault::kubelet_stopped(&node_name).await;
    until("the primary's pod is taken for not Ready", READY, || async {
        let pod = sandbox.api::<Pod>().get(&primary).await.map_err(|error| error.to_string())?;
        serves_on(scene, &primary).await;
        if is_ready(&pod) { Err("it is Ready".to_owned()) } else { Ok(()) }
    })
    .await;
    // The operator has seen it, and looks again when something is touched.
    scene.instances("2/3").await;
    serves_on(scene, &primary).await;
    looked_again(sandbox).await;
    serves_on(scene, &primary).await;
    door.always_leads_to(&scene.addresses[&primary], 20).await;
    outside.goes_on().await;

    stopped.mend().await;
    sandbox.ready("shop", READY).await;
    scene.instances("3/3").await;
    assert_eq!(scene.primary().await, primary);
    let pod = sandbox.api::<Pod>().get(&primary).await.expect("the primary's pod");
    assert_eq!(address(&pod), scene.addresses[&primary], "the pod is another");
    let (entries, _) = outside.end(sandbox, "shop").await;
    let servers: BTreeSet<_> = entries.iter().map(|entry| entry.server.as_str()).collect();
    assert_eq!(servers, [scene.addresses[&primary].as_str()].into(), "who accepted writes");
}

async fn serves_on(scene: &Scene, primary: &str) {
    let found = scene.sandbox.get("shop").await;
    let told = found.status.as_ref().and_then(|status| status.primary.as_deref());
    assert_eq!(told, Some(primary), "{}", describe(&found));
    let available = condition(&found, "DatabaseAvailable").is_some_and(|condition| condition.status == "True");
    assert!(available, "{}", describe(&found));
}

/// Has the operator look at the database, and waits until it did.
async fn looked_again(sandbox: &Sandbox) {
    const RECONCILED: &str = "servicedb_reconciles_total{outcome=\"ok\"}";
    let operator = Operator::of(sandbox.cluster);
    let before = counter(&operator.metrics().await, RECONCILED);
    let touch = json!({"metadata": {"annotations": {"example.com/touched": "yes"}}});
    sandbox.patch::<ServiceDatabase>("shop", &touch).await;
    until("the operator looked", SOON, || async {
        let now = counter(&operator.metrics().await, RECONCILED);
        if now > before { Ok(()) } else { Err(format!("{now} reconciles")) }
    })
    .await;
}
