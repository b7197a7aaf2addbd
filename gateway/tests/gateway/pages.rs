//! Walks by pages.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use servicedb_gateway::grpc::proto::{ListDocumentsRequest, ListDocumentsResponse, Query, query};

use crate::SCHEMA;
use crate::server::{Answer, Gateway};

/// Rows with equal values and nulls in all columns but the key.
const THINGS: &str = "\
CREATE TYPE kind AS ENUM ('low', 'high', 'mid');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE things (part text, id int, number int, label text, code char(6), ratio float8, price numeric, at timestamptz,
 took interval, flag bool, kind kind, many int[], span int4range, raw bytea, uid uuid NOT NULL, data jsonb, pair pair, PRIMARY KEY (part, id));
INSERT INTO things SELECT (ARRAY['x', 'y,\"z', ''])[1 + n % 3], n, nullif(n * 7 % 5, 2),
 (ARRAY['a', 'a b', '\"', '\\', E'new\\nline', 'é', 'null', '', NULL])[1 + n * 5 % 9], (ARRAY['a', 'ab ', NULL])[1 + n % 3],
 (ARRAY[0.1::float8 + 0.2, 'NaN', '-Infinity', 1e-300, NULL])[1 + n % 5], (ARRAY[1.10, 1.1, 123456789012345678.9012345, NULL])[1 + n % 4],
 '2024-01-01'::timestamptz + (n % 4) * '0.000001 s'::interval, nullif(n % 3, 0) * '1 month -3 days 0.5 s'::interval,
 (ARRAY[true, false, NULL])[1 + n % 3], (ARRAY['low', 'high', NULL])[1 + n % 3]::kind, (ARRAY['{1,NULL}', '{}', '{1}', NULL])[1 + n % 4]::int[],
 (ARRAY['[1,4)', 'empty', '(,3)', NULL])[1 + n % 4]::int4range, (ARRAY['\\x00ff', '\\x', NULL])[1 + n % 3]::bytea, md5((n % 7)::text)::uuid,
 (ARRAY['{\"k\": 1, \"t\": \"v\"}', '{\"k\": 1.0}', '{\"k\": \"1\"}', '{\"k\": null, \"t\": \"w\"}', NULL])[1 + n % 5]::jsonb,
 (ARRAY['(1,x)', '(,)', '(1,\"\")', NULL])[1 + n % 4]::pair FROM generate_series(1, 60) n";

/// What an order may have, in the dialect and in SQL.
const MEMBERS: [(&str, &str); 18] = [
    ("part", "part"),
    ("id", "id"),
    ("number", "number"),
    ("label", "label"),
    ("code", "code"),
    ("ratio", "ratio"),
    ("price", "price"),
    ("at", "at"),
    ("took", "took"),
    ("flag", "flag"),
    ("kind", "kind"),
    ("many", "many"),
    ("span", "span"),
    ("raw", "raw"),
    ("uid", "uid"),
    ("data->k", "data->'k'"),
    ("data->>t", "data->>'t'"),
    ("pair", "pair"),
];

/// A random order, in the dialect and in SQL. The key follows in the direction of its last member.
fn order(random: &mut StdRng) -> (String, String) {
    let mut members = MEMBERS;
    members.shuffle(random);
    let (mut dialect, mut sql, mut direction) = (Vec::new(), Vec::new(), "");
    let uniform = random.random_bool(0.3);
    for (column, expression) in &members[..random.random_range(0..4)] {
        if !uniform || sql.is_empty() {
            direction = ["", "DESC"][random.random_range(0..2)];
        }
        let (word, nulls) =
            [("", ""), (".nullsfirst", "NULLS FIRST"), (".nullslast", "NULLS LAST")][random.random_range(0..3)];
        dialect.push(format!("{column}{}{word}", if direction.is_empty() { "" } else { ".desc" }));
        sql.push(format!("{expression} {direction} {nulls}"));
    }
    sql.push(format!("part {direction}, id {direction}"));
    (dialect.join(","), sql.join(", "))
}

/// An order as a pair of a query string.
fn ordered(dialect: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(dialect.as_bytes()).collect();
    if dialect.is_empty() { String::new() } else { format!("&order={encoded}") }
}

/// All pages of a request, and how many there are. `between` runs after each page.
async fn walk(gateway: &Gateway, path: &str, mut between: impl AsyncFnMut(usize)) -> (Vec<Value>, usize) {
    let (mut rows, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = gateway.get(&format!("{path}&page_token={token}")).await;
        let Value::Array(page) = answer.ok() else { panic!("{path}: {answer:?}") };
        rows.extend(page);
        pages += 1;
        token = answer.header("next-page-token").to_owned();
        if token.is_empty() {
            return (rows, pages);
        }
        between(pages).await;
    }
}

async fn rows(gateway: &Gateway, sql: &str) -> Vec<Value> {
    let found = gateway.admin.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    found.iter().map(|row| serde_json::from_str(row.get(0)).expect("JSON")).collect()
}

fn random() -> (u64, StdRng) {
    let seed = std::env::var("GATEWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("GATEWAY_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_is_the_whole_read() {
    let gateway = Gateway::start("pages", THINGS, json!({})).await;
    // Floating-point numbers that are rounded would be other ones.
    gateway.admin.batch_execute("ALTER ROLE pages_gateway SET extra_float_digits = 0").await.expect("a setting");
    let (seed, mut random) = random();
    for _ in 0..60 {
        let (dialect, sql) = order(&mut random);
        let limit = random.random_range(1..25);
        let (filter, condition) = [("", "true"), ("&number=gte.1", "number >= 1"), ("&flag=is.null", "flag IS NULL")]
            [random.random_range(0..3)];
        let path = format!("/things?select=part,id{filter}{}&limit={limit}", ordered(&dialect));
        let sql = format!(
            "SELECT json_build_object('part', part, 'id', id)::text FROM things WHERE {condition} ORDER BY {sql}"
        );
        let wanted = rows(&gateway, &sql).await;
        let (found, pages) = walk(&gateway, &path, async |_| {}).await;
        assert_eq!(found, wanted, "GATEWAY_SEED={seed} {path} {sql}");
        assert_eq!(pages, wanted.len().div_ceil(limit).max(1), "GATEWAY_SEED={seed} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_stay_are_read_once() {
    let gateway = Gateway::start("pages_changing", THINGS, json!({})).await;
    let (seed, mut random) = random();
    for round in 0..10 {
        let (dialect, sql) = order(&mut random);
        gateway.admin.batch_execute("DELETE FROM things WHERE id > 60").await.expect("the first rows");
        let path = format!("/things?select=part,id{}&limit=9", ordered(&dialect));
        let staying =
            "SELECT json_build_object('part', part, 'id', id)::text FROM things WHERE id % 3 > 0 AND id <= 60";
        let wanted = rows(&gateway, &format!("{staying} ORDER BY {sql}")).await;
        let (found, _) = walk(&gateway, &path, async |page| {
            // Others go, and new ones come, before and after the place of the walk.
            let gone = format!("DELETE FROM things WHERE id % 3 = 0 AND id % 5 = {} OR id > 60 AND id % 4 = 0", page % 5);
            let new = format!(
                "INSERT INTO things SELECT part, {round} * 100000 + {page} * 1000 + id, number, label, code, ratio, price, at, took, \
                 flag, kind, many, span, raw, uid, data, pair FROM things WHERE id <= 60 AND id % 7 = {}",
                page % 7
            );
            for statement in [gone, new] {
                gateway.admin.batch_execute(&statement).await.expect("a change");
            }
        })
        .await;
        let stayed = |row: &&Value| row["id"].as_i64().is_some_and(|id| id <= 60 && id % 3 > 0);
        let found: Vec<Value> = found.iter().filter(stayed).cloned().collect();
        assert_eq!(found, wanted, "GATEWAY_SEED={seed} {path} {sql}");
    }
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_of_its_request() {
    let schema = format!(
        "{SCHEMA}; CREATE TABLE wide (id int PRIMARY KEY, body text); INSERT INTO wide SELECT n, repeat('x', 9000) || n FROM generate_series(1, 3) n"
    );
    let gateway = Gateway::start("pages_tokens", &schema, json!({"limits": {"rows": 4, "bufferBytes": 1000}})).await;
    let token = async |path: &str| {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("next-page-token").to_owned()
    };
    let first = token("/films?order=year.desc&limit=2&page_token=").await;
    assert_ne!(first, "");
    let next = gateway.get(&format!("/films?order=year.desc&limit=3&page_token={first}")).await;
    assert_eq!(next.ok().as_array().map(Vec::len), Some(3));
    for path in [
        "/films?order=year&limit=2",
        "/films?order=year.desc&limit=2&rating=eq.G",
        "/films?order=year.desc&limit=2&select=id",
        "/actors?order=year.desc&limit=2",
        "/actors?limit=2",
    ] {
        let refused = gateway.get(&format!("{path}&page_token={first}")).await;
        let wanted = if path.starts_with("/actors?order") { "PGRST204" } else { "SDB130" };
        assert_eq!(code(&refused), (400, wanted.to_owned()), "{path}");
    }
    let other = format!("/films?order=year.desc&limit=2&page_token={first}");
    let other = gateway.send(&gateway.token("shop/reader"), "GET", &other, &[], None).await;
    assert_eq!(code(&other), (400, "SDB130".to_owned()), "another caller's");
    for token in ["x", "%00", "AQ"] {
        assert_eq!(code(&gateway.get(&format!("/films?page_token={token}")).await), (400, "SDB130".to_owned()));
    }
    // Without a limit, the most rows of an answer are the limit.
    assert_eq!(walk(&gateway, "/films?select=id", async |_| {}).await.1, 2);
    for (path, wanted) in [
        ("/recent?limit=1&page_token=", "SDB131"),
        ("/films?limit=1&offset=1&page_token=", "SDB131"),
        ("/films?limit=0&page_token=", "SDB131"),
        ("/films?select=rating,count()&page_token=", "SDB131"),
        ("/films?select=rating,count&page_token=", "SDB131"),
        ("/films?select=id,directors!director_id(name)&order=directors(name)&page_token=", "SDB131"),
        ("/films?order=nothing&page_token=", "PGRST204"),
        ("/films?order=id,nothing&page_token=", "PGRST204"),
        ("/films/1?page_token=", "SDB131"),
        ("/rpc/films_of?director=1&page_token=", "SDB131"),
        ("/wide?order=body&limit=1&page_token=", "SDB132"),
    ] {
        assert_eq!(code(&gateway.get(path).await), (400, wanted.to_owned()), "{path}");
    }
    let write = gateway.write("DELETE", "/films?id=eq.1&page_token=", &[], Value::Null).await;
    assert_eq!(code(&write), (400, "SDB131".to_owned()));
    // A page is larger than what is sent at once, and has its token all the same.
    assert_ne!(token("/wide?limit=1&page_token=").await, "");
    assert_eq!(walk(&gateway, "/wide?limit=1&select=id", async |_| {}).await.1, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_values_of_the_order_count_as_the_rows_do() {
    let schema = "CREATE TABLE wide (id int PRIMARY KEY, body text);
        INSERT INTO wide SELECT n, repeat('x', 100000) || n FROM generate_series(1, 20) n;";
    let gateway = Gateway::start("pages_values", schema, json!({"limits": {"writeAnswerBytes": 50_000}})).await;
    let page = async |order: &str, limit: u32| {
        gateway.get(&format!("/wide?select=id&order={order}&limit={limit}&page_token=")).await
    };
    assert_eq!(page("id", 15).await.status, 200);
    // Of each no more is sent than no token has room for.
    assert_eq!(code(&page("body", 3).await), (400, "SDB132".to_owned()));
    assert_eq!(code(&page("body", 15).await), (400, "SDB106".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_in_each_form_of_a_read() {
    let schema = format!(
        "{SCHEMA}; CREATE TABLE part_hidden (id int PRIMARY KEY, public int, hidden int); \
         INSERT INTO part_hidden SELECT n, n % 2, -n FROM generate_series(1, 4) n"
    );
    let gateway = Gateway::start("pages_forms", &schema, json!({})).await;
    // With a count, by range, as CSV, as one object, without a body.
    let send = async |path: &str, headers: &[(&str, &str)]| {
        gateway.send(&gateway.token("shop/app"), "GET", path, headers, None).await
    };
    let counted = send("/films?year=gt.1960&limit=2&page_token=", &[("prefer", "count=exact")]).await;
    assert_eq!((counted.status, counted.header("content-range")), (206, "*/3"), "{counted:?}");
    let ranged = send("/actors?select=id&page_token=", &[("range", "0-2")]).await;
    assert_eq!((ranged.ok(), ranged.header("content-range")), (json!([{"id": 1}, {"id": 2}, {"id": 3}]), ""));
    let next = format!("/actors?select=id&page_token={}", ranged.header("next-page-token"));
    let csv = send(&next, &[("accept", "text/csv")]).await;
    assert_eq!((csv.text.as_str(), csv.header("next-page-token")), ("id\n4", ""));
    let one = [("accept", "application/vnd.pgrst.object+json")];
    let single = send("/actors?select=name&limit=1&page_token=", &one).await;
    assert_eq!((single.ok(), single.header("next-page-token").is_empty()), (json!({"name": "Ryu"}), false));
    let head = gateway.send(&gateway.token("shop/app"), "HEAD", "/actors?limit=1&page_token=", &[], None).await;
    assert_eq!((head.status, head.header("next-page-token")), (200, ""));
    // With embedded rows that decide which rows there are.
    let path =
        "/films?select=title,director:directors!director_id!inner(name)&director.name=neq.Ozu&order=year.desc&limit=1";
    let (found, pages) = walk(&gateway, path, async |_| {}).await;
    let titles: Vec<_> = found.iter().map(|row| row["title"].as_str().unwrap_or_default()).collect();
    assert_eq!((titles, pages), (vec!["Vagabond", "Ran", "Cleo from 5 to 7"], 3));
    // A column that the caller may not read is no way to its values, even by a token of another's.
    gateway
        .admin
        .batch_execute("REVOKE SELECT ON part_hidden FROM pages_forms_app; GRANT SELECT (id, public) ON part_hidden TO pages_forms_app")
        .await
        .expect("rights");
    assert_eq!(walk(&gateway, "/part_hidden?select=id&order=public.desc&limit=1", async |_| {}).await.1, 4);
    let hidden = gateway.get("/part_hidden?select=id&order=hidden&limit=1&page_token=").await;
    assert_eq!(code(&hidden), (403, "42501".to_owned()));

    // As a tree, and within a transaction.
    let page = async |token: &str, limit: u32| {
        let tree = json!({"select": ["id"], "order": [{"column": "year", "nulls": "first"}], "limit": limit, "pageToken": token});
        let answer = gateway.write("POST", "/films/query", &[], tree).await;
        (answer.ok(), answer.header("next-page-token").to_owned())
    };
    let (first, token) = page("", 2).await;
    assert_eq!(first, json!([{"id": 5}, {"id": 1}]));
    assert_eq!(page(&token, 9).await, (json!([{"id": 2}, {"id": 3}, {"id": 4}]), String::new()));
    let operations = json!({"operations": [{"method": "GET", "path": "/actors?limit=3&page_token="}]});
    let done = gateway.write("POST", "/transaction", &[], operations).await.ok();
    assert!(done["results"][0]["headers"]["next-page-token"].is_string(), "{done}");
    let document = gateway.get("/openapi.json").await.ok();
    let named = |collection: &str| {
        let parameters = &document["paths"][format!("/{collection}")]["get"]["parameters"];
        parameters.as_array().is_some_and(|all| all.contains(&json!({"$ref": "#/components/parameters/PageToken"})))
    };
    assert!(named("films") && !named("recent"), "a view has no key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_by_grpc() {
    let (gateway, channel) = crate::grpc::gateway("grpc_pages", json!({})).await;
    let mut client = crate::grpc::client(&channel, &gateway.token("shop/app"));
    let text = query::Form::Text("select=id&order=year.desc.nullslast,id".to_owned());
    let tree =
        json!({"select": ["id"], "order": [{"column": "year", "descending": true, "nulls": "last"}, {"column": "id"}]});
    for form in [text, query::Form::Tree(tree.to_string().into())] {
        let request = |page_size, page_token: &str| ListDocumentsRequest {
            collection: "films".to_owned(),
            query: Some(Query { form: Some(form.clone()) }),
            page_size,
            page_token: page_token.to_owned(),
            ..Default::default()
        };
        let ids = |answer: &ListDocumentsResponse| -> Vec<Value> {
            answer.documents.iter().map(|document| serde_json::from_slice(&document.json).expect("JSON")).collect()
        };
        let whole = client.list_documents(request(0, "")).await.expect("documents").into_inner();
        assert_eq!((whole.documents.len(), whole.next_page_token.as_str()), (5, ""));
        let first = client.list_documents(request(2, "")).await.expect("documents").into_inner();
        let second = client.list_documents(request(3, &first.next_page_token)).await.expect("documents").into_inner();
        assert_eq!([ids(&first), ids(&second)].concat(), ids(&whole));
        assert_eq!(second.next_page_token, "");
        let wrong = ListDocumentsRequest { collection: "actors".to_owned(), ..request(2, &first.next_page_token) };
        let wrong = ListDocumentsRequest { query: None, ..wrong };
        assert_eq!(client.list_documents(wrong).await.expect_err("another's").code(), tonic::Code::InvalidArgument);
    }
}
