//! The connection to the cluster, and the errors of commands.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use super::args::Connection;
use crate::api::ServiceDatabase;

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The kubeconfig is missing or invalid.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    /// The resource does not exist.
    #[error("there is no ServiceDatabase {name:?} in namespace {namespace:?}{hint}")]
    NotFound {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The existing resources.
        hint: String,
    },
    /// The cluster does not have the kind.
    #[error("this cluster has no resource type ServiceDatabase: Servicedb is not installed, or the context is wrong")]
    NotInstalled,
    /// The API server refused, or could not be reached.
    #[error("{doing}: {}", reason(source))]
    Kubernetes {
        /// The action.
        doing: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// There is no suitable pod.
    #[error("{0}")]
    NoPrimary(String),
    /// kubectl could not be started.
    #[error("{program} could not be started: {source}; put kubectl on the PATH, or name it in KUBECTL")]
    Kubectl {
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A login cannot be got from Vault, or not be used.
    #[error("{0}")]
    Login(String),
    /// The database did not answer a query as expected.
    #[error("{0}")]
    Query(String),
    /// A folder of migrations cannot be pushed.
    #[error("{folder} cannot be pushed: {problem}")]
    Folder {
        /// The folder.
        folder: String,
        /// The problem.
        problem: String,
    },
    /// Other pushes remove an object as often as this one creates it.
    #[error("the ConfigMap {0} was removed by other pushes each time that it was created: push again")]
    Contended(String),
    /// The terminal could not be asked.
    #[error("the answer could not be read from the terminal: {0}; use --yes to approve without a prompt")]
    Prompt(std::io::Error),
    /// The output could not be written.
    #[error("the output could not be written: {0}")]
    Output(String),
}

impl PluginError {
    /// An error of the Kubernetes API during an action.
    pub fn kubernetes(doing: impl Into<String>, source: kube::Error) -> Self {
        Self::Kubernetes { doing: doing.into(), source: Box::new(source) }
    }
}

/// The server's message if there is one, otherwise the whole chain of causes.
pub fn reason(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let part = inner.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = inner.source();
    }
    text
}

/// A client of the chosen cluster, and the chosen namespace.
pub async fn connect(connection: &Connection) -> Result<(Client, String), PluginError> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..Default::default() };
    let problem = |error: &dyn std::error::Error| PluginError::Kubeconfig(error.to_string());
    let mut config = if connection.kubeconfig.is_none() && connection.context.is_none() {
        Config::infer().await.map_err(|error| problem(&error))?
    } else {
        let kubeconfig = match &connection.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        }
        .map_err(|error| problem(&error))?;
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| problem(&error))?
    };
    // A user waits at a terminal.
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = Some(Duration::from_secs(30));
    let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| PluginError::kubernetes("connecting", error))?;
    Ok((client, namespace))
}

/// Reads a ServiceDatabase; if it does not exist, the error lists the existing ones.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<ServiceDatabase, PluginError> {
    let api: Api<ServiceDatabase> = Api::namespaced(client.clone(), namespace);
    let doing = || format!("reading the ServiceDatabase {namespace}/{name}");
    match api.get_opt(name).await {
        Ok(Some(resource)) => return Ok(resource),
        Ok(None) => {}
        Err(error) => return Err(PluginError::kubernetes(doing(), error)),
    }
    let hint = match api.list(&ListParams::default()).await {
        Ok(list) => others(list.items.iter().map(|other| other.name_any()).collect()),
        Err(kube::Error::Api(status)) if status.is_not_found() => return Err(PluginError::NotInstalled),
        // Without the right to list them there is no hint.
        Err(_) => String::new(),
    };
    Err(PluginError::NotFound { namespace: namespace.to_owned(), name: name.to_owned(), hint })
}

/// Sends a request: sets annotations of a ServiceDatabase, and removes those without a value.
pub async fn annotate(
    client: &Client,
    namespace: &str,
    name: &str,
    annotations: &[(&str, Option<String>)],
) -> Result<(), PluginError> {
    let api: Api<ServiceDatabase> = Api::namespaced(client.clone(), namespace);
    let annotations: BTreeMap<_, _> = annotations.iter().cloned().collect();
    let patch = json!({"metadata": {"annotations": annotations}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(PluginError::kubernetes(format!("annotating the ServiceDatabase {namespace}/{name}"), error)),
    }
}

fn others(names: Vec<String>) -> String {
    match names.len() {
        0 => "; the namespace has none (kubectl get sdb -A lists those of all namespaces)".to_owned(),
        1..=10 => format!("; the namespace has {}", names.join(", ")),
        more => format!("; the namespace has {}, and {} more", names[..10].join(", "), more - 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_resource_is_reported_with_existing_ones() {
        let error = |names: &[&str]| PluginError::NotFound {
            namespace: "games".into(),
            name: "chta".into(),
            hint: others(names.iter().map(|&name| name.into()).collect()),
        };
        assert_eq!(
            error(&["chat", "game"]).to_string(),
            r#"there is no ServiceDatabase "chta" in namespace "games"; the namespace has chat, game"#
        );
        assert!(error(&[]).to_string().contains("kubectl get sdb -A"));
        assert!(error(&["x"; 12]).to_string().ends_with("and 2 more"));
    }

    #[test]
    fn only_an_error_of_the_output_is_called_one() {
        let folder = PluginError::Folder { folder: "nodir".into(), problem: "No such file or directory".into() };
        assert_eq!(folder.to_string(), "nodir cannot be pushed: No such file or directory");
        let others = [
            PluginError::Query("the rights in chat cannot be read: timeout".into()),
            PluginError::Contended("chat-migrations-0-1".into()),
            PluginError::Prompt(std::io::ErrorKind::UnexpectedEof.into()),
            folder,
        ];
        for error in others {
            assert!(!error.to_string().contains("output"), "{error}");
        }
    }
}
