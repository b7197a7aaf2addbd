//! The credentials of clients with a login of their own: a generation for each, decided as that of the application's
//! credentials is, and a `pending` record until the leader's agent has promoted it.

use jiff::{SignedDuration, Timestamp};

use super::client_objects::{Turn, turn};
use super::pending::{DAMAGE_COUNTS_AFTER, TRIES, login};
use crate::api::conditions::reason;
use crate::api::{AccessMode, AccessSpec, ClientSpec};
use crate::contract::clients::{Client, ClientReport};
use crate::contract::records::{ClientPending, Runtime, expires_soon};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;
use crate::vault::{KvMetadata, Vault, VaultError, version_to_replace};

/// The declared clients as the agents shall have them, of those whose credentials are decided: the rest of the
/// declaration does not depend on Vault.
pub fn declared(database: &Database, decided: &[Client]) -> Vec<Client> {
    let of = |spec: &ClientSpec| Some(with_spec(decided.iter().find(|client| is_of(client, spec))?.clone(), spec));
    let mut declared: Vec<_> = database.own_clients().filter_map(of).collect();
    // Their order in the spec is no change.
    declared.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    declared
}

fn is_of(client: &Client, spec: &ClientSpec) -> bool {
    client.name == spec.name() && client.service_account == spec.identity()
}

fn with_spec(client: Client, spec: &ClientSpec) -> Client {
    Client {
        access: spec.own().cloned().unwrap_or(client.access),
        connection_limit: spec.connection_limit,
        statement_timeout_seconds: spec.statement_timeout_seconds,
        ..client
    }
}

/// Decides the generation of each declared client, and writes it to its `pending` until it is promoted. `recorded` is the
/// last decision; `unseen`: the records are looked at again. A client with short-lived logins has no record: its
/// generation is never promoted.
///
/// # Errors
/// Any error of Vault.
pub async fn ensure(
    context: &Context,
    database: &Database,
    observed: &Observation,
    recorded: &[Client],
    unseen: bool,
) -> Result<Vec<Client>, Error> {
    let reports = observed.primary().and_then(|pod| pod.report.as_ref()?.clients.clone()).unwrap_or_default();
    let vault = context.vault.as_ref();
    let mut decided = Vec::new();
    let resync = context.cache.vault_resync(&database.owner.uid);
    let mut specs: Vec<_> = database.own_clients().collect();
    specs.sort_unstable_by_key(|spec| spec.name());
    for (place, spec) in specs.into_iter().enumerate() {
        let is_turn = resync.is_none_or(|resync| turn(resync, place) == Turn::Record);
        let report = reports.iter().find(|report| report.name == spec.name());
        let known = recorded.iter().find(|client| is_of(client, spec));
        let mut client = match known {
            Some(client) => with_spec(client.clone(), spec),
            None => first(vault, database, spec, recorded, report).await?,
        };
        if spec.dynamic().is_some() {
            if known.is_none() {
                // Of a client of this name that had them: neither it nor an agent of an earlier version goes on with them.
                vault.delete_kv(&database.vault.client_pending(spec.name())).await?;
                vault.delete_kv(&database.vault.client_runtime(spec.name())).await?;
            }
            decided.push(client);
            continue;
        }
        if let Some(report) = report.filter(|report| report.generation >= client.generation) {
            if unseen && is_turn {
                let metadata = vault.read_kv_metadata(&database.vault.client_runtime(&client.name)).await?;
                client.prove = prove(&metadata.unwrap_or_default(), report, context.now()).or(client.prove);
            }
            advance(&mut client, database, report, context.now());
        }
        let promoted = report.map_or(0, |report| report.generation);
        // What was observed of a former client of this name was removed with it.
        ensure_pending(context, database, &client, promoted, unseen || known.is_none()).await?;
        decided.push(client);
    }
    Ok(decided)
}

/// A client that is new, or of another ServiceAccount than before: no earlier login of its name is used.
async fn first(
    vault: &dyn Vault,
    database: &Database,
    spec: &ClientSpec,
    recorded: &[Client],
    report: Option<&ClientReport>,
) -> Result<Client, Error> {
    let record = vault.read_kv(&database.vault.client_runtime(spec.name())).await?;
    let in_vault = record.and_then(|record| Runtime::generation_of(&record.data).ok()).unwrap_or_default();
    let before = recorded.iter().find(|client| client.name == spec.name()).map_or(0, |client| client.generation);
    let reported = report.map_or(0, |report| report.generation);
    let client = Client {
        name: spec.name().to_owned(),
        service_account: spec.identity(),
        generation: in_vault.max(before).max(reported).saturating_add(1),
        // The spec's own replaces it.
        access: AccessSpec { mode: AccessMode::Custom, grants: Vec::new(), dynamic: None },
        connection_limit: None,
        statement_timeout_seconds: None,
        prove: None,
        rotate: database.requests.rotate.clone(),
        rotate_client: own_request(database, spec.name()),
    };
    Ok(with_spec(client, spec))
}

/// The open or answered request for new credentials of this client alone.
fn own_request(database: &Database, client: &str) -> Option<String> {
    let request = database.rotate_client.as_ref()?;
    (request.split_once('/')?.0 == client).then(|| request.clone())
}

/// The version that the agent shall prove again, if the record is not the one that it proved.
fn prove(metadata: &KvMetadata, report: &ClientReport, now: Timestamp) -> Option<u64> {
    let version = if metadata.present { metadata.version } else { 0 };
    let is_proved = report.version == Some(version) && !expires_soon(metadata.expires_at, now);
    (!is_proved).then_some(version)
}

/// Advances a promoted client to the next generation, if there is a cause.
fn advance(client: &mut Client, database: &Database, report: &ClientReport, now: Timestamp) {
    let is_open = |asked: &Option<String>, done: &Option<String>| asked.is_some() && asked != done;
    let asked = own_request(database, &client.name);
    let age = report.rotated_at.map(|at| now.duration_since(at));
    let tells = |why: &str| report.trouble.as_ref().is_some_and(|trouble| trouble.reason == why);
    let is_older = |than: SignedDuration| age.is_some_and(|age| age >= than);
    let cause = if is_open(&asked, &client.rotate_client) {
        "Requested"
    } else if tells(reason::CREDENTIALS_LOST) && report.generation > client.generation {
        // The decision was made without a report, for a client whose record the operator had removed before.
        "Redeclared"
    } else if tells(reason::CREDENTIALS_LOST) {
        // As for the application: it may be restored.
        return;
    } else if is_open(&database.requests.rotate, &client.rotate) {
        "RequestedForAll"
    } else if tells(reason::CREDENTIALS_DAMAGED) && is_older(DAMAGE_COUNTS_AFTER) {
        "Damaged"
    } else if database
        .rotation_period
        .is_some_and(|period| is_older(SignedDuration::try_from(period).unwrap_or_default()))
    {
        "Due"
    } else {
        return;
    };
    client.generation = client.generation.max(report.generation).saturating_add(1);
    client.prove = None;
    client.rotate = database.requests.rotate.clone().or(client.rotate.take());
    client.rotate_client = asked.or(client.rotate_client.take());
    tracing::info!(client = client.name, generation = client.generation, cause, "new credentials of a client");
}

async fn ensure_pending(
    context: &Context,
    database: &Database,
    client: &Client,
    promoted: i64,
    unseen: bool,
) -> Result<(), Error> {
    let (uid, name, generation) = (&database.owner.uid, client.name.as_str(), client.generation);
    if promoted >= generation || (!unseen && context.cache.client_pending_recorded(uid, name, generation)) {
        return Ok(());
    }
    let mut tries = 1;
    while let Err(error) = try_pending(context.vault.as_ref(), database, client).await {
        match error {
            Error::Vault(VaultError::CasMismatch { .. }) if tries < TRIES => tries += 1,
            error => return Err(error),
        }
    }
    context.cache.record_client_pending(uid, name, generation);
    Ok(())
}

async fn try_pending(vault: &dyn Vault, database: &Database, client: &Client) -> Result<(), Error> {
    let (name, generation) = (&client.name, client.generation);
    let path = database.vault.client_pending(name);
    let cas = match vault.read_kv(&path).await? {
        Some(record) if ClientPending::from_data(&record.data).is_ok_and(|found| found.generation == generation) => {
            return Ok(());
        }
        Some(record) => record.version,
        None => {
            // A missing `pending` may mean that it was just promoted.
            let runtime = vault.read_kv(&database.vault.client_runtime(name)).await?;
            let is_promoted = runtime.is_some_and(|record| {
                Runtime::uid_of(&record.data) == Some(database.owner.uid.as_str())
                    && Runtime::generation_of(&record.data).is_ok_and(|held| held >= generation)
            });
            if is_promoted {
                return Ok(());
            }
            version_to_replace(vault, &path).await?
        }
    };
    let pending = ClientPending { generation, login: login(database.postgres.client_login(name, generation)) };
    vault.write_kv(&path, &pending.to_data(), cas).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::tests::fixtures::{MINIMAL, database};

    fn declaring(request: &str) -> Database {
        let mut database =
            database(&format!("{MINIMAL}  clients:\n  - {{serviceAccountName: picker, access: {{mode: ReadOnly}}}}\n"));
        database.rotate_client = Some(request.to_owned());
        database
    }

    fn client(generation: i64) -> Client {
        serde_json::from_value(serde_json::json!({
            "name": "picker", "serviceAccount": "picker", "generation": generation, "access": {"mode": "ReadOnly"}
        }))
        .expect("a client")
    }

    fn report(generation: i64, age: i64, now: Timestamp) -> ClientReport {
        let rotated_at = Some(now - SignedDuration::from_secs(age));
        ClientReport { name: "picker".into(), generation, rotated_at, version: Some(4), ..ClientReport::default() }
    }

    fn generation_after(mut client: Client, database: &Database, report: &ClientReport, now: Timestamp) -> i64 {
        advance(&mut client, database, report, now);
        client.generation
    }

    #[test]
    fn a_request_rotates_the_client_that_it_names_once() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000);
        let report = report(3, 60, now);
        assert_eq!(generation_after(client(3), &declaring("other/1"), &report, now), 3);
        assert_eq!(generation_after(client(3), &declaring("picker/1"), &report, now), 4);
        let answered = Client { rotate_client: Some("picker/1".into()), ..client(4) };
        assert_eq!(generation_after(answered, &declaring("picker/1"), &report, now), 4);
    }

    #[test]
    fn a_request_for_all_and_the_age_rotate_it_and_a_lost_record_waits_for_a_person() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000);
        let mut database = declaring("other/1");
        database.requests.rotate = Some("t".into());
        assert_eq!(generation_after(client(3), &database, &report(3, 60, now), now), 4);
        let trouble = crate::contract::report::Trouble { reason: reason::CREDENTIALS_LOST.into(), message: "m".into() };
        let lost = ClientReport { trouble: Some(trouble), ..report(3, 60, now) };
        assert_eq!(generation_after(client(3), &database, &lost, now), 3);
        assert_eq!(generation_after(client(1), &database, &lost, now), 4, "removed and declared again: it was removed");
        database.requests.rotate = None;
        database.rotation_period = Some(std::time::Duration::from_secs(3600));
        assert_eq!(generation_after(client(3), &database, &report(3, 3599, now), now), 3);
        assert_eq!(generation_after(client(3), &database, &report(3, 3600, now), now), 4);
    }

    #[test]
    fn a_record_that_was_not_proved_is_proved_again() {
        let now = Timestamp::UNIX_EPOCH;
        let metadata = |version, present| KvMetadata { version, present, ..KvMetadata::default() };
        assert_eq!(prove(&metadata(4, true), &report(3, 60, now), now), None);
        assert_eq!(prove(&metadata(5, true), &report(3, 60, now), now), Some(5));
        assert_eq!(prove(&metadata(4, false), &report(3, 60, now), now), Some(0), "it is missing");
    }

    #[test]
    fn a_client_whose_logins_become_short_lived_is_another_one() {
        let mut database = declaring("other/1");
        let recorded = client(3);
        assert_eq!(declared(&database, std::slice::from_ref(&recorded)).len(), 1);
        let lifetimes = serde_json::from_value(serde_json::json!({})).expect("the default lifetimes");
        database.clients[0].access.as_mut().expect("access").dynamic = Some(lifetimes);
        assert!(declared(&database, &[recorded]).is_empty());
    }

    #[test]
    fn the_login_of_another_service_account_is_no_decision_for_this_one() {
        let database = declaring("other/1");
        assert_eq!(declared(&database, &[client(3)]).len(), 1);
        let other = Client { service_account: "intruder".into(), ..client(3) };
        assert!(declared(&database, &[other]).is_empty());
    }
}
