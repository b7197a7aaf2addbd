//! Confirmation at the terminal.

use std::io::{BufRead, IsTerminal, Write};

use super::connection::PluginError;

/// Whether the user approves, by an option or at the terminal; if not, prints an error.
pub fn approved(yes: bool) -> Result<bool, PluginError> {
    let approved = yes || ask().map_err(PluginError::Prompt)?;
    if !approved {
        eprintln!("error: not approved at a terminal; use --yes to approve without a prompt");
    }
    Ok(approved)
}

/// Without a terminal there is no confirmation.
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
