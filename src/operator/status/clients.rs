//! The status of clients with a login of their own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::findings::Findings;
use crate::api::conditions::reason;
use crate::api::{ClientSpec, ClientStatus, ServiceDatabaseStatus};
use crate::contract::clients::{ClientReport, RightsReport, Sessions};
use crate::contract::report::Report;
use crate::contract::time::seconds;
use crate::operator::context::options::Options;
use crate::operator::credentials::spec::{self, Refusal};
use crate::operator::observe::Observation;
use crate::operator::validate::Database;
use crate::vault::VaultError;

/// Their rights are the declared ones.
const APPLIED: &str = "Applied";
/// Their rights were not compared yet.
const UNKNOWN: &str = "Unknown";

/// Why an agent makes no short-lived logins possible.
const FORMER_AGENT: &str =
    "the pods have an agent of an earlier version, which knows no short-lived logins (RolloutPending)";

/// The platform does not allow the client.
const NOT_ALLOWED: &str = "NotAllowed";

/// The clients that are declared, in the order of the spec, the refused ones last; those of the previous status if the spec is invalid.
pub fn status(findings: &Findings<'_>, report: Option<&Report>, previous: &ServiceDatabaseStatus) -> Vec<ClientStatus> {
    let Some(database) = findings.database else { return previous.clients.clone() };
    let reports = report.and_then(|report| report.clients.as_deref());
    let sessions = sessions(findings.observed);
    let of = |spec: &ClientSpec| {
        let name = spec.name();
        let before = previous.clients.iter().find(|client| {
            client.name == name
                && client.service_account_name == spec.account_name()
                && client.service_account_namespace.as_deref() == spec.account_namespace()
                && client.dynamic.is_some() == spec.dynamic().is_some()
        });
        let declared = ClientStatus {
            name: name.to_owned(),
            service_account_name: spec.account_name().to_owned(),
            service_account_namespace: spec.account_namespace().map(str::to_owned),
            access: spec.own().map(|access| access.mode.as_str()).unwrap_or_default().to_owned(),
            dynamic: spec.dynamic().map(|_| false),
            vault_path: vault_path(database, spec, findings.options),
            vault_role: database.vault.own_client(name),
            role: database.postgres.client(name),
            rights: UNKNOWN.to_owned(),
            secret: findings.bound.clients.get(name).cloned(),
            sessions: sessions.as_ref().and_then(|sessions| sessions.clients.get(name).copied()),
            ..ClientStatus::default()
        };
        if database.refused_clients.contains(spec) {
            let message = Some(refusal(database, spec, findings.options).1);
            return ClientStatus { rights: NOT_ALLOWED.to_owned(), message, sessions: None, ..declared };
        }
        let found = reports.and_then(|reports| reports.iter().find(|report| report.name == name));
        let status = match (found, before) {
            (Some(found), _) => reported(declared, found),
            // What was promoted is valid on every primary.
            (None, Some(before)) if reports.is_none() => {
                let ClientStatus { access, secret, sessions, .. } = declared;
                // With short-lived logins it may be of the engine, and is then added below, if it still holds.
                let message = before.message.clone().filter(|_| spec.dynamic().is_none());
                ClientStatus { access, secret, sessions, message, ..before.clone() }
            }
            _ => declared,
        };
        match findings.credentials.engine.as_ref().filter(|_| spec.dynamic().is_some()) {
            Some(error) => without_engine(status, error),
            None => status,
        }
    };
    database.own_clients().chain(&database.refused_clients).map(of).collect()
}

/// A client whose role the engine does not take: whether Vault has an earlier one is not known.
fn without_engine(status: ClientStatus, error: &VaultError) -> ClientStatus {
    let why = format!("{}: {error}", reason_of_engine(error));
    let message = std::iter::once(why).chain(status.message).collect::<Vec<_>>().join("; ");
    ClientStatus { dynamic: Some(false), message: Some(message), ..status }
}

/// Why clients with short-lived logins may get no new ones, and the way out: a reason and a message; none if the engine
/// takes its part.
pub fn engine_refuses(database: &Database, error: Option<&VaultError>) -> Option<(&'static str, String)> {
    let error = error?;
    let names: Vec<_> =
        database.own_clients().filter(|client| client.dynamic().is_some()).map(|client| client.name()).collect();
    let names = names.join(", ");
    let message = format!(
        "the roles of the clients with short-lived logins ({names}) cannot be ensured in Vault's database secrets \
         engine, so they get no new logins, or some by an earlier declaration: {error}. The platform checks \
         vault.databaseMount in the chart's values, and runs manifests/vault-setup.sh with DATABASE_MOUNT \
         (docs/vault.md, Short-lived logins); or remove access.dynamic"
    );
    (!names.is_empty()).then_some((reason_of_engine(error), message))
}

/// The reason for an error of the engine. A Vault that refuses a role is reachable.
fn reason_of_engine(error: &VaultError) -> &'static str {
    match error {
        VaultError::Unexpected { .. } => reason::CREDENTIALS_PENDING,
        other => other.reason(),
    }
}

/// Where a client gets its credentials; empty where the platform offers no short-lived logins.
fn vault_path(database: &Database, client: &ClientSpec, options: &Options) -> String {
    let name = client.name();
    match (client.dynamic(), &options.vault_database_mount) {
        (None, _) => format!("{}/{}", options.vault_kv_mount, database.vault.client_runtime(name)),
        (Some(_), Some(mount)) => format!("{mount}/creds/{}", database.vault.engine_role(name)),
        (Some(_), None) => String::new(),
    }
}

/// Why a client has no access, and the way out: a reason and a message.
fn refusal(database: &Database, client: &ClientSpec, options: &Options) -> (&'static str, String) {
    let own = &database.names().namespace;
    let (name, namespace) = (client.name(), client.namespace(own));
    if spec::refusal(client, own, options) == Some(Refusal::ShortLived) {
        let message = format!(
            "spec.clients[].access.dynamic of {name}: this installation offers no short-lived logins (vault.databaseMount \
             in the chart's values is empty), so the client has no login of its own. The platform sets up Vault's database \
             secrets engine (docs/vault.md, Short-lived logins); or remove access.dynamic"
        );
        return (reason::SHORT_LIVED_NOT_OFFERED, message);
    }
    let message = format!(
        "the namespace of the client {name} in spec.clients is {namespace}, and clients.allowedNamespaces in the chart's \
         values does not allow clients of {namespace} for databases in {own}: the client has no access. The platform \
         adds it there ({own}: [{namespace}]); or remove the client, or use a ServiceAccount in {own}"
    );
    (reason::CLIENT_NOT_ALLOWED, message)
}

/// Why clients are refused; none if all are allowed.
pub fn refused(database: &Database, options: &Options) -> Option<(&'static str, String)> {
    let first = database.refused_clients.first()?;
    let more = match database.refused_clients.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let (reason, message) = refusal(database, first, options);
    Some((reason, format!("{message}{more}")))
}

/// The sessions of all instances that have counted; none if none has.
pub fn sessions(observed: &Observation) -> Option<Sessions> {
    let counted = observed.pods.iter().filter_map(|pod| pod.report.as_ref()?.sessions.as_ref());
    counted.fold(None, |sum: Option<Sessions>, one| {
        let mut sum = sum.unwrap_or_default();
        sum.shared += one.shared;
        for (name, count) in &one.clients {
            *sum.clients.entry(name.clone()).or_default() += count;
        }
        Some(sum)
    })
}

fn reported(declared: ClientStatus, report: &ClientReport) -> ClientStatus {
    let (rights, told) = match &report.rights {
        Some(rights) => rights_of(rights),
        None => (UNKNOWN, Vec::new()),
    };
    let trouble = report.trouble.as_ref().map(|trouble| format!("{}: {}", trouble.reason, trouble.message));
    let trouble = match (declared.dynamic, report.dynamic) {
        // It waits for a record.
        (Some(_), None) => Some(FORMER_AGENT.to_owned()),
        _ => trouble,
    };
    let message: Vec<_> = trouble.into_iter().chain(told).collect();
    ClientStatus {
        generation: if declared.dynamic.is_some() { 0 } else { report.generation },
        dynamic: declared.dynamic.map(|_| report.dynamic == Some(true)),
        rotated_at: report.rotated_at.filter(|_| report.generation > 0).map(|at| Time(seconds(at))),
        rights: rights.to_owned(),
        message: (!message.is_empty()).then(|| message.join("; ")),
        ..declared
    }
}

/// The worst that differs, and all of it.
fn rights_of(rights: &RightsReport) -> (&'static str, Vec<String>) {
    let undeclared = rights.undeclared.iter().map(|right| format!("not declared: {right}"));
    let told: Vec<_> = rights.failed.iter().cloned().chain(undeclared).chain(rights.pending.iter().cloned()).collect();
    let told = told.into_iter().chain(rights.notes.iter().cloned()).collect();
    let state = if !rights.failed.is_empty() {
        reason::GRANT_FAILED
    } else if !rights.undeclared.is_empty() {
        reason::GRANT_DRIFT
    } else if !rights.pending.is_empty() {
        reason::GRANT_PENDING
    } else {
        APPLIED
    };
    (state, told)
}

/// Why the credentials of the clients are not ready; none if they are.
pub fn pending(database: &Database, clients: &[ClientStatus], report: Option<&Report>) -> Option<String> {
    let waits = |client: &&ClientStatus| client.dynamic.map_or(client.generation == 0, |is_proved| !is_proved);
    let waiting = clients.iter().find(waits)?;
    let name = &waiting.name;
    let agent = "it is not in Vault yet; if this lasts, the pods may have an agent of an earlier version \
                 (RolloutPending)";
    let why = match (&waiting.message, report.and_then(|report| report.clients.as_ref())) {
        (Some(message), _) => message.as_str(),
        (None, None) => agent,
        (None, Some(_)) if waiting.dynamic.is_some() => "Vault cannot make it yet",
        (None, Some(_)) => "it is not in Vault yet",
    };
    let of = clients.iter().filter(waits).count();
    let more = if of > 1 { format!(" (and {} more)", of - 1) } else { String::new() };
    Some(format!("the login of the client {name} of {}{more}: {why}", database.names().name))
}

/// A reason about rights that differ from the declared ones: the worst of all clients.
pub fn difference(clients: &[ClientStatus]) -> Option<(&'static str, String)> {
    [reason::GRANT_FAILED, reason::GRANT_DRIFT, reason::GRANT_PENDING].into_iter().find_map(|reason| {
        let client = clients.iter().find(|client| client.rights == reason)?;
        Some((reason, format!("the client {}: {}", client.name, client.message.as_deref().unwrap_or_default())))
    })
}

/// Whether every client's generation answers this request for new credentials of all. Short-lived logins are new anyway.
pub fn answers(findings: &Findings<'_>, report: Option<&Report>) -> bool {
    let reports = report.and_then(|report| report.clients.as_deref()).unwrap_or_default();
    findings
        .credentials
        .clients
        .iter()
        .filter(|wanted| wanted.dynamic().is_none())
        .all(|wanted| reports.iter().any(|report| report.name == wanted.name && report.generation >= wanted.generation))
}

/// The request for new credentials of one client that was answered last.
pub fn answered(findings: &Findings<'_>, report: Option<&Report>, previous: Option<String>) -> Option<String> {
    let asked = findings.database.and_then(|database| database.rotate_client.clone());
    let reports = report.and_then(|report| report.clients.as_deref()).unwrap_or_default();
    let is_done = asked.as_ref().is_some_and(|asked| {
        findings.credentials.clients.iter().any(|client| {
            client.rotate_client.as_ref() == Some(asked)
                && reports.iter().any(|report| report.name == client.name && report.generation >= client.generation)
        })
    });
    if is_done { asked } else { previous }
}
