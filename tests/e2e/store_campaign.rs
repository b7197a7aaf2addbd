//! Stores that are none: a bucket that does not exist, and a store that answers each request with 503. Their databases
//! serve, and say why nothing is archived. It restarts the operator with other stores: `dev/campaigns.sh store_campaign`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Cluster, Operator, READY, Sandbox, Signed, alone, column, database, run, signed, then_restore};

/// The operator's stores.
const SETTING: &str = "SERVICEDB_BACKUP_STORES";
/// This machine, as pods reach it (dev/README.md).
const MACHINE: &str = "10.245.0.1";
/// The port of the Service that leads to the store that is busy.
const PORT: u16 = 8443;
const BUSY: &[u8] = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Answers each request with 503.
async fn answer_busy(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut request = [0; 4096];
            if tokio::time::timeout(Duration::from_secs(5), stream.read(&mut request)).await.is_ok() {
                let _ = stream.write_all(BUSY).await;
                let _ = stream.shutdown().await;
            }
        });
    }
}

/// Starts such a store, with a Service in the test's namespace; returns its endpoint and its authority.
async fn busy_store(sandbox: &Sandbox) -> (String, String, tokio::task::JoinHandle<()>) {
    let host = format!("busy.{}.svc", sandbox.namespace);
    let Signed { authority, certificate, key } = signed(vec![host.clone()]);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a TLS server");
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let task = tokio::spawn(answer_busy(listener, TlsAcceptor::from(Arc::new(config))));
    let ports = json!([{"name": "https", "port": PORT, "protocol": "TCP"}]);
    sandbox
        .create(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "busy"}, "spec": {"ports": ports},
        }))
        .await;
    sandbox
        .create(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "busy", "labels": {"kubernetes.io/service-name": "busy"}},
            "endpoints": [{"addresses": [MACHINE], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }))
        .await;
    (format!("https://{host}:{PORT}"), authority, task)
}

/// A database with such a store is Ready, stays so, and names the store and its answer.
async fn serves_and_tells(sandbox: &Sandbox, store: &str, words: &[&str]) {
    let spec = json!({"backup": {"store": store, "schedule": {"verification": ""}}});
    sandbox.create(database(store, spec)).await;
    sandbox.ready(store, READY).await;
    let told = sandbox.condition(store, "ContinuousArchiving", "False", "ArchivingFailed", READY * 2).await;
    assert!(told.message.contains(&format!("store {store}")), "{}", told.message);
    assert!(words.iter().any(|word| told.message.contains(word)), "{store}: {}", told.message);
    let connection = sandbox.connect(store).await;
    run(&connection, "CREATE TABLE kept (id int)").await.expect("a table");
    run(&connection, "INSERT INTO kept VALUES (1)").await.expect("a row");
    assert_eq!(column(&connection, "SELECT id FROM kept").await.expect("rows"), ["1"]);
    sandbox.ready(store, READY).await;
    let backup = sandbox.get(store).await.status.and_then(|status| status.backup).expect("a place");
    assert!(backup.newest.is_none(), "{backup:?}");
}

#[test]
#[ignore = "restarts the operator with other stores: dev/campaigns.sh store_campaign"]
fn databases_serve_without_a_bucket_and_with_a_store_that_is_busy() {
    if !Cluster::is_local() {
        return;
    }
    alone("no-stores", async |sandbox: Arc<Sandbox>| {
        let operator = Operator::of(sandbox.cluster);
        let before = operator.setting(SETTING).await.expect("the stores of dev/values.yaml");
        let mut stores: Value = serde_json::from_str(&before).expect("JSON");
        let (endpoint, authority, task) = busy_store(&sandbox).await;
        let mut nowhere = stores["main"].clone();
        nowhere["s3"]["bucket"] = json!("there-is-none");
        let mut busy = stores["main"].clone();
        busy["s3"]["endpoint"] = json!(endpoint);
        busy["s3"]["ca"] = json!(authority);
        stores["nowhere"] = nowhere;
        stores["busy"] = busy;
        let work = async {
            operator.set(SETTING, &stores.to_string()).await;
            serves_and_tells(&sandbox, "nowhere", &["404", "NoSuchBucket"]).await;
            serves_and_tells(&sandbox, "busy", &["503"]).await;
            // While their stores are declared: their deletion looks for nothing else.
            for name in ["nowhere", "busy"] {
                sandbox.delete::<servicedb::api::ServiceDatabase>(name).await;
                sandbox.gone(name, READY).await;
            }
        };
        then_restore(work, operator.set(SETTING, &before)).await;
        task.abort();
    });
}
