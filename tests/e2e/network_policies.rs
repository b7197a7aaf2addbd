//! NetworkPolicies, enforced: who reaches a database, and what a namespace that denies all egress
//! must allow.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{Cluster, READY, SOON, Sandbox, config_map, database, service_account, shared, until};

/// What `make cluster` builds: psql and bash.
const CLIENT_IMAGE: &str = "localhost/servicedb/client:dev";
/// A pod that is not in a policy's sets yet is refused at once, on a busy machine for some seconds.
const TRIES: u32 = 25;
/// The namespace of `dev/values.yaml` whose pods may read the databases' metrics.
pub const MONITORING: &str = "e2e-monitoring";

const MIGRATION: (&str, &str) = ("0001_items.up.sql", "CREATE TABLE items (id bigint PRIMARY KEY);");

#[test]
fn only_clients_members_jobs_and_monitoring_reach_a_database() {
    shared("policies", async |sandbox| {
        if !Cluster::is_local() {
            println!("not run: it needs a network plugin that enforces NetworkPolicies");
            return;
        }
        sandbox.create(service_account("shop")).await;
        sandbox.create(config_map("files", &[MIGRATION])).await;
        let spec = json!({
            "instances": 2,
            "clients": [{"serviceAccountName": "shop", "podSelector": {"matchLabels": {"app": "shop"}}}],
            "migrations": {"source": {"configMap": {"name": "files"}}},
            "gateway": {"instances": 1},
        });
        sandbox.create(database("shop", spec)).await;
        // The second instance was cloned from the first, and the Job has applied its file.
        sandbox.ready("shop", READY).await;
        sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", SOON).await;

        let pods = sandbox.pods("shop").await;
        let addresses: Vec<_> = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect();
        assert_eq!(addresses.len(), 2, "both instances have addresses");
        let service = sandbox.address("shop-db").await.to_string();
        let mut postgres: Vec<_> =
            addresses.iter().chain([&service]).map(|address| format!("{address}/5432")).collect();
        let inner: Vec<_> = addresses.iter().map(|address| format!("{address}/8008")).collect();
        let mut metrics: Vec<_> = addresses.iter().map(|address| format!("{address}/8010")).collect();
        let of_gateway = ListParams::default().labels("app.kubernetes.io/component=gateway");
        let gateway = sandbox.api::<Pod>().list(&of_gateway).await.expect("pods").items;
        let gateway = gateway[0].status.as_ref().and_then(|status| status.pod_ip.clone()).expect("its address");
        let gateways = [format!("{gateway}/8443"), format!("{}/443", sandbox.address("shop-db-gateway").await)];
        metrics.push(format!("{gateway}/9188"));
        postgres.sort();
        metrics.sort();
        let all: Vec<_> = [&postgres[..], &inner, &metrics, &gateways].into_iter().flatten().cloned().collect();
        let mut served: Vec<_> = postgres.iter().chain(&gateways).cloned().collect();
        served.sort();

        let other = sandbox.cluster_namespace(MONITORING).await;
        let here = sandbox.namespace.as_str();
        let (client, stranger, foreign) = tokio::join!(
            reached(&sandbox, here, "shop", &all),
            reached(&sandbox, here, "stranger", &all),
            // The labels of a client count in the database's namespace alone.
            reached(&sandbox, &other, "shop", &all),
        );
        assert_eq!(
            client, served,
            "a client reaches PostgreSQL and the gateway by Service and by pod, and nothing else"
        );
        assert_eq!(stranger, Vec::<String>::new(), "a pod outside of clients");
        assert_eq!(foreign, metrics, "monitoring reaches the metrics of each instance, and nothing else");
    });
}

#[test]
fn a_namespace_without_egress_works_with_the_documented_policies() {
    shared("egress", async |sandbox| {
        if !Cluster::is_local() {
            println!("not run: it needs a network plugin that enforces NetworkPolicies");
            return;
        }
        let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        sandbox.create(policy("default-deny", deny)).await;
        sandbox.create(config_map("files", &[MIGRATION])).await;
        let spec = json!({"instances": 2, "migrations": {"source": {"configMap": {"name": "files"}}}});
        sandbox.create(database("shop", spec)).await;
        let denied = sandbox.condition("shop", "Ready", "False", "EgressDenied", READY).await;
        for part in ["NetworkPolicy default-deny", "DNS (UDP 53)", "API server", "Vault (TCP 8200)", "docs/install.md"]
        {
            assert!(denied.message.contains(part), "{part} is missing: {}", denied.message);
        }

        let mut documented = documented();
        // DNS and the API server are processes of the machine here, which only addresses name.
        let rules = documented["spec"]["egress"].as_array_mut().expect("rules");
        rules[0]["to"] = endpoints(&sandbox, "kube-system", "kube-dns").await;
        rules[1]["to"] = endpoints(&sandbox, "default", "kubernetes").await;
        sandbox.create(documented).await;
        sandbox.ready("shop", READY).await;
        sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", SOON).await;
    });
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

/// The policy of docs/install.md.
fn documented() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/install.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let chapter = text.split("## NetworkPolicies").nth(1).expect("the chapter on NetworkPolicies");
    let yaml = chapter.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).expect("a policy");
    serde_yaml::from_str(yaml).expect("YAML")
}

/// Where a Service's traffic ends, as peers of a policy.
async fn endpoints(sandbox: &Sandbox, namespace: &str, service: &str) -> Value {
    let slices: Api<EndpointSlice> = Api::namespaced(sandbox.cluster.client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices.list(&of_service).await.expect("EndpointSlices").items;
    let addresses = slices.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| &endpoint.addresses);
    addresses.map(|address| json!({"ipBlock": {"cidr": format!("{address}/32")}})).collect()
}

impl Sandbox {
    /// A namespace of that name, which stays.
    pub async fn cluster_namespace(&self, name: &str) -> String {
        let api: Api<Namespace> = Api::all(self.cluster.client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(error)) if error.reason == "AlreadyExists" => {}
            Err(error) => panic!("creating the namespace {name}: {error}"),
        }
        name.to_owned()
    }
}

/// Which of these addresses a pod with the label `app` reaches, as `address/port`, sorted.
async fn reached(sandbox: &Sandbox, namespace: &str, app: &str, targets: &[String]) -> Vec<String> {
    // At once: a refused connection may take its whole second, since the kernel limits how many
    // refusals it sends.
    let script = format!(
        "dial() {{ for try in $(seq {TRIES}); do if timeout 1 bash -c \"</dev/tcp/$1\" 2>/dev/null; then echo $1; return; fi; \
         sleep 1; done; }}; for target in {}; do dial $target & done; wait; echo end",
        targets.join(" ")
    );
    let said = said_in_a_pod(sandbox, namespace, app, &script).await;
    let mut reached: Vec<_> = said.lines().filter(|line| *line != "end").map(str::to_owned).collect();
    reached.sort();
    reached
}

/// What a script writes in a pod of the client image with the label `app`; its last line is `end`.
pub async fn said_in_a_pod(sandbox: &Sandbox, namespace: &str, app: &str, script: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(sandbox.cluster.client.clone(), namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"generateName": format!("{app}-"), "labels": {"app": app}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "dial", "image": CLIENT_IMAGE, "command": ["bash", "-c", script],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }))
    .expect("a pod");
    let name = pods.create(&PostParams::default(), &pod).await.expect("a pod").name_any();
    let said = until(&format!("pod {name} has tried all"), READY, || async {
        let log = pods.logs(&name, &LogParams::default()).await.map_err(|error| error.to_string())?;
        if log.trim_end().ends_with("end") { Ok(log) } else { Err(log) }
    })
    .await;
    pods.delete(&name, &DeleteParams::default()).await.expect("the pod goes");
    said
}
