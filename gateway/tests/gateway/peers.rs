//! Several pods of one gateway: transactions that another one has.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use servicedb_gateway::grpc::proto::{
    BeginTransactionRequest, CommitTransactionRequest, CountDocumentsRequest, GetDocumentRequest, ListDocumentsRequest,
    Query, query,
};
use tonic::Code;

use crate::SCHEMA;
use crate::grpc;
use crate::server::{Gateway, Server, free_port};
use crate::tls::{authority, certificate};

/// A pod as its clients see it.
struct Pod {
    client: reqwest::Client,
    base: String,
}

/// An answer: status and body.
type Answer = (u16, Value);

impl Pod {
    fn at(address: SocketAddr, folder: &Path) -> Self {
        let ca = std::fs::read(folder.join("ca.crt")).expect("a file");
        let client = reqwest::Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).expect("PEM"))
            .resolve("localhost", address)
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client");
        Self { client, base: format!("https://localhost:{}", address.port()) }
    }

    async fn ask(&self, token: &str, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut request = self.client.request(method, format!("{}/api/db{path}", self.base)).bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        assert!(!answer.headers().keys().any(|name| name.as_str().starts_with("servicedb-")), "{answer:?}");
        let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn begin(&self, token: &str) -> String {
        let (status, begun) = self.ask(token, Method::POST, "/transaction", &[], json!({"begin": true})).await;
        assert_eq!(status, 201, "{begun}");
        begun["txn_id"].as_str().expect("an id").to_owned()
    }
}

fn code((status, body): &Answer) -> (u16, &str) {
    (*status, body["code"].as_str().unwrap_or_default())
}

/// Two pods of one gateway, at two addresses of this machine.
async fn two(name: &str) -> (Gateway, Gateway, [Pod; 2], [SocketAddr; 2], std::path::PathBuf) {
    let folder = Server::shared().folder().join(format!("pods-{name}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    authority(&folder);
    certificate(&folder, "server", "/CN=localhost");
    let port = free_port();
    let addresses = [[127, 0, 0, 1], [127, 0, 0, 2]].map(|address| SocketAddr::new(IpAddr::from(address), port));
    let settings = json!({
        "listen": addresses[0].to_string(),
        "tls": {"certificate": folder.join("server.crt"), "key": folder.join("server.key")},
        "peers": {"hosts": ["127.0.0.1", "127.0.0.2"], "port": port, "name": "localhost", "ca": folder.join("ca.crt")},
    });
    let one = Gateway::start(name, SCHEMA, settings).await;
    let other = one.beside(json!({"listen": addresses[1].to_string()})).await;
    let pods = addresses.map(|address| Pod::at(address, &folder));
    (one, other, pods, addresses, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_found_from_another_pod() {
    let (one, other, [here, there], ..) = two("peers").await;
    let token = one.token("shop/app");
    let id = here.begin(&token).await;
    let within = [("txn-id", id.as_str()), ("prefer", "return=representation, count=exact")];
    let row = json!({"id": 20, "name": "Inside & outside"});
    let created = there.ask(&token, Method::POST, "/actors", &within, row.clone()).await;
    assert_eq!(created, (201, json!([row])), "{} {}", one.log(), other.log());
    // The names of filters and of paths arrive as they were.
    let found = there.ask(&token, Method::GET, "/actors?name=eq.Inside%20%26%20outside", &within, Value::Null).await;
    assert_eq!(found, (200, json!([row])));
    assert_eq!(there.ask(&token, Method::GET, "/odd%20name/1", &within, Value::Null).await.0, 404);
    assert_eq!(there.ask(&token, Method::HEAD, "/actors", &within, Value::Null).await, (200, json!("")));
    assert_eq!(there.ask(&token, Method::GET, "/actors/20", &[], Value::Null).await.0, 404, "not yet for others");
    // A fault of a request is the answer, and the transaction goes on.
    let fault = there.ask(&token, Method::POST, "/actors", &within, json!({"id": "x"})).await;
    assert_eq!(code(&fault), (400, "SDB100"));
    assert!(fault.1["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{fault:?}");
    // The pod that has it knows callers by their own tokens.
    let reader = there.ask(&one.token("shop/reader"), Method::GET, "/actors/20", &within, Value::Null).await;
    assert_eq!(code(&reader), (404, "SDB403"), "it is its caller's only");
    assert_eq!(code(&there.ask("x", Method::GET, "/actors/20", &within, Value::Null).await), (401, "PGRST301"));

    let committed = there.ask(&token, Method::POST, "/transaction", &[], json!({"commit": id})).await;
    assert_eq!(committed, (200, json!({"txn_id": id, "status": "committed"})));
    assert_eq!(there.ask(&token, Method::GET, "/actors/20", &[], Value::Null).await.1, row);
    let ended = there.ask(&token, Method::POST, "/transaction", &[], json!({"commit": id})).await;
    assert_eq!(code(&ended), (404, "SDB403"), "its pod says that it has ended");
    // Each write is recorded once, where it was carried out.
    let audited = |gateway: &Gateway| {
        gateway.log().lines().filter(|line| line.contains("\"audit\"") && line.contains("\"insert\"")).count()
    };
    assert_eq!((audited(&one), audited(&other)), (2, 0), "{} {}", one.log(), other.log());

    let id = there.begin(&token).await;
    let within = [("txn-id", id.as_str())];
    assert_eq!(here.ask(&token, Method::PATCH, "/actors?id=eq.20", &within, json!({"name": "x"})).await.0, 204);
    let rolled_back = here.ask(&token, Method::POST, "/transaction", &within, json!({"rollback": true})).await;
    assert_eq!(rolled_back.1["status"], "rolled back");
    assert_eq!(here.ask(&token, Method::GET, "/actors/20", &[], Value::Null).await.1, row);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_gone_with_its_pod() {
    let (one, other, [here, there], ..) = two("lost_peers").await;
    let token = one.token("shop/app");
    let (known, unknown) = (there.begin(&token).await, there.begin(&token).await);
    let row = json!({"id": 30, "name": "Thirty"});
    let within = [("txn-id", known.as_str())];
    assert_eq!(here.ask(&token, Method::POST, "/actors", &within, row).await.0, 201);
    // A request that was passed on is not passed on again.
    let twice = [("txn-id", known.as_str()), ("servicedb-forwarded", "true")];
    assert_eq!(code(&here.ask(&token, Method::GET, "/actors/30", &twice, Value::Null).await), (409, "SDB410"));

    other.kill().await;
    for id in [&known, &unknown] {
        let within = [("txn-id", id.as_str())];
        let read = here.ask(&token, Method::GET, "/actors/30", &within, Value::Null).await;
        assert_eq!(code(&read), (409, "SDB410"), "{}", one.log());
        let commit = here.ask(&token, Method::POST, "/transaction", &[], json!({"commit": id})).await;
        assert_eq!(code(&commit), (409, "SDB410"), "{commit:?}");
        // One that was sent before may have been carried out.
        let told = commit.1["details"].as_str().unwrap_or_default();
        assert!(told.starts_with("this request has committed nothing; a commit"), "{told}");
    }
    assert_eq!(here.ask(&token, Method::GET, "/actors/30", &[], Value::Null).await.0, 404, "it was rolled back");
    // Ids that nobody has given are answered, and others are served beside them.
    let made_up = format!("{}{}", if known.starts_with('A') { 'B' } else { 'A' }, &known[1..]);
    let within = [("txn-id", made_up.as_str())];
    let asked = (0..8).map(|_| here.ask(&token, Method::GET, "/actors", &within, Value::Null));
    let (answers, own) =
        tokio::join!(futures::future::join_all(asked), here.ask(&token, Method::GET, "/actors", &[], Value::Null));
    assert!(answers.iter().all(|answer| code(answer) == (409, "SDB410")), "{answers:?}");
    assert_eq!(own.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_cannot_be_found_are_not_taken_for_gone() {
    let (one, other, [here, _], addresses, folder) = two("hidden_peers").await;
    drop(other);
    let settings = json!({
        "listen": SocketAddr::new(IpAddr::from([127, 0, 0, 3]), addresses[0].port()).to_string(),
        "peers": {"hosts": ["pods.invalid"], "port": addresses[0].port(), "name": "localhost", "ca": folder.join("ca.crt")},
    });
    let lone = one.beside(settings).await;
    let lone_pod = Pod::at(SocketAddr::new(IpAddr::from([127, 0, 0, 3]), addresses[0].port()), &folder);
    let token = one.token("shop/app");
    let id = here.begin(&token).await;
    let within = [("txn-id", id.as_str())];
    // All that wait for a look share what it has found out.
    let asked = (0..8).map(|_| lone_pod.ask(&token, Method::GET, "/actors", &within, Value::Null));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| code(answer) == (503, "SDB411")), "{answers:?} {}", lone.log());
    let committed = here.ask(&token, Method::POST, "/transaction", &[], json!({"commit": id})).await;
    assert_eq!(committed.0, 200, "{committed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_grpc_too() {
    let (one, other, [_, there], [address, _], folder) = two("grpc_peers").await;
    let token = one.token("shop/app");
    let channel = grpc::channel(&format!("https://{address}"), &folder.join("ca.crt")).await;
    let mut client = grpc::client(&channel, &token);
    let id = there.begin(&token).await;
    let mut create = grpc::create("actors", json!({"id": 40, "name": "Forty"}));
    create.transaction.clone_from(&id);
    client.create_document(create).await.expect("created in the other pod");
    let get = |id: &str| GetDocumentRequest { transaction: id.to_owned(), ..grpc::get("actors", "40") };
    let document = client.get_document(get(&id)).await.expect("there").into_inner();
    assert!(!document.etag.is_empty());
    let list = ListDocumentsRequest {
        collection: "actors".to_owned(),
        transaction: id.clone(),
        page_size: 2,
        ..Default::default()
    };
    let list = client.list_documents(list).await.expect("documents").into_inner();
    assert_eq!((list.documents.len(), list.next_page_token.is_empty()), (2, false));
    let count =
        CountDocumentsRequest { collection: "actors".to_owned(), transaction: id.clone(), ..Default::default() };
    assert_eq!(client.count_documents(count).await.expect("a number").into_inner().count, 5);
    // What no URL holds is refused, and the transaction goes on.
    let text = format!("name=neq.{}", "x".repeat(70_000));
    let long = ListDocumentsRequest {
        collection: "actors".to_owned(),
        transaction: id.clone(),
        query: Some(Query { form: Some(query::Form::Text(text)) }),
        ..Default::default()
    };
    let refused = client.list_documents(long).await.expect_err("too long");
    assert_eq!((refused.code(), grpc::code(&refused).as_str()), (Code::InvalidArgument, "SDB400"));
    client.commit_transaction(CommitTransactionRequest { transaction: id }).await.expect("committed");
    client.get_document(grpc::get("actors", "40")).await.expect("there");

    let id = there.begin(&token).await;
    client.get_document(get(&id)).await.expect("there");
    other.kill().await;
    let gone = client.get_document(get(&id)).await.expect_err("gone with its pod");
    assert_eq!((gone.code(), grpc::code(&gone).as_str()), (Code::Aborted, "SDB410"));
    let begun = client.begin_transaction(BeginTransactionRequest::default()).await.expect("a transaction").into_inner();
    client.get_document(get(&begun.id)).await.expect("in its own pod");
}
