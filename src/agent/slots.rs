//! Replication slots of absent instances. Patroni keeps the slot of an absent member for half an hour,
//! since it may return, and PostgreSQL keeps the WAL from there on. The slot of an instance that was
//! scaled away is given up at once. So is a slot whose WAL the volume has no room for: the member is
//! cloned when it returns, and the primary continues.

use std::time::Duration;

use serde_json::{Value, json};

use super::desired::{self, DesiredState};
use super::ensure;
use super::environment::Environment;
use super::patroni::rest::Rest;
use super::volume;
use crate::api::spec::MAXIMUM_INSTANCES;
use crate::contract::desired::Desired;
use crate::postgres::describe;

/// Interval between two queries while a slot is to be given up.
const INTERVAL: Duration = Duration::from_secs(3);
/// The same while there is none: Patroni creates one again for a member whose pod still exists, or for
/// one whose slot gave way a moment before.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// Patroni's setting: how long it keeps the slot of an absent member.
const SETTING: &str = "member_slots_ttl";

/// From this use of the volume on, in percent, an absent member's WAL gives way. Four fifths are
/// reported, and the volume may be enlarged before that.
const NO_ROOM: u8 = 90;
/// The bytes that such a slot must hold to be worth it: more than PostgreSQL keeps anyway.
const WORTH: i64 = 64 << 20;

/// Interval between two checks for room.
const CHECK_FOR_ROOM: Duration = Duration::from_secs(10);

/// Slots of absent members: those that PostgreSQL has invalidated, since they held more than
/// `max_slot_wal_keep_size`, with which their member could never stream again; and, where there is
/// no room, those that hold much. Patroni creates a new one at the present position.
const GIVE_WAY: &str = "\
SELECT slot_name::text, pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE slot_type = 'physical' AND NOT temporary AND NOT active
  AND (wal_status = 'lost'
       OR $1 AND pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn) > $2::bigint)";

/// Drops slots of absent members that the primary has no room for, as long as this pod leads.
pub async fn let_give_way() {
    loop {
        tokio::time::sleep(CHECK_FOR_ROOM).await;
        if let Err(problem) = give_way().await {
            tracing::debug!(problem, "the slots of absent instances cannot be checked");
        }
    }
}

async fn give_way() -> Result<(), String> {
    let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
    let client = &connection.client;
    let full = volume::used().map_err(|error| error.to_string())? >= NO_ROOM;
    let dropped = client.query(GIVE_WAY, &[&full, &WORTH]).await.map_err(|error| describe(&error))?;
    for row in &dropped {
        let slot: &str = row.get(0);
        tracing::warn!(slot, full, "dropped the slot of an absent instance; the instance is cloned when it returns");
    }
    if full && !dropped.is_empty() {
        // Only a checkpoint removes the files.
        client.batch_execute("CHECKPOINT").await.map_err(|error| describe(&error))?;
    }
    Ok(())
}

/// Gives up the slots of instances that are no longer declared, as long as this pod leads.
pub async fn keep(environment: &Environment, mut state: DesiredState) {
    loop {
        let desired = desired::first(&mut state).await;
        let wait = match give_up(environment, &desired).await {
            Ok(Progress::None) => IDLE_INTERVAL,
            Ok(Progress::Waiting | Progress::Expiring) => INTERVAL,
            Err(problem) => {
                tracing::debug!(problem, "the slots of instances that were scaled away cannot be given up; retrying");
                INTERVAL
            }
        };
        tokio::select! {
            () = desired::changed(&mut state) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// A member's slot on this server.
struct Slot {
    /// Whether its instance is still declared.
    declared: bool,
    /// Whether its member streams.
    active: bool,
}

/// How far the slots of instances that are no longer declared are given up.
#[derive(Debug, PartialEq)]
enum Progress {
    /// There is none.
    None,
    /// There is one, and it must wait: its member still streams, or a declared member is absent.
    Waiting,
    /// Patroni must drop it now.
    Expiring,
}

impl Progress {
    /// Patroni's setting is for all members, so it waits for a declared one that is absent for a moment
    /// and must find its slot.
    fn of(slots: &[Slot]) -> Self {
        let has =
            |declared: bool, active: bool| slots.iter().any(|slot| (slot.declared, slot.active) == (declared, active));
        match (has(false, false), has(false, true), has(true, false)) {
            (true, _, false) => Self::Expiring,
            (false, false, _) => Self::None,
            _ => Self::Waiting,
        }
    }
}

async fn give_up(environment: &Environment, desired: &Desired) -> Result<Progress, String> {
    let progress = Progress::of(&read(environment, desired).await?);
    let rest = Rest::new().map_err(|error| error.to_string())?;
    let value = match progress {
        Progress::Expiring => json!(0),
        Progress::None | Progress::Waiting => Value::Null,
    };
    // Patroni answers with the configuration of its last loop, so a comparison may be wrong once; the next one
    // is not. It drops an expired slot in the second loop after the change.
    let current = rest.config().await.map_err(|error| error.to_string())?;
    if current.get(SETTING).cloned().unwrap_or_default() != value {
        rest.patch_config(&json!({ SETTING: value })).await.map_err(|error| error.to_string())?;
    }
    Ok(progress)
}

/// The slots of the other members, by one query: between two, a slot whose member goes would be in
/// neither answer.
async fn read(environment: &Environment, desired: &Desired) -> Result<Vec<Slot>, String> {
    let query = "SELECT slot_name::text, active FROM pg_catalog.pg_replication_slots
                 WHERE slot_type = 'physical' AND slot_name = ANY ($1)";
    let names = |from: i32, to: i32| -> Vec<String> {
        let pods = (from..to).map(|ordinal| environment.names.pod(ordinal));
        pods.filter(|pod| *pod != environment.pod).map(|pod| slot(&pod)).collect()
    };
    let declared = names(0, desired.instances);
    let all = [declared.clone(), names(desired.instances, MAXIMUM_INSTANCES)].concat();
    let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
    let rows = connection.client.query(query, &[&all]).await.map_err(|error| describe(&error))?;
    let slot = |row: &tokio_postgres::Row| Slot { declared: declared.contains(&row.get(0)), active: row.get(1) };
    Ok(rows.iter().map(slot).collect())
}

/// The name of a member's slot, as Patroni derives it (`slot_name_from_member_name`).
fn slot(pod: &str) -> String {
    pod.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(declared: bool, active: bool) -> Slot {
        Slot { declared, active }
    }

    #[test]
    fn the_slot_of_an_instance_that_was_scaled_away_is_never_forgotten() {
        assert_eq!(Progress::of(&[]), Progress::None);
        assert_eq!(Progress::of(&[slot(true, true), slot(true, false)]), Progress::None);
        for active in [true, false] {
            assert_ne!(Progress::of(&[slot(false, active)]), Progress::None, "it streams, or has just ended");
        }
    }

    #[test]
    fn a_slot_expires_once_its_member_is_gone_and_no_other_is_absent() {
        assert_eq!(Progress::of(&[slot(false, false), slot(true, true)]), Progress::Expiring);
        assert_eq!(Progress::of(&[slot(false, false), slot(false, true)]), Progress::Expiring);
        assert_eq!(Progress::of(&[slot(false, true)]), Progress::Waiting, "it still streams");
        assert_eq!(Progress::of(&[slot(false, false), slot(true, false)]), Progress::Waiting);
    }
}
