//! Pods that the API server refuses: by a quota, a class that does not exist, an admission policy.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy as Policy, ValidatingAdmissionPolicyBinding as Binding,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{
    NOTES, READY, SOON, Sandbox, Writer, condition, config_map, database, describe, pod_uid, shared, until, with_notes,
};

fn quota(hard: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": hard}})
}

/// Waits until a quota admits this number of pods: admission compares with its status, which a controller writes.
async fn admits_pods(sandbox: &Sandbox, name: &str, pods: &str) {
    until("the quota counts", SOON, || async {
        let quota = sandbox.api::<ResourceQuota>().get(name).await.map_err(|error| error.to_string())?;
        let hard = quota.status.and_then(|status| status.hard).unwrap_or_default();
        if hard.get("pods").is_some_and(|found| found.0 == pods) { Ok(()) } else { Err(format!("{hard:?}")) }
    })
    .await;
}

/// A namespace whose quota wants requests and limits of every container, as Jobs have them by
/// default. What a quota refuses, of an instance, of its volume and of a Job, is told in its words,
/// and goes on by itself once it may. A policy for labels finds them on instances and Jobs.
#[test]
fn a_quota_is_told_for_instances_volumes_and_jobs() {
    shared("quota", async |sandbox| {
        let enough = json!({
            "requests.cpu": "4", "requests.memory": "8Gi", "limits.cpu": "8", "limits.memory": "16Gi",
            "pods": "8", "persistentvolumeclaims": "1",
        });
        sandbox.create(quota(&enough)).await;
        let spec = json!({
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
            "podMetadata": {"labels": {"team": "games"}, "annotations": {"cost.example/centre": "4711"}},
        });
        with_notes(&sandbox, spec).await;
        let instance = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod");
        assert_eq!(instance.labels().get("team").map(String::as_str), Some("games"));
        assert_eq!(instance.annotations().get("cost.example/centre").map(String::as_str), Some("4711"));
        let labelled = ListParams::default().labels("team=games,batch.kubernetes.io/job-name");
        let jobs = sandbox.api::<Pod>().list(&labelled).await.expect("pods").items;
        assert!(!jobs.is_empty(), "the migration Job's pod lacks the label");

        let hard = |key: &str, value: serde_json::Value| json!({"spec": {"hard": {key: value}}});
        sandbox.patch::<ResourceQuota>("team", &hard("pods", "1".into())).await;
        admits_pods(&sandbox, "team", "1").await;
        let files = json!({"data": {"2_more.up.sql": "CREATE TABLE more (id bigint PRIMARY KEY);"}});
        sandbox.patch::<ConfigMap>("migrations", &files).await;
        let told = sandbox.condition("shop", "MigrationsApplied", "False", "PodRefused", SOON).await;
        assert!(told.message.contains("exceeded quota: team"), "{}", told.message);
        sandbox.condition("shop", "Stalled", "True", "PodRefused", SOON).await;
        sandbox.patch::<ResourceQuota>("team", &hard("pods", "8".into())).await;
        sandbox.ready("shop", SOON).await;

        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"instances": 2}})).await;
        let told = sandbox.condition("shop", "Stalled", "True", "PodRefused", SOON).await;
        assert!(told.message.contains("data-shop-db-1") && told.message.contains("exceeded quota"), "{}", told.message);
        sandbox.patch::<ResourceQuota>("team", &hard("persistentvolumeclaims", "2".into())).await;
        sandbox.ready("shop", READY).await;
    });
}

#[test]
fn a_pod_that_would_be_refused_replaces_none() {
    shared("refused-pod", async |sandbox| {
        with_notes(&sandbox, json!({})).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        let pod = pod_uid(&sandbox, "shop-db-0").await;
        let class = |name: serde_json::Value| json!({"spec": {"scheduling": {"priorityClassName": name}}});
        sandbox.patch::<ServiceDatabase>("shop", &class("of-nobody".into())).await;
        let told = sandbox.condition("shop", "Stalled", "True", "PodRefused", SOON).await;
        assert!(told.message.contains("no PriorityClass with name of-nobody was found"), "{}", told.message);
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "DatabaseAvailable").expect("a condition").status, "True");
        writer.goes_on(20).await;
        assert_eq!(pod_uid(&sandbox, "shop-db-0").await, pod, "the pod was replaced");
        assert!(!writer.broke(), "a client's connection broke");

        sandbox.patch::<ServiceDatabase>("shop", &class(serde_json::Value::Null)).await;
        sandbox.ready("shop", SOON).await;
        assert_eq!(pod_uid(&sandbox, "shop-db-0").await, pod, "nothing had changed");

        // A quota that the old pod fills is no refusal: its successor fits.
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
            "spec": {"hard": {"pods": "1"}},
        });
        sandbox.create(quota).await;
        admits_pods(&sandbox, "full", "1").await;
        sandbox.patch::<ServiceDatabase>("shop", &class("system-cluster-critical".into())).await;
        until("the instance is another pod", READY, || async {
            let now = pod_uid(&sandbox, "shop-db-0").await;
            if now.is_some() && now != pod { Ok(()) } else { Err(describe(&sandbox.get("shop").await)) }
        })
        .await;
        sandbox.ready("shop", READY).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}

const POLICY_SAYS: &str = "every pod needs the label cost-centre";

/// Refuses pods without the label `cost-centre` in the sandbox, from now on.
async fn require_label(sandbox: &Sandbox) {
    let (client, name) = (&sandbox.cluster.client, &sandbox.namespace);
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
            ],
        },
        "validations": [{
            "expression": "has(object.metadata.labels) && 'cost-centre' in object.metadata.labels",
            "message": POLICY_SAYS,
        }],
    }});
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    let policy: Policy = serde_json::from_value(policy).expect("a policy");
    let binding: Binding = serde_json::from_value(binding).expect("a binding");
    Api::<Policy>::all(client.clone()).create(&PostParams::default(), &policy).await.expect("a policy");
    Api::<Binding>::all(client.clone()).create(&PostParams::default(), &binding).await.expect("a binding");
    // The API server enforces a policy some moments after it was created.
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "probe"}, "spec": {
        "containers": [{"name": "probe", "image": "probe", "securityContext": {
            "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        }}],
    }}))
    .expect("a pod");
    until("the policy is enforced", SOON, || async {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        match sandbox.api::<Pod>().create(&dry_run, &pod).await {
            Err(error) if error.to_string().contains(POLICY_SAYS) => Ok(()),
            other => Err(format!("{:?}", other.map(|pod| pod.name_any()))),
        }
    })
    .await;
}

/// A policy that wants a label on every pod is reported in its own words, and `podMetadata`
/// satisfies it, for instances and Jobs.
#[test]
fn an_admission_policy_is_named_and_can_be_satisfied() {
    shared("admission", async |sandbox| {
        require_label(&sandbox).await;
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        let told = sandbox.condition("shop", "Stalled", "True", "PodRefused", SOON).await;
        assert!(told.message.contains(POLICY_SAYS), "{}", told.message);
        let labels = json!({"spec": {"podMetadata": {"labels": {"cost-centre": "4711"}}}});
        sandbox.patch::<ServiceDatabase>("shop", &labels).await;
        sandbox.ready("shop", READY).await;

        let client = &sandbox.cluster.client;
        Api::<Binding>::all(client.clone()).delete(&sandbox.namespace, &Default::default()).await.expect("a deletion");
        Api::<Policy>::all(client.clone()).delete(&sandbox.namespace, &Default::default()).await.expect("a deletion");
    });
}
