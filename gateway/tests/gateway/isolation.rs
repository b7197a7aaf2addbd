//! Nothing of one request is left to the next.

use serde_json::{Value, json};

use crate::SCHEMA;
use crate::server::{Gateway, Server};

/// A function and a trigger that leave as much as they can, and one that tells what is there.
const MESS: &str = "
CREATE FUNCTION leave() RETURNS void LANGUAGE plpgsql AS $$BEGIN
 PERFORM pg_advisory_lock(42); CREATE TEMP TABLE IF NOT EXISTS leftover (a int); EXECUTE 'LISTEN leftover';
 PERFORM set_config('request.jwt.claims', '{\"sub\": \"shop/reader\"}', false);
 PERFORM set_config('search_path', 'pg_temp', false); PERFORM set_config('statement_timeout', '0', false);
 PERFORM set_config('role', 'none', false); PERFORM set_config('application_name', 'leftover', false);
END$$;
CREATE FUNCTION leaves() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM public.leave(); RETURN NEW; END$$;
CREATE TABLE messy (id int PRIMARY KEY);
CREATE TRIGGER leaves BEFORE INSERT ON messy FOR EACH ROW EXECUTE FUNCTION leaves();
CREATE FUNCTION peek() RETURNS json LANGUAGE sql VOLATILE AS $$SELECT json_build_object(
 'role', current_user, 'claims', current_setting('request.jwt.claims')::json, 'path', current_setting('search_path'),
 'timeout', current_setting('statement_timeout'), 'name', current_setting('application_name'), 'table', to_regclass('pg_temp.leftover'), 'listens', (SELECT count(*) FROM pg_listening_channels()),
 'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), 'pid', pg_backend_pid())$$;
CREATE FUNCTION leaving() RETURNS bool LANGUAGE plpgsql AS $$BEGIN PERFORM public.leave(); RETURN true; END$$;
CREATE FUNCTION fails_leaving() RETURNS bool LANGUAGE plpgsql AS $$BEGIN PERFORM public.leave(); RAISE 'late'; END$$;
CREATE VIEW viewed AS SELECT 1 AS id, leaving();
CREATE VIEW built_in AS SELECT 1 AS id, pg_advisory_lock(7)::text, set_config('role', 'none', false), set_config('search_path', 'x', false) AS path;
CREATE VIEW failing AS SELECT 1 AS id, fails_leaving();
CREATE TABLE guarded (id int PRIMARY KEY); INSERT INTO guarded VALUES (1);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY leaves ON guarded USING (leaving());
CREATE TABLE defaulted (id int PRIMARY KEY, a bool DEFAULT leaving());
CREATE TABLE checked (id int PRIMARY KEY CHECK (leaving()));
CREATE TABLE late (id int PRIMARY KEY);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION leaves();
CREATE TABLE refusing (id int PRIMARY KEY);
CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM public.leave(); RAISE 'no' USING ERRCODE = 'P0001'; END$$;
CREATE CONSTRAINT TRIGGER refusing AFTER INSERT ON refusing DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuses();
CREATE TYPE odd AS (a int); CREATE TABLE operated (id odd, n int);
CREATE FUNCTION same(odd, odd) RETURNS bool LANGUAGE sql AS 'SELECT leaving()';
CREATE OPERATOR = (LEFTARG = odd, RIGHTARG = odd, FUNCTION = same); INSERT INTO operated VALUES ('(1)', 1);
CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$;
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_functions_and_triggers_leave_is_gone() {
    let limits = json!({"limits": {"connections": 1}});
    let gateway = Gateway::start("isolated", &format!("{SCHEMA} {MESS}"), limits).await;
    let peek = async || gateway.write("POST", "/rpc/peek", &[], json!({})).await.ok();
    let first = peek().await;
    assert_eq!(first["claims"], json!({"role": "isolated_app", "sub": "shop/app"}));
    assert_eq!(first["name"], "isolated_app", "by it sessions are counted by client");
    // The function sheds its role: what follows in its transaction is the login's. The write that has it is done.
    let (none, one) = (Value::Null, json!({"id": 1}));
    let whole = [("prefer", "return=representation")];
    for (method, path, headers, body, status) in [
        ("POST", "/rpc/leave", &[][..], json!({}), 204),
        ("POST", "/rpc/fails_leaving", &[], json!({}), 400),
        ("POST", "/messy", &[], one.clone(), 201),
        ("POST", "/messy", &[], one.clone(), 409),
        ("POST", "/messy", &whole, json!({"id": 2}), 201),
        ("POST", "/messy", &[("prefer", "tx=rollback")], json!({"id": 3}), 201),
        ("GET", "/viewed", &[], none.clone(), 200),
        ("GET", "/viewed?select=id", &[("accept", "application/vnd.pgrst.object+json")], none.clone(), 200),
        ("GET", "/built_in", &[], none.clone(), 200),
        // Its second statement has no role any more.
        ("GET", "/built_in", &[("prefer", "count=exact")], none.clone(), 403),
        ("GET", "/failing", &[], none.clone(), 400),
        ("GET", "/guarded", &[], none.clone(), 200),
        ("GET", "/guarded/1", &[], none.clone(), 200),
        ("GET", "/guarded/count", &[], none.clone(), 200),
        ("POST", "/guarded/query", &[], json!({"select": ["id"]}), 200),
        ("POST", "/guarded/aggregate", &[], json!({"aggregates": [{"function": "count"}]}), 200),
        ("PATCH", "/guarded/1", &[], one.clone(), 204),
        ("DELETE", "/guarded?id=eq.1", &[], none.clone(), 204),
        ("POST", "/defaulted", &[], one.clone(), 201),
        ("POST", "/checked", &[], one.clone(), 201),
        ("POST", "/late", &[], one.clone(), 201),
        ("POST", "/late", &whole, json!({"id": 2}), 201),
        ("POST", "/refusing", &[], one.clone(), 400),
        ("POST", "/refusing", &whole, one.clone(), 400),
        ("GET", "/operated?id=eq.(1)", &[], none, 200),
    ] {
        let answer = gateway.write(method, path, headers, body).await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {answer:?}");
        assert_eq!(peek().await, first, "{method} {path} {headers:?}: on the same connection");
    }
    // A function that ends the connection's prepared statements costs one answer at most.
    for _ in 0..2 {
        assert_eq!(gateway.get("/actors/1").await.status, 200);
    }
    assert!(gateway.write("POST", "/rpc/forget", &[], json!({})).await.status < 300);
    let again = gateway.get("/actors/1").await;
    assert!(again.status == 200 || again.status == 503 && !again.header("retry-after").is_empty(), "{again:?}");
    assert_eq!(gateway.get("/actors/1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_role_cannot_be_taken_harms_no_other() {
    let gateway = Gateway::start("ghosts", SCHEMA, json!({})).await;
    for account in ["shop/ghost", "shop/missing"].repeat(6) {
        let ghost = gateway.send(&gateway.token(account), "GET", "/actors", &[], None).await;
        assert_eq!((ghost.status, ghost.json()["code"].as_str()), (503, Some("SDB305")), "{ghost:?}");
    }
    assert!(gateway.metrics().await.contains("servicedb_gateway_breaker_open 0"));
    assert_eq!(gateway.get("/actors/1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_is_read_within_the_pool() {
    let gateway =
        Gateway::start("ledger", SCHEMA, json!({"limits": {"connections": 2, "waitMilliseconds": 20_000}})).await;
    let reads = futures::future::join_all((0..30).map(|_| gateway.get("/migrations")));
    let most = async {
        let (mut most, query) = (0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'ledger_gateway'");
        for _ in 0..40 {
            most = most.max(gateway.admin.query_one(query, &[]).await.expect("a count").get::<_, i64>(0));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        most
    };
    let (answers, most) = tokio::join!(reads, most);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    // Those, the one that looks at the schema, and connections that are just being closed.
    assert!(most <= 6, "{most} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_is_left() {
    let gateway = Gateway::start("read_only", SCHEMA, json!({})).await;
    let root = Server::shared().connect("postgres", "postgres").await;
    root.batch_execute("ALTER DATABASE read_only SET default_transaction_read_only = on").await.expect("a setting");
    let write = async |id: i32| gateway.write("POST", "/actors", &[], json!({"id": id, "name": id.to_string()})).await;
    let refused = write(61).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("25006")), "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(gateway.get("/actors/1").await.status, 200, "reads go on");
    // By the next connection, which the refused write has made necessary.
    root.batch_execute("ALTER DATABASE read_only RESET default_transaction_read_only").await.expect("a setting");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut id = 62;
    while write(id).await.status != 201 {
        assert!(std::time::Instant::now() < deadline, "it stays: {}", gateway.log());
        id += 1;
    }
    assert!(id < 65, "{id}: each refused write leaves its connection");
}
