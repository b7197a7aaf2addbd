//! The Secret with the credentials: its content and its lifecycle.

use k8s_openapi::ByteString;
use serde_json::json;

use super::fixtures::MINIMAL;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::ANNOTATION_ROTATE;

async fn bound() -> World {
    let mut world = World::new();
    world.create(MINIMAL);
    world.edit(|resource| resource["spec"]["credentials"]["secret"]["name"] = "chat-credentials".into());
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    world
}

fn named(world: &World) -> Option<String> {
    world.resource().status.and_then(|status| status.binding).map(|binding| binding.name)
}

fn value(world: &World, secret: &str, key: &str) -> String {
    let secret = world.get("secrets", secret).expect("the Secret");
    // Kubernetes' own type reads base64.
    let bytes: ByteString = serde_json::from_value(secret["data"][key].clone()).expect("base64");
    String::from_utf8(bytes.0).expect("text")
}

#[tokio::test]
async fn it_is_a_provisioned_service() {
    let world = bound().await;
    assert_eq!(named(&world).as_deref(), Some("chat-credentials"));
    let secret = world.get("secrets", "chat-credentials").expect("the Secret");
    assert_eq!(secret["type"], "servicebinding.io/postgresql");
    let keys: Vec<_> = secret["data"].as_object().expect("data").keys().cloned().collect();
    let expected =
        ["ca.crt", "database", "host", "password", "port", "provider", "type", "uri", "username"].map(str::to_owned);
    assert_eq!(keys, expected);
    for (key, expected) in
        [("type", "postgresql"), ("port", "5432"), ("username", "chat_a"), ("host", "chat-db.messaging.svc")]
    {
        assert_eq!(value(&world, "chat-credentials", key), expected, "{key}");
    }
}

#[tokio::test]
async fn it_is_updated_by_a_rotation_and_removed_content_is_restored() {
    let mut world = bound().await;
    world.edit(|resource| resource["metadata"]["annotations"][ANNOTATION_ROTATE] = "monday".into());
    world.settle_all().await;
    assert_eq!(value(&world, "chat-credentials", "username"), "chat_b");
    world.api.store().edit(&object("secrets", "chat-credentials"), |secret| {
        secret["data"] = json!({});
    });
    world.restart();
    world.settle().await;
    assert_eq!(value(&world, "chat-credentials", "username"), "chat_b");
}

/// Status still has its name, so that it can be removed later.
#[tokio::test]
async fn a_pause_keeps_it_in_status() {
    let mut world = bound().await;
    world.edit(|resource| resource["spec"]["paused"] = true.into());
    world.settle().await;
    assert_eq!(named(&world).as_deref(), Some("chat-credentials"));
}

#[tokio::test]
async fn another_name_moves_it_and_none_removes_it() {
    let mut world = bound().await;
    world.edit(|resource| resource["spec"]["credentials"]["secret"]["name"] = "other".into());
    world.settle().await;
    assert!(world.get("secrets", "chat-credentials").is_none() && world.get("secrets", "other").is_some());
    world.edit(|resource| resource["spec"]["credentials"] = json!({}));
    world.settle().await;
    assert!(world.get("secrets", "other").is_none());
    assert_eq!(named(&world), None);
}

#[tokio::test]
async fn a_secret_of_another_owner_is_not_changed() {
    let mut world = bound().await;
    world.create("{apiVersion: v1, kind: Secret, metadata: {name: theirs, namespace: messaging}, data: {a: YQ==}}");
    let before = world.get("secrets", "theirs");
    world.edit(|resource| resource["spec"]["credentials"]["secret"]["name"] = "theirs".into());
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True ObjectConflict");
    assert_eq!(world.get("secrets", "theirs"), before);
    world.edit(|resource| resource["spec"]["credentials"]["secret"]["name"] = "chat-db-tls".into());
    world.settle().await;
    assert_eq!(
        world.condition(kind::STALLED),
        "True InvalidSpec",
        "reserved names are refused, also without the rules of the CRD"
    );
}
