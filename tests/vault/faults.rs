//! Vault sealed, stopped, unresponsive, or with another certificate; and a missing mount.

use std::time::Duration;

use servicedb::vault::client::{Login, VaultClient, VaultSettings};
use servicedb::vault::{Vault, VaultError};
use tokio::net::TcpListener;

use crate::count;
use crate::server::Server;

const RECORD: &str = "test/messaging/chat/pending";

#[tokio::test]
async fn a_sealed_vault_is_told_and_heals_with_the_same_token() {
    let server = Server::set_up();
    let vault = server.operator();
    vault.health().await.unwrap();
    vault.read_kv(RECORD).await.unwrap();
    let newcomer = server.operator();
    server.vault(&["operator", "seal"]);
    let errors = [vault.health().await.unwrap_err(), vault.read_kv(RECORD).await.err().unwrap()];
    for error in errors {
        assert!(matches!(error, VaultError::NotServing { .. }), "{error}");
        assert!(error.to_string().contains("it is sealed"), "{error}");
    }
    let error = newcomer.read_kv(RECORD).await.err().unwrap();
    assert!(matches!(error, VaultError::NotServing { .. }), "a login meets the seal too: {error}");
    server.vault(&["operator", "unseal", &server.unseal_key()]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while vault.health().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "Vault does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    vault.read_kv(RECORD).await.unwrap();
    assert_eq!(count(&vault, "login", "ok"), 1);
}

#[tokio::test]
async fn a_vault_that_is_gone_is_unreachable() {
    let mut server = Server::set_up();
    let vault = server.operator();
    vault.read_kv(RECORD).await.unwrap();
    server.stop();
    let error = vault.health().await.unwrap_err();
    assert!(matches!(error, VaultError::Unreachable { .. }), "{error}");
    // By now no connection is left that was cut under way.
    let error = vault.read_kv(RECORD).await.err().unwrap();
    assert!(matches!(error, VaultError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "the cause is not told: {error}");
}

#[tokio::test]
async fn a_silent_vault_is_unreachable_in_time() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The kernel accepts the connection; no process answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = VaultSettings {
        address: format!("http://{}", silent.local_addr().unwrap()),
        namespace: None,
        ca_file: None,
        kv_mount: "secret".to_owned(),
        approle_mount: "approle".to_owned(),
        kubernetes_mount: "kubernetes".to_owned(),
        timeout: Duration::from_millis(300),
    };
    let vault = VaultClient::new(settings, Login::TokenFile { file: "/nowhere".into() }).unwrap();
    let started = tokio::time::Instant::now();
    let error = vault.health().await.unwrap_err();
    assert!(error.to_string().contains("no answer within 0.3 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_until_the_ca_file_is_right() {
    let server = Server::set_up();
    let right = std::fs::read_to_string(server.ca_file()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::CertificateParams::new([]).unwrap().self_signed(&key).unwrap().pem();
    let ca_file = server.write("ca", &other);
    let login = Login::TokenFile { file: server.write("token", &server.operator_token()) };
    let settings = VaultSettings { ca_file: Some(ca_file.clone()), ..server.settings() };
    let vault = VaultClient::new(settings, login.clone()).unwrap();
    let error = vault.read_kv(RECORD).await.err().unwrap();
    assert!(matches!(error, VaultError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "the cause is not told: {error}");
    server.write("ca", &right);
    vault.read_kv(RECORD).await.unwrap();

    for (content, words) in [("nonsense", "contains no PEM certificate"), ("", "contains no PEM certificate")] {
        server.write("ca", content);
        let error = vault.health().await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let settings = VaultSettings { ca_file: Some("/nowhere/ca".into()), ..server.settings() };
    let error = VaultClient::new(settings, login).unwrap().health().await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/ca cannot be read"), "{error}");
}

#[tokio::test]
async fn a_missing_mount_is_told_apart_from_a_missing_record() {
    let server = Server::set_up();
    let vault = server.operator();
    assert!(vault.read_kv(RECORD).await.unwrap().is_none());
    server.vault(&["secrets", "disable", "secret"]);
    let error = vault.read_kv(RECORD).await.err().unwrap();
    assert!(matches!(error, VaultError::MountMissing { .. }), "{error}");
    let error = vault.write_kv(RECORD, &[].into(), 0).await.err().unwrap();
    assert!(matches!(error, VaultError::MountMissing { .. }), "{error}");

    server.vault(&["auth", "disable", "approle"]);
    let name = "servicedb.test.messaging.chat.instance";
    let error = vault.read_approle(name).await.unwrap_err();
    assert!(matches!(error, VaultError::MountMissing { .. }), "{error}");
    // Nothing can be left of a role whose mount is gone, but only a person can know that it
    // was meant to go: this stays an error.
    let error = vault.delete_approle(name).await.unwrap_err();
    assert!(matches!(error, VaultError::MountMissing { .. }), "{error}");
}
