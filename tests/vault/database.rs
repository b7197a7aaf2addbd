//! The database secrets engine: roles, connections, leases.

use std::time::Duration;

use servicedb::api::names::Names;
use servicedb::contract::clients::Engine;
use servicedb::vault::policy::{self, EngineMount, Mounts};
use servicedb::vault::{DatabaseConnection, DatabaseRole, KnownConnection, Vault, VaultError};

use crate::server::Server;

const MOUNT: &str = "database";
const CONNECTION: &str = "servicedb.test.messaging.chat";

fn role() -> DatabaseRole {
    DatabaseRole {
        name: format!("{CONNECTION}.reader"),
        connection: CONNECTION.to_owned(),
        creation: vec![
            "CREATE ROLE \"{{name}}\"".to_owned(),
            "GRANT a TO \"{{name}}\" WITH INHERIT TRUE, SET TRUE".to_owned(),
        ],
        renewal: vec!["ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'".to_owned()],
        revocation: vec!["DROP ROLE IF EXISTS \"{{name}}\"".to_owned()],
        ttl: Duration::from_secs(60),
        max_ttl: Duration::from_secs(120),
    }
}

#[tokio::test]
async fn roles_of_the_engine_come_change_and_go() {
    let server = Server::set_up();
    let (vault, role) = (server.operator(), role());
    assert_eq!(vault.read_database_role(MOUNT, &role.name).await.unwrap(), None);
    vault.write_database_role(MOUNT, &role).await.unwrap();
    assert_eq!(vault.read_database_role(MOUNT, &role.name).await.unwrap().as_ref(), Some(&role));
    let path = format!("{MOUNT}/roles/{}", role.name);
    let name = format!("db_name={CONNECTION}");
    for drift in ["max_ttl=9h", "creation_statements=CREATE ROLE x", "rollback_statements=DROP ROLE x", "db_name=other"]
    {
        let fixed = if drift.starts_with("db_name") { "default_ttl=1m" } else { &name };
        server.vault(&["write", &path, fixed, drift]);
        assert_ne!(vault.read_database_role(MOUNT, &role.name).await.unwrap().as_ref(), Some(&role), "{drift}");
        vault.write_database_role(MOUNT, &role).await.unwrap();
        assert_eq!(vault.read_database_role(MOUNT, &role.name).await.unwrap().as_ref(), Some(&role), "{drift} stays");
    }
    // No lease is no error, nor a role that is gone.
    vault.revoke_database_leases(MOUNT, &role.name).await.unwrap();
    for _ in 0..2 {
        vault.delete_database_role(MOUNT, &role.name).await.unwrap();
        vault.delete_database_connection(MOUNT, CONNECTION).await.unwrap();
    }
    assert_eq!(vault.read_database_role(MOUNT, &role.name).await.unwrap(), None);
    let missing = vault.write_database_role("nowhere", &role).await.unwrap_err();
    assert!(matches!(missing, VaultError::PermissionDenied { .. } | VaultError::MountMissing { .. }), "{missing}");
}

/// The agent's policy has exactly this path, this plugin and this address. A server that does not answer is a refusal of
/// Vault, and nothing is stored.
#[tokio::test]
async fn a_connection_that_vault_cannot_use_is_refused() {
    let server = Server::set_up();
    let url = Engine::url("127.0.0.1");
    let engine = EngineMount { mount: MOUNT, url: &url };
    let names = Names::new("messaging", "chat").vault("test");
    let own = policy::instance(&Mounts { kv: "secret", database: Some(engine) }, &names, &["reader"], &[]);
    let policy = format!("{own}\npath \"auth/token/lookup-self\" {{\n  capabilities = [\"read\"]\n}}\n");
    server.operator().write_policy("servicedb.test.messaging.chat.instance", &policy).await.unwrap();
    let token = server.token("servicedb.test.messaging.chat.instance");
    let file = server.write("instance-token", &token);
    let vault = server.client(servicedb::vault::client::Login::TokenFile { file });
    let connection = |name: &str| DatabaseConnection {
        name: name.to_owned(),
        url: url.clone(),
        username: "servicedb_vault".to_owned(),
        password: "canary-of-the-test".to_owned().into(),
        ca: String::new(),
        roles: vec![role().name],
        username_template: format!(
            "{{{{ printf \"servicedb.%s.%s\" (replace \"{CONNECTION}.\" \"\" .RoleName) (random 16 | lowercase) }}}}"
        ),
        sessions: 4,
    };
    let refused = vault.write_database_connection(MOUNT, &connection(CONNECTION)).await.unwrap_err();
    assert!(matches!(refused, VaultError::Unexpected { status: 400, .. }), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("canary"), "{refused:?}");
    let other =
        vault.write_database_connection(MOUNT, &connection("servicedb.test.messaging.other")).await.unwrap_err();
    assert!(matches!(other, VaultError::PermissionDenied { .. }), "{other}");
    let elsewhere = DatabaseConnection { url: Engine::url("127.0.0.2"), ..connection(CONNECTION) };
    let elsewhere = vault.write_database_connection(MOUNT, &elsewhere).await.unwrap_err();
    assert!(matches!(elsewhere, VaultError::PermissionDenied { .. }), "{elsewhere}");
    let somebody = DatabaseConnection { username: "postgres".to_owned(), ..connection(CONNECTION) };
    let somebody = vault.write_database_connection(MOUNT, &somebody).await.unwrap_err();
    assert!(matches!(somebody, VaultError::PermissionDenied { .. }), "{somebody}");
    let in_turn = DatabaseConnection { username: "servicedb_vault2".to_owned(), ..connection(CONNECTION) };
    let in_turn = vault.write_database_connection(MOUNT, &in_turn).await.unwrap_err();
    assert!(matches!(in_turn, VaultError::Unexpected { status: 400, .. }), "the other login is allowed: {in_turn}");
    assert_eq!(vault.read_database_connection(MOUNT, CONNECTION).await.unwrap(), None);
    let listed = server.try_vault("root-token-of-the-test", &["list", &format!("{MOUNT}/config")]);
    assert!(!listed.status.success(), "nothing is stored");
}

/// As the agent compares it: the placeholders are as they were written.
#[tokio::test]
async fn a_connection_is_read_as_it_was_written() {
    let server = Server::set_up();
    let (path, url) = (format!("{MOUNT}/config/{CONNECTION}"), Engine::url("127.0.0.1"));
    let (url_field, roles) = (format!("connection_url={url}"), format!("allowed_roles={}", role().name));
    let fields = ["plugin_name=postgresql-database-plugin", "verify_connection=false", "username=servicedb_vault"];
    let mut arguments = vec!["write", path.as_str(), url_field.as_str(), roles.as_str(), "password=canary-of-the-test"];
    arguments.extend(fields);
    server.vault(&arguments);
    let policy = format!(
        "path \"{path}\" {{\n  capabilities = [\"read\"]\n}}\n\
         path \"auth/token/lookup-self\" {{\n  capabilities = [\"read\"]\n}}\n"
    );
    server.operator().write_policy("servicedb.test.messaging.chat.reader", &policy).await.unwrap();
    let file = server.write("reader-token", &server.token("servicedb.test.messaging.chat.reader"));
    let vault = server.client(servicedb::vault::client::Login::TokenFile { file });
    let known = vault.read_database_connection(MOUNT, CONNECTION).await.unwrap();
    let expected = KnownConnection { url, username: "servicedb_vault".to_owned(), roles: vec![role().name] };
    assert_eq!(known, Some(expected));
}
