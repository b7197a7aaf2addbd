//! Faults in the local cluster, which are always repaired; and writers that record when and where
//! each of their writes was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::cluster::{context, dev_file};
use crate::harness::postgres::Credentials;
use crate::harness::{
    OPERATOR_NAMESPACE, Operator, READY, SOON, Sandbox, column, condition, config_map, database, login_at, plugin, run,
    until,
};

/// The node that is this machine, and cannot be cut off.
pub const THIS_MACHINE: &str = "dev-1";
/// `local_writes` is for writes without a standby; see [`Inside`].
const TABLES: (&str, &str) = (
    "1_notes.up.sql",
    "CREATE TABLE notes (id bigint PRIMARY KEY, body text NOT NULL); CREATE TABLE local_writes (id bigint PRIMARY KEY);",
);
/// How long a client waits for an answer before it connects again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Now, in seconds of this machine's clock, which is that of all nodes.
pub fn clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_secs_f64()
}

/// A fault that lasts until it is repaired: by the test, or by dropping this, so that a test that
/// panics or times out leaves a healthy cluster.
pub struct Fault {
    mend: Option<Program>,
}

#[derive(Clone)]
struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    fn new(path: PathBuf, arguments: &[&str]) -> Self {
        Self { path, arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() }
    }

    fn fault(arguments: &[&str]) -> Self {
        Self::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/fault.sh"), arguments)
    }

    fn kubectl(arguments: &[&str]) -> Self {
        let built = dev_file("bin/kubectl");
        let path = if built.exists() { built } else { PathBuf::from("kubectl") };
        let context = context().map(|context| format!("--context={context}"));
        Self::new(path, &context.iter().map(String::as_str).chain(arguments.iter().copied()).collect::<Vec<_>>())
    }

    fn run(&self) -> Result<(), String> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stdin(Stdio::null());
        if std::env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty()) {
            command.env("KUBECONFIG", dev_file("kubeconfig"));
        }
        let what = format!("{} {}", self.path.display(), self.arguments.join(" "));
        let output = command.output().map_err(|error| format!("{what}: {error}"))?;
        let said = [output.stdout, output.stderr].concat();
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{what}: {}: {}", output.status, String::from_utf8_lossy(&said)))
        }
    }

    async fn done(self) {
        let ran = tokio::task::spawn_blocking(move || self.run()).await.expect("the program's thread");
        ran.unwrap_or_else(|problem| panic!("{problem}"));
    }
}

impl Fault {
    async fn begin(begin: Program, mend: Program) -> Self {
        // Before the fault: a partly injected fault is repaired, too.
        let fault = Self { mend: Some(mend) };
        begin.done().await;
        fault
    }

    /// A node without a network; its containers run on.
    pub async fn cut(node: &str) -> Self {
        Self::begin(Program::fault(&["cut", node]), Program::fault(&["heal", node])).await
    }

    /// A node without a kubelet; its containers run on.
    pub async fn kubelet_stopped(node: &str) -> Self {
        Self::begin(Program::fault(&["kubelet-stop", node]), Program::fault(&["kubelet-start", node])).await
    }

    /// No API server.
    pub async fn api_server_stopped() -> Self {
        Self::begin(Program::fault(&["apiserver-stop"]), Program::fault(&["apiserver-start"])).await
    }

    /// A node that takes no new pods.
    pub async fn cordoned(node: &str) -> Self {
        Self::begin(Program::kubectl(&["cordon", node]), Program::kubectl(&["uncordon", node])).await
    }

    /// No operator.
    pub async fn operator_away(operator: &Operator) -> Self {
        let pods = operator.pods().await.len().max(1);
        let scaled = |count: usize| {
            let replicas = format!("--replicas={count}");
            let deployment = "deployment/servicedb-operator";
            Program::kubectl(&["--namespace", OPERATOR_NAMESPACE, "scale", deployment, replicas.as_str()])
        };
        Self::begin(scaled(0), scaled(pods)).await
    }

    /// Repairs it now.
    pub async fn mend(mut self) {
        if let Some(mend) = self.mend.clone() {
            mend.done().await;
        }
        self.mend = None;
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let Some(mend) = self.mend.take() else { return };
        if let Err(problem) = mend.run() {
            eprintln!("not repaired, `make cluster install` does it: {problem}");
        }
    }
}

/// Slows etcd down for a number of seconds.
pub async fn etcd_slow(seconds: u32) {
    Program::fault(&["etcd-slow", &seconds.to_string()]).done().await;
}

/// Stops the API server for a number of seconds: it accepts requests, and executes them when it
/// continues.
pub async fn api_server_hangs(seconds: u32) {
    Program::fault(&["apiserver-hang", &seconds.to_string()]).done().await;
}

/// A database of three instances on three nodes, with the data that tests of nodes need.
pub struct Scene {
    /// The test's sandbox.
    pub sandbox: Arc<Sandbox>,
    /// The node of each pod.
    pub nodes: BTreeMap<String, String>,
    /// The address of each pod.
    pub addresses: BTreeMap<String, String>,
}

impl Scene {
    /// Creates the database `shop`.
    pub async fn new(sandbox: &Arc<Sandbox>) -> Self {
        let sandbox = sandbox.clone();
        three_nodes(&sandbox).await;
        operator_on_this_machine(&sandbox).await;
        shop(&sandbox, "shop", json!({"instances": 3})).await;
        may_fail_over(&sandbox, "shop").await;
        let pods = sandbox.pods("shop").await;
        let nodes: BTreeMap<_, _> = pods.iter().map(|pod| (pod.name_any(), node(pod))).collect();
        let addresses = pods.iter().map(|pod| (pod.name_any(), address(pod))).collect();
        let different: std::collections::BTreeSet<_> = nodes.values().collect();
        assert_eq!(different.len(), 3, "one node each: {nodes:?}");
        Self { sandbox, nodes, addresses }
    }

    /// The primary, from status.
    pub async fn primary(&self) -> String {
        self.sandbox.primary("shop").await
    }

    /// The synchronous standby, from status.
    pub async fn standby(&self) -> String {
        let standby = may_fail_over(&self.sandbox, "shop").await;
        assert!(self.nodes.contains_key(&standby), "{standby:?} is no pod");
        standby
    }

    /// Hands the lead over to the synchronous standby.
    pub async fn switch_over(&self) {
        let standby = self.standby().await;
        let output = plugin(&self.sandbox, &["switchover", "shop", "--to", &standby]).await;
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        self.sandbox.ready("shop", READY).await;
        may_fail_over(&self.sandbox, "shop").await;
    }

    /// A primary whose node can be cut off, and that node.
    pub async fn primary_elsewhere(&self) -> (String, String) {
        // There is one pod on this machine, so it is not the standby, too.
        if self.nodes[&self.primary().await] == THIS_MACHINE {
            self.switch_over().await;
        }
        let primary = self.primary().await;
        let node = self.nodes[&primary].clone();
        assert_ne!(node, THIS_MACHINE, "{primary}");
        (primary, node)
    }

    /// Waits until status reports this number of ready instances.
    pub async fn instances(&self, wanted: &str) {
        let told = |found: &servicedb::api::ServiceDatabase| {
            found.status.as_ref().and_then(|status| status.instances.as_deref()) == Some(wanted)
        };
        self.sandbox.wait(&format!("{wanted} instances are ready"), "shop", READY, told).await;
    }

    /// Whether the primary answers, from status.
    pub async fn is_available(&self) -> bool {
        let found = self.sandbox.get("shop").await;
        condition(&found, "DatabaseAvailable").is_some_and(|condition| condition.status == "True")
    }
}

/// Creates a database with the tables of the writers.
pub async fn shop(sandbox: &Sandbox, name: &str, spec: Value) {
    if sandbox.api::<ConfigMap>().get_opt("migrations").await.expect("a look").is_none() {
        sandbox.create(config_map("migrations", &[TABLES])).await;
    }
    let mut with_migrations = json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}});
    crate::harness::database::merge(&mut with_migrations, spec);
    sandbox.create(database(name, with_migrations)).await;
    sandbox.ready(name, READY).await;
}

/// Waits until status reports that commits wait for a standby, which it returns, and Patroni has
/// recorded it; otherwise no instance could take over from a primary that fails now.
pub async fn may_fail_over(sandbox: &Sandbox, name: &str) -> String {
    let [.., sync] = sandbox.names(name).patroni_config_maps();
    // Two reads: the record may change between them.
    until("status and Patroni's record name the same primary and standby", SOON, || async {
        let message = sandbox.condition(name, "SynchronousReplication", "True", "Streaming", SOON).await.message;
        let primary = sandbox.get(name).await.status.and_then(|status| status.primary);
        let record = sandbox.api::<ConfigMap>().get(&sync).await.map_err(|error| error.to_string())?;
        let written = |key: &str| record.annotations().get(key).cloned();
        let standby = message.rsplit(' ').next().unwrap_or_default().to_owned();
        let (told, written) = ((primary, Some(standby.clone())), (written("leader"), written("sync_standby")));
        if told == written { Ok(standby) } else { Err(format!("{told:?} ({message}), and {written:?} in the record")) }
    })
    .await
}

/// The node of a pod.
pub fn node(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

/// The address of a pod.
pub fn address(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default()
}

/// The leader, from Patroni's record in the API.
pub async fn leader(sandbox: &Sandbox, name: &str) -> Option<String> {
    let [_, leader, ..] = sandbox.names(name).patroni_config_maps();
    let map = sandbox.api::<ConfigMap>().get(&leader).await.expect("Patroni's ConfigMap");
    map.annotations().get("leader").filter(|leader| !leader.is_empty()).cloned()
}

/// The cluster's nodes, of which there must be three.
///
/// # Panics
/// If there are fewer.
pub async fn three_nodes(sandbox: &Sandbox) -> Vec<String> {
    let nodes: Api<Node> = Api::all(sandbox.cluster.client.clone());
    let names: Vec<_> =
        nodes.list(&ListParams::default()).await.expect("the nodes").iter().map(ResourceExt::name_any).collect();
    assert!(names.len() >= 3, "this test needs three nodes, and there are {names:?}; run `NODES=3 make cluster`");
    names
}

/// Moves the operator to this machine's node, so that it is not cut off.
pub async fn operator_on_this_machine(sandbox: &Sandbox) {
    let operator = Operator::of(sandbox.cluster);
    if operator.pods().await.iter().all(|pod| node(pod) == THIS_MACHINE) {
        return;
    }
    let mut cordons = Vec::new();
    for name in three_nodes(sandbox).await.iter().filter(|name| *name != THIS_MACHINE) {
        cordons.push(Fault::cordoned(name).await);
    }
    operator.delete_pods(false).await;
    operator.leader(READY).await;
    for cordon in cordons {
        cordon.mend().await;
    }
    let nodes: Vec<_> = operator.pods().await.iter().map(node).collect();
    assert!(nodes.iter().all(|node| node == THIS_MACHINE), "the operator is on {nodes:?}");
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The row's id.
    pub id: u64,
    /// The address of the pod that wrote it; empty where only one can have.
    pub server: String,
    /// When it was begun; see [`clock`].
    pub began: f64,
    /// When it was acknowledged.
    pub ended: f64,
}

/// How to log in through a database's primary Service, without asking the API for it again.
#[derive(Clone)]
pub struct Door {
    address: IpAddr,
    host: String,
    credentials: Credentials,
}

impl Door {
    /// Looks it up.
    pub async fn of(sandbox: &Sandbox, name: &str) -> Self {
        let names = sandbox.names(name);
        Self {
            address: sandbox.address(&names.base()).await,
            host: names.primary_host(),
            credentials: sandbox.credentials(name).await,
        }
    }

    async fn enter(&self) -> Result<(servicedb::postgres::Connection, String), String> {
        let connect = async {
            let connection =
                login_at(self.address, &self.host, &self.credentials).await.map_err(|error| error.to_string())?;
            let query = "SELECT host(inet_server_addr())";
            let found = column(&connection, query).await.map_err(|refusal| refusal.message)?;
            Ok((connection, found.into_iter().next().unwrap_or_default()))
        };
        tokio::time::timeout(PATIENCE, connect).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// Waits until a number of logins, one after another, all reach this pod: for a Service that has just changed.
    pub async fn leads_to(&self, server: &str, times: usize) {
        until(&format!("the Service leads to {server}"), SOON, || async {
            for attempt in 1..=times {
                match self.enter().await {
                    Ok((_, found)) if found == server => {}
                    Ok((_, found)) => return Err(format!("login {attempt} of {times} came to {found}")),
                    Err(error) => return Err(format!("login {attempt} of {times}: {error}")),
                }
            }
            Ok(())
        })
        .await;
    }

    /// The same of a Service that does not change: none of the logins reaches another pod. One without an answer in time
    /// is repeated.
    pub async fn always_leads_to(&self, server: &str, times: usize) {
        for attempt in 1..=times {
            until(&format!("login {attempt} at the Service"), SOON, || async {
                let (_, found) = self.enter().await?;
                assert_eq!(found, server, "where login {attempt} of {times} came to");
                Ok(())
            })
            .await;
        }
    }
}

/// A service that writes through the primary's Service, and keeps a journal. It uses only the
/// database, so it continues without an API server.
pub struct Journal {
    started: f64,
    stop: Arc<AtomicBool>,
    entries: Arc<Mutex<Vec<Entry>>>,
    task: JoinHandle<()>,
}

impl Journal {
    /// Starts, and waits until it writes.
    pub async fn start(door: Door) -> Self {
        let (stop, entries) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let task = tokio::spawn(write(door, stop.clone(), entries.clone()));
        let journal = Self { started: clock(), stop, entries, task };
        journal.goes_on().await;
        journal
    }

    /// The acknowledged writes so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().expect("the journal").clone()
    }

    /// Waits until writes that begin from now on are acknowledged.
    pub async fn goes_on(&self) {
        let now = clock();
        until("the client writes", READY, || async {
            let entries = self.entries();
            let count = entries.iter().filter(|entry| entry.began > now).count();
            let ago = entries.last().map(|entry| clock() - entry.ended);
            if count >= 20 { Ok(()) } else { Err(format!("{count} rows; the last one {ago:?} s ago")) }
        })
        .await;
    }

    /// Waits for a write by another pod than the one with this address; the first such.
    pub async fn moves_from(&self, server: &str) -> Entry {
        until("the client writes to another pod", READY, || async {
            let moved = self.entries().into_iter().find(|entry| entry.server != server);
            moved.ok_or_else(|| format!("{} rows, all by {server}", self.entries().len()))
        })
        .await
    }

    /// Ends it, and asserts that every acknowledged row exists; returns the acknowledged writes, and
    /// the longest time without one, in seconds.
    pub async fn end(self, sandbox: &Sandbox, name: &str) -> (Vec<Entry>, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writing client");
        let entries = std::mem::take(&mut *self.entries.lock().expect("the journal"));
        let connection = sandbox.connect(name).await;
        let stored: std::collections::BTreeSet<_> =
            column(&connection, "SELECT id FROM notes").await.expect("the rows").into_iter().collect();
        let lost: Vec<_> = entries.iter().filter(|entry| !stored.contains(&entry.id.to_string())).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged rows are lost: {lost:?}", lost.len(), entries.len());
        let times: Vec<_> = [self.started].into_iter().chain(entries.iter().map(|entry| entry.ended)).collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(clock() - times[times.len() - 1], f64::max);
        println!("{name}: {} rows were acknowledged, with {gap:.1} s without any at the longest", entries.len());
        (entries, gap)
    }
}

async fn write(door: Door, stop: Arc<AtomicBool>, entries: Arc<Mutex<Vec<Entry>>>) {
    // Ids of its own, in milliseconds: another journal of the same database may have gone before.
    let mut id = (clock() * 1e3) as u64;
    while !stop.load(Ordering::Relaxed) {
        let Ok((connection, server)) = door.enter().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            // A row with an unknown result is never retried with the same id.
            id += 1;
            let began = clock();
            let insert = format!("INSERT INTO notes VALUES ({id}, 'row {id}')");
            if !matches!(tokio::time::timeout(PATIENCE, run(&connection, &insert)).await, Ok(Ok(1))) {
                break;
            }
            let entry = Entry { id, server: server.clone(), began, ended: clock() };
            entries.lock().expect("the journal").push(entry);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Writes, about ten times a second, inside a pod over its local socket, without waiting for a
/// standby: a server that accepts any write accepts these. The pod is reached by its node's
/// containerd, since the API server cannot reach a node that is cut off.
pub struct Inside {
    socket: String,
    container: String,
    entries: Arc<Mutex<Vec<Entry>>>,
}

const TRIES: &str = "i=0
while [ ! -e /tmp/e2e-stop ]; do
  i=$((i + 1)) began=$(date +%s.%N)
  if PGOPTIONS='-c synchronous_commit=local' timeout 5 psql -qX -d shop_db -c \"INSERT INTO local_writes VALUES ($i)\" >/dev/null 2>&1
  then echo \"$i $began $(date +%s.%N)\"
  fi
  sleep 0.05
done";

impl Inside {
    /// Starts, and waits until it writes.
    pub async fn start(pod: &Pod) -> Self {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
        let id =
            statuses.iter().find(|status| status.name == "database").and_then(|status| status.container_id.clone());
        let container = id.and_then(|id| id.strip_prefix("containerd://").map(str::to_owned)).expect("its container");
        let socket = format!("/run/servicedb-dev/{}/containerd.sock", node(pod));
        let entries = Arc::new(Mutex::new(Vec::new()));
        let inside = Self { socket, container, entries: entries.clone() };
        let mut command = inside.command(TRIES);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("ctr runs");
        let output = child.stdout.take().expect("its output");
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let words: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
                if let [id, began, ended] = words[..] {
                    let entry = Entry { id: id as u64, server: String::new(), began, ended };
                    entries.lock().expect("the entries").push(entry);
                }
            }
            let _ = child.wait();
        });
        until("a client inside the pod writes", SOON, || async {
            let count = inside.entries().len();
            if count >= 5 { Ok(()) } else { Err(format!("{count} rows")) }
        })
        .await;
        inside
    }

    fn command(&self, script: &str) -> Command {
        let id = format!("e2e-{:08x}", rand::random::<u32>());
        let mut command = Command::new("ctr");
        command.args(["-a", &self.socket, "-n", "k8s.io", "tasks", "exec", "--exec-id", &id, &self.container]);
        command.args(["sh", "-c", script]);
        command
    }

    /// The acknowledged writes so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().expect("the entries").clone()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Otherwise it would write for as long as the pod lives.
        let _ = self.command("touch /tmp/e2e-stop").output();
    }
}
