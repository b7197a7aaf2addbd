//! Transactions.

use std::time::Duration;

use serde_json::{Value, json};

use crate::SCHEMA;
use crate::server::Gateway;

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
async fn begun_used_and_ended() {
    let gateway =
        Gateway::start("begun", SCHEMA, json!({"limits": {"connections": 6, "transactionIdleSeconds": 2}})).await;
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
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": ids[0]})).await.status, 404);
    assert_eq!(gateway.get("/actors/23").await.status, 404);
    let open = gateway.admin.query_one(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND application_name = 'servicedb-gateway'",
        &[],
    );
    assert_eq!(open.await.expect("a count").get::<_, i64>(0), 0, "nothing is left open");
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
