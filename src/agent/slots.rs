//! Replication slots of instances that are away. Patroni keeps the slot of an absent member for
//! half an hour, since it may come back, and with it WAL from then on; of one that shall not come
//! back it is given up at once. So it is of one for whose WAL there is no room any more: the member
//! is cloned when it comes back, and the primary goes on.

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

/// How often it is looked whether such a slot is gone.
const INTERVAL: Duration = Duration::from_secs(3);
/// Patroni's setting: for how long it keeps the slot of an absent member.
const SETTING: &str = "member_slots_ttl";

/// From this use of the volume on an absent member's WAL gives way. At four fifths it is told, and
/// somebody may let the volume grow before that.
const NO_ROOM: u8 = 90;
/// What such a slot must hold to be worth it: more than PostgreSQL keeps anyway.
const WORTH: i64 = 64 << 20;

/// How often it is looked.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(10);

/// Slots of members that are away: those that PostgreSQL has invalidated, since they held more than
/// `max_slot_wal_keep_size`, with which their member could never stream again; and, where there is
/// no room, those that hold much. Patroni makes a new one from the present position.
const GIVE_WAY: &str = "\
SELECT slot_name::text, pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE slot_type = 'physical' AND NOT temporary AND NOT active
  AND (wal_status = 'lost'
       OR $1 AND pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn) > $2::bigint)";

/// Lets the slots of absent members give way to the primary, for as long as this pod leads.
pub async fn let_give_way() {
    loop {
        tokio::time::sleep(LOOK_FOR_ROOM).await;
        if let Err(problem) = give_way().await {
            tracing::debug!(problem, "the slots of absent instances cannot be looked at");
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
        tracing::warn!(slot, full, "an absent instance's WAL gave way: it is cloned when it comes back");
    }
    if full && !dropped.is_empty() {
        // Only a checkpoint removes the files.
        client.batch_execute("CHECKPOINT").await.map_err(|error| describe(&error))?;
    }
    Ok(())
}

/// Gives up the slots of instances that are not declared any more, for as long as this pod leads.
pub async fn keep(environment: &Environment, mut state: DesiredState) {
    loop {
        let desired = desired::first(&mut state).await;
        match given_up(environment, &desired).await {
            Ok(true) => {
                if state.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
            Ok(false) => tokio::time::sleep(INTERVAL).await,
            Err(problem) => {
                tracing::debug!(problem, "the slots of instances that were taken away cannot be given up yet");
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }
}

/// Whether none is left.
async fn given_up(environment: &Environment, desired: &Desired) -> Result<bool, String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let connection = ensure::connect("postgres").await.map_err(|error| say(&error))?;
    let slots = |from: i32, to: i32| -> Vec<String> {
        (from..to)
            .map(|ordinal| environment.names.pod(ordinal))
            .filter(|pod| *pod != environment.pod)
            .map(|pod| slot(&pod))
            .collect()
    };
    let query = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical' AND slot_name = ANY ($1) AND active = $2";
    let ask = async |names: Vec<String>, active: bool| connection.client.query(query, &[&names, &active]).await;
    let mut found = ask(slots(desired.instances, MAXIMUM_INSTANCES), false).await.map_err(|error| say(&error))?;
    // The setting is for all members: one that stays and is away for a moment must find its slot.
    let absent = ask(slots(0, desired.instances), false).await.map_err(|error| say(&error))?;
    let going = ask(slots(desired.instances, MAXIMUM_INSTANCES), true).await.map_err(|error| say(&error))?;
    let wait = !going.is_empty() || (!absent.is_empty() && !found.is_empty());
    if !absent.is_empty() {
        found.clear();
    }
    let rest = Rest::new().map_err(|error| say(&error))?;
    let kept = rest.config().await.map_err(|error| say(&error))?.get(SETTING).cloned();
    let wanted = if found.is_empty() { Value::Null } else { json!(0) };
    if kept.unwrap_or(Value::Null) != wanted {
        rest.patch_config(&json!({ SETTING: wanted })).await.map_err(|error| say(&error))?;
    }
    Ok(found.is_empty() && !wait)
}

/// The name of a member's slot, as Patroni makes it (`slot_name_from_member_name`).
fn slot(pod: &str) -> String {
    pod.replace('-', "_")
}
