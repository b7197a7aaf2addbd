//! A yes of the person at the terminal.

use std::io::{BufRead, IsTerminal, Write};

use super::connection::PluginError;

/// Whether it is approved: beforehand, or by the person at the terminal; if not, that is said.
pub fn approved(yes: bool) -> Result<bool, PluginError> {
    let approved = yes || ask().map_err(|error| PluginError::Output(error.to_string()))?;
    if !approved {
        eprintln!("error: not approved: nobody at a terminal said yes; --yes approves without being asked");
    }
    Ok(approved)
}

/// Nobody says yes where there is no terminal.
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
