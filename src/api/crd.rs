//! The CustomResourceDefinition as the API server gets it: what the Rust types say, with
//! what they cannot say added.
//!
//! `nullable` goes, since the API server prunes a null of a field that is not nullable and
//! then applies its default. Types of Kubernetes' own (affinity, selectors, quantities) come
//! without the bounds that the API server holds their originals to, and with descriptions
//! that are half of the whole text: they get bounds, and keep a first sentence.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::ServiceDatabase;

/// Where spec embeds a type of Kubernetes' own; `[]` is a list's item.
pub(crate) const EMBEDDED: &[&[&str]] = &[
    &["spec", "clients", "[]", "podSelector"],
    &["spec", "resources"],
    &["spec", "scheduling", "affinity"],
    &["spec", "scheduling", "tolerations"],
    &["spec", "scheduling", "topologySpreadConstraints"],
];

/// How many members a list or map of an embedded type may have.
const EMBEDDED_MAX_ITEMS: i64 = 64;
/// How long a string of an embedded type may be; label keys, the longest, have 317 at most.
const EMBEDDED_MAX_LENGTH: i64 = 512;

/// A quantity's form, as Kubernetes' own tools write it into a schema.
const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// The CustomResourceDefinition.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = ServiceDatabase::crd();
    for version in &mut crd.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            complete(root);
        }
    }
    crd
}

/// The CustomResourceDefinition as YAML: what `servicedb crd` prints and `crds/` holds.
///
/// # Errors
/// If it cannot be written as YAML, which would be a mistake in the types.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&definition())
}

fn complete(root: &mut JSONSchemaProps) {
    tidy(root);
    for path in EMBEDDED {
        if let Some(embedded) = at(root, path) {
            // The description of the member itself is ours; those below are Kubernetes'.
            let own = embedded.description.clone();
            bound(embedded);
            embedded.description = own;
        }
    }
    // Claims name entries of a pod's resourceClaims, which spec has no place for.
    if let Some(properties) = at(root, &["spec", "resources"]).and_then(|schema| schema.properties.as_mut()) {
        properties.remove("claims");
    }
    if let Some(selector) = at(root, &["spec", "clients", "[]", "podSelector"]) {
        selector.x_kubernetes_map_type = Some("atomic".to_owned());
    }
    if let Some(constraints) = at(root, &["spec", "scheduling", "topologySpreadConstraints"]) {
        constraints.x_kubernetes_list_type = Some("map".to_owned());
        constraints.x_kubernetes_list_map_keys = Some(vec!["topologyKey".to_owned(), "whenUnsatisfiable".to_owned()]);
    }
    if let Some(condition) = at(root, &["status", "conditions", "[]"]) {
        complete_condition(condition);
    }
}

/// The bounds that Kubernetes' own Condition has.
fn complete_condition(condition: &mut JSONSchemaProps) {
    shorten(condition);
    for (name, property) in condition.properties.iter_mut().flatten() {
        shorten(property);
        match name.as_str() {
            "type" => property.max_length = Some(316),
            "reason" => (property.min_length, property.max_length) = (Some(1), Some(1024)),
            "message" => property.max_length = Some(32768),
            "status" => {
                property.enum_ = Some(["True", "False", "Unknown"].map(|status| JSON(status.into())).to_vec());
            }
            _ => {}
        }
    }
}

/// Removes `nullable`, and the line breaks that descriptions have from the source's width.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        *description =
            description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    each_child(schema, &mut tidy);
}

/// Gives an embedded type bounds, and shortens its descriptions.
fn bound(schema: &mut JSONSchemaProps) {
    shorten(schema);
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.description = None;
        schema.any_of = Some(
            ["integer", "string"]
                .map(|kind| JSONSchemaProps { type_: Some(kind.to_owned()), ..Default::default() })
                .to_vec(),
        );
        schema.pattern = Some(QUANTITY_PATTERN.to_owned());
        schema.max_length = Some(64);
    }
    match schema.type_.as_deref() {
        Some("array") => _ = schema.max_items.get_or_insert(EMBEDDED_MAX_ITEMS),
        Some("string") if schema.format.is_none() && schema.enum_.is_none() => {
            schema.max_length.get_or_insert(EMBEDDED_MAX_LENGTH);
        }
        Some("object") if schema.additional_properties.is_some() => {
            schema.max_properties.get_or_insert(EMBEDDED_MAX_ITEMS);
        }
        _ => {}
    }
    each_child(schema, &mut bound);
}

/// Keeps the first sentence of a description.
fn shorten(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        let ends = |at: &usize| !["i.e", "e.g"].iter().any(|abbreviation| description[..*at].ends_with(abbreviation));
        let stops = [". ", ".\n", "\n\n"].iter().flat_map(|stop| description.match_indices(stop).map(|(at, _)| at));
        if let Some(end) = stops.filter(ends).min() {
            description.truncate(end);
            description.push('.');
        }
    }
}

fn each_child(schema: &mut JSONSchemaProps, visit: &mut dyn FnMut(&mut JSONSchemaProps)) {
    schema.properties.iter_mut().flatten().for_each(|(_, property)| visit(property));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        visit(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        visit(values);
    }
}

fn at<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter().try_fold(schema, |schema, step| match (*step, &mut schema.items) {
        ("[]", Some(JSONSchemaPropsOrArray::Schema(items))) => Some(items.as_mut()),
        (name, _) => schema.properties.as_mut()?.get_mut(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> JSONSchemaProps {
        let version = definition().spec.versions.remove(0);
        version.schema.and_then(|schema| schema.open_api_v3_schema).expect("a schema")
    }

    #[test]
    fn the_file_is_what_the_types_say() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/servicedatabases.servicedb.dev.yaml");
        let written = std::fs::read_to_string(file).expect("the generated CRD");
        assert!(
            written == yaml().expect("the CRD as YAML"),
            "crds/servicedatabases.servicedb.dev.yaml is not what the types say; write it anew: \
             cargo run --bin servicedb -- crd > crds/servicedatabases.servicedb.dev.yaml"
        );
    }

    #[test]
    fn every_path_that_is_completed_is_there() {
        let mut root = root();
        for path in EMBEDDED {
            assert!(at(&mut root, path).is_some(), "the schema has no {path:?}");
        }
        assert!(at(&mut root, &["status", "conditions", "[]"]).is_some());
    }

    /// A rule's cost is estimated from the bounds of what it reads, and an unbounded list is
    /// a way to fill etcd.
    #[test]
    fn everything_in_spec_is_bounded_and_described() {
        fn check(schema: &mut JSONSchemaProps, embedded: bool, path: String) {
            let kind = schema.type_.clone().unwrap_or_default();
            assert!(kind != "array" || schema.max_items.is_some(), "{path} has no maxItems");
            let map = schema.additional_properties.is_some();
            assert!(!map || schema.max_properties.is_some(), "{path} has no maxProperties");
            let fixed = schema.enum_.is_some();
            assert!(kind != "string" || fixed || schema.max_length.is_some(), "{path} has no maxLength");
            assert!(!schema.nullable.unwrap_or_default(), "{path} is nullable");
            let format = schema.format.as_deref().unwrap_or_default();
            assert!(!format.starts_with("uint"), "{path} has the format {format}, which Kubernetes does not know");
            assert!(embedded || schema.description.is_some(), "{path} has no description");
            for (name, property) in schema.properties.iter_mut().flatten() {
                let embedded = embedded || EMBEDDED.iter().any(|path| path.last() == Some(&name.as_str()));
                check(property, embedded, format!("{path}.{name}"));
            }
            if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
                check(items, embedded, format!("{path}[]"));
            }
        }
        check(at(&mut root(), &["spec"]).expect("a spec"), false, "spec".to_owned());
    }

    #[test]
    fn the_text_stays_small_enough_to_read() {
        assert!(yaml().expect("the CRD as YAML").len() < 104 * 1024);
    }
}
