//! Targets of migrations: forward, back, a dry run, and dependencies.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use servicedb::api::{MigrationAction, ServiceDatabase};

use crate::harness::{READY, SOON, Sandbox, column, config_map, database, plugin, shared};

const FILES: [(&str, &str); 6] = [
    ("1_notes.up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY);"),
    ("1_notes.down.sql", "DROP TABLE notes;"),
    ("2_tags.up.sql", "CREATE TABLE tags (id bigint PRIMARY KEY);"),
    ("2_tags.down.sql", "DROP TABLE tags;"),
    ("3_body.up.sql", "ALTER TABLE notes ADD body text;"),
    ("3_body.down.sql", "ALTER TABLE notes DROP body;"),
];

fn with(more: Value) -> Value {
    let mut migrations = json!({"source": {"configMaps": [{"name": "first"}, {"name": "later"}]}});
    for (key, value) in more.as_object().into_iter().flatten() {
        migrations[key] = value.clone();
    }
    json!({"migrations": migrations})
}

async fn set(sandbox: &Sandbox, migrations: Value) {
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"migrations": migrations}})).await;
}

fn version(database: &ServiceDatabase) -> Option<&str> {
    database.status.as_ref().and_then(|status| status.schema_version.as_deref())
}

/// A set in two ConfigMaps; a dry run; forward by a target; back by a lower one, from a source
/// that has lost what is rolled back.
#[test]
fn a_schema_goes_forward_and_back_by_its_target() {
    shared("target", async |sandbox| {
        sandbox.create(config_map("first", &FILES[..2])).await;
        sandbox.create(config_map("later", &FILES[2..])).await;
        sandbox.create(database("shop", with(json!({"dryRun": true})))).await;
        let planned = sandbox.condition("shop", "MigrationsApplied", "False", "DryRun", READY).await;
        assert!(planned.message.contains("3 to apply"), "{}", planned.message);
        let status = sandbox.get("shop").await.status.expect("a status");
        let plan = status.migrations.and_then(|migrations| migrations.plan).expect("a plan");
        let steps: Vec<_> =
            plan.steps.iter().map(|step| (step.version.number().unwrap_or_default(), step.action)).collect();
        assert_eq!(steps, [1, 2, 3].map(|version| (version, MigrationAction::Apply)));
        assert_eq!(status.schema_version, None, "a dry run has run something");

        set(&sandbox, json!({"dryRun": false, "targetVersion": 2})).await;
        let ready = sandbox.ready("shop", READY).await;
        assert_eq!(version(&ready), Some("2"));
        set(&sandbox, json!({"targetVersion": null})).await;
        sandbox.wait("version 3", "shop", READY, |database| version(database) == Some("3")).await;
        let followed = plugin(&sandbox, &["migrations", "shop", "--follow"]).await;
        let text = String::from_utf8_lossy(&followed.stdout).into_owned();
        assert!(followed.status.success(), "{text} {}", String::from_utf8_lossy(&followed.stderr));
        for word in ["body", "completed", "yes", "MigrationsApplied=True"] {
            assert!(text.contains(word), "{text}");
        }

        // The release before has files up to 1 alone, and asks for them by name.
        set(&sandbox, json!({"targetVersion": 1})).await;
        let refused = sandbox.condition("shop", "Stalled", "True", "RollbackRefused", READY).await;
        assert!(refused.message.contains("3 (body), 2 (tags)"), "{}", refused.message);
        let files: serde_json::Map<String, Value> =
            FILES[2..].iter().map(|(name, _)| ((*name).to_owned(), Value::Null)).collect();
        sandbox.patch::<ConfigMap>("later", &json!({"data": files})).await;
        set(&sandbox, json!({"rollback": "Allow"})).await;
        let back = sandbox.ready("shop", READY).await;
        assert_eq!(version(&back), Some("1"), "{:?}", back.status);
        let connection = sandbox.connect("shop").await;
        let columns = "SELECT table_name || '.' || column_name FROM information_schema.columns \
                       WHERE table_schema = 'public' ORDER BY 1";
        assert_eq!(column(&connection, columns).await.expect("a query"), ["notes.id"]);
        set(&sandbox, json!({"targetVersion": 0})).await;
        let back = sandbox.wait("no migration at all", "shop", READY, |database| version(database).is_none()).await;
        assert_eq!(back.status.and_then(|status| status.migrations).map(|migrations| migrations.applied), Some(0));
    });
}

/// Migrations that need another service's schema wait for it, and say so; a cycle is refused.
#[test]
fn migrations_wait_for_another_schema() {
    shared("depends", async |sandbox| {
        sandbox.create(config_map("first", &FILES[..2])).await;
        sandbox.create(config_map("later", &FILES[2..4])).await;
        let needs = |name: &str, version: i64| json!({"dependsOn": [{"name": name, "minimumVersion": version}]});
        sandbox.create(database("shop", with(needs("auth", 2)))).await;
        let waits = sandbox.condition("shop", "MigrationsApplied", "False", "DependencyNotReady", READY).await;
        assert!(waits.message.contains("auth, which does not exist"), "{}", waits.message);
        sandbox.condition("shop", "DatabaseAvailable", "True", "Available", SOON).await;

        sandbox.create(database("auth", with(needs("shop", 1)))).await;
        let told = sandbox.condition("auth", "Stalled", "True", "DependencyCycle", READY).await;
        assert!(told.message.contains("auth → shop → auth"), "{}", told.message);
        sandbox.patch::<ServiceDatabase>("auth", &json!({"spec": {"migrations": {"dependsOn": []}}})).await;
        sandbox.ready("auth", READY).await;
        let ready = sandbox.ready("shop", READY).await;
        assert_eq!(version(&ready), Some("2"));
    });
}
