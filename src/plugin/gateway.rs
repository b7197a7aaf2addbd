//! `kubectl servicedb gateway`: the data gateway's state, its callers, and a token for a try.

use std::process::ExitCode;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

use super::args::Connection;
use super::connection::{self, PluginError};
use super::table::Table;
use crate::api::names::Names;
use crate::api::{AccessMode, ServiceDatabase};
use crate::contract::gateway::{BASE_PATH, SERVICE_PORT, audience};

/// How long a token for a try is valid: the shortest time that the API server grants.
const TOKEN_SECONDS: i64 = 600;

/// Prints the state; with `client`, a token of this client alone, for a script.
///
/// # Errors
/// If the resource cannot be read, or the API server grants no token.
pub async fn run(connection: &Connection, name: &str, client: Option<&str>) -> Result<ExitCode, PluginError> {
    let (api, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&api, &namespace, name).await?;
    if resource.spec.gateway.is_none() {
        eprintln!("error: {name} has no data gateway; spec.gateway declares one");
        return Ok(ExitCode::FAILURE);
    }
    let Some(client) = client else {
        print!("{}", description(&resource, &namespace, name));
        return Ok(ExitCode::SUCCESS);
    };
    let Some(declared) = resource.spec.clients.iter().find(|declared| declared.name() == client) else {
        let names: Vec<_> = resource.spec.clients.iter().map(|client| client.name()).collect();
        eprintln!("error: {name} has no client {client}; spec.clients has {}", names.join(", "));
        return Ok(ExitCode::FAILURE);
    };
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience(&namespace, name)],
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(api, declared.namespace(&namespace));
    let account = &declared.service_account_name;
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.map_err(|error| {
        PluginError::kubernetes(format!("requesting a token of the ServiceAccount {account}"), error)
    })?;
    println!("{}", answer.status.map(|status| status.token).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

/// The state, the callers, and a request to copy.
fn description(resource: &ServiceDatabase, namespace: &str, name: &str) -> String {
    let status = resource.status.clone().unwrap_or_default().gateway.unwrap_or_default();
    let (names, host) = (Names::new(namespace, name), "localhost:8443");
    let mut text = format!(
        "Pods ready: {}\nAddress:    {}\nAudience:   {}\n\n",
        status.instances.as_deref().unwrap_or("none yet"),
        status.url.unwrap_or_else(|| format!("https://{}{BASE_PATH}", names.gateway_host())),
        status.audience.unwrap_or_else(|| audience(namespace, name)),
    );
    let mut table = Table::new(["CLIENT", "SERVICEACCOUNT", "ACCESS"]);
    for client in &resource.spec.clients {
        let mode = client.own().map_or(AccessMode::Shared, |access| access.mode);
        table.row([client.name().to_owned(), client.account(), mode.as_str().to_owned()]);
    }
    text += &table.render();
    if let Some(client) = resource.spec.clients.first() {
        let client = client.name();
        text += &format!(
            "\nA first request, from here:\n  \
             kubectl -n {namespace} port-forward service/{gateway} 8443:{SERVICE_PORT} &\n  \
             kubectl -n {namespace} get configmap {gateway} -o jsonpath='{{.data.ca\\.crt}}' > ca.crt\n  \
             curl --cacert ca.crt -H \"Authorization: Bearer $(kubectl servicedb -n {namespace} gateway {name} --token {client})\" https://{host}{BASE_PATH}/openapi.json\n",
            gateway = names.gateway(),
        );
    }
    text
}
