//! `kubectl servicedb login`: psql on this machine, with a short-lived login of a client that Vault gives the user. kubectl
//! forwards the port of the primary, and its right to `pods/portforward` decides; Vault's policies decide about the login.

mod files;
mod signals;
mod vault;

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::args::Connection;
use super::connection::{self, PluginError};
use super::psql;
use super::table::plain;
use crate::api::names::Names;
use crate::api::{ClientStatus, ServiceDatabase};
use crate::contract::desired::{Desired, KEY};
use crate::contract::pod::POSTGRES_PORT;
use files::Files;
use signals::Signals;
use vault::{Lease, Vault};

/// The variables by which libpq would take another password, other settings or another server than those of the login.
const FOREIGN: [&str; 3] = ["PGPASSWORD", "PGOPTIONS", "PGSERVICE"];
/// How long kubectl may take to forward the port.
const FORWARDING: Duration = Duration::from_secs(30);

/// Gets a login as this client, runs psql, and gives the login back; returns psql's exit code.
///
/// # Errors
/// If there is no such login, no way to the primary, or no psql.
pub async fn run(
    connection: &Connection,
    name: &str,
    as_client: &str,
    arguments: &[OsString],
) -> Result<ExitCode, PluginError> {
    let (api, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&api, &namespace, name).await?;
    let path = &client(&resource, name, as_client)?.vault_path;
    let names = Names::new(&namespace, name);
    let database = resource.status.as_ref().and_then(|status| status.database.clone());
    let database = database.or(resource.spec.database.clone()).unwrap_or_else(|| names.default_database());
    let authority = authority(&api, &names).await?;
    let vault = Vault::of_user()?;
    // Everything that can fail without a login comes before it.
    let forwarded = Forwarded::start(connection, &names).await?;
    let signals = Signals::receive()
        .map_err(|error| PluginError::Login(format!("the signals that end it cannot be received: {error}")))?;
    let lease = vault.login(path).await?;
    eprintln!("logging in as {}, for {} s", lease.user, lease.seconds);
    let psql = Psql { names: &names, database: &database, authority: &authority, port: forwarded.port, arguments };
    let outcome = psql.run(&lease, signals).await;
    if !vault.give_back(&lease).await {
        eprintln!(
            "the login could not be given back to Vault (sys/leases/revoke): it ends in {} s at the latest",
            lease.seconds
        );
    }
    outcome
}

/// The client, if it has short-lived logins.
fn client<'a>(resource: &'a ServiceDatabase, name: &str, wanted: &str) -> Result<&'a ClientStatus, PluginError> {
    let clients = resource.status.as_ref().map(|status| status.clients.as_slice()).unwrap_or_default();
    let is_short_lived = |client: &&ClientStatus| client.dynamic.is_some();
    let found = clients.iter().find(|client| client.name == wanted);
    let problem = match found {
        // What its paths in Vault would be, it has none of.
        Some(client) if client.rights == "NotAllowed" => {
            let why = plain(client.message.as_deref().unwrap_or("see the condition CredentialsReady"));
            format!("the client {wanted} of {name} has no access (NotAllowed): {why}")
        }
        Some(client) if client.dynamic.is_some() && !client.vault_path.is_empty() => return Ok(client),
        Some(client) if client.dynamic.is_some() => client.message.clone().unwrap_or_default(),
        Some(client) => {
            format!("the client {wanted} of {name} has a record in Vault: vault kv get {}", client.vault_path)
        }
        None => {
            let names: Vec<_> = clients.iter().filter(is_short_lived).map(|client| client.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("{name} has no client {wanted}; its clients with short-lived logins: {names}")
        }
    };
    Err(PluginError::Login(problem))
}

/// The authorities of the database's certificates, as the agents have them.
async fn authority(client: &Client, names: &Names) -> Result<String, PluginError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &names.namespace);
    let name = names.desired();
    let found = maps.get(&name).await;
    let map = found.map_err(|error| PluginError::kubernetes(format!("reading the ConfigMap {name}"), error))?;
    let desired = map.data.as_ref().and_then(|data| serde_json::from_str::<Desired>(data.get(KEY)?).ok());
    desired
        .and_then(|desired| desired.authorities)
        .ok_or_else(|| PluginError::Login(format!("the ConfigMap {name} has no certificate authority yet")))
}

/// psql on this machine.
struct Psql<'a> {
    names: &'a Names,
    database: &'a str,
    /// The authorities of the server's certificate, PEM.
    authority: &'a str,
    /// The forwarded port of the primary.
    port: u16,
    arguments: &'a [OsString],
}

impl Psql<'_> {
    /// Runs it with this login, until it or one of the signals ends it; its files are removed either way.
    async fn run(&self, lease: &Lease, mut signals: Signals) -> Result<ExitCode, PluginError> {
        let files = Files::create(self.authority, &lease.password)
            .map_err(|error| PluginError::Login(format!("the temporary files for psql cannot be written: {error}")))?;
        // psql handles an interrupt itself; this program goes on, to remove what it has made.
        tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
        let mut psql = self.command(lease, &files).spawn().map_err(|error| unstarted(&error))?;
        let status = tokio::select! {
            status = psql.wait() => status.map_err(|error| unstarted(&error))?,
            () = signals.first() => {
                // It may have ended by the same signal. Nothing is printed: there may be no terminal any more.
                let _ = psql.kill().await;
                return Ok(ExitCode::FAILURE);
            }
        };
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
    }

    fn command(&self, lease: &Lease, files: &Files) -> Command {
        let mut command = Command::new("psql");
        command.arg("-d").arg(conninfo(self.names, self.database, &lease.user, self.port, files)).args(self.arguments);
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        command
    }
}

fn unstarted(error: &std::io::Error) -> PluginError {
    PluginError::Login(format!("psql could not be started: {error}; install PostgreSQL's client programs"))
}

/// The connection, by the forwarded port; the server's certificate is checked against its own name. It has no secret.
fn conninfo(names: &Names, database: &str, user: &str, port: u16, files: &Files) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let (authority, password) = (files.authority(), files.password());
    [
        ("host", names.primary_host().as_str()),
        ("hostaddr", "127.0.0.1"),
        ("port", port.to_string().as_str()),
        ("dbname", database),
        ("user", user),
        ("sslmode", "verify-full"),
        ("sslrootcert", &*authority.to_string_lossy()),
        ("passfile", &*password.to_string_lossy()),
    ]
    .map(|(key, value)| format!("{key}={}", quoted(value)))
    .join(" ")
}

/// A forwarded port of the primary, until it is dropped.
struct Forwarded {
    /// The port on this machine.
    port: u16,
    _kubectl: Child,
}

impl Forwarded {
    async fn start(connection: &Connection, names: &Names) -> Result<Self, PluginError> {
        let program = psql::program();
        let mut command = Command::new(&program);
        command.args(psql::cluster(connection)).args(["--namespace", &names.namespace, "port-forward"]);
        command.args(["--address", "127.0.0.1", &format!("service/{}", names.base()), &format!(":{POSTGRES_PORT}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // An interrupt of psql is none of kubectl.
        #[cfg(unix)]
        command.process_group(0);
        let mut kubectl = command.spawn().map_err(|source| PluginError::Kubectl { program, source })?;
        let (stdout, stderr) = (kubectl.stdout.take(), kubectl.stderr.take());
        let mut lines = BufReader::new(stdout.ok_or_else(unforwarded)?).lines();
        let first = tokio::time::timeout(FORWARDING, lines.next_line()).await.map_err(|_| unforwarded())?;
        let Some(port) = first.ok().flatten().as_deref().and_then(port_of) else {
            let mut said = String::new();
            if let Some(mut stderr) = stderr {
                // kubectl has ended.
                let _ = tokio::time::timeout(FORWARDING, stderr.read_to_string(&mut said)).await;
            }
            return Err(PluginError::Login(format!("kubectl cannot forward the port of the primary: {}", said.trim())));
        };
        // It writes a line for each connection, and would stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        tokio::spawn(async move {
            if let Some(mut stderr) = stderr {
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            }
        });
        Ok(Self { port, _kubectl: kubectl })
    }
}

fn unforwarded() -> PluginError {
    PluginError::Login(format!("kubectl did not forward the port of the primary within {} s", FORWARDING.as_secs()))
}

/// The local port in kubectl's first line.
fn port_of(line: &str) -> Option<u16> {
    line.strip_prefix("Forwarding from 127.0.0.1:")?.split_once(' ')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_port_is_the_one_that_kubectl_chose() {
        assert_eq!(port_of("Forwarding from 127.0.0.1:40321 -> 5432"), Some(40321));
        assert_eq!(port_of("error: services \"chat-db\" not found"), None);
    }

    #[test]
    fn psql_gets_no_password_and_checks_the_servers_name() {
        let files = Files::create("pem", &"canary".to_owned().into()).expect("files");
        let text = conninfo(&Names::new("messaging", "chat"), "chat_db", "servicedb.reader.k3j2", 40321, &files);
        assert!(
            text.starts_with("host='chat-db.messaging.svc' hostaddr='127.0.0.1' port='40321' dbname='chat_db'"),
            "{text}"
        );
        assert!(text.contains("sslmode='verify-full'") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn psql_gets_nothing_of_another_login() {
        let files = Files::create("pem", &"canary".to_owned().into()).expect("files");
        let lease = Lease {
            id: "l".into(),
            seconds: 60,
            user: "servicedb.reader.k3j2".into(),
            password: "p".to_owned().into(),
        };
        let psql = Psql {
            names: &Names::new("messaging", "chat"),
            database: "chat_db",
            authority: "pem",
            port: 40321,
            arguments: &[OsString::from("-c")],
        };
        let command = psql.command(&lease, &files);
        let changed: Vec<_> = command.as_std().get_envs().collect();
        for variable in ["PGPASSWORD", "PGOPTIONS", "PGSERVICE"] {
            assert!(changed.contains(&(std::ffi::OsStr::new(variable), None)), "{variable}: {changed:?}");
        }
        assert_eq!(command.as_std().get_args().count(), 3);
    }

    #[test]
    fn only_a_client_with_short_lived_logins_is_logged_in_as() {
        let client_of = |name: &str, more: serde_json::Value| {
            let mut client = json!({
                "name": name, "serviceAccountName": name, "access": "ReadOnly", "vaultPath": "secret/r", "vaultRole": "v",
                "role": "r", "rights": "Applied"
            });
            client.as_object_mut().expect("a client").extend(more.as_object().expect("fields").clone());
            client
        };
        let clients = [
            client_of("record", json!({})),
            client_of("reader", json!({"dynamic": true, "vaultPath": "database/creds/x"})),
            client_of("refused", json!({"dynamic": false, "vaultPath": "", "message": "not offered"})),
            client_of("other-app", json!({"rights": "NotAllowed", "message": "the platform adds elsewhere"})),
            client_of("far", json!({"dynamic": false, "rights": "NotAllowed", "message": "the platform adds far"})),
        ];
        let resource: ServiceDatabase = serde_json::from_value(json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
            "spec": {"storage": {"size": "1Gi"}}, "status": {"clients": clients}
        }))
        .expect("a resource");
        let of = |name: &str| client(&resource, "chat", name).map(|client| client.vault_path.clone());
        assert_eq!(of("reader").expect("a client"), "database/creds/x");
        for (name, says) in [
            ("record", "vault kv get secret/r"),
            ("refused", "not offered"),
            ("nobody", "reader, refused"),
            ("other-app", "has no access (NotAllowed): the platform adds elsewhere"),
            ("far", "has no access (NotAllowed): the platform adds far"),
        ] {
            let problem = of(name).expect_err(name).to_string();
            assert!(problem.contains(says), "{problem}");
            assert_eq!(problem.contains("vault kv get"), name == "record", "{problem}");
        }
    }
}
