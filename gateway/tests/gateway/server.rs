//! A real PostgreSQL on loopback, which ends with the test process, and a gateway in front of a database of it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ring::signature::EcdsaKeyPair;
use serde_json::{Value, json};
use tokio_postgres::{Client, Config, NoTls};

use crate::tokens::{AUDIENCE, ISSUER, jwks, new_key, now, sign};

/// Timeout of initdb and of each start, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Ends the server and removes its folder once its standard input is closed.
const SUPERVISE: &str = r#"
trap '' INT TERM
"$@" >"$DIR/log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT $server
wait $server
rm -rf "$DIR"
"#;
/// Ends a program once its standard input is closed.
const UNTIL_CLOSED: &str = r#"
"$@" 2>"$LOG" &
program=$!
cat >/dev/null
kill -TERM $program
wait $program
"#;

/// The server that all tests of this process share.
pub struct Server {
    pub port: u16,
    folder: PathBuf,
    user: Option<String>,
    supervisors: Mutex<Vec<Child>>,
}

impl Server {
    /// The shared server; starts it first.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// One of a single test, which ends with the process.
    pub fn alone() -> &'static Self {
        Box::leak(Box::new(Self::start()))
    }

    fn start() -> Self {
        let port = free_port();
        let bin = binaries();
        let folder = std::env::temp_dir().join(format!("servicedb-gateway-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let user = unprivileged(&folder);
        let data = folder.join("data");
        let mut initdb = as_user(&user, &bin.join("initdb"));
        initdb.args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "-D"]).arg(&data);
        let made = initdb.current_dir(&folder).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let server = Self { port, folder, user, supervisors: Mutex::default() };
        server.launch();
        server
    }

    /// A streaming replica of it, which ends with the process.
    pub fn replica(&self) -> &'static Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("servicedb-gateway-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let user = unprivileged(&folder);
        let mut copy = as_user(&user, &binaries().join("pg_basebackup"));
        copy.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "--no-sync"]);
        copy.args(["-R", "-X", "stream", "-c", "fast", "-D"]).arg(folder.join("data"));
        let made = copy.current_dir(&folder).output().expect("pg_basebackup runs");
        assert!(made.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&made.stderr));
        let server = Self { port, folder, user, supervisors: Mutex::default() };
        server.launch();
        Box::leak(Box::new(server))
    }

    /// Ends it, and removes what it has.
    pub fn stop(&self) {
        self.supervisors.lock().expect("no panic").clear();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn launch(&self) {
        let (bin, port, folder) = (binaries(), self.port, &self.folder);
        let data = folder.join("data");
        let server = as_user(&self.user, &bin.join("postgres"));
        let mut supervisor = Command::new("sh");
        supervisor.args(["-c", SUPERVISE, "sh"]).arg(server.get_program()).args(server.get_args());
        supervisor.arg("-D").arg(&data).arg("-k").arg(folder).args(["-p", &port.to_string()]);
        supervisor.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "shared_buffers=32MB",
            "-c",
            "fsync=off",
            "-c",
            "synchronous_commit=local",
            // For `fail_over`: there is no archive.
            "-c",
            "restore_command=false",
        ]);
        supervisor.env("DIR", folder).current_dir(folder);
        supervisor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.supervisors.lock().expect("no panic").push(supervisor.spawn().expect("a shell"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready =
                Command::new(bin.join("pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]).status();
            if ready.is_ok_and(|status| status.success()) {
                break;
            }
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Crashes, and goes on as the primary of another timeline, with all that it had written.
    pub fn fail_over(&self) {
        let data = self.folder.join("data");
        let id = std::fs::read_to_string(data.join("postmaster.pid")).expect("a server");
        let id = id.lines().next().expect("its id");
        assert!(Command::new("kill").args(["-QUIT", id]).status().is_ok_and(|status| status.success()));
        while data.join("postmaster.pid").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::write(data.join("recovery.signal"), "").expect("a file");
        let owner = std::fs::metadata(&data).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
        std::os::unix::fs::chown(data.join("recovery.signal"), owner.ok(), None).expect("the file's owner");
        self.launch();
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Turns TLS on, and demands a client certificate for this database's gateway over TCP.
    pub async fn with_tls(&self, certificates: &Path, database: &str) {
        let data = self.folder.join("data");
        for (from, to) in [("ca.crt", "root.crt"), ("server.crt", "server.crt"), ("server.key", "server.key")] {
            let text = std::fs::read(certificates.join(from)).expect("a file");
            std::fs::write(data.join(to), text).expect("a file");
        }
        let owner =
            std::fs::metadata(&data).map(|found| std::os::unix::fs::MetadataExt::uid(&found)).expect("the folder");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(data.join("server.key"), mode).expect("the key's mode");
        for file in ["root.crt", "server.crt", "server.key"] {
            std::os::unix::fs::chown(data.join(file), Some(owner), None).expect("the file's owner");
        }
        let lines =
            format!("hostssl {database} {database}_gateway all cert\nhost {database} {database}_gateway all reject\n");
        let access = std::fs::read_to_string(data.join("pg_hba.conf")).expect("a file");
        std::fs::write(data.join("pg_hba.conf"), format!("{lines}{access}")).expect("a file");
        let root = self.connect("postgres", "postgres").await;
        for statement in [
            "ALTER SYSTEM SET ssl = on",
            "ALTER SYSTEM SET ssl_ca_file = 'root.crt'",
            "SELECT pg_reload_conf(), pg_sleep(0.5)",
        ] {
            root.batch_execute(statement).await.expect(statement);
        }
    }

    /// Connects as a role.
    pub async fn connect(&self, database: &str, user: &str) -> Client {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(user).dbname(database);
        let (client, connection) = config.connect(NoTls).await.expect("the server accepts connections");
        tokio::spawn(connection);
        client
    }
}

/// A gateway with a database of its own.
pub struct Gateway {
    /// Its database's superuser.
    pub admin: Client,
    /// Where it is.
    pub url: String,
    /// Where its metrics are.
    pub metrics: String,
    /// The login that it has at the database.
    pub login: String,
    http: reqwest::Client,
    key: (Arc<EcdsaKeyPair>, &'static str),
    log: PathBuf,
    program: Child,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The body of an answer that succeeded.
    pub fn ok(&self) -> Value {
        assert!(self.status < 300, "{self:?}");
        self.json()
    }
}

impl Gateway {
    /// Makes a database with this schema, and starts a gateway; `settings` are added to its own.
    ///
    /// Roles: `<name>_app` may use the tables, `<name>_reader` may read; the service accounts are `shop/app` and
    /// `shop/reader`.
    pub async fn start(name: &str, schema: &str, settings: Value) -> Self {
        Self::start_at(Server::shared(), name, schema, settings).await
    }

    /// As [`Self::start`], at this server.
    pub async fn start_at(server: &'static Server, name: &str, schema: &str, settings: Value) -> Self {
        let root = server.connect("postgres", "postgres").await;
        let login = format!("{name}_gateway");
        let version =
            root.query_one("SELECT current_setting('server_version_num')::int4", &[]).await.expect("a version");
        let only_set = if version.get::<_, i32>(0) >= 160_000 { "WITH INHERIT FALSE, SET TRUE" } else { "" };
        for statement in [
            format!("CREATE DATABASE {name}"),
            format!("CREATE ROLE {name}_app NOLOGIN"),
            format!("CREATE ROLE {name}_reader NOLOGIN"),
            format!("CREATE ROLE {login} LOGIN NOINHERIT"),
            format!("GRANT {name}_app, {name}_reader TO {login} {only_set}"),
        ] {
            root.batch_execute(&statement).await.expect(&statement);
        }
        let admin = server.connect(name, "postgres").await;
        admin.batch_execute(schema).await.unwrap_or_else(|error| panic!("the schema: {error:?}"));
        admin
            .batch_execute(&format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}_app; \
                 GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}_app; \
                 GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}_reader"
            ))
            .await
            .expect("grants");

        let key = new_key();
        let folder = server.folder.join(format!("gateway-{name}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("jwks.json"), jwks(&key, "one")).expect("a file");
        let (port, metrics) = (free_port(), free_port());
        let mut config = json!({
            "listen": format!("127.0.0.1:{port}"),
            "metricsListen": format!("127.0.0.1:{metrics}"),
            "database": {"host": "127.0.0.1", "port": server.port, "name": name, "user": login},
            "schemas": ["public"],
            "callers": {
                "issuer": ISSUER, "audience": AUDIENCE, "keys": {"file": folder.join("jwks.json")},
                "roles": [
                    {"serviceAccount": "shop/app", "role": format!("{name}_app")},
                    {"serviceAccount": "shop/reader", "role": format!("{name}_reader")},
                    {"serviceAccount": "shop/ghost", "role": "postgres"},
                    {"serviceAccount": "shop/missing", "role": "no role of this server"},
                ],
            },
        });
        for (setting, value) in settings.as_object().expect("settings") {
            config[setting] = value.clone();
        }
        Self::launch(admin, login, (Arc::new(key), "one"), &folder, &config).await
    }

    /// Another process in front of the same database; `settings` are added to those of this one.
    pub async fn beside(&self, settings: Value) -> Self {
        let own = self.log.parent().expect("a folder");
        let text = std::fs::read_to_string(own.join("config.yaml")).expect("its settings");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["metricsListen"] = json!(format!("127.0.0.1:{}", free_port()));
        for (setting, value) in settings.as_object().expect("settings") {
            config[setting] = value.clone();
        }
        let name = config["database"]["name"].as_str().expect("a name");
        let folder = own.with_file_name(format!("beside-{name}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let admin = Server::shared().connect(name, "postgres").await;
        Self::launch(admin, self.login.clone(), (Arc::clone(&self.key.0), self.key.1), &folder, &config).await
    }

    async fn launch(
        admin: Client,
        login: String,
        key: (Arc<EcdsaKeyPair>, &'static str),
        folder: &Path,
        config: &Value,
    ) -> Self {
        let (file, log) = (folder.join("config.yaml"), folder.join("log"));
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).expect("a file");
        let address = |setting: &str| format!("http://{}", config[setting].as_str().expect("an address"));
        let (url, metrics) = (address("listen"), address("metricsListen"));
        let mut program = Command::new("sh");
        program.args(["-c", UNTIL_CLOSED, "sh", env!("CARGO_BIN_EXE_servicedb-gateway"), "--config"]).arg(&file);
        program.env("LOG", &log).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = program.spawn().expect("a shell");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
        let gateway = Self { admin, url, metrics, login, http, key, log, program };
        let deadline = Instant::now() + PATIENCE;
        while !gateway.is_ready().await {
            assert!(Instant::now() < deadline, "the gateway did not start: {}", gateway.log());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        gateway
    }

    /// Ends it at once, as a node that is lost does.
    pub async fn kill(&self) {
        let process = self.process();
        let id = process.file_name().and_then(|id| id.to_str()).expect("its id").to_owned();
        assert!(Command::new("kill").args(["-KILL", &id]).status().is_ok_and(|status| status.success()));
        // Nobody has waited for it: it is there still, without a command line.
        while std::fs::read(process.join("cmdline")).is_ok_and(|text| !text.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it to end, as the kubelet does.
    pub fn terminate(&mut self) {
        drop(self.program.stdin.take());
    }

    /// Whether it has ended within this time.
    pub async fn ended(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.program.try_wait().expect("its state").is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Calls a path as `shop/app` by POST, beside what follows; the task gives the status.
    pub fn background(&self, path: &str) -> tokio::task::JoinHandle<u16> {
        let request = self.http.post(format!("{}/api/db{path}", self.url)).bearer_auth(self.token("shop/app"));
        let request = request.header("content-type", "application/json").body("{}");
        tokio::spawn(async move { request.send().await.expect("an answer").status().as_u16() })
    }

    /// Replaces the keys that tokens are verified with by a new one of this id.
    pub fn rotate_key(&mut self, id: &'static str) {
        self.key = (Arc::new(new_key()), id);
        let file = self.log.with_file_name("jwks.json");
        std::fs::write(file, jwks(&self.key.0, id)).expect("a file");
    }

    /// Whether it says that requests may be sent to it.
    pub async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.metrics)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A token of a ServiceAccount.
    pub fn token(&self, account: &str) -> String {
        let (namespace, name) = account.split_once('/').expect("namespace/name");
        self.signed(&json!({
            "iss": ISSUER, "aud": [AUDIENCE], "exp": now() + 600, "nbf": now() - 5,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        }))
    }

    /// A token with these claims.
    pub fn signed(&self, claims: &Value) -> String {
        sign(&self.key.0, self.key.1, claims)
    }

    /// A request with a token and headers.
    pub async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, format!("{}/api/db{path}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}: {}", self.log()));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a body") }
    }

    /// Reads an answer as `shop/app` in pieces: its length, and its last byte.
    pub async fn drain(&self, path: &str) -> (usize, u8) {
        let request = self.http.get(format!("{}/api/db{path}", self.url)).bearer_auth(self.token("shop/app"));
        let mut response = request.send().await.expect("an answer");
        let (mut length, mut last) = (0, 0);
        while let Some(piece) = response.chunk().await.expect("a piece") {
            length += piece.len();
            last = piece.last().copied().unwrap_or(last);
        }
        (length, last)
    }

    /// The folder of its process in /proc.
    pub fn process(&self) -> PathBuf {
        let folder = self.log.parent().expect("a folder").display().to_string();
        let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok).map(|entry| entry.path());
        let of = |path: &PathBuf| {
            let text = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.contains(&folder) && text.contains("servicedb-gateway") && !text.starts_with("sh")
        };
        processes.into_iter().find(of).expect("the gateway's process")
    }

    /// The most memory that its process ever had, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(self.process().join("status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// A read as `shop/app`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(&self.token("shop/app"), "GET", path, &[], None).await
    }

    /// A write as `shop/app`.
    pub async fn write(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let body = (!body.is_null()).then(|| body.to_string());
        self.send(&self.token("shop/app"), method, path, headers, body).await
    }

    /// The metrics.
    pub async fn metrics(&self) -> String {
        let response = self.http.get(format!("{}/metrics", self.metrics)).send().await.expect("metrics");
        response.text().await.expect("a text")
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port()
}

fn binaries() -> PathBuf {
    let named = std::env::var_os("PG_BIN").map(PathBuf::from);
    let usual = [17, 16, 15].map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    named
        .into_iter()
        .chain(usual)
        .find(|bin| bin.join("initdb").exists())
        .expect("a PostgreSQL server: install one (Debian: postgresql), or name its programs' folder in PG_BIN")
}

/// PostgreSQL refuses to run as root: then the uid of a user that owns nothing else here.
fn unprivileged(folder: &Path) -> Option<String> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if id(&["-u"])? != "0" {
        return None;
    }
    let uid = id(&["-u", "postgres"]).or_else(|| id(&["-u", "nobody"])).expect("a user postgres or nobody");
    let owned = Command::new("chown").arg(&uid).arg(folder).status().expect("chown runs");
    assert!(owned.success(), "chown {uid} {}", folder.display());
    Some(uid)
}

fn as_user(uid: &Option<String>, program: &Path) -> Command {
    let Some(uid) = uid else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", uid, "--regid", "65534", "--clear-groups", "--"]).arg(program);
    command
}
