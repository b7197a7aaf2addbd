//! A user's commands: kubectl exec into a database's container, and the plugin.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::cluster::{context, dev_file};
use super::sandbox::Sandbox;

impl Sandbox {
    /// Runs a shell script in a database's container to its end.
    pub async fn exec(&self, pod: &str, script: &str) -> Output {
        self.exec_in(pod, "database", script).await
    }

    /// Runs a shell script in a container to its end.
    pub async fn exec_in(&self, pod: &str, container: &str, script: &str) -> Output {
        let built = dev_file("bin/kubectl");
        let mut command = Command::new(if built.exists() { built } else { PathBuf::from("kubectl") });
        if std::env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty()) {
            command.env("KUBECONFIG", dev_file("kubeconfig"));
        }
        if let Some(context) = context() {
            command.args(["--context", &context]);
        }
        command.args(["--namespace", &self.namespace, "exec", pod, "--container", container, "--", "sh", "-c", script]);
        let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("the thread of kubectl");
        ran.expect("kubectl runs; `make tools` builds it")
    }
}

/// Runs `kubectl servicedb` in the test's namespace to its end.
pub async fn plugin(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    plugin_with(sandbox, &[], arguments).await
}

/// The same with these variables in its environment.
pub async fn plugin_with(sandbox: &Sandbox, environment: &[(&str, String)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-servicedb"));
    if std::env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty()) {
        command.env("KUBECONFIG", dev_file("kubeconfig"));
    }
    if let Some(context) = context() {
        command.args(["--context", &context]);
    }
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command.args(["--namespace", &sandbox.namespace]).args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("the thread of the plugin");
    ran.expect("the plugin runs")
}
