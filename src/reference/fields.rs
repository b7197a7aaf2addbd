//! The fields of the resource, from its schema.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::{cell, code};
use crate::api::crd::EMBEDDED;

/// One part of the resource: a table of its fields, followed by the rules.
pub fn section(part: &str, root: &JSONSchemaProps) -> String {
    let Some(schema) = root.properties.as_ref().and_then(|properties| properties.get(part)) else {
        return String::new();
    };
    let mut page = Page { rows: String::new(), rules: rules_of(schema) };
    page.fields(part, schema);
    let rules = if page.rules.is_empty() {
        String::new()
    } else {
        format!("\nThe API server refuses a resource that violates one of these rules:\n\n{}", page.rules)
    };
    let head = "| Field | Type | Default | Bounds | Meaning |\n|---|---|---|---|---|\n";
    format!(
        "\n## `{part}`\n\n{}\n\n{head}{}{rules}",
        cell(schema.description.as_deref().unwrap_or_default()),
        page.rows
    )
}

/// The messages of a schema's own rules, as a list.
pub fn rules_of(schema: &JSONSchemaProps) -> String {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    rules.map(|rule| format!("- {}\n", rule.message.as_deref().unwrap_or(&rule.rule))).collect()
}

struct Page {
    rows: String,
    rules: String,
}

impl Page {
    fn fields(&mut self, path: &str, schema: &JSONSchemaProps) {
        for (name, field) in schema.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            let required = schema.required.iter().flatten().any(|required| required == name);
            self.field(&path, field, required);
        }
    }

    fn field(&mut self, path: &str, field: &JSONSchemaProps, required: bool) {
        let default = match &field.default {
            Some(default) => code(&default.0.to_string()),
            None if required => "required".to_owned(),
            None => String::new(),
        };
        let meaning = cell(field.description.as_deref().unwrap_or_default());
        self.rows.push_str(&format!(
            "| `{path}` | {} | {default} | {} | {meaning} |\n",
            kind(path, field),
            bounds(field)
        ));
        self.rules.push_str(&rules_of(field));
        if kubernetes_type(path).is_some() {
            return;
        }
        self.fields(path, field);
        if let Some(JSONSchemaPropsOrArray::Schema(item)) = &field.items {
            self.rules.push_str(&rules_of(item));
            self.fields(&format!("{path}[]"), item);
        }
    }
}

/// The name of a Kubernetes type: its fields are in Kubernetes' reference.
fn kubernetes_type(path: &str) -> Option<&'static str> {
    let embedded = EMBEDDED.iter().any(|embedded| embedded.join(".").replace(".[]", "[]") == path);
    match path.rsplit('.').next()? {
        "conditions" => Some("Condition"),
        "podSelector" if embedded => Some("LabelSelector"),
        "resources" if embedded => Some("ResourceRequirements"),
        "affinity" if embedded => Some("Affinity"),
        "tolerations" if embedded => Some("Toleration"),
        "topologySpreadConstraints" if embedded => Some("TopologySpreadConstraint"),
        _ => None,
    }
}

fn kind(path: &str, field: &JSONSchemaProps) -> String {
    let list = |name: &str| if field.items.is_some() { format!("list of {name}") } else { name.to_owned() };
    if let Some(name) = kubernetes_type(path) {
        return list(name);
    }
    if field.x_kubernetes_int_or_string == Some(true) {
        let version = path.to_ascii_lowercase().ends_with("version");
        return if version { "integer or string" } else { "quantity" }.to_owned();
    }
    if let Some(values) = &field.enum_ {
        return values.iter().filter_map(|value| value.0.as_str()).map(code).collect::<Vec<_>>().join(", ");
    }
    match (field.type_.as_deref(), field.format.as_deref(), &field.additional_properties) {
        (Some("string"), Some("date-time"), _) => "time".to_owned(),
        (Some("object"), _, Some(JSONSchemaPropsOrBool::Schema(values))) => {
            format!("map of {}", values.type_.as_deref().unwrap_or("object"))
        }
        (Some("array"), ..) => "list".to_owned(),
        (Some(kind), ..) => kind.to_owned(),
        (None, ..) => String::new(),
    }
}

fn bounds(field: &JSONSchemaProps) -> String {
    let mut bounds = Vec::new();
    match (field.min_length, field.max_length) {
        (Some(least), Some(most)) => bounds.push(format!("{least} to {most} characters")),
        (None, Some(most)) => bounds.push(format!("at most {most} characters")),
        _ => {}
    }
    if let Some(most) = field.max_items.or(field.max_properties) {
        bounds.push(format!("at most {most}"));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &field.additional_properties
        && let Some(most) = values.max_length
    {
        bounds.push(format!("a value at most {most} characters"));
    }
    if let Some(keys) = &field.x_kubernetes_list_map_keys {
        bounds.push(format!("one for each {}", keys.join(" and ")));
    }
    bounds.join(", ")
}
