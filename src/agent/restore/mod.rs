//! The restore of another database's backup into a new one, in place of initdb: into a folder beside PGDATA,
//! where PostgreSQL recovers to the target, and the database then gets its own names. A kill at any point
//! leaves nothing.

pub mod in_place;
mod logins;
mod names;
mod vault_logins;

use std::path::Path;

use super::environment::Environment;
use super::records::Source;
use super::settings;
use crate::contract::backup::{Restore, Target};
use crate::contract::desired::Desired;
use crate::contract::pod::PGDATA_NEW;
use crate::files;
use crate::pgbackrest::secrets::Secrets;
use crate::restore::{self, Restored};

/// What Patroni and PostgreSQL keep in a data directory about the database that it was.
const LEFT_BEHIND: [&str; 3] = ["patroni.dynamic.json", "backup_label.old", "tablespace_map.old"];

/// Restores into the folder that becomes PGDATA; returns what was restored, for people.
///
/// # Errors
/// The problem, without any secret.
pub async fn run(
    environment: &Environment,
    records: &Source,
    desired: &Desired,
    restore: &Restore,
) -> Result<String, String> {
    let vault = records.open().await.map_err(|error| error.to_string())?.vault;
    let secrets = Secrets::read(&*vault, &restore.place).await.map_err(|error| error.to_string())?;
    let folder = Path::new(PGDATA_NEW);
    let (place, target) = (&restore.place, &restore.target);
    let restored = restore::Restore {
        folder,
        spare: 0,
        place,
        target,
        timeline: restore.timeline,
        database: restore.system_identifier.as_deref(),
        secrets: &secrets,
        refuses_damage: false,
        settings: |folder: &Path| settings::write_restored(&environment.names, desired, folder),
    };
    let restored = restored.run().await?;
    names::take_over(&restore.service, &environment.names.postgres(&desired.database)).await?;
    let summary = summary(&restore.service, target, &restored);
    restored.server.stop().await?;
    leave_behind(folder)?;
    Ok(summary)
}

/// Removes what was of the database before, and of the recovery.
fn leave_behind(folder: &Path) -> Result<(), String> {
    for file in LEFT_BEHIND {
        files::remove_file(&folder.join(file)).map_err(|error| format!("{file}: {error}"))?;
    }
    // It has the settings of the recovery.
    std::fs::write(folder.join("postgresql.auto.conf"), "").map_err(|error| format!("postgresql.auto.conf: {error}"))
}

fn summary(service: &str, target: &Target, restored: &Restored) -> String {
    let until = restored.until.as_ref().map(|time| format!("; the last transaction in it was committed at {time}"));
    let set = &restored.set;
    let end = if restored.reached { "" } else { "; its archive ends before that" };
    format!("{target} of {service} was restored from the backup {set}{end}{}", until.unwrap_or_default())
}
