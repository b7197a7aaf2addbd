//! The declared migrations, the Job that applies them, and their progress.

pub mod dependencies;
pub mod drift;
pub mod job_pods;
pub mod progress;
mod remedy;
pub mod unstarted;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::apply::{apply_uncached, delete, delete_exactly};
use super::context::Context;
use super::observe::{JobState, egress, ended, job_state, stands};
use super::validate::{Database, Migrations, Source};
use crate::api::PendingApproval;
use crate::api::conditions::reason;
use crate::api::names::LABEL_NAME;
use crate::contract::migration::{Failure, Outcome};
use crate::contract::pack;
use crate::contract::report::Report;
use crate::migrate::approval;
use crate::migrate::source;
use crate::operator::apply::object::{Planned, controller_uid, erased};
use crate::operator::context::error::Error;
use crate::operator::migrations::job_pods::{Hindrance, JobPods};
use crate::operator::migrations::progress::{Declared, Progress};
use crate::operator::migrations::unstarted::HeldUp;
use crate::operator::plan::migration::{self, Purpose};

/// How long the leader's agent may take to report the result of a successful Job.
const LEDGER_PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// The delay before a Job that failed for a transient cause is retried.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Reads the declared migrations.
///
/// # Errors
/// Any error of the API server; a missing ConfigMap is not an error.
pub async fn declared(context: &Context, database: &Database) -> Result<Declared, Error> {
    let Some(migrations) = &database.migrations else { return Ok(Declared::Nothing) };
    let config_maps = match (&migrations.source, migrations.source.unread_revision()) {
        (Source::ConfigMaps(names), _) => names,
        (_, revision) => return Ok(revision.map_or(Declared::Nothing, Declared::Unread)),
    };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let mut parts: Vec<BTreeMap<String, Vec<u8>>> = Vec::new();
    for name in config_maps {
        let Some(config_map) = api.get_opt(name).await? else {
            let message = format!(
                "spec.migrations.source names the ConfigMap {name}, which does not exist in this namespace: create it"
            );
            return Ok(Declared::Unreadable { reason: reason::CONFIG_MAP_NOT_FOUND, message });
        };
        let text = config_map.data.into_iter().flatten().map(|(name, text)| (name, text.into_bytes()));
        let binary = config_map.binary_data.into_iter().flatten().map(|(name, bytes)| (name, bytes.0));
        let contents: BTreeMap<String, Vec<u8>> = text.chain(binary).collect();
        if let Some(file) = contents.keys().find(|file| parts.iter().any(|part| part.contains_key(*file))) {
            let message = format!("ConfigMap {name}: {file} is in another ConfigMap of the source, too: remove one");
            return Ok(Declared::Unreadable { reason: reason::INVALID_MIGRATIONS, message });
        }
        parts.push(contents);
    }
    let files = parts.iter().flatten().map(|(name, content)| (name.clone(), content.clone())).collect();
    let unreadable = |reason, error: &dyn std::fmt::Display| {
        let message = format!("ConfigMap {}: {error}", config_maps.join(", "));
        Declared::Unreadable { reason, message }
    };
    let files = match pack::unpack(files) {
        Ok(files) => files,
        Err(error) => return Ok(unreadable(reason::INVALID_MIGRATIONS, &error)),
    };
    Ok(match source::read(files, migrations.policy.format) {
        Ok(set) => Declared::Set { set, parts },
        Err(error) => unreadable(error.reason(), &error),
    })
}

/// Advances the migrations by one step. `primary` is the report of the primary's agent, if its
/// credentials were proved. `applied`: according to status, this spec and revision are applied;
/// `refused`: according to status, the API server refused the Job's pod.
///
/// # Errors
/// Any error of the API server.
pub async fn advance(
    context: &Context,
    database: &Database,
    declared: &Declared,
    primary: Option<&Report>,
    (applied, refused): (bool, bool),
    now: Timestamp,
) -> Result<Progress, Error> {
    let (revision, parts): (&str, &[_]) = match declared {
        Declared::Nothing => return Ok(Progress::NotDeclared),
        Declared::Unreadable { reason, message } => {
            return Ok(Progress::Waiting { reason, message: message.clone() });
        }
        Declared::Set { set, parts } => (&set.revision, parts),
        Declared::Unread(revision) => (revision, &[]),
    };
    let Some(migrations) = &database.migrations else { return Ok(Progress::NotDeclared) };
    // An approval of other files does not apply to these, and is no reason to restart. Only the Job
    // knows the content of an image.
    let mut migrations = migrations.clone();
    if !matches!(migrations.source, Source::Image(_)) {
        let id = migrations.policy.approval_id(revision);
        migrations.policy.approved.take_if(|approved| *approved != id);
    }
    let migrations = &migrations;
    let policy = &migrations.policy;
    let Some(primary) = primary else {
        let message = "the migrations start once the primary answers and its credentials are proved".to_owned();
        return Ok(Progress::Waiting { reason: reason::PROGRESSING, message });
    };
    let ledger = primary.ledger.as_ref();
    // A new primary's agent has not read the ledger yet: applied migrations are still applied.
    if applied && ledger.is_none() {
        return Ok(Progress::Applied);
    }
    let name = database.names().migration_job(&migrations.run(revision));
    let copies = migration::copies(database, revision, parts);
    let kept: Vec<String> = copies.iter().chain([&name]).cloned().collect();
    if ledger.is_some_and(|ledger| ledger.revision == Some(policy.goal(revision))) {
        // A Job of another target may still wait for the lock.
        if !applied {
            remove_others(context, database, &kept).await?;
        }
        return Ok(Progress::Applied);
    }
    let planned = migration::job(database, &context.options, (revision, migrations), &copies, Purpose::Apply);
    match job_state(&context.client, database.names(), &name).await? {
        JobState::Absent => {
            // Meanwhile, runs that are no longer declared are stopped.
            remove_others(context, database, &kept).await?;
            if let Some(held) = held_tool(migrations, revision) {
                return Ok(Progress::Held(held));
            }
            if let Some(waits) = dependencies::unmet(context, database, &migrations.depends_on).await? {
                return Ok(waits);
            }
            for planned in migration::config_maps(database, &copies, parts) {
                apply_uncached(context, &database.owner, &planned).await?;
            }
            apply_uncached(context, &database.owner, &planned).await?;
            Ok(Progress::Running)
        }
        JobState::Running(job) => {
            let pods = JobPods::of(&context.client, database.names(), &name).await?;
            match unstarted::held_up(&context.client, (&job, &planned), &pods, refused, now).await? {
                None => Ok(Progress::Running),
                Some(HeldUp::By(Hindrance { reason, message, away })) => {
                    Ok(hindered(context, database, reason, message, away).await)
                }
                Some(HeldUp::Replace) => {
                    remove_job(context, database, &name).await?;
                    Ok(Progress::Running)
                }
            }
        }
        JobState::Succeeded(ended) => {
            if policy.dry_run
                && let Some(plan) = outcome_of(context, database, &name).await?.and_then(|outcome| outcome.plan)
            {
                let nothing = plan.apply == 0 && plan.roll_back == 0 && plan.record == 0;
                return Ok(if nothing { Progress::Applied } else { Progress::Planned(plan) });
            }
            // The ledger is authoritative. If it still differs after some time, another revision
            // was applied since this Job ran: run it again.
            if ledger.is_some() && now.duration_since(ended) > LEDGER_PATIENCE {
                remove_job(context, database, &name).await?;
            }
            Ok(Progress::Running)
        }
        JobState::Failed(job) => after_failure(context, database, (&job, &planned), now).await,
    }
}

/// A team's own tool that is not approved yet.
fn held_tool(migrations: &Migrations, revision: &str) -> Option<PendingApproval> {
    let Source::Tool(tool) = &migrations.source else { return None };
    let (policy, id) = (&migrations.policy, migrations.policy.approval_id(revision));
    let approved = policy.approved.as_ref() == Some(&id);
    (policy.manual_approval && !approved).then(|| approval::of_tool(&tool.image, &id))
}

async fn after_failure(
    context: &Context,
    database: &Database,
    (job, planned): (&Job, &Planned),
    now: Timestamp,
) -> Result<Progress, Error> {
    let name = job.name_any();
    let failed_at = ended(job, now);
    let outcome = outcome_of(context, database, &name).await?.unwrap_or_default();
    if let Some(approval) = outcome.approval {
        return Ok(Progress::Held(approval));
    }
    let failure = outcome.failure;
    let transient = failure.as_ref().is_none_or(|failure| failure.transient);
    // More memory or another node may be enough.
    let corrected = unstarted::names_its_spec(job) && unstarted::is_of_another_spec(job, planned);
    if corrected || (transient && now.duration_since(failed_at) > RETRY_AFTER) {
        remove_job(context, database, &name).await?;
        return Ok(Progress::Running);
    }
    Ok(match failure {
        Some(failure) if !failure.transient => {
            let source = database.migrations.as_ref().map(|migrations| &migrations.source);
            let again = remedy::after(&failure, source, (database.names(), &name));
            Progress::Failed { message: format!("{}{again}", describe(&failure)), reason: failure.reason }
        }
        Some(failure) => {
            let message = describe(&failure);
            hindered(context, database, reason::MIGRATIONS_RUNNING, message, job_pods::is_away(&failure)).await
        }
        None => {
            let message = format!(
                "the Job {name} failed without a termination message; it will be retried (see kubectl describe job {name} \
                 -n {})",
                database.names().namespace
            );
            hindered(context, database, reason::MIGRATIONS_RUNNING, message, false).await
        }
    })
}

/// The progress of a Job with a problem. If it cannot reach Vault or PostgreSQL (`away`), the
/// message names NetworkPolicies that may be the cause.
async fn hindered(
    context: &Context,
    database: &Database,
    reason: &'static str,
    mut message: String,
    away: bool,
) -> Progress {
    if away {
        let labels = egress::labels(&database.owner, true);
        let needs = egress::of_a_job(&context.options.vault_address);
        let namespace = &database.names().namespace;
        if let Some(obstacle) = egress::obstacle(&context.client, namespace, &labels, &needs).await {
            message = format!("{message}; {}", obstacle.message);
        }
    }
    Progress::Hindered { reason, message }
}

/// The result of the Job's last pod.
async fn outcome_of(context: &Context, database: &Database, job: &str) -> Result<Option<Outcome>, Error> {
    Ok(JobPods::of(&context.client, database.names(), job).await?.outcome())
}

fn describe(failure: &Failure) -> String {
    let place = match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}, line {line}: "),
        (Some(file), None) => format!("{file}: "),
        _ => String::new(),
    };
    let state = failure.sqlstate.as_ref().map(|code| format!(" (SQLSTATE {code})")).unwrap_or_default();
    format!("{place}{}{state}", failure.message)
}

/// Removes a Job and its pods.
///
/// # Errors
/// Any error of the API server.
pub async fn remove_job(context: &Context, database: &Database, name: &str) -> Result<(), Error> {
    let named = Planned::new::<Job>(&database.owner, name.to_owned(), json!({}));
    delete(&context.client, &database.owner, &named).await.map(drop)
}

/// Stops every run that has not ended. What ended stays: people read its log, and it holds for the same data.
///
/// # Errors
/// Any error of the API server.
pub async fn stop(context: &Context, database: &Database) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &database.names().namespace);
    for job in jobs.list(&of_runs(database)).await?.items {
        let ours = controller_uid(&job.metadata) == Some(database.owner.uid.as_str());
        if ours && matches!(stands(&job), JobState::Running(_)) {
            remove_job(context, database, &job.name_any()).await?;
        }
    }
    Ok(())
}

/// Stops every run, and removes those that ended: what they have done does not hold for other data.
///
/// # Errors
/// Any error of the API server.
pub async fn forget(context: &Context, database: &Database) -> Result<(), Error> {
    remove_others(context, database, &[]).await
}

/// Removes Jobs and ConfigMaps of other runs. A Job may be stopped in the middle of a file: one in a
/// transaction leaves nothing, and the ledger has the start of one without.
async fn remove_others(context: &Context, database: &Database, kept: &[String]) -> Result<(), Error> {
    let (client, names) = (&context.client, database.names());
    for api in [erased::<Job>(client, &names.namespace), erased::<ConfigMap>(client, &names.namespace)] {
        for live in api.list(&of_runs(database)).await?.items {
            let ours = controller_uid(&live.metadata) == Some(database.owner.uid.as_str());
            if ours && !kept.contains(&live.name_any()) {
                delete_exactly(&api, &live).await?;
            }
        }
    }
    Ok(())
}

/// The Jobs and the ConfigMaps of all runs of a database.
fn of_runs(database: &Database) -> ListParams {
    let name = &database.names().name;
    ListParams::default().labels(&format!("{LABEL_NAME}={name},app.kubernetes.io/component={}", migration::COMPONENT))
}
