//! Who may call, and as which role.

use serde_json::json;

use crate::SCHEMA;
use crate::server::Gateway;
use crate::tokens::{AUDIENCE, ISSUER, new_key, now, sign};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_valid_tokens_of_this_cluster_and_audience() {
    let gateway = Gateway::start("tokens", SCHEMA, json!({})).await;
    let claims = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims =
            json!({"iss": ISSUER, "aud": AUDIENCE, "exp": now() + 60, "sub": "system:serviceaccount:shop:app"});
        change(&mut claims);
        claims
    };
    let valid = gateway.signed(&claims(&|_| {}));
    assert_eq!(gateway.send(&valid, "GET", "/actors", &[], None).await.status, 200);
    let (head, rest) = valid.split_once('.').expect("parts");
    let (payload, signature) = rest.split_once('.').expect("parts");
    use base64::Engine;
    let none = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"one"}"#);
    let critical =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"one","crit":["x"],"x":1}"#);
    let rsa = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"one"}"#);
    for (name, token, status) in [
        ("no token", String::new(), 401),
        ("no JWT", "abc".to_owned(), 401),
        ("expired", gateway.signed(&claims(&|claims| claims["exp"] = json!(now() - 60))), 401),
        ("not yet", gateway.signed(&claims(&|claims| claims["nbf"] = json!(now() + 600))), 401),
        ("another audience", gateway.signed(&claims(&|claims| claims["aud"] = json!(["other.servicedb"]))), 401),
        ("another cluster", gateway.signed(&claims(&|claims| claims["iss"] = json!("https://other.test"))), 401),
        ("another key", sign(&new_key(), "one", &claims(&|_| {})), 401),
        ("an unknown key", sign(&new_key(), "two", &claims(&|_| {})), 401),
        ("no algorithm", format!("{none}.{payload}."), 401),
        ("no algorithm, signed", format!("{none}.{payload}.{signature}"), 401),
        ("an extension that must be understood", format!("{critical}.{payload}.{signature}"), 401),
        ("another algorithm", format!("{rsa}.{payload}.{signature}"), 401),
        ("changed", format!("{head}.{}.{signature}", payload.replace('a', "b")), 401),
        ("a user", gateway.signed(&claims(&|claims| claims["sub"] = json!("alice"))), 401),
        (
            "an account without a role",
            gateway.signed(&claims(&|claims| claims["sub"] = json!("system:serviceaccount:shop:other"))),
            403,
        ),
        (
            "another namespace",
            gateway.signed(&claims(&|claims| claims["sub"] = json!("system:serviceaccount:other:app"))),
            403,
        ),
    ] {
        for path in ["/actors", "/health", "/openapi.json", "/nothing"] {
            let answer = gateway.send(&token, "GET", path, &[], None).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            assert!(token.len() < 20 || !gateway.log().contains(&token), "{name}: the token is in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_renewed() {
    let mut gateway = Gateway::start("renewed", SCHEMA, json!({})).await;
    let former = gateway.token("shop/app");
    assert_eq!(gateway.send(&former, "GET", "/actors/1", &[], None).await.status, 200);
    gateway.rotate_key("two");
    // At once, for all who come while the keys are read.
    let answers = futures::future::join_all((0..8).map(|_| gateway.get("/actors/1"))).await;
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200; 8]);
    assert_eq!(gateway.send(&former, "GET", "/actors/1", &[], None).await.status, 401, "the former key is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_enforces_each_callers_rights() {
    let gateway = Gateway::start("rights", SCHEMA, json!({})).await;
    let (app, reader) = (gateway.token("shop/app"), gateway.token("shop/reader"));
    let write = Some(json!({"id": 30, "name": "x"}).to_string());
    let refused = gateway.send(&reader, "POST", "/actors", &[], write.clone()).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("42501")));
    assert_eq!(gateway.send(&app, "POST", "/actors", &[], write).await.status, 201);
    assert_eq!(
        gateway.send(&reader, "GET", "/actors?id=eq.30", &[], None).await.ok(),
        json!([{"id": 30, "name": "x"}])
    );
    // Row policies see who calls.
    for (token, id) in [(&app, 1), (&reader, 2), (&app, 1)] {
        assert_eq!(gateway.send(token, "GET", "/secrets?select=id", &[], None).await.ok(), json!([{"id": id}]));
    }
    // A caller may create what it may not read.
    let drop_box = "CREATE TABLE drop_box (id int PRIMARY KEY, note text); GRANT INSERT ON drop_box TO rights_reader";
    gateway.admin.batch_execute(drop_box).await.expect("a table");
    let dropped =
        gateway.send(&reader, "POST", "/drop_box", &[], Some(json!({"id": 1, "note": "x"}).to_string())).await;
    assert_eq!((dropped.status, dropped.header("location")), (201, "/api/db/drop_box/1"), "{dropped:?}");
    assert_eq!(gateway.send(&reader, "GET", "/drop_box", &[], None).await.status, 403);
    // The login cannot take a role that it was not given, whatever the settings say.
    let ghost = gateway.send(&gateway.token("shop/ghost"), "GET", "/actors", &[], None).await;
    assert_eq!(ghost.status, 503, "{ghost:?}");
    // And it has no right of its own.
    let own = gateway.admin.query_one("SELECT has_table_privilege($1, 'actors', 'SELECT')", &[&gateway.login]).await;
    assert!(!own.expect("a right").get::<_, bool>(0));
}

#[tokio::test]
async fn a_right_to_some_columns_is_enough_for_a_document_and_for_the_statistics() {
    let gateway = Gateway::start("columns", SCHEMA, json!({})).await;
    let limit = "REVOKE ALL ON films FROM columns_reader; GRANT SELECT (id, title) ON films TO columns_reader;
                 REVOKE CONNECT ON DATABASE columns FROM PUBLIC; GRANT CONNECT ON DATABASE columns TO columns_gateway";
    gateway.admin.batch_execute(limit).await.expect("rights");
    let reader = gateway.token("shop/reader");
    let get = async |path: &str| gateway.send(&reader, "GET", path, &[], None).await;
    let title = get("/films?select=id,title&id=eq.1").await.ok()[0].clone();
    let document = get("/films/1?select=id,title").await;
    assert_eq!(document.ok(), title);
    assert_eq!(document.header("etag"), "", "the version of a row needs the right to all columns");
    assert_eq!(get("/films/1").await.status, 403);
    // As many times over one connection: a refused statement leaves it as it was.
    assert_eq!(get("/films/1?select=id,title").await.ok(), title);
    assert_eq!(get("/stats").await.ok()["database"]["size_bytes"], json!(null));
    assert!(gateway.get("/films/1").await.header("etag").starts_with('"'));
}
