//! Transactions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::SCHEMA;
use crate::relay::Relay;
use crate::server::{Gateway, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_or_nothing_at_once() {
    let gateway = Gateway::start("at_once", SCHEMA, json!({})).await;
    let body = json!({"isolation": "serializable", "operations": [
        {"method": "POST", "path": "/actors", "prefer": "return=representation", "body": {"id": 10, "name": "Ten"}},
        {"method": "PATCH", "path": "/actors?id=eq.10", "body": {"name": "Zehn"}},
        {"method": "GET", "path": "/actors/10"},
        {"method": "POST", "path": "/actors/query", "body": {"select": ["id"], "where": {"column": "id", "operator": "eq", "value": 10}}},
        {"method": "DELETE", "path": "/roles/1,2"},
    ]});
    let done = gateway.write("POST", "/transaction", &[], body).await.ok();
    let results = done["results"].as_array().expect("results");
    assert_eq!(
        results.iter().map(|result| result["status"].as_u64()).collect::<Vec<_>>(),
        [201, 204, 200, 200, 204].map(Some)
    );
    assert_eq!(results[0]["body"], json!([{"id": 10, "name": "Ten"}]));
    assert_eq!(results[2]["body"], json!({"id": 10, "name": "Zehn"}));
    assert_eq!(results[3]["body"], json!([{"id": 10}]));

    // Each write of it is logged.
    let log = gateway.log();
    let audited = |operation: &str, collection: &str| {
        log.lines().any(|line| line.contains("\"audit\"") && line.contains(operation) && line.contains(collection))
    };
    assert!(audited("insert", "actors") && audited("update", "actors") && audited("delete", "roles"), "{log}");

    let body = json!({"operations": [
        {"method": "POST", "path": "/actors", "body": {"id": 11, "name": "Eleven"}},
        {"method": "POST", "path": "/actors", "body": {"id": 10, "name": "Again"}},
    ]});
    let failed = gateway.write("POST", "/transaction", &[], body).await;
    assert_eq!((failed.status, failed.json()["code"].as_str()), (409, Some("23505")));
    assert!(
        failed.json()["details"].as_str().is_some_and(|details| details.starts_with("operation 1 failed")),
        "{failed:?}"
    );
    assert_eq!(gateway.get("/actors/11").await.status, 404, "nothing was done");
    for body in [
        json!({}),
        json!({"operations": [], "begin": true}),
        json!({"operations": [{"method": "GET", "path": "/stats"}]}),
        json!({"begin": true, "isolation": "loose"}),
    ] {
        let answer = gateway.write("POST", "/transaction", &[], body).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_leaves_nothing() {
    let gateway = Gateway::start("trials", SCHEMA, json!({})).await;
    let operations = json!([
        {"method": "POST", "path": "/actors", "body": {"id": 30, "name": "Thirty"}},
        {"method": "GET", "path": "/actors/30"},
        {"method": "DELETE", "path": "/roles/1,2"},
    ]);
    // Its key does not count: there is not even a table of records here.
    let trial = [("prefer", "handling=strict, tx=rollback"), ("idempotency-key", "k")];
    for _ in 0..2 {
        let tried = gateway.write("POST", "/transaction", &trial, json!({"operations": operations})).await;
        assert_eq!((tried.status, tried.header("preference-applied")), (200, "tx=rollback"), "{tried:?}");
        let results = tried.json()["results"].clone();
        let statuses = [0, 1, 2].map(|place: usize| results[place]["status"].as_u64());
        assert_eq!(statuses, [201, 200, 204].map(Some), "{results}");
    }
    assert_eq!(gateway.get("/actors/30").await.status, 404, "it was rolled back");
    assert_eq!(gateway.get("/roles/1,2").await.status, 200, "it was rolled back");
    let single = [("prefer", "tx=rollback")];
    assert_eq!(gateway.write("POST", "/notes", &single, json!({"body": "tried"})).await.status, 201);
    assert_eq!(gateway.get("/notes").await.ok(), json!([]));
    assert_eq!(gateway.write("POST", "/notes", &[], json!({"body": "written"})).await.status, 201);

    // The log tells trials from what took place.
    let log = gateway.log();
    let audited = |operation: &str, collection: &str, is_trial: bool| {
        let operation = format!("\"operation\":\"{operation}\"");
        let collection = format!("\"collection\":\"{collection}\"");
        let lines = log.lines().filter(|line| line.contains("\"audit\"") && line.contains(&operation));
        let lines = lines.filter(|line| line.contains(&collection));
        lines.filter(|line| line.contains("\"rolled_back\":true") == is_trial).count()
    };
    assert_eq!((audited("insert", "actors", true), audited("insert", "actors", false)), (2, 0), "{log}");
    assert_eq!((audited("transaction", "", true), audited("transaction", "", false)), (2, 0), "{log}");
    assert_eq!((audited("insert", "notes", true), audited("insert", "notes", false)), (1, 1), "{log}");

    // A failure is told as without a trial, and preferences that cannot be kept are refused.
    let twice = json!({"operations": [{"method": "POST", "path": "/actors", "body": {"id": 1, "name": "Again"}}]});
    let failed = gateway.write("POST", "/transaction", &single, twice).await;
    assert_eq!((failed.status, failed.json()["code"].as_str()), (409, Some("23505")), "{failed:?}");
    let strict = [("prefer", "handling=strict, unheard=of")];
    let refused = gateway.write("POST", "/transaction", &strict, json!({"operations": operations})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("PGRST122")), "{refused:?}");
    assert_eq!(gateway.get("/actors/30").await.status, 404, "nothing was done");
    let begun = gateway.write("POST", "/transaction", &[], json!({"begin": true})).await.ok();
    for body in [json!({"begin": true}), json!({"commit": begun["txn_id"]})] {
        let refused = gateway.write("POST", "/transaction", &single, body).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("SDB404")), "{refused:?}");
    }
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": begun["txn_id"]})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_transaction_ends_under_requests_that_wait() {
    let schema = format!("{SCHEMA} CREATE FUNCTION nap() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(0.3)';");
    let gateway = Gateway::start("overdue", &schema, json!({"limits": {"transactionSeconds": 8}})).await;
    let begun = gateway.write("POST", "/transaction", &[], json!({"begin": true})).await.ok();
    let id = begun["txn_id"].as_str().expect("an id").to_owned();
    let within = [("txn-id", id.as_str())];
    assert_eq!(gateway.write("POST", "/actors", &within, json!({"id": 40, "name": "Forty"})).await.status, 201);
    // One of both always waits for the other: the session is never free.
    let requests = async || {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = gateway.write("POST", "/rpc/nap", &within, json!({})).await;
            if answer.status != 200 {
                return answer;
            }
            assert!(Instant::now() < deadline, "it is never ended: {}", gateway.log());
        }
    };
    let (one, other) = tokio::join!(requests(), requests());
    for answer in [one, other] {
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("SDB403")), "{answer:?}");
    }
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": id})).await.status, 404);
    assert_eq!(gateway.get("/actors/40").await.status, 404, "it was rolled back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_used_and_ended() {
    let gateway =
        Gateway::start("begun", SCHEMA, json!({"limits": {"connections": 6, "transactionIdleSeconds": 10}})).await;
    let begin = async || gateway.write("POST", "/transaction", &[], json!({"begin": true})).await;
    let begun = begin().await;
    assert_eq!(begun.status, 201);
    let id = begun.json()["txn_id"].as_str().expect("an id").to_owned();
    let within = [("txn-id", id.as_str())];
    assert_eq!(gateway.write("POST", "/actors", &within, json!({"id": 20, "name": "Inside"})).await.status, 201);
    assert_eq!(gateway.write("GET", "/actors/20", &within, Value::Null).await.status, 200);
    assert_eq!(gateway.get("/actors/20").await.status, 404, "not yet for others");
    let other = gateway.send(&gateway.token("shop/reader"), "GET", "/actors/20", &within, None).await;
    assert_eq!((other.status, other.json()["code"].as_str()), (404, Some("SDB403")), "it is its caller's only");
    // A body that does not fit is refused before the database, and the transaction goes on.
    assert_eq!(gateway.write("POST", "/actors", &within, json!({"id": "x"})).await.status, 400);
    let committed = gateway.write("POST", "/transaction", &within, json!({"commit": true})).await;
    assert_eq!(committed.ok()["status"], "committed");
    assert_eq!(gateway.get("/actors/20").await.status, 200);
    assert_eq!(gateway.write("GET", "/actors/20", &within, Value::Null).await.status, 404, "it has ended");

    // Rolled back, by request and after an error.
    let id = begin().await.json()["txn_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        gateway.write("POST", "/actors", &[("txn-id", &id)], json!({"id": 21, "name": "Gone"})).await.status,
        201
    );
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"rollback": id})).await.ok()["status"], "rolled back");
    let id = begin().await.json()["txn_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        gateway.write("POST", "/actors", &[("txn-id", &id)], json!({"id": 22, "name": "Gone"})).await.status,
        201
    );
    let failed = gateway.write("POST", "/actors", &[("txn-id", &id)], json!({"id": 22, "name": "Twice"})).await;
    assert_eq!(failed.status, 409);
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": id})).await.status, 404);
    assert_eq!(gateway.get("/actors?id=in.(21,22)").await.ok(), json!([]));

    // What the answer refuses has been changed by then: it is rolled back, too.
    let few = ("prefer", "handling=strict, max-affected=1");
    let object = ("accept", "application/vnd.pgrst.object+json");
    for header in [few, object] {
        let id = begin().await.json()["txn_id"].as_str().expect("an id").to_owned();
        let headers = [("txn-id", id.as_str()), header, ("prefer", "return=representation")];
        let refused = gateway.write("PATCH", "/counters?value=gt.0", &headers, json!({"value": 99})).await;
        assert!((400..500).contains(&refused.status), "{refused:?}");
        assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": id})).await.status, 404);
    }
    assert_eq!(gateway.get("/counters?value=eq.99").await.ok(), json!([]));
    // And what changes nothing is not.
    let id = begin().await.json()["txn_id"].as_str().expect("an id").to_owned();
    let within = [("txn-id", id.as_str())];
    assert_eq!(gateway.write("GET", "/actors/999", &within, Value::Null).await.status, 404);
    assert_eq!(gateway.write("PATCH", "/actors/999", &within, json!({"name": "x"})).await.status, 404);
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": id})).await.status, 200);

    // Too many, and idle for too long.
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(begin().await.json()["txn_id"].as_str().expect("an id").to_owned());
    }
    let refused = begin().await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("SDB402")));
    assert_eq!(
        gateway.write("POST", "/actors", &[("txn-id", &ids[0])], json!({"id": 23, "name": "Late"})).await.status,
        201
    );
    // Not by requests: a commit in time would commit.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND usename = 'begun_gateway'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while gateway.admin.query_one(open, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "transactions are left open: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": ids[0]})).await.status, 404);
    assert_eq!(gateway.get("/actors/23").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_are_told() {
    let gateway = Gateway::start("conflicts", SCHEMA, json!({})).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let begun =
            gateway.write("POST", "/transaction", &[], json!({"begin": true, "isolation": "repeatable read"})).await;
        ids.push(begun.json()["txn_id"].as_str().expect("an id").to_owned());
    }
    for id in &ids {
        assert_eq!(gateway.write("GET", "/counters/one", &[("txn-id", id)], Value::Null).await.status, 200);
    }
    let first = gateway.write("PATCH", "/counters?name=eq.one", &[("txn-id", &ids[0])], json!({"value": 2})).await;
    assert_eq!(first.status, 204);
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": ids[0]})).await.status, 200);
    let second = gateway.write("PATCH", "/counters?name=eq.one", &[("txn-id", &ids[1])], json!({"value": 3})).await;
    assert_eq!((second.status, second.json()["code"].as_str()), (409, Some("40001")));
}

/// Commits wait for a standby in one test at a time.
pub static SYNCHRONOUS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Ends the connection that commits in this database, once it waits.
pub async fn end_the_commit(gateway: &Gateway, database: &str) {
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{database}_gateway' \
         AND (wait_event = 'SyncRep' OR wait_event = 'PgSleep')"
    );
    for _ in 0..3000 {
        if !gateway.admin.query(&end, &[]).await.expect("an answer").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing waits in its commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_truth_about_a_lost_commit() {
    let schema = format!(
        "{SCHEMA}
         CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.id = 71 THEN PERFORM pg_sleep(20); END IF; RETURN NULL; END$$;
         CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON actors DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly();
         ALTER DATABASE truth SET synchronous_commit = on"
    );
    let gateway = Gateway::start("truth", &schema, json!({})).await;
    // Ended while deferred triggers run: nothing is written, and the answer says so.
    let insert = gateway.write("POST", "/actors", &[], json!({"id": 71, "name": "lost"}));
    let (lost, ()) = tokio::join!(insert, end_the_commit(&gateway, "truth"));
    assert_eq!((lost.status, lost.json()["code"].as_str()), (503, Some("SDB405")), "{lost:?}");
    assert_eq!(gateway.get("/actors/71").await.status, 404);
    let _alone = SYNCHRONOUS.lock().await;
    // Ended while it waits for a standby: it is committed, and the answer is as if nothing had happened.
    gateway.admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.expect("a setting");
    gateway.admin.batch_execute("SELECT pg_reload_conf(), pg_sleep(3)").await.expect("a reload");
    let insert = gateway.write("POST", "/actors", &[], json!({"id": 72, "name": "kept"}));
    let (kept, ()) = tokio::join!(insert, end_the_commit(&gateway, "truth"));
    gateway.admin.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.expect("a setting");
    gateway.admin.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    assert_eq!(kept.status, 201, "{kept:?} {}", gateway.log());
    assert_eq!(gateway.get("/actors/72").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_write_without_its_answer_is_told_as_one() {
    let server = Server::shared().port;
    let relay = Relay::start(server, "unanswered_app".to_owned()).await;
    let database = json!({"host": "127.0.0.1", "port": relay.port, "name": "unanswered", "user": "unanswered_gateway"});
    let gateway = Gateway::start("unanswered", SCHEMA, json!({"database": database})).await;
    let insert = async |id: i32| gateway.write("POST", "/actors", &[], json!({"id": id, "name": id.to_string()})).await;
    assert_eq!(insert(73).await.status, 201);
    relay.lose_the_next();
    let lost = insert(74).await;
    assert!(relay.has_lost(), "the answer was not lost: {lost:?}");
    assert_eq!((lost.status, lost.json()["code"].as_str()), (410, Some("SDB408")), "{lost:?} {}", gateway.log());
    assert_eq!(lost.header("retry-after"), "", "nobody is to repeat it");
    assert_eq!(gateway.get("/actors/74").await.status, 200, "it is committed");
    assert_eq!(insert(75).await.status, 201, "the next one has another connection");
}
