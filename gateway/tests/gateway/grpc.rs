//! gRPC on the port of REST.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use serde_json::{Value, json};
use servicedb_gateway::grpc::proto::data_client::DataClient;
use servicedb_gateway::grpc::proto::{
    BatchCreateDocumentsRequest, BeginTransactionRequest, CommitTransactionRequest, Conflict, CountDocumentsRequest,
    CountMode, CreateDocumentRequest, DeleteDocumentRequest, Document, GetDocumentRequest, Isolation,
    ListDocumentsRequest, Query, RollbackTransactionRequest, StreamDocumentsRequest, UpdateDocumentRequest, query,
};
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::SCHEMA;
use crate::server::{Gateway, Server};
use crate::tls::{authority, certificate};

/// Adds a token.
#[derive(Clone)]
pub struct Token(Option<MetadataValue<tonic::metadata::Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub type Client = DataClient<InterceptedService<Channel, Token>>;

/// A gateway with TLS, and a connection to it.
pub async fn gateway(name: &str, limits: Value) -> (Gateway, Channel) {
    gateway_at(Server::shared(), name, limits, Value::Null).await
}

/// As [`gateway`], at this server with these replicas.
pub async fn gateway_at(server: &'static Server, name: &str, limits: Value, replicas: Value) -> (Gateway, Channel) {
    let folder = server.folder().join(format!("grpc-{name}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    authority(&folder);
    certificate(&folder, "server", "/CN=localhost");
    let tls = json!({"certificate": folder.join("server.crt"), "key": folder.join("server.key")});
    let database = json!({
        "host": "127.0.0.1", "port": server.port, "name": name, "user": format!("{name}_gateway"),
        "replicas": replicas,
    });
    let settings = json!({"tls": tls, "limits": limits, "database": database});
    let gateway = Gateway::start_at(server, name, SCHEMA, settings).await;
    let channel = channel(&gateway.url.replace("http://", "https://"), &folder.join("ca.crt")).await;
    (gateway, channel)
}

/// A connection to this address, whose certificate is of this authority.
pub async fn channel(url: &str, authority: &Path) -> Channel {
    let root = Certificate::from_pem(std::fs::read(authority).expect("a file"));
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    let endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(root)).expect("a configuration");
    endpoint.connect().await.unwrap_or_else(|error| panic!("{error:?}"))
}

/// A client with a token.
pub fn client(channel: &Channel, token: &str) -> Client {
    let token = (!token.is_empty()).then(|| format!("Bearer {token}").parse().expect("ASCII"));
    DataClient::with_interceptor(channel.clone(), Token(token))
}

fn text(text: &str) -> Option<Query> {
    Some(Query { form: Some(query::Form::Text(text.to_owned())) })
}

fn tree(tree: Value) -> Option<Query> {
    Some(Query { form: Some(query::Form::Tree(tree.to_string().into())) })
}

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.json).expect("JSON")
}

fn values(documents: &[Document]) -> Vec<Value> {
    documents.iter().map(value).collect()
}

/// Asks for a document by its key.
pub fn get(collection: &str, key: &str) -> GetDocumentRequest {
    GetDocumentRequest { collection: collection.to_owned(), key: vec![key.to_owned()], ..Default::default() }
}

/// Asks for a new document.
pub fn create(collection: &str, document: Value) -> CreateDocumentRequest {
    CreateDocumentRequest {
        collection: collection.to_owned(),
        document: document.to_string().into(),
        ..Default::default()
    }
}

/// The gateway's code in a status.
pub fn code(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
    info.metadata["code"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_read_and_written() {
    let (gateway, channel) = gateway("grpc_documents", json!({})).await;
    let mut client = client(&channel, &gateway.token("shop/app"));
    let read = client.get_document(get("actors", "1")).await.expect("a document").into_inner();
    assert_eq!(value(&read), json!({"id": 1, "name": "Ryu"}));
    assert_eq!(read.etag, gateway_etag(&mut client).await);
    let embedded = GetDocumentRequest { select: "title,director_id(name)".to_owned(), ..get("films", "1") };
    let embedded = client.get_document(embedded).await.expect("a document").into_inner();
    assert_eq!(value(&embedded), json!({"title": "Tokyo Story", "director_id": {"name": "Ozu"}}));
    assert_eq!(embedded.etag, "", "it says nothing of the director");
    let key = vec!["1".to_owned(), "2".to_owned()];
    let two = GetDocumentRequest { collection: "public.roles".to_owned(), key, ..Default::default() };
    assert_eq!(value(&client.get_document(two).await.expect("a document").into_inner())["character"], "Noriko");

    // Both forms of a query, with a count.
    let by_tree = tree(
        json!({"select": ["id"], "where": {"column": "year", "operator": "gte", "value": 1962}, "order": [{"column": "id"}], "limit": 2}),
    );
    for query in [text("select=id&year=gte.1962&order=id&limit=2"), by_tree.clone()] {
        let request = ListDocumentsRequest {
            collection: "films".to_owned(),
            query: query.clone(),
            count: CountMode::Exact.into(),
            ..Default::default()
        };
        let list = client.list_documents(request).await.expect("a list").into_inner();
        assert_eq!((values(&list.documents), list.total_size), (vec![json!({"id": 2}), json!({"id": 3})], Some(3)));
        let request =
            StreamDocumentsRequest { collection: "films".to_owned(), query: query.clone(), ..Default::default() };
        let stream = client.stream_documents(request).await.expect("a stream").into_inner();
        assert_eq!(values(&stream.try_collect::<Vec<_>>().await.expect("documents")).len(), 2);
        let request = CountDocumentsRequest { collection: "films".to_owned(), query, ..Default::default() };
        assert_eq!(client.count_documents(request).await.expect("a count").into_inner().count, 3);
    }
    let uncounted = ListDocumentsRequest { collection: "actors".to_owned(), ..Default::default() };
    let uncounted = client.list_documents(uncounted).await.expect("a list").into_inner();
    assert_eq!((uncounted.documents.len(), uncounted.total_size), (4, None));

    // Numbers keep their digits.
    let large = json!({"name": "large", "value": 9_007_199_254_740_993_i64});
    let created = client.create_document(create("counters", large.clone())).await.expect("created").into_inner();
    assert_eq!(value(&created), json!({"name": "large", "value": 9_007_199_254_740_993_i64, "remark": "none"}));
    let change = UpdateDocumentRequest {
        collection: "counters".to_owned(),
        key: vec!["large".to_owned()],
        document: json!({"remark": "changed"}).to_string().into(),
        etag: created.etag.clone(),
        ..Default::default()
    };
    let changed = client.update_document(change.clone()).await.expect("changed").into_inner();
    assert_eq!(value(&changed), json!({"name": "large", "value": 9_007_199_254_740_993_i64, "remark": "changed"}));
    let late = client.update_document(change).await.expect_err("another version");
    assert_eq!((late.code(), code(&late).as_str()), (Code::Aborted, "SDB107"));
    let delete = |etag: &str| DeleteDocumentRequest {
        collection: "counters".to_owned(),
        key: vec!["large".to_owned()],
        etag: etag.to_owned(),
        ..Default::default()
    };
    assert_eq!(client.delete_document(delete(&created.etag)).await.expect_err("another version").code(), Code::Aborted);
    client.delete_document(delete(&changed.etag)).await.expect("removed");
    assert_eq!(client.delete_document(delete("")).await.expect_err("gone").code(), Code::NotFound);

    let batch = |documents: &[Value]| BatchCreateDocumentsRequest {
        collection: "counters".to_owned(),
        documents: documents.iter().map(|document| document.to_string().into()).collect(),
        ..Default::default()
    };
    let rows = [json!({"name": "a", "value": 1}), json!({"name": "b"})];
    let filled = BatchCreateDocumentsRequest { fill_defaults: true, select: "value".to_owned(), ..batch(&rows) };
    let made = client.batch_create_documents(filled).await.expect("created").into_inner();
    assert_eq!((values(&made.documents), made.count), (vec![json!({"value": 1}), json!({"value": 7})], 2));
    let again = [json!({"name": "b", "value": 8}), json!({"name": "c", "value": 9})];
    let twice = client.batch_create_documents(batch(&again)).await.expect_err("it is there");
    assert_eq!((twice.code(), code(&twice).as_str()), (Code::AlreadyExists, "23505"));
    let merge = |conflict: Conflict| BatchCreateDocumentsRequest {
        conflict: conflict.into(),
        conflict_columns: vec!["name".to_owned()],
        omit_documents: true,
        ..batch(&again)
    };
    let merged = client.batch_create_documents(merge(Conflict::Merge)).await.expect("merged").into_inner();
    assert_eq!((merged.count, merged.documents.len()), (2, 0));
    assert_eq!(client.batch_create_documents(merge(Conflict::Ignore)).await.expect("left out").into_inner().count, 0);
    let row = gateway.admin.query_one("SELECT sum(value)::int8 FROM counters WHERE name IN ('a', 'b', 'c')", &[]).await;
    assert_eq!(row.expect("a sum").get::<_, i64>(0), 18);

    let metrics = gateway.metrics().await;
    for (collection, operation, status, count) in [
        ("actors", "find", 200, 3),
        ("counters", "insert", 201, 4),
        ("counters", "insert", 409, 1),
        ("films", "aggregate", 200, 2),
    ] {
        let line = format!(
            "servicedb_gateway_requests_total{{service=\"shop/app\",collection=\"{collection}\",operation=\"{operation}\",status=\"{status}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line} {metrics}");
    }
}

/// The version that a second read has.
async fn gateway_etag(client: &mut Client) -> String {
    let etag = client.get_document(get("actors", "1")).await.expect("a document").into_inner().etag;
    assert!(!etag.is_empty());
    etag
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_rights_and_errors() {
    let (gateway, channel) = gateway("grpc_errors", json!({"bodyBytes": 10_000})).await;
    for (token, wanted) in [
        (String::new(), Code::Unauthenticated),
        ("abc".to_owned(), Code::Unauthenticated),
        (gateway.token("shop/other"), Code::PermissionDenied),
    ] {
        let refused = client(&channel, &token).get_document(get("actors", "1")).await.expect_err("no caller");
        assert_eq!(refused.code(), wanted, "{refused:?}");
        assert!(code(&refused).len() > 5, "{refused:?}");
    }
    let mut reader = client(&channel, &gateway.token("shop/reader"));
    let refused =
        reader.create_document(create("actors", json!({"id": 9, "name": "x"}))).await.expect_err("reads only");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::PermissionDenied, "42501"));
    let info = refused.get_details_error_info().expect("details");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("SQLSTATE_42501", "servicedb.dev"));
    // Row policies see who calls.
    let secrets =
        ListDocumentsRequest { collection: "secrets".to_owned(), query: text("select=id"), ..Default::default() };
    assert_eq!(values(&reader.list_documents(secrets).await.expect("rows").into_inner().documents), [json!({"id": 2})]);

    let mut client = client(&channel, &gateway.token("shop/app"));
    let faulty = client.create_document(create("films", json!({"id": "x", "year": 1.5}))).await.expect_err("faults");
    assert_eq!((faulty.code(), code(&faulty).as_str()), (Code::InvalidArgument, "SDB100"));
    let fields = faulty.get_details_bad_request().expect("faults").field_violations;
    assert_eq!(fields.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["/id", "/year", "/title"]);
    let several = CreateDocumentRequest { document: "{\"id\":7},{\"id\":8}".into(), ..create("actors", json!({})) };
    assert_eq!(code(&client.create_document(several).await.expect_err("two")), "PGRST102");
    for (key, wanted) in [("999", Code::NotFound), ("x", Code::InvalidArgument)] {
        assert_eq!(client.get_document(get("actors", key)).await.expect_err(key).code(), wanted);
    }
    assert_eq!(code(&client.get_document(get("nothing", "1")).await.expect_err("no collection")), "PGRST205");
    let unknown =
        ListDocumentsRequest { collection: "films".to_owned(), query: text("colour=eq.1"), ..Default::default() };
    let unknown = client.list_documents(unknown).await.expect_err("no column");
    assert_eq!((unknown.code(), code(&unknown).as_str()), (Code::InvalidArgument, "PGRST204"));
    let count = ListDocumentsRequest { collection: "films".to_owned(), count: 77, ..Default::default() };
    assert_eq!(client.list_documents(count).await.expect_err("no such mode").code(), Code::InvalidArgument);
    let large = client.create_document(create("notes", json!({"body": "x".repeat(10_000)}))).await.expect_err("large");
    assert_eq!((large.code(), code(&large).as_str()), (Code::ResourceExhausted, "SDB116"));
    // A client's deadline ends the statement.
    gateway
        .admin
        .batch_execute("CREATE VIEW slow AS SELECT 1 AS n FROM pg_sleep(30); GRANT SELECT ON slow TO grpc_errors_app")
        .await
        .expect("a view");
    let mut request = Request::new(ListDocumentsRequest { collection: "slow".to_owned(), ..Default::default() });
    request.set_timeout(Duration::from_secs(1));
    client.list_documents(request).await.expect_err("too late");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'grpc_errors_gateway' AND state = 'active'";
    let deadline = Instant::now() + Duration::from_secs(10);
    while gateway.admin.query_one(running, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "the statement still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A stream that the database ends early ends with an error.
    gateway
        .admin
        .batch_execute("CREATE VIEW breaks AS SELECT n, repeat('x', 1000) AS filler, 1 / (5000 - n) AS one FROM generate_series(1, 6000) n; GRANT SELECT ON breaks TO grpc_errors_app")
        .await
        .expect("a view");
    let request = StreamDocumentsRequest { collection: "breaks".to_owned(), ..Default::default() };
    let stream = client.stream_documents(request).await.expect("a stream").into_inner();
    let ended = stream.try_collect::<Vec<_>>().await.expect_err("a division by zero");
    assert_eq!(code(&ended), "22012");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_streams_health_and_reflection() {
    let (gateway, channel) = gateway("grpc_transactions", json!({"writeAnswerBytes": 100_000})).await;
    let mut client = client(&channel, &gateway.token("shop/app"));
    let begin = BeginTransactionRequest { isolation: Isolation::RepeatableRead.into() };
    let begun = client.begin_transaction(begin).await.expect("a transaction").into_inner();
    assert_eq!(begun.total_timeout.map(|timeout| timeout.seconds), Some(60));
    let within = |id: i64| CreateDocumentRequest {
        transaction: begun.id.clone(),
        ..create("actors", json!({"id": id, "name": id.to_string()}))
    };
    client.create_document(within(20)).await.expect("created");
    let inside = GetDocumentRequest { transaction: begun.id.clone(), ..get("actors", "20") };
    client.get_document(inside.clone()).await.expect("there");
    let inside_stream =
        StreamDocumentsRequest { collection: "actors".to_owned(), transaction: begun.id.clone(), ..Default::default() };
    let stream = client.stream_documents(inside_stream).await.expect("a stream").into_inner();
    assert_eq!(stream.try_collect::<Vec<_>>().await.expect("documents").len(), 5);
    assert_eq!(client.get_document(get("actors", "20")).await.expect_err("not for others").code(), Code::NotFound);
    let mut other = self::client(&channel, &gateway.token("shop/reader"));
    assert_eq!(code(&other.get_document(inside).await.expect_err("another caller's")), "SDB403");
    let commit = CommitTransactionRequest { transaction: begun.id.clone() };
    client.commit_transaction(commit.clone()).await.expect("committed");
    assert_eq!(client.commit_transaction(commit).await.expect_err("it has ended").code(), Code::NotFound);
    client.get_document(get("actors", "20")).await.expect("there");
    let begun = client.begin_transaction(BeginTransactionRequest::default()).await.expect("a transaction").into_inner();
    let gone =
        CreateDocumentRequest { transaction: begun.id.clone(), ..create("actors", json!({"id": 21, "name": "gone"})) };
    client.create_document(gone).await.expect("created");
    client.rollback_transaction(RollbackTransactionRequest { transaction: begun.id }).await.expect("rolled back");
    assert_eq!(client.get_document(get("actors", "21")).await.expect_err("gone").code(), Code::NotFound);

    // Beyond the limit for whole answers only as a stream; and who leaves a stream leaves nothing behind.
    let rows = "INSERT INTO notes (body) SELECT repeat('y', 1000) || n FROM generate_series(1, 20000) n";
    gateway.admin.batch_execute(rows).await.expect("rows");
    let list = ListDocumentsRequest { collection: "notes".to_owned(), ..Default::default() };
    assert_eq!(code(&client.list_documents(list).await.expect_err("too large")), "SDB106");
    let request = StreamDocumentsRequest {
        collection: "notes".to_owned(),
        query: text("select=id&order=id"),
        ..Default::default()
    };
    let stream = client.stream_documents(request.clone()).await.expect("a stream").into_inner();
    let documents = stream.try_collect::<Vec<_>>().await.expect("documents");
    assert_eq!((documents.len(), value(&documents[19_999])), (20_000, json!({"id": 20_000})));
    let whole = StreamDocumentsRequest { query: None, ..request };
    let mut stream = client.stream_documents(whole).await.expect("a stream").into_inner();
    stream.try_next().await.expect("a document").expect("the first");
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gateway.metrics().await.contains("connections_active 0") {
        assert!(Instant::now() < deadline, "a stream that nobody reads holds a connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // REST by HTTP/2, on the same connection.
    let request = http::Request::get(format!("{}/api/db/actors/1", gateway.url.replace("http://", "https://")))
        .header("authorization", format!("Bearer {}", gateway.token("shop/app")))
        .body(tonic::body::Body::empty())
        .expect("a request");
    let mut plain = channel.clone();
    std::future::poll_fn(|context| plain.poll_ready(context)).await.expect("a connection");
    let answer = plain.call(request).await.expect("an answer");
    assert_eq!((answer.status(), answer.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON"), json!({"id": 1, "name": "Ryu"}));

    let mut health = HealthClient::new(channel.clone());
    for service in ["", "servicedb.data.v1.Data"] {
        let status =
            health.check(HealthCheckRequest { service: service.to_owned() }).await.expect("a state").into_inner();
        assert_eq!(status.status(), ServingStatus::Serving, "{service}");
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let answers =
        ServerReflectionClient::new(channel.clone()).server_reflection_info(futures::stream::iter([request])).await;
    let answer = answers.expect("an answer").into_inner().try_next().await.expect("an answer").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    for name in ["servicedb.data.v1.Data", "grpc.health.v1.Health"] {
        assert!(list.service.iter().any(|service| service.name == name), "{name}: {list:?}");
    }
    // A service that there is not, which older clients ask for: a status of gRPC, and not an HTTP status alone.
    let mut former = tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let none = former.server_reflection_info(futures::stream::iter(Vec::new())).await.expect_err("it is not served");
    assert_eq!((none.code(), none.message()), (Code::Unimplemented, "there is no such service"));
}
