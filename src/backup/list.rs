//! `servicedb backups`: what the store has, in a database pod.

use std::process::ExitCode;

use crate::contract::backup::Nth;
use crate::pgbackrest::info::Info;
use crate::pgbackrest::{command, config};

/// Prints a line for each backup in the store, the oldest first; with two stores, each under its heading.
pub async fn list() -> ExitCode {
    let configs: Vec<_> = Nth::ALL.into_iter().map(config::path_of).filter(|config| config.exists()).collect();
    if configs.is_empty() {
        eprintln!("this instance has no access to a store: see the condition ContinuousArchiving");
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    for config in &configs {
        if configs.len() > 1 {
            let is_second = *config == config::path_of(Nth::Second);
            println!("{}", if is_second { "In spec.backup.secondStore:" } else { "In spec.backup.store:" });
        }
        match command::info(config).await {
            Ok(info) => print(&info),
            // Its text may quote a key, and goes to a person's terminal.
            Err(_) => {
                eprintln!("the store cannot be read: see the condition ContinuousArchiving");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print(info: &Info) {
    println!("{:<34} {:<12} {:<20} {:<20} {:>14} {:>14}", "NAME", "TYPE", "STARTED", "FINISHED", "DATABASE", "STORED");
    for backup in &info.backups {
        println!(
            "{:<34} {:<12} {:<20} {:<20} {:>14} {:>14}",
            backup.label,
            format!("{:?}", backup.kind),
            backup.started_at.to_string(),
            backup.finished_at.to_string(),
            backup.database_bytes,
            backup.stored_bytes
        );
    }
    match (info.backups.first(), &info.newest_segment) {
        (Some(first), Some(segment)) => {
            println!("recoverable from {}, to the end of the WAL segment {segment}", first.finished_at);
        }
        (None, _) => println!("no backup: nothing can be recovered"),
        (Some(_), None) => println!("no WAL: only the backups themselves can be restored"),
    }
}
