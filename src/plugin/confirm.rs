//! A yes of the person at the terminal.

use std::io::{BufRead, IsTerminal, Write};

use super::connection::PluginError;

/// Whether the person at the terminal says yes; nobody does where there is none.
pub fn confirmed() -> Result<bool, PluginError> {
    ask().map_err(|error| PluginError::Output(error.to_string()))
}

fn ask() -> std::io::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    print!("Approve? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
