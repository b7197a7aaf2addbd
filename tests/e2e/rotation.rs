//! New credentials while services are active: the credentials in Vault always work.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use servicedb::api::ServiceDatabase;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::{
    Operator, READY, SOON, Sandbox, column, config_map, database, login_at, plugin, run, shared, sqlstate, until,
};

const ROTATIONS: i64 = 20;
/// Rotations come a second apart at the least: in this time no two of them go by.
const PROMPT: Duration = Duration::from_millis(500);
const FIRST: (&str, &str) = ("1_notes.up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY, body text NOT NULL);");
const SECOND: (&str, &str) = ("2_tags.up.sql", "CREATE TABLE tags (id bigint PRIMARY KEY);");

/// A service that reads Vault for each new connection is never refused: across rotations,
/// deletions of the primary's pod and a restart of the operator.
#[test]
fn twenty_rotations_refuse_no_login() {
    let _restarts = crate::harness::restarts::allowed();
    shared("rotations", async |sandbox| {
        sandbox.create(config_map("migrations", &[FIRST])).await;
        let spec = json!({"instances": 2, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let client = Client::start(sandbox.clone());
        for rotation in 1..=ROTATIONS {
            let token = format!("rotation-{rotation}");
            ask(&sandbox, &token).await;
            match rotation {
                5 => delete_primary(&sandbox, &DeleteParams::default()).await,
                10 => drop(Operator::of(sandbox.cluster).delete_pods(false).await),
                15 => delete_primary(&sandbox, &DeleteParams::default().grace_period(0)).await,
                _ => {}
            }
            assert_eq!(answered(&sandbox, &token, READY).await, Some(rotation + 1), "one request, one generation");
        }
        sandbox.ready("shop", READY).await;
        let (logins, refused, absent) = client.stop().await;
        println!("{ROTATIONS} rotations: {logins} logins, {absent} tries without a server, refused: {refused:?}");
        assert!(refused.is_empty(), "{} of {logins} logins were refused: {refused:?}", refused.len());
        // On a busy machine a login takes its time; none of a generation would prove nothing.
        assert!(logins > 2 * ROTATIONS as usize, "only {logins} logins were tried");

        // The migrator's login has turned, too, and works.
        let migrator = sandbox.vault().record(&sandbox.vault_names("shop").migrator_record()).await.expect("a record");
        assert_eq!(migrator["SERVICEDB_GENERATION"], json!((ROTATIONS + 1).to_string()));
        sandbox.patch::<ConfigMap>("migrations", &json!({"data": {SECOND.0: SECOND.1}})).await;
        sandbox
            .wait("the next migration is applied", "shop", READY, |database| {
                database.status.as_ref().and_then(|status| status.schema_version.as_deref()) == Some("2")
            })
            .await;
    });
}

/// Asks for new credentials of `shop`.
pub async fn ask(sandbox: &Sandbox, token: &str) {
    sandbox
        .patch::<ServiceDatabase>("shop", &json!({"metadata": {"annotations": {"servicedb.dev/rotate": token}}}))
        .await;
}

/// Waits until a request is answered; the generation that answers it.
pub async fn answered(sandbox: &Sandbox, token: &str, bound: Duration) -> Option<i64> {
    let done = sandbox
        .wait(&format!("{token} is done"), "shop", bound, |database| {
            let credentials = database.status.as_ref().and_then(|status| status.credentials.as_ref());
            credentials.and_then(|credentials| credentials.rotate_request.as_deref()) == Some(token)
        })
        .await;
    done.status.and_then(|status| status.credentials).map(|found| found.generation)
}

async fn delete_primary(sandbox: &Sandbox, parameters: &DeleteParams) {
    let primary = sandbox.get("shop").await.status.and_then(|status| status.primary);
    // Between two primaries there is none to delete.
    let Some(primary) = primary else { return };
    sandbox.api::<Pod>().delete(&primary, parameters).await.expect("the primary's pod deleted");
}

/// A client that opens a new connection every 50 ms with what Vault holds.
struct Client {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>, usize)>,
}

impl Client {
    fn start(sandbox: Arc<Sandbox>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut logins, mut refused, mut absent) = (0, Vec::new(), 0);
            let host = sandbox.names("shop").primary_host();
            let address = sandbox.address("shop-db").await;
            while !stopped.load(Ordering::Relaxed) {
                let (before, credentials) = sandbox.credentials_and_generation("shop").await;
                let since = Instant::now();
                match login_at(address, &host, &credentials).await {
                    Ok(_) => logins += 1,
                    Err(error) => match sqlstate(&error) {
                        Some(state) if state.starts_with("28") => {
                            // Nobody promised what a client has whose connection hung while two
                            // rotations went by, as it may in a failover.
                            let now = sandbox.credentials_and_generation("shop").await.0;
                            if now == before || (now == before + 1 && since.elapsed() < PROMPT) {
                                refused.push(format!("{state} as {}: {error}", credentials.user));
                            }
                        }
                        _ => absent += 1,
                    },
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (logins, refused, absent)
        });
        Self { stop, task }
    }

    async fn stop(self) -> (usize, Vec<String>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the client")
    }
}

/// The replaced login is valid until the next rotation, and the number of its sessions is reported.
#[test]
fn the_old_login_lives_and_its_sessions_are_counted() {
    shared("old-login", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        let first = sandbox.credentials("shop").await;
        let session = sandbox.login("shop", &first).await.expect("a session");
        rotated(&plugin(&sandbox, &["rotate", "shop"]).await, 2);
        let second = sandbox.credentials("shop").await;
        assert_ne!((&first.user, &first.password), (&second.user, &second.password));
        run(&session, "SELECT 1").await.expect("a session from before");
        sandbox.login("shop", &first).await.expect("the login that was replaced");
        old_sessions(&sandbox, 1).await;
        drop(session);
        old_sessions(&sandbox, 0).await;
        // Its turn has come again, with a password that the first one never had.
        rotated(&plugin(&sandbox, &["rotate", "shop"]).await, 3);
        let third = sandbox.credentials("shop").await;
        assert_eq!(third.user, first.user);
        let refused = sandbox.login("shop", &first).await.err().expect("the password of two rotations ago logs in");
        assert_eq!(sqlstate(&refused).as_deref(), Some("28P01"), "{refused}");
    });
}

fn rotated(output: &Output, generation: i64) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("generation {generation} ")), "{text}");
}

async fn old_sessions(sandbox: &Sandbox, expected: i64) {
    sandbox
        .wait(&format!("{expected} old sessions are reported"), "shop", SOON, |database| {
            let credentials = database.status.as_ref().and_then(|status| status.credentials.as_ref());
            credentials.and_then(|credentials| credentials.old_sessions) == Some(expected)
        })
        .await;
}

/// Vault's record is authoritative: a password that was set by hand is reset.
#[test]
fn a_password_that_was_changed_by_hand_is_set_back() {
    let _restarts = crate::harness::restarts::allowed();
    shared("by-hand", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        let done = sandbox
            .exec("shop-db-0", "psql -h /run/postgresql -U postgres -c \"ALTER ROLE shop_a PASSWORD 'mine'\"")
            .await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let credentials = sandbox.credentials("shop").await;
        until("what Vault holds logs in again", SOON, || async {
            sandbox.login("shop", &credentials).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        a_record_that_was_changed_by_hand_is_written_again(&sandbox).await;
    });
}

/// PostgreSQL has the login that was proved, so the record is at fault: it gets the version before,
/// and nobody who holds the login notices.
async fn a_record_that_was_changed_by_hand_is_written_again(sandbox: &Sandbox) {
    let proved = sandbox.credentials("shop").await;
    for record in [sandbox.vault_names("shop").runtime(), sandbox.vault_names("shop").migrator_record()] {
        let mut data = sandbox.vault().record(&record).await.expect("a record");
        let key = if data.get("PASSWORD").is_some() { "PASSWORD" } else { "SHOP_DB_PASSWORD" };
        let right = data[key].clone();
        data[key] = json!("wrong");
        sandbox.vault().write(&format!("secret/data/{record}"), &json!({"data": data})).await;
        if key == "SHOP_DB_PASSWORD" {
            let check = plugin(sandbox, &["check", "shop"]).await;
            let told = String::from_utf8_lossy(&check.stdout);
            assert!(!check.status.success() && told.contains("28P01"), "{told}");
        } else {
            // The check reads the record of the application: the resync finds the other one.
            Operator::of(sandbox.cluster).delete_pods(false).await;
        }
        until("the record has the proved password again", READY, || async {
            let found = sandbox.vault().record(&record).await.ok_or("no record")?;
            if found[key] == right { Ok(()) } else { Err("it has another password".to_owned()) }
        })
        .await;
    }
    sandbox.login("shop", &proved).await.expect("the login that was proved");
    let told = sandbox.ready("shop", READY).await;
    assert_eq!(told.status.and_then(|status| status.credentials).map(|found| found.generation), Some(1));
    let check = plugin(sandbox, &["check", "shop"]).await;
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

/// A missing record may be restored, so it is replaced only on request; services with the login keep
/// working.
#[test]
fn a_record_that_is_gone_waits_for_a_reissue() {
    shared("lost", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        let held = sandbox.credentials("shop").await;
        let path = sandbox.vault_names("shop").runtime();
        sandbox.vault().delete(&format!("secret/data/{path}")).await;
        // An agent that starts looks at once; the operator would at its next resync.
        sandbox.delete::<Pod>("shop-db-0").await;
        let told = sandbox.condition("shop", "Stalled", "True", "CredentialsLost", READY).await;
        assert!(told.message.contains(&path) && told.message.contains("--reissue"), "{}", told.message);
        // The report may come while the pod is still away.
        let session = until("who holds the login is served on", READY, || async {
            sandbox.login("shop", &held).await.map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(column(&session, "SELECT 1").await.expect("an answer"), ["1"]);
        sandbox.condition("shop", "DatabaseAvailable", "True", "Available", SOON).await;

        rotated(&plugin(&sandbox, &["rotate", "shop", "--reissue"]).await, 2);
        sandbox.ready("shop", SOON).await;
        sandbox.connect("shop").await;
    });
}

/// A policy or an AppRole that was deleted in Vault is recreated automatically as soon as an agent
/// needs it.
#[test]
fn what_was_deleted_in_vault_comes_back() {
    shared("deleted", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        let instance = sandbox.vault_names("shop").instance();
        let deleted = [format!("sys/policies/acl/{instance}"), format!("auth/approle/role/{instance}")];
        for (generation, path) in (2..).zip(&deleted) {
            sandbox.vault().delete(path).await;
            // The agent's token may live for minutes: a new agent needs a new one, and the old one
            // must not answer while it ends.
            let before = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod").uid();
            sandbox.delete::<Pod>("shop-db-0").await;
            until("another pod", READY, || async {
                let pod = sandbox.api::<Pod>().get_opt("shop-db-0").await.map_err(|error| error.to_string())?;
                if pod.ok_or("no pod")?.uid() == before { Err("the old pod".to_owned()) } else { Ok(()) }
            })
            .await;
            ask(&sandbox, path).await;
            assert_eq!(answered(&sandbox, path, READY).await, Some(generation));
            assert!(sandbox.vault().read(path).await.is_some(), "{path} did not come back");
            sandbox.connect("shop").await;
        }
    });
}

/// The Secret for services that cannot read Vault, and its way through a rotation.
#[test]
fn the_binding_follows() {
    use k8s_openapi::api::core::v1::Secret;
    shared("binding", async |sandbox| {
        sandbox.create(database("shop", json!({"credentials": {"secret": {"name": "shop-credentials"}}}))).await;
        sandbox.ready("shop", READY).await;
        let bound = sandbox
            .wait("status names the Secret", "shop", SOON, |database| {
                database.status.as_ref().and_then(|status| status.binding.as_ref()).is_some()
            })
            .await;
        assert_eq!(
            bound.status.and_then(|status| status.binding).map(|binding| binding.name).as_deref(),
            Some("shop-credentials")
        );
        let value = async |key: &str| {
            let secret = sandbox.api::<Secret>().get("shop-credentials").await.expect("the Secret");
            let bytes = secret.data.unwrap_or_default().remove(key).unwrap_or_else(|| panic!("no {key}")).0;
            String::from_utf8(bytes).expect("text")
        };
        let held = sandbox.credentials("shop").await;
        assert_eq!((value("username").await, value("password").await), (held.user, held.password));
        rotated(&plugin(&sandbox, &["rotate", "shop"]).await, 2);
        until("the Secret follows", SOON, || async {
            let (now, in_vault) = (value("password").await, sandbox.credentials("shop").await.password);
            if now == in_vault { Ok(()) } else { Err("it has the password before".to_owned()) }
        })
        .await;
        let parameters = PatchParams::default();
        let none = Patch::Merge(json!({"spec": {"credentials": {"secret": null}}}));
        sandbox.api::<ServiceDatabase>().patch("shop", &parameters, &none).await.expect("a patch");
        until("the Secret is gone", SOON, || async {
            match sandbox.api::<Secret>().get_opt("shop-credentials").await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    });
}
