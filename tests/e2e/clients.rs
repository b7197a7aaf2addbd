//! Clients that have a login of their own: every entry of a matrix in both directions, rotation, removal, and the change
//! from the shared login and back.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use servicedb::api::names::{ANNOTATION_ROTATE, ANNOTATION_ROTATE_CLIENT};
use servicedb::api::{ClientStatus, ServiceDatabase};
use servicedb::postgres::Connection;

use crate::harness::{
    Credentials, READY, SOON, Sandbox, column, config_map, database, plugin, run, service_account, shared, sqlstate,
    until,
};
use crate::isolation::token;
use crate::pod_log;

/// The services of examples/files, and what each may do: statements by their names below.
const MAY: [(&str, &[&str]); 6] = [
    ("auth", &["users.select", "users.select_id", "users.insert", "users.update"]),
    (
        "picker",
        &[
            "users.select_id",
            "files.select",
            "files.select_path",
            "files.insert",
            "files.update",
            "files.update_path",
            "permissions.select",
            "permissions.insert",
        ],
    ),
    ("downloader", &["files.select_path"]),
    ("transformation", &["files.select_path", "files.update_path", "jobs.select", "jobs.insert", "jobs.update"]),
    ("permission", &["permissions.select", "permissions.insert", "permissions.update"]),
    ("notification", &["notifications.select", "notifications.insert", "notifications.update"]),
];

/// Every statement that somebody may or may not run; each is rolled back.
const STATEMENTS: [(&str, &str); 28] = [
    ("users.select", "SELECT * FROM users"),
    ("users.select_id", "SELECT id, role FROM users"),
    (
        "users.insert",
        "INSERT INTO users (username, email, password) VALUES ('eve', 'eve@example.com', '$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$c29tZWhhc2hzb21laGFzaHNvbWVoYXNo')",
    ),
    ("users.update", "UPDATE users SET role = 'editor' WHERE id = 1"),
    ("users.delete", "DELETE FROM users WHERE id = -1"),
    ("users.truncate", "TRUNCATE users CASCADE"),
    ("files.select", "SELECT * FROM files"),
    ("files.select_path", "SELECT file_path FROM files WHERE id = 'one'"),
    ("files.insert", "INSERT INTO files (id, file_name, file_path, owner_id) VALUES ('two', 'two', '/two', 1)"),
    ("files.update", "UPDATE files SET is_shared = true, owner_id = 1 WHERE id = 'one'"),
    ("files.update_path", "UPDATE files SET file_path = '/other' WHERE id = 'one'"),
    ("files.delete", "DELETE FROM files WHERE id = 'none'"),
    ("files.truncate", "TRUNCATE files CASCADE"),
    ("permissions.select", "SELECT * FROM permissions"),
    (
        "permissions.insert",
        "INSERT INTO permissions (user_id, file_id, permission, granted_by) VALUES (2, 'one', 'write', 1)",
    ),
    ("permissions.update", "UPDATE permissions SET permission = 'delete' WHERE user_id = 2"),
    ("permissions.delete", "DELETE FROM permissions WHERE id = -1"),
    ("permissions.truncate", "TRUNCATE permissions"),
    ("jobs.select", "SELECT * FROM transformation_jobs"),
    ("jobs.insert", "INSERT INTO transformation_jobs (file_id, transformation_type) VALUES ('one', 'ocr')"),
    ("jobs.update", "UPDATE transformation_jobs SET status = 'running' WHERE id = -1"),
    ("jobs.delete", "DELETE FROM transformation_jobs WHERE id = -1"),
    ("notifications.select", "SELECT * FROM notifications"),
    ("notifications.insert", "INSERT INTO notifications (user_id, message) VALUES (1, 'hello')"),
    ("notifications.update", "UPDATE notifications SET status = 'sent' WHERE id = -1"),
    ("notifications.delete", "DELETE FROM notifications WHERE id = -1"),
    ("create.table", "CREATE TABLE mine (id int)"),
    ("create.large_object", "SELECT lo_create(0)"),
];

/// Rows that the statements need.
const ROWS: &str = "\
INSERT INTO users (username, email, password) SELECT name, name || '@example.com',
    '$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$c29tZWhhc2hzb21laGFzaHNvbWVoYXNo' FROM (VALUES ('ada'), ('bob')) n (name);
INSERT INTO files (id, file_name, file_path, owner_id) VALUES ('one', 'one', '/one', 1);
INSERT INTO permissions (user_id, file_id, permission, granted_by) VALUES (2, 'one', 'read', 1);";

fn example(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/files").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn migrations() -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/files/migrations");
    let files: Vec<_> = std::fs::read_dir(folder)
        .expect("the migrations")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
        .map(|name| (name.clone(), example(&format!("migrations/{name}"))))
        .collect();
    config_map("files-migrations", &files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>())
}

async fn as_owner(sandbox: &Sandbox, name: &str, sql: &str) -> String {
    let output = plugin(sandbox, &["psql", name, "--", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]).await;
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Logs in to Vault as the client's ServiceAccount, and to PostgreSQL with what it reads there.
async fn connect(sandbox: &Sandbox, name: &str, client: &str) -> Connection {
    let names = sandbox.vault_names(name);
    let jwt = token(sandbox, &sandbox.namespace, client).await;
    let auth = sandbox.vault().kubernetes_login(&names.own_client(client), &jwt).await;
    let auth = auth.unwrap_or_else(|status| panic!("{client} cannot log in to Vault: {status}"));
    let token = auth["client_token"].as_str().expect("a token");
    for (path, wanted) in [
        (names.client_runtime(client), 200),
        (names.client_pending(client), 403),
        (names.runtime(), 403),
        (names.client_runtime("nobody"), 403),
    ] {
        let path = format!("secret/data/{path}");
        let status = sandbox.vault().status_with(token, reqwest::Method::GET, &path, None).await;
        assert_eq!(status, wanted, "{client}: {path}");
    }
    let (_, credentials) = sandbox.credentials_of(name, client).await;
    sandbox.login(name, &credentials).await.unwrap_or_else(|error| panic!("{client}: {error}"))
}

/// Runs a statement and rolls it back; whether it was allowed.
async fn is_allowed(connection: &Connection, sql: &str) -> bool {
    let result = run(connection, &format!("BEGIN; {sql}")).await;
    let _ = run(connection, "ROLLBACK").await;
    match result {
        Ok(_) => true,
        Err(refusal) if refusal.sqlstate.as_deref() == Some("42501") => false,
        Err(refusal) => panic!("{sql}: {refusal:?}"),
    }
}

async fn client_status(sandbox: &Sandbox, name: &str, client: &str) -> Option<ClientStatus> {
    sandbox.get(name).await.status?.clients.into_iter().find(|status| status.name == client)
}

#[test]
fn each_service_may_do_what_the_matrix_says_and_nothing_else() {
    shared("matrix", async |sandbox| {
        sandbox.create(migrations()).await;
        for (service, _) in MAY {
            sandbox.create(service_account(service)).await;
        }
        let declared: Value = serde_yaml::from_str(&example("servicedatabase.yaml")).expect("the example");
        sandbox.create(database("files", declared["spec"].clone())).await;
        sandbox.ready("files", READY).await;
        as_owner(&sandbox, "files", ROWS).await;
        matches(&sandbox).await;
        let mut mistakes = Vec::new();
        for (service, may) in MAY {
            let connection = connect(&sandbox, "files", service).await;
            for (name, sql) in STATEMENTS {
                let (is, wanted) = (is_allowed(&connection, sql).await, may.contains(&name));
                if is != wanted {
                    mistakes.push(format!("{service} {} {name}", if is { "may" } else { "may not" }));
                }
            }
        }
        assert!(mistakes.is_empty(), "{mistakes:?}");
        printed(&sandbox).await;
        a_right_by_hand_is_told_and_taken_back(&sandbox).await;
        no_drift_of_the_schema(&sandbox).await;
    });
}

async fn matches(sandbox: &Sandbox) {
    sandbox
        .wait("the rights are the declared ones", "files", SOON, |database| {
            let clients = database.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
            clients.len() == MAY.len() && clients.iter().all(|client| client.rights == "Applied")
        })
        .await;
}

async fn printed(sandbox: &Sandbox) {
    let output = plugin(sandbox, &["access", "files", "-o", "markdown"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("| table | auth | picker | downloader | transformation | permission | notification |"),
        "{text}"
    );
    assert!(text.contains("SELECT (id, file_path)"), "{text}");
    let cells = text.lines().skip(2).take_while(|line| line.starts_with('|'));
    assert_eq!(cells.filter(|line| line.contains("DELETE")).count(), 0, "{text}");
}

async fn a_right_by_hand_is_told_and_taken_back(sandbox: &Sandbox) {
    as_owner(sandbox, "files", "GRANT DELETE ON users TO files_db_c_downloader").await;
    let told = |rights: &'static str| {
        move |database: &ServiceDatabase| {
            let clients = database.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
            clients.iter().any(|client| client.name == "downloader" && client.rights == rights)
        }
    };
    sandbox.wait("the right by hand is told", "files", READY, told("GrantDrift")).await;
    let output = plugin(sandbox, &["access", "files"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("not declared: DELETE on public.users"), "{text}");
    let patch = json!({"spec": {"credentials": {"undeclaredRights": "Revoke"}}});
    sandbox.patch::<ServiceDatabase>("files", &patch).await;
    sandbox.wait("it is taken back", "files", READY, told("Applied")).await;
    let connection = connect(sandbox, "files", "downloader").await;
    assert!(!is_allowed(&connection, "DELETE FROM users WHERE id = -1").await);
}

async fn no_drift_of_the_schema(sandbox: &Sandbox) {
    let output = plugin(sandbox, &["drift", "files"]).await;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("the schema matches"), "{text}");
}

const TWO: [(&str, &str); 1] = [(
    "1_notes.up.sql",
    "CREATE TABLE notes (id int PRIMARY KEY, body text NOT NULL, is_secret boolean NOT NULL);
     INSERT INTO notes VALUES (1, 'open', false), (2, 'secret', true);",
)];

fn spec(clients: Value) -> Value {
    json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}, "clients": clients})
}

fn reader() -> Value {
    let grants = json!([
        {"tables": ["notes"], "privileges": ["SELECT"], "rowPolicy": "NOT is_secret"},
        {"tables": ["later"], "privileges": ["SELECT"]}
    ]);
    json!({"serviceAccountName": "reader", "access": {"mode": "Custom", "grants": grants}})
}

#[test]
fn clients_come_rotate_and_go() {
    shared("clients", async |sandbox| {
        sandbox.create(config_map("migrations", &TWO)).await;
        for account in ["shop", "reader", "writer"] {
            sandbox.create(service_account(account)).await;
        }
        let writer = json!({"serviceAccountName": "writer", "access": {"mode": "ReadWrite"}, "connectionLimit": 3});
        let shop = json!({"serviceAccountName": "shop"});
        sandbox.create(database("shop", spec(json!([shop, reader(), writer])))).await;
        sandbox.ready("shop", READY).await;
        limited_to_rows(&sandbox).await;
        a_later_table_is_granted(&sandbox).await;
        shown(&sandbox).await;
        audited(&sandbox).await;
        limited(&sandbox, &json!([shop, reader()]), &writer).await;
        rotated(&sandbox).await;
        from_another_namespace(&sandbox, &json!([shop, reader(), writer])).await;
        of_one_name(&sandbox, &json!([shop, reader(), writer])).await;
        moved(&sandbox, &writer).await;
        removed(&sandbox, &shop).await;
    });
}

async fn limited_to_rows(sandbox: &Sandbox) {
    let reader = connect(sandbox, "shop", "reader").await;
    // The right to a table that a migration has just made follows it; it never comes without its policy.
    let rows = until("the reader may read", SOON, || async {
        column(&reader, "SELECT id FROM notes").await.map_err(|refusal| format!("{refusal:?}"))
    })
    .await;
    assert_eq!(rows, ["1"]);
    assert!(!is_allowed(&reader, "INSERT INTO notes VALUES (3, 'x', false)").await);
    for all in [connect(sandbox, "shop", "writer").await, sandbox.connect("shop").await] {
        assert_eq!(column(&all, "SELECT id FROM notes ORDER BY id").await.expect("notes"), ["1", "2"]);
        assert!(is_allowed(&all, "DELETE FROM notes").await);
    }
}

async fn a_later_table_is_granted(sandbox: &Sandbox) {
    let before = client_status(sandbox, "shop", "reader").await.expect("the reader");
    assert_eq!(before.rights, "GrantPending", "{before:?}");
    assert!(before.message.is_some_and(|message| message.contains("public.later does not exist")));
    let later = ("2_later.up.sql", "CREATE TABLE later (id int)");
    let data: serde_json::Map<_, _> =
        [TWO[0], later].iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    sandbox.patch::<k8s_openapi::api::core::v1::ConfigMap>("migrations", &json!({"data": data})).await;
    sandbox
        .wait("the rights on a later table", "shop", READY, |database| {
            let status = database.status.as_ref();
            status.is_some_and(|status| {
                status.schema_version.as_deref() == Some("2")
                    && status.clients.iter().all(|client| client.rights == "Applied")
            })
        })
        .await;
    let (reader, writer) = (connect(sandbox, "shop", "reader").await, connect(sandbox, "shop", "writer").await);
    assert!(
        is_allowed(&reader, "SELECT * FROM later").await && is_allowed(&writer, "INSERT INTO later VALUES (1)").await
    );
}

/// In the status that people read.
async fn shown(sandbox: &Sandbox) {
    let output = plugin(sandbox, &["status", "shop"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    for (client, access, rights) in
        [("shop", "Shared", "all data"), ("reader", "Custom", "Applied"), ("writer", "ReadWrite", "Applied")]
    {
        let has =
            |line: &str| line.trim().starts_with(client) && line.contains(access) && line.trim().ends_with(rights);
        assert!(text.lines().any(has), "{client}: {text}");
    }
}

/// A line of the audit has the login, and thereby the client.
async fn audited(sandbox: &Sandbox) {
    let classes = |classes: Value| json!({"spec": {"audit": {"classes": classes}}});
    sandbox.patch::<ServiceDatabase>("shop", &classes(json!(["Write"]))).await;
    let (writer, primary) = (connect(sandbox, "shop", "writer").await, sandbox.primary("shop").await);
    let login = column(&writer, "SELECT session_user::text").await.expect("a login").remove(0);
    assert!(login.starts_with("shop_c_writer_"), "{login}");
    until("the client's INSERT is audited", SOON, || async {
        let insert = "INSERT INTO notes SELECT -1, 'audited', false WHERE false";
        run(&writer, insert).await.map_err(|refusal| format!("{refusal:?}"))?;
        let lines = pod_log::lines(&pod_log::text(sandbox, &primary).await)?;
        let is_its = |line: &&Value| {
            let message = line["message"].as_str().unwrap_or_default();
            line["audit"] == true && line["user"] == login.as_str() && message.contains(",WRITE,INSERT,")
        };
        lines.iter().find(is_its).map(|_| ()).ok_or_else(|| "no line yet".to_owned())
    })
    .await;
    sandbox.patch::<ServiceDatabase>("shop", &classes(Value::Null)).await;
}

/// One session more than a client may have is refused, and a statement that takes longer than it may is cancelled;
/// those of others are not.
async fn limited(sandbox: &Sandbox, others: &Value, writer: &Value) {
    let (_, writes) = sandbox.credentials_of("shop", "writer").await;
    let (_, reads) = sandbox.credentials_of("shop", "reader").await;
    let another = async || {
        // Sessions that were closed just now may not have ended.
        until("a session within the limit", SOON, || async {
            sandbox.login("shop", &writes).await.map_err(|error| error.to_string())
        })
        .await
    };
    let mut sessions = vec![another().await, another().await, another().await];
    let refusal = sandbox.login("shop", &writes).await.err().expect("a fourth session is refused");
    assert_eq!(sqlstate(&refusal).as_deref(), Some("53300"), "{refusal}");
    let reader = sandbox.login("shop", &reads).await.expect("the limit is that of one client");
    sessions.pop();
    sessions.push(another().await);

    let mut in_haste = writer.clone();
    in_haste["statementTimeoutSeconds"] = json!(3);
    let with = |writer: &Value| {
        let mut clients = others.as_array().expect("clients").clone();
        clients.push(writer.clone());
        json!({"spec": {"clients": clients}})
    };
    sandbox.patch::<ServiceDatabase>("shop", &with(&in_haste)).await;
    drop(sessions);
    let session = until("its sessions have the timeout", SOON, || async {
        let session = sandbox.login("shop", &writes).await.map_err(|error| error.to_string())?;
        match column(&session, "SHOW statement_timeout").await {
            Ok(shown) if shown == ["3s"] => Ok(session),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let cancelled = run(&session, "SELECT pg_sleep(30)").await.expect_err("a statement of 30 s is cancelled");
    assert_eq!(cancelled.sqlstate.as_deref(), Some("57014"), "{cancelled:?}");
    assert!(is_allowed(&session, "INSERT INTO later VALUES (4)").await, "the session goes on");
    for other in [reader, sandbox.connect("shop").await] {
        run(&other, "SELECT pg_sleep(4)").await.expect("the timeout is that of one client");
    }
    sandbox.patch::<ServiceDatabase>("shop", &with(writer)).await;
}

/// One at a time and all; what the record held before still logs in.
async fn rotated(sandbox: &Sandbox) {
    let (first, before) = sandbox.credentials_of("shop", "reader").await;
    let (writers, _) = sandbox.credentials_of("shop", "writer").await;
    let (shared, _) = sandbox.credentials_and_generation("shop").await;
    let patch = json!({"metadata": {"annotations": {ANNOTATION_ROTATE_CLIENT: "reader/one"}}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
    sandbox
        .wait("the client's rotation is answered", "shop", READY, |database| {
            let credentials = database.status.as_ref().and_then(|status| status.credentials.as_ref());
            credentials.and_then(|credentials| credentials.rotate_client_request.as_deref()) == Some("reader/one")
        })
        .await;
    let (second, now) = sandbox.credentials_of("shop", "reader").await;
    assert_eq!((second, now.user == before.user), (first + 1, false));
    for credentials in [&before, &now] {
        sandbox.login("shop", credentials).await.expect("both logins work");
    }
    assert_eq!(sandbox.credentials_of("shop", "writer").await.0, writers, "another client was rotated");
    let patch = json!({"metadata": {"annotations": {ANNOTATION_ROTATE: "all"}}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
    sandbox
        .wait("the rotation of all is answered", "shop", READY, |database| {
            let credentials = database.status.as_ref().and_then(|status| status.credentials.as_ref());
            credentials.and_then(|credentials| credentials.rotate_request.as_deref()) == Some("all")
        })
        .await;
    assert_eq!(sandbox.credentials_of("shop", "reader").await.0, second + 1);
    assert_eq!(sandbox.credentials_of("shop", "writer").await.0, writers + 1);
    assert_eq!(sandbox.credentials_and_generation("shop").await.0, shared + 1);
}

/// The namespace of `dev/values.yaml` that may have clients of others' databases.
const ELSEWHERE: &str = "e2e-clients";

/// A ServiceAccount of this name in the sandbox's namespace, and one in `ELSEWHERE`; returns that namespace, and the
/// ServiceAccounts in it: it stays, and other runs use it, too.
async fn account_in_both(sandbox: &Sandbox, account: &str) -> (String, Api<ServiceAccount>) {
    let elsewhere = sandbox.cluster_namespace(ELSEWHERE).await;
    let object = serde_json::from_value(service_account(account)).expect("a ServiceAccount");
    let accounts: Api<ServiceAccount> = Api::namespaced(sandbox.cluster.client.clone(), &elsewhere);
    accounts.create(&PostParams::default(), &object).await.expect("a ServiceAccount of another namespace");
    sandbox.create(service_account(account)).await;
    (elsewhere, accounts)
}

/// Waits until the client has its login and its rights.
async fn applied(sandbox: &Sandbox, client: &str) {
    until(&format!("the client {client} has its login"), READY, || async {
        match client_status(sandbox, "shop", client).await {
            Some(client) if client.generation > 0 && client.rights == "Applied" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// A client of a namespace that the platform allows, counted while it is connected; and of one that it does not allow.
async fn from_another_namespace(sandbox: &Sandbox, others: &Value) {
    let account = format!("abroad-{}", sandbox.namespace);
    let (elsewhere, accounts) = account_in_both(sandbox, &account).await;
    let with = |namespace: &str| {
        let mut clients = others.as_array().expect("clients").clone();
        clients.push(json!({
            "serviceAccountName": account, "serviceAccountNamespace": namespace, "name": "abroad",
            "access": {"mode": "ReadOnly"}
        }));
        json!({"spec": {"clients": clients}})
    };
    sandbox.patch::<ServiceDatabase>("shop", &with(&elsewhere)).await;
    applied(sandbox, "abroad").await;
    let role = sandbox.vault_names("shop").own_client("abroad");
    for (namespace, may) in [(elsewhere.as_str(), true), (sandbox.namespace.as_str(), false)] {
        let jwt = token(sandbox, namespace, &account).await;
        assert_eq!(sandbox.vault().kubernetes_login(&role, &jwt).await.is_ok(), may, "{namespace}");
    }
    let (_, credentials) = sandbox.credentials_of("shop", "abroad").await;
    let connection = sandbox.login("shop", &credentials).await.expect("the client");
    assert!(is_allowed(&connection, "SELECT * FROM notes").await);
    // At most a minute after the count of ten seconds before.
    until("its session is counted", READY, || async {
        match client_status(sandbox, "shop", "abroad").await.and_then(|client| client.sessions) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    sandbox.patch::<ServiceDatabase>("shop", &with("default")).await;
    let told = sandbox.condition("shop", "CredentialsReady", "False", "ClientNotAllowed", SOON).await;
    assert!(told.message.contains("clients.allowedNamespaces"), "{}", told.message);
    refused(sandbox, "shop", &credentials).await;
    until("its session ends", SOON, || async {
        if connection.is_closed() { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
    let record = sandbox.vault_names("shop").client_runtime("abroad");
    until("its record is gone", SOON, || async {
        if sandbox.vault().record(&record).await.is_none() { Ok(()) } else { Err("it is there".to_owned()) }
    })
    .await;
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"clients": others}})).await;
    sandbox.ready("shop", SOON).await;
    accounts.delete(&account, &DeleteParams::default()).await.expect("the ServiceAccount");
}

/// ServiceAccounts of one name in two namespaces: each logs in to Vault as its own client alone, reads its own record
/// alone and has its own rights; one goes, and the other stays.
async fn of_one_name(sandbox: &Sandbox, others: &Value) {
    let account = format!("twin-{}", sandbox.namespace);
    let (elsewhere, accounts) = account_in_both(sandbox, &account).await;
    let twin = json!({"serviceAccountName": account, "name": "twin", "access": {"mode": "ReadWrite"}});
    let abroad = |name: &str| {
        let account = format!("{elsewhere}/{account}");
        json!({"serviceAccountName": account, "name": name, "access": {"mode": "ReadOnly"}})
    };
    let with = |more: &[&Value]| {
        let mut clients = others.as_array().expect("clients").clone();
        clients.extend(more.iter().map(|client| (*client).clone()));
        json!({"spec": {"clients": clients}})
    };
    sandbox.patch::<ServiceDatabase>("shop", &with(&[&twin, &abroad("twin")])).await;
    let told = sandbox.condition("shop", "Stalled", "True", "InvalidSpec", SOON).await;
    assert!(told.message.contains("two entries with the name twin"), "{}", told.message);
    sandbox.patch::<ServiceDatabase>("shop", &with(&[&twin, &abroad("other-twin")])).await;
    applied(sandbox, "twin").await;
    applied(sandbox, "other-twin").await;

    let (names, vault) = (sandbox.vault_names("shop"), sandbox.vault());
    for (client, namespace, other, may_write) in
        [("twin", sandbox.namespace.as_str(), "other-twin", true), ("other-twin", elsewhere.as_str(), "twin", false)]
    {
        let jwt = token(sandbox, namespace, &account).await;
        let as_other = vault.kubernetes_login(&names.own_client(other), &jwt).await;
        assert!(as_other.is_err(), "{namespace}/{account} logs in to Vault as {other}");
        let auth = vault.kubernetes_login(&names.own_client(client), &jwt).await;
        let auth = auth.unwrap_or_else(|status| panic!("{client} cannot log in to Vault: {status}"));
        let its_token = auth["client_token"].as_str().expect("a token");
        for (path, wanted) in
            [(names.client_runtime(client), 200), (names.client_runtime(other), 403), (names.runtime(), 403)]
        {
            let path = format!("secret/data/{path}");
            let status = vault.status_with(its_token, reqwest::Method::GET, &path, None).await;
            assert_eq!(status, wanted, "{client}: {path}");
        }
        let (_, credentials) = sandbox.credentials_of("shop", client).await;
        let connection = sandbox.login("shop", &credentials).await.unwrap_or_else(|error| panic!("{client}: {error}"));
        assert!(is_allowed(&connection, "SELECT * FROM later").await, "{client}");
        assert_eq!(is_allowed(&connection, "INSERT INTO later VALUES (3)").await, may_write, "{client}");
    }

    let ((_, stays), (_, goes)) =
        (sandbox.credentials_of("shop", "twin").await, sandbox.credentials_of("shop", "other-twin").await);
    let jwt = token(sandbox, &elsewhere, &account).await;
    sandbox.patch::<ServiceDatabase>("shop", &with(&[&twin])).await;
    until("the account of the other namespace is refused", SOON, || async {
        if vault.kubernetes_login(&names.own_client("other-twin"), &jwt).await.is_ok() {
            return Err("Vault accepts it".to_owned());
        }
        match sandbox.login("shop", &goes).await {
            Err(error) if sqlstate(&error).as_deref().is_some_and(|code| code.starts_with("28")) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("PostgreSQL accepts it".to_owned()),
        }
    })
    .await;
    let jwt = token(sandbox, &sandbox.namespace, &account).await;
    assert!(vault.kubernetes_login(&names.own_client("twin"), &jwt).await.is_ok(), "Vault refuses the other one");
    sandbox.login("shop", &stays).await.expect("the other one goes on");
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"clients": others}})).await;
    sandbox.ready("shop", SOON).await;
    accounts.delete(&account, &DeleteParams::default()).await.expect("the ServiceAccount");
}

/// From the shared login to its own and back: at each moment one of them works, and it can be read.
async fn moved(sandbox: &Sandbox, writer: &Value) {
    let clients = |shop: Value| json!({"spec": {"clients": [shop, reader(), writer]}});
    let own = json!({"serviceAccountName": "shop", "access": {"mode": "ReadWrite"}, "sharedToo": true});
    let names = sandbox.vault_names("shop");
    let shared = sandbox.credentials("shop").await;
    sandbox.patch::<ServiceDatabase>("shop", &clients(own.clone())).await;
    applied(sandbox, "shop").await;
    let jwt = token(sandbox, &sandbox.namespace, "shop").await;
    let logs_in = async |role: &str| sandbox.vault().kubernetes_login(role, &jwt).await.is_ok();
    assert!(logs_in(&names.client()).await && logs_in(&names.own_client("shop")).await);
    let (_, its_own) = sandbox.credentials_of("shop", "shop").await;
    for credentials in [&shared, &its_own] {
        let connection = sandbox.login("shop", credentials).await.expect("both work");
        assert!(is_allowed(&connection, "INSERT INTO later VALUES (2)").await);
    }
    let mut alone = own;
    alone["sharedToo"] = json!(false);
    sandbox.patch::<ServiceDatabase>("shop", &clients(alone)).await;
    until("the shared record is closed to it", SOON, || async {
        if logs_in(&names.client()).await { Err("it logs in".to_owned()) } else { Ok(()) }
    })
    .await;
    sandbox.login("shop", &its_own).await.expect("its own login works");
    sandbox.patch::<ServiceDatabase>("shop", &clients(json!({"serviceAccountName": "shop"}))).await;
    until("it is shared again", SOON, || async {
        if logs_in(&names.client()).await { Ok(()) } else { Err("it cannot log in".to_owned()) }
    })
    .await;
    refused(sandbox, "shop", &its_own).await;
}

/// A removed client is refused by Vault and PostgreSQL, also in the middle of a transaction.
async fn removed(sandbox: &Sandbox, shop: &Value) {
    let (_, reads) = sandbox.credentials_of("shop", "reader").await;
    let (_, writes) = sandbox.credentials_of("shop", "writer").await;
    let connection = sandbox.login("shop", &writes).await.expect("the writer");
    run(&connection, "BEGIN; INSERT INTO later VALUES (42)").await.expect("a transaction");
    let names = sandbox.vault_names("shop");
    let jwt = token(sandbox, &sandbox.namespace, "writer").await;
    let auth = sandbox.vault().kubernetes_login(&names.own_client("writer"), &jwt).await.expect("the writer");
    let its_token = auth["client_token"].as_str().expect("a token");
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"clients": [shop, reader()]}})).await;
    refused(sandbox, "writer", &writes).await;
    let path = format!("secret/data/{}", names.client_runtime("writer"));
    let status = sandbox.vault().status_with(its_token, reqwest::Method::GET, &path, None).await;
    assert_eq!(status, 403, "a token from before reads nothing");
    until("its session ends", SOON, || async {
        if connection.is_closed() { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
    assert_eq!(as_owner(sandbox, "shop", "SELECT count(*) FROM later WHERE id = 42").await, "0");
    until("its roles are gone", SOON, || async {
        let left = as_owner(sandbox, "shop", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'shop%c_writer%'").await;
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await;
    assert!(client_status(sandbox, "shop", "writer").await.is_none());
    sandbox.login("shop", &reads).await.expect("the others go on");
    // And the last, with its row policy.
    let (session, since) = (sandbox.login("shop", &reads).await.expect("the reader"), Instant::now());
    let patch = json!({"spec": {"credentials": {"sessionGraceSeconds": GRACE.as_secs()}, "clients": [shop]}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
    has_its_grace(sandbox, &session, &reads, since).await;
    refused(sandbox, "reader", &reads).await;
    until("nothing is left of the row policy", SOON, || async {
        let query = "SELECT count(*) FROM pg_policy UNION ALL SELECT count(*) FROM pg_class WHERE relname = 'notes' AND relrowsecurity";
        let left = as_owner(sandbox, "shop", query).await;
        if left == "0\n0" { Ok(()) } else { Err(left) }
    })
    .await;
}

/// The grace of a removed client's sessions.
const GRACE: Duration = Duration::from_secs(20);

/// A session of a client that was removed at this time or later goes on with its rights until the end of its grace,
/// while new logins are refused.
async fn has_its_grace(sandbox: &Sandbox, session: &Connection, credentials: &Credentials, since: Instant) {
    let mut is_refused = false;
    let end = loop {
        match column(session, "SELECT id FROM notes").await {
            Ok(rows) => assert_eq!(rows, ["1"], "its row policy stays"),
            Err(end) => break end,
        }
        let refusal = sandbox.login("shop", credentials).await.err().and_then(|error| sqlstate(&error));
        is_refused |= refusal.is_some_and(|code| code.starts_with("28"));
        assert!(since.elapsed() < GRACE + SOON, "it lives");
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    // None: the server closed the connection before the statement was sent.
    assert!(end.sqlstate.as_deref().is_none_or(|code| code == "57P01"), "{end:?}");
    assert!(since.elapsed() >= GRACE, "it ended after {:?}", since.elapsed());
    assert!(is_refused, "its login was accepted as long as its session lived");
}

/// It cannot log in to Vault any more, its record is gone, and PostgreSQL refuses its login.
async fn refused(sandbox: &Sandbox, client: &str, credentials: &Credentials) {
    let names = sandbox.vault_names("shop");
    let jwt = token(sandbox, &sandbox.namespace, client).await;
    until("Vault and PostgreSQL refuse the removed client", SOON, || async {
        if sandbox.vault().kubernetes_login(&names.own_client(client), &jwt).await.is_ok() {
            return Err("Vault accepts it".to_owned());
        }
        if sandbox.vault().record(&names.client_runtime(client)).await.is_some() {
            return Err("its record is there".to_owned());
        }
        match sandbox.login("shop", credentials).await {
            Err(error) if sqlstate(&error).as_deref().is_some_and(|code| code.starts_with("28")) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("PostgreSQL accepts it".to_owned()),
        }
    })
    .await;
}
