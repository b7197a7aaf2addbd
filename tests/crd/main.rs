//! The schema and the rules of the CRD, against a real API server: one case for each that
//! accepts or refuses, and a refusal must name the field to the person who wrote the YAML.
//!
//! Everything is a dry run, except for the paused resources that updates start from; they are in
//! namespaces of this run.

mod cases;
mod cluster;
mod emptied;
mod updates;

use cases::{Case, Expected};
use cluster::Cluster;
use serde_json::{Value, json};

/// Creates each case's resource as a dry run, and returns a line for each unexpected result.
async fn mistakes_of(cluster: &Cluster, cases: &[Case]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for case in cases {
        let answer = cluster.create(case.name, &case.spec(), "Strict", true).await;
        mistakes.extend(case.expected.mistake(case.what, answer));
    }
    mistakes
}

#[tokio::test]
async fn what_may_be_created() {
    let cluster = Cluster::connect().await;
    let mistakes = mistakes_of(&cluster, &cases::all()).await;
    assert!(mistakes.is_empty(), "{} cases went otherwise:\n{}", mistakes.len(), mistakes.join("\n"));
}

#[tokio::test]
async fn every_reserved_parameter_is_refused() {
    let cluster = Cluster::connect().await;
    let mut mistakes = Vec::new();
    for parameter in servicedb::api::spec::RESERVED_PARAMETERS {
        let spec = json!({ "storage": { "size": "1Gi" }, "postgres": { "parameters": { *parameter: "x" } } });
        let answer = cluster.create("chat", &spec, "Strict", true).await;
        mistakes.extend(Expected::Refused("sets a parameter that is reserved").mistake(parameter, answer));
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[tokio::test]
async fn what_may_be_changed() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.own_namespace().await;
    let mut mistakes = Vec::new();
    for base in [updates::plain(), updates::explicit()] {
        cluster.in_namespace(&namespace).create(base.name, &base.spec, "Strict", false).await.expect(base.name);
        cluster.in_namespace(&namespace).patch_status(base.name, &updates::status()).await.expect(base.name);
        for change in &base.changes {
            let answer = cluster.in_namespace(&namespace).patch_spec(base.name, &change.patch()).await;
            mistakes.extend(change.expected.mistake(&format!("{}: {}", base.name, change.what), answer));
        }
    }
    cluster.remove_namespace(&namespace).await;
    assert!(mistakes.is_empty(), "{} changes went otherwise:\n{}", mistakes.len(), mistakes.join("\n"));
}

#[tokio::test]
async fn what_is_left_out_has_a_default_that_never_changes() {
    let cluster = Cluster::connect().await;
    let created =
        cluster.create("chat", &json!({ "storage": { "size": "1Gi" } }), "Strict", true).await.expect("the smallest");
    assert_eq!(
        created["spec"],
        json!({
            "instances": 1,
            "postgres": {},
            "storage": { "size": "1Gi", "scaleDownPolicy": "Retain" },
            "replication": { "synchronous": true, "maximumLagBytes": 16777216 },
            "resources": {},
            "scheduling": {},
            "credentials": {},
            "backup": { "enabled": true, "schedule": {}, "retentionDays": 14, "whenVolumeFills": "GiveUpArchive", "deletionPolicy": "Retain" },
            "maintenance": {
                "vacuum": true,
                "analyze": true,
                "freeze": true,
                "reindex": { "enabled": true, "bloatPercent": 50 },
                "updateExtensions": false,
            },
            "monitoring": {},
            "audit": {},
            "bootstrap": { "adopt": false },
            "deletionPolicy": "Retain",
            "updatePolicy": "Manual",
            "paused": false
        })
    );
    // A part that is given keeps its other defaults, and a null means the same as a field left out.
    let pooler = json!({ "storage": { "size": "1Gi" }, "pooler": {} });
    let created = cluster.create("chat", &pooler, "Strict", true).await.expect("a pooler");
    assert_eq!(
        created["spec"]["pooler"],
        json!({
            "instances": 2,
            "mode": "Transaction",
            "maxClientConnections": 1000,
            "poolSize": 20,
            "replicas": false,
            "plannedChanges": { "onTimeout": "Proceed" },
        })
    );
    let gateway = json!({ "storage": { "size": "1Gi" }, "gateway": { "schemas": null } });
    let created = cluster.create("chat", &gateway, "Strict", true).await.expect("a gateway");
    assert_eq!(
        created["spec"]["gateway"],
        json!({ "instances": 2, "schemas": ["public"], "connections": 10, "statementTimeoutSeconds": 30 })
    );
    let spec = json!({
        "storage": { "size": "1Gi", "storageClassName": null },
        "database": null,
        "instances": null,
        "postgres": { "parameters": { "work_mem": "8MB" } },
        "replication": { "maximumLagBytes": 1 },
        "migrations": null
    });
    let created = cluster.create("chat", &spec, "Strict", true).await.expect("nulls");
    assert_eq!(created["spec"]["postgres"], json!({ "parameters": { "work_mem": "8MB" } }));
    assert_eq!(created["spec"]["replication"], json!({ "synchronous": true, "maximumLagBytes": 1 }));
    assert_eq!(created["spec"]["instances"], json!(1));
    assert_eq!(created["spec"].get("database"), None, "database was null and is kept");
    // A nullable field keeps its null, which rules and the operator take for an absent field.
    assert_eq!(created["spec"]["migrations"], Value::Null);
    assert_eq!(created["spec"]["storage"], json!({ "size": "1Gi", "scaleDownPolicy": "Retain" }));
}

/// Server-side apply leaves a null where a manifest empties an object or a list with keys that the
/// same manager filled before.
#[tokio::test]
async fn what_server_side_apply_empties_is_accepted_and_read() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.own_namespace().await;
    let own = cluster.in_namespace(&namespace);
    let (mut untried, mut mistakes) = (emptied::optional(), Vec::new());
    let optional = untried.clone();
    for (index, spec) in emptied::specs().iter().enumerate() {
        let name = format!("emptied-{index}");
        own.apply(&name, spec, false).await.expect("the whole spec");
        for path in &optional {
            let Some(variants) = emptied::variants(spec, path) else { continue };
            untried.retain(|untried| untried != path);
            for (how, variant) in variants {
                let Some(mistake) = emptied::mistake(own.apply(&name, &variant, true).await) else { continue };
                // One that lacks a required field is refused as a new resource, too.
                if own.create("new", &variant, "Strict", true).await.is_ok() {
                    mistakes.push(format!("{} {how}: {mistake}", path.join(".")));
                }
            }
        }
    }
    cluster.remove_namespace(&namespace).await;
    assert!(untried.is_empty(), "no spec of the test sets {untried:?}");
    assert!(mistakes.is_empty(), "{} cases went otherwise:\n{}", mistakes.len(), mistakes.join("\n"));
}

/// The accounts in `spec.clients`.
fn accounts(object: &Value) -> Vec<&str> {
    let clients = object["spec"]["clients"].as_array().map(Vec::as_slice).unwrap_or_default();
    clients.iter().filter_map(|client| client["serviceAccountName"].as_str()).collect()
}

/// The key of an entry is `serviceAccountName` alone. So whoever applies an entry of the first form keeps and removes it as
/// ever, beside one of the same name in another namespace.
#[tokio::test]
async fn accounts_of_one_name_are_applied_and_removed_one_by_one() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.own_namespace().await;
    let own = cluster.in_namespace(&namespace);
    let spec = |clients: Value| json!({ "paused": true, "storage": { "size": "1Gi" }, "clients": clients });
    let here = json!({ "serviceAccountName": "reader", "access": { "mode": "ReadOnly" } });
    let of = |namespace: &str| json!({ "serviceAccountName": format!("{namespace}/reader"), "name": namespace, "access": { "mode": "ReadOnly" } });
    own.apply("names", &spec(json!([here])), false).await.expect("the first form");
    let both = own.apply("names", &spec(json!([here, of("reports")])), false).await.expect("both");
    let another = own.apply("names", &spec(json!([of("reports"), of("web")])), false).await.expect("another");
    let none = own.apply("names", &spec(json!([])), false).await.expect("none");
    cluster.remove_namespace(&namespace).await;
    assert_eq!(accounts(&both), ["reader", "reports/reader"]);
    assert_eq!(accounts(&another), ["reports/reader", "web/reader"]);
    assert_eq!(accounts(&none), Vec::<&str>::new());
}

#[tokio::test]
async fn before_the_first_status_no_generation_is_observed() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.own_namespace().await;
    let own = cluster.in_namespace(&namespace);
    own.create("early", &json!({ "paused": true, "storage": { "size": "1Gi" } }), "Strict", false)
        .await
        .expect("early");
    let observed = own.get("early").await.expect("early")["status"]["observedGeneration"].clone();
    cluster.remove_namespace(&namespace).await;
    // An operator that happens to run has answered by then.
    assert!([json!(-1), json!(1)].contains(&observed), "{observed}");
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_or_dropped() {
    let cluster = Cluster::connect().await;
    let spec = json!({ "storage": { "size": "1Gi" }, "instanses": 3 });
    let refused = cluster.create("chat", &spec, "Strict", true).await.expect_err("a field that does not exist");
    assert!(refused.contains(r#"unknown field "spec.instanses""#), "{refused}");
    let created = cluster.create("chat", &spec, "Warn", true).await.expect("a warning only");
    assert_eq!(created["spec"].get("instanses"), None);
}

/// The operator must be able to parse every accepted resource: types and schema must agree.
#[tokio::test]
async fn what_is_accepted_is_what_the_types_read() {
    let cluster = Cluster::connect().await;
    let mut read = 0;
    for case in cases::all().iter().filter(|case| matches!(case.expected, Expected::Accepted)) {
        let created: Value = cluster.create(case.name, &case.spec(), "Strict", true).await.expect(case.what);
        let resource = serde_json::from_value::<servicedb::api::ServiceDatabase>(created);
        assert!(resource.is_ok(), "{}: {}", case.what, resource.expect_err("checked"));
        read += 1;
    }
    assert!(read > 10, "only {read} cases are accepted: the table has lost them");
}
