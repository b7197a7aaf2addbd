//! `servicedb backups`: what the store has, in a database pod.

use std::process::ExitCode;

use crate::contract::backup::Nth;
use crate::pgbackrest::info::{Backup, Info};
use crate::pgbackrest::{command, config};

/// Prints a line for each backup in the store, the oldest first; with two stores, each under its heading. Fails if none of
/// them can be read.
pub async fn list() -> ExitCode {
    let configs = Nth::ALL.map(|nth| (nth, config::path_of(nth)));
    let configs: Vec<_> = configs.into_iter().filter(|(_, config)| config.exists()).collect();
    if configs.is_empty() {
        eprintln!("this instance has no access to a store: see the condition ContinuousArchiving");
        return ExitCode::FAILURE;
    }
    let mut was_read = false;
    for (nth, config) in &configs {
        if configs.len() > 1 {
            println!("In {}:", field(*nth));
        }
        match command::info(config).await {
            Ok(info) => {
                print(&info);
                was_read = true;
            }
            // Its text may quote a key, and goes to a person's terminal.
            Err(_) => eprintln!("error: {}", unread(*nth)),
        }
    }
    // The list of one store is an answer, whatever the other one does: the condition has that.
    if was_read { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The field that names the store.
fn field(nth: Nth) -> &'static str {
    match nth {
        Nth::First => "spec.backup.store",
        Nth::Second => "spec.backup.secondStore",
    }
}

fn unread(nth: Nth) -> String {
    format!("the store of {} cannot be read: see the condition ContinuousArchiving", field(nth))
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
    let is_of_present = |backup: &Backup| info.database_of(backup) == info.present();
    if !info.backups.iter().all(is_of_present) {
        // When each of them was left, the archive does not tell.
        println!(
            "the backups are of several databases, since a major upgrade begins another one (status.backup.windows)"
        );
        return;
    }
    match (info.backups.first(), &info.newest_segment) {
        (Some(first), Some(segment)) => {
            println!("recoverable from {}, to the end of the WAL segment {segment}", first.finished_at);
        }
        (None, _) => println!("no backup: nothing can be recovered"),
        (Some(_), None) => println!("no WAL: only the backups themselves can be restored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_be_read_is_named() {
        assert!(unread(Nth::First).contains("the store of spec.backup.store cannot be read"));
        assert!(unread(Nth::Second).contains("the store of spec.backup.secondStore cannot be read"));
    }
}
