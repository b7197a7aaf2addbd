//! Parameters and extensions of a database that serves: what cannot be done is told, what
//! runs is not touched, and Ready never claims what is not so.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{NOTES, READY, SOON, Sandbox, Writer, column, condition, config_map, database, shared, until};

async fn set(sandbox: &Sandbox, parameters: serde_json::Value) {
    let patch = json!({"spec": {"postgres": {"parameters": parameters}}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
}

async fn shown(sandbox: &Sandbox, parameter: &str) -> String {
    let connection = sandbox.connect("shop").await;
    let rows = column(&connection, &format!("SELECT current_setting('{parameter}')")).await.expect("a setting");
    rows.concat()
}

#[test]
fn ready_tells_of_a_parameter_that_is_refused_or_waits() {
    shared("parameters", async |sandbox| {
        let postgres = json!({
            "parameters": {"work_mem": "8MB"},
            // One that makes a type of its own, and one that makes operators.
            "extensions": [{"name": "tablefunc"}, {"name": "pg_trgm"}],
        });
        sandbox.create(database("shop", json!({"postgres": postgres}))).await;
        sandbox.ready("shop", READY).await;
        let connection = sandbox.connect("shop").await;
        let schemas = "SELECT extname || ' in ' || extnamespace::regnamespace FROM pg_extension ORDER BY 1";
        let found = column(&connection, schemas).await.expect("the extensions");
        assert_eq!(found, ["pg_trgm in public", "plpgsql in pg_catalog", "tablefunc in public"]);

        for (wrong, named) in [(json!({"work_mem": "lots"}), "work_mem"), (json!({"nonsense": "1"}), "nonsense")] {
            set(&sandbox, wrong).await;
            let told = sandbox.condition("shop", "Ready", "False", "InvalidSpec", SOON).await;
            assert!(told.message.contains("spec.postgres.parameters"), "{}", told.message);
            assert!(told.message.contains(named) && !told.message.contains(".conf"), "{}", told.message);
            assert_eq!(shown(&sandbox, "work_mem").await, "8MB", "what runs is as it was");
            let available = sandbox.get("shop").await;
            assert_eq!(condition(&available, "DatabaseAvailable").expect("a condition").status, "True");
            set(&sandbox, json!({"nonsense": null, "work_mem": "8MB"})).await;
            sandbox.ready("shop", SOON).await;
        }

        // With one instance PostgreSQL is restarted in its place, up as down; the pod stays.
        let before = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid();
        for value in ["177", "155"] {
            set(&sandbox, json!({"max_connections": value})).await;
            until("the parameter is in effect", READY, || async {
                let Ok(connection) = sandbox.login("shop", &sandbox.credentials("shop").await).await else {
                    return Err("no connection".to_owned());
                };
                let now =
                    column(&connection, "SHOW max_connections").await.map_err(|refusal| refusal.message)?.concat();
                if now == value { Ok(()) } else { Err(now) }
            })
            .await;
            sandbox.ready("shop", SOON).await;
        }
        assert_eq!(sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid(), before);
    });
}

/// Replicas first where a shared value becomes higher, the primary first where it becomes lower:
/// in the other order a replica would not start.
#[test]
fn a_parameter_that_needs_a_restart_comes_to_all_instances() {
    shared("restarts", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 2, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        for value in ["177", "90"] {
            writer.goes_on(10).await;
            set(&sandbox, json!({"max_connections": value})).await;
            until("both have the value", READY, || async {
                let mut found = Vec::new();
                for pod in ["shop-db-0", "shop-db-1"] {
                    let output = sandbox.exec(pod, "psql -XAtc 'SHOW max_connections'").await;
                    found.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
                }
                if found == [value, value] { Ok(()) } else { Err(format!("{found:?}")) }
            })
            .await;
            sandbox.ready("shop", READY).await;
        }
        writer.goes_on(10).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}

#[test]
fn a_parameter_with_which_postgresql_cannot_start_is_taken_back() {
    shared("unstartable", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        // It is fine by itself; there are no such pages.
        set(&sandbox, json!({"huge_pages": "on"})).await;
        let told = sandbox.condition("shop", "Ready", "False", "CrashLoop", READY).await;
        assert!(told.message.contains("PostgreSQL does not start"), "{}", told.message);
        // Nobody leads any more who could bring the right spec to Patroni.
        set(&sandbox, json!({"huge_pages": null})).await;
        sandbox.ready("shop", READY).await;
        assert_eq!(shown(&sandbox, "huge_pages").await, "try");

        // The same from the start.
        let spec = json!({"postgres": {"parameters": {"huge_pages": "on"}}});
        sandbox.create(database("fresh", spec)).await;
        sandbox.condition("fresh", "Ready", "False", "CrashLoop", READY).await;
        let patch = json!({"spec": {"postgres": {"parameters": null}}});
        sandbox.patch::<ServiceDatabase>("fresh", &patch).await;
        sandbox.ready("fresh", READY).await;
    });
}
