//! `kubectl servicedb rollout`: shows the changes of the pods by another version of the operator,
//! and approves them.

use std::process::ExitCode;

use super::args::Connection;
use super::confirm::approved;
use super::connection::{PluginError, annotate, connect, read};
use super::table::plain;
use crate::api::names::ANNOTATION_APPROVE_ROLLOUT;

/// Shows the changes, asks unless `--yes` is given, and approves exactly these.
pub async fn run(connection: &Connection, name: &str, yes: bool) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let Some(pending) = resource.status.as_ref().and_then(|status| status.rollout.as_ref()) else {
        println!("the pods of {name} match this version of the operator; nothing waits for approval");
        return Ok(ExitCode::SUCCESS);
    };
    for change in &pending.changes {
        println!("{}", plain(change));
    }
    let how = if resource.spec.instances > 1 {
        "Replicas are replaced first, then the lead is handed over, then the former primary is replaced."
    } else {
        "There is one instance: the database is unavailable while its pod is replaced."
    };
    println!("{how}");
    if !approved(yes)? {
        return Ok(ExitCode::FAILURE);
    }
    annotate(&client, &namespace, name, &[(ANNOTATION_APPROVE_ROLLOUT, Some(pending.id.clone()))]).await?;
    println!(
        "approved; kubectl wait -n {namespace} --for=condition=RolloutPending=False sdb/{name} && kubectl wait -n \
         {namespace} --for=condition=Ready sdb/{name} returns when it is done"
    );
    Ok(ExitCode::SUCCESS)
}
