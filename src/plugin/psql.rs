//! `kubectl servicedb psql`: psql in the primary's pod, over the local socket, so it needs no
//! password. kubectl does the work, and its right to `pods/exec` decides.
//!
//! The session is the owner's: a superuser's statement that only names a table may run code of the
//! table's creator with the superuser's rights. That requires `--superuser`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::args::Connection;
use super::connection::{self, PluginError};
use crate::api::names::{LABEL_ROLE, LABEL_SCOPE, Names, PostgresNames, ROLE_PRIMARY};
use crate::api::{ServiceDatabase, conditions};
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::immune;

/// The container of a database pod that PostgreSQL runs in.
const CONTAINER: &str = "database";

/// As whom psql logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Who may only read the ledger, within so many seconds.
    Reader {
        /// The seconds.
        seconds: u32,
    },
    /// The owner of the database.
    Owner,
    /// The superuser.
    Superuser,
    /// Who may only read statistics, in the database `postgres`.
    Monitor,
    /// The superuser in the database `postgres`, where no tenant has an object.
    Cluster,
}

impl Login {
    /// The role, and the settings of its session.
    fn role_and_options(self, names: &PostgresNames) -> (&'static str, String) {
        match self {
            Self::Reader { seconds } => (
                PostgresNames::READER,
                format!("{} -c lock_timeout=5s -c statement_timeout={seconds}s", immune::READER),
            ),
            Self::Owner => (PostgresNames::AS_OWNER, format!("{} -c role={}", immune::MIGRATOR, names.owner())),
            // A database's owner may set another role for all its sessions.
            Self::Superuser | Self::Cluster => ("postgres", immune::PERSON.to_owned()),
            Self::Monitor => (PostgresNames::MONITOR, immune::MONITOR.to_owned()),
        }
    }

    /// The database.
    fn database(self, names: &PostgresNames) -> &str {
        match self {
            Self::Reader { .. } | Self::Owner | Self::Superuser => &names.database,
            Self::Monitor | Self::Cluster => "postgres",
        }
    }
}

/// Runs psql, and returns its exit code.
pub async fn run(
    connection: &Connection,
    name: &str,
    superuser: bool,
    arguments: &[OsString],
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&client, &namespace, name).await?;
    // A terminal is requested only if input and output are one: it would change the line ends of
    // a redirected output.
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let login = if superuser { Login::Superuser } else { Login::Owner };
    let mut command = command(connection, &client, &namespace, &resource, login, terminal, arguments).await?;
    end_with(&mut command).await
}

/// Runs a command, and ends with its exit code.
///
/// # Errors
/// If kubectl cannot be run.
pub async fn end_with(command: &mut tokio::process::Command) -> Result<ExitCode, PluginError> {
    let status = command.status().await.map_err(|source| PluginError::Kubectl { program: program(), source })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// kubectl, which runs a program without input in the primary's pod.
///
/// # Errors
/// If there is no primary to go to.
pub async fn in_primary(
    connection: &Connection,
    client: &Client,
    namespace: &str,
    resource: &ServiceDatabase,
    program_and_arguments: &[&str],
) -> Result<tokio::process::Command, PluginError> {
    let pod = find_primary(client, &Names::new(namespace, resource.name_any()), resource).await?;
    Ok(in_pod(connection, namespace, &pod, CONTAINER, program_and_arguments))
}

/// kubectl, which runs a program without input in a container of a pod.
pub fn in_pod(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    container: &str,
    program_and_arguments: &[&str],
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program());
    command.args(cluster(connection)).args(["--namespace", namespace, "exec", pod, "--container", container, "--"]);
    command.args(program_and_arguments);
    command
}

/// The arguments that make kubectl use the same cluster.
pub fn cluster(connection: &Connection) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    if let Some(file) = &connection.kubeconfig {
        all.extend(["--kubeconfig".into(), file.into()]);
    }
    if let Some(context) = &connection.context {
        all.extend(["--context".into(), context.into()]);
    }
    all
}

/// The kubectl command that runs psql in the primary's pod.
pub async fn command(
    connection: &Connection,
    client: &Client,
    namespace: &str,
    resource: &ServiceDatabase,
    login: Login,
    terminal: bool,
    arguments: &[OsString],
) -> Result<tokio::process::Command, PluginError> {
    let pod = find_primary(client, &Names::new(namespace, resource.name_any()), resource).await?;
    Ok(command_in(connection, namespace, resource, &pod, login, terminal, arguments))
}

/// The kubectl command that runs psql in a pod of the database.
pub fn command_in(
    connection: &Connection,
    namespace: &str,
    resource: &ServiceDatabase,
    pod: &str,
    login: Login,
    terminal: bool,
    arguments: &[OsString],
) -> tokio::process::Command {
    let names = Names::new(namespace, resource.name_any());
    let database = resource.status.as_ref().and_then(|status| status.database.clone());
    let database = database.or(resource.spec.database.clone()).unwrap_or_else(|| names.default_database());
    let mut command = tokio::process::Command::new(program());
    let names = names.postgres(&database);
    command.args(kubectl_arguments(connection, namespace, pod, &names, login, terminal, arguments));
    command
}

/// kubectl, or the program in KUBECTL.
pub fn program() -> String {
    std::env::var("KUBECTL").ok().filter(|program| !program.is_empty()).unwrap_or_else(|| "kubectl".to_owned())
}

async fn find_primary(client: &Client, names: &Names, resource: &ServiceDatabase) -> Result<String, PluginError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
    let selector = format!("{LABEL_SCOPE}={},{LABEL_ROLE}={ROLE_PRIMARY}", names.base());
    let pods = api
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|error| PluginError::kubernetes(format!("listing the pods of {}", names.name), error))?;
    let reported = resource.status.as_ref().and_then(|status| status.primary.as_deref());
    choose(&pods.items, reported).ok_or_else(|| PluginError::NoPrimary(no_primary(&names.namespace, resource)))
}

/// The pod to use, of those with the primary's label. After a failover a failed pod can keep the
/// label for a moment, so a ready pod, and the one that status names, come first.
fn choose(pods: &[Pod], reported: Option<&str>) -> Option<String> {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    pods.iter()
        .filter(|pod| phase(pod) == "Running")
        .max_by_key(|pod| {
            let living = pod.metadata.deletion_timestamp.is_none();
            (living, is_ready(pod), reported == Some(pod.name_any().as_str()))
        })
        .map(|pod| pod.name_any())
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn no_primary(namespace: &str, resource: &ServiceDatabase) -> String {
    let conditions = resource.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let available = conditions.iter().find(|condition| condition.type_ == conditions::DATABASE_AVAILABLE);
    let name = resource.name_any();
    let why = match available {
        Some(condition) if condition.status != "True" => {
            format!("{} is {}, {}: {}", condition.type_, condition.status, condition.reason, condition.message)
        }
        _ => "no running pod has the primary's label".to_owned(),
    };
    format!("{name} has no primary: {why}\nkubectl servicedb status {name} -n {namespace} shows its instances")
}

fn kubectl_arguments(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    names: &PostgresNames,
    login: Login,
    terminal: bool,
    arguments: &[OsString],
) -> Vec<OsString> {
    let mut all = cluster(connection);
    let interactive = if terminal { "-it" } else { "-i" };
    all.extend(["--namespace", namespace, "exec", interactive, pod, "--container", CONTAINER, "--"].map(Into::into));
    // The root filesystem of the pod is read-only, so there is no place for a history.
    let history = "HISTFILE=/dev/null";
    if let Login::Reader { seconds } = login {
        // This ends psql in any case.
        all.extend(["timeout".to_owned(), (seconds + 1).to_string()].map(Into::into));
    }
    let (role, options) = login.role_and_options(names);
    let target = format!("dbname={} options={}", login.database(names), immune::in_conninfo(&options));
    all.extend(["psql", "-h", SOCKET_DIR, "-U", role, "-d", &target, "-v", history].map(Into::into));
    all.extend(arguments.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, ready: &str, deleted: bool) -> Pod {
        let deletion = deleted.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": { "name": name, "deletionTimestamp": deletion },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] }
        }))
        .expect("a pod")
    }

    #[test]
    fn the_running_ready_primary_is_chosen() {
        let gone = pod("chat-db-0", "Running", "True", true);
        let cut_off = pod("chat-db-1", "Running", "False", false);
        let primary = pod("chat-db-2", "Running", "True", false);
        let choice =
            |pods: &[&Pod], reported| choose(&pods.iter().map(|&pod| pod.clone()).collect::<Vec<_>>(), reported);
        assert_eq!(choice(&[&gone, &cut_off, &primary], Some("chat-db-0")).as_deref(), Some("chat-db-2"));
        assert_eq!(choice(&[&gone, &cut_off], None).as_deref(), Some("chat-db-1"), "Patroni leads on while unready");
        assert_eq!(choice(&[&pod("chat-db-0", "Pending", "False", false)], Some("chat-db-0")), None);
    }

    #[test]
    fn kubectl_gets_the_same_cluster_and_psql_its_arguments() {
        let connection =
            Connection { namespace: None, context: Some("dev".into()), kubeconfig: Some("/home/me/my config".into()) };
        let given = ["-c", "select 'a b'"].map(OsString::from);
        let names = Names::new("games", "chat").postgres("chat_db");
        let arguments = kubectl_arguments(&connection, "games", "chat-db-1", &names, Login::Superuser, false, &given);
        let text: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        let target = format!("dbname=chat_db options={}", immune::in_conninfo(immune::PERSON));
        assert_eq!(
            text.join("|"),
            format!(
                "--kubeconfig|/home/me/my config|--context|dev|--namespace|games|exec|-i|chat-db-1|--container|database\
                 |--|psql|-h|/run/postgresql|-U|postgres|-d|{target}|-v|HISTFILE=/dev/null|-c|select 'a b'"
            )
        );
        let connection = Connection::default();
        let arguments = |login| kubectl_arguments(&connection, "games", "chat-db-1", &names, login, true, &[]);
        let owner = arguments(Login::Owner);
        assert_eq!(owner[..4], ["--namespace", "games", "exec", "-it"]);
        assert!(owner.contains(&"servicedb_local".into()));
        let target = owner.iter().find(|argument| argument.to_string_lossy().starts_with("dbname=chat_db options="));
        assert!(
            target.is_some_and(|target| target.to_string_lossy().ends_with(" -c role=chat_db_owner'")),
            "{owner:?}"
        );
        let reader = arguments(Login::Reader { seconds: 30 });
        assert!(reader.contains(&"servicedb_reader".into()) && reader.contains(&"31".into()), "{reader:?}");
    }

    #[test]
    fn without_a_primary_the_condition_has_the_reason() {
        let resource: ServiceDatabase = serde_json::from_value(json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase",
            "metadata": { "name": "chat" }, "spec": { "storage": { "size": "1Gi" } },
            "status": { "conditions": [{
                "type": "DatabaseAvailable", "status": "False", "reason": "NoPrimary",
                "message": "the primary is gone", "lastTransitionTime": "2026-01-01T00:00:00Z"
            }] }
        }))
        .expect("a resource");
        assert_eq!(
            no_primary("messaging", &resource),
            "chat has no primary: DatabaseAvailable is False, NoPrimary: the primary is gone\n\
             kubectl servicedb status chat -n messaging shows its instances"
        );
    }
}
