//! Short-lived logins, as Vault's login makes them by the functions that the agent keeps.

use serde_json::{Value, json};
use servicedb::agent::clients::{engine, roles, short_lived};
use servicedb::api::names::PostgresNames;
use servicedb::contract::clients::{Client, Rules};

use crate::hostile::{server, tenant};
use crate::query;
use crate::rights::CLIENTS;
use crate::server::Session;

const CLIENT: &str = "vault-reader";
const LOGIN: &str = "servicedb.vault-reader.aaaaaaaaaaaaaaaa";
const SOON: &str = "now() + interval '1 h'";

fn reader(limits: &Value) -> Client {
    let lifetimes = json!({"ttlSeconds": 60, "maxTtlSeconds": 3600});
    let mut client = json!({"name": CLIENT, "serviceAccount": CLIENT, "generation": 1});
    client["access"] = json!({"mode": "ReadOnly", "dynamic": lifetimes});
    for (name, value) in limits.as_object().expect("limits") {
        client[name] = value.clone();
    }
    serde_json::from_value(client).expect("a client")
}

/// A key of 32 bytes.
const KEY: &str = "c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHQ=";

/// A verifier of the form that Vault sends.
fn verifier() -> String {
    format!("SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==${KEY}:{KEY}")
}

fn make(client: &str, login: &str, until: &str) -> String {
    format!("SELECT servicedb.make_login('{client}', '{login}', '{}', {until})", verifier())
}

/// What a caller of the functions may have set in its session.
const TRAPS: &str = "SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'; SET standard_conforming_strings = off;
                     SET quote_all_identifiers = on; CREATE TEMP TABLE pg_roles (oid oid, rolname text);
                     SET search_path = pg_temp, pg_catalog";

/// Expects that a statement is refused with this code.
async fn expect_refusal(session: &Session, statement: &str, code: &str) {
    let error = session.client.batch_execute(statement).await.expect_err(statement);
    assert_eq!(error.code().map(|code| code.code()), Some(code), "{statement}: {error:?}");
}

async fn superuser() -> Session {
    let session = server().connect("postgres", "postgres").await;
    session.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    session
}

/// A membership with options of its own is new in PostgreSQL 16.
async fn is_before_16(superuser: &Session) -> bool {
    let version = query(superuser, "SELECT current_setting('server_version_num')").await.concat();
    version.parse::<u32>().expect("a number") < 160_000
}

/// The client as declared, with the functions, and a session of Vault's login.
async fn opened(superuser: &Session, names: &PostgresNames, client: &Client) -> Session {
    roles::admit(&superuser.client, names, std::slice::from_ref(client)).await.expect("the roles");
    for _ in 0..2 {
        engine::prepare(&superuser.client).await.expect("the functions");
        engine::keep(&superuser.client, names, &[client]).await.expect("the client");
    }
    let open = format!(
        "GRANT CONNECT ON DATABASE {} TO {}; ALTER ROLE servicedb_vault LOGIN",
        names.database,
        names.client(CLIENT)
    );
    superuser.client.batch_execute(&open).await.expect("a login");
    server().connect("postgres", "servicedb_vault").await
}

/// Nothing is left of the client, of its logins and of Vault's.
async fn closed(superuser: &Session, names: &PostgresNames) {
    engine::keep(&superuser.client, names, &[]).await.expect("its end");
    let others = format!("SELECT client FROM servicedb.clients WHERE client <> '{CLIENT}'");
    let kept: Vec<Client> = query(superuser, &others)
        .await
        .iter()
        .map(|name| json!({"name": name, "generation": 1, "access": {"mode": "ReadOnly"}}))
        .map(|client| serde_json::from_value(client).expect("a client"))
        .collect();
    let revoke = format!("REVOKE CONNECT ON DATABASE {} FROM {}", names.database, names.client(CLIENT));
    superuser.client.batch_execute(&revoke).await.expect("the right is taken back");
    let removed = roles::remove(&superuser.client, server().socket(), names, &kept, Rules::default()).await;
    assert!(removed.expect("a removal").is_complete);
    let left = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'servicedb.')
                UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE 'servicedb_vault%' AND rolcanlogin
                UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE '%\\_login' AND pronamespace = 'servicedb'::regnamespace";
    assert_eq!(query(superuser, left).await, [""; 0]);
}

async fn logins(superuser: &Session) -> Vec<String> {
    query(superuser, "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'servicedb.') ORDER BY rolname").await
}

#[tokio::test]
async fn vaults_login_makes_logins_of_these_clients_and_nothing_else() {
    let _alone = CLIENTS.lock().await;
    let (names, _owner) = tenant("vault_db", &[]).await;
    let superuser = superuser().await;
    if is_before_16(&superuser).await {
        return;
    }
    let vault = opened(&superuser, &names, &reader(&json!({"connectionLimit": 3}))).await;
    // What the caller has in its session changes nothing.
    vault.client.batch_execute(TRAPS).await.expect("a session");
    vault.client.batch_execute(&make(CLIENT, LOGIN, SOON)).await.expect("a login");
    let session = server().connect(&names.database, LOGIN).await;
    let acts_as = format!("{} {LOGIN}", names.client(CLIENT));
    assert_eq!(query(&session, "SELECT current_user || ' ' || session_user").await, [acts_as]);
    let shown = "SELECT rolconnlimit || ' ' || (rolvaliduntil < now() + interval '61 min') FROM pg_roles
                 WHERE starts_with(rolname, 'servicedb.')";
    assert_eq!(query(&superuser, shown).await, ["3 true"]);

    let other = "servicedb.vault-reader.bbbbbbbbbbbbbbbb";
    let plain = format!("SELECT servicedb.make_login('{CLIENT}', '{other}', 'a password', {SOON})");
    for (refused, code) in [
        ("CREATE ROLE intruder".to_owned(), "42501"),
        (format!("DROP ROLE {}", names.clients()), "42501"),
        (format!("ALTER ROLE {} RENAME TO intruder", names.client(CLIENT)), "42501"),
        (format!("GRANT {} TO servicedb_vault", names.client(CLIENT)), "42501"),
        (format!("SET ROLE {}", names.client(CLIENT)), "42501"),
        ("DELETE FROM servicedb.short_lived".to_owned(), "42501"),
        ("SELECT * FROM servicedb.clients".to_owned(), "42501"),
        (make("nobody", "servicedb.nobody.bbbbbbbbbbbbbbbb", SOON), "42501"),
        (make(CLIENT, "servicedb.vault-reader-2.bbbbbbbbbbbbbbbb", SOON), "42602"),
        (make(CLIENT, &names.owner(), SOON), "42602"),
        (plain, "28P01"),
        (make(CLIENT, other, "now() + interval '2 h'"), "22023"),
        (make(CLIENT, other, "now() - interval '1 s'"), "22023"),
        (make(CLIENT, other, "'infinity'"), "22023"),
        (make(CLIENT, other, "NULL"), "22023"),
        (format!("SELECT servicedb.renew_login('{CLIENT}', '{}', {SOON})", names.owner()), "42501"),
        (format!("SELECT servicedb.renew_login('{CLIENT}', '{LOGIN}', 'infinity')"), "22023"),
        (format!("SELECT servicedb.remove_login('{}')", names.owner()), "42602"),
    ] {
        expect_refusal(&vault, &refused, code).await;
    }
    superuser.client.batch_execute("UPDATE servicedb.short_lived SET most = 1").await.expect("a lower number");
    expect_refusal(&vault, &make(CLIENT, other, SOON), "53400").await;
    assert_eq!(logins(&superuser).await, [LOGIN]);

    // A session that has changed its own role, and does not end, keeps neither.
    let open = "SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'another'";
    session.client.batch_execute(open).await.expect("an open change");
    let remove = format!("SELECT servicedb.remove_login('{LOGIN}')");
    for _ in 0..2 {
        vault.client.batch_execute(&remove).await.expect("its end");
    }
    assert_eq!(logins(&superuser).await, [""; 0]);
    drop((session, vault));
    closed(&superuser, &names).await;
}

#[tokio::test]
async fn logins_have_the_limits_that_are_declared_now_and_go_where_they_are_not_vaults() {
    let _alone = CLIENTS.lock().await;
    let (names, _owner) = tenant("leased_db", &[]).await;
    let superuser = superuser().await;
    if is_before_16(&superuser).await {
        return;
    }
    let vault = opened(&superuser, &names, &reader(&json!({}))).await;
    let other = "servicedb.vault-reader.bbbbbbbbbbbbbbbb";
    for login in [LOGIN, other] {
        vault.client.batch_execute(&make(CLIENT, login, SOON)).await.expect("a login");
    }
    let limited = reader(&json!({"connectionLimit": 2, "statementTimeoutSeconds": 7}));
    let keep = async || {
        let declared = std::slice::from_ref(&limited);
        short_lived::keep(&superuser.client, server().socket(), &names, declared).await.expect("the logins")
    };
    assert!(keep().await);
    for has_changed in [true, false] {
        let kept = engine::keep(&superuser.client, &names, &[&limited]).await.expect("the client");
        assert_eq!(kept, has_changed, "Vault makes other logins once");
    }
    let third = "servicedb.vault-reader.cccccccccccccccc";
    vault.client.batch_execute(&make(CLIENT, third, SOON)).await.expect("a login");
    let settings = format!("role={},statement_timeout=7s", names.client(CLIENT));
    let shown = "SELECT r.rolconnlimit || ' ' || array_to_string(s.setconfig, ',')
                 FROM pg_roles r JOIN pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0
                 WHERE starts_with(r.rolname, 'servicedb.')";
    assert_eq!(query(&superuser, shown).await, [(); 3].map(|()| format!("2 {settings}")));

    // One with a right of its own cannot be dropped, and then cannot log in.
    let depends = format!("ALTER DEFAULT PRIVILEGES FOR ROLE \"{other}\" GRANT SELECT ON TABLES TO {}", names.app());
    let tenant = server().connect(&names.database, "postgres").await;
    tenant.client.batch_execute(&depends).await.expect("a right");
    vault.client.batch_execute(&format!("SELECT servicedb.remove_login('{other}')")).await.expect("its end");
    let refused = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'servicedb.') AND NOT rolcanlogin";
    assert_eq!(query(&superuser, refused).await, [other]);
    // And one that somebody made a member of another role.
    let grant = format!("GRANT {} TO \"{third}\"", names.app());
    superuser.client.batch_execute(&grant).await.expect("a membership");
    assert!(keep().await);
    assert_eq!(logins(&superuser).await, [LOGIN]);
    drop(vault);
    closed(&superuser, &names).await;
}

/// With any version of PostgreSQL: none of these reaches a membership.
#[tokio::test]
async fn what_vaults_login_sets_in_its_session_opens_no_other_role_to_it() {
    let _alone = CLIENTS.lock().await;
    let (names, _owner) = tenant("snared_db", &[]).await;
    let superuser = superuser().await;
    engine::prepare(&superuser.client).await.expect("the functions");
    let note = format!(
        "INSERT INTO servicedb.short_lived VALUES ('{CLIENT}', '{}', '{}', -1, NULL, 4200, 500);
         ALTER ROLE servicedb_vault LOGIN; CREATE ROLE \"{LOGIN}\" LOGIN",
        names.client(CLIENT),
        names.clients()
    );
    superuser.client.batch_execute(&note).await.expect("a client");
    let vault = server().connect("postgres", "servicedb_vault").await;
    vault.client.batch_execute(TRAPS).await.expect("a session");
    // Other tests make others of the agent's roles meanwhile.
    let all = "SELECT rolname, rolcanlogin, rolvaliduntil FROM pg_roles
               WHERE rolname IN ('servicedb_replicator', 'servicedb_reader', 'servicedb_vault2')
                     OR starts_with(rolname, 'servicedb.')
               ORDER BY rolname";
    let before = query(&superuser, all).await;

    let renew = |login: &str| format!("SELECT servicedb.renew_login('{CLIENT}', '{login}', {SOON})");
    for role in ["servicedb_replicator", PostgresNames::READER, "servicedb_vault2", "servicedb_a_b"] {
        expect_refusal(&vault, &format!("SELECT servicedb.remove_login('{role}')"), "42602").await;
        expect_refusal(&vault, &renew(role), "42501").await;
        expect_refusal(&vault, &make(CLIENT, role, SOON), "42602").await;
    }
    // PostgreSQL would hash each as a password: the first has a salt of no length, the keys of the other are too short.
    let other = "servicedb.vault-reader.bbbbbbbbbbbbbbbb";
    for keys in [format!("c2FsdA=${KEY}:{KEY}"), "c2FsdA==$c2FsdA==:c2FsdA==".to_owned()] {
        let refused =
            format!("SELECT servicedb.make_login('{CLIENT}', '{other}', 'SCRAM-SHA-256$4096:{keys}', {SOON})");
        expect_refusal(&vault, &refused, "28P01").await;
    }
    // A transaction that could see a client after its removal.
    for refused in [renew(LOGIN), make(CLIENT, other, SOON)] {
        vault.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("a transaction");
        expect_refusal(&vault, &refused, "25000").await;
        vault.client.batch_execute("ROLLBACK").await.expect("its end");
    }
    assert_eq!(query(&superuser, all).await, before);

    vault.client.batch_execute(&renew(LOGIN)).await.expect("a renewal");
    let valid = format!(
        "SELECT rolvaliduntil BETWEEN now() + interval '59 min' AND now() + interval '61 min' FROM pg_roles
         WHERE rolname = '{LOGIN}'"
    );
    assert_eq!(query(&superuser, &valid).await, ["t"]);
    let remove = format!("SELECT servicedb.remove_login('{LOGIN}')");
    vault.client.batch_execute(&remove).await.expect("its end");
    assert_eq!(logins(&superuser).await, [""; 0]);

    // A request that has begun does not outlive the client; a session without one does.
    let busy = server().connect("postgres", "servicedb_vault").await;
    busy.client.batch_execute(&format!("BEGIN; {remove}")).await.expect("a transaction");
    engine::forget(&superuser.client, CLIENT).await.expect("the client's end");
    assert!(busy.client.batch_execute("COMMIT").await.is_err(), "it goes on");
    expect_refusal(&vault, &make(CLIENT, other, SOON), "42501").await;

    drop((busy, vault));
    let functions = [PostgresNames::MAKE_LOGIN, PostgresNames::RENEW_LOGIN, PostgresNames::REMOVE_LOGIN].join(", ");
    let close = format!("DROP FUNCTION {functions}; ALTER ROLE servicedb_vault NOLOGIN");
    superuser.client.batch_execute(&close).await.expect("the end");
}
