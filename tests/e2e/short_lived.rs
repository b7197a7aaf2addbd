//! Clients with short-lived logins: Vault makes them, they have the client's rights and no others, and they end, with
//! their sessions, by their lease and with the client.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::postgres::Connection;

use crate::harness::{
    Credentials, READY, SOON, Sandbox, column, config_map, database, login_at, plugin, plugin_with, pooler_address,
    run, service_account, shared, sqlstate, until,
};
use crate::isolation::token;
use crate::pooler;

/// The lifetime of the reader's logins, in seconds: the shortest.
const TTL: u64 = 60;
/// What the message about a refused request for a login begins with.
const REFUSED: &str = "Vault refuses";
/// After its end Vault has removed a login, and the agents have ended its sessions.
const ENDED: Duration = Duration::from_secs(TTL + 30);

const NOTES: [(&str, &str); 1] = [(
    "1_notes.up.sql",
    "CREATE TABLE notes (id int PRIMARY KEY, body text NOT NULL, is_secret boolean NOT NULL);
     INSERT INTO notes VALUES (1, 'open', false), (2, 'secret', true);",
)];

fn spec(clients: &[Value]) -> Value {
    let pooler = json!({"instances": 1, "poolSize": 5, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
    let migrations = json!({"source": {"configMap": {"name": "migrations"}}});
    json!({"instances": 2, "pooler": pooler, "migrations": migrations, "clients": clients})
}

fn clients() -> [Value; 2] {
    let lifetimes = json!({"ttlSeconds": TTL, "maxTtlSeconds": TTL});
    let grants = json!([{"tables": ["notes"], "privileges": ["SELECT"], "rowPolicy": "NOT is_secret"}]);
    [
        json!({"serviceAccountName": "reader", "access": {"mode": "ReadOnly", "dynamic": lifetimes}}),
        json!({"serviceAccountName": "picker", "access": {"mode": "Custom", "grants": grants, "dynamic": {}}}),
    ]
}

/// A login that Vault makes for the client's ServiceAccount, with the token that asked for it.
async fn from_vault(sandbox: &Sandbox, client: &str) -> Result<(Credentials, String), String> {
    let (names, vault) = (sandbox.vault_names("shop"), sandbox.vault());
    let jwt = token(sandbox, &sandbox.namespace, client).await;
    let auth = vault.kubernetes_login(&names.own_client(client), &jwt).await;
    let auth = auth.map_err(|status| format!("Vault refuses the login: {status}"))?;
    let token = auth["client_token"].as_str().expect("a token").to_owned();
    Ok((with_token(sandbox, client, &token).await?, token))
}

/// The same with a token that is there.
async fn with_token(sandbox: &Sandbox, client: &str, token: &str) -> Result<Credentials, String> {
    let path = format!("database/creds/{}", sandbox.vault_names("shop").engine_role(client));
    let answer = sandbox.vault().ask(Method::GET, &path, Some(token), None).await?;
    if answer.status != 200 {
        return Err(format!("{REFUSED} {path}: {} {}", answer.status, answer.body["errors"]));
    }
    let text = |key: &str| answer.body["data"][key].as_str().expect("a text").to_owned();
    // Where the server is is no secret: it is the same for all.
    let shared = sandbox.credentials("shop").await;
    Ok(Credentials { user: text("username"), password: text("password"), ..shared })
}

/// The login of its own that Vault has.
async fn engine_login(sandbox: &Sandbox) -> String {
    let path = format!("database/config/{}", sandbox.vault_names("shop").engine_connection());
    let connection = sandbox.vault().read(&path).await.expect("the connection");
    connection["connection_details"]["username"].as_str().expect("a login").to_owned()
}

/// What the superuser's statements print, in the database `postgres` of the primary; an error is its text.
async fn as_superuser(sandbox: &Sandbox, statements: &str) -> Result<String, String> {
    let script = format!("psql -XqAt -v ON_ERROR_STOP=1 -d postgres <<'SQL'\n{statements}\nSQL");
    let output = sandbox.exec(&sandbox.primary("shop").await, &script).await;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

async fn connect(sandbox: &Sandbox, credentials: &Credentials) -> Connection {
    sandbox.login("shop", credentials).await.unwrap_or_else(|error| panic!("{}: {error}", credentials.user))
}

async fn is_allowed(connection: &Connection, sql: &str) -> bool {
    match run(connection, sql).await {
        Ok(_) => true,
        Err(refusal) if refusal.sqlstate.as_deref() == Some("42501") => false,
        Err(refusal) => panic!("{sql}: {refusal:?}"),
    }
}

#[test]
fn logins_come_from_vault_and_end_with_their_lease() {
    shared("short-lived", async |sandbox| {
        sandbox.create(config_map("migrations", &NOTES)).await;
        for account in ["reader", "picker"] {
            sandbox.create(service_account(account)).await;
        }
        sandbox.create(database("shop", spec(&clients()))).await;
        let status = sandbox.ready("shop", READY).await.status.expect("a status");
        for client in &status.clients {
            let path = format!("database/creds/{}", sandbox.vault_names("shop").engine_role(&client.name));
            assert_eq!((client.dynamic, client.generation, &client.vault_path), (Some(true), 0, &path), "{client:?}");
        }
        // It ends while the rest goes on.
        let (expiring, token) = from_vault(&sandbox, "reader").await.expect("a login");
        let since = Instant::now();
        let session = connect(&sandbox, &expiring).await;
        rights(&sandbox, &session, &token).await;
        through_the_pooler(&sandbox).await;
        a_person_logs_in(&sandbox).await;
        vault_makes_nothing_else(&sandbox).await;
        no_request_meets_a_changing_password(&sandbox).await;
        survives_a_switchover(&sandbox).await;
        limits_reach_a_login_that_is_there(&sandbox).await;
        removed(&sandbox).await;
        ended(&sandbox, &expiring, since).await;
    });
}

/// Those of the client, and nothing by which it could get others.
async fn rights(sandbox: &Sandbox, reader: &Connection, token: &str) {
    let ids = until("the reader may read", SOON, || async {
        column(reader, "SELECT id FROM notes ORDER BY id").await.map_err(|refusal| format!("{refusal:?}"))
    })
    .await;
    assert_eq!(ids, ["1", "2"]);
    for sql in [
        "INSERT INTO notes VALUES (3, 'x', false)",
        "CREATE TABLE mine (id int)",
        "CREATE ROLE intruder",
        "SET ROLE servicedb_vault",
        "SET ROLE shop_db_clients",
        "SET ROLE shop_db_c_picker",
    ] {
        assert!(!is_allowed(reader, sql).await, "{sql}");
    }
    let (picker, _) = from_vault(sandbox, "picker").await.expect("a login");
    let picker = connect(sandbox, &picker).await;
    assert_eq!(column(&picker, "SELECT id FROM notes").await.expect("notes"), ["1"], "its row policy");
    let names = sandbox.vault_names("shop");
    for path in [
        format!("database/creds/{}", names.engine_role("picker")),
        format!("database/config/{}", names.engine_connection()),
        format!("secret/data/{}", names.runtime()),
    ] {
        assert_eq!(sandbox.vault().status_with(token, Method::GET, &path, None).await, 403, "{path}");
    }
}

/// PgBouncer finds the verifier of a login that did not exist when it started.
async fn through_the_pooler(sandbox: &Sandbox) {
    let (address, host) = pooler_address(sandbox).await;
    let (login, _) = from_vault(sandbox, "picker").await.expect("a login");
    let session = until("a login through the pooler", SOON, || async {
        login_at(address, &host, &login).await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(column(&session, "SELECT id FROM notes").await.expect("notes"), ["1"], "its row policy");
    assert_eq!(column(&session, "SELECT session_user::text").await.expect("a login"), [login.user.as_str()]);
    let [pod] = <[String; 1]>::try_from(pooler::poolers(sandbox).await).expect("one pod");
    let metrics = pooler::metrics(sandbox, &pod).await;
    let series = r#"servicedb_pooler_clients{database="shop_db",user="servicedb.picker","#;
    assert!(metrics.contains(series) && !metrics.contains(&login.user), "{metrics}");
    let wrong = Credentials { password: "wrong".to_owned(), ..login };
    assert!(login_at(address, &host, &wrong).await.is_err(), "any password is accepted");
}

/// `kubectl servicedb login`, as a person whose token of Vault may get a login, and as one whose token may not.
async fn a_person_logs_in(sandbox: &Sandbox) {
    let (vault, policy) = (sandbox.vault(), format!("e2e-person-of-{}", sandbox.namespace));
    let path = format!("database/creds/{}", sandbox.vault_names("shop").engine_role("picker"));
    let right = format!("path \"{path}\" {{ capabilities = [\"read\"] }}");
    let text = format!("{right}\npath \"sys/leases/revoke\" {{ capabilities = [\"update\"] }}");
    vault.write(&format!("sys/policies/acl/{policy}"), &json!({"policy": text})).await;
    let as_person = async |token: &str, statement: &str| {
        let arguments = ["login", "shop", "--as", "picker", "--", "-XqAt", "-c", statement];
        let output = plugin_with(sandbox, &vault.environment(token), &arguments).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let token = vault.person(&policy).await;
    let statement = "SELECT session_user || ' ' || current_user || ' ' || id FROM notes";
    let (succeeded, shown, told) = as_person(&token, statement).await;
    let login = shown.strip_suffix(" shop_db_c_picker 1").unwrap_or_else(|| panic!("its row policy: {shown}{told}"));
    assert!(succeeded && login.starts_with("servicedb.picker."), "{shown}{told}");
    assert!(told.contains(&format!("logging in as {login}, for ")) && !told.contains("given back"), "{told}");
    // Its lease would last for an hour.
    until("the login is given back", SOON, || async {
        let query = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{login}'");
        match as_superuser(sandbox, &query).await?.as_str() {
            "0" => Ok(()),
            left => Err(left.to_owned()),
        }
    })
    .await;
    let (succeeded, _, told) = as_person(&token, "INSERT INTO notes VALUES (3, 'x', false)").await;
    assert!(!succeeded && told.contains("permission denied for table notes"), "{told}");

    let (succeeded, shown, told) = as_person(&vault.person("no-such-policy").await, statement).await;
    assert!(!succeeded && shown.is_empty(), "{shown}");
    assert!(told.contains("Vault denied it") && told.contains(&right), "{told}");
    vault.delete(&format!("sys/policies/acl/{policy}")).await;
}

/// Whoever has the password of Vault's login has no right but to make logins of these clients.
async fn vault_makes_nothing_else(sandbox: &Sandbox) {
    let engine = engine_login(sandbox).await;
    let key = "c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHQ=";
    let verifier = format!("SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==${key}:{key}");
    let make = |client: &str, login: &str, until: &str| {
        format!("SELECT servicedb.make_login('{client}', '{login}', '{verifier}', {until})")
    };
    let soon = "now() + interval '30 s'";
    for refused in [
        "CREATE ROLE intruder".to_owned(),
        "DROP ROLE shop_db_clients".to_owned(),
        "ALTER ROLE shop_db_c_picker RENAME TO other".to_owned(),
        "GRANT shop_db_c_picker TO shop_a".to_owned(),
        "SET ROLE shop_db_c_picker".to_owned(),
        "INSERT INTO servicedb.short_lived VALUES ('x', 'shop_db_owner', 'shop_db_clients', 1, NULL, 60, 1)".to_owned(),
        "SELECT servicedb.remove_login('shop_a')".to_owned(),
        "SET standard_conforming_strings = off;\nSELECT servicedb.remove_login('servicedb_replicator')".to_owned(),
        "SELECT servicedb.renew_login('picker', 'shop_a', now() + interval '30 s')".to_owned(),
        make("picker", "shop_intruder", soon),
        make("picker", "servicedb.picker-2.aaaaaaaaaaaaaaaa", soon),
        make("other", "servicedb.other.aaaaaaaaaaaaaaaa", soon),
        make("picker", "servicedb.picker.aaaaaaaaaaaaaaaa", "'infinity'"),
        make("reader", "servicedb.reader.aaaaaaaaaaaaaaaa", "now() + interval '1 day'"),
    ] {
        let done = as_superuser(sandbox, &format!("SET SESSION AUTHORIZATION {engine};\n{refused};")).await;
        let refusal = done.err().unwrap_or_else(|| panic!("{refused}: it is allowed"));
        let is_right = ["permission denied", "not the name", "not a login", "has no short-lived", "cannot be valid"];
        assert!(is_right.iter().any(|part| refusal.contains(part)), "{refused}: {refusal}");
    }
    let login = "servicedb.picker.aaaaaaaaaaaaaaaa";
    let made = format!(
        "SET SESSION AUTHORIZATION {engine};\n{};\nSELECT servicedb.remove_login('{login}');",
        make("picker", login, soon)
    );
    as_superuser(sandbox, &made).await.expect("a login as Vault makes it");
}

/// Vault goes on with the login that it has until it has proved the other.
async fn no_request_meets_a_changing_password(sandbox: &Sandbox) {
    let (_, token) = from_vault(sandbox, "picker").await.expect("a login");
    let before = engine_login(sandbox).await;
    let change = async {
        let output = plugin(sandbox, &["rotate", "shop"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let requests = until("Vault has the other login", READY, || async {
        match with_token(sandbox, "picker", &token).await {
            Err(error) if error.starts_with(REFUSED) => panic!("{error}"),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        if engine_login(sandbox).await == before { Err("it has the former one".to_owned()) } else { Ok(()) }
    });
    tokio::join!(change, requests);
    until("the former login is refused", SOON, || async {
        let query = format!("SELECT rolcanlogin OR rolpassword IS NOT NULL FROM pg_authid WHERE rolname = '{before}'");
        match as_superuser(sandbox, &query).await?.as_str() {
            "f" => Ok(()),
            found => Err(found.to_owned()),
        }
    })
    .await;
    with_token(sandbox, "picker", &token).await.expect("a login by the other one");
}

/// A changed limit is that of the logins that exist, too.
async fn limits_reach_a_login_that_is_there(sandbox: &Sandbox) {
    let (login, _) = from_vault(sandbox, "picker").await.expect("a login");
    let [reader, mut picker] = clients();
    picker["connectionLimit"] = 1.into();
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"clients": [reader, picker]}})).await;
    until("the login has the limit", SOON, || async {
        let query = format!("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{}'", login.user);
        match as_superuser(sandbox, &query).await?.as_str() {
            "1" => Ok(()),
            found => Err(found.to_owned()),
        }
    })
    .await;
    let _first = connect(sandbox, &login).await;
    let second = sandbox.login("shop", &login).await.err().expect("a second session is refused");
    assert_eq!(sqlstate(&second).as_deref(), Some("53300"), "{second}");
    let (next, _) = from_vault(sandbox, "picker").await.expect("a login");
    // From the start, or from the same change on if Vault made it meanwhile.
    until("a new login has the limit", SOON, || async {
        let query = format!("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{}'", next.user);
        match as_superuser(sandbox, &query).await?.as_str() {
            "1" => Ok(()),
            found => Err(found.to_owned()),
        }
    })
    .await;
}

/// Vault follows the primary: its login has a new password there.
async fn survives_a_switchover(sandbox: &Sandbox) {
    let output = plugin(sandbox, &["switchover", "shop"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let login = until("a login on the next primary", READY, || async { from_vault(sandbox, "picker").await }).await.0;
    let session = connect(sandbox, &login).await;
    assert_eq!(column(&session, "SELECT id FROM notes").await.expect("notes"), ["1"]);
}

/// A removed client is refused by Vault and PostgreSQL within seconds, and its session ends.
async fn removed(sandbox: &Sandbox) {
    let (login, token) = from_vault(sandbox, "picker").await.expect("a login");
    let session = connect(sandbox, &login).await;
    // Each login may have one session.
    let (by_pooler, _) = from_vault(sandbox, "picker").await.expect("a login");
    let (address, host) = pooler_address(sandbox).await;
    let pooled = until("a session through the pooler", SOON, || async {
        let session = login_at(address, &host, &by_pooler).await.map_err(|error| error.to_string())?;
        match column(&session, "SELECT id FROM notes").await {
            Ok(ids) if ids == ["1"] => Ok(session),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let [reader, _] = clients();
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"clients": [reader]}})).await;
    refused(sandbox, &login, Duration::from_secs(15)).await;
    until("its session ends", Duration::from_secs(10), || async {
        if run(&session, "SELECT 1").await.is_err() { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
    // The pooler keeps neither a connection to PostgreSQL nor the verifier of a login that is gone.
    until("the pooler serves its session no longer", SOON, || async {
        if run(&pooled, "SELECT 1").await.is_err() { Ok(()) } else { Err("it is served".to_owned()) }
    })
    .await;
    assert!(login_at(address, &host, &by_pooler).await.is_err(), "the pooler admits a login that is gone");
    let names = sandbox.vault_names("shop");
    let path = format!("database/creds/{}", names.engine_role("picker"));
    assert_eq!(sandbox.vault().status_with(&token, Method::GET, &path, None).await, 403, "a token from before");
    until("its role of the engine is gone", SOON, || async {
        let role = sandbox.vault().read(&format!("database/roles/{}", names.engine_role("picker"))).await;
        if role.is_none() { Ok(()) } else { Err("it is there".to_owned()) }
    })
    .await;
}

/// By the end of its lease the login is refused, and nothing is left of it.
async fn ended(sandbox: &Sandbox, login: &Credentials, since: Instant) {
    let bound = ENDED.saturating_sub(since.elapsed()).max(Duration::from_secs(5));
    refused(sandbox, login, bound).await;
    let query = format!(
        "SELECT count(*) FROM pg_roles WHERE rolname = '{user}' \
         UNION ALL SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}' OR usesysid IS NOT NULL AND usename IS NULL",
        user = login.user
    );
    until("nothing is left of an expired login", SOON, || async {
        let output = plugin(sandbox, &["psql", "shop", "--superuser", "--", "-XqAt", "-c", &query]).await;
        let left = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if left == "0\n0" { Ok(()) } else { Err(left) }
    })
    .await;
}

async fn refused(sandbox: &Sandbox, login: &Credentials, bound: Duration) {
    until("PostgreSQL refuses the login", bound, || async {
        match sandbox.login("shop", login).await {
            Err(error) if sqlstate(&error).as_deref().is_some_and(|code| code.starts_with("28")) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("PostgreSQL accepts it".to_owned()),
        }
    })
    .await;
}
