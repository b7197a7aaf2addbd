//! `kubectl servicedb rollout`: what another version of the operator would change in the pods,
//! and the word that it may.

use std::process::ExitCode;

use super::args::Connection;
use super::confirm::approved;
use super::connection::{PluginError, annotate, connect, read};
use super::table::plain;
use crate::api::names::ANNOTATION_APPROVE_ROLLOUT;

/// Shows what waits, asks unless told not to, and approves exactly that.
pub async fn run(connection: &Connection, name: &str, yes: bool) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let Some(pending) = resource.status.as_ref().and_then(|status| status.rollout.as_ref()) else {
        println!("the pods of {name} are as this version of the operator makes them; nothing waits for approval");
        return Ok(ExitCode::SUCCESS);
    };
    for change in &pending.changes {
        println!("{}", plain(change));
    }
    let how = if resource.spec.instances > 1 {
        "Replicas are replaced first, then the lead is handed over, then the former primary is replaced."
    } else {
        "There is one instance: the database is away while its pod is replaced."
    };
    println!("{how}");
    if !approved(yes)? {
        return Ok(ExitCode::FAILURE);
    }
    annotate(&client, &namespace, name, &[(ANNOTATION_APPROVE_ROLLOUT, Some(pending.id.clone()))]).await?;
    println!(
        "approved; kubectl wait --for=condition=RolloutPending=False sdb/{name} && kubectl wait --for=condition=Ready \
         sdb/{name} returns when it is done"
    );
    Ok(ExitCode::SUCCESS)
}
