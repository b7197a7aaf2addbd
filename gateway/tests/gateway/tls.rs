//! TLS on both sides, with certificates that are renewed.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::SCHEMA;
use crate::server::{Gateway, Server};

/// Runs openssl.
fn openssl(folder: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A key and a certificate of the authority `ca`.
fn certificate(folder: &Path, name: &str, subject: &str) {
    let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
    openssl(
        folder,
        &[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            subject,
        ],
    );
    std::fs::write(
        folder.join("san"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .expect("a file");
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            &certificate,
            "-extfile",
            "san",
        ],
    );
}

fn authority(folder: &Path) {
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-subj",
            "/CN=test",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_both_sides() {
    let server = Server::shared();
    let folder = server.folder().join("tls");
    std::fs::create_dir_all(&folder).expect("a folder");
    authority(&folder);
    certificate(&folder, "server", "/CN=localhost");
    certificate(&folder, "client", "/CN=secured_gateway");
    server.with_tls(&folder, "secured").await;
    let path = |name: &str| folder.join(name).display().to_string();
    let database = json!({
        "host": "localhost", "port": server.port, "name": "secured", "user": "secured_gateway", "ca": path("ca.crt"),
        "client": {"certificate": path("client.crt"), "key": path("client.key")},
    });
    let settings = json!({"database": database, "tls": {"certificate": path("server.crt"), "key": path("server.key")}});
    let gateway = Gateway::start("secured", SCHEMA, settings).await;
    let authority =
        reqwest::Certificate::from_pem(&std::fs::read(folder.join("ca.crt")).expect("a file")).expect("a certificate");
    let client =
        || reqwest::Client::builder().tls_certs_only([authority.clone()]).tls_info(true).build().expect("a client");
    let url = format!("{}/api/db/rpc/who", gateway.url.replace("http://", "https://"));
    let ask = async |client: &reqwest::Client| client.get(&url).bearer_auth(gateway.token("shop/app")).send().await;
    let serial = |answer: &reqwest::Response| {
        answer.extensions().get::<reqwest::tls::TlsInfo>().and_then(|info| info.peer_certificate().map(<[u8]>::to_vec))
    };
    let http = client();
    let answer = ask(&http).await.expect("an answer");
    let first = serial(&answer).expect("a certificate");
    assert_eq!(answer.text().await.expect("a text"), "\"secured_app\"");
    let row = "SELECT bool_and(s.ssl) AND bool_and(s.client_dn = '/CN=secured_gateway') FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) WHERE usename = 'secured_gateway'";
    assert!(
        gateway.admin.query_one(row, &[]).await.expect("a row").get::<_, bool>(0),
        "to the database by certificate"
    );
    assert!(reqwest::get(&url).await.is_err(), "another authority is not trusted");

    certificate(&folder, "server", "/CN=localhost");
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let answer = ask(&client()).await.expect("an answer");
        if serial(&answer).expect("a certificate") != first {
            break;
        }
        assert!(Instant::now() < deadline, "the renewed certificate is not served: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(ask(&http).await.expect("the connection of before").status(), 200);
}
