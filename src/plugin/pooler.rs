//! `kubectl servicedb pooler`: the pools of each pod of the pooler, as PgBouncer counts them now.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::args::Connection;
use super::connection::{self, PluginError};
use super::psql;
use super::table::Table;
use crate::api::names::LABEL_NAME;

/// The container of a pooler's pod.
const CONTAINER: &str = "pooler";

/// Prints the pools.
///
/// # Errors
/// If the pods cannot be listed, or kubectl cannot be run.
pub async fn run(connection: &Connection, name: &str) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&client, &namespace, name).await?;
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let selector = format!("{LABEL_NAME}={name},app.kubernetes.io/component=pooler");
    let pods = pods
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|error| PluginError::kubernetes(format!("listing the pooler's pods of {name}"), error))?;
    if pods.items.is_empty() {
        eprintln!("error: {name} has no pooler pods; spec.pooler declares a pooler");
        return Ok(ExitCode::FAILURE);
    }
    if let Some(status) = resource.status.and_then(|status| status.pooler) {
        println!("Pods ready: {}", status.instances.unwrap_or_default());
        if let Some(hold) = status.last_hold {
            let how = if hold.held { "queries were held" } else { "queries were not held" };
            let why = hold.message.map(|message| format!(": {message}")).unwrap_or_default();
            println!("Last planned change: {} at {}, {how}{why}", hold.change, hold.started_at.0);
        }
    }
    let mut table =
        Table::new(["POD", "DATABASE", "USER", "CLIENTS", "WAITING", "LONGEST WAIT", "SERVERS", "IDLE SERVERS"]);
    let mut failed = false;
    for pod in pods.items.iter().map(ResourceExt::name_any) {
        let mut command = psql::in_pod(connection, &namespace, &pod, CONTAINER, &["servicedb", "pools"]);
        let output =
            command.output().await.map_err(|source| PluginError::Kubectl { program: psql::program(), source })?;
        if !output.status.success() {
            eprintln!("error: {pod}: {}", String::from_utf8_lossy(&output.stderr).trim());
            failed = true;
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(row) = row(&pod, line) {
                table.row(row);
            }
        }
    }
    print!("{}", table.render());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A row from a line of `servicedb pools`; none for another text.
fn row(pod: &str, line: &str) -> Option<[String; 8]> {
    let cells: Vec<_> = line.split('\t').collect();
    let [database, user, clients, waiting, seconds, micros, servers, idle] = cells[..] else { return None };
    let wait = format!("{seconds}.{:03} s", micros.parse::<u32>().ok()? / 1000);
    Some([pod, database, user, clients, waiting, &wait, servers, idle].map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn a_line_becomes_a_row_and_other_texts_none() {
        let of_pod = |line: &str| row("chat-db-pooler-1", line);
        let cells = of_pod("chat_db\tchat_a\t12\t3\t1\t250000\t4\t2").expect("a row");
        assert_eq!(cells[1..6], ["chat_db", "chat_a", "12", "3", "1.250 s"]);
        assert_eq!(of_pod("error"), None);
    }
}
