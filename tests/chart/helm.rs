//! Runs Helm on the chart and reads the rendered objects.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde_yaml::Value;

/// The values that every installation must set.
const REQUIRED: &str = "{clusterId: test, vault: {address: 'https://vault.vault.svc:8200'}}";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The rendered chart, including hooks and tests.
pub struct Rendered(Vec<Value>);

/// A Role or ClusterRole.
pub struct Role {
    pub name: String,
    pub rules: Vec<Rule>,
}

/// One rule of it.
#[derive(Debug, Deserialize)]
pub struct Rule {
    #[serde(rename = "apiGroups")]
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub verbs: Vec<String>,
}

/// Renders the chart with these values on top of the required ones; YAML, may be empty.
pub fn render(values: &str) -> Rendered {
    let output = template(values);
    assert!(output.status.success(), "helm template with {values}: {}", String::from_utf8_lossy(&output.stderr));
    let documents = serde_yaml::Deserializer::from_slice(&output.stdout)
        .map(|document| Value::deserialize(document).expect("Helm's output is YAML"))
        .filter(|document| !document.is_null())
        .collect();
    Rendered(documents)
}

/// Helm's error for values that the chart must refuse.
pub fn render_error(values: &str) -> String {
    let output = template(values);
    assert!(!output.status.success(), "these values must be refused: {values}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The chart's notes for these values.
pub fn notes(values: &str) -> String {
    let arguments = ["install", "servicedb", "--namespace", "servicedb-system", "--dry-run=client"];
    let output = run(&arguments, &with_required(values));
    assert!(output.status.success(), "helm install with {values}: {}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8_lossy(&output.stdout);
    output.split_once("\nNOTES:\n").expect("notes").1.to_owned()
}

/// Asserts that `helm lint --strict` reports nothing.
pub fn lint() {
    let output = run(&["lint", "--strict"], REQUIRED);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The text of a YAML string; empty for other types.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Rendered {
    /// The objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| text(&object["kind"]) == kind)
    }

    /// The names of the objects of a kind, sorted.
    pub fn names(&self, kind: &str) -> Vec<String> {
        let mut names: Vec<_> = self.of_kind(kind).map(|object| text(&object["metadata"]["name"])).collect();
        names.sort_unstable();
        names
    }

    /// The object of a kind and name.
    pub fn object(&self, kind: &str, name: &str) -> Value {
        let found = self.of_kind(kind).find(|object| text(&object["metadata"]["name"]) == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}")).clone()
    }

    /// The operator's Deployment.
    pub fn deployment(&self) -> &Value {
        self.of_kind("Deployment").next().expect("a Deployment")
    }

    /// The operator's environment; variables from the downward API have a placeholder value.
    pub fn env(&self) -> BTreeMap<String, String> {
        let container = &self.deployment()["spec"]["template"]["spec"]["containers"][0];
        let variables = container["env"].as_sequence().expect("an environment");
        let value = |variable: &Value| variable["value"].as_str().unwrap_or("from-the-pod").to_owned();
        variables.iter().map(|variable| (text(&variable["name"]), value(variable))).collect()
    }

    /// The pod templates of all objects.
    pub fn pod_specs(&self) -> Vec<&Value> {
        let in_templates = ["Deployment", "Job"].into_iter().flat_map(|kind| self.of_kind(kind));
        let bare = self.of_kind("Pod").map(|pod| &pod["spec"]);
        in_templates.map(|object| &object["spec"]["template"]["spec"]).chain(bare).collect()
    }

    /// All Roles and ClusterRoles.
    pub fn roles(&self) -> Vec<Role> {
        self.of_kind("Role").chain(self.of_kind("ClusterRole")).map(Role::read).collect()
    }

    /// The ClusterRole of this name.
    pub fn cluster_role(&self, name: &str) -> Role {
        let role = self.of_kind("ClusterRole").find(|role| text(&role["metadata"]["name"]) == name);
        Role::read(role.unwrap_or_else(|| panic!("there is no ClusterRole {name}")))
    }
}

impl Role {
    fn read(object: &Value) -> Self {
        let rules = serde_yaml::from_value(object["rules"].clone()).expect("rules");
        Self { name: text(&object["metadata"]["name"]), rules }
    }

    /// Whether a rule of it allows this on every object of the kind.
    pub fn allows(&self, group: &str, resource: &str, verb: &str) -> bool {
        let has = |words: &[String], word: &str| words.iter().any(|w| w == word);
        self.rules.iter().any(|r| has(&r.groups, group) && has(&r.resources, resource) && has(&r.verbs, verb))
    }
}

fn template(values: &str) -> Output {
    run(&["template", "servicedb", "--namespace", "servicedb-system"], &with_required(values))
}

fn run(arguments: &[&str], values: &str) -> Output {
    let built = Path::new(ROOT).join("target/dev/bin/helm");
    let mut child = Command::new(if built.exists() { built } else { PathBuf::from("helm") })
        .args(arguments)
        .arg(Path::new(ROOT).join("charts/servicedb"))
        .args(["--values", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Helm runs; `make tools` builds it");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(values.as_bytes()).expect("Helm reads the values");
    drop(stdin);
    child.wait_with_output().expect("Helm ends")
}

/// The values, with defaults for missing required ones.
fn with_required(values: &str) -> String {
    let mut values: Value = serde_yaml::from_str(values).expect("values are YAML");
    if values.is_null() {
        values = Value::Mapping(Default::default());
    }
    let required: Value = serde_yaml::from_str(REQUIRED).expect("YAML");
    let top = values.as_mapping_mut().expect("values are a map");
    for (key, value) in required.as_mapping().expect("a map") {
        let present = top.entry(key.clone()).or_insert_with(|| value.clone());
        if let (Some(present), Some(value)) = (present.as_mapping_mut(), value.as_mapping()) {
            for (key, value) in value {
                present.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    serde_yaml::to_string(&values).expect("YAML")
}
