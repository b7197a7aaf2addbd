//! Requests with an idempotency key.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::SCHEMA;
use crate::grpc::{client, gateway as grpc_gateway};
use crate::server::{Answer, Gateway, Server};
use servicedb_gateway::grpc::proto::{
    BatchCreateDocumentsRequest, BeginTransactionRequest, CreateDocumentRequest, DeleteDocumentRequest,
    UpdateDocumentRequest,
};

/// The table of the records, as the documentation has it, for this login.
fn records(login: &str) -> String {
    let docs = include_str!("../../../docs/gateway.md");
    let from = docs.find("CREATE TABLE IF NOT EXISTS servicedb.gateway_requests").expect("the table");
    let statements = &docs[from..][..docs[from..].find("```").expect("an end")];
    format!("CREATE SCHEMA servicedb; {}", statements.replace("chat_gateway", login))
}

/// Makes the table of the records.
pub async fn with_records(gateway: &Gateway) {
    gateway.admin.batch_execute(&records(&gateway.login)).await.expect("the table of the records");
}

async fn started(name: &str, schema: &str, settings: Value) -> Gateway {
    let gateway = Gateway::start(name, schema, settings).await;
    with_records(&gateway).await;
    gateway
}

async fn count(gateway: &Gateway, table: &str) -> i64 {
    gateway.admin.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.expect("a count").get(0)
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

const RECORDS: &str = "servicedb.gateway_requests";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_has_the_first_answer() {
    let gateway = started("once", SCHEMA, json!({})).await;
    let rows = [("idempotency-key", "a"), ("prefer", "return=representation")];
    let create = async || gateway.write("POST", "/notes", &rows, json!({"body": "x"})).await;
    let first = create().await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""), "{first:?}");
    for _ in 0..2 {
        let again = create().await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"), "{again:?}");
        assert_eq!(again.text, first.text, "with the same id");
        for name in ["location", "content-type", "preference-applied", "etag", "content-range"] {
            assert_eq!(again.header(name), first.header(name), "{name}");
        }
    }
    assert_eq!(count(&gateway, "notes").await, 1);

    // The other writes, and what the quotation marks of the draft are.
    let key = |key: &'static str| [("idempotency-key", key)];
    for (method, path, body, name) in [
        ("PATCH", "/counters?name=eq.one", json!({"value": 5}), "b"),
        ("PATCH", "/counters/two", json!({"value": 5}), "c"),
        ("PUT", "/counters/two", json!({"name": "two", "value": 6, "remark": null}), "d"),
        ("DELETE", "/roles/1,2", Value::Null, "e"),
        ("POST", "/rpc/touch", json!({"name": "touched"}), "f"),
        ("DELETE", "/actors?id=eq.4", Value::Null, "\"g\""),
    ] {
        let first = gateway.write(method, path, &key(name), body.clone()).await;
        assert_eq!((first.status, first.header("idempotent-replayed")), (204, ""), "{path}: {first:?}");
        let again = gateway.write(method, path, &key(name), body).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (204, "true"), "{path}: {again:?}");
    }
    let bare = gateway.write("DELETE", "/actors?id=eq.4", &key("g"), Value::Null).await;
    assert_eq!((bare.status, bare.header("idempotent-replayed")), (204, "true"));

    // Another request with the key, in each of its parts.
    for (method, path, headers, body) in [
        ("POST", "/notes", rows.to_vec(), json!({"body": "y"})),
        ("POST", "/notes", key("a").to_vec(), json!({"body": "x"})),
        ("POST", "/notes?select=id", rows.to_vec(), json!({"body": "x"})),
        ("POST", "/actors", rows.to_vec(), json!({"body": "x"})),
        ("PATCH", "/notes", rows.to_vec(), json!({"body": "x"})),
        ("POST", "/rpc/touch", rows.to_vec(), json!({"name": "x"})),
    ] {
        let answer = gateway.write(method, path, &headers, body).await;
        assert_eq!(code(&answer), refused(422, "SDB122"), "{method} {path}");
    }
    assert_eq!(count(&gateway, "notes").await, 1);

    // Reads do not care.
    let read = gateway.send(&gateway.token("shop/app"), "GET", "/notes", &key("a"), None).await;
    assert_eq!((read.status, read.header("idempotent-replayed")), (200, ""));
    // What was done once is logged once.
    let log = gateway.log();
    let audited = log.lines().filter(|line| line.contains("\"audit\"") && line.contains("\"notes\""));
    assert_eq!(audited.filter(|line| line.contains("\"status\":201")).count(), 1, "{log}");
    let document = gateway.get("/openapi.json").await.ok();
    let reference = json!({"$ref": "#/components/parameters/IdempotencyKey"});
    let has = |path: &str, method: &str| {
        document["paths"][path][method]["parameters"].as_array().is_some_and(|all| all.contains(&reference))
    };
    assert!(has("/notes", "post") && has("/notes/{id}", "put") && has("/rpc/touch", "post"));
    assert!(has("/transaction", "post") && !has("/notes", "get") && !has("/notes/query", "post"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_has_its_keys_for_itself() {
    let gateway = started("keys_apart", SCHEMA, json!({})).await;
    let grants = "GRANT INSERT ON actors TO keys_apart_reader";
    gateway.admin.batch_execute(grants).await.expect("a right");
    let as_one = async |account: &str, id: i32| {
        let headers = [("idempotency-key", "same"), ("prefer", "return=representation")];
        let body = json!({"id": id, "name": format!("n{id}")}).to_string();
        gateway.send(&gateway.token(account), "POST", "/actors", &headers, Some(body)).await
    };
    let (one, other) = (as_one("shop/app", 50).await, as_one("shop/reader", 51).await);
    assert_eq!((one.status, other.status), (201, 201), "{one:?} {other:?}");
    assert_eq!(as_one("shop/reader", 50).await.status, 422);
    let again = as_one("shop/reader", 51).await;
    assert_eq!((again.header("idempotent-replayed"), again.json()), ("true", json!([{"id": 51, "name": "n51"}])));
    // Their roles have no right to the table, not even as the gateway has become them.
    for role in ["keys_apart_app", "keys_apart_reader"] {
        let read = format!("SET ROLE {role}; TABLE {RECORDS}");
        let error = gateway.admin.batch_execute(&read).await.expect_err("no right");
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
        gateway.admin.batch_execute("RESET ROLE").await.expect("the superuser");
    }
    // What runs in a request, and at its commit, runs as the caller.
    gateway
        .admin
        .batch_execute(
            "CREATE FUNCTION name_it() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE counters SET remark = current_user WHERE name = 'one'; RETURN NULL; END$$;
             CREATE CONSTRAINT TRIGGER name_it AFTER INSERT ON actors DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION name_it();",
        )
        .await
        .expect("a trigger");
    let headers = [("idempotency-key", "named")];
    assert_eq!(gateway.write("POST", "/actors", &headers, json!({"id": 60, "name": "sixty"})).await.status, 201);
    assert_eq!(gateway.get("/counters/one?select=remark").await.ok()["remark"], "keys_apart_app");
    let who = gateway.write("POST", "/rpc/who", &[("idempotency-key", "who")], json!({})).await;
    assert_eq!(who.ok(), "keys_apart_app");
    // A function that leaves the caller's role takes nothing of it to the next request.
    let escape = gateway.write("POST", "/rpc/escape", &[("idempotency-key", "escape")], json!({})).await;
    assert_eq!(escape.status, 200, "{escape:?}");
    assert_eq!(gateway.get("/rpc/who").await.ok(), "keys_apart_app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_leaves_its_key_free() {
    let gateway = started("keys_free", SCHEMA, json!({})).await;
    let headers = [("idempotency-key", "k"), ("prefer", "handling=strict, max-affected=1, return=representation")];
    // Before the database, in it, at the answer, and at the commit.
    gateway
        .admin
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN IF NEW.id = 666 THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL; END$$;
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON actors DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION refuse();",
        )
        .await
        .expect("a trigger");
    for (body, status) in [
        (json!({"id": "x"}), 400),
        (json!({"id": 1, "name": "taken"}), 409),
        (json!([{"id": 70, "name": "a"}, {"id": 71, "name": "b"}]), 400),
        (json!({"id": 666, "name": "late"}), 400),
    ] {
        let failed = gateway.write("POST", "/actors", &headers, body.clone()).await;
        assert_eq!(failed.status, status, "{body}: {failed:?}");
        assert_eq!(count(&gateway, RECORDS).await, 0, "{body}");
    }
    assert_eq!(gateway.write("PATCH", "/actors/999", &headers, json!({"name": "x"})).await.status, 404);
    let created = gateway.write("POST", "/actors", &headers, json!({"id": 70, "name": "a"})).await;
    assert_eq!((created.status, created.header("idempotent-replayed")), (201, ""), "{created:?}");
    assert_eq!(count(&gateway, "actors").await, 5);
    // A trial has no record, and none of before counts for it.
    let trial = [("idempotency-key", "trial"), ("prefer", "tx=rollback")];
    for _ in 0..2 {
        let tried = gateway.write("POST", "/actors", &trial, json!({"id": 72, "name": "c"})).await;
        assert_eq!((tried.status, tried.header("idempotent-replayed")), (201, ""), "{tried:?}");
    }
    assert_eq!(count(&gateway, RECORDS).await, 1);
    // What is new in the schema is found, as without a key.
    let new = "CREATE TABLE later (id int PRIMARY KEY); GRANT INSERT ON later TO keys_free_app";
    gateway.admin.batch_execute(new).await.expect("a table");
    let new = gateway.write("POST", "/later", &[("idempotency-key", "new")], json!({"id": 1})).await;
    assert_eq!(new.status, 201, "{new:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_is_carried_out() {
    let schema = format!(
        "{SCHEMA} CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END$$;
         CREATE TRIGGER wait BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION wait();"
    );
    let gateway = started("keys_at_once", &schema, json!({})).await;
    let headers = [("idempotency-key", "k"), ("prefer", "return=representation")];
    let create = || gateway.write("POST", "/notes", &headers, json!({"body": "x"}));
    gateway.admin.batch_execute("SELECT pg_advisory_lock(7)").await.expect("a lock");
    let meanwhile = async {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'keys_at_once_gateway' AND wait_event = 'advisory'";
        while gateway.admin.query_one(waits, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let early = join_all((0..4).map(|_| create())).await;
        gateway.admin.batch_execute("SELECT pg_advisory_unlock(7)").await.expect("no lock");
        early
    };
    let (first, early) = tokio::join!(create(), meanwhile);
    for answer in &early {
        assert_eq!(code(answer), refused(409, "SDB123"));
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""), "{first:?}");
    for again in join_all((0..4).map(|_| create())).await {
        assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    }
    assert_eq!(count(&gateway, "notes").await, 1);
    // Serializable transactions with neighbouring keys do not disturb each other.
    let transaction = |key: usize| {
        let operations =
            json!([{"method": "POST", "path": "/actors", "body": {"id": 100 + key, "name": format!("n{key}")}}]);
        let body = json!({"isolation": "serializable", "operations": operations});
        let gateway = &gateway;
        async move {
            let key = format!("t{key}");
            gateway.write("POST", "/transaction", &[("idempotency-key", &key)], body).await
        }
    };
    for answer in join_all((0..5).map(transaction)).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_at_once_have_one_key() {
    let gateway = started("keys_transactions", SCHEMA, json!({})).await;
    let key = [("idempotency-key", "t")];
    let body = json!({"isolation": "serializable", "operations": [
        {"method": "POST", "path": "/notes", "prefer": "return=representation", "body": {"body": "one"}},
        {"method": "PATCH", "path": "/counters?name=eq.one", "body": {"value": 12}},
    ]});
    let failing = json!({"operations": [
        {"method": "POST", "path": "/notes", "body": {"body": "one"}},
        {"method": "POST", "path": "/actors", "body": {"id": 1, "name": "again"}},
    ]});
    assert_eq!(gateway.write("POST", "/transaction", &key, failing).await.status, 409);
    assert_eq!((count(&gateway, "notes").await, count(&gateway, RECORDS).await), (0, 0));
    let first = gateway.write("POST", "/transaction", &key, body.clone()).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, ""), "{first:?}");
    let again = gateway.write("POST", "/transaction", &key, body).await;
    assert_eq!((again.status, again.header("idempotent-replayed"), &again.text), (200, "true", &first.text));
    assert_eq!(count(&gateway, "notes").await, 1);
    let other = gateway.write("POST", "/transaction", &key, json!({"operations": []})).await;
    assert_eq!(code(&other), refused(422, "SDB122"));

    // Those in several requests have none.
    let begun = gateway.write("POST", "/transaction", &key, json!({"begin": true})).await;
    assert_eq!(code(&begun), refused(400, "SDB126"));
    let begun = gateway.write("POST", "/transaction", &[], json!({"begin": true})).await.ok();
    let id = begun["txn_id"].as_str().expect("an id").to_owned();
    let within = [("txn-id", id.as_str()), ("idempotency-key", "u")];
    let inside = gateway.write("POST", "/notes", &within, json!({"body": "x"})).await;
    assert_eq!(code(&inside), refused(400, "SDB126"));
    let read = gateway.send(&gateway.token("shop/app"), "GET", "/notes", &within, None).await;
    assert_eq!(read.status, 200, "{read:?}");
    let commit = gateway.write("POST", "/transaction", &[("idempotency-key", "u")], json!({"commit": id})).await;
    assert_eq!(code(&commit), refused(400, "SDB126"));
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": id})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_answers_that_are_not_kept() {
    let gateway = started("keys_odd", SCHEMA, json!({"limits": {"keptAnswerBytes": 1000}})).await;
    let (long, longer, longest) = ("k".repeat(255), "k".repeat(256), "k".repeat(10_000));
    for (key, status) in [
        ("", 400),
        ("\"\"", 400),
        ("a\tb", 400),
        (longer.as_str(), 400),
        (longest.as_str(), 400),
        (long.as_str(), 201),
        ("'; DROP TABLE notes; --", 201),
        ("\"a\\\"b\"", 201),
        ("%00 $1 {}", 201),
    ] {
        let answer = gateway.write("POST", "/notes", &[("idempotency-key", key)], json!({"body": "x"})).await;
        assert_eq!(answer.status, status, "{key}: {answer:?}");
        if status == 400 {
            assert_eq!(code(&answer), refused(400, "SDB121"), "{key}");
        } else {
            let again = gateway.write("POST", "/notes", &[("idempotency-key", key)], json!({"body": "x"})).await;
            assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"), "{key}");
        }
    }
    let two = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(code(&gateway.write("POST", "/notes", &two, json!({"body": "x"})).await), refused(400, "SDB121"));
    assert_eq!(count(&gateway, "notes").await, 4);
    // Raw control characters never reach the gateway's own code, or are refused by it.
    for key in [&b"a\x00b"[..], b"a\x07b", b"\x7f", b"\xe9"] {
        let address = gateway.url.strip_prefix("http://").expect("an address");
        let mut client = std::net::TcpStream::connect(address).expect("a connection");
        let mut request = format!(
            "POST /api/db/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: 12\r\nConnection: close\r\nIdempotency-Key: ",
            gateway.token("shop/app")
        )
        .into_bytes();
        request.extend_from_slice(key);
        request.extend_from_slice(b"\r\n\r\n{\"body\":\"x\"}");
        std::io::Write::write_all(&mut client, &request).expect("a request");
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client, &mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400"), "{key:?}: {answer}");
    }
    assert_eq!(count(&gateway, "notes").await, 4);

    // An answer that is too large to be kept: the request was carried out, and is not again.
    let large = [("idempotency-key", "large"), ("prefer", "return=representation")];
    let create = async || gateway.write("POST", "/notes", &large, json!({"body": "y".repeat(2_000)})).await;
    assert_eq!(create().await.status, 201);
    let again = create().await;
    assert_eq!(code(&again), refused(410, "SDB124"));
    assert_eq!(again.header("retry-after"), "");
    assert!(again.json()["details"].as_str().is_some_and(|details| details.contains("201")), "{again:?}");
    assert_eq!(count(&gateway, "notes").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_others_have_kept_count_from_the_start() {
    // Even if what has expired cannot be removed.
    let kept = "INSERT INTO servicedb.gateway_requests (caller, key, attempt, request, at, status, headers, rows, body)
         SELECT 'shop/other', k.key, gen_random_uuid(), '', now() - k.age::interval, 201, '{}', 1,
          (SELECT string_agg(sha256(n::text::bytea), ''::bytea) FROM generate_series(1, 40000) n)
         FROM (VALUES ('old', '25 hours'), ('new', '0')) AS k (key, age);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'kept'; END$$;
        CREATE TRIGGER refuse BEFORE DELETE ON servicedb.gateway_requests FOR EACH ROW EXECUTE FUNCTION refuse();";
    let schema = format!("{SCHEMA} {} {kept}", records("keys_counted_gateway"));
    let limits = json!({"limits": {"keptAnswersBytes": 1_000_000, "forgetSeconds": 3_600}});
    let gateway = Gateway::start("keys_counted", &schema, limits).await;
    let create = async |key: &str| {
        let headers = [("idempotency-key", key), ("prefer", "return=representation")];
        gateway.write("POST", "/notes", &headers, json!({"body": "y"})).await
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut turn = 0;
    loop {
        let key = format!("k{turn}");
        assert_eq!(create(&key).await.status, 201);
        let again = create(&key).await;
        if again.status == 410 {
            assert_eq!(code(&again), refused(410, "SDB124"));
            break;
        }
        assert!(Instant::now() < deadline, "they are not counted: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
        turn += 1;
    }
    assert!(gateway.log().contains("expired idempotency keys could not be removed"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_answers_together_have_a_bound() {
    let limits = json!({"limits": {"keptAnswersBytes": 3_000, "forgetSeconds": 1}});
    let gateway = started("keys_bound", SCHEMA, limits).await;
    let create = async |key: &str| {
        let headers = [("idempotency-key", key), ("prefer", "return=representation")];
        gateway.write("POST", "/notes", &headers, json!({"body": "y".repeat(1_000)})).await
    };
    // Two answers have room, over several counts of what is there. The others are carried out once, too.
    for (key, kept) in [("a", true), ("b", true), ("c", false), ("d", false)] {
        assert_eq!(create(key).await.status, 201);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let again = create(key).await;
        if kept {
            assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"), "{key}: {again:?}");
        } else {
            assert_eq!(code(&again), refused(410, "SDB124"), "{key}");
        }
    }
    let empty = [("idempotency-key", "empty")];
    for replayed in ["", "true"] {
        let answer = gateway.write("POST", "/notes", &empty, json!({"body": "x"})).await;
        assert_eq!(
            (answer.status, answer.header("idempotent-replayed")),
            (201, replayed),
            "without a body: {answer:?}"
        );
    }
    assert_eq!(count(&gateway, "notes").await, 5);
    // What has expired makes room, although the table is as large as before.
    let old = format!("UPDATE {RECORDS} SET at = now() - interval '25 hours'");
    gateway.admin.batch_execute(&old).await.expect("old records");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut turn = 0;
    loop {
        let key = format!("e{turn}");
        assert_eq!(create(&key).await.status, 201);
        if create(&key).await.status == 201 {
            break;
        }
        assert!(Instant::now() < deadline, "there is no room: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
        turn += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_keys_are_taken_over_and_removed() {
    let gateway = started("keys_expire", SCHEMA, json!({"limits": {"forgetSeconds": 1}})).await;
    let key = [("idempotency-key", "k")];
    let create = async || gateway.write("POST", "/notes", &key, json!({"body": "x"})).await;
    assert_eq!(create().await.status, 201);
    let old = format!("UPDATE {RECORDS} SET at = now() - interval '25 hours'");
    // Taken over, unless it is removed before; and removed.
    gateway.admin.batch_execute(&old).await.expect("an old record");
    let again = create().await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, ""), "{again:?}");
    assert_eq!(count(&gateway, "notes").await, 2);
    let more = format!(
        "INSERT INTO {RECORDS} (caller, key, attempt, request, at)
         SELECT 'shop/app', 'old' || n, gen_random_uuid(), '', now() - interval '24 hours 1 second'
         FROM generate_series(1, 2500) n"
    );
    gateway.admin.batch_execute(&more).await.expect("old records");
    let deadline = Instant::now() + Duration::from_secs(60);
    while count(&gateway, RECORDS).await != 1 {
        assert!(Instant::now() < deadline, "they stay: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(create().await.header("idempotent-replayed"), "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_table_nothing_is_carried_out() {
    let gateway = Gateway::start("keys_missing", SCHEMA, json!({"limits": {"forgetSeconds": 1}})).await;
    let key = [("idempotency-key", "k")];
    let create = async || gateway.write("POST", "/notes", &key, json!({"body": "x"})).await;
    assert_eq!(code(&create().await), refused(503, "SDB125"));
    gateway.admin.batch_execute("CREATE SCHEMA servicedb").await.expect("a schema");
    assert_eq!(code(&create().await), refused(503, "SDB125"));
    let table =
        "CREATE TABLE servicedb.gateway_requests (id int); GRANT USAGE ON SCHEMA servicedb TO keys_missing_gateway;";
    gateway.admin.batch_execute(table).await.expect("another table");
    assert_eq!(code(&create().await), refused(503, "SDB125"));
    assert_eq!(count(&gateway, "notes").await, 0);
    gateway.admin.batch_execute("DROP SCHEMA servicedb CASCADE").await.expect("no schema");
    with_records(&gateway).await;
    assert_eq!(create().await.status, 201);
    // A function that removes the record undoes itself.
    gateway
        .admin
        .batch_execute(
            "CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql AS $$BEGIN
                 PERFORM set_config('role', 'none', true); DELETE FROM servicedb.gateway_requests; RETURN 1; END$$;",
        )
        .await
        .expect("a function");
    let forget = gateway.write("POST", "/rpc/forget", &[("idempotency-key", "f")], json!({})).await;
    assert_eq!(code(&forget), refused(500, "SDB904"));
    assert_eq!(create().await.header("idempotent-replayed"), "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_grpc() {
    let (gateway, channel) = grpc_gateway("keys_grpc", json!({})).await;
    with_records(&gateway).await;
    let mut data = client(&channel, &gateway.token("shop/app"));
    fn keyed<T>(key: &'static str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("idempotency-key", key.parse().expect("ASCII"));
        request
    }
    let create = |body: &str| CreateDocumentRequest {
        collection: "notes".to_owned(),
        document: json!({"body": body}).to_string().into(),
        ..Default::default()
    };
    let first = data.create_document(keyed("a", create("x"))).await.expect("a note");
    assert!(first.metadata().get("idempotent-replayed").is_none());
    let again = data.create_document(keyed("a", create("x"))).await.expect("the same note");
    assert_eq!(again.metadata().get("idempotent-replayed").map(|text| text.as_bytes()), Some(&b"true"[..]));
    assert_eq!(again.into_inner(), first.into_inner());
    let other = data.create_document(keyed("a", create("y"))).await.expect_err("another note");
    assert_eq!(other.code(), Code::InvalidArgument);
    assert_eq!(other.get_error_details().error_info().map(|info| info.reason.as_str()), Some("SDB122"));
    let batch = || BatchCreateDocumentsRequest {
        collection: "notes".to_owned(),
        documents: vec![json!({"body": "1"}).to_string().into(), json!({"body": "2"}).to_string().into()],
        ..Default::default()
    };
    let first = data.batch_create_documents(keyed("b", batch())).await.expect("notes").into_inner();
    let again = data.batch_create_documents(keyed("b", batch())).await.expect("the same notes").into_inner();
    assert_eq!((first.count, &first), (2, &again));
    let update = || UpdateDocumentRequest {
        collection: "counters".to_owned(),
        key: vec!["one".to_owned()],
        document: json!({"value": 3}).to_string().into(),
        ..Default::default()
    };
    let delete = || DeleteDocumentRequest {
        collection: "counters".to_owned(),
        key: vec!["two".to_owned()],
        ..Default::default()
    };
    for wanted in [None, Some(&b"true"[..])] {
        let updated = data.update_document(keyed("c", update())).await.expect("a counter");
        assert_eq!(updated.metadata().get("idempotent-replayed").map(|text| text.as_bytes()), wanted);
        let deleted = data.delete_document(keyed("d", delete())).await.expect("none");
        assert_eq!(deleted.metadata().get("idempotent-replayed").map(|text| text.as_bytes()), wanted);
    }
    let begun = data.begin_transaction(keyed("e", BeginTransactionRequest::default())).await.expect_err("no key");
    assert_eq!(begun.code(), Code::InvalidArgument);
    assert_eq!(count(&gateway, "notes").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_of_a_lost_commit() {
    let schema = format!("{SCHEMA} ALTER DATABASE keys_truth SET synchronous_commit = on");
    let gateway = started("keys_truth", &schema, json!({})).await;
    let headers = [("idempotency-key", "k"), ("prefer", "return=representation")];
    let _alone = crate::transactions::SYNCHRONOUS.lock().await;
    let insert = || gateway.write("POST", "/notes", &headers, json!({"body": "kept"}));
    gateway.admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.expect("a setting");
    gateway.admin.batch_execute("SELECT pg_reload_conf(), pg_sleep(3)").await.expect("a reload");
    let (kept, ()) = tokio::join!(insert(), crate::transactions::end_the_commit(&gateway, "keys_truth"));
    gateway.admin.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.expect("a setting");
    gateway.admin.batch_execute("SELECT pg_reload_conf(), pg_sleep(0.5)").await.expect("a reload");
    assert_eq!((kept.status, kept.header("idempotent-replayed")), (201, ""), "{kept:?} {}", gateway.log());
    let again = insert().await;
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &kept.text));
    assert_eq!(count(&gateway, "notes").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_of_a_commit_before_a_failover() {
    let server = Server::alone();
    let schema = format!("{SCHEMA} ALTER DATABASE keys_failover SET synchronous_commit = on");
    let mut gateway = Gateway::start_at(server, "keys_failover", &schema, json!({})).await;
    with_records(&gateway).await;
    for statement in
        ["ALTER SYSTEM SET restore_command = 'false'", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"]
    {
        gateway.admin.batch_execute(statement).await.expect(statement);
    }
    // Of several: the server may be away for longer than it is asked.
    let mut is_proved = false;
    for turn in 0..20 {
        gateway.admin.batch_execute("SELECT pg_reload_conf(), pg_sleep(0.5)").await.expect("a reload");
        let key = format!("k{turn}");
        let headers = [("idempotency-key", key.as_str()), ("prefer", "return=representation")];
        let insert = || gateway.write("POST", "/notes", &headers, json!({"body": "kept"}));
        let crash = async {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'keys_failover_gateway'";
            while gateway.admin.query_one(waits, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::task::block_in_place(|| server.fail_over());
        };
        let (first, ()) = tokio::join!(insert(), crash);
        let admin = server.connect("keys_failover", "postgres").await;
        let deadline = Instant::now() + Duration::from_secs(60);
        let again = loop {
            let again = insert().await;
            if again.status != 503 {
                break again;
            }
            assert!(Instant::now() < deadline, "{again:?} {}", gateway.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"), "{again:?}");
        if first.status == 201 {
            assert_eq!(first.text, again.text);
            is_proved = true;
        } else {
            assert_eq!(code(&first), refused(503, "08006"), "{first:?}");
            assert!(first.json()["hint"].as_str().is_some_and(|hint| hint.contains("Idempotency-Key")), "{first:?}");
        }
        gateway.admin = admin;
        let file = gateway.admin.query_one("SELECT pg_walfile_name(pg_current_wal_insert_lsn())", &[]).await;
        assert!(!file.expect("the primary").get::<_, String>(0).starts_with("00000001"), "on another timeline");
        if is_proved {
            break;
        }
    }
    assert!(is_proved, "the record was never found: {}", gateway.log());
    let notes = count(&gateway, "notes").await;
    assert_eq!(notes, count(&gateway, RECORDS).await);
}
