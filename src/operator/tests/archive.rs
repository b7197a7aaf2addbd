//! The WAL archive: what the operator prepares for the agents.

use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::world::World;
use crate::api::conditions as kind;
use crate::contract::desired;

const WITH_STORE: &str = "  backup: {store: main}\n";
const PASSPHRASE: &str = "dev/messaging/chat/backup/uid-of-chat";

fn archive(world: &World) -> Value {
    let map = world.get("configmaps", "chat-db-desired").expect("the desired state");
    let document = map["data"][desired::KEY].as_str().expect("a document");
    serde_json::from_str::<Value>(document).expect("JSON")["archive"].clone()
}

fn passphrase(world: &World) -> Option<String> {
    world.vault.content().kv.get(PASSPHRASE)?.data.as_ref()?.get("passphrase").cloned()
}

#[tokio::test]
async fn a_database_has_a_folder_and_a_passphrase_of_its_own() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}{WITH_STORE}"));
    world.settle_all().await;
    let found = archive(&world);
    assert_eq!(found["path"], "/prod/dev/messaging/chat/uid-of-chat");
    assert_eq!(found["passphrase"], PASSPHRASE);
    let made = passphrase(&world).expect("a passphrase");
    assert!(!found.to_string().contains(&made), "the desired state has no secret");
    let policy = world.vault.content().policies["servicedb.dev.messaging.chat.instance"].clone();
    for record in ["backups/main", PASSPHRASE] {
        assert!(policy.contains(&format!("path \"secret/data/{record}\" {{\n  capabilities = [\"read\"]")), "{policy}");
    }
    world.restart();
    world.settle_all().await;
    assert_eq!(passphrase(&world), Some(made), "it is never replaced");

    world.edit(|resource| resource["spec"]["backup"] = json!({"enabled": false, "store": "main"}));
    world.settle_all().await;
    assert_eq!(archive(&world), Value::Null);
    assert!(passphrase(&world).is_some(), "the archive that was written can be read");
    let policy = world.vault.content().policies["servicedb.dev.messaging.chat.instance"].clone();
    assert!(!policy.contains("backups/main"), "{policy}");
}

#[tokio::test]
async fn a_passphrase_that_was_deleted_is_not_replaced_and_holds_nothing_up() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}{WITH_STORE}"));
    world.settle_all().await;
    world.vault.edit(|content| content.kv.get_mut(PASSPHRASE).expect("the record").data = None);
    world.restart();
    world.settle_all().await;
    assert_eq!(passphrase(&world), None);
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
}

#[tokio::test]
async fn without_a_store_nothing_is_archived() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    assert_eq!(archive(&world), Value::Null);
    assert!(passphrase(&world).is_none());
    let conditions = world.resource().status.expect("a status").conditions;
    assert!(conditions.iter().all(|condition| condition.type_ != kind::CONTINUOUS_ARCHIVING));
}

#[tokio::test]
async fn a_second_store_has_a_folder_of_the_same_passphrase() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}  backup: {{store: main, secondStore: second}}\n"));
    world.settle_all().await;
    let map = world.get("configmaps", "chat-db-desired").expect("the desired state");
    let document = map["data"][desired::KEY].as_str().expect("a document");
    let second = serde_json::from_str::<Value>(document).expect("JSON")["secondArchive"].clone();
    assert_eq!(second["path"], "/second/dev/messaging/chat/uid-of-chat");
    assert_eq!((&second["name"], &second["passphrase"]), (&json!("second"), &json!(PASSPHRASE)));
    assert_eq!(archive(&world)["path"], "/prod/dev/messaging/chat/uid-of-chat");
    let policy = world.vault.content().policies["servicedb.dev.messaging.chat.instance"].clone();
    for record in ["backups/main", "backups/second", PASSPHRASE] {
        assert_eq!(policy.matches(&format!("path \"secret/data/{record}\" {{")).count(), 1, "{policy}");
    }
    assert_eq!(world.condition(kind::CONTINUOUS_ARCHIVING), "False Progressing");
    assert!(world.message(kind::CONTINUOUS_ARCHIVING).contains("the store second"));
}

#[tokio::test]
async fn a_second_store_that_is_none_is_refused() {
    for (backup, said) in [
        ("{store: main, secondStore: other}", "spec.backup.secondStore is other"),
        ("{store: main, secondStore: main}", "the same place as the store main"),
        ("{secondStore: second}", "set spec.backup.store"),
    ] {
        let mut world = World::new();
        world.create(&format!("{MINIMAL}  backup: {backup}\n"));
        world.settle_all().await;
        assert_eq!(world.condition(kind::STALLED), "True InvalidSpec", "{backup}");
        let message = world.message(kind::STALLED);
        assert!(message.contains(said), "{message}");
    }
}

#[tokio::test]
async fn a_store_that_the_installation_lacks_is_named() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}  backup: {{store: other}}\n"));
    world.settle_all().await;
    assert_eq!(world.condition(kind::STALLED), "True InvalidSpec");
    let message = world.message(kind::STALLED);
    assert!(message.contains("spec.backup.store is other") && message.contains("main"), "{message}");
}
