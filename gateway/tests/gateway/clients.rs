//! Clients of others, unmodified. `dev/test-gateway.sh` installs them and runs this.

use std::process::Command;

use serde_json::json;

use crate::once::with_records;
use crate::server::{Gateway, Server};
use crate::tokens::{AUDIENCE, ISSUER, now};
use crate::{SCHEMA, grpc};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs packages from npm: dev/test-gateway.sh"]
async fn postgrest_js() {
    let gateway = Gateway::start("clients", SCHEMA, json!({})).await;
    let folder = std::env::var("GATEWAY_CLIENTS").expect("GATEWAY_CLIENTS: the folder with node_modules");
    let mut node = Command::new("node");
    node.arg("postgrest.mjs").current_dir(&folder);
    node.env("GATEWAY_URL", format!("{}/api/db", gateway.url)).env("GATEWAY_TOKEN", gateway.token("shop/app"));
    let ended = tokio::task::spawn_blocking(move || node.output()).await.expect("a thread").expect("node runs");
    println!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{}", gateway.log());
}

/// An unmodified grpcurl finds the service and its messages by reflection, and calls it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Go module: dev/test-gateway.sh"]
async fn grpcurl() {
    // By TLS, without which the gateway speaks HTTP/1.1 alone.
    let (gateway, _) = grpc::gateway("grpcurl", json!({})).await;
    let authority = Server::shared().folder().join("grpc-grpcurl/ca.crt");
    let folder = std::env::var("GATEWAY_CLIENTS").expect("GATEWAY_CLIENTS: the folder with grpcurl");
    let address = gateway.url.strip_prefix("http://").expect("an address").to_owned();
    let authorization = format!("authorization: Bearer {}", gateway.token("shop/app"));
    let call = async |words: &[&str]| {
        let mut program = Command::new(format!("{folder}/grpcurl"));
        program.arg("-cacert").arg(&authority).args(["-servername", "localhost", "-max-time", "60"]);
        program.args(["-H", &authorization]).args(words);
        let ended = tokio::task::spawn_blocking(move || program.output()).await.expect("a thread").expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ended.status.success(), text(&ended.stdout), text(&ended.stderr))
    };
    let (_, services, error) = call(&[&address, "list"]).await;
    assert!(services.lines().any(|line| line == "servicedb.data.v1.Data"), "{services}{error}");
    let get = |key: &str| format!("{{\"collection\": \"films\", \"key\": [\"{key}\"], \"select\": \"title\"}}");
    let method = "servicedb.data.v1.Data/GetDocument";
    let (is_found, film, error) = call(&["-d", &get("1"), &address, method]).await;
    // `{"title":` in Base64, as JSON has bytes.
    assert!(is_found && film.contains("eyJ0aXRsZSI6"), "{film}{error}");
    let (is_found, _, error) = call(&["-d", &get("4711"), &address, method]).await;
    assert!(!is_found && error.contains("NotFound"), "{error}");
}

/// Requests that Schemathesis makes of the OpenAPI document, fitting it and not: no server error, and no answer that the
/// document does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs packages from PyPI: dev/test-gateway.sh"]
async fn schemathesis() {
    let gateway = Gateway::start("schemathesis", SCHEMA, json!({})).await;
    with_records(&gateway).await;
    let folder = std::env::var("GATEWAY_CLIENTS").expect("GATEWAY_CLIENTS: the folder with venv");
    let document = format!("{folder}/openapi.json");
    std::fs::write(&document, gateway.get("/openapi.json").await.ok().to_string()).expect("a file");
    let token = gateway.signed(&json!({
        "iss": ISSUER, "aud": [AUDIENCE], "exp": now() + 7200, "nbf": now() - 5, "sub": "system:serviceaccount:shop:app",
    }));
    // Removals last: until then there are rows to be read.
    for which in ["--exclude-method", "--include-method"] {
        let mut program = Command::new("timeout");
        program.args(["1200", &format!("{folder}/venv/bin/st"), "--no-color", "run", &document, which, "DELETE"]);
        program.args(["--url", &format!("{}/api/db", gateway.url), "-H", &format!("Authorization: Bearer {token}")]);
        program.args([
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            "10",
            "--seed",
            "1",
            "--no-shrink",
            "--continue-on-failure",
        ]);
        program.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"]);
        program.args(["--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"]);
        program.args(["--request-timeout", "60"]).current_dir(&folder);
        let ended = tokio::task::spawn_blocking(move || program.output()).await.expect("a thread").expect("it runs");
        println!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "{which} DELETE: {:?} {}", ended.status, gateway.log());
    }
    assert_eq!(gateway.get("/health").await.ok()["status"], "ok");
}
