//! The certificate authority: replacement, loss, and recovery.

use jiff::SignedDuration;
use k8s_openapi::ByteString;
use serde_json::Value;

use super::fixtures::MINIMAL;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::ANNOTATION_RENEW_AUTHORITY;
use crate::api::{AuthorityPhase, CertificatesStatus};
use crate::contract::certificates::Authorities;

const OVERLAP: SignedDuration = SignedDuration::from_hours(7 * 24);

async fn at_rest() -> World {
    let mut world = World::new();
    world.create(MINIMAL);
    world.edit(|resource| resource["spec"]["credentials"]["secret"]["name"] = "credentials".into());
    world.settle_all().await;
    world.load_certificates();
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    assert_eq!(world.condition(kind::CERTIFICATES_READY), "True Ready");
    world
}

pub fn ask(world: &World, token: &str) {
    world.edit(|resource| resource["metadata"]["annotations"][ANNOTATION_RENEW_AUTHORITY] = token.into());
}

fn text(world: &World, secret: &str, key: &str) -> String {
    let secret = world.get("secrets", secret).expect("the Secret");
    let bytes: ByteString = serde_json::from_value(secret["data"][key].clone()).expect("base64");
    String::from_utf8(bytes.0).expect("text")
}

fn trusted(world: &World, secret: &str) -> usize {
    Authorities::from_pem(&text(world, secret, "ca.crt")).iter().count()
}

fn keys(world: &World, secret: &str) -> Vec<String> {
    let secret = world.get("secrets", secret).expect("the Secret");
    secret["data"].as_object().expect("data").keys().cloned().collect()
}

fn certificates(world: &World) -> CertificatesStatus {
    world.resource().status.and_then(|status| status.certificates).expect("certificates in status")
}

fn phase(world: &World) -> Option<AuthorityPhase> {
    certificates(world).change.map(|change| change.phase)
}

fn delete(world: &World, secret: &str) {
    world.api.store().delete(&object("secrets", secret), &Value::Null).expect("a deletion");
}

/// From the request to its completion, with all components, as time passes.
pub async fn see_through(world: &mut World) {
    world.settle().await;
    world.load_certificates();
    // The Secret with the credentials is updated from the record.
    world.settle().await;
    world.settle().await;
    world.pass(OVERLAP);
    world.settle().await;
    world.load_certificates();
    world.settle().await;
    world.pass(OVERLAP);
    world.settle().await;
    world.load_certificates();
    world.settle().await;
}

#[tokio::test]
async fn a_status_that_the_watch_has_not_reported_is_not_overwritten() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.reconcile().await.expect("the finalizer");
    let before = world.resource();
    world.reconcile().await.expect("the first status");
    let reported = certificates(&world);
    world.run_pods();
    let error = world.reconcile_as_read(before).await.expect_err("a status that is based on an old one");
    assert!(error.is_outdated(), "{error}");
    assert_eq!(certificates(&world), reported);
    world.settle_all().await;
    assert_eq!(world.condition(kind::CERTIFICATES_READY), "True Ready");
}

#[tokio::test]
async fn an_unwritten_state_of_the_certificates_is_reported_later() {
    let world = World::new();
    world.create(MINIMAL);
    world.reconcile().await.expect("the finalizer");
    let before = world.resource();
    world.edit(|resource| resource["metadata"]["annotations"]["example.com/touched"] = "1".into());
    assert!(world.reconcile_as_read(before).await.is_err(), "the resource has changed");
    assert!(world.resource().status.is_none_or(|status| status.certificates.is_none()), "nothing is reported yet");
    world.reconcile().await.expect("the status");
    assert_eq!(world.condition(kind::CERTIFICATES_READY), "True Ready");
    // An emptied status is written again.
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| resource["status"] = Value::Null);
    world.reconcile().await.expect("the status");
    assert_eq!(world.condition(kind::CERTIFICATES_READY), "True Ready");
}

#[tokio::test]
async fn a_requested_authority_is_published_before_it_signs() {
    let mut world = at_rest().await;
    let (server, former) = (text(&world, "chat-db-tls", "server.crt"), text(&world, "chat-db-ca", "ca.crt"));
    ask(&world, "monday");
    let sent = world.settle().await;
    assert_eq!((trusted(&world, "chat-db-tls"), phase(&world)), (2, Some(AuthorityPhase::Publishing)));
    let prompts = sent.iter().filter(|sent| sent.contains("pods chat-db-0")).count();
    assert_eq!(prompts, 1, "the kubelet is prompted: {sent:?}");
    assert_eq!(world.condition(kind::CERTIFICATES_READY), "True AuthorityChanging");
    world.pass(OVERLAP);
    world.settle().await;
    assert_eq!(phase(&world), Some(AuthorityPhase::Publishing), "the record does not have it");
    assert!(certificates(&world).change.is_some_and(|change| change.message.contains("waiting for")));

    world.load_certificates();
    world.settle().await;
    assert_eq!(trusted(&world, "credentials"), 2, "the Secret with the credentials is updated at once");
    world.settle().await;
    assert_eq!(phase(&world), Some(AuthorityPhase::Announced), "{:?}", certificates(&world));
    world.pass(OVERLAP - SignedDuration::from_mins(1));
    world.settle().await;
    assert_eq!(text(&world, "chat-db-tls", "server.crt"), server, "clients have the complete time");
    world.pass(SignedDuration::from_mins(2));
    world.settle().await;
    assert_eq!(phase(&world), Some(AuthorityPhase::Signing));
    assert_ne!(text(&world, "chat-db-tls", "server.crt"), server);
    assert_eq!(trusted(&world, "chat-db-tls"), 2);

    world.load_certificates();
    world.settle().await;
    world.pass(OVERLAP);
    world.settle().await;
    assert_eq!(certificates(&world).change, None);
    assert_eq!(certificates(&world).renew_request.as_deref(), Some("monday"));
    assert_eq!(text(&world, "chat-db-tls", "ca.crt"), text(&world, "chat-db-ca", "ca.crt"));
    assert_ne!(text(&world, "chat-db-ca", "ca.crt"), former);
    assert_eq!(keys(&world, "chat-db-ca"), ["ca.crt", "ca.key"], "nothing of the change remains");
    assert_eq!(world.condition(kind::READY), "True Ready");
    for _ in 0..2 {
        world.restart();
        let sent = world.settle().await;
        assert!(!sent.iter().any(|sent| sent.contains("chat-db-ca") || sent.contains("chat-db-tls")), "{sent:?}");
    }
}

#[tokio::test]
async fn a_lost_authority_is_reported_and_nothing_changes_until_a_request() {
    for damage in ["deleted", "emptied", "without its key"] {
        let mut world = at_rest().await;
        let served = world.get("secrets", "chat-db-tls").expect("a Secret")["data"].clone();
        match damage {
            "deleted" => delete(&world, "chat-db-ca"),
            "emptied" => {
                world.api.store().edit(&object("secrets", "chat-db-ca"), |secret| secret["data"] = Value::Null)
            }
            _ => world.api.store().edit(&object("secrets", "chat-db-ca"), |secret| {
                secret["data"].as_object_mut().expect("data").remove("ca.key");
            }),
        }
        for _ in 0..2 {
            world.pass(SignedDuration::from_mins(20));
            world.settle().await;
            assert_eq!(world.condition(kind::CERTIFICATES_READY), "False AuthorityLost", "{damage}");
            assert_eq!(world.condition(kind::READY), "True Ready", "the certificates are still served");
            assert_eq!(world.get("secrets", "chat-db-tls").expect("a Secret")["data"], served, "{damage}");
        }
        let message = world.message(kind::CERTIFICATES_READY);
        assert!(message.contains("renew-authority chat -n messaging"), "{message}");
        ask(&world, "monday");
        see_through(&mut world).await;
        assert_eq!(world.condition(kind::CERTIFICATES_READY), "True Ready", "{damage}: {:?}", certificates(&world));
        assert_eq!(certificates(&world).renew_request.as_deref(), Some("monday"), "{damage}");
        assert_eq!(text(&world, "chat-db-tls", "ca.crt"), text(&world, "chat-db-ca", "ca.crt"), "{damage}");

        // The Secret that recorded the request is lost: the request is still answered.
        delete(&world, "chat-db-ca");
        world.restart();
        world.settle().await;
        assert_eq!(world.condition(kind::CERTIFICATES_READY), "False AuthorityLost", "{damage}: lost once more");
        assert_eq!(certificates(&world).renew_request.as_deref(), Some("monday"), "{damage}");
    }
}

#[tokio::test]
async fn missing_certificates_are_recreated_by_the_same_authority() {
    for missing in ["all", "server.key", "patroni.crt", "ca.crt"] {
        let mut world = at_rest().await;
        let authority = text(&world, "chat-db-ca", "ca.crt");
        match missing {
            "all" => delete(&world, "chat-db-tls"),
            key => world.api.store().edit(&object("secrets", "chat-db-tls"), |secret| {
                secret["data"].as_object_mut().expect("data").remove(key);
            }),
        }
        world.restart();
        world.settle().await;
        assert_eq!(keys(&world, "chat-db-tls").len(), 9, "{missing}");
        assert!(!text(&world, "chat-db-tls", "server.key").is_empty());
        assert_eq!(
            (text(&world, "chat-db-tls", "ca.crt"), text(&world, "chat-db-ca", "ca.crt")),
            (authority.clone(), authority)
        );
    }
}

/// `kubectl delete secret --all`: the desired state still has the authority that clients trust.
#[tokio::test]
async fn without_both_secrets_the_record_gets_the_new_authority_first() {
    let mut world = at_rest().await;
    let former = Authorities::from_pem(&text(&world, "chat-db-ca", "ca.crt"));
    delete(&world, "chat-db-ca");
    delete(&world, "chat-db-tls");
    world.restart();
    world.settle().await;
    assert!(world.get("secrets", "chat-db-tls").is_none(), "clients do not know the new authority yet");
    assert!(world.desired_authorities().include(&former) && world.desired_authorities() != former);
    world.pass(SignedDuration::from_mins(2));
    world.settle().await;
    assert!(Authorities::from_pem(&text(&world, "chat-db-tls", "ca.crt")).include(&former));
    assert_eq!(keys(&world, "chat-db-tls").len(), 9);
}

#[tokio::test]
async fn a_paused_resource_keeps_its_authority() {
    let mut world = at_rest().await;
    let served = world.get("secrets", "chat-db-tls").expect("a Secret")["data"].clone();
    world.edit(|resource| resource["spec"]["paused"] = true.into());
    ask(&world, "monday");
    world.settle().await;
    assert_eq!(world.get("secrets", "chat-db-tls").expect("a Secret")["data"], served);
    world.edit(|resource| resource["spec"]["paused"] = false.into());
    world.settle().await;
    assert_eq!(trusted(&world, "chat-db-tls"), 2);
}
