//! A test's own Vault: the real server, set up by `manifests/vault-setup.sh`, stopped when the value
//! is dropped.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use servicedb::vault::client::{Login, VaultClient, VaultSettings};

/// The cluster that the tests' operator is of.
pub const CLUSTER: &str = "test";
/// The policy that the set-up writes for it.
pub const OPERATOR_POLICY: &str = "servicedb-operator.test";

const ROOT: &str = "root-token-of-the-test";

/// A running dev server with TLS.
pub struct Server {
    process: Child,
    directory: PathBuf,
    /// Such as `https://127.0.0.1:40000`.
    pub address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Server {
    /// Starts a server and sets it up for an operator.
    pub fn set_up() -> Self {
        let server = Self::start();
        let output = server.run_set_up(&[]);
        assert!(output.status.success(), "vault-setup.sh failed: {}", text(&output.stderr));
        server
    }

    fn start() -> Self {
        let binary = binary();
        let directory = directory();
        // The clients find the binary as `vault` in PATH, whatever it is called.
        fs::create_dir_all(directory.join("bin")).unwrap();
        std::os::unix::fs::symlink(&binary, directory.join("bin/vault")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(directory.join("server.log")).unwrap();
        let process = Command::new(&binary)
            .args(["server", "-dev", "-dev-no-store-token", "-dev-tls"])
            .arg(format!("-dev-tls-cert-dir={}", directory.display()))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-root-token-id={ROOT}"))
            .env("HOME", &directory)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", binary.display()));
        let server = Self { process, directory, address: format!("https://127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(120);
        while !server.command("vault").args(["token", "lookup"]).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "Vault does not start: {}", server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Runs `manifests/vault-setup.sh` as the platform team would.
    pub fn run_set_up(&self, settings: &[(&str, &str)]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/vault-setup.sh");
        self.command("sh")
            .arg(script)
            .env("CLUSTER_ID", CLUSTER)
            .env("KUBERNETES_HOST", "https://127.0.0.1:1")
            .env("DATABASE_MOUNT", "database")
            .env("KUBERNETES_CA_FILE", self.ca_file())
            .envs(settings.iter().copied())
            .output()
            .unwrap()
    }

    /// Runs `vault` as root; panics if it fails.
    pub fn vault(&self, arguments: &[&str]) -> String {
        let output = self.try_vault(ROOT, arguments);
        assert!(output.status.success(), "vault {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// Runs `vault` with a token.
    pub fn try_vault(&self, token: &str, arguments: &[&str]) -> Output {
        self.command("vault").args(arguments).env("VAULT_TOKEN", token).output().unwrap()
    }

    /// A token that has the operator's policy and nothing else.
    pub fn operator_token(&self) -> String {
        self.token(OPERATOR_POLICY)
    }

    /// A token that has one policy and nothing else.
    pub fn token(&self, policy: &str) -> String {
        let policy = format!("-policy={policy}");
        self.vault(&["token", "create", "-orphan", "-no-default-policy", "-ttl=10m", &policy, "-field=token"])
    }

    /// A client with the operator's rights.
    pub fn operator(&self) -> VaultClient {
        let file = self.write("operator-token", &self.operator_token());
        self.client(Login::TokenFile { file })
    }

    /// A client that logs in with an AppRole of this name.
    pub fn approle(&self, role_id: &str, secret_id: &str) -> VaultClient {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.client(Login::AppRole {
            mount: "approle".to_owned(),
            role_id_file: self.write(&format!("role-id-{number}"), role_id),
            secret_id_file: self.write(&format!("secret-id-{number}"), secret_id),
        })
    }

    /// A client.
    pub fn client(&self, login: Login) -> VaultClient {
        VaultClient::new(self.settings(), login).unwrap()
    }

    /// The settings that reach this server.
    pub fn settings(&self) -> VaultSettings {
        // What the binary does first of all.
        let _ = rustls::crypto::ring::default_provider().install_default();
        VaultSettings {
            address: self.address.clone(),
            namespace: None,
            ca_file: Some(self.ca_file()),
            kv_mount: "secret".to_owned(),
            approle_mount: "approle".to_owned(),
            kubernetes_mount: "kubernetes".to_owned(),
            timeout: Duration::from_secs(10),
        }
    }

    /// The authority that signed the server's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("vault-ca.pem")
    }

    /// Writes a file of the test's; a newline ends it, as editors and `echo` do.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.join(name);
        writeln!(fs::File::create(&path).unwrap(), "{content}").unwrap();
        path
    }

    /// The key that opens the seal again.
    pub fn unseal_key(&self) -> String {
        let log = self.log();
        let line = log.lines().find_map(|line| line.strip_prefix("Unseal Key: "));
        line.unwrap_or_else(|| panic!("no unseal key in the log")).to_owned()
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let own = self.directory.join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        // Programs are looked for in the PATH of the test, not in the one that is set here.
        let mut command = if program == "vault" { Command::new(own.join(program)) } else { Command::new(program) };
        command
            .env("PATH", format!("{}:{path}", own.display()))
            .env("HOME", &self.directory)
            .env("VAULT_ADDR", &self.address)
            .env("VAULT_CACERT", self.ca_file())
            .env("VAULT_TOKEN", ROOT)
            .env_remove("VAULT_NAMESPACE")
            .stdin(Stdio::null());
        command
    }
}

/// The bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn binary() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dev/bin/vault");
    let binary = std::env::var_os("SERVICEDB_VAULT_BIN").map_or_else(default, PathBuf::from);
    assert!(
        binary.is_file(),
        "these tests run a real Vault, and {} is missing: `make tools` builds it (or name one in SERVICEDB_VAULT_BIN)",
        binary.display()
    );
    binary
}

fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vault-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}
