//! Replication slots of instances that were taken away. Patroni keeps the slot of an absent
//! member for half an hour, since it may come back, and with it all WAL from then on; of one that
//! shall not come back it is given up at once.

use std::time::Duration;

use serde_json::{Value, json};

use super::desired::{self, DesiredState};
use super::ensure;
use super::environment::Environment;
use super::patroni::rest::Rest;
use crate::api::spec::MAXIMUM_INSTANCES;
use crate::contract::desired::Desired;

/// How often it is looked whether such a slot is gone.
const INTERVAL: Duration = Duration::from_secs(3);
/// Patroni's setting: for how long it keeps the slot of an absent member.
const SETTING: &str = "member_slots_ttl";

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
