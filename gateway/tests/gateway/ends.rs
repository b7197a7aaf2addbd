//! The end of a gateway, and clients that do not read.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::SCHEMA;
use crate::server::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_transactions_end_before_the_gateway() {
    let schema = format!("{SCHEMA} CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(5)';");
    let mut gateway = Gateway::start("ends", &schema, json!({})).await;
    let begun = gateway.write("POST", "/transaction", &[], json!({"begin": true})).await.ok();
    let id = begun["txn_id"].as_str().expect("an id").to_owned();
    let within = [("txn-id", id.as_str())];
    let slow = gateway.background("/rpc/slow");
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.terminate();
    let deadline = Instant::now() + Duration::from_secs(5);
    while gateway.is_ready().await {
        assert!(Instant::now() < deadline, "nobody is to be sent here");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Still served, and told to go on elsewhere.
    let read = gateway.get("/actors/1").await;
    assert_eq!((read.status, read.header("connection")), (200, "close"), "{read:?}");
    let refused = gateway.write("POST", "/transaction", &[], json!({"begin": true})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("SDB406")));
    // Later than without a transaction.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(gateway.write("POST", "/actors", &within, json!({"id": 80, "name": "last"})).await.status, 201);
    let committed = gateway.write("POST", "/transaction", &within, json!({"commit": id})).await;
    assert_eq!(committed.status, 200, "{committed:?}");
    assert_eq!(slow.await.expect("a task"), 200);
    assert!(gateway.ended(Duration::from_secs(20)).await, "it does not end: {}", gateway.log());
    let row = gateway.admin.query_one("SELECT count(*) FROM actors WHERE id = 80", &[]).await.expect("a count");
    assert_eq!(row.get::<_, i64>(0), 1);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'ends_gateway'";
    assert_eq!(gateway.admin.query_one(left, &[]).await.expect("a count").get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_no_connection() {
    let gateway = Gateway::start("stalls", SCHEMA, json!({"limits": {"stallSeconds": 5}})).await;
    let rows = "INSERT INTO notes (body) SELECT repeat('y', 1000) || n FROM generate_series(1, 60000) n";
    gateway.admin.batch_execute(rows).await.expect("rows");
    let address = gateway.url.strip_prefix("http://").expect("an address");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = std::net::TcpStream::connect(address).expect("a connection");
        let token = gateway.token("shop/app");
        write!(client, "GET /api/db/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
            .expect("a request");
        clients.push(client);
    }
    let active = async || gateway.get("/connections").await.ok()["pool"]["active"].clone();
    let deadline = Instant::now() + Duration::from_secs(10);
    while active().await == json!(0) {
        assert!(Instant::now() < deadline, "no answer begins");
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while active().await != 0 {
        assert!(Instant::now() < deadline, "the connections are held: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What they would read now is a part, and ends as one.
    for mut client in clients {
        let mut text = Vec::new();
        let _ = client.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = std::io::Read::read_to_end(&mut client, &mut text);
        assert!(text.len() > 1_000 && !text.ends_with(b"0\r\n\r\n"), "a part that looks like the whole");
    }
}
