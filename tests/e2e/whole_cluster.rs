//! Tests that use the cluster exclusively: they count all writes, and stop the operator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::ResourceExt;
use kube::api::{LogParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use crate::harness::{
    Operator, READY, SOON, Sandbox, alone, config_map, counter, database, service_account, then_restore, until,
};

const TABLE: (&str, &str) = ("1_notes.up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY);");

/// A resync without differences writes nothing: neither to Kubernetes (by the API server's
/// counters) nor to Vault (by its audit log).
#[test]
fn a_resync_without_a_change_writes_nothing() {
    alone("resync", async |sandbox| {
        sandbox.create(service_account("shop")).await;
        sandbox.create(config_map("migrations", &[TABLE])).await;
        let spec = json!({
            "clients": [{"serviceAccountName": "shop"}],
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
        });
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let operator = Operator::of(sandbox.cluster);
        calm(&sandbox).await;

        let audit = Audit::begin(&sandbox).await;
        let work = async {
            // An annotation that means nothing is a cause to look, and nothing more.
            let (before, metrics, written) =
                (everything(&sandbox).await, operator.metrics().await, writes(&sandbox).await);
            let touched: ServiceDatabase =
                sandbox.patch("shop", &json!({"metadata": {"annotations": {"example.com/touched": "yes"}}})).await;
            let done = counter(&metrics, RECONCILED);
            until("the operator looked", SOON, || async {
                let now = counter(&operator.metrics().await, RECONCILED);
                if now > done { Ok(()) } else { Err(format!("{now} reconciles")) }
            })
            .await;
            let after = operator.metrics().await;
            for change in ["Created", "Updated"] {
                let sample = format!("servicedb_objects_applied_total{{change=\"{change}\"}}");
                assert_eq!(counter(&after, &sample), counter(&metrics, &sample), "objects {change} in a resync");
            }
            unchanged(&before, &everything(&sandbox).await);
            let now = sandbox.get("shop").await;
            assert_eq!(
                now.resource_version(),
                touched.resource_version(),
                "the resource was written to after the touch"
            );
            // The touch is the one write.
            let mut expected = written.clone();
            *expected.entry("PATCH servicedatabases".to_owned()).or_default() += 1.0;
            assert_eq!(writes(&sandbox).await, expected, "what the API server was sent");

            // A new operator knows nothing and looks at everything.
            let (leader, written) = (operator.leader(SOON).await, writes(&sandbox).await);
            operator.delete_pods(false).await;
            until("another operator reconciled the database", READY, || async {
                let now = operator.leader(READY).await;
                let (_, metrics) = operator.http("/metrics").await?;
                let (done, ready) =
                    (counter(&metrics, RECONCILED), counter(&metrics, "servicedb_databases{ready=\"true\"}"));
                if now != leader && ready >= 1.0 {
                    Ok(())
                } else {
                    Err(format!("{now} leads; {done} reconciles, {ready} Ready"))
                }
            })
            .await;
            unchanged(&before, &everything(&sandbox).await);
            assert_eq!(
                sandbox.get("shop").await.resource_version(),
                touched.resource_version(),
                "a new operator wrote to the resource"
            );
            assert_eq!(writes(&sandbox).await, written, "what the API server was sent by a new operator");
        };
        let lines = then_restore(work, audit.end(&sandbox)).await;
        vault_was_only_read(&lines);
    });
}

const RECONCILED: &str = "servicedb_reconciles_total{outcome=\"ok\"}";

/// Waits until what follows the first Ready has ended.
async fn calm(sandbox: &Sandbox) {
    // Told by the agent a while after Ready, and the last that it has to tell.
    sandbox
        .wait("the old login's sessions and the capacity are reported", "shop", SOON, |database| {
            let Some(status) = &database.status else { return false };
            let is_counted = status.credentials.as_ref().is_some_and(|credentials| credentials.old_sessions.is_some());
            is_counted && status.capacity.is_some()
        })
        .await;
    let last = std::sync::Mutex::new((everything(sandbox).await, writes(sandbox).await));
    let since = std::sync::Mutex::new(tokio::time::Instant::now());
    until("nothing changes for five seconds", READY, || async {
        let now = (everything(sandbox).await, writes(sandbox).await);
        let mut last = last.lock().expect("the last look");
        let mut since = since.lock().expect("a time");
        if *last != now {
            *since = tokio::time::Instant::now();
            *last = now;
        }
        if since.elapsed() > Duration::from_secs(5) { Ok(()) } else { Err("something changes".to_owned()) }
    })
    .await;
}

/// The resourceVersions of all that the operator makes, and the versions of its records in
/// Vault. Left out is what Patroni and the controllers of Kubernetes write to, also their events.
async fn everything(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (group, kind) in [
        ("/api/v1", "configmaps"),
        ("/api/v1", "events"),
        ("/api/v1", "secrets"),
        ("/api/v1", "services"),
        ("/api/v1", "serviceaccounts"),
        ("/api/v1", "persistentvolumeclaims"),
        ("/apis/apps/v1", "statefulsets"),
        ("/apis/batch/v1", "jobs"),
        ("/apis/networking.k8s.io/v1", "networkpolicies"),
        ("/apis/policy/v1", "poddisruptionbudgets"),
        ("/apis/rbac.authorization.k8s.io/v1", "roles"),
        ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ] {
        let path = format!("{group}/namespaces/{}/{kind}", sandbox.namespace);
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let list: Value =
            sandbox.cluster.client.request(request).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        for item in list["items"].as_array().expect("items") {
            let (name, version) = (&item["metadata"]["name"], &item["metadata"]["resourceVersion"]);
            let of_patroni = kind == "configmaps" && !item["metadata"]["labels"]["servicedb.dev/scope"].is_null();
            let of_others = kind == "events" && item["reportingComponent"] != json!("servicedb");
            if !of_patroni && !of_others {
                all.insert(format!("{kind} {name}"), version.to_string());
            }
        }
    }
    let names = sandbox.vault_names("shop");
    for record in [names.runtime(), names.migrator_record(), names.pending()] {
        let metadata = sandbox.vault().metadata(&record).await;
        all.insert(
            record,
            metadata
                .map(|metadata| format!("{} {}", metadata["current_version"], metadata["updated_time"]))
                .unwrap_or_default(),
        );
    }
    for role in [names.instance(), names.migrator()] {
        let accessors = sandbox.vault().list(&format!("auth/approle/role/{role}/secret-id")).await;
        all.insert(format!("secret_ids of {role}"), accessors.join(" "));
    }
    all
}

fn unchanged(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changed: Vec<_> = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).collect();
    assert!(changed.is_empty(), "a resync without a change changed {changed:?}");
    assert!(before.len() > 15, "too little was looked at: {before:?}");
}

/// How many writing requests the API server has had, by verb and kind; a request that changed
/// nothing counts too. Only kinds that nobody but the operator writes on a calm cluster.
async fn writes(sandbox: &Sandbox) -> BTreeMap<String, f64> {
    const KINDS: [&str; 8] =
        ["servicedatabases", "secrets", "services", "roles", "rolebindings", "networkpolicies", "statefulsets", "jobs"];
    const VERBS: [&str; 4] = ["POST", "PUT", "PATCH", "APPLY"];
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let text = sandbox.cluster.client.request_text(request).await.expect("the API server's metrics");
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let Some((labels, value)) = line.rsplit_once("} ") else { continue };
        let label = |name: &str| {
            labels
                .split("\",")
                .find_map(|pair| pair.strip_prefix(&format!("{name}=\"")))
                .unwrap_or_default()
                .trim_end_matches('"')
        };
        let (verb, kind) = (label("verb"), label("resource"));
        // The controllers of Kubernetes write the status of a workload, not its spec.
        let by_others = ["statefulsets", "jobs"].contains(&kind) && label("subresource") == "status";
        if VERBS.contains(&verb) && KINDS.contains(&kind) && !by_others {
            *counts.entry(format!("{verb} {kind}")).or_default() += value.parse::<f64>().unwrap_or(0.0);
        }
    }
    assert!(counts.contains_key("POST secrets"), "the API server counts otherwise than this test reads: {counts:?}");
    counts
}

/// Vault's audit device, to its standard output, for a while.
struct Audit {
    before: usize,
}

impl Audit {
    async fn begin(sandbox: &Sandbox) -> Self {
        // Left behind by a run that was broken off.
        sandbox.vault().delete("sys/audit/e2e").await;
        let before = vault_log(sandbox).await.lines().count();
        sandbox.vault().write("sys/audit/e2e", &json!({"type": "file", "options": {"file_path": "stdout"}})).await;
        Self { before }
    }

    async fn end(self, sandbox: &Sandbox) -> Vec<Value> {
        sandbox.vault().delete("sys/audit/e2e").await;
        let log = vault_log(sandbox).await;
        log.lines().skip(self.before).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

async fn vault_log(sandbox: &Sandbox) -> String {
    let api: Api<Pod> = Api::namespaced(sandbox.cluster.client.clone(), "vault");
    api.logs("vault-0", &LogParams::default()).await.expect("Vault's log")
}

/// The operator logged in, renewed its token and read; this test's root did what it did.
fn vault_was_only_read(lines: &[Value]) {
    let requests: Vec<_> = lines.iter().filter(|line| line["type"] == json!("request")).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut reads = 0;
    for line in &requests {
        let (operation, path) = (text(&line["request"]["operation"]), text(&line["request"]["path"]));
        let policies = line["auth"]["policies"].to_string();
        // Vault tries an audit device by a request of nobody's.
        if policies.contains("root") || path == "sys/audit/test" {
            continue;
        }
        let is_login = path.starts_with("auth/") && path.ends_with("/login");
        let of_token = operation == "update" && (is_login || path == "auth/token/renew-self");
        assert!(
            of_token || ["read", "list"].contains(&operation.as_str()),
            "a resync without a change did {operation} {path} in Vault"
        );
        reads += usize::from(!of_token && path.contains("servicedb."));
    }
    assert!(
        reads > 0,
        "the operator's reading was not seen in {} audited requests, so nothing is shown by it",
        requests.len()
    );
}

/// The operator's own interfaces, its Lease, and how it ends.
#[test]
fn the_operator_tells_of_itself_and_hands_over() {
    alone("operator", async |sandbox| {
        let operator = Operator::of(sandbox.cluster);
        sandbox.create(database("shop", json!({}))).await;
        let ready = sandbox.ready("shop", READY).await;
        let old = operator.leader(SOON).await;
        interfaces_answer(&operator).await;
        it_holds_few_rights(&sandbox, &operator).await;

        // Told to stop, it gives the Lease back, and the next one need not wait for its end.
        let watch =
            operator.leases().watch(&WatchParams::default().fields("metadata.name=servicedb-operator"), "0").await;
        let mut changes = watch.expect("a watch of the Lease").boxed();
        operator.delete_pods(false).await;
        let mut holders = Vec::new();
        let handed_over = async {
            while let Some(event) = changes.try_next().await.expect("the watch of the Lease") {
                if let WatchEvent::Added(lease) | WatchEvent::Modified(lease) = event {
                    let holder = holder_of(&lease);
                    let new = holder.as_ref().is_some_and(|holder| *holder != old);
                    holders.push(holder);
                    if new {
                        return;
                    }
                }
            }
        };
        let in_time = tokio::time::timeout(SOON, handed_over).await;
        assert!(in_time.is_ok(), "nobody took the Lease over: {holders:?}");
        assert!(holders.contains(&None), "the Lease was not given back but ran out: {holders:?}");

        operator.leader(SOON).await;
        let now = sandbox.get("shop").await;
        assert_eq!(now.metadata.generation, ready.metadata.generation);
        let again = sandbox.ready("shop", SOON).await;
        assert_eq!(again.uid(), ready.uid());
    });
}

fn holder_of(lease: &Lease) -> Option<String> {
    lease.spec.as_ref()?.holder_identity.clone().filter(|holder| !holder.is_empty())
}

async fn interfaces_answer(operator: &Operator) {
    for path in ["/healthz", "/readyz"] {
        let (status, text) = operator.http(path).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((status, text.trim()), (200, "ok"), "{path}");
    }
    let (status, _) = operator.http("/secrets").await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status, 404);
    let metrics = operator.metrics().await;
    assert_eq!(counter(&metrics, "servicedb_leader"), 1.0, "{metrics}");
    assert!(counter(&metrics, "servicedb_databases{ready=\"true\"}") >= 1.0, "{metrics}");
    assert!(counter(&metrics, RECONCILED) > 0.0, "{metrics}");
    assert!(metrics.contains("servicedb_reconcile_duration_seconds_bucket"), "{metrics}");
    assert!(metrics.lines().last() == Some("# EOF"), "the metrics are not whole OpenMetrics text");
    // A database's name is a label of what is of one database, which is bounded; of nothing else.
    let of_one = [
        "servicedb_backup_",
        "servicedb_condition{",
        "servicedb_instances",
        "servicedb_schema_",
        "servicedb_secret_id_",
    ];
    let named = metrics.lines().find(|line| line.contains("shop") && !of_one.iter().any(|name| line.starts_with(name)));
    assert_eq!(named, None);
}

/// The operator never lists Secrets, runs programs in pods or makes tokens.
async fn it_holds_few_rights(sandbox: &Arc<Sandbox>, operator: &Operator) {
    let pod = operator.pods().await.into_iter().next().expect("an operator pod");
    let account = pod.spec.and_then(|spec| spec.service_account_name).expect("a ServiceAccount");
    let user = format!("system:serviceaccount:{}:{account}", crate::harness::OPERATOR_NAMESPACE);
    for (verb, resource, subresource, wanted) in [
        ("get", "secrets", "", true),
        ("list", "secrets", "", false),
        ("watch", "secrets", "", false),
        ("create", "pods", "exec", false),
        ("create", "serviceaccounts", "token", false),
        ("impersonate", "users", "", false),
    ] {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "resourceAttributes": {"namespace": sandbox.namespace, "verb": verb, "resource": resource, "subresource": subresource},
            },
        });
        let request = http::Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes())
            .expect("a request");
        let answer: Value = sandbox.cluster.client.request(request).await.expect("an access review");
        assert_eq!(answer["status"]["allowed"], json!(wanted), "may the operator {verb} {resource}/{subresource}?");
    }
    // What it may get, by name, is there: the check above is not of a wrong name.
    assert!(sandbox.api::<Secret>().get_opt("shop-db-approle").await.expect("a look").is_some());
}
