//! `kubectl servicedb status`.

mod collect;
mod overview;
mod render;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;

use super::args::{Connection, Output};
use super::connection::{self, PluginError};

/// Prints the overview of one database.
pub async fn run(connection: &Connection, name: &str, output: Output) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let overview = collect::collect(&client, &namespace, name).await?;
    match output {
        Output::Table => print!("{}", render::render(&overview, Timestamp::now())),
        Output::Json => {
            let json =
                serde_json::to_string_pretty(&overview).map_err(|error| PluginError::Output(error.to_string()))?;
            println!("{json}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
