//! Two commands for the chart: whether the operator may be removed, and whether its Vault login works.

use std::process::ExitCode;

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::startup;
use crate::api::ServiceDatabase;
use crate::operator::context::options::Options;
use crate::vault::Vault;

/// How many resources a refusal names.
const NAMED: u32 = 20;

/// Fails while ServiceDatabases exist: without the operator, their finalizers would block their
/// deletion, and nothing would manage them.
pub async fn uninstall() -> ExitCode {
    let found = async {
        let client = Client::try_default().await.map_err(|error| error.to_string())?;
        let api: Api<ServiceDatabase> = Api::all(client);
        match api.list(&ListParams::default().limit(NAMED)).await {
            Ok(list) => Ok(list.items),
            // No CustomResourceDefinition, no resources.
            Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    };
    match found.await {
        Ok(resources) if resources.is_empty() => ExitCode::SUCCESS,
        Ok(resources) => {
            let names = resources
                .iter()
                .map(|resource| format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any()));
            let names = names.collect::<Vec<_>>().join(", ");
            eprintln!(
                "Servicedb cannot be removed while ServiceDatabases exist: {names}. Delete them first (kubectl delete sdb NAME -n NAMESPACE); their deletionPolicy applies to their data."
            );
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("cannot list ServiceDatabases, so Servicedb is not removed: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Logs in to Vault as the operator does and tests its rights; prints one line per step.
pub async fn vault(options: Options) -> ExitCode {
    let vault = match startup::vault(&options) {
        Ok(vault) => vault,
        Err(problem) => {
            println!("FAIL settings: {problem}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = vault.health().await {
        println!("FAIL health: {error}");
        return ExitCode::FAILURE;
    }
    println!("ok   health: {} serves", options.vault_address);
    // A missing policy with the operator's prefix: only the login and the right to read are tested.
    let probe = format!("servicedb.{}.check.check.instance", options.cluster_id);
    if let Err(error) = vault.read_policy(&probe).await {
        println!("FAIL login: {error}");
        return ExitCode::FAILURE;
    }
    println!("ok   login: the operator may log in and read its policies");
    for (what, result) in [
        ("AppRole mount", vault.read_approle(&probe).await.map(drop)),
        ("Kubernetes auth mount", vault.read_kubernetes_role(&probe).await.map(drop)),
        ("KV mount", vault.read_kv_metadata(&format!("{}/check/check/runtime", options.cluster_id)).await.map(drop)),
    ] {
        if let Err(error) = result {
            println!("FAIL {what}: {error}");
            return ExitCode::FAILURE;
        }
        println!("ok   {what}: reachable with the operator's rights");
    }
    ExitCode::SUCCESS
}
