//! Kept answers: each test has a server of its own, since every commit of a server counts.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::SCHEMA;
use crate::server::{Answer, Gateway, Server};

/// How long a state is waited for that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(collections: &[&str]) -> Value {
    json!({"cache": {"collections": collections, "megabytes": 1}})
}

/// A number of a collection in the metrics: 0 without one.
async fn number(gateway: &Gateway, name: &str, collection: &str) -> u64 {
    let start = format!("servicedb_gateway_cache_{name}_total{{collection=\"{collection}\"}} ");
    let metrics = gateway.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |value| value.parse().expect("a number"))
}

/// The hits and misses of all collections.
async fn all(gateway: &Gateway) -> u64 {
    let metrics = gateway.metrics().await;
    let of = |line: &str| {
        line.starts_with("servicedb_gateway_cache_hits_total")
            || line.starts_with("servicedb_gateway_cache_misses_total")
    };
    let numbers = metrics.lines().filter(|&line| of(line)).filter_map(|line| line.rsplit(' ').next());
    numbers.map(|number| number.parse::<u64>().expect("a number")).sum()
}

/// A request.
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Value,
}

impl<'a> Ask<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: &[], body: Value::Null }
    }

    async fn send(&self, gateway: &Gateway) -> Answer {
        gateway.write(self.method, self.path, self.headers, self.body.clone()).await
    }

    /// Its answer from the cache. The server's own transactions may come in between.
    async fn hit(&self, gateway: &Gateway, collection: &str) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = number(gateway, "hits", collection).await;
            let answer = self.send(gateway).await;
            if number(gateway, "hits", collection).await > before {
                return answer;
            }
            assert!(Instant::now() < deadline, "{} is not kept: {answer:?} {}", self.path, gateway.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_answers_are_those_of_the_database() {
    let gateway =
        Gateway::start_at(Server::alone(), "kept", SCHEMA, settings(&["films", "public.directors", "recent", "none"]))
            .await;
    let embedded = "/films?select=id,director:directors!films_director_id_fkey(name)&order=id";
    let csv = [("accept", "text/csv")];
    let single = [("accept", "application/vnd.pgrst.object+json")];
    let counted = [("prefer", "count=exact")];
    let groups = json!({"groupBy": ["rating"], "aggregates": [{"function": "count"}], "order": [{"column": "rating"}]});
    let tree = json!({"select": ["id"], "where": {"column": "year", "operator": "gte", "value": 1960}, "order": [{"column": "id"}]});
    let get = |path, headers| Ask { headers, ..Ask::get(path) };
    let post = |path, body: &Value| Ask { method: "POST", path, headers: &[], body: body.clone() };
    let asks = [
        Ask::get("/films?select=id,title,rating,released&order=id"),
        Ask::get("/films?id=eq.99"),
        Ask::get(embedded),
        get("/films?select=id,title&order=id.desc", &csv[..]),
        get("/films?id=eq.1", &single[..]),
        get("/films?order=id&limit=2", &counted[..]),
        Ask::get("/films/count?year=gt.1960"),
        post("/films/aggregate", &groups),
        post("/films/query", &tree),
    ];
    for ask in &asks {
        let first = ask.send(&gateway).await;
        let hit = ask.hit(&gateway, "films").await;
        assert_eq!((first.status, &first.text), (hit.status, &hit.text), "{}", ask.path);
        for header in ["content-type", "content-range", "content-length"] {
            assert_eq!(first.header(header), hit.header(header), "{}: {header}", ask.path);
        }
    }
    let ask = &asks[0];
    let titles = async || -> Vec<String> {
        let answer = ask.send(&gateway).await.ok();
        answer.as_array().expect("rows").iter().map(|row| row["title"].as_str().expect("a text").to_owned()).collect()
    };

    // Whoever writes, however it ends.
    let kept = ask.hit(&gateway, "films").await;
    gateway.admin.batch_execute("BEGIN; UPDATE films SET title = 'never'; ROLLBACK").await.expect("a rollback");
    assert_eq!(ask.send(&gateway).await.text, kept.text);
    ask.hit(&gateway, "films").await;
    gateway.admin.batch_execute("BEGIN; UPDATE films SET title = 'Late Spring' WHERE id = 1").await.expect("an update");
    assert_eq!(ask.send(&gateway).await.text, kept.text);
    ask.hit(&gateway, "films").await;
    gateway.admin.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(titles().await[0], "Late Spring");
    Ask::get(embedded).hit(&gateway, "films").await;
    gateway.admin.batch_execute("UPDATE directors SET name = 'Yasujiro Ozu' WHERE id = 1").await.expect("an update");
    assert_eq!(Ask::get(embedded).send(&gateway).await.ok()[0]["director"]["name"], "Yasujiro Ozu");
    for (method, path, body, status) in [
        ("PATCH", "/films/1", json!({"title": "Early Summer"}), 204),
        ("POST", "/films", json!({"id": 0, "title": "Floating Weeds"}), 201),
        ("DELETE", "/films/0", Value::Null, 204),
    ] {
        ask.hit(&gateway, "films").await;
        let before = titles().await;
        assert_eq!(gateway.write(method, path, &[], body).await.status, status, "{method}");
        assert_ne!(titles().await, before, "{method}");
    }

    // A transaction sees what it has written, and nobody else does.
    ask.hit(&gateway, "films").await;
    let before = titles().await;
    let begun = gateway.write("POST", "/transaction", &[], json!({"begin": true})).await.ok();
    let id = begun["txn_id"].as_str().expect("an id");
    let within = [("txn-id", id)];
    assert_eq!(gateway.write("PATCH", "/films/1", &within, json!({"title": "within"})).await.status, 204);
    let inside = Ask { headers: &within, ..Ask::get(ask.path) };
    assert!(inside.send(&gateway).await.text.contains("within"));
    assert_eq!(titles().await, before);
    gateway.write("POST", "/transaction", &[], json!({"rollback": id})).await.ok();
    assert_eq!(titles().await, before);

    // Rights are those of now.
    ask.hit(&gateway, "films").await;
    gateway.admin.batch_execute("REVOKE SELECT ON films FROM kept_app").await.expect("a revocation");
    assert_eq!(ask.send(&gateway).await.status, 403);
    gateway.admin.batch_execute("GRANT SELECT ON films TO kept_app").await.expect("a grant");

    // Changes of the schema that change no row.
    ask.hit(&gateway, "films").await;
    gateway.admin.batch_execute("ALTER TYPE rating RENAME VALUE 'G' TO 'U'").await.expect("a change");
    assert_eq!(ask.send(&gateway).await.ok()[0]["rating"], "U");
    ask.hit(&gateway, "films").await;
    gateway.admin.batch_execute("TRUNCATE films CASCADE").await.expect("an end");
    assert_eq!(ask.send(&gateway).await.ok(), json!([]));
    ask.hit(&gateway, "films").await;

    let stats = gateway.get("/stats").await.ok();
    let cache = &stats["cache"];
    let of = |name: &str| {
        let collections = cache["collections"].as_array().expect("collections");
        collections.iter().find(|one| one["name"] == name).expect(name).clone()
    };
    assert!(of("films")["hits"].as_u64() > Some(10) && of("films")["misses"].as_u64() > Some(5), "{cache}");
    assert_eq!(of("public.directors")["cached"], true);
    assert_eq!((&of("recent")["cached"], &of("recent")["reason"]), (&json!(false), &json!("it is a view")));
    assert!(of("none")["reason"].as_str().is_some_and(|reason| reason.contains("no such collection")));
    assert_eq!(cache["limit_bytes"], 1 << 20);
    assert!(cache["size_bytes"].as_u64() > Some(0) && cache["entries"].as_u64() > Some(0), "{cache}");
    assert!(stats["database"]["name"] == "kept" && gateway.log().contains("it is a view"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_depends_on_more_than_the_rows_is_not_kept() {
    let timed = "CREATE TABLE timed (id int PRIMARY KEY, until timestamptz); INSERT INTO timed VALUES (1, now() + interval '1 hour');
        ALTER TABLE timed ENABLE ROW LEVEL SECURITY; CREATE POLICY until ON timed USING (until > now());
        CREATE DOMAIN clock AS timetz; CREATE TABLE hours (id int PRIMARY KEY, opens clock[]);";
    let collections = ["films", "recent", "timed", "hours", "secrets"];
    let gateway =
        Gateway::start_at(Server::alone(), "unkept", &format!("{SCHEMA} {timed}"), settings(&collections)).await;
    for path in [
        "/films?select=id&released=lt.now",
        "/films?select=id&released=in.(Yesterday,2020-01-01)",
        "/films?select=id,day:title::text",
        "/films?select=id,roles(character)",
        "/films/1",
        "/recent",
        "/timed",
        "/hours",
        "/directors",
        "/films?select=id&order=id&page_token=",
    ] {
        for _ in 0..2 {
            assert_eq!(gateway.get(path).await.status, 200, "{path}");
        }
        assert_eq!(all(&gateway).await, 0, "{path}");
    }

    // Each caller has answers of its own.
    let own = Ask::get("/secrets?select=id,owner");
    assert_eq!(own.hit(&gateway, "secrets").await.ok(), json!([{"id": 1, "owner": "shop/app"}]));
    let reader = gateway.token("shop/reader");
    for _ in 0..3 {
        let answer = gateway.send(&reader, "GET", own.path, &[], None).await.ok();
        assert_eq!(answer, json!([{"id": 2, "owner": "shop/reader"}]));
    }
    // A policy that knows the time, before the gateway has read it.
    own.hit(&gateway, "secrets").await;
    let until = until(&gateway, "1500 milliseconds").await;
    let policy = format!("ALTER POLICY own ON secrets USING (owner = 'shop/app' AND clock_timestamp() < {until})");
    gateway.admin.batch_execute(&policy).await.expect("a policy");
    let deadline = Instant::now() + PATIENCE;
    while own.send(&gateway).await.ok() != json!([]) {
        assert!(Instant::now() < deadline, "the policy's time is over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = gateway.get("/stats").await.ok();
        let collections = stats["cache"]["collections"].as_array().expect("collections").clone();
        let secrets = collections.iter().find(|one| one["name"] == "secrets").expect("it is declared");
        if secrets["reason"].as_str().is_some_and(|reason| reason.contains("row policy \"own\"")) {
            break;
        }
        assert!(Instant::now() < deadline, "{secrets}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A time from now on, as SQL.
async fn until(gateway: &Gateway, interval: &str) -> String {
    let row = gateway.admin.query_one(&format!("SELECT (clock_timestamp() + interval '{interval}')::text"), &[]).await;
    format!("'{}'::timestamptz", row.expect("a time").get::<_, String>(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_lost_commits_is_another_one() {
    let server = Server::alone();
    let gateway = Gateway::start_at(server, "lost", SCHEMA, settings(&["counters"])).await;
    let ask = Ask::get("/counters?select=name,value&name=eq.one");
    let value = async || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = ask.send(&gateway).await;
            if answer.status == 200 {
                return answer.json()[0]["value"].as_i64().expect("a number");
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    for round in 1..4 {
        let admin = server.connect("lost", "postgres").await;
        // Seen, and not written to disk yet.
        let unsafe_update =
            format!("SET synchronous_commit = off; UPDATE counters SET value = {} WHERE name = 'one'", round * 100);
        admin.batch_execute(&unsafe_update).await.expect("an update");
        for _ in 0..3 {
            assert_eq!(value().await, round * 100);
        }
        tokio::task::block_in_place(|| server.fail_over());
        let admin = server.connect("lost", "postgres").await;
        let sql = "SELECT value FROM counters WHERE name = 'one'";
        let left: i64 = admin.query_one(sql, &[]).await.expect("a row").get(0);
        assert_eq!(value().await, left, "round {round}");
        // As many transactions as were lost, at least.
        for step in 1..4 {
            let now = round * 100 + step;
            admin
                .batch_execute(&format!("UPDATE counters SET value = {now} WHERE name = 'one'"))
                .await
                .expect("an update");
            assert_eq!(value().await, now, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_has_an_answer_of_other_settings() {
    let lasts =
        "CREATE TABLE lasts (id int PRIMARY KEY, takes interval); INSERT INTO lasts VALUES (1, '1 day 2 hours');";
    let gateway =
        Gateway::start_at(Server::alone(), "defaults", &format!("{SCHEMA} {lasts}"), settings(&["lasts"])).await;
    let ask = Ask::get("/lasts?select=takes");
    ask.hit(&gateway, "lasts").await;
    let set = "ALTER DATABASE defaults SET intervalstyle = 'iso_8601'";
    gateway.admin.batch_execute(set).await.expect("a setting");
    // The session of before keeps its own.
    let kept = ask.hit(&gateway, "lasts").await.ok();
    assert_eq!(kept, json!([{"takes": "1 day 02:00:00"}]));
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND application_name = $2";
    let role = "defaults_app";
    gateway.admin.execute(ended, &[&gateway.login, &role]).await.expect("its end");
    let deadline = Instant::now() + PATIENCE;
    let anew = loop {
        let answer = ask.send(&gateway).await;
        if answer.status == 200 {
            break answer.ok();
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(anew, json!([{"takes": "P1DT2H"}]));
    assert_eq!(ask.hit(&gateway, "lasts").await.ok(), json!([{"takes": "P1DT2H"}]));
}

/// Rows by their keys: each key goes through numbered states.
const KEYS: usize = 6;
/// How many states each writer makes.
const STATES: usize = 80;
/// What a key's row has added to its id in some states.
const MOVED: i64 = 1000;

/// The id of a key's row in a state; none, if it has no row then.
fn place(key: usize, state: i64) -> Option<i64> {
    let id = i64::try_from(key).expect("a small number") + if state % 7 == 3 { MOVED } else { 0 };
    (state % 5 != 4).then_some(id)
}

fn owner(key: usize) -> &'static str {
    if key.is_multiple_of(3) { "shop/reader" } else { "shop/app" }
}

/// The statements of one transaction that bring a key into a state.
fn change(key: usize, state: i64) -> String {
    let found = format!("id % {MOVED} = {key}");
    match place(key, state) {
        None => format!("DELETE FROM ledger WHERE {found}"),
        Some(id) => format!(
            "UPDATE ledger SET id = {id}, n = {state} WHERE {found}; INSERT INTO ledger SELECT {id}, '{}', {state} \
             WHERE NOT EXISTS (SELECT FROM ledger WHERE {found})",
            owner(key)
        ),
    }
}

/// The states that were committed, and those whose transaction has begun.
#[derive(Default)]
struct States {
    begun: [AtomicI64; KEYS],
    done: [AtomicI64; KEYS],
    over: AtomicBool,
}

impl States {
    /// Checks an answer to a request of a caller that began when `floor` was committed.
    fn check(&self, caller: &str, floor: &[i64], answer: &Answer) {
        let rows = answer.json();
        let rows: Vec<(i64, i64)> = rows
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| (row["id"].as_i64().expect("an id"), row["n"].as_i64().expect("a state")))
            .collect();
        for (key, (floor, begun)) in floor.iter().zip(&self.begun).enumerate() {
            let own: Vec<_> = rows.iter().filter(|(id, _)| *id % MOVED == i64::try_from(key).expect("small")).collect();
            if owner(key) != caller {
                assert!(own.is_empty(), "{caller} sees {own:?}");
                continue;
            }
            let mut possible = *floor..=begun.load(Ordering::SeqCst);
            match own.as_slice() {
                [] => assert!(possible.any(|state| place(key, state).is_none()), "{key} is missing: {possible:?}"),
                [(id, state)] => {
                    assert!(possible.contains(state), "{key} is in {state}, and not in {possible:?}");
                    assert_eq!(place(key, *state), Some(*id), "{key} in {state}");
                }
                several => panic!("{key} has {several:?}"),
            }
        }
    }
}

async fn write(server: &Server, states: &States, (writer, seed): (usize, u64)) {
    let client = server.connect("raced", "postgres").await;
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..STATES {
        let key = random.random_range(0..KEYS / 2) * 2 + writer;
        let state = states.begun[key].load(Ordering::SeqCst) + 1;
        if random.random_bool(0.2) {
            let undone = format!("BEGIN; UPDATE ledger SET n = -1 WHERE id % {MOVED} = {key}; ROLLBACK");
            client.batch_execute(&undone).await.expect("a rollback");
        }
        states.begun[key].store(state, Ordering::SeqCst);
        client.batch_execute(&change(key, state)).await.expect("a change");
        states.done[key].store(state, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
    }
}

async fn read(gateway: &Gateway, states: &States, (caller, path): (&str, &str)) {
    let token = gateway.token(caller);
    while !states.over.load(Ordering::SeqCst) {
        let floor: Vec<i64> = states.done.iter().map(|state| state.load(Ordering::SeqCst)).collect();
        let answer = gateway.send(&token, "GET", path, &[], None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        states.check(caller, &floor, &answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_gets_what_a_commit_has_replaced() {
    let schema = "CREATE TABLE ledger (id bigint PRIMARY KEY, owner text NOT NULL, n bigint NOT NULL);
        ALTER TABLE ledger ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON ledger USING (owner = current_setting('request.jwt.claims')::json ->> 'sub');";
    let server = Server::alone();
    let gateway = Gateway::start_at(server, "raced", schema, settings(&["ledger"])).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let states = States::default();
    for key in 0..KEYS {
        gateway.admin.batch_execute(&change(key, 0)).await.expect("a row");
    }
    let writers = async {
        tokio::join!(write(server, &states, (0, seed)), write(server, &states, (1, seed ^ 1)));
        states.over.store(true, Ordering::SeqCst);
    };
    let (rows, filtered) = ("/ledger?select=id,n&order=id", "/ledger?select=n,id&id=gte.0&order=n,id");
    tokio::join!(
        writers,
        read(&gateway, &states, ("shop/app", rows)),
        read(&gateway, &states, ("shop/app", rows)),
        read(&gateway, &states, ("shop/app", filtered)),
        read(&gateway, &states, ("shop/reader", rows)),
    );
    assert!(number(&gateway, "misses", "ledger").await > 0);
    Ask::get(rows).hit(&gateway, "ledger").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_answers_have_their_room() {
    let large = "CREATE TABLE large (id int PRIMARY KEY, filler text); \
                 INSERT INTO large SELECT n, repeat('x', 10000) FROM generate_series(1, 400) n; ANALYZE large;";
    let gateway = Gateway::start_at(Server::alone(), "roomy", large, settings(&["large"])).await;
    // 200 answers of 10 kB each, of which a hundred fit.
    for id in 1..=200 {
        assert_eq!(gateway.get(&format!("/large?id=eq.{id}")).await.status, 200);
    }
    let metrics = gateway.metrics().await;
    let of = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("servicedb_gateway_cache_{name} ")));
        line.expect(name).parse().expect("a number")
    };
    let (size, entries, evictions) = (of("size_bytes"), of("entries"), of("evictions_total"));
    assert!(size <= 1 << 20 && entries > 50 && entries + evictions == 200, "{size} {entries} {evictions}");
    // Too large an answer is not kept, whether it is sent whole or row by row.
    for path in ["/large?id=lte.20", "/large"] {
        for _ in 0..2 {
            let misses = number(&gateway, "misses", "large").await;
            assert_eq!(gateway.drain(path).await.1, b']');
            assert_eq!(number(&gateway, "misses", "large").await, misses + 1, "{path}");
        }
    }
    let answer = gateway.get("/large?id=eq.200").await.ok();
    assert_eq!(answer[0]["id"], 200);
}
