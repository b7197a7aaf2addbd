//! Logins: shared, renewed, healed, refused.

use std::time::Duration;

use servicedb::vault::client::{Login, VaultClient};
use servicedb::vault::{Vault, VaultError};

use crate::count;
use crate::server::{OPERATOR_POLICY, Server};

const RECORD: &str = "test/messaging/chat/pending";

/// An AppRole for an operator: its service tokens can be renewed and revoked.
fn operator_approle(server: &Server, settings: &[&str]) -> VaultClient {
    let policies = format!("token_policies={OPERATOR_POLICY}");
    let fixed = ["write", "auth/approle/role/operator", &policies, "token_no_default_policy=true"];
    server.vault(&[&fixed[..], settings].concat());
    let role_id = server.vault(&["read", "-field=role_id", "auth/approle/role/operator/role-id"]);
    let secret_id = server.vault(&["write", "-f", "-field=secret_id", "auth/approle/role/operator/secret-id"]);
    server.approle(&role_id, &secret_id)
}

/// Revokes all tokens that AppRole logins gave.
fn revoke_tokens(server: &Server) {
    server.vault(&["lease", "revoke", "-prefix", "-sync", "auth/approle/login"]);
}

#[tokio::test]
async fn concurrent_callers_share_one_login() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &[]);
    let reads = futures::future::join_all((0..16).map(|_| vault.read_kv(RECORD))).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!((count(&vault, "login", "ok"), count(&vault, "read_kv", "absent")), (1, 16));
}

#[tokio::test]
async fn a_dead_token_heals_by_one_login() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &[]);
    vault.read_kv(RECORD).await.unwrap();
    revoke_tokens(&server);
    let reads = futures::future::join_all((0..16).map(|_| vault.read_kv(RECORD))).await;
    assert!(reads.iter().all(Result::is_ok), "a caller saw the dead token");
    assert_eq!(count(&vault, "login", "ok"), 2);
}

#[tokio::test]
async fn a_rotated_token_file_is_read_when_the_old_token_is_dead() {
    let server = Server::set_up();
    let old = server.operator_token();
    let file = server.write("token", &old);
    let vault = server.client(Login::TokenFile { file });
    vault.read_kv(RECORD).await.unwrap();
    server.vault(&["token", "revoke", &old]);
    let error = vault.read_kv(RECORD).await.err().expect("the file has not changed yet");
    assert!(matches!(error, VaultError::LoginRefused { .. }), "{error}");
    server.write("token", &server.operator_token());
    vault.read_kv(RECORD).await.unwrap();
}

#[tokio::test]
async fn a_denial_makes_no_login() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &[]);
    for _ in 0..5 {
        let error = vault.write_kv("other/messaging/chat/pending", &[].into(), 0).await.unwrap_err();
        assert!(matches!(error, VaultError::PermissionDenied { .. }), "{error}");
    }
    assert_eq!((count(&vault, "login", "ok"), count(&vault, "write_kv", "permission_denied")), (1, 5));
}

#[tokio::test]
async fn a_renewable_token_is_renewed_before_it_ends() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &["token_ttl=20s", "token_max_ttl=1h"]);
    for _ in 0..2 {
        vault.read_kv(RECORD).await.unwrap();
        // Later than three quarters of its life, well before its end.
        tokio::time::sleep(Duration::from_millis(15_100)).await;
    }
    vault.read_kv(RECORD).await.unwrap();
    assert_eq!((count(&vault, "login", "ok"), count(&vault, "renew_token", "ok")), (1, 2));
}

#[tokio::test]
async fn at_the_end_of_its_renewals_a_token_is_replaced() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &["token_ttl=4s", "token_max_ttl=4s"]);
    vault.read_kv(RECORD).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3100)).await;
    vault.read_kv(RECORD).await.unwrap();
    assert_eq!(count(&vault, "login", "ok"), 2, "less than a second was left, and no renewal gives more");
}

#[tokio::test]
async fn a_batch_token_is_replaced_before_it_ends() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &["token_type=batch", "token_ttl=4s", "token_max_ttl=4s"]);
    for _ in 0..2 {
        vault.read_kv(RECORD).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3100)).await;
    }
    vault.read_kv(RECORD).await.unwrap();
    assert_eq!((count(&vault, "login", "ok"), count(&vault, "renew_token", "ok")), (3, 0));
}

#[tokio::test]
async fn a_token_that_ended_unused_is_replaced() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &["token_ttl=5s", "token_max_ttl=5s"]);
    vault.read_kv(RECORD).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5500)).await;
    vault.read_kv(RECORD).await.unwrap();
    assert_eq!((count(&vault, "login", "ok"), count(&vault, "read_kv", "permission_denied")), (2, 0));
}

#[tokio::test]
async fn a_deleted_approle_is_a_refused_login_once_the_token_is_gone() {
    let server = Server::set_up();
    let vault = operator_approle(&server, &[]);
    vault.read_kv(RECORD).await.unwrap();
    server.vault(&["delete", "auth/approle/role/operator"]);
    revoke_tokens(&server);
    let error = vault.read_kv(RECORD).await.err().expect("there is no token to be had");
    assert!(matches!(&error, VaultError::LoginRefused { mount, .. } if mount == "auth/approle"), "{error}");
    assert!(error.to_string().contains("the AppRole may be deleted"), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_login_is_told() {
    let server = Server::set_up();
    let good = server.write("id", "0000");
    let approle = |mount: &str, secret_id_file| Login::AppRole {
        mount: mount.to_owned(),
        role_id_file: good.clone(),
        secret_id_file,
    };
    let kubernetes = |role: &str, claims: &str| Login::Kubernetes {
        mount: "kubernetes".to_owned(),
        role: role.to_owned(),
        jwt_file: server.write(&format!("jwt-{}", claims.len()), &unsigned(claims)),
    };
    let account = |name: &str, audience: &str| {
        format!(
            r#"{{"aud":["{audience}"],"sub":"x","exp":4102444800,
                "kubernetes.io":{{"namespace":"servicedb-system","serviceaccount":{{"name":"{name}","uid":"u"}}}}}}"#
        )
    };
    let cases = [
        (approle("approle", "/nowhere/secret-id".into()), "/nowhere/secret-id cannot be read"),
        (approle("approle", server.write("empty", "")), "is empty"),
        (approle("approle", server.write("lines", "a\nb")), "single line"),
        (approle("approle", good.clone()), "not (or no longer) valid"),
        (approle("elsewhere", good.clone()), "no mount for auth/elsewhere/login"),
        (kubernetes("nobody", "{}"), "the role nobody does not exist"),
        (kubernetes("servicedb-operator", &account("servicedb-operator", "b")), "another audience"),
        (kubernetes("servicedb-operator", &account("somebody", "vault")), "not bound to this ServiceAccount"),
        (kubernetes("servicedb-operator", &account("servicedb-operator", "vault")), "does not review tokens for Vault"),
        (
            Login::Jwt { mount: "jwt".to_owned(), role: "r".to_owned(), jwt_file: good.clone() },
            "no mount for auth/jwt/login",
        ),
    ];
    for (login, words) in cases {
        let error = server.client(login.clone()).read_kv(RECORD).await.err().expect("this cannot log in");
        assert!(error.to_string().contains(words), "{words} is not told of {login:?}: {error}");
    }
}

/// A token of the right shape that nobody signed.
fn unsigned(claims: &str) -> String {
    let part = |text: &str| {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: String = text.bytes().map(|byte| format!("{byte:08b}")).collect();
        let letters = bits.as_bytes().chunks(6).map(|six| {
            let number = six.iter().fold(0, |number, bit| number * 2 + usize::from(bit - b'0'));
            char::from(alphabet[number << (6 - six.len())])
        });
        letters.collect::<String>()
    };
    format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(claims), part("signature"))
}
