//! The restore of another database's backup into a new one, in place of initdb: into a folder beside PGDATA,
//! where PostgreSQL recovers to the target, and the database then gets its own names. A kill at any point
//! leaves nothing.

mod names;

use std::path::Path;

use super::environment::Environment;
use super::records::Source;
use super::settings;
use crate::contract::backup::Restore;
use crate::contract::desired::Desired;
use crate::contract::pod::PGDATA_NEW;
use crate::pgbackrest::secrets::Secrets;
use crate::restore;

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
    let settings = || settings::write_restored(environment, desired);
    let (place, target) = (&restore.place, &restore.target);
    let restored = restore::Restore { place, target, secrets: &secrets, refuses_damage: false, settings };
    let restored = restored.run().await?;
    names::take_over(&restore.service, &environment.names.postgres(&desired.database)).await?;
    restored.server.stop().await?;
    let folder = Path::new(PGDATA_NEW);
    for file in LEFT_BEHIND {
        match std::fs::remove_file(folder.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(format!("{file}: {error}")),
            _ => {}
        }
    }
    // It has the settings of the recovery.
    std::fs::write(folder.join("postgresql.auto.conf"), "")
        .map_err(|error| format!("postgresql.auto.conf: {error}"))?;
    let until = restored.until.map(|time| format!("; the last transaction in it was committed at {time}"));
    let (service, set) = (&restore.service, &restored.set);
    let end = if restored.reached { "" } else { "; its archive ends before that" };
    Ok(format!("{target} of {service} was restored from the backup {set}{end}{}", until.unwrap_or_default()))
}
