//! Nodes that are being drained: the lead is handed over before a primary is evicted.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use super::selection::resource_of;
use crate::api::ServiceDatabase;

/// The names of the nodes that are being drained.
pub type Draining = watch::Receiver<Arc<BTreeSet<String>>>;

/// Taints of cluster autoscalers on nodes that they will remove; they need not cordon them.
const REMOVAL_TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"];

/// Starts the watch of nodes. Without the right to do so, no node is known as draining.
pub fn start(client: &Client) -> Draining {
    let (sender, receiver) = watch::channel(Arc::default());
    let nodes: Api<Node> = Api::all(client.clone());
    tokio::spawn(async move {
        let mut events = watcher(nodes, watcher::Config::default()).default_backoff().boxed();
        let mut starting = BTreeSet::new();
        while let Some(event) = events.next().await {
            let mut now = BTreeSet::clone(&sender.borrow());
            match event {
                Ok(watcher::Event::Init) => starting.clear(),
                Ok(watcher::Event::InitApply(node)) => {
                    if is_draining(&node) {
                        starting.insert(node.name_any());
                    }
                }
                Ok(watcher::Event::InitDone) => now = std::mem::take(&mut starting),
                Ok(watcher::Event::Apply(node)) => {
                    if is_draining(&node) {
                        now.insert(node.name_any());
                    } else {
                        now.remove(&node.name_any());
                    }
                }
                Ok(watcher::Event::Delete(node)) => {
                    now.remove(&node.name_any());
                }
                Err(error) => tracing::warn!(%error, "the watch of the nodes failed; retrying"),
            }
            sender.send_if_modified(|before| {
                let changed = **before != now;
                *before = Arc::new(now);
                changed
            });
        }
    });
    receiver
}

fn is_draining(node: &Node) -> bool {
    let Some(spec) = &node.spec else { return false };
    let leaves = || spec.taints.iter().flatten().any(|taint| REMOVAL_TAINTS.contains(&taint.key.as_str()));
    spec.unschedulable == Some(true) || leaves()
}

/// The resources with a pod on a node whose draining starts or ends: afterwards the lead may be
/// handed to it.
pub fn changes(draining: Draining, pods: Vec<Store<Pod>>) -> impl Stream<Item = ObjectRef<ServiceDatabase>> + Send {
    let before = Arc::<BTreeSet<String>>::default();
    stream::unfold((draining, pods, before), |(mut draining, pods, before)| async move {
        if draining.changed().await.is_err() {
            // The watch ends with the process.
            std::future::pending::<()>().await;
        }
        let now = draining.borrow_and_update().clone();
        let is_new = |pod: &Arc<Pod>| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            node.is_some_and(|node| now.contains(node) != before.contains(node))
        };
        let there: Vec<_> =
            pods.iter().flat_map(Store::state).filter(is_new).filter_map(|pod| resource_of(&pod)).collect();
        Some((stream::iter(there), (draining, pods, now)))
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cordoned_node_and_one_that_an_autoscaler_removes_are_draining() {
        let draining =
            |spec| is_draining(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a node"));
        assert!(draining(json!({"unschedulable": true})));
        assert!(draining(json!({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]})));
        assert!(!draining(json!({"taints": [{"key": "dedicated", "effect": "NoSchedule"}]})));
        assert!(!draining(json!({})));
    }
}
