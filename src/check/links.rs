//! The steps of the check, their output and the advice on failure. No text contains a secret.

use std::net::IpAddr;

use secrecy::SecretString;

use super::chain::{Broken, Holds};
use crate::api::names::Names;
use crate::contract::pod;
use crate::contract::records::{Runtime, VaultAccess};
use crate::postgres::{ConnectError, TlsLogin, immune, over_socket, over_tls};
use crate::vault::client::VaultClient;
use crate::vault::{Vault, VaultError, pod as pod_vault};

const APPLICATION_NAME: &str = "servicedb check";

/// This pod.
pub struct Pod {
    names: Names,
    name: String,
    address: IpAddr,
}

/// Access to Vault.
pub struct Session {
    client: VaultClient,
    access: VaultAccess,
}

/// The content of the runtime record.
pub struct Credentials {
    user: String,
    password: SecretString,
    database: String,
    ca: String,
}

impl Pod {
    /// Reads the pod's environment.
    pub fn from_environment() -> Result<Self, String> {
        let get = |variable: &str| {
            let found = std::env::var(variable).ok().filter(|value| !value.is_empty());
            found.ok_or_else(|| format!("{variable} is not set: run this in a database pod, with kubectl exec"))
        };
        let address = get(pod::ENV_POD_IP)?;
        let address = address.parse().map_err(|_| format!("{} is not an IP address: {address}", pod::ENV_POD_IP))?;
        let names = Names::new(get(pod::ENV_POD_NAMESPACE)?, get(pod::ENV_SERVICE)?);
        Ok(Self { names, name: get(pod::ENV_POD_NAME)?, address })
    }

    /// What to do about a server that refuses or does not answer.
    fn log(&self) -> String {
        format!(
            "a cloning replica and a recovering server refuse connections for a while; see kubectl logs {} -n {} -c database",
            self.name, self.names.namespace
        )
    }
}

/// Vault is initialised, unsealed and answers.
pub async fn vault(pod: &Pod) -> Result<Holds<Session>, Broken> {
    let (client, access) = pod_vault::client().map_err(|error| Broken {
        problem: error.to_string(),
        advice: format!(
            "see the events of this pod (kubectl describe pod {} -n {}): a ConfigMap that it mounts may be missing",
            pod.name, pod.names.namespace
        ),
    })?;
    client.health().await.map_err(|error| vault_problem(error, pod))?;
    Ok(Holds { detail: access.address.clone(), value: Session { client, access } })
}

/// Vault accepts this pod's role_id and secret_id.
pub async fn log_in(session: Session, pod: &Pod) -> Result<Holds<Session>, Broken> {
    session.client.log_in().await.map_err(|error| vault_problem(error, pod))?;
    Ok(Holds { detail: format!("at auth/{}", session.access.approle_mount), value: session })
}

/// The record that applications read can be read, and is complete.
pub async fn credentials(session: Session, pod: &Pod) -> Result<Holds<Credentials>, Broken> {
    let path = format!("{}/runtime", session.access.folder);
    let record = session.client.read_kv(&path).await.map_err(|error| vault_problem(error, pod))?;
    let record = record.ok_or_else(|| Broken {
        problem: format!("there is no record {}/{path}", session.access.kv_mount),
        advice: format!(
            "a new database has none until its first primary has proved them; if the database served before, the record was \
             deleted: see the condition CredentialsReady in kubectl describe sdb {}",
            pod.names.in_commands()
        ),
    })?;
    let incomplete = |problem: String| Broken {
        problem,
        advice: "another client wrote this record: restore its last valid version (vault kv rollback)".to_owned(),
    };
    let prefix = pod.names.key_prefix();
    let get = |suffix: &str| {
        let key = format!("{prefix}_DB_{suffix}");
        let found = record.data.get(&key).filter(|value| !value.is_empty()).cloned();
        found.ok_or_else(|| incomplete(format!("the record {path} has no key {key}")))
    };
    let (user, password) = Runtime::login_of(&record.data, &prefix).map_err(|error| incomplete(error.to_string()))?;
    let generation = Runtime::generation_of(&record.data).map_err(|error| incomplete(error.to_string()))?;
    let detail = format!("{}/{path}, generation {generation}", session.access.kv_mount);
    Ok(Holds { value: Credentials { user, password, database: get("NAME")?, ca: get("CA")? }, detail })
}

/// PostgreSQL answers a query over the local socket.
pub async fn local(own: &Pod) -> Result<Holds<()>, Broken> {
    let broken = |problem: String| Broken { problem, advice: own.log() };
    let connection = over_socket(pod::SOCKET_DIR, "postgres", APPLICATION_NAME).await;
    let connection = connection.map_err(|error| broken(error.to_string()))?;
    let row = connection.client.query_one("SHOW server_version", &[]).await;
    let version: String = row.map_err(|error| broken(crate::postgres::describe(&error)))?.get(0);
    Ok(Holds { value: (), detail: format!("version {version}") })
}

/// The credentials log in to this pod's server, as clients do, and a query is answered.
pub async fn log_in_to_postgres(credentials: Credentials, own: &Pod) -> Result<Holds<()>, Broken> {
    let Credentials { user, password, database, ca } = &credentials;
    let host = own.names.primary_host();
    let login = TlsLogin {
        host: &host,
        address: Some(own.address),
        port: pod::POSTGRES_PORT,
        database,
        user,
        password,
        ca,
        application_name: APPLICATION_NAME,
        options: immune::ANY_LOGIN,
    };
    let connection = over_tls(&login).await.map_err(|error| {
        let refused = code(&error).is_some_and(|code| code == "28P01");
        if refused && let Err(error) = std::fs::write(pod::PROVE_FILE, "") {
            tracing::debug!(%error, "the agent cannot be notified to prove the credentials");
        }
        Broken { advice: login_advice(&error, own), problem: error.to_string() }
    })?;
    let row = connection.client.query_one("SELECT 1, pg_catalog.pg_is_in_recovery()", &[]).await;
    let row = row.map_err(|error| Broken { problem: crate::postgres::describe(&error), advice: own.log() })?;
    let role = if row.get(1) { "a replica" } else { "the primary" };
    Ok(Holds { value: (), detail: format!("{user} to {database}; this is {role}") })
}

/// The SQLSTATE of a refusal.
fn code(error: &ConnectError) -> Option<&str> {
    match error {
        ConnectError::Postgres { source, .. } => source.code().map(|code| code.code()),
        _ => None,
    }
}

fn login_advice(error: &ConnectError, own: &Pod) -> String {
    match error {
        ConnectError::Authority { .. } => {
            return "the authority in Vault is damaged: restore the record's last valid version".to_owned();
        }
        ConnectError::Socket { .. } | ConnectError::Unanswered { .. } => return own.log(),
        ConnectError::Postgres { .. } => {}
    }
    let advice = match code(error) {
        Some("28P01") => {
            "PostgreSQL refuses the password of the record: the primary's agent, which this check has notified, writes the proved \
             record again within half a minute, or sets the password again; run this check again. On a replica, wait until it \
             has caught up"
        }
        Some("28000") => {
            "PostgreSQL refuses the login: the primary's agent sets it again within half a minute; on a replica, wait until \
             it has caught up"
        }
        Some("3D000") => {
            return format!(
                "the primary's agent creates the database: see the log of the primary's pod, which kubectl servicedb status \
                 {} names",
                own.names.in_commands()
            );
        }
        Some("53300") => "all connections are in use: raise max_connections, or find the clients that hold them",
        Some(_) => return own.log(),
        None => {
            "if the certificate is the problem: the operator renews it, and the agent loads it; otherwise the server does not run"
        }
    };
    advice.to_owned()
}

fn vault_problem(error: VaultError, own: &Pod) -> Broken {
    let advice = match &error {
        VaultError::Unreachable { .. } => {
            "check that Vault runs, that its address and authority in the operator's settings are correct, and that no \
             NetworkPolicy blocks this pod"
        }
        VaultError::NotServing { .. } => "make Vault serve again; no action is needed here afterwards",
        VaultError::LoginRefused { .. } => {
            return Broken {
                advice: format!(
                    "the operator keeps the role and renews the secret_id: see the condition VaultReachable in kubectl \
                     describe sdb {}",
                    own.names.in_commands()
                ),
                problem: error.to_string(),
            };
        }
        VaultError::PermissionDenied { .. } => {
            "the operator writes this pod's policy again at its next resync: see its log"
        }
        VaultError::MountMissing { .. } => "enable the mount in Vault, or correct the operator's settings",
        VaultError::CasMismatch { .. } | VaultError::Unexpected { .. } => "see Vault's log",
    };
    Broken { problem: error.to_string(), advice: advice.to_owned() }
}
