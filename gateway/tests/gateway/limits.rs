//! Limits, bad input, failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tonic::codegen::Service;

use crate::SCHEMA;
use crate::server::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_ask_for_too_much() {
    let limits = json!({"limits": {"bodyBytes": 10_000, "conditions": 20, "depth": 5, "rows": 3, "statementMilliseconds": 500, "writeAnswerBytes": 2_000}});
    let gateway = Gateway::start("too_much", SCHEMA, limits).await;
    let many: Vec<_> = (0..21).map(|id| format!("id=neq.{id}")).collect();
    let answer = gateway.get(&format!("/films?{}", many.join("&"))).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("SDB101")));
    let deep = format!("/films?or={}id.eq.1{}", "(and".repeat(5) + "(", ")".repeat(6));
    assert_eq!(gateway.get(&deep).await.json()["code"], "SDB102");
    let nested = "films!director_id(d:director_id(".repeat(3);
    let answer = gateway.get(&format!("/directors?select={nested}id{}", "))".repeat(3))).await;
    assert_eq!(answer.json()["code"], "SDB102");
    let large = gateway.write("POST", "/notes", &[], json!({"body": "x".repeat(10_000)})).await;
    assert_eq!((large.status, large.json()["code"].as_str()), (413, Some("SDB116")));
    assert_eq!(gateway.get("/films?select=id").await.ok().as_array().map(Vec::len), Some(3));
    assert_eq!(gateway.get("/films?select=id&limit=2").await.ok().as_array().map(Vec::len), Some(2));
    gateway
        .admin
        .batch_execute("INSERT INTO notes (body) SELECT repeat('y', 100) FROM generate_series(1, 100)")
        .await
        .expect("rows");
    let answer = gateway.write("PATCH", "/notes", &[("prefer", "return=representation")], json!({"length": 1})).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("SDB106")));
    assert_eq!(gateway.get("/notes?length=eq.1").await.ok(), json!([]), "it was rolled back");
    gateway
        .admin
        .batch_execute("CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(20)'")
        .await
        .expect("a function");
    let slow = gateway.write("POST", "/rpc/slow", &[], json!({})).await;
    assert_eq!((slow.status, slow.json()["code"].as_str()), (504, Some("57014")), "and a new function is found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_connections() {
    let limits = json!({"limits": {"connections": 2, "waiting": 2, "waitMilliseconds": 300}});
    let gateway = Gateway::start(
        "queue",
        &format!("{SCHEMA} CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(6)';"),
        limits,
    )
    .await;
    let calls = (0..6).map(|_| gateway.write("POST", "/rpc/slow", &[], json!({})));
    let answers = futures::future::join_all(calls).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(refused.len(), 4, "{answers:?}");
    for answer in refused {
        assert_eq!((answer.json()["code"].as_str(), answer.header("retry-after")), (Some("PGRST003"), "1"));
    }
    assert_eq!(gateway.get("/films?select=id&id=eq.1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_leaves_nothing() {
    let gateway = Gateway::start(
        "vanishes",
        &format!("{SCHEMA} CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(30)';"),
        json!({}),
    )
    .await;
    let call = gateway.write("POST", "/rpc/slow", &[], json!({}));
    assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err(), "it is slow");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'vanishes_gateway' AND query LIKE '%slow%' AND state <> 'idle'";
        let row = gateway.admin.query_one(running, &[]).await.expect("a count");
        if row.get::<_, i64>(0) == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the statement of a client that is gone still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gateway.get("/connections").await.ok()["pool"]["active"], 0, "no connection is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_and_comes_back() {
    let gateway = Gateway::start("goes", SCHEMA, json!({})).await;
    assert_eq!(gateway.get("/actors/1").await.status, 200);
    // All connections end, and no new one is allowed.
    let root = crate::server::Server::shared().connect("postgres", "postgres").await;
    root.batch_execute("ALTER ROLE goes_gateway NOLOGIN").await.expect("the role");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'goes_gateway'";
    root.batch_execute(end).await.expect("connections end");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut opened = false;
    for _ in 0..12 {
        let answer = gateway.get("/actors/1").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty());
        opened |= gateway.metrics().await.contains("servicedb_gateway_breaker_open 1");
    }
    assert!(opened, "the breaker opens");
    assert_eq!(gateway.get("/health").await.status, 503);
    root.batch_execute("ALTER ROLE goes_gateway LOGIN").await.expect("the role");
    let deadline = Instant::now() + Duration::from_secs(20);
    while gateway.get("/actors/1").await.status != 200 {
        assert!(Instant::now() < deadline, "it does not come back: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.get("/health").await.ok()["status"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_changes() {
    let gateway = Gateway::start("changes", SCHEMA, json!({})).await;
    assert_eq!(gateway.get("/counters?select=name,value&name=eq.one").await.ok(), json!([{"name": "one", "value": 1}]));
    gateway
        .admin
        .batch_execute(
            "ALTER TABLE counters ADD COLUMN colour text DEFAULT 'red', ALTER COLUMN value TYPE numeric(10, 1);
             CREATE TABLE later (id int PRIMARY KEY, counter text REFERENCES counters); GRANT ALL ON later TO changes_app",
        )
        .await
        .expect("a migration");
    // Found by the request itself, without a wait for the next look.
    assert_eq!(gateway.get("/counters?select=colour&name=eq.one").await.ok(), json!([{"colour": "red"}]));
    assert_eq!(gateway.write("POST", "/later", &[], json!({"id": 1, "counter": "one"})).await.status, 201);
    assert_eq!(
        gateway.get("/later?select=id,counters(name,value)").await.ok(),
        json!([{"id": 1, "counters": {"name": "one", "value": 1.0}}])
    );
    gateway
        .admin
        .batch_execute("ALTER TABLE counters RENAME colour TO hue; DROP TABLE later")
        .await
        .expect("a migration");
    let answer = gateway.get("/counters?select=colour&name=eq.one").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("PGRST204")), "{answer:?}");
    assert_eq!(gateway.get("/later").await.status, 404);
    assert_eq!(gateway.get("/counters?select=hue&name=eq.one").await.ok(), json!([{"hue": "red"}]));
    let schema = gateway.get("/openapi.json").await.ok();
    assert!(schema["components"]["schemas"]["counters"]["properties"]["hue"].is_object());
    assert!(schema["paths"]["/later"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_take_turns_at_the_connections() {
    let limits = json!({"limits": {"connections": 1, "waitMilliseconds": 60_000}});
    let slow = "CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(1)';";
    let gateway = Gateway::start("turns", &format!("{SCHEMA} {slow}"), limits).await;
    let calls: Vec<_> = (0..12).map(|_| gateway.background("/rpc/slow")).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let waiting = async || {
        let metrics = gateway.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("servicedb_gateway_requests_waiting "));
        line.and_then(|count| count.parse::<usize>().ok()).expect("a number")
    };
    while waiting().await < 8 {
        assert!(Instant::now() < deadline, "they do not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It came last, and is served after one that is under way and one in its turn.
    let answer = gateway.send(&gateway.token("shop/reader"), "GET", "/actors/1", &[], None).await;
    let left = calls.iter().filter(|call| !call.is_finished()).count();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(left >= 6, "only {left} of the other caller's requests were still waiting");
    for call in calls {
        assert_eq!(call.await.expect("an answer"), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_by_http_2() {
    let (gateway, channel) = crate::grpc::gateway("large_http2", json!({"bodyBytes": 10_000})).await;
    let url = format!("{}/api/db/notes", gateway.url.replace("http://", "https://"));
    // Larger than the windows of the stream and of the connection, with its length and without.
    for (size, with_length) in [(20_000, true), (1_000_000, true), (1_000_000, false), (80_000_000, false)] {
        let mut request = http::Request::post(&url)
            .header("authorization", format!("Bearer {}", gateway.token("shop/app")))
            .header("content-type", "application/json");
        if with_length {
            request = request.header("content-length", size);
        }
        let (sent, piece) = (Arc::new(AtomicUsize::new(0)), bytes::Bytes::from_static(&[b' '; 10_000]));
        let count = Arc::clone(&sent);
        let pieces = std::iter::repeat_n(piece, size / 10_000).map(move |piece| {
            count.fetch_add(piece.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        let body = axum::body::Body::from_stream(futures::stream::iter(pieces));
        let request = request.body(tonic::body::Body::new(body)).expect("a request");
        let mut plain = channel.clone();
        std::future::poll_fn(|context| plain.poll_ready(context)).await.expect("a connection");
        let answer = plain.call(request).await.unwrap_or_else(|error| panic!("{size} {with_length}: {error:?}"));
        assert_eq!((answer.status().as_u16(), answer.version()), (413, http::Version::HTTP_2), "{size} {with_length}");
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["code"], "SDB116", "{size} {with_length}");
        // The stream is not reset under a client that still sends: some would take that for a failure.
        let deadline = Instant::now() + Duration::from_secs(10);
        while size <= 1_000_000 && sent.load(Ordering::Relaxed) < size {
            assert!(Instant::now() < deadline, "{size} {with_length}: {sent:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
