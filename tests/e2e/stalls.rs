//! A PostgreSQL that hangs for new connections; and changes of a database's pod, which look the
//! same from outside.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::api::names::{ANNOTATION_REPORT, LABEL_ROLE, LABEL_SCOPE, ROLE_PRIMARY};

use crate::cluster_faults::{Door, Journal, address, may_fail_over, shop};
use crate::harness::{READY, SOON, Sandbox, condition, restarts, shared, until};

/// The file's first line is the pid.
const STOP: &str = "kill -STOP $(head -n 1 /var/lib/postgresql/data/pgdata/postmaster.pid)";

/// Like a hung disk: the postmaster answers no connection, and Patroni and connected clients continue.
/// It is reported, and with a synchronous standby another instance leads; a single one is restarted.
#[test]
fn a_primary_that_stands_still_is_told_and_replaced() {
    let _restarts = restarts::excluded();
    shared("stall", async |sandbox| {
        shop(&sandbox, "shop", json!({"instances": 3})).await;
        sandbox.create(crate::harness::database("single", json!({"instances": 1}))).await;
        sandbox.ready("single", READY).await;
        may_fail_over(&sandbox, "shop").await;
        let old = sandbox.primary("shop").await;
        let its_address = address(&sandbox.api::<Pod>().get(&old).await.expect("the primary's pod"));
        let journal = Journal::start(Door::of(&sandbox, "shop").await).await;

        let stopped = async {
            for pod in [old.as_str(), "single-db-0"] {
                let output = sandbox.exec(pod, STOP).await;
                assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
            }
        };
        // It is reported for some seconds only, before the agent acts: the looks begin before it.
        let told = |name: &'static str| sandbox.condition(name, "DatabaseAvailable", "False", "ServerStalled", SOON);
        tokio::join!(told("shop"), told("single"), stopped);
        journal.moves_from(&its_address).await;
        let another = |found: &ServiceDatabase| {
            found.status.as_ref().and_then(|status| status.primary.as_ref()).is_some_and(|primary| *primary != old)
        };
        // Which one had every commit may have changed since: the journal asserts that none is lost.
        sandbox.wait("another instance is the primary", "shop", READY, another).await;
        for name in ["shop", "single"] {
            sandbox.ready(name, READY).await;
        }
        journal.goes_on().await;
        journal.end(&sandbox, "shop").await;
        let restarts = sandbox.pods("single").await.iter().map(restarts).sum::<i32>();
        assert_eq!(restarts, 0, "PostgreSQL is started again, and not its container");
    });
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// By its report and its labels a pod is found; whoever changes them changes nothing for long.
#[test]
fn what_somebody_changes_on_a_pod_is_put_back() {
    shared("unlabelled", async |sandbox| {
        shop(&sandbox, "shop", json!({"instances": 2})).await;
        let primary = sandbox.primary("shop").await;
        let uid = sandbox.api::<Pod>().get(&primary).await.expect("the primary's pod").uid();
        let annotation = |value: Value| json!({"metadata": {"annotations": {ANNOTATION_REPORT: value}}});
        let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
        let hostile = [
            ("no report", annotation(Value::Null)),
            ("a report that is none", annotation("nonsense".into())),
            (
                "another pod's report",
                annotation(
                    r#"{"version":1,"podUid":"x","agentStartedAt":"2026-01-01T00:00:00Z","phase":"stopping"}"#.into(),
                ),
            ),
            ("no role", label(LABEL_ROLE, Value::Null)),
            ("another role", label(LABEL_ROLE, "replica".into())),
            ("no scope", label(LABEL_SCOPE, Value::Null)),
            ("another scope", label(LABEL_SCOPE, "other-db".into())),
        ];
        for (what, patch) in hostile {
            sandbox.patch::<Pod>(&primary, &patch).await;
            until(&format!("{what} is put back"), SOON, || whole(&sandbox, &primary)).await;
        }
        sandbox.ready("shop", READY).await;
        assert_eq!(sandbox.primary("shop").await, primary);
        let pod = sandbox.api::<Pod>().get(&primary).await.expect("the primary's pod");
        assert_eq!(pod.uid(), uid, "the pod is another");
        let database = sandbox.get("shop").await;
        let available = condition(&database, "DatabaseAvailable").expect("the condition");
        assert_eq!(available.status, "True", "{}", available.message);
    });
}

/// Whether a primary's pod says what its agent and Patroni say, and belongs to the StatefulSet.
async fn whole(sandbox: &Sandbox, pod: &str) -> Result<(), String> {
    let pod = sandbox.api::<Pod>().get(pod).await.map_err(|error| error.to_string())?;
    let report = pod.annotations().get(ANNOTATION_REPORT).cloned().unwrap_or_default();
    let report: Value = serde_json::from_str(&report).unwrap_or_default();
    let label = |key: &str| pod.labels().get(key).map(String::as_str).unwrap_or_default().to_owned();
    let found = (report["role"].clone(), report["podUid"].clone(), label(LABEL_ROLE), label(LABEL_SCOPE));
    let wanted = (json!("primary"), json!(pod.uid()), ROLE_PRIMARY.to_owned(), "shop-db".to_owned());
    let owned = pod.owner_references().iter().any(|owner| owner.kind == "StatefulSet");
    if found == wanted && owned { Ok(()) } else { Err(format!("{found:?}, owned: {owned}")) }
}
