//! The lifecycle of a credential: written by the operator, promoted by the database pod, read by
//! the migrator and by the client; each with its own policy, and none with another's.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::ExposeSecret;
use servicedb::api::names::{Names, VaultNames};
use servicedb::contract::records::Data;
use servicedb::vault::client::{Login, VaultClient};
use servicedb::vault::policy::{self, Mounts};
use servicedb::vault::{AppRole, Vault, VaultError};

use crate::server::{CLUSTER, Server, text};
use crate::{count, log};

const MOUNTS: Mounts = Mounts { kv: "secret", database: None };
const PASSWORD: &str = "canary-password";

async fn approle(server: &Server, operator: &VaultClient, name: &str, hcl: &str) -> VaultClient {
    operator.write_policy(name, hcl).await.unwrap();
    let role = AppRole {
        name: name.to_owned(),
        policies: vec![name.to_owned()],
        token_ttl: Duration::from_secs(600),
        secret_id_ttl: Duration::from_secs(3600),
    };
    operator.write_approle(&role).await.unwrap();
    let role_id = operator.read_role_id(name).await.unwrap().unwrap();
    let made = operator.generate_secret_id(name, &BTreeMap::new()).await.unwrap();
    server.approle(&role_id, made.secret_id.expose_secret())
}

fn names(name: &str) -> VaultNames {
    Names::new("messaging", name).vault(CLUSTER)
}

fn credentials() -> Data {
    Data::from([("CHAT_DB_PASSWORD".to_owned(), PASSWORD.to_owned())])
}

async fn assert_denied(vault: &VaultClient, record: &str) {
    let error = vault.read_kv(record).await.err().unwrap_or_else(|| panic!("{record} was not denied"));
    assert!(matches!(error, VaultError::PermissionDenied { operation: "read", .. }), "{record}: {error}");
    let error = vault.write_kv(record, &Data::new(), 0).await.err().unwrap();
    assert!(matches!(error, VaultError::PermissionDenied { .. }), "{record}: {error}");
}

#[tokio::test]
async fn a_credential_goes_its_way_and_nobody_strays() {
    let server = Server::set_up();
    let operator = server.operator();
    let (chat, game) = (names("chat"), names("game"));
    let instance = approle(&server, &operator, &chat.instance(), &policy::instance(&MOUNTS, &chat, &[], &[])).await;
    let migrator = approle(&server, &operator, &chat.migrator(), &policy::migrator(&MOUNTS, &chat)).await;
    operator.write_policy(&chat.client(), &policy::client(&MOUNTS, &chat)).await.unwrap();
    let client = server.client(Login::TokenFile { file: server.write("client", &server.token(&chat.client())) });

    operator.write_kv(&chat.pending(), &credentials(), 0).await.unwrap();
    operator.write_kv(&game.pending(), &credentials(), 0).await.unwrap();

    let pending = instance.read_kv(&chat.pending()).await.unwrap().expect("the operator wrote it");
    assert_eq!(pending.data, credentials());
    assert_eq!(instance.write_kv(&chat.migrator_record(), &pending.data, 0).await.unwrap(), 1);
    assert_eq!(instance.write_kv(&chat.runtime(), &pending.data, 0).await.unwrap(), 1);
    assert_eq!(instance.write_kv(&chat.runtime(), &pending.data, 1).await.unwrap(), 2);
    assert!(instance.read_kv_metadata(&chat.runtime()).await.unwrap().is_some());
    // The next one is written before the one that was promoted is destroyed: it stays.
    assert_eq!(operator.write_kv(&chat.pending(), &credentials(), 1).await.unwrap(), 2);
    instance.destroy_kv_version(&chat.pending(), 1).await.unwrap();
    assert_eq!(operator.read_kv(&chat.pending()).await.unwrap().map(|record| record.version), Some(2));
    instance.destroy_kv_version(&chat.pending(), 2).await.unwrap();
    instance.destroy_kv_version(&chat.pending(), 2).await.unwrap();
    assert!(operator.read_kv(&chat.pending()).await.unwrap().is_none());

    assert_eq!(migrator.read_kv(&chat.migrator_record()).await.unwrap().unwrap().data, credentials());
    // The client's token may not look itself up: its own policy is all that it has.
    let refused = client.read_kv(&chat.runtime()).await.err().unwrap();
    assert!(matches!(refused, VaultError::LoginRefused { .. }), "{refused}");
    let path = format!("secret/data/{}", chat.runtime());
    assert!(server.try_vault(&server.token(&chat.client()), &["read", &path]).status.success());

    for record in [game.pending(), game.runtime(), game.migrator_record()] {
        assert_denied(&instance, &record).await;
        assert_denied(&migrator, &record).await;
    }
    for record in [chat.pending(), chat.runtime()] {
        assert_denied(&migrator, &record).await;
    }
    let token = server.token(&chat.client());
    for record in [chat.pending(), chat.migrator_record(), game.runtime()] {
        let refused = text(&server.try_vault(&token, &["read", &format!("secret/data/{record}")]).stderr);
        assert!(refused.contains("permission denied"), "a client reads {record}: {refused}");
    }
    let body = format!("@{}", server.write("body", r#"{"data": {"a": "b"}}"#).display());
    let refused = text(&server.try_vault(&token, &["write", &path, &body]).stderr);
    assert!(refused.contains("permission denied"), "a client writes: {refused}");
    let error = instance.delete_kv(&chat.runtime()).await.unwrap_err();
    assert!(matches!(error, VaultError::PermissionDenied { operation: "delete", .. }), "{error}");
    assert_eq!(count(&instance, "login", "ok"), 1, "no denial made a login");
}

#[tokio::test]
async fn nothing_secret_is_shown_or_logged() {
    let log = log::listen();
    let server = Server::set_up();
    let operator = server.operator();
    let names = names("chat");
    let instance = approle(&server, &operator, &names.instance(), &policy::instance(&MOUNTS, &names, &[], &[])).await;
    operator.write_kv(&names.pending(), &credentials(), 0).await.unwrap();
    instance.read_kv(&names.pending()).await.unwrap();
    let role_id = operator.read_role_id(&names.instance()).await.unwrap().unwrap();
    let made = operator.generate_secret_id(&names.instance(), &BTreeMap::new()).await.unwrap();

    let bad = server.approle(&role_id, "canary-secret-id");
    let mut shown = vec![format!("{operator:?} {instance:?} {bad:?}")];
    let errors = [
        operator.write_kv(&names.pending(), &credentials(), 7).await.err(),
        operator.write_kv(&names.runtime(), &credentials(), 0).await.err(),
        bad.read_kv(&names.pending()).await.err(),
        server.client(Login::TokenFile { file: server.write("bad", "hvs.canary-token") }).read_kv("x").await.err(),
        server.client(Login::TokenFile { file: server.write("two", "hvs.canary\nlines") }).read_kv("x").await.err(),
        server
            .client(Login::Kubernetes {
                mount: "kubernetes".to_owned(),
                role: "servicedb-operator".to_owned(),
                jwt_file: server.write("jwt", "canary.jwt.x"),
            })
            .read_kv("x")
            .await
            .err(),
    ];
    shown.extend(errors.into_iter().map(|error| error.expect("each of these fails")).map(|e| format!("{e} {e:?}")));

    let shown = shown.join("\n") + &log.text();
    assert!(shown.contains("logged in to Vault"), "the log is not listened to: {shown}");
    // Some of Vault's answers echo the secret_id, in a race that no test can make: so none of
    // them may be logged at all.
    let answers = around(&shown, "Detected errors in API response");
    assert!(answers.is_empty(), "vaultrs is heard: {answers:?}");
    for secret in [PASSWORD, "canary", made.secret_id.expose_secret(), "hvs.", "hvb."] {
        assert!(!shown.contains(secret), "{secret} is shown: {:?}", around(&shown, secret));
    }
}

fn around<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(word)).collect()
}
