//! `kubectl servicedb approve`: shows the migrations that wait for approval, and approves them.

use std::process::ExitCode;

use super::args::Connection;
use super::confirm::approved;
use super::connection::{PluginError, annotate, connect, read};
use super::table::plain;
use crate::api::names::ANNOTATION_APPROVE;
use crate::api::{PendingApproval, ServiceDatabase};

/// Shows the statements, asks unless `--yes` is given, and approves exactly these.
pub async fn run(connection: &Connection, name: &str, yes: bool) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let Some(approval) = waiting(&resource) else {
        println!("nothing of {name} waits for approval (kubectl servicedb status {name} -n {namespace})");
        return Ok(ExitCode::SUCCESS);
    };
    print!("{}", listed(approval));
    if !approved(yes)? {
        return Ok(ExitCode::FAILURE);
    }
    annotate(&client, &namespace, name, &[(ANNOTATION_APPROVE, Some(approval.id.clone()))]).await?;
    println!("approved; kubectl servicedb migrations {name} -n {namespace} --follow shows the run");
    Ok(ExitCode::SUCCESS)
}

fn waiting(resource: &ServiceDatabase) -> Option<&PendingApproval> {
    resource.status.as_ref()?.migrations.as_ref()?.approval.as_ref()
}

fn listed(approval: &PendingApproval) -> String {
    let mut text: String = approval.statements.iter().map(|held| format!("{}\n", plain(&held.to_string()))).collect();
    let shown = i64::try_from(approval.statements.len()).unwrap_or(i64::MAX);
    if approval.count > shown {
        text += &format!("and {} more\n", approval.count - shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::HeldStatement;

    #[test]
    fn pending_statements_are_listed_and_others_counted() {
        let held = |file: &str, line| HeldStatement { file: file.into(), line, why: "drops the table a".into() };
        let approval = PendingApproval {
            id: "i".into(),
            count: 3,
            statements: vec![held("1_a.up.sql", Some(4)), held("team:1", None)],
        };
        assert_eq!(listed(&approval), "1_a.up.sql, line 4: drops the table a\nteam:1: drops the table a\nand 1 more\n");
    }
}
