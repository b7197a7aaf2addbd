//! Parameters and extensions of a database that serves: what cannot be done is told, what
//! runs is not touched, and Ready never claims what is not so.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{READY, SOON, Sandbox, column, condition, database, shared};

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

        set(&sandbox, json!({"max_connections": "177"})).await;
        let told = sandbox.condition("shop", "Ready", "False", "RestartPending", SOON).await;
        assert!(told.message.contains("shop-db-0"), "{}", told.message);
        sandbox.delete::<Pod>("shop-db-0").await;
        sandbox.condition("shop", "Ready", "True", "Ready", READY).await;
        assert_eq!(shown(&sandbox, "max_connections").await, "177");
    });
}
