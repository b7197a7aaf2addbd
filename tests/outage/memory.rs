//! The memory of the pods of a database at rest, by process.

use std::time::Duration;

use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use crate::faults;
use crate::subject::{Subject, node, report};

/// How long nothing is asked of the database before.
const AT_REST: Duration = Duration::from_secs(30);
/// A process a line: its name, then in KiB its share of memory and what is its own alone.
const PROCESSES: &str = r#"
for p in /proc/[0-9]*; do
  { read -r comm <$p/comm || continue
    pss=0 own=0
    while read -r key value _; do
      case $key in Pss:) pss=$value ;; Private_Clean:|Private_Dirty:) own=$((own + value)) ;; esac
    done <$p/smaps_rollup || continue; } 2>/dev/null
  [ "${p#/proc/}" = "$$" ] || echo "$comm $pss $own"
done
"#;

/// One pod's memory, in MiB.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name and role.
    pub pod: String,
    /// What the kubelet calls its working set: with the files that were read lately.
    pub working_set: f64,
    /// What the kubelet calls its resident set: what its processes wrote themselves.
    pub resident: f64,
    /// The proportional share of the agent (and of what waits for its end).
    pub agent: f64,
    /// That of Patroni.
    pub patroni: f64,
    /// That of PostgreSQL's processes.
    pub postgres: f64,
    /// What of the agent and Patroni no other process shares.
    pub own: f64,
}

/// The memory of each pod.
///
/// # Errors
/// If somebody does not tell.
pub async fn of(subject: &Subject) -> Result<Vec<Pod>, String> {
    tokio::time::sleep(AT_REST).await;
    let mut told = Vec::new();
    for pod in subject.pods().await.map_err(|error| error.to_string())? {
        let name = pod.name_any();
        let said = faults::command(&subject.place, &name, PROCESSES).await?;
        let share = |names: &[&str], column: usize| -> f64 {
            let lines = said.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let of_them = lines.filter(|line| names.contains(&line[0]));
            of_them.filter_map(|line| line.get(column)?.parse::<f64>().ok()).sum::<f64>() / 1024.0
        };
        let (working_set, resident) = of_container(subject, &node(&pod), &pod.uid().unwrap_or_default()).await?;
        let role = report(&pod).and_then(|report| report.role);
        told.push(Pod {
            pod: format!("{name} ({role:?})").replace("Some(", "").replace("))", ")"),
            working_set,
            resident,
            agent: share(&["servicedb", "tini"], 1),
            patroni: share(&["python3"], 1),
            postgres: share(&["postgres"], 1),
            own: share(&["servicedb", "tini", "python3"], 2),
        });
    }
    Ok(told)
}

/// The working and the resident set of the container `database`, in MiB, as the kubelet tells.
async fn of_container(subject: &Subject, node: &str, uid: &str) -> Result<(f64, f64), String> {
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let request = http::Request::get(&path).body(Vec::new()).map_err(|error| error.to_string())?;
    let client = &subject.place.cluster.client;
    let summary: Value = client.request(request).await.map_err(|error| format!("{path}: {error}"))?;
    let pods = summary["pods"].as_array().into_iter().flatten();
    let containers = pods.filter(|pod| pod["podRef"]["uid"] == uid).flat_map(|pod| pod["containers"].as_array());
    let found = containers.flatten().find(|container| container["name"] == "database");
    let memory = &found.ok_or_else(|| format!("{path} does not have the pod {uid}"))?["memory"];
    let mebibytes = |key: &str| memory[key].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
    Ok((mebibytes("workingSetBytes"), mebibytes("rssBytes")))
}
