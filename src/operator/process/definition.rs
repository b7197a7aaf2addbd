//! Checks whether the CustomResourceDefinition is older than this operator: with
//! `crds.install=false` a person must upgrade it, and the API server drops fields that are missing
//! in its schema without an error.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::{Api, Client, CustomResourceExt};

use crate::api::ServiceDatabase;
use crate::api::crd::definition;
use crate::backoff::jittered;
use crate::operator::context::metrics::Metrics;

/// The interval between two checks.
const INTERVAL: Duration = Duration::from_secs(600);
/// How many fields a message names.
const NAMED: usize = 8;

/// Reports a CustomResourceDefinition that is older than this operator, until it is replaced.
pub async fn check_periodically(client: Client, metrics: Metrics) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let mut before = Vec::new();
    loop {
        match api.get(ServiceDatabase::crd_name()).await {
            Ok(live) => {
                let missing = missing(&live, &definition());
                metrics.definition_is_outdated(!missing.is_empty());
                if !missing.is_empty() {
                    tracing::warn!(missing = describe(&missing), "{OUTDATED}");
                } else if !before.is_empty() {
                    tracing::info!("the CustomResourceDefinition is up to date");
                }
                before = missing;
            }
            // An older chart does not grant the right to read it.
            Err(error) => tracing::debug!(%error, "the CustomResourceDefinition cannot be read"),
        }
        tokio::time::sleep(jittered(INTERVAL)).await;
    }
}

const OUTDATED: &str = "the CustomResourceDefinition servicedatabases.servicedb.dev is older than this operator, and the \
                        API server drops these fields without an error: apply that of this version (kubectl apply \
                        --server-side -f crds/, or servicedb crd | kubectl apply --server-side -f -)";

fn describe(missing: &[String]) -> String {
    let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match missing.len().saturating_sub(NAMED) {
        0 => named,
        others => format!("{named} and {others} others"),
    }
}

/// The paths of our fields that are missing in the live definition, without the fields below a
/// missing one.
fn missing(live: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Vec<String> {
    let mut missing = Vec::new();
    let schemas = |crd: &CustomResourceDefinition| -> BTreeMap<String, JSONSchemaProps> {
        let versions = crd.spec.versions.iter();
        let schema = |version: &CustomResourceDefinitionVersion| {
            Some((version.name.clone(), version.schema.clone()?.open_api_v3_schema?))
        };
        versions.filter_map(schema).collect()
    };
    let live = schemas(live);
    for (version, ours) in schemas(ours) {
        match live.get(&version) {
            Some(live) => compare("", live, &ours, &mut missing),
            None => missing.push(version),
        }
    }
    missing
}

fn compare(path: &str, live: &JSONSchemaProps, ours: &JSONSchemaProps, missing: &mut Vec<String>) {
    for (name, ours) in ours.properties.iter().flatten() {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match live.properties.as_ref().and_then(|live| live.get(name)) {
            Some(live) => compare(&at, live, ours, missing),
            None => missing.push(at),
        }
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(live)), Some(JSONSchemaPropsOrArray::Schema(ours))) =
        (&live.items, &ours.items)
    {
        compare(&format!("{path}[]"), live, ours, missing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_missing_in_the_schema_is_named() {
        let ours = definition();
        assert_eq!(missing(&ours, &ours), Vec::<String>::new());
        let mut live = ours.clone();
        let schema = live.spec.versions[0].schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let spec = schema.and_then(|root| root.properties.as_mut()?.get_mut("spec")).expect("spec");
        let properties = spec.properties.as_mut().expect("fields");
        properties.remove("updatePolicy").expect("a field");
        let postgres =
            properties.get_mut("postgres").and_then(|postgres| postgres.properties.as_mut()).expect("fields");
        postgres.remove("parameters").expect("a field");
        assert_eq!(missing(&live, &ours), ["spec.postgres.parameters", "spec.updatePolicy"]);
        // A newer definition is no problem.
        assert_eq!(missing(&ours, &live), Vec::<String>::new());
        live.spec.versions.clear();
        assert_eq!(missing(&live, &ours), ["v1alpha1"]);
    }
}
