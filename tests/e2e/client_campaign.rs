//! Six clients with logins of their own, at work through everything that may happen to a database: whoever may is refused
//! no login, and whoever may not is accepted by none. It takes minutes, and seals Vault: `dev/clients.sh campaign`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::api::names::ANNOTATION_ROTATE_CLIENT;
use tokio::task::JoinHandle;

use crate::harness::{
    Cluster, Credentials, NOTES, READY, SOON, Sandbox, Vault, alone, column, config_map, database, plugin, run,
    sqlstate, store, until,
};

const CLIENTS: [&str; 6] = ["one", "two", "three", "four", "five", "leaver"];
/// How many rotations there are, of all clients and of one by turns.
const ROTATIONS: usize = 20;
/// How long a removed client may be accepted: until operator and agents have acted.
const SECONDS_TO_LEAVE: Duration = Duration::from_secs(30);

/// What the clients found.
#[derive(Default)]
struct Found {
    stop: AtomicBool,
    /// While Vault is sealed, services go on with what they have read.
    sealed: AtomicBool,
    logins: AtomicUsize,
    written: Mutex<BTreeMap<i64, &'static str>>,
    refused: Mutex<Vec<String>>,
}

/// A service: reads its record, logs in, writes some rows, and begins again.
async fn at_work(sandbox: Arc<Sandbox>, client: &'static str, number: i64, found: Arc<Found>, gone: Arc<AtomicBool>) {
    let mut known: Option<Credentials> = None;
    let mut id = number * 1_000_000;
    while !found.stop.load(Ordering::Relaxed) && !gone.load(Ordering::Relaxed) {
        if known.is_none() || !found.sealed.load(Ordering::Relaxed) {
            known = Some(sandbox.credentials_of("shop", client).await.1);
        }
        let Some(credentials) = &known else { continue };
        match sandbox.login("shop", credentials).await {
            Ok(connection) => {
                found.logins.fetch_add(1, Ordering::Relaxed);
                for _ in 0..5 {
                    id += 1;
                    if run(&connection, &format!("INSERT INTO notes VALUES ({id}, '{client}')")).await.is_err() {
                        break;
                    }
                    found.written.lock().expect("the rows").insert(id, client);
                }
            }
            Err(error) if sqlstate(&error).is_some_and(|code| code.starts_with("28")) => {
                if !gone.load(Ordering::Relaxed) {
                    found.refused.lock().expect("the refusals").push(format!("{client}: {error}"));
                }
            }
            // Nobody leads at present, or the server has just become a replica.
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn spec(clients: &[&str]) -> Value {
    let clients: Vec<_> =
        clients.iter().map(|name| json!({"serviceAccountName": name, "access": {"mode": "ReadWrite"}})).collect();
    json!({
        "instances": 2, "backup": {"store": "main", "schedule": {"verification": ""}}, "clients": clients,
        "migrations": {"source": {"configMap": {"name": "migrations"}}},
    })
}

/// A rotation of all clients, or of one, to its end.
async fn rotated(sandbox: &Sandbox, turn: usize) {
    if turn.is_multiple_of(2) {
        let output = plugin(sandbox, &["rotate", "shop", "--timeout", "180"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let request = format!("{}/{turn}", CLIENTS[turn % 5]);
    let patch = json!({"metadata": {"annotations": {ANNOTATION_ROTATE_CLIENT: request}}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
    sandbox
        .wait("the rotation of a client is answered", "shop", READY, |database| {
            let credentials = database.status.as_ref().and_then(|status| status.credentials.as_ref());
            credentials.and_then(|credentials| credentials.rotate_client_request.as_deref()) == Some(&request)
        })
        .await;
}

/// Vault is sealed while a rotation is asked for; it happens once Vault is back.
async fn sealed(sandbox: &Sandbox, found: &Found) {
    let key = Vault::unseal_key();
    found.sealed.store(true, Ordering::Relaxed);
    // A read that is under way ends before.
    tokio::time::sleep(Duration::from_secs(2)).await;
    sandbox.vault().seal().await;
    let asked = plugin(sandbox, &["rotate", "shop", "--timeout", "0"]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    sandbox.vault().unseal(&key).await;
    found.sealed.store(false, Ordering::Relaxed);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    sandbox.ready("shop", READY).await;
}

/// A client is taken out of the spec in the middle of a transaction: soon it is refused, and stays so.
async fn removed(sandbox: &Sandbox, gone: &AtomicBool) {
    let (_, credentials) = sandbox.credentials_of("shop", "leaver").await;
    let connection = sandbox.login("shop", &credentials).await.expect("the leaver");
    run(&connection, "BEGIN; INSERT INTO notes VALUES (-1, 'leaver')").await.expect("a transaction");
    gone.store(true, Ordering::Relaxed);
    sandbox.patch::<ServiceDatabase>("shop", &spec_patch(&CLIENTS[..5])).await;
    let deadline = tokio::time::Instant::now() + SECONDS_TO_LEAVE;
    let is_refused = async || match sandbox.login("shop", &credentials).await {
        Ok(_) => false,
        Err(error) => sqlstate(&error).is_some_and(|code| code.starts_with("28")),
    };
    while !is_refused().await {
        assert!(tokio::time::Instant::now() < deadline, "the removed client is accepted");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    until("its session ends", SOON, || async {
        if connection.is_closed() { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
    for _ in 0..20 {
        assert!(is_refused().await, "the removed client is accepted again");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn spec_patch(clients: &[&str]) -> Value {
    json!({"spec": {"clients": spec(clients)["clients"]}})
}

/// The clients of a clone are new: no login of the original is accepted there, and none of the clone's in the original.
async fn cloned(sandbox: &Sandbox) {
    let mut clone = spec(&CLIENTS[..5]);
    clone["instances"] = json!(1);
    clone["backup"] = json!({"enabled": false});
    clone["bootstrap"] = json!({"restore": {"source": {"name": "shop"}}});
    clone["storage"] = json!({"size": "1Gi"});
    sandbox.create(database("clone", clone)).await;
    sandbox.ready("clone", READY * 2).await;
    for client in &CLIENTS[..5] {
        let original = sandbox.credentials_of("shop", client).await.1;
        let own = sandbox.credentials_of("clone", client).await.1;
        sandbox.login("clone", &own).await.unwrap_or_else(|error| panic!("{client} of the clone: {error}"));
        for (name, other) in [("clone", &original), ("shop", &own)] {
            let as_if_its_own = Credentials { database: format!("{name}_db"), ..(*other).clone() };
            let accepted = sandbox.login(name, &as_if_its_own).await;
            assert!(accepted.is_err(), "{client}: the other database's login is accepted by {name}");
        }
    }
}

#[test]
#[ignore = "takes minutes, and seals Vault: dev/clients.sh campaign"]
fn six_clients_through_everything() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    alone("campaign", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        sandbox.create(database("shop", spec(&CLIENTS))).await;
        sandbox.ready("shop", READY).await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        let (found, gone) = (Arc::new(Found::default()), Arc::new(AtomicBool::new(false)));
        let stays = Arc::new(AtomicBool::new(false));
        let tasks: Vec<JoinHandle<()>> = CLIENTS
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                let gone = if client == "leaver" { gone.clone() } else { stays.clone() };
                tokio::spawn(at_work(sandbox.clone(), client, number as i64 + 1, found.clone(), gone))
            })
            .collect();
        for turn in 0..ROTATIONS {
            match turn {
                5 | 15 => {
                    sandbox.lose_primary("shop").await;
                    sandbox.ready("shop", READY).await;
                }
                10 => sealed(&sandbox, &found).await,
                12 => removed(&sandbox, &gone).await,
                _ => {}
            }
            rotated(&sandbox, turn).await;
        }
        cloned(&sandbox).await;
        found.stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.expect("a client");
        }
        let refused = std::mem::take(&mut *found.refused.lock().expect("the refusals"));
        assert!(refused.is_empty(), "{} logins were refused: {refused:?}", refused.len());
        let connection = sandbox.connect("shop").await;
        let stored = column(&connection, "SELECT id FROM notes").await.expect("the rows");
        let stored: std::collections::BTreeSet<i64> = stored.iter().map(|id| id.parse().expect("a number")).collect();
        let written = found.written.lock().expect("the rows").clone();
        let lost: Vec<_> = written.iter().filter(|(id, _)| !stored.contains(id)).collect();
        assert!(lost.is_empty(), "{} acknowledged rows are lost: {lost:?}", lost.len());
        assert!(!stored.contains(&-1), "the transaction of the removed client is rolled back");
        println!("{} logins, {} rows, none refused", found.logins.load(Ordering::Relaxed), written.len());
    });
}
