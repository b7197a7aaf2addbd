//! Clients of others, unmodified. `dev/test-gateway.sh` installs them and runs this.

use std::process::Command;

use serde_json::json;

use crate::SCHEMA;
use crate::once::with_records;
use crate::server::Gateway;
use crate::tokens::{AUDIENCE, ISSUER, now};

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
