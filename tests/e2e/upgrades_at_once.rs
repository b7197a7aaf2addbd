//! Two databases of one node are upgraded at once. Before, each is rehearsed with something that stops it: a type that
//! `pg_upgrade` refuses, and a volume without room. Right after it, migrations are applied and the schema is compared.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use servicedb::api::{ServiceDatabase, UpgradePhase, UpgradeStatus};
use servicedb::contract::pod::VOLUME;

use crate::harness::{
    Cluster, NOTES, READY, SOON, Sandbox, Writer, column, database, plugin, restarts, shared, with_notes,
};

const BOTH: [&str; 2] = ["shop", "full"];
/// A migration that is declared as soon as the databases are of the new version.
const LATER: (&str, &str) = ("2_later.up.sql", "CREATE TABLE later (id bigint PRIMARY KEY);");

/// Runs the plugin; whether it succeeded, and what it said.
async fn ask(sandbox: &Sandbox, arguments: &[&str]) -> (bool, String) {
    let output = plugin(sandbox, arguments).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

/// Runs a script in the only instance of a database.
async fn exec(sandbox: &Sandbox, name: &str, script: &str) {
    let output = sandbox.exec(&format!("{name}-db-0"), script).await;
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn as_owner(sandbox: &Sandbox, name: &str, sql: &str) {
    let (done, said) = ask(sandbox, &["psql", name, "--", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]).await;
    assert!(done, "{sql}: {said}");
}

/// The node of the only instance.
async fn node(sandbox: &Sandbox, name: &str) -> String {
    let pods = sandbox.pods(name).await;
    pods.into_iter().find_map(|pod| pod.spec?.node_name).expect("a pod on a node")
}

/// What a server that nobody has restarted tells again.
async fn started(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let query = "SELECT version() || pg_postmaster_start_time()::text";
    column(&sandbox.connect(name).await, query).await.expect("a row")
}

async fn upgrade(sandbox: &Sandbox, name: &str) -> UpgradeStatus {
    *sandbox.get(name).await.status.and_then(|status| status.upgrade).expect("an upgrade")
}

/// Creates the second database, on the node of the first, with a volume that can be full.
async fn create_beside(sandbox: &Sandbox, node: &str) {
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
    let mut spec = spec();
    spec["storage"] = json!({"size": "1Gi", "storageClassName": "growable"});
    spec["scheduling"] = json!({"affinity": {"nodeAffinity": required}});
    spec["migrations"] = json!({"source": {"configMap": {"name": "migrations"}}});
    sandbox.create(database("full", spec)).await;
    sandbox.ready("full", READY).await;
}

fn spec() -> Value {
    json!({"storage": {"size": "1Gi"}, "postgres": {"version": "17"}, "backup": {"enabled": false}})
}

/// A rehearsal that fails with these words, and changes nothing.
async fn is_stopped(sandbox: &Sandbox, name: &str, words: &[&str]) {
    let before = started(sandbox, name).await;
    let (done, said) = ask(sandbox, &["upgrade", name, "--check"]).await;
    assert!(!done && words.iter().all(|word| said.contains(word)), "{name}: {said}");
    assert!(said.contains("nothing was changed"), "{name}: {said}");
    assert_eq!(upgrade(sandbox, name).await.phase, UpgradePhase::Failed, "{name}");
    assert_eq!(started(sandbox, name).await, before, "{name} is the same server");
    exec(sandbox, name, &format!("! test -e {VOLUME}/pgdata.former")).await;
}

/// A policy and a function that would do something else on the new version stop the upgrade, each by its name.
async fn meanings_stop_it(sandbox: &Sandbox) {
    let policy = "CREATE TABLE mail (id int, address citext); ALTER TABLE mail ENABLE ROW LEVEL SECURITY; \
                  CREATE POLICY own ON mail USING (address IS NOT DISTINCT FROM current_user::citext); \
                  CREATE VIEW alike AS SELECT m.id FROM mail m JOIN mail n ON m.address = n.address";
    as_owner(sandbox, "shop", policy).await;
    is_stopped(sandbox, "shop", &["for policy own on public.mail: without operator public.=(public.citext"]).await;
    let function = "DROP POLICY own ON mail; CREATE FUNCTION mail(id int) RETURNS SETOF mail \
                    BEGIN ATOMIC SELECT * FROM mail WHERE mail.id = $1; END";
    as_owner(sandbox, "shop", function).await;
    is_stopped(sandbox, "shop", &["for function public.mail(integer): without parameter 1"]).await;
    let alias = "CREATE OR REPLACE FUNCTION mail(id int) RETURNS SETOF mail \
                 BEGIN ATOMIC SELECT * FROM mail m WHERE m.id = $1; END";
    as_owner(sandbox, "shop", alias).await;
}

/// The upgrade of one, to its end.
async fn is_made(sandbox: &Sandbox, name: &str) {
    let (done, said) = ask(sandbox, &["upgrade", name, "--yes"]).await;
    println!("{name}: {said}");
    assert!(done, "{name}: {said}");
}

#[test]
fn two_databases_of_a_node_are_upgraded_at_once_after_what_stopped_them() {
    if !Cluster::is_local() {
        return;
    }
    let _restarts = restarts::excluded();
    shared("at-once", async |sandbox: Arc<Sandbox>| {
        let mut with_citext = spec();
        with_citext["postgres"]["extensions"] = json!([{"name": "citext"}]);
        with_notes(&sandbox, with_citext).await;
        let node_of_both = node(&sandbox, "shop").await;
        create_beside(&sandbox, &node_of_both).await;
        for name in BOTH {
            let newer = json!({"spec": {"postgres": {"version": "18"}}});
            sandbox.patch::<ServiceDatabase>(name, &newer).await;
            sandbox
                .wait("the upgrade is pending", name, SOON, |found| {
                    let upgrade = found.status.as_ref().and_then(|status| status.upgrade.as_ref());
                    upgrade.is_some_and(|upgrade| upgrade.phase == UpgradePhase::Pending)
                })
                .await;
        }

        // PostgreSQL stores such a value as a number, which another version may give to another function.
        as_owner(&sandbox, "shop", "CREATE TABLE odd (what regproc)").await;
        // Room for what the database itself needs, and none for a copy beside it.
        let fill = format!(
            "cd {VOLUME} && size=$(df --output=size -B1 . | tail -1) && free=$(df --output=avail -B1 . | tail -1) \
             && fallocate -l $((free - size / 100 * 11)) ballast"
        );
        exec(&sandbox, "full", &fill).await;
        tokio::join!(
            is_stopped(&sandbox, "shop", &["odd"]),
            is_stopped(&sandbox, "full", &["the volume has", "spec.storage.size"]),
        );
        as_owner(&sandbox, "shop", "DROP TABLE odd").await;
        meanings_stop_it(&sandbox).await;
        exec(&sandbox, "full", &format!("rm {VOLUME}/ballast")).await;

        let writers = BOTH.map(|name| (name, Writer::start(sandbox.clone(), name)));
        for (_, writer) in &writers {
            writer.goes_on(20).await;
        }
        tokio::join!(is_made(&sandbox, "shop"), is_made(&sandbox, "full"));
        as_owner(&sandbox, "shop", "DROP FUNCTION mail; DROP TABLE mail CASCADE").await;
        let (one, other) = (upgrade(&sandbox, "shop").await, upgrade(&sandbox, "full").await);
        let span = |upgrade: &UpgradeStatus| {
            let started = upgrade.last_request.as_ref().map(|request| request.started_at.0).expect("a start");
            (started, upgrade.switched_at.as_ref().map(|time| time.0).expect("an exchange"))
        };
        let (first, second) = (span(&one), span(&other));
        assert!(first.0 < second.1 && second.0 < first.1, "not at once: {first:?}, {second:?}");
        for name in BOTH {
            assert_eq!(node(&sandbox, name).await, node_of_both, "{name} is on another node");
        }

        // Right after it.
        let data: serde_json::Map<_, _> =
            [NOTES, LATER].iter().map(|(file, text)| ((*file).to_owned(), json!(text))).collect();
        sandbox.patch::<ConfigMap>("migrations", &json!({"data": data})).await;
        for name in BOTH {
            sandbox
                .wait("the later migration is applied", name, READY, |found| {
                    found.status.as_ref().and_then(|status| status.schema_version.as_deref()) == Some("2")
                })
                .await;
            let (done, said) = ask(&sandbox, &["drift", name]).await;
            assert!(done && said.contains("the schema matches"), "{name}: {said}");
        }
        for (name, writer) in writers {
            writer.goes_on(20).await;
            writer.all_are_there(&sandbox, name).await;
            let version = column(&sandbox.connect(name).await, "SHOW server_version").await.expect("a version");
            assert!(version[0].starts_with("18."), "{name}: {version:?}");
            let (done, said) = ask(&sandbox, &["upgrade", name, "--finish", "--yes"]).await;
            assert!(done, "{name}: {said}");
        }
    });
}
