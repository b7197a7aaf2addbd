//! Limits by cost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::SCHEMA;
use crate::grpc::{client, gateway as grpc_gateway, get};
use crate::server::Gateway;

/// A table whose rows only a scan finds.
const LARGE: &str = "CREATE TABLE large (id int PRIMARY KEY, filler text);
    INSERT INTO large SELECT n, repeat('x', 100) || n FROM generate_series(1, 10000) n; ANALYZE large;";

/// A metric of a caller; 0 without one.
async fn metric(gateway: &Gateway, name: &str, caller: &str) -> f64 {
    let start = format!("servicedb_gateway_{name}{{service=\"{caller}\"}} ");
    let metrics = gateway.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// What a caller was charged, once it is more than this: costs that are not known yet are charged after the answer.
async fn charged(gateway: &Gateway, caller: &str, before: f64) -> f64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let now = metric(gateway, "cost_total", caller).await;
        if now > before {
            return now;
        }
        assert!(Instant::now() < deadline, "nothing is charged: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the server gives generic plans.
async fn has_plans(gateway: &Gateway) -> bool {
    let version = "SELECT current_setting('server_version_num')::int4 >= 160000";
    gateway.admin.query_one(version, &[]).await.expect("a version").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_costs_what_its_plan_does() {
    let limits = json!({"limits": {"costPerSecond": 1, "costBurst": 10_000_000}});
    let gateway = Gateway::start("costs_plan", &format!("{SCHEMA} {LARGE}"), limits).await;
    let (caller, mut sum) = ("shop/app", 0.0);
    let scan = "/large?select=id&filler=eq.y";
    for path in ["/health", "/stats", "/connections", "/performance", "/schema/large", "/migrations", "/openapi.json"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.get("/large?select=nothing").await.status, 400);
    assert_eq!(metric(&gateway, "cost_total", caller).await, 0.0, "these cost nothing");
    // Of each shape the first time, which asks for the plan, and the second time, which knows it.
    let mut costs = Vec::new();
    for path in [scan, "/large/7?select=id"] {
        assert_eq!(gateway.get(path).await.status, 200);
        let first = charged(&gateway, caller, sum).await - sum;
        assert_eq!(gateway.get(path).await.status, 200);
        let second = metric(&gateway, "cost_total", caller).await - sum - first;
        assert!((first - second).abs() < 0.001, "{path}: {first} and {second}");
        sum += first + second;
        costs.push(first);
    }
    let insert = async |rows: usize, from: usize| {
        let before = metric(&gateway, "cost_total", caller).await;
        let body: Vec<Value> = (from..from + rows).map(|id| json!({"id": id, "name": format!("n{id}")})).collect();
        assert_eq!(gateway.write("POST", "/actors", &[], json!(body)).await.status, 201);
        before
    };
    let before = insert(1, 1_000).await;
    charged(&gateway, caller, before + 1.0).await;
    let before = insert(100, 2_000).await;
    let hundred = metric(&gateway, "cost_total", caller).await - before;
    let before = insert(200, 3_000).await;
    let two_hundred = metric(&gateway, "cost_total", caller).await - before;
    assert!((two_hundred - 2.0 * hundred).abs() < 0.001, "{hundred} and {two_hundred}");
    assert!(hundred > 100.0, "a unit for each row: {hundred}");
    // Each operation of a transaction.
    let operations = json!([{"method": "GET", "path": scan}, {"method": "GET", "path": "/large/7?select=id"}]);
    let before = metric(&gateway, "cost_total", caller).await;
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"operations": operations})).await.status, 200);
    let both = metric(&gateway, "cost_total", caller).await - before;
    assert!((both - costs[0] - costs[1]).abs() < 0.001, "{both} of {costs:?}");
    let told = gateway.log().matches("before 16").count();
    if has_plans(&gateway).await {
        let row = "SELECT pg_relation_size('large') / 8192.0 + 10000 * 0.0125";
        let row = format!("SELECT ({row})::float8");
        let least: f64 = gateway.admin.query_one(&row, &[]).await.expect("a number").get(0);
        assert!(costs[0] >= least && costs[0] < 3.0 * least, "a scan costs its pages and rows: {costs:?}, {least}");
        assert!(costs[1] > 1.0 && costs[1] < 20.0, "a row by its key: {costs:?}");
        assert_eq!(told, 0);
        // A new schema may have a new plan.
        gateway.admin.batch_execute("CREATE INDEX ON large (filler)").await.expect("an index");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let before = metric(&gateway, "cost_total", caller).await;
            assert_eq!(gateway.get(scan).await.status, 200);
            if charged(&gateway, caller, before).await - before < costs[0] / 2.0 {
                break;
            }
            assert!(Instant::now() < deadline, "the plan of before the index is charged");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    } else {
        assert_eq!((costs, told), (vec![1.0, 1.0], 1), "the least, and that is logged once");
    }
    assert_eq!(metric(&gateway, "limited_total", caller).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_has_spent_too_much_waits() {
    let limits = json!({"limits": {"costPerSecond": 20, "costBurst": 20, "transactionIdleSeconds": 60}});
    let gateway = Gateway::start("costs_limit", SCHEMA, limits).await;
    let begun = gateway.write("POST", "/transaction", &[], json!({"begin": true})).await.ok();
    let id = begun["txn_id"].as_str().expect("an id");
    let rows: Vec<Value> = (100..500).map(|id| json!({"id": id, "name": format!("n{id}")})).collect();
    let created = gateway.write("POST", "/actors", &[], json!(rows)).await;
    assert_eq!(created.status, 201, "one may cost more than a burst: {created:?}");
    let refused = gateway.get("/actors/1").await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("SDB409")), "{refused:?}");
    assert!(refused.header("content-type").starts_with("application/problem+json"), "{refused:?}");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    // 400 units, of which 20 were there.
    assert!((1..=21).contains(&wait), "{refused:?}");
    let create = json!({"id": 9, "name": "nine"});
    for (path, body) in [
        ("/actors", create.clone()),
        ("/rpc/who", json!({})),
        ("/transaction", json!({"begin": true})),
        ("/transaction", json!({"operations": [{"method": "GET", "path": "/actors/1"}]})),
    ] {
        assert_eq!(gateway.write("POST", path, &[], body).await.status, 429, "{path}");
    }
    assert_eq!(metric(&gateway, "limited_total", "shop/app").await, 5.0);
    // Others are not concerned, and neither is a request that costs nothing, nor a transaction that was begun before.
    let reader = gateway.token("shop/reader");
    assert_eq!(gateway.send(&reader, "GET", "/actors/1", &[], None).await.status, 200);
    assert_eq!(metric(&gateway, "limited_total", "shop/reader").await, 0.0);
    assert_eq!(gateway.get("/health").await.status, 200);
    let within = gateway.write("POST", "/actors", &[("txn-id", id)], create).await;
    assert_eq!(within.status, 201, "{within:?}");
    assert_eq!(gateway.write("POST", "/transaction", &[], json!({"commit": id})).await.status, 200);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while gateway.get("/actors/9").await.status != 200 {
        assert!(Instant::now() < deadline, "it is refused for longer than Retry-After said");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_before_the_answer_pays_all_the_same() {
    let limits =
        json!({"limits": {"costPerSecond": 1, "costBurst": 1000, "connections": 1, "waitMilliseconds": 60_000}});
    let schema = format!(
        "{SCHEMA} {LARGE} CREATE VIEW slow AS SELECT count(*) AS n FROM large, pg_sleep(30);
         CREATE FUNCTION pause() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(3)';"
    );
    let gateway = Gateway::start("costs_leave", &schema, limits).await;
    let runs = async {
        let sleeps =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'costs_leave_gateway' AND wait_event = 'PgSleep'";
        while gateway.admin.query_one(sleeps, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Another request waits for the only connection.
        let next = gateway.background("/rpc/pause");
        while !gateway.metrics().await.contains("servicedb_gateway_requests_waiting 1\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (next,)
    };
    let next = tokio::select! {
        answer = gateway.get("/slow") => panic!("it is slow: {answer:?}"),
        (next,) = runs => next,
    };
    // By its own plan, and before the one that waits.
    let cost = charged(&gateway, "shop/app", 0.0).await;
    let least = if has_plans(&gateway).await { 100.0 } else { 1.0 };
    assert!(cost >= least, "{cost}");
    assert_eq!(next.await.expect("an answer"), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_grpc_it_is_an_exhausted_resource() {
    let (gateway, channel) = grpc_gateway("costs_grpc", json!({"costPerSecond": 1, "costBurst": 1})).await;
    let mut data = client(&channel, &gateway.token("shop/app"));
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Err(status) = data.get_document(get("actors", "1")).await {
            break status;
        }
        assert!(Instant::now() < deadline, "it is never refused");
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("SDB409"));
    let delay = details.retry_info().and_then(|info| info.retry_delay).expect("a time");
    assert!(delay >= Duration::from_secs(1), "{delay:?}");
}
