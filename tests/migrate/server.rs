//! A real PostgreSQL, started by the tests on a separate port and in a separate folder. It ends
//! with the test process, however that ends.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use servicedb::contract::pod::POSTGRES_PORT;
use tokio_postgres::{Client, Config, NoTls};

/// Timeout of initdb and of the start, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// The server that all tests of this process share.
pub struct Server {
    host: String,
    port: u16,
    bin: PathBuf,
    folder: PathBuf,
    /// Holds the pipe that keeps the server alive.
    _supervisor: Child,
}

/// A separate database, with the roles that the agent creates.
pub struct Database {
    pub server: &'static Server,
    pub name: String,
}

impl Database {
    /// The role that owns the objects.
    pub fn owner(&self) -> String {
        format!("{}_owner", self.name)
    }

    /// Connects as the migrator.
    pub async fn migrator(&self) -> Session {
        self.server.connect(&self.name, &format!("{}_migrator_a", self.name)).await
    }

    /// Connects as the superuser.
    pub async fn superuser(&self) -> Session {
        self.server.connect(&self.name, "postgres").await
    }
}

/// A connection; aborting it looks like a killed client to the server.
pub struct Session {
    pub client: Client,
    pub driver: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Server {
    /// The shared server; starts it first.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        SERVER.get_or_init(|| Self::start(free(), true))
    }

    /// Another one, which is at PostgreSQL's own port in a socket's folder of its own.
    pub fn on_socket() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(POSTGRES_PORT, false))
    }

    /// The folder of its socket.
    pub fn socket(&self) -> &str {
        self.folder.to_str().expect("a path of text")
    }

    /// What it has written into its log, whose lines name the database.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).expect("the server's log")
    }

    /// Makes a database with an owner and a migrator that may become the owner.
    pub async fn database(&'static self, name: &str) -> Database {
        let admin = self.connect("postgres", "postgres").await;
        for statement in [
            format!("CREATE ROLE {name}_owner NOLOGIN"),
            format!("CREATE ROLE {name}_app NOLOGIN"),
            format!("CREATE ROLE {name}_migrator_a LOGIN NOINHERIT IN ROLE {name}_owner"),
            format!("CREATE DATABASE {name} OWNER {name}_owner"),
            format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"),
            format!("GRANT CONNECT ON DATABASE {name} TO {name}_migrator_a"),
        ] {
            admin.client.batch_execute(&statement).await.expect(&statement);
        }
        Database { server: self, name: name.to_owned() }
    }

    /// The URL of a database for a login.
    pub fn url(&self, database: &str, user: &str) -> String {
        format!("postgres://{user}@{}:{}/{database}", self.host, self.port)
    }

    /// Runs psql as a user's shell would.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-q", "-h", &self.host, "-U", "postgres", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-p", &self.port.to_string(), "-d", database]);
        command
    }

    /// Connects as a role.
    pub async fn connect(&self, database: &str, user: &str) -> Session {
        let mut config = Config::new();
        config.host(&self.host).port(self.port).user(user).dbname(database).application_name("migrate/test");
        let (client, connection) = config.connect(NoTls).await.expect("the server accepts connections");
        let driver = tokio::spawn(async move { drop(connection.await) });
        Session { client, driver }
    }

    fn start(port: u16, tcp: bool) -> Self {
        let bin = binaries();
        let folder = std::env::temp_dir().join(format!("servicedb-migrate-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let user = unprivileged(&folder);
        let data = folder.join("data");

        let mut initdb = as_user(&user, &bin.join("initdb"));
        initdb.args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "-D"]).arg(&data);
        let made = initdb.current_dir(&folder).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let server = as_user(&user, &bin.join("postgres"));
        let mut supervisor = Command::new("sh");
        supervisor.args(["-c", SUPERVISE, "sh"]).arg(server.get_program()).args(server.get_args());
        supervisor.arg("-D").arg(&data).arg("-k").arg(&folder);
        let listen = if tcp { "listen_addresses=127.0.0.1" } else { "listen_addresses=" };
        supervisor.args(["-p", &port.to_string(), "-c", listen, "-c", "shared_buffers=32MB"]);
        supervisor.args(["-c", "log_line_prefix=%m [%p] %q%u@%d "]);
        supervisor.env("DIR", &folder).current_dir(&folder);
        supervisor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let supervisor = supervisor.spawn().expect("a shell");

        let host = if tcp { "127.0.0.1" } else { folder.to_str().expect("a path of text") }.to_owned();
        let deadline = Instant::now() + PATIENCE;
        while !accepts(&host, port, &bin) {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { host, port, bin, folder, _supervisor: supervisor }
    }
}

fn accepts(host: &str, port: u16, bin: &Path) -> bool {
    let ready = Command::new(bin.join("pg_isready")).args(["-q", "-h", host, "-p", &port.to_string()]).status();
    ready.is_ok_and(|status| status.success())
}

fn binaries() -> PathBuf {
    let named = std::env::var_os("PG_BIN").map(PathBuf::from);
    let usual = [17, 16, 15].map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    named
        .into_iter()
        .chain(usual)
        .find(|bin| bin.join("initdb").exists())
        .expect("a PostgreSQL server: install one (Debian: postgresql-15), or name its programs' folder in PG_BIN")
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
