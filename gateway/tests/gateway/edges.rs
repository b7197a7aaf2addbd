//! Names and numbers at the edge of what statements can have.

use serde_json::json;

use crate::SCHEMA;
use crate::server::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_named_as_the_statements_own_aliases() {
    let gateway = Gateway::start("aliases", SCHEMA, json!({})).await;
    gateway
        .admin
        .batch_execute(
            "CREATE TABLE r (r int PRIMARY KEY, w text, t0 text, v int REFERENCES r); INSERT INTO r VALUES (1, 'a', 'b', NULL), (2, 'c', 'd', 1);
             CREATE TABLE parted (id int PRIMARY KEY, r text) PARTITION BY RANGE (id);
             CREATE TABLE parted_first (r text, id int NOT NULL); ALTER TABLE parted ATTACH PARTITION parted_first FOR VALUES FROM (0) TO (10);
             GRANT ALL ON r, parted TO aliases_app",
        )
        .await
        .expect("tables");
    let row = json!({"r": 1, "w": "a", "t0": "b", "v": null});
    assert_eq!(gateway.get("/r?r=eq.1").await.ok(), json!([row]));
    assert_eq!(gateway.get("/r/1").await.ok(), row);
    assert_eq!(gateway.get("/films?select=r:title&id=eq.1").await.ok(), json!([{"r": "Tokyo Story"}]));
    assert_eq!(
        gateway.get("/r?select=r,up:v(r)&order=r").await.ok(),
        json!([{"r": 1, "up": null}, {"r": 2, "up": {"r": 1}}])
    );
    let token = gateway.token("shop/app");
    let csv = gateway.send(&token, "GET", "/r?select=r,w&order=r", &[("accept", "text/csv")], None).await;
    assert_eq!(csv.text, "r,w\n1,a\n2,c");
    let count = gateway.send(&token, "GET", "/r?select=r", &[("prefer", "count=exact")], None).await;
    assert_eq!(count.header("content-range"), "0-1/2");
    let body = json!({"groupBy": ["r"], "aggregates": [{"function": "count", "as": "w"}], "order": [{"column": "r"}], "limit": 1});
    assert_eq!(gateway.write("POST", "/r/aggregate", &[], body).await.ok(), json!([{"r": 1, "w": 1}]));
    let rows = [("prefer", "return=representation")];
    let made = gateway.write("POST", "/r", &rows, json!({"r": 3, "w": "e"})).await;
    assert_eq!(made.ok(), json!([{"r": 3, "w": "e", "t0": null, "v": null}]));
    // Of a partition with its columns in another order, the server has no version of a new row.
    let made = gateway.write("POST", "/parted", &rows, json!({"id": 1, "r": "x"})).await;
    assert_eq!(made.ok(), json!([{"id": 1, "r": "x"}]));
    let changed = gateway.write("PATCH", "/parted/1", &rows, json!({"r": "y"})).await;
    assert_eq!(changed.ok(), json!({"id": 1, "r": "y"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_at_the_end_of_numbers() {
    let gateway = Gateway::start("ranges_end", SCHEMA, json!({})).await;
    let token = gateway.token("shop/app");
    for (range, path, status) in [
        ("18446744073709551615-", "/actors?offset=1", 416),
        ("9223372036854775807-", "/actors?offset=1", 200),
        ("0-18446744073709551615", "/actors?offset=9223372036854775807", 200),
        ("1-0", "/actors", 416),
    ] {
        let answer = gateway.send(&token, "GET", path, &[("range", range)], None).await;
        assert_eq!(answer.status, status, "{range}: {answer:?}");
    }
}
