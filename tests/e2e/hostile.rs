//! Wrong, absurd or hostile specs: each is refused with the field's name or reported by a condition,
//! and none of them delays another database.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    Operator, READY, SOON, Sandbox, condition, config_map, database, describe, plugin, shared, then_restore, until,
};

fn migrations(config_map: &str) -> Value {
    json!({"migrations": {"source": {"configMap": {"name": config_map}}}})
}

#[test]
fn hostile_specs_are_told_and_delay_nobody() {
    shared("hostile", async |sandbox| {
        let operator = Operator::of(sandbox.cluster);
        let crashes = operator.crashes().await;
        let class = format!("{}-later", sandbox.namespace);
        sandbox.create(config_map("broken", &[("1_broken.up.sql", "CREATE TABEL notes (id bigint);")])).await;
        sandbox.create(config_map("misnamed", &[("notes.sql", "CREATE TABLE notes (id bigint);")])).await;
        let escape = "CREATE TABLE notes (id bigint);\nCOMMIT;\nCREATE ROLE intruder SUPERUSER;\n";
        sandbox.create(config_map("escaping", &[("1_escape.up.sql", escape)])).await;
        let intruder = "CREATE ROLE intruder SUPERUSER;\n";
        sandbox.create(config_map("intruding", &[("1_intruder.up.sql", intruder)])).await;

        // All at once, then the valid one: the queue before it must not matter.
        for (name, spec) in [
            ("unknown-version", json!({"postgres": {"version": "99"}})),
            ("no-config-map", migrations("later")),
            ("broken-migration", migrations("broken")),
            ("misnamed-migration", migrations("misnamed")),
            ("escaping-migration", migrations("escaping")),
            ("intruding-migration", migrations("intruding")),
            ("no-storage-class", json!({"storage": {"storageClassName": class}})),
            ("unschedulable", json!({"resources": {"requests": {"cpu": "1000", "memory": "100Ti"}}})),
            ("bad-parameter", json!({"postgres": {"parameters": {"work_mem": "a lot"}}})),
            ("no-extension", json!({"postgres": {"extensions": [{"name": "there_is_none"}]}})),
        ] {
            sandbox.create(database(name, spec)).await;
        }
        let created = Instant::now();
        sandbox.create(database("good", json!({}))).await;
        let good = sandbox.ready("good", READY).await;
        println!("the good one was Ready after {:?}: {}", created.elapsed(), describe(&good));

        each_is_told(&sandbox, &class).await;
        what_was_missing_appears(&sandbox, &class).await;
        assert!(operator.crashes().await <= crashes, "the operator was restarted meanwhile");
    });
}

/// Each hostile database has a condition with the reason, and a message that says what.
async fn each_is_told(sandbox: &Sandbox, class: &str) {
    for (name, kind, status, reason, words) in [
        ("unknown-version", "Stalled", "True", "UnsupportedVersion", &["spec.postgres.version", "99"][..]),
        ("no-config-map", "Stalled", "True", "ConfigMapNotFound", &["later", "spec.migrations.source"]),
        ("broken-migration", "Stalled", "True", "MigrationFailed", &["1_broken.up.sql", "42601"]),
        ("misnamed-migration", "MigrationsApplied", "False", "InvalidMigrations", &["notes.sql"]),
        ("escaping-migration", "MigrationsApplied", "False", "InvalidMigrations", &["1_escape.up.sql"]),
        ("intruding-migration", "Stalled", "True", "MigrationFailed", &["1_intruder.up.sql", "42501"]),
        ("no-storage-class", "Ready", "False", "VolumePending", &["no-storage-class-db-0", class]),
        ("unschedulable", "Ready", "False", "Unschedulable", &["unschedulable-db-0", "nsufficient"]),
    ] {
        let told = sandbox.condition(name, kind, status, reason, READY).await;
        for word in words {
            assert!(told.message.contains(word), "{name}: the message does not say {word:?}: {}", told.message);
        }
        let seen = sandbox.get(name).await;
        let ready = condition(&seen, "Ready").expect("Ready");
        assert_eq!(ready.status, "False", "{name} is said to be Ready");
    }
    // Only PostgreSQL itself can refuse these: reported, with the name of the setting.
    for (name, word) in [("bad-parameter", "work_mem"), ("no-extension", "there_is_none")] {
        sandbox
            .wait(&format!("{name} says {word}"), name, READY, |database| {
                condition(database, "Ready")
                    .is_some_and(|ready| ready.status == "False" && ready.message.contains(word))
            })
            .await;
    }
}

/// A missing object may be created later, without notifying the operator.
async fn what_was_missing_appears(sandbox: &Sandbox, class: &str) {
    sandbox.create(config_map("later", &[("1_notes.up.sql", "CREATE TABLE notes (id bigint);")])).await;
    sandbox
        .patch::<ConfigMap>("broken", &json!({"data": {"1_broken.up.sql": "CREATE TABLE notes (id bigint);"}}))
        .await;
    let classes: Api<StorageClass> = Api::all(sandbox.cluster.client.clone());
    let mut made = default_class(&classes).await;
    made.metadata = kube::api::ObjectMeta { name: Some(class.to_owned()), ..kube::api::ObjectMeta::default() };
    sandbox
        .create(json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": class, "labels": {"servicedb.dev/e2e": "true"}},
            "provisioner": made.provisioner,
            "parameters": made.parameters,
            "reclaimPolicy": made.reclaim_policy,
            "volumeBindingMode": made.volume_binding_mode,
        }))
        .await;
    let healed = async {
        sandbox.ready("no-config-map", SOON).await;
        sandbox.ready("broken-migration", READY).await;
        sandbox.ready("no-storage-class", READY).await;
    };
    // The class is the cluster's, not the namespace's.
    let parameters = DeleteParams::default();
    then_restore(healed, classes.delete(class, &parameters)).await.expect("the StorageClass deleted");
}

async fn default_class(classes: &Api<StorageClass>) -> StorageClass {
    let all = classes.list(&ListParams::default()).await.expect("the StorageClasses").items;
    let is_default = |class: &StorageClass| {
        class.annotations().get("storageclass.kubernetes.io/is-default-class").is_some_and(|word| word == "true")
    };
    all.into_iter().find(is_default).expect("the cluster has no default StorageClass")
}

/// Specs that the API server refuses: the message names the field.
#[test]
fn what_cannot_be_is_refused_with_the_name_of_the_field() {
    shared("refused", async |sandbox| {
        let many: serde_json::Map<_, _> =
            (0..65).map(|number| (format!("custom.setting_{number}"), json!("1"))).collect();
        let client = |name: &str| json!({"clients": [{"serviceAccountName": name}]});
        for (name, spec, field) in [
            ("pg-evil", json!({}), "metadata.name"),
            ("with.dot", json!({}), "metadata.name"),
            ("0-digit", json!({}), "metadata.name"),
            ("a-name-of-more-than-forty-characters-is-refused", json!({}), "metadata.name"),
            ("Upper", json!({}), "metadata.name"),
            ("šárka", json!({}), "metadata.name"),
            ("../../etc", json!({}), "metadata.name"),
            ("shop", json!({"database": "x\"; DROP DATABASE postgres; --"}), "spec.database"),
            ("shop", json!({"database": "o'brien"}), "spec.database"),
            ("shop", json!({"database": "данные"}), "spec.database"),
            ("shop", json!({"database": "postgres"}), "spec.database"),
            ("shop", json!({"database": "pg_shop"}), "spec.database"),
            ("shop", json!({"database": ""}), "spec.database"),
            ("shop", json!({"database": "d".repeat(51)}), "spec.database"),
            ("shop", json!({"storage": {"size": "0"}}), "spec.storage.size"),
            ("shop", json!({"storage": {"size": "-5Gi"}}), "spec.storage.size"),
            ("shop", json!({"storage": {"size": "9000Pi"}}), "spec.storage.size"),
            ("shop", json!({"storage": {"size": "plenty"}}), "spec.storage.size"),
            ("shop", json!({"instances": 0}), "spec.instances"),
            ("shop", json!({"instances": 1_000_000}), "spec.instances"),
            ("shop", json!({"instances": -1}), "spec.instances"),
            ("shop", json!({"postgres": {"version": "seventeen"}}), "spec.postgres.version"),
            ("shop", json!({"postgres": {"parameters": {"archive_command": "rm -rf /"}}}), "spec.postgres.parameters"),
            (
                "shop",
                json!({"postgres": {"parameters": {"work_mem": "1MB\narchive_command=evil"}}}),
                "spec.postgres.parameters",
            ),
            ("shop", json!({"postgres": {"parameters": {"Robert'); --": "1"}}}), "spec.postgres.parameters"),
            ("shop", json!({"postgres": {"parameters": many}}), "spec.postgres.parameters"),
            ("shop", client("*"), "spec.clients"),
            ("shop", client("shop,admin"), "spec.clients"),
            ("shop", json!({"migrations": {"source": {}}}), "spec.migrations.source"),
            ("shop", json!({"resources": {"requests": {"cpu": "many"}}}), "spec.resources"),
            ("shop", json!({"superuser": true}), "spec.superuser"),
        ] {
            let what = format!("{name} with {}", spec.to_string().chars().take(120).collect::<String>());
            let refused = match sandbox.try_create(database(name, spec)).await {
                Err(kube::Error::Api(status)) => status,
                Err(error) => panic!("{what}: no answer of the API server but {error}"),
                Ok(_) => panic!("{what} was let in"),
            };
            assert!([400, 422].contains(&refused.code), "{what}: {} {}", refused.code, refused.message);
            assert!(refused.message.contains(field), "{what}: the message does not name {field}: {}", refused.message);
        }
        let left = sandbox.api::<servicedb::api::ServiceDatabase>().list(&ListParams::default()).await.expect("a list");
        assert!(left.items.is_empty(), "{:?}", left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
    });
}

/// Fields that identify the data are immutable.
#[test]
fn what_names_the_data_never_changes() {
    shared("immutable", async |sandbox| {
        sandbox.create(database("shop", json!({"database": "shop_db"}))).await;
        let is_pinned = |found: &servicedb::api::ServiceDatabase| {
            found.status.as_ref().is_some_and(|status| status.postgres_major.is_some())
        };
        sandbox.wait("the version is in status", "shop", SOON, is_pinned).await;
        let api = sandbox.api::<servicedb::api::ServiceDatabase>();
        for (patch, field) in [
            (json!({"spec": {"database": "other_db"}}), "spec.database"),
            (json!({"spec": {"database": null}}), "spec.database"),
            (json!({"spec": {"postgres": {"version": "16"}}}), "spec.postgres.version"),
        ] {
            let changed = api.patch("shop", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await;
            match changed {
                Err(kube::Error::Api(status)) => {
                    assert!(status.message.contains(field), "the message does not name {field}: {}", status.message);
                }
                Err(error) => panic!("{patch}: {error}"),
                Ok(_) => panic!("{patch} was let in"),
            }
        }
    });
}

/// Functions in every place where PostgreSQL runs them for a session that merely reads or plans.
const TRAPS: &str = include_str!("../migrate/traps.sql");

#[test]
fn what_a_migration_plants_never_runs_as_a_superuser() {
    shared("planted", async |sandbox| {
        let files = [("1_notes.up.sql", "CREATE TABLE notes (id bigint);"), ("2_traps.up.sql", TRAPS)];
        sandbox.create(config_map("files", &files)).await;
        let spec = json!({
            "instances": 2,
            "postgres": {"extensions": [{"name": "hstore"}, {"name": "cube"}, {"name": "earthdistance"}]},
            "migrations": {"source": {"configMap": {"name": "files"}}},
        });
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", READY).await;

        // Every operation of Servicedb on a database.
        for (arguments, words) in [
            (&["migrations", "shop"][..], "traps"),
            (&["rotate", "shop"], ""),
            (&["drift", "shop"], "matches the migrations"),
            (&["switchover", "shop"], ""),
            (&["restart", "shop"], ""),
            (&["psql", "shop", "--", "-c", "SELECT version FROM servicedb.migrations"], "2"),
        ] {
            let output = plugin(&sandbox, arguments).await;
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success() && said.contains(words), "{arguments:?}: {said}");
            sandbox.ready("shop", READY).await;
        }
        let checked = sandbox.exec(&sandbox.primary("shop").await, "servicedb check").await;
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        let third = json!({"data": {"3_earth.up.sql": "CREATE TABLE places (at servicedb_extensions.earth, tags public.hstore);"}});
        sandbox.patch::<ConfigMap>("files", &third).await;
        let is_third = |found: &servicedb::api::ServiceDatabase| {
            found.status.as_ref().is_some_and(|status| status.schema_version.as_deref() == Some("3"))
        };
        sandbox.wait("version 3", "shop", READY, is_third).await;

        // Each instance has led since, and read the ledger.
        until("the reader has met the traps", SOON, || async {
            let mut log = String::new();
            for pod in ["shop-db-0", "shop-db-1"] {
                let of_pod = sandbox.api::<Pod>().logs(pod, &LogParams::default()).await;
                log.push_str(&of_pod.map_err(|error| error.to_string())?);
            }
            let messages = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let messages = messages.filter_map(|line| line["message"].as_str().map(str::to_owned));
            let sprung: Vec<String> = messages.filter(|message| message.starts_with("trap \"")).collect();
            let superuser = sprung.iter().find(|line| line.contains("superuser: t"));
            assert_eq!(superuser, None, "a tenant's code ran as a superuser");
            let mark = "trap \"index expression\" ran as servicedb_reader in a session of servicedb_reader";
            if sprung.iter().any(|line| line.contains(mark)) { Ok(()) } else { Err(format!("{} others", sprung.len())) }
        })
        .await;
    });
}
