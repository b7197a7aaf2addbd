//! Secrecy: a database's passwords, its pods' secret_ids and its private keys are only in Vault
//! and in Secrets.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use tokio::task::JoinHandle;

use crate::harness::{
    Cluster, Operator, READY, SOON, Sandbox, config_map, database, run, service_account, shared, sqlstate, until,
};

const TABLE: (&str, &str) = ("1_notes.up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY);");

#[test]
fn no_secret_shows_anywhere() {
    shared("canary", async |sandbox| {
        let processes = Cluster::is_local().then(Processes::watch);
        let proofs = verifiers(sandbox.clone());
        sandbox.create(service_account("shop")).await;
        sandbox.create(config_map("migrations", &[TABLE])).await;
        let spec = json!({
            "clients": [{"serviceAccountName": "shop"}],
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
            // All that makes PostgreSQL log statements.
            "postgres": {"parameters": {
                "log_statement": "all", "log_duration": "on", "log_min_duration_statement": "0",
                "log_min_error_statement": "debug5", "log_min_messages": "debug1", "log_parser_stats": "on",
                "debug_print_parse": "on", "debug_print_rewritten": "on", "debug_print_plan": "on",
            }},
            "monitoring": {"slowQuerySeconds": 1},
            "audit": {"classes": ["Read", "Write", "Function", "Role", "Ddl", "Misc"]},
        });
        sandbox.create(database("shop", spec)).await;
        let ready = sandbox.ready("shop", READY).await;
        provoke(&sandbox).await;
        let mut canaries = secrets(&sandbox).await;
        canaries.extend(proofs.await.expect("the reader of the pending record"));
        for (place, text) in places(&sandbox).await {
            assert!(text.len() > 20, "nothing is seen in {place}, so nothing is shown by it");
            for (what, canary) in &canaries {
                assert!(!text.contains(canary), "{what} is in {place}");
            }
        }
        if let Some(processes) = processes {
            let seen = processes.stop().await;
            // That the pods' processes were seen at all is shown by what is no secret.
            let pod = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid().unwrap_or_default();
            assert!(
                seen.iter().any(|text| contains(text, pod.as_bytes())),
                "the pod's processes were not seen in /proc; run as root"
            );
            for (what, canary) in &canaries {
                assert!(
                    !seen.iter().any(|text| contains(text, canary.as_bytes())),
                    "{what} is in a process's environment or command line"
                );
            }
        }
        assert!(ready.status.is_some());
    });
}

/// Failed logins and statements are what servers like to log in full.
async fn provoke(sandbox: &Sandbox) {
    let credentials = sandbox.credentials("shop").await;
    let mut wrong = credentials.clone();
    wrong.user = "shop_db_owner".to_owned();
    let refused = sandbox.login("shop", &wrong).await.err().expect("a role without a login was let in");
    assert!(sqlstate(&refused).is_some(), "{refused}");
    let connection = sandbox.connect("shop").await;
    // An ALTER ROLE of the application's own password is the application's business, but not this.
    let refused = run(&connection, "SELECT nothing FROM nowhere").await.expect_err("a broken statement");
    assert_eq!(refused.sqlstate.as_deref(), Some("42P01"));
}

/// The verifiers that PostgreSQL stores are in `pending` for a moment; who has them can try
/// passwords at leisure.
fn verifiers(sandbox: Arc<Sandbox>) -> JoinHandle<Vec<(String, String)>> {
    tokio::spawn(async move {
        let path = sandbox.vault_names("shop").pending();
        let record = until("the pending record", SOON, || async {
            sandbox.vault().record(&path).await.ok_or_else(|| "none yet".to_owned())
        })
        .await;
        let verifier = |key: &str| {
            let whole = record[key].as_str().expect("a verifier").to_owned();
            // The last part is the keys; the part before it is in every verifier alike.
            (format!("the verifier {key}"), whole.rsplit('$').next().unwrap_or_default().to_owned())
        };
        vec![verifier("APP_VERIFIER"), verifier("MIGRATOR_VERIFIER")]
    })
}

/// What must not be seen, with the words for it.
async fn secrets(sandbox: &Sandbox) -> Vec<(String, String)> {
    let names = sandbox.vault_names("shop");
    let runtime = sandbox.vault().record(&names.runtime()).await.expect("the runtime record");
    let migrator = sandbox.vault().record(&names.migrator_record()).await.expect("the migrator's record");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut secrets = vec![
        ("the application's password".to_owned(), text(&runtime["SHOP_DB_PASSWORD"])),
        ("the migrator's password".to_owned(), text(&migrator["PASSWORD"])),
    ];
    let mut count = 0;
    for secret in sandbox.api::<Secret>().list(&ListParams::default()).await.expect("the Secrets").items {
        for (key, value) in secret.data.clone().unwrap_or_default() {
            let value = String::from_utf8(value.0).expect("text");
            if key == "secret-id" {
                secrets.push((format!("the secret_id of {}", secret.name_any()), value));
                count += 1;
            } else if key.ends_with(".key") {
                // A line of the key's body, as it would show whatever surrounds it.
                let line = value.lines().nth(1).expect("a key has lines").to_owned();
                assert!(line.len() > 30, "{} {key} is no PEM key", secret.name_any());
                secrets.push((format!("the key {key} of {}", secret.name_any()), line));
            }
        }
    }
    assert_eq!(count, 2, "secret_ids in Secrets");
    assert!(secrets.iter().all(|(_, secret)| secret.len() >= 20), "a secret is too short to look for");
    secrets
}

/// Every place where something might show, by name.
async fn places(sandbox: &Sandbox) -> Vec<(String, String)> {
    let operator = Operator::of(sandbox.cluster);
    // Another test may have replaced the operator's pod a moment ago.
    let log = until("the operator has logged something", SOON, || async {
        let log = operator.logs(None).await;
        if log.len() > 20 { Ok(log) } else { Err(format!("{} bytes", log.len())) }
    })
    .await;
    let mut places = vec![
        ("the operator's log".to_owned(), log),
        ("the operator's metrics".to_owned(), operator.metrics().await),
        (
            "the ServiceDatabase".to_owned(),
            json!(sandbox.api::<ServiceDatabase>().get("shop").await.expect("the resource")).to_string(),
        ),
    ];
    // The kubelet begins another file when a log is large, as this one is, and shows the newest.
    until("PostgreSQL's log is in the pod's log", SOON, || async {
        provoke(sandbox).await;
        let log = sandbox.api::<Pod>().logs("shop-db-0", &LogParams::default()).await.map_err(|it| it.to_string())?;
        if log.contains("nowhere") { Ok(()) } else { Err(format!("{} bytes", log.len())) }
    })
    .await;
    for pod in sandbox.api::<Pod>().list(&ListParams::default()).await.expect("the pods").items {
        let mut log = String::new();
        for previous in [true, false] {
            let parameters = LogParams { previous, ..LogParams::default() };
            log.push_str(&sandbox.api::<Pod>().logs(&pod.name_any(), &parameters).await.unwrap_or_default());
        }
        places.push((format!("the log of {}", pod.name_any()), log));
    }
    assert!(places.iter().any(|(place, _)| place.contains("migrate")), "no migration Job's pod is left to look at");
    for (group, kinds) in [
        (
            "/api/v1",
            &["configmaps", "events", "pods", "services", "serviceaccounts", "persistentvolumeclaims", "endpoints"][..],
        ),
        ("/apis/apps/v1", &["statefulsets", "controllerrevisions"]),
        ("/apis/batch/v1", &["jobs"]),
        ("/apis/networking.k8s.io/v1", &["networkpolicies"]),
        ("/apis/rbac.authorization.k8s.io/v1", &["roles", "rolebindings"]),
    ] {
        for kind in kinds {
            places.push((kind.to_string(), get(sandbox, group, kind).await.to_string()));
        }
    }
    // Of Secrets everything but their data.
    let mut metadata = String::new();
    for secret in sandbox.api::<Secret>().list(&ListParams::default()).await.expect("the Secrets").items {
        let _ = writeln!(metadata, "{}", json!(secret.metadata));
    }
    places.push(("the Secrets' metadata".to_owned(), metadata));
    places
}

async fn get(sandbox: &Sandbox, group: &str, kind: &str) -> Value {
    let request = http::Request::get(format!("{group}/namespaces/{}/{kind}", sandbox.namespace))
        .body(Vec::new())
        .expect("a request");
    sandbox.cluster.client.request(request).await.unwrap_or_else(|error| panic!("reading {kind}: {error}"))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The environments and command lines of all processes of this machine, gathered while the
/// database comes up, since initdb and its like live for a moment.
struct Processes {
    stop: Arc<AtomicBool>,
    task: JoinHandle<HashSet<Vec<u8>>>,
}

impl Processes {
    fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut seen = HashSet::new();
            loop {
                let last = stopped.load(Ordering::Relaxed);
                gather(&mut seen);
                if last {
                    return seen;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop, task }
    }

    async fn stop(self) -> HashSet<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the reader of /proc")
    }
}

fn gather(seen: &mut HashSet<Vec<u8>>) {
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        if !entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        for file in ["environ", "cmdline"] {
            // A process that ended meanwhile has nothing to show any more.
            if let Ok(text) = std::fs::read(entry.path().join(file)) {
                seen.insert(text);
            }
        }
    }
}
