//! `kubectl servicedb gateway`: the data gateway's state, its callers, and a token for a try.

use std::process::ExitCode;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

use super::args::Connection;
use super::connection::{self, PluginError};
use super::table::{Table, plain};
use crate::api::names::Names;
use crate::api::{AccessMode, ClientSpec, ServiceDatabase};
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
    if let Some(refusal) = refusal(&resource, declared, &namespace) {
        eprintln!("error: {refusal}");
        return Ok(ExitCode::FAILURE);
    }
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience(&namespace, name)],
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(api, declared.namespace(&namespace));
    let account = declared.account_name();
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.map_err(|error| {
        PluginError::kubernetes(format!("requesting a token of the ServiceAccount {account}"), error)
    })?;
    println!("{}", answer.status.map(|status| status.token).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

/// Why the platform does not allow a client: it has no access to the database, and none to the gateway.
fn refusal(resource: &ServiceDatabase, client: &ClientSpec, namespace: &str) -> Option<String> {
    let client = client.normalized(namespace);
    let mut clients = resource.status.iter().flat_map(|status| &status.clients);
    let found = clients.find(|found| {
        found.name == client.name()
            && found.service_account_name == client.service_account_name
            && found.service_account_namespace == client.service_account_namespace
            && found.rights == "NotAllowed"
    })?;
    let why = plain(found.message.as_deref().unwrap_or("see its condition CredentialsReady"));
    Some(format!("{} is no caller (NotAllowed): {why}", client.name()))
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
    let (refused, callers): (Vec<_>, Vec<_>) = resource
        .spec
        .clients
        .iter()
        .map(|client| (client, refusal(resource, client, namespace)))
        .partition(|(_, why)| why.is_some());
    for (client, _) in &callers {
        let mode = client.own().map_or(AccessMode::Shared, |access| access.mode);
        table.row([client.name().to_owned(), client.account(), mode.as_str().to_owned()]);
    }
    text += &table.render();
    for (_, why) in refused {
        text += &format!("{}\n", why.unwrap_or_default());
    }
    if let Some((client, _)) = callers.first() {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_that_is_not_allowed_is_no_caller() {
        for mut foreign in [
            json!({"serviceAccountName": "foreign", "serviceAccountNamespace": "elsewhere"}),
            json!({"serviceAccountName": "elsewhere/foreign"}),
        ] {
            foreign["access"] = json!({"mode": "ReadOnly"});
            let resource: ServiceDatabase = serde_json::from_value(json!({
                "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
                "spec": {
                    "storage": {"size": "1Gi"}, "gateway": {},
                    "clients": [foreign, {"serviceAccountName": "reports", "access": {"mode": "ReadOnly"}}],
                },
                "status": {"clients": [{
                    "name": "foreign", "serviceAccountName": "foreign", "serviceAccountNamespace": "elsewhere",
                    "access": "ReadOnly", "generation": 0, "vaultPath": "", "vaultRole": "", "role": "r",
                    "rights": "NotAllowed", "message": "clients.allowedNamespaces does not have elsewhere",
                }]},
            }))
            .expect("a resource");
            let text = description(&resource, "messaging", "chat");
            assert!(text.contains("reports") && text.contains("--token reports"), "{text}");
            assert!(!text.contains("elsewhere/foreign") && !text.contains("--token foreign"), "{text}");
            assert!(
                text.contains("foreign is no caller (NotAllowed): clients.allowedNamespaces does not have elsewhere\n"),
                "{text}"
            );
            assert_eq!(refusal(&resource, &resource.spec.clients[1], "messaging"), None);
        }
    }
}
