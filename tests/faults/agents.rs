//! The agents of a case: processes of the machine that is the cluster's node, found by their
//! pod.

use std::fs;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The agent of a database pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The pod's uid.
    pod: String,
    /// The process.
    pub pid: i32,
}

impl Agent {
    /// Sends SIGKILL; its container ends with it.
    pub fn kill(&self) {
        // It may have just ended by itself.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    /// Whether it still runs.
    pub fn lives(&self) -> bool {
        is_agent(self.pid) && is_in(self.pid, &self.pod)
    }
}

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

    /// Kills the agent of the pod with this address.
    pub async fn kill(&self, address: IpAddr) {
        let has = |pod: &Pod| {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            ip.is_some_and(|ip| ip == address.to_string())
        };
        let found = self.in_pods(has).await;
        if found.is_empty() {
            eprintln!("no agent has the address {address}");
        }
        found.iter().for_each(Agent::kill);
    }

    /// Those that run.
    pub async fn living(&self) -> Vec<Agent> {
        self.in_pods(|_| true).await
    }

    async fn in_pods(&self, wanted: impl Fn(&Pod) -> bool) -> Vec<Agent> {
        let pods = self.pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let uids: Vec<_> = pods.iter().filter(|pod| wanted(pod)).filter_map(ResourceExt::uid).collect();
        if uids.is_empty() {
            return Vec::new();
        }
        let agents = processes().into_iter().filter(|pid| is_agent(*pid));
        agents
            .filter_map(|pid| uids.iter().find(|uid| is_in(pid, uid)).map(|uid| Agent { pod: uid.clone(), pid }))
            .collect()
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
