//! The machine of the measurement: times are meaningless without it.

use std::fs;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;

use crate::harness::Cluster;

/// The machine, the cluster's nodes, and the day, in a line.
pub async fn described(cluster: &Cluster) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let nodes = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.map_or(0, |nodes| nodes.items.len());
    let day = Timestamp::now().to_string();
    format!(
        "{cores} cores ({}), Linux {}; {nodes} nodes; {}",
        model.unwrap_or("unknown processor"),
        kernel.trim(),
        day.split('T').next().unwrap_or_default(),
    )
}
