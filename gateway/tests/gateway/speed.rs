//! Speed beside PostgreSQL's own clients, in one run on one machine: ratios. Ignored, since a build without
//! optimisation and a busy machine say nothing; `make bench` runs it on a release build.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls, Statement};

use crate::server::{Gateway, Server};

/// Clients of the gateway, and of pgbench.
const CLIENTS: usize = 32;
/// Of each sample.
const TIME: Duration = Duration::from_secs(6);
/// Samples of each; the median counts.
const SAMPLES: usize = 3;
/// Rows of `items`.
const ROWS: usize = 100_000;

const TABLES: &str = "
    CREATE TABLE authors (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, author_id int NOT NULL REFERENCES authors (id));
    CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
    INSERT INTO authors SELECT n, 'author ' || n FROM generate_series(1, 1000) n;
    INSERT INTO items SELECT n, 'item ' || n, 1 + n % 1000 FROM generate_series(1, 100000) n;";

/// A request of the gateway, and what pgbench runs beside it.
struct Case {
    name: &'static str,
    target: f64,
    script: String,
    /// How pgbench sends it.
    mode: &'static str,
    request: fn(usize) -> (&'static str, String, Option<Value>),
}

fn cases() -> Vec<Case> {
    let values: Vec<_> = (0..1000).map(|n| format!("('row {n}')")).collect();
    vec![
        Case {
            name: "a row by its key",
            target: 0.40,
            script: format!("\\set id random(1, {ROWS})\nSELECT id, name, author_id FROM items WHERE id = :id;\n"),
            mode: "prepared",
            request: |n| ("GET", format!("/items/{}", 1 + n % ROWS), None),
        },
        Case {
            name: "100 rows, each with an embedded one",
            target: 0.5,
            script: format!(
                "\\set id random(1, {})\nSELECT i.id, i.name, json_build_object('name', a.name) AS author FROM items i
                 LEFT JOIN authors a ON a.id = i.author_id WHERE i.id > :id ORDER BY i.id LIMIT 100;\n",
                ROWS - 200
            )
            .replace("\n                 ", " "),
            mode: "prepared",
            request: |n| {
                let after = 1 + n % (ROWS - 200);
                ("GET", format!("/items?select=id,name,author:authors(name)&id=gt.{after}&order=id&limit=100"), None)
            },
        },
        Case {
            name: "an insert",
            target: 0.5,
            script: "INSERT INTO notes (body) VALUES ('hello');\n".to_owned(),
            mode: "prepared",
            request: |_| ("POST", "/notes".to_owned(), Some(json!({"body": "hello"}))),
        },
        Case {
            name: "an insert of 1000 rows",
            target: 0.5,
            script: format!("INSERT INTO notes (body) VALUES {};\n", values.join(", ")),
            mode: "simple",
            request: |_| {
                let rows: Vec<_> = (0..1000).map(|n| json!({"body": format!("row {n}")})).collect();
                ("POST", "/notes".to_owned(), Some(rows.into()))
            },
        },
    ]
}

/// Requests a second, and the 50th and 99th percentile of their times.
struct Speed {
    rate: f64,
    half: Duration,
    most: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make bench runs it on a release build"]
async fn requests_beside_the_same_statements_of_pgbench() {
    let gateway = Gateway::start("speed", TABLES, json!({})).await;
    let bare = bare(&gateway).await;
    let mut table = String::from(
        "| Request | gateway, 1/s | pgbench, 1/s | ratio | target | p50, ms | p99, ms |\n|---|---|---|---|---|---|---|\n",
    );
    for case in cases() {
        let (mut ours, mut theirs, mut least) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            theirs.push(pgbench(&case));
            ours.push(load(&format!("{}/api/db", gateway.url), &gateway.token("shop/app"), case.request).await);
            if case.name == "a row by its key" {
                least.push(load(&bare, "", case.request).await.rate);
            }
        }
        ours.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let (ours, theirs) = (&ours[SAMPLES / 2], median(theirs));
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let _ = writeln!(
            table,
            "| {} | {:.0} | {theirs:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
            case.name,
            ours.rate,
            ours.rate / theirs,
            case.target,
            millis(ours.half),
            millis(ours.most),
        );
        if !least.is_empty() {
            let least = median(least);
            let ratio = ours.rate / least;
            let _ = writeln!(
                table,
                "| the same, beside a bare axum server | {:.0} | {least:.0} | {ratio:.2} | 0.75 | | |",
                ours.rate
            );
        }
    }
    println!("{CLIENTS} clients, no TLS on either side, everything on one machine\n\n{table}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn pgbench(case: &Case) -> f64 {
    let file = std::env::temp_dir().join(format!("servicedb-gateway-speed-{}.sql", std::process::id()));
    std::fs::write(&file, &case.script).expect("a file");
    let output = Command::new("pgbench")
        .args(["-n", "-h", "127.0.0.1", "-U", "postgres", "-j", "2", "-M", case.mode, "-f"])
        .arg::<&Path>(&file)
        .args(["-c", &CLIENTS.to_string(), "-T", &TIME.as_secs().to_string()])
        .args(["-p", &Server::shared().port.to_string(), "speed"])
        .output()
        .expect("pgbench runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let _ = std::fs::remove_file(file);
    tps.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

async fn load(base: &str, token: &str, request: fn(usize) -> (&'static str, String, Option<Value>)) -> Speed {
    let client = reqwest::Client::builder().pool_max_idle_per_host(CLIENTS).build().expect("a client");
    let (count, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let clients = (0..CLIENTS).map(|_| {
        let (client, base, token, count) = (client.clone(), base.to_owned(), token.to_owned(), count.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < TIME {
                // Far apart, as at random.
                let number = count.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919);
                let (method, path, body) = request(number);
                let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
                let mut asked = client.request(method, format!("{base}{path}")).bearer_auth(&token);
                if let Some(body) = body {
                    asked = asked.header("content-type", "application/json").body(body.to_string());
                }
                let sent = Instant::now();
                let answer = asked.send().await.expect("an answer");
                let status = answer.status();
                let text = answer.bytes().await.expect("a body");
                assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&text));
                times.push(sent.elapsed());
            }
            times
        })
    });
    let mut times = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        times.extend(client.await.expect("a client"));
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort();
    Speed { rate, half: times[times.len() / 2], most: times[times.len() * 99 / 100] }
}

/// A server of one statement, without anything that the gateway does beside it: its address.
async fn bare(gateway: &Gateway) -> String {
    let mut connections = Vec::new();
    // As many as the gateway has by default.
    for _ in 0..10 {
        let config = format!("host=127.0.0.1 port={} user=postgres dbname=speed", Server::shared().port);
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let sql = "SELECT to_json(i)::text FROM items i WHERE id = $1";
        let statement = client.prepare(sql).await.expect("a statement");
        connections.push((client, statement));
    }
    type State = Arc<(Vec<(Client, Statement)>, AtomicUsize)>;
    let read = |axum::extract::State(state): axum::extract::State<State>,
                axum::extract::Path(id): axum::extract::Path<i32>| async move {
        let next = state.1.fetch_add(1, Ordering::Relaxed) % state.0.len();
        let (client, statement) = &state.0[next];
        let row = client.query_one(statement, &[&id]).await.expect("a row");
        row.get::<_, String>(0)
    };
    let state: State = Arc::new((connections, AtomicUsize::new(0)));
    let router = axum::Router::new().route("/items/{id}", axum::routing::get(read)).with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    // The statistics of the tables that both read.
    gateway.admin.batch_execute("ANALYZE").await.expect("statistics");
    format!("http://{address}")
}
