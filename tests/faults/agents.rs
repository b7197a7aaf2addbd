//! The agents of a case: found by their pod's address, killed from the machine that is the
//! cluster's node.

use std::fs;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The database pods of one namespace.
#[derive(Clone)]
pub struct Agents {
    pods: Api<Pod>,
}

impl Agents {
    /// Those of a namespace.
    pub fn of(client: &Client, namespace: &str) -> Self {
        Self { pods: Api::namespaced(client.clone(), namespace) }
    }

    /// Kills the agent of the pod with this address at once; its container ends with it.
    pub async fn kill(&self, address: IpAddr) {
        let pods = self.pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let has = |pod: &&Pod| {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            ip.is_some_and(|ip| ip == address.to_string())
        };
        let Some(uid) = pods.iter().find(has).and_then(ResourceExt::uid) else {
            eprintln!("no pod has the address {address}");
            return;
        };
        let found = processes().into_iter().filter(|pid| is_agent(*pid) && is_in(*pid, &uid));
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn is_agent(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).collect();
    words.len() >= 2 && words[0].ends_with(b"/servicedb") && words[1] == b"agent"
}

fn is_in(pid: i32, pod: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(pod))
}
