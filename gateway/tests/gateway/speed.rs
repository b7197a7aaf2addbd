//! Speed beside PostgreSQL's own clients, in one run on one machine: ratios. Ignored, since a build without
//! optimisation and a busy machine say nothing; `make bench` runs it on a release build.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use servicedb_gateway::config::{Database, Tls};
use servicedb_gateway::database::Connector;
use servicedb_gateway::serve::{Certificate, serve};
use tokio_postgres::{Client, Statement};

use crate::grpc;
use crate::load::{Request, Speed, ask, connect, connector, load};
use crate::server::{Gateway, Server};
use crate::tls::{authority, certificate};

/// Clients of the gateway, and of pgbench.
const CLIENTS: usize = 32;
/// Connections of clients when memory is measured.
const MANY: usize = 256;
/// Of each sample.
const TIME: Duration = Duration::from_secs(5);
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
    request: fn(usize) -> Request,
}

fn cases() -> Vec<Case> {
    let values: Vec<_> = (0..1000).map(|n| format!("('row {n}')")).collect();
    vec![
        Case {
            name: "a row by its key",
            target: 0.40,
            script: format!("\\set id random(1, {ROWS})\nSELECT id, name, author_id FROM items WHERE id = :id;\n"),
            mode: "prepared",
            request: |n| read(format!("/items/{}", 1 + n % ROWS)),
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
                read(format!("/items?select=id,name,author:authors(name)&id=gt.{after}&order=id&limit=100"))
            },
        },
        Case {
            name: "an insert",
            target: 0.5,
            script: "INSERT INTO notes (body) VALUES ('hello');\n".to_owned(),
            mode: "prepared",
            request: |_| insert(json!({"body": "hello"})),
        },
        Case {
            name: "an insert of 1000 rows",
            target: 0.5,
            script: format!("INSERT INTO notes (body) VALUES {};\n", values.join(", ")),
            mode: "simple",
            request: |_| {
                let rows: Vec<_> = (0..1000).map(|n| json!({"body": format!("row {n}")})).collect();
                insert(rows.into())
            },
        },
    ]
}

fn read(path: String) -> Request {
    Request { method: "GET", path: format!("/api/db{path}"), body: String::new() }
}

fn insert(rows: Value) -> Request {
    Request { method: "POST", path: "/api/db/notes".to_owned(), body: rows.to_string() }
}

/// What is measured: a gateway with TLS on both sides.
struct Bench {
    gateway: Gateway,
    folder: PathBuf,
    token: String,
}

impl Bench {
    async fn start() -> Self {
        let server = Server::shared();
        let folder = server.folder().join("speed");
        std::fs::create_dir_all(&folder).expect("a folder");
        authority(&folder);
        certificate(&folder, "server", "/CN=localhost");
        certificate(&folder, "client", "/CN=speed_gateway");
        server.with_tls(&folder, "speed").await;
        let path = |name: &str| folder.join(name).display().to_string();
        let settings = json!({
            "tls": {"certificate": path("server.crt"), "key": path("server.key")},
            "database": {
                "host": "localhost", "port": server.port, "name": "speed", "user": "speed_gateway", "ca": path("ca.crt"),
                "client": {"certificate": path("client.crt"), "key": path("client.key")},
            },
        });
        let gateway = Gateway::start("speed", TABLES, settings).await;
        // The statistics of the tables that all read.
        gateway.admin.batch_execute("VACUUM ANALYZE").await.expect("statistics");
        let token = gateway.token("shop/app");
        Self { gateway, folder, token }
    }

    fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    fn address(&self) -> String {
        self.gateway.url.replace("http://", "")
    }

    async fn load(&self, address: &str, request: fn(usize) -> Request) -> Speed {
        load(&self.authority(), address, &self.token, CLIENTS, TIME, request).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make bench runs it on a release build"]
async fn requests_beside_the_same_statements_of_pgbench() {
    let bench = Bench::start().await;
    let idle = bench.gateway.memory();
    let many = memory_of_many(&bench).await;
    let bare = bare(&bench).await;
    let mut table = String::from(
        "| Request | gateway, 1/s | beside it, 1/s | ratio | target | p50, ms | p99, ms | CPU of PostgreSQL, µs | of the gateway, µs |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for case in cases() {
        let (mut ours, mut theirs, mut least) = (Vec::new(), Vec::new(), Vec::new());
        let mut processors = Vec::new();
        for _ in 0..SAMPLES {
            theirs.push(pgbench(&case));
            let before = processor_times(&bench.gateway);
            let speed = bench.load(&bench.address(), case.request).await;
            let requests = speed.rate * TIME.as_secs_f64();
            let after = processor_times(&bench.gateway);
            processors.push([0, 1].map(|place| (after[place] - before[place]) as f64 * 10_000.0 / requests));
            ours.push(speed);
            if case.name == "a row by its key" {
                least.push(bench.load(&bare, case.request).await.rate);
            }
        }
        let theirs = median(theirs);
        let row = line(&mut table, case.name, &ours, theirs, case.target);
        let _ = writeln!(
            table,
            " {} |",
            [0, 1]
                .map(|place| format!("{:.0}", median(processors.iter().map(|pair| pair[place]).collect())))
                .join(" | ")
        );
        if !least.is_empty() {
            let least = median(least);
            let _ = writeln!(
                table,
                "| the same, beside a bare axum server | {row:.0} | {least:.0} | {:.2} | 0.75 | | | | |",
                row / least
            );
        }
    }
    for (name, ours, theirs) in grpc_beside_rest(&bench).await {
        line(&mut table, name, &ours, median(theirs.iter().map(|speed| speed.rate).collect()), 0.7);
        table.push_str(" | |\n");
    }
    println!("{CLIENTS} clients, TLS on both sides, clients, gateway and PostgreSQL on the same processors\n\n{table}");
    println!("Memory at most: {idle} KiB idle, {many} KiB with {MANY} connections");
}

/// A line of the table but for the processors' times; the rate.
fn line(table: &mut String, name: &str, ours: &[Speed], theirs: f64, target: f64) -> f64 {
    let mut ours = ours.to_vec();
    ours.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let ours = ours[ours.len() / 2];
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let _ = write!(
        table,
        "| {name} | {:.0} | {theirs:.0} | {:.2} | {target:.2} | {:.2} | {:.2} |",
        ours.rate,
        ours.rate / theirs,
        millis(ours.half),
        millis(ours.most),
    );
    ours.rate
}

/// Hundredths of a second of the processors that PostgreSQL's processes and the gateway have had.
fn processor_times(gateway: &Gateway) -> [u64; 2] {
    let fields = |path: PathBuf| -> Option<Vec<String>> {
        let text = std::fs::read_to_string(path.join("stat")).ok()?;
        // After the name, which may have blanks.
        Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
    };
    let spent =
        |fields: &[String]| fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum::<u64>();
    let server = std::fs::read_to_string(Server::shared().folder().join("data/postmaster.pid")).expect("a file");
    let server = server.lines().next().expect("a process").to_owned();
    // With what those had that have ended.
    let own = fields(PathBuf::from(format!("/proc/{server}"))).expect("the server");
    let ended = own[13..15].iter().map(|field| field.parse::<u64>().expect("a number")).sum::<u64>();
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok).map(|entry| entry.path());
    let running = processes.filter_map(fields).filter(|fields| fields[1] == server).map(|fields| spent(&fields));
    let of_server = ended + running.sum::<u64>();
    [of_server, spent(&fields(gateway.process()).expect("the gateway"))]
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
        .env("PGSSLMODE", "require")
        .output()
        .expect("pgbench runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let _ = std::fs::remove_file(file);
    tps.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The most memory of the gateway while so many clients are connected, and have asked.
async fn memory_of_many(bench: &Bench) -> u64 {
    let connector = connector(&bench.authority());
    let request = read("/items/1".to_owned()).bytes(&bench.token);
    let address = bench.address();
    let connected = (0..MANY).map(|_| connect(&connector, &address));
    let mut streams = futures::future::join_all(connected).await;
    for stream in &mut streams {
        ask(stream, &request, &mut Vec::new()).await;
    }
    let most = bench.gateway.memory();
    drop(streams);
    most
}

/// The same reads by gRPC and by REST, each by a usual client of Rust.
async fn grpc_beside_rest(bench: &Bench) -> Vec<(&'static str, Vec<Speed>, Vec<Speed>)> {
    let url = bench.gateway.url.replace("http://", "https://");
    let root = std::fs::read(bench.authority()).expect("a file");
    let root = reqwest::Certificate::from_pem(&root).expect("a certificate");
    let http = || reqwest::Client::builder().tls_certs_only([root.clone()]).http1_only().build().expect("a client");
    let next = Arc::new(AtomicUsize::new(0));
    let number = move || 1 + next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919) % ROWS;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let rest = (0..CLIENTS).map(|_| {
            let (http, url, token, number) = (http(), url.clone(), bench.token.clone(), number.clone());
            async move || {
                let asked = http.get(format!("{url}/api/db/items/{}", number())).bearer_auth(&token);
                let answer = asked.send().await.and_then(reqwest::Response::error_for_status).expect("an answer");
                answer.bytes().await.expect("a body");
            }
        });
        theirs.push(timed(rest.collect()).await);
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let channel = grpc::channel(&url, &bench.authority()).await;
            let (client, number) = (grpc::client(&channel, &bench.token), number.clone());
            clients.push(async move || {
                client.clone().get_document(grpc::get("items", &number().to_string())).await.expect("a document");
            });
        }
        ours.push(timed(clients).await);
    }
    vec![("a row by its key by gRPC, beside REST", ours, theirs)]
}

/// Calls each of these again and again for a time, side by side.
async fn timed(clients: Vec<impl AsyncFn()>) -> Speed {
    let began = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|client| async move {
            let mut times = Vec::new();
            while began.elapsed() < TIME {
                let sent = Instant::now();
                client().await;
                times.push(sent.elapsed());
            }
            times
        })
        .collect();
    let times = futures::future::join_all(tasks).await.concat();
    Speed::of(times, began.elapsed())
}

/// A server of one statement, without anything that the gateway does beside it: its address.
async fn bare(bench: &Bench) -> String {
    let file = |name: &str| bench.folder.join(name);
    let connector = Connector::new(Database {
        host: "localhost".to_owned(),
        port: Server::shared().port,
        name: "speed".to_owned(),
        user: "postgres".to_owned(),
        ca: Some(bench.authority()),
        client: None,
        password_file: None,
        replicas: None,
    });
    let mut connections = Vec::new();
    // As many as the gateway has by default.
    for _ in 0..10 {
        let client = connector.connect("").await.expect("a connection");
        let statement =
            client.prepare("SELECT to_json(i)::text FROM items i WHERE id = $1").await.expect("a statement");
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
    let router = axum::Router::new().route("/api/db/items/{id}", axum::routing::get(read)).with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls =
        Certificate::read(&Tls { certificate: file("server.crt"), key: file("server.key") }).expect("a certificate");
    let (stop, stopped) = tokio::sync::watch::channel(None);
    // It serves until the process ends.
    std::mem::forget(stop);
    tokio::spawn(serve(listener, router, Some(Arc::new(tls)), CLIENTS * 2, stopped));
    address.to_string()
}
