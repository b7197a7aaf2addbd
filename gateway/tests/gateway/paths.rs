//! The other paths of document 001.

use serde_json::json;

use crate::SCHEMA;
use crate::server::Gateway;

async fn gateway(name: &str) -> Gateway {
    let search = json!({"search": {"films": ["title"], "notes": ["body"]}, "searchConfiguration": "english"});
    Gateway::start(name, SCHEMA, search).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_query_as_a_tree() {
    let gateway = gateway("tree").await;
    let query = json!({
        "select": ["id", {"embed": "director_id", "as": "director", "select": ["name"]}],
        "where": {"or": [
            {"and": [{"column": "year", "operator": "gte", "value": 1985}, {"not": {"column": "rating", "operator": "eq", "value": "G"}}]},
            {"column": "tags", "operator": "cs", "value": ["paris"]},
            {"column": "id", "operator": "in", "value": [5]},
        ]},
        "order": [{"column": "year", "descending": true, "nulls": "first"}, {"column": "id"}],
        "limit": 3, "offset": 1,
    });
    let answer = gateway.write("POST", "/films/query", &[], query.clone()).await;
    assert_eq!(
        answer.ok(),
        json!([
        {"id": 3, "director": {"name": "Kurosawa"}}, {"id": 4, "director": {"name": "Varda"}}, {"id": 2, "director": {"name": "Varda"}}])
    );
    let counted = gateway.write("POST", "/films/query", &[("prefer", "count=exact")], query).await;
    assert_eq!((counted.status, counted.header("content-range")), (206, "1-3/4"));
    let nulls = json!({"select": ["id"], "where": {"column": "year", "operator": "is", "value": null}});
    assert_eq!(gateway.write("POST", "/films/query", &[], nulls).await.ok(), json!([{"id": 5}]));
    for query in [
        json!({"where": {"column": "id", "operator": "eq"}}),
        json!({"where": {"column": "id", "operator": "what", "value": 1}}),
        json!({"where": {"and": [], "or": []}}),
        json!({"colour": 1}),
        json!([]),
    ] {
        assert_eq!(gateway.write("POST", "/films/query", &[], query.clone()).await.status, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_aggregates_and_search() {
    let gateway = gateway("aggregates").await;
    assert_eq!(gateway.get("/films/count?year=eq.1985").await.ok(), json!({"count": 2}));
    let token = gateway.token("shop/app");
    for kind in ["exact", "estimated"] {
        let answer = gateway
            .send(&token, "GET", "/films/count?year=eq.1985", &[("prefer", &format!("count={kind}"))], None)
            .await;
        assert_eq!(answer.ok(), json!({"count": 2}), "{kind}");
    }
    let tree = json!({"where": {"column": "year", "operator": "eq", "value": 1985}});
    assert_eq!(gateway.write("POST", "/films/count", &[], tree).await.ok(), json!({"count": 2}));
    assert!(
        gateway.send(&token, "GET", "/films/count", &[("prefer", "count=planned")], None).await.ok()["count"].is_u64()
    );

    let body = json!({
        "groupBy": ["rating"],
        "aggregates": [{"function": "count"}, {"function": "sum", "column": "price", "as": "total"}, {"function": "min", "column": "year"},
            {"function": "percentile_cont", "column": "id", "fraction": 0.5, "as": "median"}, {"function": "count", "column": "year", "distinct": true, "as": "years"}],
        "where": {"column": "id", "operator": "lt", "value": 5},
        "having": {"column": "count", "operator": "gte", "value": 1},
        "order": [{"column": "count", "descending": true}, {"column": "rating"}],
        "limit": 2,
    });
    assert_eq!(
        gateway.write("POST", "/films/aggregate", &[], body).await.ok(),
        json!([
        {"rating": "R", "count": 2, "total": 7.25, "min_year": 1985, "median": 3.5, "years": 1},
        {"rating": "G", "count": 1, "total": 9.5, "min_year": 1953, "median": 1, "years": 1}])
    );
    let one = json!({"aggregates": [{"function": "avg", "column": "id"}, {"function": "max", "column": "title"}]});
    assert_eq!(
        gateway.write("POST", "/films/aggregate", &[], one).await.ok(),
        json!([{"avg_id": 3.0, "max_title": "Vagabond"}])
    );
    for body in [
        json!({}),
        json!({"aggregates": [{"function": "sleep", "column": "id"}]}),
        json!({"aggregates": [{"function": "sum"}]}),
        json!({"aggregates": [{"function": "count"}], "having": {"column": "id", "operator": "eq", "value": 1}}),
        json!({"aggregates": [{"function": "percentile_cont", "column": "id", "fraction": 2}]}),
    ] {
        assert_eq!(gateway.write("POST", "/films/aggregate", &[], body.clone()).await.status, 400, "{body}");
    }

    gateway.write("POST", "/notes", &[], json!({"body": "A story about stories of Tokyo"})).await;
    let found = gateway.write("POST", "/search", &[], json!({"query": "story"})).await.ok();
    let found: Vec<_> =
        found.as_array().expect("rows").iter().map(|row| (row["collection"].clone(), row["id"].clone())).collect();
    assert_eq!(found, [(json!("notes"), json!(1)), (json!("films"), json!(1))], "the best first");
    let only =
        gateway.write("POST", "/search", &[], json!({"query": "tokyo -about", "collections": ["films"]})).await.ok();
    assert_eq!(only[0]["document"]["title"], "Tokyo Story");
    assert_eq!(
        gateway.write("POST", "/search", &[], json!({"query": "x", "collections": ["actors"]})).await.json()["code"],
        "SDB109"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_and_openapi() {
    let gateway = gateway("described").await;
    let schema = gateway.get("/schema/notes").await.ok();
    let field = |name: &str| {
        schema["fields"]
            .as_array()
            .and_then(|fields| fields.iter().find(|field| field["name"] == name))
            .cloned()
            .expect("a field")
    };
    assert_eq!((field("body")["required"].clone(), field("created")["required"].clone()), (json!(true), json!(false)));
    assert_eq!(field("created")["default_value"], "now()");
    assert_eq!(field("kind")["values"], json!(["G", "PG", "R"]));
    assert!(
        field("body")["constraints"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(|one| one.starts_with("CHECK"))))
    );
    assert_eq!(schema["indexes"][0], json!({"name": "notes_pkey", "fields": ["id"], "unique": true}));
    assert_eq!(gateway.get("/schema/secrets").await.ok()["security"]["access_control"], "grants and row policies");
    assert_eq!(gateway.get("/schema/nothing").await.status, 404);
    let document = gateway.get("/openapi.json").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    for path in [
        "/films",
        "/films/{id}",
        "/films/count",
        "/films/query",
        "/films/aggregate",
        "/search",
        "/transaction",
        "/schema/{collection}",
        "/migrations",
        "/migrations/status",
        "/stats",
        "/health",
        "/performance",
        "/connections",
        "/rpc/add",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    assert_eq!(document["components"]["schemas"]["notes.create"]["required"], json!(["body"]));
    for (path, body) in [
        ("/films/query", "query"),
        ("/films/count", "query"),
        ("/films/aggregate", "aggregate"),
        ("/search", "search"),
        ("/transaction", "transaction"),
    ] {
        let named = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(*named, format!("#/components/schemas/body.{body}"), "{path}");
    }
    // Each reference leads somewhere.
    let text = document.to_string();
    for named in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(named).is_some(), "{named}");
    }
    assert_eq!(document["components"]["schemas"]["films"]["properties"]["title"]["maxLength"], 40);
    for (path, method) in [("/films/{id}", "patch"), ("/films/count", "get"), ("/films/count", "post")] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
    assert!(document["paths"]["/recent/{id}"].is_null(), "a view has no key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_has_the_methods_that_are_served() {
    let gateway = gateway("documented").await;
    let document = gateway.get("/openapi.json").await.ok();
    let paths = document["paths"].as_object().expect("paths");
    // Who may only read changes nothing.
    let token = gateway.token("shop/reader");
    let mut served_paths = 0;
    for (path, methods) in paths {
        let address = path.replace("{id}", "1").replace("{collection}", "actors").replace(' ', "%20");
        // With another method, these are documents.
        let is_item = ["/query", "/count", "/aggregate"].iter().any(|end| path.ends_with(end));
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let is_documented = methods.get(method.to_lowercase()).is_some();
            if is_item && !is_documented {
                continue;
            }
            let answer = gateway.send(&token, method, &address, &[], Some("{}".to_owned())).await;
            let refusal = answer.status == 405;
            let code = refusal.then(|| answer.json());
            let is_served = match code.as_ref().and_then(|code| code["code"].as_str()) {
                None => true,
                // The filter is missing, or the whole key.
                Some("PGRST105") => code.as_ref().is_some_and(|code| code["hint"] != "eq of each of: "),
                // By GET, a function that writes.
                Some("25006") => true,
                Some(_) => false,
            };
            assert_eq!(is_documented, is_served, "{method} {path}: {answer:?}");
            served_paths += usize::from(is_served);
        }
        if !is_item {
            let head = gateway.send(&token, "HEAD", &address, &[], None).await;
            let is_served = methods.get("get").is_some();
            assert!(!is_served || head.status != 405 || path.starts_with("/rpc/"), "HEAD {path}: {head:?}");
            assert!(is_served || head.status == 405, "HEAD {path}: {head:?}");
        }
    }
    assert!(served_paths > 60, "{served_paths}");
    for (path, method, is_there) in [
        ("/films", "put", true),
        ("/recent", "put", false),
        ("/rpc/add", "get", true),
        ("/migrations", "post", true),
        ("/openapi.json", "get", true),
    ] {
        assert_eq!(document["paths"][path].get(method).is_some(), is_there, "{method} {path}");
    }
    let keys = document["paths"]["/roles"]["put"]["parameters"].as_array().expect("parameters");
    let required: Vec<_> = keys.iter().filter(|key| key["required"] == true).map(|key| key["name"].as_str()).collect();
    assert_eq!(required, [Some("film_id"), Some("actor_id")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_and_migrations() {
    let gateway = gateway("monitored").await;
    assert_eq!(
        gateway.get("/health").await.ok(),
        json!({"status": "ok", "database": {"status": "ok", "writable": true}, "schema": "ok"})
    );
    assert_eq!(gateway.get("/migrations").await.ok(), json!([]), "without a ledger");
    gateway
        .admin
        .batch_execute(&format!(
            "CREATE SCHEMA servicedb; CREATE TABLE servicedb.migrations (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, version bigint NOT NULL,
               name text NOT NULL, status text NOT NULL, checksum text NOT NULL, started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
               duration_ms bigint, error text, version_text text, ordinal text);
             INSERT INTO servicedb.migrations (version, name, status, checksum, duration_ms, version_text, ordinal)
               VALUES (1, 'first', 'completed', 'c', 12, '1', '1'), (2, 'second', 'failed', 'c', 5, '1.2', '2');
             GRANT USAGE ON SCHEMA servicedb TO {0}; GRANT SELECT ON servicedb.migrations TO {0}",
            gateway.login
        ))
        .await
        .expect("a ledger");
    let list = gateway.get("/migrations").await.ok();
    assert_eq!(
        (list[0]["name"].clone(), list[1]["version"].clone(), list[1]["status"].clone()),
        (json!("first"), json!("1.2"), json!("failed"))
    );
    assert_eq!(
        gateway.get("/migrations/status").await.ok(),
        json!({"version": "1", "completed": 1, "pending": 0, "executing": 0, "failed": 1})
    );
    let refused = gateway.write("POST", "/migrations", &[], json!({})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("SDB114")));

    let stats = gateway.get("/stats").await.ok();
    assert_eq!(stats["database"]["name"], "monitored");
    assert!(stats["collections"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "films")));
    let connections = gateway.get("/connections").await.ok();
    assert_eq!((connections["pool"]["limit"].clone(), connections["open_transactions"].clone()), (json!(10), json!(0)));
    gateway.get("/films?select=id&year=eq.1985").await;
    gateway.get("/films?select=colour").await;
    let performance = gateway.get("/performance").await.ok();
    let failed = &performance["queries"][0];
    assert_eq!((failed["success"].clone(), failed["error_message"].clone()), (json!(false), json!("PGRST204")));
    let read = &performance["queries"][1];
    assert_eq!(
        (
            read["collection"].clone(),
            read["operation_type"].clone(),
            read["documents_processed"].clone(),
            read["query_pattern"].clone()
        ),
        (json!("films"), json!("find"), json!(2), json!("select=id&year=eq.$"))
    );
    let other = gateway.send(&gateway.token("shop/reader"), "GET", "/performance", &[], None).await.ok();
    assert_eq!(other["queries"], json!([]), "of one's own requests only");
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("servicedb_gateway_requests_total{service=\"shop/app\",collection=\"films\",operation=\"find\",status=\"200\"} 1"), "{metrics}");
    gateway.write("POST", "/actors", &[], json!({"id": 40, "name": "x"})).await;
    let audit = gateway.log().lines().find(|line| line.contains("\"audit\"")).map(str::to_owned).unwrap_or_default();
    assert!(audit.contains("shop/app") && audit.contains("insert") && audit.contains("actors"), "{audit}");
    for (method, path) in
        [("POST", "/stats"), ("DELETE", "/health"), ("PUT", "/films"), ("GET", "/transaction"), ("PATCH", "/rpc/add")]
    {
        assert_eq!(gateway.write(method, path, &[], json!(null)).await.status, 405, "{method} {path}");
    }
}
