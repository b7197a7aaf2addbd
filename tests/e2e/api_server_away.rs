//! Without the operator, without the API server, and with a slow etcd: databases keep serving, and
//! status is updated afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::cluster_faults::{Door, Fault, Journal, address, api_server_hangs, etcd_slow, leader, may_fail_over, shop};
use crate::harness::{Cluster, OPERATOR_NAMESPACE, Operator, READY, SOON, Sandbox, alone, condition, plugin, until};

/// How long the API server is stopped: longer than any lease, retry or timeout of Patroni.
const AWAY: Duration = Duration::from_secs(75);
/// How soon after it took the lead a primary continues without the API server.
const FAILSAFE_KNOWN: Duration = Duration::from_secs(5);
/// Shorter than what remains of the lease's time for which replicas believed the leader at its last call.
const BELIEVED_SECONDS: f64 = 8.0;
/// A longer time without writes is an outage.
const OUTAGE_SECONDS: f64 = 30.0;

/// The names of the databases, and their numbers of instances.
const SIZES: [(&str, i32); 2] = [("three", 3), ("single", 1)];

/// All parts share the databases: creating them for each would take longer.
#[test]
fn databases_serve_on_without_who_looks_after_them() {
    alone("away", async |sandbox| {
        for (name, instances) in SIZES {
            shop(&sandbox, name, json!({"instances": instances})).await;
        }
        may_fail_over(&sandbox, "three").await;
        // Not on an existing cluster: the test stops the API server.
        if Cluster::is_local() {
            println!("the API server is stopped");
            api_server_stopped(&sandbox).await;
            println!("the API server hangs");
            api_server_hanging(&sandbox).await;
            println!("a switchover right after that");
            switchover_after_it(&sandbox).await;
            println!("etcd is slow");
            slow_etcd(&sandbox).await;
        }
        println!("a failover without an operator");
        no_operator(&sandbox).await;
    });
}

/// Without an API server no lease can be held. Members that reach one another continue
/// (Patroni's failsafe mode), and a single instance has no competitor.
async fn api_server_stopped(sandbox: &Sandbox) {
    let mut before = Vec::new();
    for (name, _) in SIZES {
        before.push((name, sandbox.primary(name).await, Journal::start(Door::of(sandbox, name).await).await));
    }
    let all = started(sandbox).await;

    // Patroni reads back the members of failsafe mode some seconds after the lead was taken.
    tokio::time::sleep(FAILSAFE_KNOWN).await;
    let away = Fault::api_server_stopped().await;
    // There is no event to wait for, only time.
    tokio::time::sleep(AWAY).await;
    let answer = sandbox.cluster.client.apiserver_version().await;
    assert!(answer.is_err(), "the API server was there all the time");
    away.mend().await;
    for (_, _, journal) in &before {
        journal.goes_on().await;
    }

    for (name, old, journal) in before {
        // A change of spec shows that the operator is back, too: Ready for it is a new status.
        until("the API server takes a change", SOON, || async {
            let (api, parameters) = (sandbox.api::<ServiceDatabase>(), kube::api::PatchParams::default());
            let patched = api.patch(name, &parameters, &kube::api::Patch::Merge(&rotated_each(1))).await;
            patched.map(drop).map_err(|error| error.to_string())
        })
        .await;
        sandbox.ready(name, READY).await;
        assert_eq!(sandbox.primary(name).await, old, "the primary of {name}");
        served_by_one(sandbox, name, journal).await;
    }
    assert_eq!(started(sandbox).await, all, "a container was started again, or a pod is another");
}

/// A change of spec that the operator handles and that changes nothing in the database.
fn rotated_each(days: u32) -> serde_json::Value {
    json!({"spec": {"credentials": {"rotationPeriodSeconds": days * 86400}}})
}

/// An API server that hangs executes, when it continues, requests whose sender no longer waits:
/// also a renewal of the lease, with which the next one then conflicts. That is not another leader.
async fn api_server_hanging(sandbox: &Sandbox) {
    may_fail_over(sandbox, "three").await;
    let (mut before, mut journals) = (Vec::new(), Vec::new());
    for (name, _) in SIZES {
        before.push((name, postmasters(sandbox, name).await));
        journals.push((name, Journal::start(Door::of(sandbox, name).await).await));
    }
    for seconds in [40, 50] {
        api_server_hangs(seconds).await;
        // Wait for some of Patroni's loops: there is no event if it does not react.
        tokio::time::sleep(Duration::from_secs(15)).await;
        for (_, journal) in &journals {
            journal.goes_on().await;
        }
    }
    for (name, started) in before {
        sandbox.ready(name, READY).await;
        assert_eq!(postmasters(sandbox, name).await, started, "a PostgreSQL of {name} was started again");
    }
    for (name, journal) in journals {
        served_by_one(sandbox, name, journal).await;
    }
}

/// The replicas have believed the leader without the API server: a lease that it gives up afterwards passes at once, and
/// not after another one's time.
async fn switchover_after_it(sandbox: &Sandbox) {
    // A machine that stalls lengthens one gap; replicas that believe the former leader lengthen each.
    let mut gaps: Vec<f64> = Vec::new();
    while gaps.iter().all(|gap| *gap >= BELIEVED_SECONDS) {
        assert!(gaps.len() < 2, "for {gaps:?} s nobody led");
        gaps.push(switchover_after_a_hang(sandbox).await);
    }
}

/// The longest time without a write, in seconds.
async fn switchover_after_a_hang(sandbox: &Sandbox) -> f64 {
    may_fail_over(sandbox, "three").await;
    let old = sandbox.primary("three").await;
    let addresses = addresses(sandbox, "three").await;
    api_server_hangs(40).await;
    // The leader renews its lease every five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let journal = Journal::start(Door::of(sandbox, "three").await).await;
    let output = plugin(sandbox, &["switchover", "three"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    journal.moves_from(&addresses[&old]).await;
    let (_, gap) = journal.end(sandbox, "three").await;
    sandbox.ready("three", READY).await;
    gap
}

/// An etcd that is stopped for most of the time: the lease is renewed late, but in time.
async fn slow_etcd(sandbox: &Sandbox) {
    let old = sandbox.primary("three").await;
    let outside = Journal::start(Door::of(sandbox, "three").await).await;
    let all = started(sandbox).await;
    etcd_slow(30).await;
    outside.goes_on().await;
    sandbox.patch::<ServiceDatabase>("three", &rotated_each(2)).await;
    sandbox.ready("three", READY).await;
    assert_eq!(sandbox.primary("three").await, old);
    served_by_one(sandbox, "three", outside).await;
    assert_eq!(started(sandbox).await, all, "a container was started again, or a pod is another");
}

/// The operator has no part in a failover: it happens without one, and the next operator reports it.
async fn no_operator(sandbox: &Sandbox) {
    may_fail_over(sandbox, "three").await;
    let door = Door::of(sandbox, "three").await;
    let outside = Journal::start(door.clone()).await;
    let old = sandbox.primary("three").await;
    let addresses = addresses(sandbox, "three").await;

    let operator = Operator::of(sandbox.cluster);
    let away = Fault::operator_away(&operator).await;
    until("the operator is away", READY, || async {
        let pods: Api<Pod> = Api::namespaced(sandbox.cluster.client.clone(), OPERATOR_NAMESPACE);
        let its = ListParams::default().labels("app.kubernetes.io/component=operator");
        let left = pods.list(&its).await.map_err(|error| error.to_string())?.items;
        if left.is_empty() { Ok(()) } else { Err(format!("{} pods", left.len())) }
    })
    .await;
    sandbox.delete::<Pod>(&old).await;
    let first = outside.moves_from(&addresses[&old]).await;
    let new = leader(sandbox, "three").await.expect("a leader");
    assert_ne!(new, old);
    assert_eq!(first.server, addresses[&new]);
    door.leads_to(&addresses[&new], 20).await;
    outside.goes_on().await;
    // No operator runs, so this status is written after its return.
    assert_eq!(sandbox.primary("three").await, old, "status was written without an operator");

    away.mend().await;
    let caught_up = |found: &ServiceDatabase| {
        let told = found.status.as_ref().and_then(|status| status.primary.as_deref());
        let ready = condition(found, "Ready").is_some_and(|condition| condition.status == "True");
        ready && told == Some(new.as_str())
    };
    sandbox.wait("status tells the new primary and Ready", "three", READY, caught_up).await;
    outside.goes_on().await;
    outside.end(sandbox, "three").await;
}

/// When the PostgreSQL of each pod was started.
async fn postmasters(sandbox: &Sandbox, name: &str) -> BTreeMap<String, String> {
    let mut started = BTreeMap::new();
    for pod in sandbox.pods(name).await {
        let pod = pod.name_any();
        let output = sandbox.exec(&pod, "psql -XAt -d postgres -c 'SELECT pg_postmaster_start_time()'").await;
        assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
        started.insert(pod, String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    started
}

async fn addresses(sandbox: &Sandbox, name: &str) -> BTreeMap<String, String> {
    sandbox.pods(name).await.iter().map(|pod| (pod.name_any(), address(pod))).collect()
}

/// Each pod's uid, and the number of restarts of its container.
async fn started(sandbox: &Sandbox) -> BTreeMap<String, (Option<String>, i32)> {
    let all = sandbox.api::<Pod>().list(&ListParams::default().labels("servicedb.dev/scope")).await.expect("the pods");
    let restarts = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
        statuses.iter().map(|status| status.restart_count).sum()
    };
    all.iter().map(|pod| (pod.name_any(), (pod.uid(), restarts(pod)))).collect()
}

/// One pod acknowledged all writes, without a long gap.
async fn served_by_one(sandbox: &Sandbox, name: &str, journal: Journal) {
    let (entries, gap) = journal.end(sandbox, name).await;
    let server = &entries.first().expect("a write").server;
    let others: Vec<_> = entries.iter().filter(|entry| entry.server != *server).collect();
    assert!(others.is_empty(), "{name}: the primary changed; first: {:?}", others[0]);
    assert!(gap < OUTAGE_SECONDS, "{name}: for {gap} s nothing was written");
}
