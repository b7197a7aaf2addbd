//! Clients of others, unmodified. `dev/test-gateway.sh` installs them and runs this.

use std::process::Command;

use serde_json::json;

use crate::SCHEMA;
use crate::server::Gateway;

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
