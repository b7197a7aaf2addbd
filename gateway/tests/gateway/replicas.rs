//! Reads from a streaming replica, which lags, is lost, or is on another timeline.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use servicedb_gateway::grpc::proto::{BeginTransactionRequest, CommitTransactionRequest};
use tokio_postgres::Client;
use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::SCHEMA;
use crate::server::{Answer, Gateway, Server};

/// How long the replica may take to replay something.
const PATIENCE: Duration = Duration::from_secs(60);
const REPLICA: (&str, &str) = ("prefer", "read=replica");
const WRITTEN: (&str, &str) = ("prefer", "read-after");

struct Pair {
    primary: &'static Server,
    replica: &'static Server,
    gateway: Gateway,
    /// A superuser's session at the replica.
    standby: Client,
}

/// A server with a replica, and a gateway with these settings in front of both.
async fn pair(name: &str, schema: &str, settings: Value) -> Pair {
    let primary = Server::alone();
    let replica = primary.replica();
    let mut all = json!({"database": {
        "host": "127.0.0.1", "port": primary.port, "name": name, "user": format!("{name}_gateway"),
        "replicas": {"host": "127.0.0.1", "port": replica.port},
    }});
    for (setting, value) in settings.as_object().expect("settings") {
        all[setting] = value.clone();
    }
    let gateway = Gateway::start_at(primary, name, schema, all).await;
    replayed(&gateway, replica).await;
    let standby = replica.connect("postgres", "postgres").await;
    Pair { primary, replica, gateway, standby }
}

/// Waits until a replica has replayed all that the primary has written.
async fn replayed(gateway: &Gateway, replica: &'static Server) {
    let end = gateway.admin.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.expect("a position");
    let standby = replica.connect("postgres", "postgres").await;
    let deadline = Instant::now() + PATIENCE;
    let question = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
    while !standby.query_one(question, &[&end.get::<_, String>(0)]).await.expect("an answer").get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Pair {
    async fn read(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.gateway.send(&self.gateway.token("shop/app"), "GET", path, headers, None).await
    }

    /// Creates an actor: the position after it.
    async fn create(&self, id: i64) -> String {
        let body = json!({"id": id, "name": id.to_string()});
        let created = self.gateway.write("POST", "/actors", &[WRITTEN], body).await;
        assert_eq!((created.status, created.header("preference-applied")), (201, "read-after"), "{created:?}");
        created.header("read-after").to_owned()
    }

    /// Reads an actor after this position: whether it is there, and whether the replica has said so.
    async fn actor(&self, id: i64, after: &str) -> (bool, bool) {
        let headers = [REPLICA, ("read-after", after)];
        let headers = if after.is_empty() { &headers[..1] } else { &headers[..] };
        let answer = self.read(&format!("/actors?select=id&id=eq.{id}"), headers).await;
        (answer.ok() != json!([]), from_replica(&answer))
    }

    /// As [`Self::actor`], until the replica answers: whether all answers had it.
    async fn actor_there(&self, id: i64, after: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.actor(id, after).await {
                (true, true) => return true,
                (false, _) => return false,
                _ => assert!(Instant::now() < deadline, "the replica never answers"),
            }
        }
    }

    async fn pause(&self, pause: bool) {
        let statement = if pause { "SELECT pg_wal_replay_pause()" } else { "SELECT pg_wal_replay_resume()" };
        self.standby.batch_execute(statement).await.expect(statement);
    }
}

fn from_replica(answer: &Answer) -> bool {
    answer.header("preference-applied").contains("read=replica")
}

/// The first answer that the replica gives: on a busy machine it may be too slow for some.
async fn answered(ask: impl AsyncFn() -> Answer) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if from_replica(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "the replica never answers: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_answers_once_it_has_what_the_caller_wrote() {
    let schema =
        format!("{SCHEMA}; CREATE SEQUENCE numbers_of; CREATE VIEW counts AS SELECT nextval('numbers_of') AS n");
    let pair = pair("replica_reads", &schema, json!({"search": {"films": ["title"]}})).await;
    // Each kind of read; what is no read, or does not ask for a replica, is the primary's.
    for (method, path, body) in [
        ("GET", "/films?select=id&order=id", None),
        ("HEAD", "/films", None),
        ("GET", "/films/1", None),
        ("GET", "/films/count", None),
        ("GET", "/films?limit=2&page_token=", None),
        ("POST", "/films/query", Some(json!({"select": ["id"]}))),
        ("POST", "/films/aggregate", Some(json!({"aggregates": [{"function": "count"}]}))),
        ("POST", "/search", Some(json!({"query": "story"}))),
    ] {
        let body = body.map(|body| body.to_string());
        let send = async |headers: &[(&str, &str)]| {
            pair.gateway.send(&pair.gateway.token("shop/app"), method, path, headers, body.clone()).await
        };
        let (there, here) = (answered(async || send(&[REPLICA]).await).await, send(&[]).await);
        assert_eq!((there.status, &there.text), (here.status, &here.text), "{path}");
        assert!(!from_replica(&here), "{path}");
    }
    let counted = [("prefer", "read=replica, count=exact")];
    let counted = answered(async || pair.read("/films?limit=1", &counted).await).await;
    let wanted = (206, "count=exact, read=replica", "0-0/5");
    assert_eq!((counted.status, counted.header("preference-applied"), counted.header("content-range")), wanted);
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'replica_reads_gateway'";
    let there = pair.standby.query_one(backends, &[]).await.expect("a count").get::<_, i64>(0);
    assert!(there >= 1, "the replica was not asked");
    // A request that is wrong is wrong at once, and one that writes is not read from a replica.
    let wrong = pair.read("/films?nothing=eq.1", &[REPLICA]).await;
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (400, Some("PGRST204")));
    let invalid = pair.read("/films", &[REPLICA, ("read-after", "0/16B3748")]).await;
    assert_eq!((invalid.status, invalid.json()["code"].as_str()), (400, Some("SDB133")));
    let written = pair.gateway.write("PATCH", "/films/1", &[REPLICA], json!({"year": 1953})).await;
    assert_eq!((written.status, written.header("preference-applied"), written.header("read-after")), (204, "", ""));
    // A view that writes is the primary's, whatever is asked for.
    let counts = pair.read("/counts", &[REPLICA]).await;
    assert_eq!((counts.status, from_replica(&counts)), (200, false), "{counts:?}");

    // Its own write is there at once; later the replica has it.
    let after = pair.create(100).await;
    assert!(pair.actor_there(100, &after).await);
    // While it replays nothing, only who does not ask for the new row reads from it.
    pair.pause(true).await;
    let after = pair.create(101).await;
    assert_eq!(pair.actor(101, &after).await, (true, false));
    let deadline = Instant::now() + PATIENCE;
    while pair.actor(101, "").await != (false, true) {
        assert!(Instant::now() < deadline, "only the primary answers, or the replica has replayed something");
    }
    let collected = pair.read("/actors/101", &[REPLICA, ("read-after", &after)]).await;
    assert_eq!((collected.status, from_replica(&collected)), (200, false));
    pair.pause(false).await;
    replayed(&pair.gateway, pair.replica).await;
    assert!(pair.actor_there(101, &after).await);
    let metrics = pair.gateway.metrics().await;
    assert!(metrics.contains("replica_reads_total{server=\"replica\"}"), "{metrics}");
    assert!(metrics.contains("replica_reads_total{server=\"primary\"}"), "{metrics}");

    // An open connection whose role was taken from the login is not used.
    assert!(pair.actor_there(101, "").await);
    for (statement, there) in [("REVOKE replica_reads_app FROM", false), ("GRANT replica_reads_app TO", true)] {
        let statement = format!("{statement} replica_reads_gateway");
        pair.gateway.admin.batch_execute(&statement).await.expect("a membership");
        replayed(&pair.gateway, pair.replica).await;
        if there {
            assert!(pair.actor_there(101, "").await, "the role is back");
        } else {
            assert_eq!(pair.actor(101, "").await, (true, false), "the replica answers without the role");
        }
    }

    // Connections that nobody uses do not stay.
    tokio::time::sleep(Duration::from_secs(13)).await;
    let there = pair.standby.query_one(backends, &[]).await.expect("a count").get::<_, i64>(0);
    assert_eq!(there, 0, "unused connections stay at the replica");
    // A replica that is gone fails no request.
    pair.replica.stop();
    for _ in 0..8 {
        let began = Instant::now();
        assert_eq!(pair.actor(101, &after).await, (true, false));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    assert_eq!(pair.read("/connections", &[]).await.ok()["replicas"]["limit"], json!(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_after_commits_and_on_another_timeline() {
    let pair = pair("replica_timelines", SCHEMA, json!({})).await;
    // A transaction has its position at its commit.
    let begun = pair.gateway.write("POST", "/transaction", &[], json!({"begin": true})).await.ok();
    let id = begun["txn_id"].as_str().expect("an id").to_owned();
    let within = [WRITTEN, ("txn-id", id.as_str())];
    let inside = pair.gateway.write("POST", "/actors", &within, json!({"id": 200, "name": "inside"})).await;
    assert_eq!((inside.status, inside.header("read-after")), (201, ""), "{inside:?}");
    let committed = pair.gateway.write("POST", "/transaction", &[WRITTEN], json!({"commit": id})).await;
    let after = committed.header("read-after").to_owned();
    assert_eq!(&after[..9], "00000001:", "{committed:?}");
    let operations =
        json!({"operations": [{"method": "POST", "path": "/actors", "body": {"id": 201, "name": "at once"}}]});
    let at_once = pair.gateway.write("POST", "/transaction", &[WRITTEN], operations).await;
    assert_ne!(at_once.header("read-after"), "", "{at_once:?}");
    let called = pair.gateway.write("POST", "/rpc/touch", &[WRITTEN], json!({"name": "called"})).await;
    assert_ne!(called.header("read-after"), "", "{called:?}");
    let trial =
        pair.gateway.write("DELETE", "/actors?id=eq.200", &[("prefer", "read-after, tx=rollback")], Value::Null);
    assert_eq!(trial.await.header("read-after"), "", "nothing was written");
    replayed(&pair.gateway, pair.replica).await;
    assert!(pair.actor_there(200, &after).await);
    // A timeline that the replica has not reached: the place alone says nothing.
    assert_eq!(pair.actor(200, "00000002:0/1").await, (true, false));

    let root = pair.primary.connect("postgres", "postgres").await;
    root.batch_execute("ALTER SYSTEM SET restore_command = 'false'").await.expect("a setting");
    tokio::task::block_in_place(|| pair.primary.fail_over());
    let deadline = Instant::now() + PATIENCE;
    let mut id = 300;
    let after = loop {
        let body = json!({"id": id, "name": id.to_string()});
        let created = pair.gateway.write("POST", "/actors", &[WRITTEN], body).await;
        if created.status == 201 && !created.header("read-after").is_empty() {
            break created.header("read-after").to_owned();
        }
        assert!(Instant::now() < deadline, "the primary does not come back: {created:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        id += 1;
    };
    assert_eq!(&after[..9], "00000002:");
    let root = pair.primary.connect("postgres", "postgres").await;
    loop {
        let (found, on_replica) = pair.actor(id, &after).await;
        assert!(found, "the caller's own write is missing");
        if on_replica {
            break;
        }
        assert!(Instant::now() < deadline, "the replica does not follow to the other timeline");
        // Its control file has the timeline once it has replayed a checkpoint of it.
        root.batch_execute("CHECKPOINT").await.expect("a checkpoint");
        pair.standby.batch_execute("CHECKPOINT").await.expect("a restartpoint");
    }
    // An earlier timeline.
    assert!(pair.actor_there(200, "00000001:0/1").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replicas_the_primary_answers() {
    let gateway = Gateway::start("replica_none", SCHEMA, json!({})).await;
    let read = gateway.send(&gateway.token("shop/app"), "GET", "/actors?id=eq.1", &[REPLICA], None).await;
    assert_eq!((read.status, from_replica(&read)), (200, false));
    let strict = ("prefer", "read=replica, handling=strict");
    let read = gateway.send(&gateway.token("shop/app"), "GET", "/actors?id=eq.1", &[strict], None).await;
    assert_eq!((read.status, read.header("preference-applied")), (200, "handling=strict"));
    // A repetition has a position of its own: at or above the first one.
    crate::once::with_records(&gateway).await;
    let headers = [WRITTEN, ("idempotency-key", "one")];
    for replayed in ["", "true"] {
        let written = gateway.write("POST", "/actors", &headers, json!({"id": 90, "name": "once"})).await;
        assert_eq!((written.status, written.header("idempotent-replayed")), (201, replayed), "{written:?}");
        assert_ne!(written.header("read-after"), "", "{written:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_by_grpc() {
    let primary = Server::alone();
    let replica = primary.replica();
    let replicas = json!({"host": "127.0.0.1", "port": replica.port});
    let (gateway, channel) = crate::grpc::gateway_at(primary, "grpc_replicas", json!({}), replicas).await;
    replayed(&gateway, replica).await;
    let mut client = crate::grpc::client(&channel, &gateway.token("shop/app"));
    fn with<T>(message: T, name: &'static str, value: &str) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(name, value.parse().expect("ASCII"));
        request
    }
    let text = |metadata: &MetadataMap, name: &str| {
        metadata.get(name).map_or(String::new(), |value| value.to_str().expect("text").to_owned())
    };
    let begun = client.begin_transaction(BeginTransactionRequest::default()).await.expect("begun").into_inner();
    let commit = with(CommitTransactionRequest { transaction: begun.id }, "prefer", "read-after");
    let committed = client.commit_transaction(commit).await.expect("committed");
    let after = text(committed.metadata(), "read-after");
    assert_ne!(after, "");
    replayed(&gateway, replica).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut read = with(crate::grpc::get("actors", "1"), "prefer", "read=replica");
        read.metadata_mut().insert("read-after", after.parse().expect("ASCII"));
        let read = client.get_document(read).await.expect("a document");
        if text(read.metadata(), "preference-applied") == "read=replica" {
            break;
        }
        assert!(Instant::now() < deadline, "the replica never answers");
    }
    let read = client.get_document(crate::grpc::get("actors", "1")).await.expect("a document");
    assert_eq!(text(read.metadata(), "preference-applied"), "");
    replica.stop();
    let read = with(crate::grpc::get("actors", "1"), "prefer", "read=replica");
    let read = client.get_document(read).await.expect("a document");
    assert_eq!(text(read.metadata(), "preference-applied"), "");
}
