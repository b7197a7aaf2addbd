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
use servicedb::postgres::Connection;
use tokio::time::Instant;

use crate::harness::{
    Load, READY, SOON, Sandbox, column, counter, login_at, plugin, pooler_address, run, shared, until, with_notes,
};

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
    shared("pooled", async |sandbox| {
        let spec = json!({"instances": 2, "pooler": {"instances": 2, "poolSize": 8, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}});
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
        let mut found = load.stop().await;
        println!("{} transactions, {} logins, {:?}", found.acknowledged.len(), found.logins, found.longest);
        // A known limit (docs/pooler.md): a connection to PostgreSQL that PgBouncer opened just as it paused.
        found.failures.retain(|why, times| !(why.contains("cached error: pause mode") && *times == 1));
        assert!(found.failures.is_empty(), "{:?}", found.failures);
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
    // One for each client at the most, and no more of them once the clients write again.
    let failed = load.failures();
    load.goes_on(300).await;
    assert_eq!(load.failures(), failed, "connections stay broken");
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
        let pod = sandbox.api::<Pod>().get(&name).await.expect("the pod");
        let address = pod.status.and_then(|status| status.pod_ip).expect("its address");
        let metrics = reqwest::get(format!("http://{address}:8010/metrics")).await.expect("the metrics");
        let metrics = metrics.text().await.expect("their text");
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
    shared("pauses", async |sandbox| {
        let changes = json!({"holdSeconds": 6, "onTimeout": "Postpone"});
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
        until("the clients are gone", SOON, || async { login().await.map(drop).map_err(|error| error.to_string()) })
            .await;

        // A transaction that stays open: the switchover is put off, and told.
        let leads = sandbox.primary("shop").await;
        let (long, other) = (login().await.expect("a login"), login().await.expect("a login"));
        run(&long, "BEGIN; INSERT INTO notes VALUES (1, 'long')").await.expect("a transaction");
        let patch = json!({"metadata": {"annotations": {ANNOTATION_SWITCHOVER: "one"}}});
        sandbox.patch::<ServiceDatabase>("shop", &patch).await;
        let message = sandbox.condition("shop", "Ready", "False", "ChangePostponed", SOON).await.message;
        assert!(message.contains("switchover of") && message.contains("transactions of"), "{message}");
        let stalled = asked(&other).await;
        assert!(stalled < Duration::from_secs(4), "the pause was given up, and a query took {stalled:?}");
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
        let hold = json!({"version": 1, "id": "by-hand", "change": "by hand", "issuedAt": jiff::Timestamp::now(), "seconds": 4});
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
        let fresh = login().await.map(|connection| asked_of(connection, began));
        let waited = fresh.expect("a login").await;
        exec(&sandbox, &pod, "kill -CONT $(pidof servicedb)").await;
        assert!(waited > Duration::from_secs(3), "the queries were not held: {waited:?}");
        assert!(waited < Duration::from_secs(10), "the pause lasted {waited:?}");
    });
}

async fn asked_of(connection: Connection, began: Instant) -> Duration {
    run(&connection, "SELECT 1").await.expect("an answer");
    began.elapsed()
}

/// The pods of the pooler.
async fn poolers(sandbox: &Sandbox) -> Vec<String> {
    let selected = ListParams::default().labels("app.kubernetes.io/component=pooler");
    let pods = sandbox.api::<Pod>().list(&selected).await.expect("the pods");
    pods.items.iter().map(ResourceExt::name_any).collect()
}

async fn exec(sandbox: &Sandbox, pod: &str, script: &str) {
    let output = sandbox.exec_in(pod, "pooler", script).await;
    assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn pooler_pods_end_without_an_error_for_new_connections() {
    shared("poolers-end", async |sandbox| {
        with_notes(&sandbox, json!({"pooler": {"instances": 2, "poolSize": 8}})).await;
        let (address, host) = pooler_address(&sandbox).await;
        let credentials = sandbox.credentials("shop").await;
        let load = Load::start(address, &host, &credentials, 6);
        load.goes_on(50).await;
        // A single instance is restarted in place.
        ask(&sandbox, &["restart", "shop"]).await;
        load.goes_on(50).await;
        println!("restart of a single instance: {:?}", load.longest());
        assert!(load.failures().is_empty(), "{:?}", load.failures());
        for pod in poolers(&sandbox).await {
            sandbox.delete::<Pod>(&pod).await;
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
        assert!(!found.failures.keys().any(|what| what.starts_with("login")), "{:?}", found.failures);
        // Each of the six clients that stay connected is cut once for each of the two pods at most.
        let cut: usize = found.failures.values().sum();
        assert!(cut <= 12, "{:?}", found.failures);

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
