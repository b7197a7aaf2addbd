//! Destructive statements wait for approval, and drift is reported: both in the plugin's output.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{READY, Sandbox, config_map, database, plugin, shared};

/// The plugin's output, and whether it succeeded.
async fn said(sandbox: &Sandbox, arguments: &[&str]) -> (bool, String) {
    let output = plugin(sandbox, arguments).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn version(database: &ServiceDatabase) -> Option<&str> {
    database.status.as_ref().and_then(|status| status.schema_version.as_deref())
}

#[test]
fn destructive_statements_wait_for_a_word_on_these_very_files() {
    shared("approval", async |sandbox| {
        let files = [("1_a.up.sql", "CREATE TABLE a (id bigint PRIMARY KEY, old text);")];
        sandbox.create(config_map("files", &files)).await;
        let source = json!({"configMap": {"name": "files"}});
        sandbox.create(database("shop", json!({"migrations": {"source": source, "approval": "Manual"}}))).await;
        let ready = sandbox.ready("shop", READY).await;
        assert_eq!(version(&ready), Some("1"), "what loses nothing waits for nobody");

        let drop = |sql: &str| json!({"data": {"2_drop.up.sql": sql}});
        sandbox.patch::<ConfigMap>("files", &drop("-- no longer read\nALTER TABLE a DROP COLUMN old;")).await;
        let held = sandbox.condition("shop", "Stalled", "True", "ApprovalRequired", READY).await;
        assert!(held.message.contains("2_drop.up.sql, line 2"), "{}", held.message);
        assert_eq!(version(&sandbox.get("shop").await), Some("1"), "it ran before it was approved");

        // An approval of other files does not apply to these.
        let first = sandbox.get("shop").await.status.and_then(|status| status.migrations?.approval).expect("it waits");
        sandbox.patch::<ConfigMap>("files", &drop("DROP TABLE a;")).await;
        let changed = |found: &ServiceDatabase| {
            let approval = found.status.as_ref().and_then(|status| status.migrations.as_ref()?.approval.as_ref());
            approval.is_some_and(|approval| approval.id != first.id)
        };
        sandbox.wait("another approval", "shop", READY, changed).await;
        let annotation = json!({"metadata": {"annotations": {"servicedb.dev/approve-migrations": first.id}}});
        sandbox.patch::<ServiceDatabase>("shop", &annotation).await;
        let (done, text) = said(&sandbox, &["approve", "shop"]).await;
        assert!(!done && text.contains("drops the table") && text.contains("--yes"), "nobody was there to ask: {text}");
        assert_eq!(version(&sandbox.get("shop").await), Some("1"), "a word on other files has run these");

        let (done, text) = said(&sandbox, &["approve", "shop", "--yes"]).await;
        assert!(done, "{text}");
        sandbox.wait("version 2", "shop", READY, |found| version(found) == Some("2")).await;
    });
}

#[test]
fn drift_is_found_and_told_and_left() {
    shared("drift", async |sandbox| {
        let files = [
            (
                "1_a.up.sql",
                "CREATE TABLE a (id bigint PRIMARY KEY, name text NOT NULL); CREATE INDEX a_name ON a (name);",
            ),
            ("2_b.up.sql", "CREATE VIEW b AS SELECT id FROM a; INSERT INTO a VALUES (1, 'first');"),
        ];
        sandbox.create(config_map("files", &files)).await;
        let more = json!({
            "postgres": {"extensions": [{"name": "pg_trgm"}]},
            "migrations": {"source": {"configMap": {"name": "files"}}},
        });
        sandbox.create(database("shop", more)).await;
        sandbox.ready("shop", READY).await;
        let (same, text) = said(&sandbox, &["drift", "shop"]).await;
        assert!(same && text.contains("matches the migrations"), "{text}");

        let by_hand = "ALTER TABLE a ALTER name DROP NOT NULL; DROP INDEX a_name; CREATE TABLE c (id int);";
        let (done, text) = said(&sandbox, &["psql", "shop", "--", "-c", by_hand]).await;
        assert!(done, "{text}");
        let (same, text) = said(&sandbox, &["drift", "shop"]).await;
        assert!(!same, "{text}");
        for line in
            ["column public.a.name is text; the migrations define text NOT NULL", "public.a_name", "table public.c"]
        {
            assert!(text.contains(line), "{text}");
        }
        let drifted = sandbox.condition("shop", "SchemaDrift", "True", "SchemaDrifted", READY).await;
        assert!(drifted.message.contains("public.a.name"), "{}", drifted.message);
        let resource = sandbox.get("shop").await;
        let ready = resource.status.iter().flat_map(|status| &status.conditions).find(|found| found.type_ == "Ready");
        assert_eq!(ready.map(|ready| ready.status.as_str()), Some("True"), "drift is told, and the database serves");

        let undone = "ALTER TABLE a ALTER name SET NOT NULL; CREATE INDEX a_name ON a (name); DROP TABLE c;";
        let (done, text) = said(&sandbox, &["psql", "shop", "--", "-c", undone]).await;
        assert!(done, "{text}");
        // The index belongs to its table's owner, whoever creates it.
        let (same, text) = said(&sandbox, &["drift", "shop"]).await;
        assert!(same, "{text}");
    });
}
