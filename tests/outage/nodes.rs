//! Nodes that are cut off and kubelets that stop: only of the local cluster, by dev/fault.sh.

use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::harness::Cluster;
use crate::settings::say;

/// This machine, which cannot be cut off.
pub const FIRST: &str = "dev-1";

/// A fault of a node.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// No packet goes in or out.
    Cut,
    /// Its kubelet does not run; its containers do.
    Kubelet,
}

impl Break {
    /// How dev/fault.sh calls it, and its end.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Cut => ("cut", "heal"),
            Self::Kubelet => ("kubelet-stop", "kubelet-start"),
        }
    }
}

/// The names of the nodes, where they can be broken: none of another cluster, or a single one.
pub async fn breakable(cluster: &Cluster) -> Vec<String> {
    if !Cluster::is_local() || !script().exists() {
        return Vec::new();
    }
    let nodes = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await;
    let names: Vec<_> = nodes.into_iter().flatten().map(|node| node.name_any()).collect();
    if names.len() > 1 { names } else { Vec::new() }
}

/// A node with a fault; it is repaired when this is dropped, at the latest.
pub struct Broken {
    node: String,
    how: Break,
    mended: bool,
}

impl Broken {
    /// Injects a fault into a node.
    ///
    /// # Errors
    /// The error of dev/fault.sh.
    pub async fn begin(node: &str, how: Break) -> Result<Self, String> {
        let broken = Self { node: node.to_owned(), how, mended: false };
        let (word, node) = (how.words().0, node.to_owned());
        tokio::task::spawn_blocking(move || fault(word, &node)).await.map_err(|error| error.to_string())??;
        Ok(broken)
    }

    /// Repairs it.
    ///
    /// # Errors
    /// The error of dev/fault.sh.
    pub async fn mend(mut self) -> Result<(), String> {
        let (word, node) = (self.how.words().1, self.node.clone());
        let result =
            tokio::task::spawn_blocking(move || fault(word, &node)).await.map_err(|error| error.to_string())?;
        self.mended = result.is_ok();
        result
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if !self.mended
            && let Err(problem) = fault(self.how.words().1, &self.node)
        {
            say(&format!("{} is still broken; `make cluster` repairs it: {problem}", self.node));
        }
    }
}

/// Stops the API server for a number of seconds.
///
/// # Errors
/// The error of dev/fault.sh.
pub async fn hang_api_server(seconds: u32) -> Result<(), String> {
    let hang = move || fault("apiserver-hang", &seconds.to_string());
    tokio::task::spawn_blocking(hang).await.map_err(|error| error.to_string())?
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dev/fault.sh")
}

fn fault(word: &str, argument: &str) -> Result<(), String> {
    let output = Command::new(script()).args([word, argument]).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("dev/fault.sh {word} {argument}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
