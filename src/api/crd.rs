//! The CustomResourceDefinition: generated from the Rust types, and completed with rules that they
//! cannot express.
//!
//! The types' own `nullable` is removed: the API server drops a null of a field that is not
//! nullable and then applies its default. When server-side apply empties an object or a list with
//! keys, it stores a null that is not dropped; these fields have a default or are nullable. Types
//! of Kubernetes (affinity, selectors, quantities) are generated without the bounds that the API
//! server enforces for the originals, and with long descriptions. They get bounds, and short
//! descriptions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::ServiceDatabase;

/// Fields of the spec whose types are Kubernetes'; `[]` is an item of a list.
pub(crate) const EMBEDDED: &[&[&str]] = &[
    &["spec", "backup", "resources"],
    &["spec", "clients", "[]", "podSelector"],
    &["spec", "gateway", "resources"],
    &["spec", "migrations", "resources"],
    &["spec", "pooler", "resources"],
    &["spec", "resources"],
    &["spec", "scheduling", "affinity"],
    &["spec", "scheduling", "tolerations"],
    &["spec", "scheduling", "topologySpreadConstraints"],
];

/// Optional objects whose default is an empty object. Without a default, `{}` in a manifest becomes
/// a null in the stored object, a permanent difference for GitOps tools.
const EMPTY_BY_DEFAULT: &[&[&str]] = &[&["spec", "resources"], &["spec", "scheduling"]];

/// The maximum number of members of a list or map of an embedded type.
const EMBEDDED_MAX_ITEMS: i64 = 64;
/// The maximum length of a string of an embedded type; label keys, the longest, have at most 317.
const EMBEDDED_MAX_LENGTH: i64 = 512;

/// The pattern of a quantity in the schemas of Kubernetes' own tools.
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

/// The CustomResourceDefinition as YAML, for `servicedb crd` and `crds/`.
///
/// # Errors
/// If it cannot be serialised, which would be a bug in the types.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&definition())
}

fn complete(root: &mut JSONSchemaProps) {
    tidy(root);
    for path in EMBEDDED {
        if let Some(embedded) = at(root, path) {
            // The member's own description is Servicedb's.
            let own = embedded.description.clone();
            bound(embedded);
            drop_redundant_descriptions(embedded);
            embedded.description = own;
        }
    }
    // Claims name entries of a pod's resourceClaims, which the spec does not have.
    for path in [
        &["spec", "resources"][..],
        &["spec", "backup", "resources"],
        &["spec", "gateway", "resources"],
        &["spec", "migrations", "resources"],
        &["spec", "pooler", "resources"],
    ] {
        if let Some(properties) = at(root, path).and_then(|schema| schema.properties.as_mut()) {
            properties.remove("claims");
        }
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
    for path in EMPTY_BY_DEFAULT {
        if let Some(schema) = at(root, path) {
            schema.default = Some(JSON(json!({})));
        }
    }
    // A resource without a status must not appear reconciled: a generation is at least 1.
    if let Some(status) = at(root, &["status"]) {
        status.default = Some(JSON(json!({"observedGeneration": -1})));
    }
    accept_nulls(root);
}

/// Makes fields nullable in which server-side apply may store a null, unless they have a default.
fn accept_nulls(schema: &mut JSONSchemaProps) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, property) in schema.properties.iter_mut().flatten() {
        if !required.contains(name) && property.default.is_none() && is_granular(property) {
            property.nullable = Some(true);
        }
        if is_granular(property) {
            accept_nulls(property);
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        accept_nulls(items);
    }
}

/// Whether server-side apply manages the members of a field and may remove the last one: an object,
/// or a list with keys. Other fields are replaced as a whole.
fn is_granular(schema: &JSONSchemaProps) -> bool {
    match schema.type_.as_deref() {
        Some("object") => true,
        Some("array") => schema.x_kubernetes_list_type.as_deref().is_some_and(|kind| kind != "atomic"),
        _ => false,
    }
}

/// Sets the bounds of Kubernetes' own Condition.
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

/// Removes `nullable`, and the source's line breaks in descriptions.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        *description =
            description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.any_of = Some(int_or_string());
    }
    each_child(schema, &mut tidy);
}

/// The two types of a field that takes either.
fn int_or_string() -> Vec<JSONSchemaProps> {
    ["integer", "string"].map(|kind| JSONSchemaProps { type_: Some(kind.to_owned()), ..Default::default() }).to_vec()
}

/// Adds bounds to an embedded type, and shortens its descriptions.
fn bound(schema: &mut JSONSchemaProps) {
    shorten(schema);
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.description = None;
        schema.any_of = Some(int_or_string());
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

/// Lists of requirements in selectors of labels and nodes: the same in every selector, and described in
/// Kubernetes' reference.
const REQUIREMENTS: [&str; 3] = ["matchExpressions", "matchFields", "matchLabels"];

/// Removes descriptions of an embedded type that are repeated many times or have no content.
fn drop_redundant_descriptions(schema: &mut JSONSchemaProps) {
    fn drop_all(schema: &mut JSONSchemaProps) {
        schema.description = None;
        each_child(schema, &mut drop_all);
    }
    for (name, property) in schema.properties.iter_mut().flatten() {
        if REQUIREMENTS.contains(&name.as_str()) {
            drop_all(property);
        } else {
            property.description.take_if(|description| description == "Required.");
            drop_redundant_descriptions(property);
        }
    }
    // The description of a list covers its items.
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        items.description = None;
        drop_redundant_descriptions(items);
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
    fn the_file_matches_the_types() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/servicedatabases.servicedb.dev.yaml");
        let written = std::fs::read_to_string(file).expect("the generated CRD");
        assert!(
            written == yaml().expect("the CRD as YAML"),
            "crds/servicedatabases.servicedb.dev.yaml differs from the types; regenerate it: \
             cargo run --bin servicedb -- crd > crds/servicedatabases.servicedb.dev.yaml"
        );
    }

    #[test]
    fn every_completed_path_exists() {
        let mut root = root();
        for path in EMBEDDED {
            assert!(at(&mut root, path).is_some(), "the schema has no {path:?}");
        }
        assert!(at(&mut root, &["status", "conditions", "[]"]).is_some());
    }

    /// The API server estimates a rule's cost from the bounds of its fields; an unbounded list
    /// could fill etcd.
    #[test]
    fn everything_in_spec_is_bounded_and_described() {
        fn check(schema: &mut JSONSchemaProps, embedded: bool, path: String) {
            let kind = schema.type_.clone().unwrap_or_default();
            assert!(kind != "array" || schema.max_items.is_some(), "{path} has no maxItems");
            let map = schema.additional_properties.is_some();
            assert!(!map || schema.max_properties.is_some(), "{path} has no maxProperties");
            let fixed = schema.enum_.is_some();
            assert!(kind != "string" || fixed || schema.max_length.is_some(), "{path} has no maxLength");
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

    /// Every optional object and list with keys, by path, except those in a list.
    fn optional(schema: &JSONSchemaProps, path: &[String], found: &mut Vec<(Vec<String>, JSONSchemaProps)>) {
        let required = schema.required.clone().unwrap_or_default();
        for (name, property) in schema.properties.iter().flatten().filter(|(_, property)| is_granular(property)) {
            let path: Vec<_> = path.iter().chain([name]).cloned().collect();
            if !required.contains(name) {
                found.push((path.clone(), property.clone()));
            }
            optional(property, &path, found);
        }
    }

    /// `kubectl apply --server-side` of `scheduling: {}` over an existing affinity stores a null. A
    /// schema that refuses it blocks every later apply.
    #[test]
    fn a_null_of_server_side_apply_is_accepted_and_read() {
        let mut found = Vec::new();
        optional(&root(), &[], &mut found);
        assert!(found.len() > 30, "only {} optional objects and lists", found.len());
        for (path, schema) in found {
            let nullable = schema.nullable.unwrap_or_default();
            assert!(schema.default.is_some() != nullable, "{path:?} needs a default, or nullable: true, and not both");
            if !nullable {
                continue;
            }
            let mut resource = json!({
                "apiVersion": "servicedb.dev/v1alpha1",
                "kind": "ServiceDatabase",
                "metadata": {"name": "chat"},
                "spec": {
                    "storage": {"size": "1Gi"},
                    "migrations": {"source": {
                        "image": {"reference": "i"},
                        "job": {"image": "i"},
                    }},
                },
            });
            let mut field = &mut resource;
            for step in &path {
                field = &mut field[step];
            }
            *field = serde_json::Value::Null;
            // Missing required fields of the parent objects are not tested here.
            let Err(error) = serde_json::from_value::<ServiceDatabase>(resource) else { continue };
            assert!(error.to_string().starts_with("missing field"), "{path:?}: {error}");
        }
    }

    /// A field that the schema lacks is dropped by the API server.
    #[test]
    fn the_schema_of_a_second_store_has_what_is_written_there() {
        let mut root = root();
        let mut of = |path: &[&str]| at(&mut root, path).and_then(|schema| schema.properties.clone()).expect("fields");
        let (first, second) = (of(&["status", "backup"]), of(&["status", "backup", "second"]));
        for (name, field) in &first {
            let is_of_first = ["nextAt", "leftTimelines", "leftDatabases", "verified", "lastVerification", "second"]
                .contains(&name.as_str());
            assert_eq!(!second.contains_key(name), is_of_first, "{name}");
            if let Some(other) = second.get(name) {
                assert_eq!((&other.type_, &other.format), (&field.type_, &field.format), "{name}");
                assert_eq!(
                    other.x_kubernetes_preserve_unknown_fields == Some(true),
                    field.properties.is_some(),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn before_the_first_status_no_generation_is_observed() {
        let mut root = root();
        let status = at(&mut root, &["status"]).and_then(|status| status.default.clone());
        assert_eq!(status.map(|default| default.0), Some(json!({"observedGeneration": -1})));
    }

    #[test]
    fn databases_are_not_in_the_category_all() {
        assert_eq!(definition().spec.names.categories, None);
    }

    /// `kubectl apply` keeps it as compact JSON in an annotation, and annotations have 256 KiB in all: half of them.
    #[test]
    fn the_definition_stays_small() {
        assert!(serde_json::to_string(&definition()).expect("the CRD as JSON").len() < 128 * 1024);
    }
}
