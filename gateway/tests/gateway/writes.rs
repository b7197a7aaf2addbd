//! Writes: validation, bulk, upsert, returning, versions.

use serde_json::{Value, json};

use crate::SCHEMA;
use crate::server::{Answer, Gateway};

const ROWS: (&str, &str) = ("prefer", "return=representation");

fn pointers(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap_or_else(|| panic!("errors: {body}"));
    errors.iter().map(|fault| fault["pointer"].as_str().expect("a pointer").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_change_and_remove() {
    let gateway = Gateway::start("writes", SCHEMA, json!({})).await;
    let created = gateway.write("POST", "/notes", &[("prefer", "return=headers-only")], json!({"body": "first"})).await;
    assert_eq!(
        (created.status, created.text.as_str(), created.header("location")),
        (201, "", "/api/db/notes/1"),
        "{created:?}"
    );
    assert!(!created.header("etag").is_empty(), "{created:?}");
    let created =
        gateway.write("POST", "/notes?select=id,body", &[ROWS], json!([{"body": "second"}, {"body": "third"}])).await;
    assert_eq!((created.status, created.ok()), (201, json!([{"id": 2, "body": "second"}, {"id": 3, "body": "third"}])));
    let object = [ROWS, ("accept", "application/vnd.pgrst.object+json")];
    let created =
        gateway.write("POST", "/notes?select=id,kind", &object, json!({"body": "4", "kind": "R", "length": 3})).await;
    assert_eq!(created.ok(), json!({"id": 4, "kind": "R"}));
    let empty = gateway.write("POST", "/notes", &[ROWS], json!([])).await;
    assert_eq!((empty.status, empty.json()), (201, json!([])));

    // What an embedded collection has is returned, too.
    let film = json!({"id": 10, "title": "New", "director_id": 2, "tags": ["a", "b,\"c"], "details": {"x": [1]}, "price": 1.25, "length": "[1,5)"});
    let created =
        gateway.write("POST", "/films?select=id,tags,details,price,length,d:director_id(name)", &[ROWS], film).await;
    let wanted = json!([{"id": 10, "tags": ["a", "b,\"c"], "details": {"x": [1]}, "price": 1.25, "length": "[1,5)", "d": {"name": "Varda"}}]);
    assert_eq!(created.ok(), wanted);

    let changed = gateway.write("PATCH", "/notes?id=gte.3&select=id,length", &[ROWS], json!({"length": 9})).await;
    assert_eq!(changed.ok(), json!([{"id": 3, "length": 9}, {"id": 4, "length": 9}]));
    let changed = gateway.write("PATCH", "/notes?id=gte.3", &[("prefer", "count=exact")], json!({"length": 8})).await;
    assert_eq!((changed.status, changed.header("content-range")), (204, "0-1/2"));
    let many = [("prefer", "handling=strict, max-affected=1")];
    let refused = gateway.write("PATCH", "/notes?id=gte.3", &many, json!({"length": 1})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("PGRST124")));
    assert_eq!(gateway.get("/notes?select=length&id=eq.3").await.ok(), json!([{"length": 8}]), "it was rolled back");
    let removed = gateway.write("DELETE", "/notes?id=eq.3&select=body", &[ROWS], Value::Null).await;
    assert_eq!(removed.ok(), json!([{"body": "third"}]));
    assert_eq!(gateway.write("DELETE", "/notes?id=eq.4", &[], Value::Null).await.status, 204);
    assert_eq!(gateway.get("/notes/count").await.ok(), json!({"count": 2}));
    assert_eq!(gateway.write("DELETE", "/notes?limit=1", &[], Value::Null).await.json()["code"], "PGRST109");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_on_the_key_replaces_a_row_or_creates_it() {
    let gateway = Gateway::start("put", SCHEMA, json!({})).await;
    let row = |name: &str, value: i64| json!({"name": name, "value": value, "remark": null});
    let tag = gateway.get("/counters/one").await.header("etag").to_owned();
    let put = async |name: &str, headers: &[(&str, &str)], value: i64| {
        gateway.write("PUT", &format!("/counters?name=eq.{name}"), headers, row(name, value)).await.status
    };
    assert_eq!(put("one", &[("if-match", &tag)], 5).await, 204);
    assert_eq!(put("one", &[("if-match", &tag)], 6).await, 412, "it has another version by now");
    assert_eq!(put("absent", &[("if-match", &tag)], 6).await, 404, "a version is asked for, and there is none");
    assert_eq!(put("absent", &[("if-match", "*")], 6).await, 201);
    assert_eq!(put("absent", &[], 7).await, 204);
    let found = gateway.get("/counters?name=in.(one,absent)&select=name,value&order=name").await.ok();
    assert_eq!(found, json!([{"name": "absent", "value": 7}, {"name": "one", "value": 5}]));
    // The database makes this key: a row with another one cannot be created.
    let note =
        json!({"id": 99, "body": "x", "length": null, "kind": null, "created": "2020-01-01T00:00:00Z", "uid": null});
    let refused = gateway.write("PUT", "/notes?id=eq.99", &[], note).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (404, Some("SDB108")));
    assert_eq!(gateway.get("/notes/count").await.ok(), json!({"count": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_a_trigger_keeps_out_is_not_created() {
    let trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
         INSERT INTO actors VALUES (99, 'by a trigger'); RETURN NULL; END$$;
        CREATE TRIGGER refuse BEFORE INSERT ON counters FOR EACH ROW EXECUTE FUNCTION refuse();";
    let gateway = Gateway::start("put_refused", &format!("{SCHEMA} {trigger}"), json!({})).await;
    let put = async |name: &str, headers: &[(&str, &str)]| {
        let row = json!({"name": name, "value": 3, "remark": null});
        gateway.write("PUT", &format!("/counters?name=eq.{name}"), headers, row).await
    };
    let both: [&[(&str, &str)]; 2] = [&[], &[ROWS]];
    for headers in both {
        let refused = put("new", headers).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (406, Some("PGRST116")), "{refused:?}");
    }
    assert_eq!(gateway.get("/actors/99").await.status, 404, "it is rolled back");
    assert_eq!(put("one", &[]).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_affected_bounds_functions_and_rows_that_are_left_out() {
    let gateway = Gateway::start("bounded", SCHEMA, json!({})).await;
    let strict = [("prefer", "handling=strict, max-affected=2")];
    for (path, body, status, code) in [
        ("/rpc/numbers", json!({"n": 3}), 400, Some("PGRST124")),
        ("/rpc/numbers", json!({"n": 2}), 200, None),
        ("/rpc/add", json!({"a": 1}), 400, Some("PGRST128")),
    ] {
        let answer = gateway.write("POST", path, &strict, body).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, code), "{path}: {answer:?}");
    }
    // Rows that the answer leaves out were changed, too.
    let path = "/films?select=id,director_id!inner(name)&order=id&id=gte.4";
    let few = [("prefer", "return=representation, handling=strict, max-affected=1")];
    let refused = gateway.write("PATCH", path, &few, json!({"year": 1})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("PGRST124")), "{refused:?}");
    let changed = gateway.write("PATCH", path, &[ROWS, ("prefer", "count=exact")], json!({"year": 1})).await;
    assert_eq!(changed.ok(), json!([{"id": 4, "director_id": {"name": "Varda"}}]));
    assert_eq!(changed.header("content-range"), "0-1/2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_and_defaults() {
    let gateway = Gateway::start("upserts", SCHEMA, json!({})).await;
    let merge = [("prefer", "resolution=merge-duplicates,return=representation")];
    let merged = gateway
        .write("POST", "/counters", &merge, json!([{"name": "one", "value": 5}, {"name": "new", "value": 6}]))
        .await;
    assert_eq!(
        merged.ok(),
        json!([{"name": "one", "value": 5, "remark": null}, {"name": "new", "value": 6, "remark": "none"}])
    );
    let ignore = [("prefer", "resolution=ignore-duplicates,return=representation")];
    let ignored = gateway
        .write("POST", "/counters", &ignore, json!([{"name": "one", "value": 50}, {"name": "other", "value": 1}]))
        .await;
    assert_eq!(ignored.ok(), json!([{"name": "other", "value": 1, "remark": "none"}]));
    let by_name = gateway.write("POST", "/actors?on_conflict=name", &merge, json!({"id": 1, "name": "Ryu"})).await;
    assert_eq!(by_name.ok(), json!([{"id": 1, "name": "Ryu"}]));
    let duplicate = gateway.write("POST", "/actors", &[], json!({"id": 1, "name": "Again"})).await;
    assert_eq!((duplicate.status, duplicate.json()["code"].as_str()), (409, Some("23505")));

    // Rows with different members need a word about it.
    let uneven = json!([{"name": "a", "value": 1}, {"name": "b", "remark": "r"}]);
    let refused = gateway.write("POST", "/counters", &[], uneven.clone()).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("PGRST102")));
    let defaults = [("prefer", "missing=default,return=representation")];
    let created = gateway.write("POST", "/counters", &defaults, uneven).await;
    assert_eq!(
        created.ok(),
        json!([{"name": "a", "value": 1, "remark": "none"}, {"name": "b", "value": 7, "remark": "r"}])
    );
    let columns =
        gateway.write("POST", "/counters?columns=name", &[ROWS], json!([{"name": "c", "value": 3, "x": 1}])).await;
    assert_eq!(columns.ok(), json!([{"name": "c", "value": 7, "remark": "none"}]));
    let nulls = gateway
        .write("POST", "/counters?columns=name,remark", &[ROWS], json!([{"name": "d"}, {"name": "e", "remark": "x"}]))
        .await;
    assert_eq!(nulls.ok()[0]["remark"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_of_a_body_at_once() {
    let gateway = Gateway::start("faults", SCHEMA, json!({})).await;
    let before = gateway.get("/connections").await.ok()["pool"]["idle"].clone();
    let body = json!({"id": 5, "length": 99999, "kind": "X", "uid": "no", "colour": 1, "created": 3});
    let answer = gateway.write("POST", "/notes", &[], body).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("SDB100")));
    assert_eq!(pointers(&answer), ["/colour", "/created", "/id", "/kind", "/length", "/uid", "/body"]);
    let several = gateway
        .write("POST", "/films", &[], json!([{"id": 1, "title": "x".repeat(41)}, {"id": "y", "title": null}]))
        .await;
    assert_eq!(pointers(&several), ["/0/title", "/1/id", "/1/title"]);
    let changed = gateway
        .write("PATCH", "/films?id=eq.1", &[], json!({"title": null, "tags": 3, "year": 1.5, "plain": "perhaps"}))
        .await;
    assert_eq!(pointers(&changed), ["/plain", "/tags", "/title", "/year"]);
    assert_eq!(gateway.get("/connections").await.ok()["pool"]["idle"], before, "no connection was used for it");

    // Null fits each column that may be null, whatever its type.
    let nulls = json!({"year": null, "plain": null, "tags": null, "price": null, "released": null, "details": null});
    let cleared = gateway.write("PATCH", "/films?id=eq.1&select=year,plain,tags", &[ROWS], nulls).await;
    assert_eq!(cleared.ok(), json!([{"year": null, "plain": null, "tags": null}]));
    // What only the database knows is its answer.
    for (path, body, status, code) in [
        ("/notes", json!({"body": "forbidden"}), 400, "23514"),
        ("/roles", json!({"film_id": 1, "actor_id": 77}), 409, "23503"),
        ("/films", json!({"id": 50, "title": "x", "length": "what"}), 400, "22P02"),
        ("/films", json!({"id": 50, "title": "x", "price": 12345678.0}), 400, "22003"),
        ("/films", json!({"id": 50, "title": "a\u{0}b"}), 400, "22P05"),
        ("/films", json!("text"), 400, "PGRST102"),
        ("/films", json!([1]), 400, "PGRST102"),
        ("/recent", json!({"id": 60, "title": "x"}), 201, ""),
    ] {
        let answer = gateway.write("POST", path, &[], body.clone()).await;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(answer.text.contains(code), "{path} {body}: {answer:?}");
    }
    let token = gateway.token("shop/app");
    assert_eq!(
        gateway.send(&token, "POST", "/films", &[], Some("{\"id\": 1,".to_owned())).await.json()["code"],
        "PGRST102"
    );
    let text = gateway.send(&token, "POST", "/films", &[("content-type", "text/plain")], None).await;
    assert_eq!(text.json()["code"], "PGRST102");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_by_id() {
    let gateway = Gateway::start("documents", SCHEMA, json!({})).await;
    let token = gateway.token("shop/app");
    let read = gateway.get("/actors/1").await;
    assert_eq!(read.ok(), json!({"id": 1, "name": "Ryu"}));
    let tag = read.header("etag").to_owned();
    let again = gateway.send(&token, "GET", "/actors/1", &[("if-none-match", &tag)], None).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    assert_eq!(gateway.get("/roles/1,2").await.ok()["character"], "Noriko");
    assert_eq!(
        gateway.get("/films/1?select=title,actors(name)&actors.order=name").await.ok()["actors"][0]["name"],
        "Hara"
    );

    // A proxy makes tags weak. What is embedded changes without its row: then there is none.
    let weak = gateway.send(&token, "GET", "/actors/1", &[("if-none-match", &format!("\"1\", W/{tag}"))], None).await;
    assert_eq!(weak.status, 304);
    assert_eq!(gateway.get("/films/1?select=title,roles(character)").await.header("etag"), "");

    let incomplete = gateway.write("PUT", "/actors/1", &[], json!({"id": 1})).await;
    assert_eq!(pointers(&incomplete), ["/name"]);
    let replaced = gateway.write("PUT", "/actors/1", &[("if-match", &tag), ROWS], json!({"name": "Chishu Ryu"})).await;
    assert_eq!((replaced.status, replaced.ok()), (200, json!({"id": 1, "name": "Chishu Ryu"})));
    assert_ne!(replaced.header("etag"), tag);
    let late = gateway.write("PUT", "/actors/1", &[("if-match", &tag)], json!({"name": "Lost"})).await;
    assert_eq!((late.status, late.json()["code"].as_str()), (412, Some("SDB107")));
    let fresh =
        gateway.write("PUT", "/actors/1", &[("if-match", replaced.header("etag"))], json!({"name": "Ryu"})).await;
    assert_eq!((fresh.status, fresh.text.as_str()), (204, ""));
    assert_eq!(gateway.write("PUT", "/actors/1", &[], json!({"id": 2, "name": "x"})).await.json()["code"], "SDB111");
    assert_eq!(gateway.write("PUT", "/actors/77", &[], json!({"name": "x"})).await.status, 404);
    // What was read can be sent back, with what the database computes.
    let mut film = gateway.get("/films/2").await.ok();
    film["year"] = json!(1961);
    assert_eq!(gateway.write("PUT", "/films/2", &[], film).await.status, 204);
    assert_eq!(gateway.get("/films/2?select=year").await.ok(), json!({"year": 1961}));

    assert_eq!(gateway.write("DELETE", "/actors/1", &[("if-match", &tag)], Value::Null).await.status, 412);
    assert_eq!(gateway.write("DELETE", "/actors/1", &[], Value::Null).await.status, 204);
    assert_eq!(gateway.write("DELETE", "/actors/1", &[], Value::Null).await.status, 404);
    // Some columns.
    assert_eq!(gateway.write("PATCH", "/actors/2", &[], json!({})).await.json()["code"], "SDB112");
    assert_eq!(gateway.write("PATCH", "/actors/77", &[], json!({"name": "x"})).await.status, 404);
    let film = gateway.get("/films/3?select=title,year").await;
    let changed =
        gateway.write("PATCH", "/films/3", &[("if-match", film.header("etag")), ROWS], json!({"year": 1986})).await;
    assert_eq!((changed.ok()["title"].clone(), changed.ok()["year"].clone()), (json!("Ran"), json!(1986)));
    let late = gateway.write("PATCH", "/films/3", &[("if-match", film.header("etag"))], json!({"year": 1})).await;
    assert_eq!(late.status, 412, "{late:?}");
    assert_eq!(
        pointers(&gateway.write("PATCH", "/films/3", &[], json!({"year": "x", "title": null})).await),
        ["/title", "/year"]
    );
}

/// Triggers and a rule that write elsewhere while the command itself reports no row.
const HIDDEN: &str = "
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN UPDATE counters SET value = value + 1 WHERE name = 'one'; RETURN NULL; END$$;
CREATE TABLE kept (id int PRIMARY KEY, name text); INSERT INTO kept VALUES (1, 'a');
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON kept FOR EACH ROW EXECUTE FUNCTION count_it();
CREATE TABLE parted (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10); INSERT INTO parted VALUES (1, 'a');
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON parted_low FOR EACH ROW EXECUTE FUNCTION count_it();
CREATE TABLE told (id int PRIMARY KEY, name text);
CREATE TRIGGER tell AFTER UPDATE OR DELETE ON told FOR EACH STATEMENT EXECUTE FUNCTION count_it();
CREATE TABLE ruled (id int PRIMARY KEY, name text); INSERT INTO ruled VALUES (1, 'a');
CREATE RULE keep AS ON DELETE TO ruled DO INSTEAD UPDATE counters SET value = value + 1 WHERE name = 'one';
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_committed_with_a_404() {
    let gateway = Gateway::start("hidden", &format!("{SCHEMA} {HIDDEN}"), json!({})).await;
    let value = async || gateway.get("/counters/one?select=value").await.ok()["value"].as_i64();
    assert_eq!(value().await, Some(1));
    for (method, path) in [
        ("PATCH", "/kept/1"),
        ("DELETE", "/kept/1"),
        ("PATCH", "/parted/1"),
        ("DELETE", "/parted/1"),
        ("PATCH", "/told/1"),
        ("DELETE", "/told/1"),
        ("DELETE", "/ruled/1"),
    ] {
        let body = if method == "PATCH" { json!({"name": "b"}) } else { Value::Null };
        let answer = gateway.write(method, path, &[], body).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("SDB108")), "{method} {path}");
        assert_eq!(value().await, Some(1), "{method} {path}: something was committed");
    }
    // By a filter, it is no fault that no row is reported.
    assert_eq!(gateway.write("DELETE", "/kept?id=eq.1", &[], Value::Null).await.status, 204);
    assert_eq!((value().await, gateway.get("/kept/1").await.status), (Some(2), 200));

    // A new trigger counts once the schema was looked at, on a table that had triggers before: a key refers to it.
    let trigger = "CREATE TRIGGER keep BEFORE UPDATE ON actors FOR EACH ROW EXECUTE FUNCTION count_it()";
    gateway.admin.batch_execute(trigger).await.expect("a trigger");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let before = value().await;
        assert_eq!(gateway.write("PATCH", "/actors/1", &[], json!({"name": "x"})).await.status, 404);
        if value().await == before {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the trigger is not known: {}", gateway.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions() {
    let gateway = Gateway::start("functions", SCHEMA, json!({})).await;
    let token = gateway.token("shop/app");
    assert_eq!(gateway.write("POST", "/rpc/add", &[], json!({"a": 1, "b": 2})).await.ok(), json!(3));
    assert_eq!(gateway.get("/rpc/add?a=5").await.ok(), json!(15));
    assert_eq!(
        gateway.get("/rpc/films_of?director=2&select=id,director_id(name)&order=id.desc&limit=1").await.ok(),
        json!([{"id": 4, "director_id": {"name": "Varda"}}])
    );
    assert_eq!(gateway.write("POST", "/rpc/pair", &[], json!({})).await.ok(), json!({"x": 1, "y": "one"}));
    assert_eq!(gateway.write("POST", "/rpc/numbers", &[], json!({"n": 3})).await.ok(), json!([1, 2, 3]));
    assert_eq!(gateway.write("POST", "/rpc/touch", &[], json!({"name": "t"})).await.status, 204);
    assert_eq!(gateway.get("/counters/t").await.status, 200);
    let read_only = gateway.get("/rpc/touch?name=u").await;
    assert_eq!((read_only.status, read_only.json()["code"].as_str()), (405, Some("25006")));
    let failed = gateway.write("POST", "/rpc/fails", &[], json!({})).await;
    assert_eq!(failed.status, 400);
    let body = failed.json();
    assert_eq!(
        (&body["code"], &body["message"], &body["details"], &body["hint"]),
        (&json!("P0001"), &json!("no luck"), &json!("some"), &json!("try"))
    );
    assert_eq!(gateway.write("POST", "/rpc/add", &[], json!({"c": 1})).await.json()["code"], "PGRST202");
    assert_eq!(gateway.write("POST", "/rpc/nothing", &[], json!({})).await.status, 404);
    // A function that leaves the role leaves it for itself only.
    let escaped = gateway.send(&token, "POST", "/rpc/escape", &[], Some("{}".to_owned())).await;
    assert_eq!(escaped.ok(), json!(gateway.login));
    assert_eq!(gateway.get("/rpc/who").await.ok(), json!("functions_app"));
}
