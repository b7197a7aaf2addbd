//! The pooler: logins as in Vault, planned changes that clients do not see, its removal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::api::names::{ANNOTATION_ROTATE, ANNOTATION_SWITCHOVER};
use servicedb::contract::pooler::POOLER_PORT;
use servicedb::postgres::{ConnectError, Connection};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{
    Load, READY, SOON, Sandbox, column, counter, login_at, plugin, pooler_address, restarts, run, shared, until,
    with_notes,
};

/// In seconds: the default is shorter than a change that a busy machine makes.
const LONG_HOLD: u64 = 60;

async fn ask(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = plugin(sandbox, arguments).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

async fn set(sandbox: &Sandbox, spec: Value) {
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": spec})).await;
}

async fn rotate(sandbox: &Sandbox, token: &str) {
    let patch = json!({"metadata": {"annotations": {ANNOTATION_ROTATE: token}}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
    sandbox
        .wait("the rotation is answered", "shop", READY, |database| {
            let credentials = database.status.as_ref().and_then(|status| status.credentials.as_ref());
            credentials.and_then(|credentials| credentials.rotate_request.as_deref()) == Some(token)
        })
        .await;
}

#[test]
fn planned_changes_cannot_be_seen_through_the_pooler() {
    let _restarts = restarts::excluded();
    shared("pooled", async |sandbox| {
        let pooler = json!({"instances": 2, "poolSize": 8, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}, "plannedChanges": {"holdSeconds": LONG_HOLD}});
        let spec = json!({"instances": 2, "pooler": pooler});
        with_notes(&sandbox, spec).await;
        let (address, host) = pooler_address(&sandbox).await;
        let credentials = sandbox.credentials("shop").await;

        // Only what is in Vault logs in, whatever the user is called.
        for (user, password) in [(credentials.user.as_str(), "wrong"), ("servicedb_pooler", ""), ("postgres", "x")] {
            let mut other = credentials.clone();
            (other.user, other.password) = (user.to_owned(), password.to_owned());
            let refused = login_at(address, &host, &other).await;
            assert!(refused.is_err(), "{user} has logged in");
        }
        let mut other = credentials.clone();
        other.database = "postgres".to_owned();
        assert!(login_at(address, &host, &other).await.is_err(), "the database postgres is open");

        let load = Load::start(address, &host, &credentials, 12);
        load.goes_on(100).await;
        println!("steady: {:?}", load.longest());
        for number in 0..3 {
            ask(&sandbox, &["switchover", "shop"]).await;
            println!("switchover {number}: {:?}", load.longest());
            sandbox.ready("shop", READY).await;
        }
        let status = sandbox.get("shop").await.status.expect("a status");
        let hold = status.pooler.and_then(|pooler| pooler.last_hold).expect("a hold");
        assert!(hold.held && hold.message.is_none(), "{hold:?}");
        load.longest();
        ask(&sandbox, &["restart", "shop"]).await;
        println!("restart: {:?}", load.longest());
        rotate(&sandbox, "one").await;
        load.goes_on(100).await;
        seen(&sandbox, &credentials.user).await;
        load.longest();
        // A parameter that needs a restart of both instances, and new pods for both.
        set(&sandbox, json!({"postgres": {"parameters": {"max_connections": "90"}}})).await;
        until("the parameter holds", READY, || async {
            let shown = "SELECT current_setting('max_connections')";
            let connection = sandbox.login("shop", &credentials).await.map_err(|error| error.to_string())?;
            let found = column(&connection, shown).await.map_err(|refusal| refusal.message)?;
            if found == ["90"] { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        sandbox.ready("shop", READY).await;
        println!("restart for a parameter: {:?}", load.longest());
        let before = uids(&sandbox).await;
        set(&sandbox, json!({"resources": {"requests": {"cpu": "60m"}}})).await;
        until("both pods are new", READY, || async {
            let now = uids(&sandbox).await;
            let is_new = now.len() == 2 && now.iter().all(|uid| !before.contains(uid));
            if is_new { Ok(()) } else { Err(format!("{before:?}, {now:?}")) }
        })
        .await;
        sandbox.ready("shop", READY).await;
        println!("rollout: {:?}", load.longest());
        load.goes_on(100).await;
        let found = load.stop().await;
        println!("{} transactions, {} logins, {:?}", found.acknowledged.len(), found.logins, found.longest);
        assert!(found.unexpected().is_empty(), "{:?}", found.failures);
        found.is_stored(&sandbox, "shop").await;

        primary_lost(&sandbox, address, &host).await;
        removed(&sandbox).await;
    });
}

/// The uids of the instances' pods.
async fn uids(sandbox: &Sandbox) -> Vec<String> {
    let selected = ListParams::default().labels("app.kubernetes.io/component=database");
    let pods = sandbox.api::<Pod>().list(&selected).await.expect("the pods");
    pods.items.iter().filter_map(ResourceExt::uid).collect()
}

/// What is not planned costs errors, and no connection stays broken once another instance leads.
async fn primary_lost(sandbox: &Arc<Sandbox>, address: IpAddr, host: &str) {
    let credentials = sandbox.credentials("shop").await;
    let load = Load::start(address, host, &credentials, 6);
    load.goes_on(50).await;
    sandbox.lose_primary("shop").await;
    load.goes_on(100).await;
    println!("the primary's pod deleted at once: {:?}, failures {:?}", load.longest(), load.failures());
    // The last of them may come while others write already; then there are no more.
    until("no connection stays broken", READY, || async {
        let failed = load.failures();
        load.goes_on(300).await;
        let now = load.failures();
        if now == failed { Ok(()) } else { Err(format!("{now:?}, and {failed:?} before")) }
    })
    .await;
    let found = load.stop().await;
    found.is_stored(sandbox, "shop").await;
    sandbox.ready("shop", READY).await;
}

/// The pools are in `kubectl servicedb pooler`, in the status, and in the metrics of the pods.
async fn seen(sandbox: &Sandbox, user: &str) {
    let pools = ask(sandbox, &["pooler", "shop"]).await;
    assert!(pools.contains(user) && pools.contains("queries were held"), "{pools}");
    let status = ask(sandbox, &["status", "shop"]).await;
    assert!(status.contains("2/2 pods ready"), "{status}");
    let mut held = 0.0;
    for name in poolers(sandbox).await {
        let metrics = metrics(sandbox, &name).await;
        let log = sandbox.api::<Pod>().logs(&name, &LogParams::default()).await.expect("a log");
        assert!(!log.contains("PgBouncer has ended"), "PgBouncer was restarted: {log}");
        assert!(
            metrics.contains(&format!(r#"servicedb_pooler_clients{{database="shop_db",user="{user}""#)),
            "{metrics}"
        );
        held += counter(&metrics, "servicedb_pooler_holds_total");
    }
    // Three switchovers, and the one of the restart, in each of two pods.
    assert!(held >= 8.0, "{held} holds");
}

/// Without `spec.pooler` nothing of it is left.
async fn removed(sandbox: &Arc<Sandbox>) {
    set(sandbox, json!({"pooler": null})).await;
    until("the pooler is removed", SOON, || async {
        let left = [
            sandbox.api::<Deployment>().get_opt("shop-db-pooler").await.map(|it| it.is_some()),
            sandbox.api::<Service>().get_opt("shop-db-pooler").await.map(|it| it.is_some()),
            sandbox.api::<ConfigMap>().get_opt("shop-db-pooler-orders").await.map(|it| it.is_some()),
            sandbox.api::<Secret>().get_opt("shop-db-pooler-tls").await.map(|it| it.is_some()),
        ];
        let left: Vec<_> =
            left.into_iter().map(|it| it.map_err(|error| error.to_string())).collect::<Result<_, _>>()?;
        let record = sandbox.vault().record(&sandbox.vault_names("shop").runtime()).await.ok_or("no record")?;
        let named = record.get("SHOP_DB_POOLER_HOST").is_some();
        if left.contains(&true) || named { Err(format!("{left:?}, in the record: {named}")) } else { Ok(()) }
    })
    .await;
    let output = sandbox
        .exec(
            &sandbox.primary("shop").await,
            "psql -XAtc \"SELECT rolcanlogin FROM pg_roles WHERE rolname = 'servicedb_pooler'\"",
        )
        .await;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "f", "its role can log in");
    assert!(sandbox.get("shop").await.status.is_some_and(|status| status.pooler.is_none()));
}

/// How long a query through the pooler takes now.
async fn asked(connection: &Connection) -> Duration {
    let began = Instant::now();
    run(connection, "SELECT 1").await.expect("an answer");
    began.elapsed()
}

#[test]
fn a_pause_always_ends_and_a_long_transaction_is_not_cut_unasked() {
    let _restarts = restarts::excluded();
    shared("pauses", async |sandbox| {
        let changes = json!({"holdSeconds": 20, "onTimeout": "Postpone"});
        let pooler_spec = json!({"instances": 1, "poolSize": 5, "maxClientConnections": 20, "plannedChanges": changes});
        with_notes(&sandbox, json!({"instances": 2, "pooler": pooler_spec})).await;
        let (address, host) = pooler_address(&sandbox).await;
        let credentials = sandbox.credentials("shop").await;
        let login = async || login_at(address, &host, &credentials).await;

        // More clients than it may have: the others are told, and those that are there go on.
        let mut clients = Vec::new();
        let mut refused = 0;
        for _ in 0..25 {
            match login().await {
                Ok(connection) => clients.push(connection),
                Err(error) => {
                    assert!(error.to_string().contains("no more connections allowed"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused >= 5, "{refused} of 25 clients were refused");
        for client in &clients {
            run(client, "SELECT 1").await.expect("an answer");
        }
        drop(clients);
        let (long, other) = until("the clients are gone", SOON, || async {
            match (login().await, login().await) {
                (Ok(long), Ok(other)) => Ok((long, other)),
                (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
            }
        })
        .await;

        // A transaction that stays open: the switchover is put off, and told.
        let leads = sandbox.primary("shop").await;
        run(&long, "BEGIN; INSERT INTO notes VALUES (1, 'long')").await.expect("a transaction");
        let patch = json!({"metadata": {"annotations": {ANNOTATION_SWITCHOVER: "one"}}});
        sandbox.patch::<ServiceDatabase>("shop", &patch).await;
        let message = sandbox.condition("shop", "Ready", "False", "ChangePostponed", SOON).await.message;
        assert!(message.contains("switchover of") && message.contains("transactions of"), "{message}");
        let stalled = asked(&other).await;
        // Half of the hold is left.
        assert!(stalled < Duration::from_secs(8), "the pause was given up, and a query took {stalled:?}");
        run(&long, "COMMIT").await.expect("its transaction ends");
        assert_eq!(sandbox.primary("shop").await, leads, "the lead was handed over");
        // With the other policy it is made at once.
        set(&sandbox, json!({"pooler": {"plannedChanges": {"onTimeout": "Proceed"}}})).await;
        until("another instance leads", SOON, || async {
            let now = sandbox.primary("shop").await;
            if now == leads { Err(format!("{now} leads")) } else { Ok(()) }
        })
        .await;
        sandbox.ready("shop", READY).await;

        // An order that nobody withdraws, to a pod whose main process hangs: the operator leaves a paused resource alone.
        set(&sandbox, json!({"paused": true})).await;
        sandbox.condition("shop", "Stalled", "True", "Paused", SOON).await;
        let pod = poolers(&sandbox).await.remove(0);
        let hold = json!({"version": 1, "id": "by-hand", "change": "by hand", "issuedAt": jiff::Timestamp::now(), "seconds": 12});
        let began = Instant::now();
        sandbox.patch::<ConfigMap>("shop-db-pooler-orders", &json!({"data": {"hold.json": hold.to_string()}})).await;
        until("the pod holds its queries", SOON, || async {
            let reports =
                sandbox.api::<ConfigMap>().get("shop-db-pooler-reports").await.map_err(|it| it.to_string())?;
            let text = reports.data.and_then(|data| data.get(&pod).cloned()).unwrap_or_default();
            if text.contains("held") { Ok(()) } else { Err(text) }
        })
        .await;
        exec(&sandbox, &pod, "kill -STOP $(pidof servicedb)").await;
        // A client waits for a login for about as long as the queries are held.
        let fresh = until("a login", SOON, || async {
            match login().await {
                Err(error @ ConnectError::Unanswered { .. }) => Err(error.to_string()),
                answered => Ok(answered.expect("a login")),
            }
        });
        let waited = asked_of(fresh.await, began).await;
        exec(&sandbox, &pod, "kill -CONT $(pidof servicedb)").await;
        assert!(waited > Duration::from_secs(10), "the queries were not held: {waited:?}");
        assert!(waited < Duration::from_secs(30), "the pause lasted {waited:?}");
    });
}

async fn asked_of(connection: Connection, began: Instant) -> Duration {
    run(&connection, "SELECT 1").await.expect("an answer");
    began.elapsed()
}

/// The pods of the pooler.
pub async fn poolers(sandbox: &Sandbox) -> Vec<String> {
    let selected = ListParams::default().labels("app.kubernetes.io/component=pooler");
    let pods = sandbox.api::<Pod>().list(&selected).await.expect("the pods");
    pods.items.iter().map(ResourceExt::name_any).collect()
}

/// The metrics of a pod of the pooler.
pub async fn metrics(sandbox: &Sandbox, pod: &str) -> String {
    let pod = sandbox.api::<Pod>().get(pod).await.expect("the pod");
    let address = pod.status.and_then(|status| status.pod_ip).expect("its address");
    let metrics = reqwest::get(format!("http://{address}:8010/metrics")).await.expect("the metrics");
    metrics.text().await.expect("their text")
}

async fn exec(sandbox: &Sandbox, pod: &str, script: &str) {
    let output = sandbox.exec_in(pod, "pooler", script).await;
    assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Deletes a pod of the pooler, which takes connections for three seconds more.
async fn ends(sandbox: &Sandbox, pod: &str) {
    let address = sandbox.api::<Pod>().get(pod).await.expect("the pod").status.and_then(|status| status.pod_ip);
    let address: IpAddr = address.and_then(|address| address.parse().ok()).expect("its address");
    let began = Instant::now();
    sandbox.delete::<Pod>(pod).await;
    // By now it was told to end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let connected = TcpStream::connect((address, POOLER_PORT)).await;
    let took = began.elapsed();
    // A busy machine may ask too late.
    assert!(connected.is_ok() || took > Duration::from_secs(3), "{pod} after {took:?}: {connected:?}");
}

#[test]
fn pooler_pods_end_without_an_error_for_new_connections() {
    let _restarts = restarts::excluded();
    shared("poolers-end", async |sandbox| {
        let pooler = json!({"instances": 2, "poolSize": 8, "plannedChanges": {"holdSeconds": LONG_HOLD}});
        with_notes(&sandbox, json!({"pooler": pooler})).await;
        let (address, host) = pooler_address(&sandbox).await;
        let credentials = sandbox.credentials("shop").await;
        let load = Load::start(address, &host, &credentials, 6);
        load.goes_on(50).await;
        // A single instance is restarted in place.
        ask(&sandbox, &["restart", "shop"]).await;
        load.goes_on(50).await;
        println!("restart of a single instance: {:?}", load.longest());
        assert!(load.unexpected().is_empty(), "{:?}", load.failures());
        for pod in poolers(&sandbox).await {
            ends(&sandbox, &pod).await;
            until("another pod serves", READY, || async {
                let now = poolers(&sandbox).await;
                let deployment =
                    sandbox.api::<Deployment>().get("shop-db-pooler").await.map_err(|it| it.to_string())?;
                let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or_default();
                if now.contains(&pod) || ready < 2 { Err(format!("{now:?}, {ready} ready")) } else { Ok(()) }
            })
            .await;
        }
        load.goes_on(50).await;
        let found = load.stop().await;
        println!("{} transactions, {} logins, failures: {:?}", found.acknowledged.len(), found.logins, found.failures);
        found.is_stored(&sandbox, "shop").await;
        // On a busy machine the Service may route to a pod after its three seconds.
        let mut failures = found.unexpected();
        failures.retain(|what, _| !(what.starts_with("login") && what.contains("Connection refused")));
        assert!(!failures.keys().any(|what| what.starts_with("login")), "{failures:?}");
        // Each of the six clients that stay connected is cut once for each of the two pods at most.
        let cut: usize = failures.values().sum();
        assert!(cut <= 12, "{failures:?}");

        // What the pods cannot serve is refused with the numbers; what they lack is told.
        set(&sandbox, json!({"pooler": {"poolSize": 60}})).await;
        let message = sandbox.condition("shop", "Stalled", "True", "InvalidSpec", SOON).await.message;
        assert!(message.contains("192 connections") && message.contains("max_connections is 100"), "{message}");
        let session =
            json!({"spec": {"pooler": {"mode": "Session", "poolSize": 8, "plannedChanges": {"holdSeconds": 3}}}});
        let api = sandbox.api::<ServiceDatabase>();
        let refused = api.patch("shop", &PatchParams::default(), &Patch::Merge(&session)).await.expect_err("a refusal");
        assert!(refused.to_string().contains("needs spec.pooler.mode Transaction"), "{refused}");
        set(&sandbox, json!({"pooler": {"poolSize": 8}})).await;
        sandbox.ready("shop", READY).await;
    });
}
