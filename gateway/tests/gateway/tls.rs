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
pub fn certificate(folder: &Path, name: &str, subject: &str) {
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

/// A key and a certificate of a new authority.
pub fn authority(folder: &Path) {
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
    // As the kubelet mounts a Secret: by a link that it replaces.
    mount(&folder);
    let path = |name: &str| folder.join("mounted").join(name).display().to_string();
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

    // Both renewed: the connections of before go on, and the next ones have the new certificates.
    let number = "SELECT min(s.client_serial)::text, array_agg(pid) FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) WHERE usename = 'secured_gateway'";
    let number = async || gateway.admin.query_one(number, &[]).await.expect("a row");
    let before = number().await;
    certificate(&folder, "server", "/CN=localhost");
    certificate(&folder, "client", "/CN=secured_gateway");
    mount(&folder);
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let answer = ask(&client()).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        if serial(&answer).expect("a certificate") != first {
            break;
        }
        assert!(Instant::now() < deadline, "the renewed certificate is not served: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(ask(&http).await.expect("the connection of before").status(), 200);
    let (kept, there) = (before.get::<_, Vec<i32>>(1), number().await.get::<_, Vec<i32>>(1));
    assert!(kept.iter().all(|process| there.contains(process)), "no connection to the database was closed");
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'secured_gateway'";
    gateway.admin.query_one(end, &[]).await.expect("connections end");
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(&http).await.expect("an answer").status() != 200 {
        assert!(Instant::now() < deadline, "no connection with the renewed certificate: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after: Option<String> = number().await.get(0);
    assert!(after.is_some() && after != before.get::<_, Option<String>>(0), "another certificate: {after:?}");
}

/// Replaces what is mounted by the files as they are now, at once.
fn mount(folder: &Path) {
    let mounted = folder.join("mounted");
    let version = mounted.join(format!(
        "..{}",
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_nanos()
    ));
    std::fs::create_dir_all(&version).expect("a folder");
    for name in ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"] {
        std::fs::copy(folder.join(name), version.join(name)).expect("a copy");
        let link = mounted.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).expect("a link");
        }
    }
    std::os::unix::fs::symlink(version.file_name().expect("a name"), mounted.join("..data_tmp")).expect("a link");
    std::fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).expect("the links turn");
}
