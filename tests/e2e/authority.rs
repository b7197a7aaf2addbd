//! Replacement of the certificate authority while services are active, and its loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::DeleteParams;
use serde_json::json;
use servicedb::api::status::{AuthorityPhase, CertificatesStatus};
use servicedb::api::{ServiceDatabase, conditions as kind};
use servicedb::contract::certificates::Authorities;
use tokio::task::JoinHandle;

use crate::harness::postgres::Credentials;
use crate::harness::{Operator, READY, Sandbox, database, login_at, plugin, shared, until};

/// The shortest that may be requested, in seconds.
const OVERLAP: &str = "30";
/// Timeout of a step, in case a prompted kubelet misses the Secret and updates it later.
const BROUGHT: Duration = Duration::from_secs(300);

/// A service that reads the record for each connection, one that read it before the new authority
/// signs, and, until then, one that knows only the former one: none is refused.
#[test]
fn another_authority_refuses_no_connection_and_a_lost_one_changes_nothing() {
    let _restarts = crate::harness::restarts::allowed();
    shared("authority", async |sandbox| {
        let spec = json!({"instances": 2, "credentials": {"secret": {"name": "credentials"}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let former = sandbox.credentials("shop").await;
        let reader = Client::start(sandbox.clone(), None);
        let holder = Client::start(sandbox.clone(), Some(former.clone()));

        published(&sandbox).await;
        let both = sandbox.credentials("shop").await;
        assert_eq!(count(&both), 2, "the record has both");
        assert_eq!(authorities(&sandbox, "credentials").await, Authorities::from_pem(&both.ca));
        let (logins, refused) = holder.stop().await;
        assert!(refused.is_empty() && logins > 0, "the former authority: {logins} logins, {refused:?}");
        let prepared = Client::start(sandbox.clone(), Some(both));

        phase(&sandbox, Some(AuthorityPhase::Signing)).await;
        // An instance that starts with the new certificates beside one with the former ones.
        sandbox.api::<Pod>().delete("shop-db-1", &DeleteParams::default()).await.expect("a replica's pod deleted");
        let done = phase(&sandbox, None).await;
        assert!(done.renew_request.is_some());
        let only = until("the record has the new authority alone", BROUGHT, || async {
            let now = sandbox.credentials("shop").await;
            if count(&now) == 1 { Ok(now) } else { Err("it has both".to_owned()) }
        })
        .await;
        assert_ne!(only.ca, former.ca);
        let refusal = sandbox.login("shop", &former).await.err().expect("the former authority is trusted no more");
        assert!(refusal.to_string().contains("certificate"), "{refusal}");
        sandbox.ready("shop", READY).await;
        let switched = plugin(&sandbox, &["switchover", "shop"]).await;
        assert!(switched.status.success(), "{}", String::from_utf8_lossy(&switched.stderr));
        for (who, client) in [("reads the record", reader), ("has read both", prepared)] {
            let (logins, refused) = client.stop().await;
            println!("{who}: {logins} logins, refused: {refused:?}");
            assert!(refused.is_empty() && logins > 10, "{who}: {logins} logins, {refused:?}");
        }

        lost(&sandbox, &only).await;
    });
}

/// The authority's Secret is deleted: this is reported, nothing changes, and a new one replaces it.
async fn lost(sandbox: &Arc<Sandbox>, before: &Credentials) {
    let secret = async |name: &str| sandbox.api::<Secret>().get(name).await.expect("a Secret").data;
    let served = secret("shop-db-tls").await;
    sandbox.delete::<Secret>("shop-db-ca").await;
    // A starting operator checks all resources; the resync would find it ten minutes later.
    Operator::of(sandbox.cluster).delete_pods(false).await;
    sandbox.condition("shop", kind::CERTIFICATES_READY, "False", kind::reason::AUTHORITY_LOST, READY).await;
    let told = sandbox.ready("shop", READY).await;
    assert_eq!(told.status.and_then(|status| status.certificates).and_then(|found| found.authority_not_after), None);
    assert_eq!(secret("shop-db-tls").await, served, "nothing is replaced");
    sandbox.login("shop", before).await.expect("what services trust is still served");
    let reader = Client::start(sandbox.clone(), None);
    published(sandbox).await;
    phase(sandbox, Some(AuthorityPhase::Signing)).await;
    phase(sandbox, None).await;
    sandbox.condition("shop", kind::CERTIFICATES_READY, "True", kind::reason::READY, READY).await;
    let (logins, refused) = reader.stop().await;
    println!("after the loss: {logins} logins, refused: {refused:?}");
    assert!(refused.is_empty() && logins > 10, "{logins} logins, {refused:?}");
}

async fn published(sandbox: &Sandbox) {
    let arguments = ["renew-authority", "shop", "--overlap", OVERLAP];
    let asked = plugin(sandbox, &arguments).await;
    let text = String::from_utf8_lossy(&asked.stdout);
    assert!(asked.status.success(), "{text} {}", String::from_utf8_lossy(&asked.stderr));
    assert!(text.contains("beside the present one"), "{text}");
}

async fn phase(sandbox: &Sandbox, wanted: Option<AuthorityPhase>) -> CertificatesStatus {
    let certificates = |database: &ServiceDatabase| database.status.as_ref()?.certificates.clone();
    let reached = sandbox
        .wait(&format!("the change of the authority is {wanted:?}"), "shop", BROUGHT, |database| {
            certificates(database).is_some_and(|found| found.change.map(|change| change.phase) == wanted)
        })
        .await;
    certificates(&reached).expect("certificates")
}

fn count(credentials: &Credentials) -> usize {
    Authorities::from_pem(&credentials.ca).iter().count()
}

async fn authorities(sandbox: &Sandbox, secret: &str) -> Authorities {
    let data = sandbox.api::<Secret>().get(secret).await.expect("a Secret").data.expect("data");
    Authorities::from_pem(&String::from_utf8_lossy(&data["ca.crt"].0))
}

/// A client that opens a new connection every 100 ms: with what Vault holds, or what it was given.
struct Client {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Client {
    fn start(sandbox: Arc<Sandbox>, given: Option<Credentials>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut logins, mut refused) = (0, Vec::new());
            let host = sandbox.names("shop").primary_host();
            let address = sandbox.address("shop-db").await;
            while !stopped.load(Ordering::Relaxed) {
                let credentials = match &given {
                    Some(given) => given.clone(),
                    None => sandbox.credentials("shop").await,
                };
                match login_at(address, &host, &credentials).await {
                    Ok(_) => logins += 1,
                    // A switchover takes a second without a server.
                    Err(error) if error.to_string().contains("certificate") => refused.push(error.to_string()),
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (logins, refused)
        });
        Self { stop, task }
    }

    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the client")
    }
}
