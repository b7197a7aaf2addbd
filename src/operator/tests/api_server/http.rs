//! HTTP requests and responses of the store.

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::store::{Answer, PatchKind};
use super::{ApiServer, Key, Recorded};
use crate::operator::tests::faults::Fault;

/// The path of the discovery document of ServiceAccount tokens.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Their issuer.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A client of the server. Requests are served one after the other, in the order in which
/// they were sent.
pub fn client(server: &ApiServer) -> Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = server.clone();
    tokio::spawn(async move {
        while let Some((request, reply)) = handle.next_request().await {
            let reads = request.method() == Method::GET;
            let answer = serve(&server, request).await;
            let send = move || match answer {
                Some(response) => reply.send_response(response),
                None => reply.send_error("the connection was closed"),
            };
            let lateness = server.lateness();
            if reads || lateness.is_zero() {
                send();
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(lateness).await;
                    send();
                });
            }
        }
    });
    Client::new(service, "default")
}

/// None: no answer arrives.
async fn serve(server: &ApiServer, request: Request<Body>) -> Option<Response<Body>> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect_bytes().await.expect("a body");
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
    let query: Vec<(String, String)> = pairs(parts.uri.query().unwrap_or_default());
    let asked = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if parts.uri.path() == DISCOVERY {
        return Some(respond(Ok(json!({"issuer": ISSUER}))));
    }
    let (key, subresource) = target(parts.uri.path());
    let status = subresource.as_deref() == Some("status");
    assert!(subresource.is_none() || status, "{} is not served", parts.uri.path());
    let content = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named = !key.2.is_empty();
    let verb = match parts.method {
        Method::POST if asked("dryRun").as_deref() == Some("All") => "DRY-RUN",
        Method::GET if named => "GET",
        Method::GET => "LIST",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH if content.contains("apply-patch") => "APPLY",
        Method::PATCH if content.contains("merge-patch+json") => "MERGE",
        Method::DELETE => "DELETE",
        method => panic!("{method} {content} is not served"),
    };
    let name = if ["POST", "DRY-RUN"].contains(&verb) { text(&body["metadata"]["name"]) } else { key.2.clone() };
    let resource = if status { format!("{}/status", key.0) } else { key.0.clone() };
    let recorded = Recorded { verb, resource, name: name.clone(), body: body.clone() };
    let fault = if recorded.mutates() { server.faults.next(&recorded.line()) } else { server.faults.now() };
    server.record(recorded);
    if fault == Some(Fault::BeforeSend) {
        return None;
    }
    let manager = asked("fieldManager").unwrap_or_else(|| "unknown".to_owned());
    let mut store = server.store();
    let answer = match verb {
        "GET" => store.get(&key),
        "LIST" => Ok(store.list(&key.0, &key.1, &asked("labelSelector").unwrap_or_default())),
        "DRY-RUN" => store.admit(&key.0, body),
        "POST" => store.create(&(key.0, key.1, name), body, &manager),
        "PUT" => store.replace(&key, body),
        "APPLY" => store.patch(&key, &body, PatchKind::Apply(&manager), status),
        "MERGE" => store.patch(&key, &body, PatchKind::Merge, status),
        _ => store.delete(&key, &body),
    };
    (fault.is_none()).then(|| respond(answer))
}

fn respond(answer: Answer) -> Response<Body> {
    let (code, body) = match answer {
        Ok(body) => (200, body),
        Err(refusal) => {
            let body = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refusal.code,
                "reason": refusal.reason, "message": refusal.message, "metadata": {}, "details": {},
            });
            (refusal.code, body)
        }
    };
    let body = Body::from(body.to_string().into_bytes());
    Response::builder().status(code).header("content-type", "application/json").body(body).expect("a response")
}

/// `/api/v1/namespaces/<ns>/<plural>/<name>/<subresource>`, or the same under `/apis/<group>`.
fn target(path: &str) -> (Key, Option<String>) {
    let mut parts =
        path.trim_matches('/').split('/').skip_while(|part| *part != "namespaces").skip(1).map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (namespace, plural, name) = (next(), next(), next());
    assert!(!plural.is_empty(), "{path} is not served");
    ((plural, namespace, name), parts.next())
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ").replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        text.replace("%21", "!")
    };
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (decode(key), decode(value))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
