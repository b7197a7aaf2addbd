//! The reference page, generated from the CRD, the conditions, the keys in metadata and the
//! command lines. `docs/reference.md` is its output; a test compares it with the code.

mod fields;

use clap::{Args as _, Command};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};

use crate::api::pod_metadata::{RESERVED_KEYS, RESERVED_PREFIXES};
use crate::api::{conditions, crd, names, spec::RESERVED_PARAMETERS};

/// The page, as Markdown.
pub fn markdown() -> String {
    let crd = crd::definition();
    let mut page = String::from(
        "<!-- Made by `cargo run --bin servicedb -- reference > docs/reference.md`; do not edit. -->\n# Reference\n",
    );
    page.push_str(&resource(&crd));
    let root = crd.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    if let Some(root) = root {
        page.push_str("\n## The resource's name\n\n");
        page.push_str(&fields::rules_of(root));
        for part in ["spec", "status"] {
            page.push_str(&fields::section(part, root));
        }
    }
    page.push_str("\n## Reserved parameters\n\n`spec.postgres.parameters` refuses these: Servicedb or Patroni owns them, or they would run code in the server or read arbitrary files.\n\n");
    page.push_str(&RESERVED_PARAMETERS.iter().map(|name| code(name)).collect::<Vec<_>>().join(", "));
    page.push_str(".\n");
    page.push_str("\n## Reserved keys of pods\n\n`spec.podMetadata` refuses keys that the operator, Patroni or Kubernetes' controllers write: all that begin with ");
    page.push_str(&RESERVED_PREFIXES.iter().map(|prefix| code(prefix)).collect::<Vec<_>>().join(", "));
    page.push_str("; and ");
    page.push_str(&RESERVED_KEYS.iter().map(|key| code(key)).collect::<Vec<_>>().join(", "));
    page.push_str(".\n");
    page.push_str(&documented("Conditions", "Type", conditions::TYPES));
    page.push_str("\nEach condition has the generation of the spec that it describes. `Ready`, `Reconciling` and `Stalled` follow kstatus, so `kubectl wait --for=condition=Ready` waits for the declared state.\n");
    page.push_str(&documented("Reasons of conditions and events", "Reason", conditions::reason::ALL));
    page.push_str(&documented("Keys in metadata", "Key", names::KEYS));
    page.push_str(&operator());
    page.push_str(&plugin());
    page
}

fn resource(crd: &CustomResourceDefinition) -> String {
    let names = &crd.spec.names;
    let version = crd.spec.versions.first();
    let mut text = format!(
        "\n`apiVersion: {}/{}`, `kind: {}`; {}, `{}` for short.\n\n`kubectl get {}` shows, and with `-o wide` the rest:\n\n",
        crd.spec.group,
        version.map(|version| version.name.as_str()).unwrap_or_default(),
        names.kind,
        crd.spec.scope.to_lowercase(),
        names.short_names.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", "),
        names.plural,
    );
    text.push_str("| Column | Value | |\n|---|---|---|\n");
    let columns = version.and_then(|version| version.additional_printer_columns.as_deref()).unwrap_or_default();
    for CustomResourceColumnDefinition { name, json_path, priority, .. } in columns {
        let wide = if priority.unwrap_or_default() > 0 { "wide" } else { "" };
        text.push_str(&format!("| {name} | `{json_path}` | {wide} |\n"));
    }
    text
}

fn documented(title: &str, head: &str, table: &[(&str, &str)]) -> String {
    let rows: String = table.iter().map(|(value, text)| format!("| `{value}` | {} |\n", cell(text))).collect();
    format!("\n## {title}\n\n| {head} | Meaning |\n|---|---|\n{rows}")
}

fn operator() -> String {
    let command = crate::operator::Options::augment_args(Command::new("operator"));
    let mut text = String::from(
        "\n## `servicedb operator`\n\nThe Helm chart sets these; each flag can be given as its environment variable.\n\n\
         | Flag | Environment | Default | Meaning |\n|---|---|---|---|\n",
    );
    for argument in command.get_arguments() {
        let Some(flag) = argument.get_long() else { continue };
        let environment = argument.get_env().map(|name| code(&name.to_string_lossy())).unwrap_or_default();
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| code(&value.to_string_lossy())).collect();
        let default = match defaults.as_slice() {
            [] if argument.is_required_set() => "required".to_owned(),
            values => values.join(", "),
        };
        let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let values: Vec<_> = argument.get_possible_values().iter().map(|value| code(value.get_name())).collect();
        if !values.is_empty() {
            meaning.push_str(&format!(". One of {}", values.join(", ")));
        }
        text.push_str(&format!("| `--{flag}` | {environment} | {default} | {} |\n", cell(&meaning)));
    }
    text
}

fn plugin() -> String {
    let mut text = String::from("\n## `kubectl servicedb`\n");
    let mut command = crate::plugin::command();
    command.build();
    for subcommand in command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help") {
        text.push_str(&format!("\n```text\n{}```\n", subcommand.render_help()));
    }
    text
}

/// The text of a table cell, on one line: an unescaped bar would end the cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_code_says() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
        let written = std::fs::read_to_string(file).expect("the generated page");
        assert!(
            written == super::markdown(),
            "docs/reference.md differs from the code; regenerate it: \
             cargo run --bin servicedb -- reference > docs/reference.md"
        );
    }
}
