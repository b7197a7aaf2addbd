//! Policies, AppRoles, secret_ids and Kubernetes-auth roles.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::ExposeSecret;
use servicedb::vault::{AppRole, KubernetesRole, Vault, VaultError};

use crate::server::Server;

const NAME: &str = "servicedb.test.messaging.chat.instance";

fn approle() -> AppRole {
    AppRole {
        name: NAME.to_owned(),
        policies: vec![NAME.to_owned()],
        token_ttl: Duration::from_secs(600),
        secret_id_ttl: Duration::from_secs(72 * 3600),
    }
}

#[tokio::test]
async fn policies_come_change_and_go() {
    let server = Server::set_up();
    let vault = server.operator();
    assert_eq!(vault.read_policy(NAME).await.unwrap(), None);
    vault.delete_policy(NAME).await.unwrap();
    let first = "path \"secret/data/a\" {\n  capabilities = [\"read\"]\n}\n";
    let second = first.replace("read", "list");
    for text in [first, &second] {
        vault.write_policy(NAME, text).await.unwrap();
        assert_eq!(vault.read_policy(NAME).await.unwrap().as_deref(), Some(text), "Vault keeps the text as it is");
    }
    vault.delete_policy(NAME).await.unwrap();
    assert_eq!(vault.read_policy(NAME).await.unwrap(), None);
    let invalid = vault.write_policy(NAME, "path {").await.unwrap_err();
    assert!(matches!(invalid, VaultError::Unexpected { status: 400, .. }), "{invalid}");
}

#[tokio::test]
async fn approles_have_the_fixed_values_and_drift_shows() {
    let server = Server::set_up();
    let vault = server.operator();
    let path = format!("auth/approle/role/{NAME}");
    assert_eq!(vault.read_approle(NAME).await.unwrap(), None);
    assert_eq!(vault.read_role_id(NAME).await.unwrap(), None);
    vault.write_approle(&approle()).await.unwrap();
    assert_eq!(vault.read_approle(NAME).await.unwrap(), Some(approle()));
    for (field, value) in [
        ("bind_secret_id", "true"),
        ("secret_id_num_uses", "0"),
        ("token_type", "batch"),
        ("token_no_default_policy", "true"),
        ("token_num_uses", "0"),
        ("token_ttl", "600"),
        ("token_max_ttl", "600"),
    ] {
        assert_eq!(server.vault(&["read", &format!("-field={field}"), &path]), value, "{field}");
    }

    let role_id = vault.read_role_id(NAME).await.unwrap().expect("a role has a role_id");
    for drift in ["secret_id_num_uses=3", "token_type=service", "token_max_ttl=1h", "token_no_default_policy=false"] {
        server.vault(&["write", &path, drift]);
        assert_ne!(vault.read_approle(NAME).await.unwrap(), Some(approle()), "{drift} goes unnoticed");
        vault.write_approle(&approle()).await.unwrap();
        assert_eq!(vault.read_approle(NAME).await.unwrap(), Some(approle()), "{drift} is not repaired");
    }
    assert_eq!(vault.read_role_id(NAME).await.unwrap(), Some(role_id), "a repair keeps the role_id");

    vault.delete_approle(NAME).await.unwrap();
    vault.delete_approle(NAME).await.unwrap();
    assert_eq!(vault.read_approle(NAME).await.unwrap(), None);
}

#[tokio::test]
async fn secret_ids_are_made_found_and_destroyed() {
    let server = Server::set_up();
    let vault = server.operator();
    let metadata = BTreeMap::from([("generation".to_owned(), "1".to_owned()), ("uid".to_owned(), "u-1".to_owned())]);

    // Nothing is there yet: absence is no error, except where something is asked for.
    assert!(vault.list_secret_id_accessors(NAME).await.unwrap().is_empty());
    vault.destroy_secret_id(NAME, "none").await.unwrap();
    let error = vault.generate_secret_id(NAME, &metadata).await.err().expect("there is no such role");
    assert!(matches!(error, VaultError::Unexpected { status: 404, .. }), "{error}");

    vault.write_approle(&approle()).await.unwrap();
    assert!(vault.list_secret_id_accessors(NAME).await.unwrap().is_empty());
    vault.destroy_secret_id(NAME, "none").await.unwrap();

    let one = vault.generate_secret_id(NAME, &metadata).await.unwrap();
    let other = vault.generate_secret_id(NAME, &metadata).await.unwrap();
    let mut listed = vault.list_secret_id_accessors(NAME).await.unwrap();
    let mut made = vec![one.accessor.clone(), other.accessor.clone()];
    listed.sort();
    made.sort();
    assert_eq!(listed, made);
    let lookup = ["write", "-field=metadata", &format!("auth/approle/role/{NAME}/secret-id-accessor/lookup")];
    let shown = server.vault(&[&lookup[..], &[&format!("secret_id_accessor={}", one.accessor)]].concat());
    assert!(shown.contains("generation:1") && shown.contains("uid:u-1"), "{shown}");

    vault.destroy_secret_id(NAME, &one.accessor).await.unwrap();
    vault.destroy_secret_id(NAME, &one.accessor).await.unwrap();
    assert_eq!(vault.list_secret_id_accessors(NAME).await.unwrap(), [other.accessor]);
    let role_id = vault.read_role_id(NAME).await.unwrap().unwrap();
    let refused = server.approle(&role_id, one.secret_id.expose_secret()).read_kv("x").await.err().unwrap();
    assert!(matches!(refused, VaultError::LoginRefused { .. }), "{refused}");
    let living = server.approle(&role_id, other.secret_id.expose_secret()).read_kv("x").await.err().unwrap();
    assert!(matches!(living, VaultError::PermissionDenied { .. }), "it logs in, and its policy is empty: {living}");

    vault.delete_approle(NAME).await.unwrap();
    assert!(vault.list_secret_id_accessors(NAME).await.unwrap().is_empty(), "with the role go its secret_ids");
}

#[tokio::test]
async fn kubernetes_roles_come_change_and_go() {
    let server = Server::set_up();
    let vault = server.operator();
    let name = "servicedb.test.messaging.chat.client";
    let role = KubernetesRole {
        name: name.to_owned(),
        service_accounts: vec!["chat".to_owned(), "audit".to_owned()],
        namespace: "messaging".to_owned(),
        policies: vec![name.to_owned()],
        token_ttl: Duration::from_secs(600),
        token_max_ttl: Duration::from_secs(3600),
    };
    assert_eq!(vault.read_kubernetes_role(name).await.unwrap(), None);
    vault.write_kubernetes_role(&role).await.unwrap();
    assert_eq!(vault.read_kubernetes_role(name).await.unwrap().as_ref(), Some(&role));

    let path = format!("auth/kubernetes/role/{name}");
    for drift in [
        "token_no_default_policy=false",
        "token_max_ttl=9h",
        "token_ttl=9m",
        "bound_service_account_namespaces=messaging,evil",
    ] {
        server.vault(&["write", &path, drift, "bound_service_account_names=chat,audit"]);
        assert_ne!(vault.read_kubernetes_role(name).await.unwrap().as_ref(), Some(&role), "{drift} goes unnoticed");
        vault.write_kubernetes_role(&role).await.unwrap();
        assert_eq!(vault.read_kubernetes_role(name).await.unwrap().as_ref(), Some(&role), "{drift} is not repaired");
    }
    vault.delete_kubernetes_role(name).await.unwrap();
    vault.delete_kubernetes_role(name).await.unwrap();
    assert_eq!(vault.read_kubernetes_role(name).await.unwrap(), None);
}
