//! `kubectl servicedb check`: runs `servicedb check` in the primary's pod, and ends with its exit
//! code. If PostgreSQL refuses the login of the record in Vault, the agent of that pod proves the
//! records again.

use std::process::ExitCode;

use super::args::Connection;
use super::connection::{self, PluginError};
use super::psql;

/// Runs the check.
///
/// # Errors
/// If there is no primary to go to, or kubectl cannot be run.
pub async fn run(connection: &Connection, name: &str) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&client, &namespace, name).await?;
    let mut command = psql::in_primary(connection, &client, &namespace, &resource, &["servicedb", "check"]).await?;
    psql::end_with(&mut command).await
}
