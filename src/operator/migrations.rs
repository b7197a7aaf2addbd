//! The declared migrations, the Job that applies them, and how far they are.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::apply::{apply, delete, delete_exactly};
use super::context::Context;
use super::dependencies;
use super::error::Error;
use super::object::{Planned, controller_uid, erased};
use super::observe::{JobState, job_state};
use super::plan::migration;
use super::validate::Database;
use crate::api::MigrationPlan;
use crate::api::conditions::reason;
use crate::api::names::LABEL_NAME;
use crate::contract::migration::{Failure, Outcome};
use crate::contract::report::LedgerReport;
use crate::migrate::source::{self, MigrationSet};

/// How long the leader's agent may take to see what a Job that ended well has done.
const LEDGER_PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// How long after a Job gave up on a cause that passes it is tried again.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// What is declared.
pub enum Declared {
    /// Nothing.
    Nothing,
    /// What is declared cannot be read.
    Unreadable {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// A set of migrations, and the files that it was read from.
    Set {
        /// The migrations.
        set: MigrationSet,
        /// The files, as each ConfigMap has them.
        parts: Vec<BTreeMap<String, String>>,
    },
}

/// How far the migrations are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// None are declared.
    NotDeclared,
    /// They cannot start yet.
    Waiting {
        /// A reason of `api::conditions::reason`.
        reason: &'static str,
        /// What they wait for.
        message: String,
    },
    /// The Job is under way.
    Running,
    /// The ledger says that the schema is at its target.
    Applied,
    /// A dry run said what would be run.
    Planned(MigrationPlan),
    /// The Job ended in vain, and trying again would too.
    Failed {
        /// A reason of `api::conditions::reason`.
        reason: String,
        /// The file, the SQLSTATE, and what to do.
        message: String,
    },
}

/// Reads what is declared.
///
/// # Errors
/// Whatever the API server said; a missing ConfigMap is not an error.
pub async fn declared(context: &Context, database: &Database) -> Result<Declared, Error> {
    let Some(migrations) = &database.migrations else { return Ok(Declared::Nothing) };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let mut parts: Vec<BTreeMap<String, Vec<u8>>> = Vec::new();
    for name in &migrations.config_maps {
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
    let files = parts.iter().flatten().map(|(name, content)| (name.clone(), content.clone()));
    Ok(match source::parse(files) {
        // What is not UTF-8 was refused, in whichever field it was.
        Ok(set) => {
            let text = |(name, bytes)| Some((name, String::from_utf8(bytes).ok()?));
            let parts = parts.into_iter().map(|part| part.into_iter().filter_map(text).collect()).collect();
            Declared::Set { set, parts }
        }
        Err(error) => {
            let message = format!("ConfigMap {}: {error}", migrations.config_maps.join(", "));
            Declared::Unreadable { reason: error.reason(), message }
        }
    })
}

/// Brings the migrations a step further. `ledger` is what the primary says, if there is one
/// whose credentials were proved. `settled`: status says of this very spec that it is applied.
///
/// # Errors
/// Whatever the API server said.
pub async fn advance(
    context: &Context,
    database: &Database,
    declared: &Declared,
    ledger: Option<Option<&LedgerReport>>,
    settled: bool,
    now: Timestamp,
) -> Result<Progress, Error> {
    let (set, parts) = match declared {
        Declared::Nothing => return Ok(Progress::NotDeclared),
        Declared::Unreadable { reason, message } => {
            return Ok(Progress::Waiting { reason, message: message.clone() });
        }
        Declared::Set { set, parts } => (set, parts),
    };
    let Some(migrations) = &database.migrations else { return Ok(Progress::NotDeclared) };
    let (revision, policy) = (set.revision.as_str(), &migrations.policy);
    let Some(ledger) = ledger else {
        let message = "the migrations start once the primary answers and its credentials are proved".to_owned();
        return Ok(Progress::Waiting { reason: reason::PROGRESSING, message });
    };
    let name = database.names().migration_job(&policy.run(revision));
    let copies = migration::copy_names(database.names(), revision, parts);
    let kept: Vec<String> = copies.iter().chain([&name]).cloned().collect();
    if ledger.is_some_and(|ledger| ledger.revision == Some(policy.goal(revision))) {
        // A Job of another target may still wait for its turn.
        if !settled {
            remove_others(context, database, &kept).await?;
        }
        return Ok(Progress::Applied);
    }
    match job_state(&context.client, database.names(), &name).await? {
        JobState::Absent => {
            if let Some(waits) = dependencies::look(context, database, &migrations.depends_on).await? {
                return Ok(waits);
            }
            remove_others(context, database, &kept).await?;
            for planned in migration::config_maps(database, &copies, parts) {
                apply(context, &database.owner, &planned).await?;
            }
            let job = migration::job(database, &context.options, revision, policy, &copies);
            apply(context, &database.owner, &job).await?;
            Ok(Progress::Running)
        }
        JobState::Running => Ok(Progress::Running),
        JobState::Succeeded(ended) => {
            if policy.dry_run
                && let Some(plan) = outcome_of(context, database, &name).await?.and_then(|outcome| outcome.plan)
            {
                let nothing = plan.apply == 0 && plan.roll_back == 0 && plan.record == 0;
                return Ok(if nothing { Progress::Applied } else { Progress::Planned(plan) });
            }
            // The ledger is the truth. If it still says otherwise after a while, another
            // revision was applied since this Job ran: run it again, it will tell.
            if now.duration_since(ended) > LEDGER_PATIENCE {
                remove_job(context, database, &name).await?;
            }
            Ok(Progress::Running)
        }
        JobState::Failed(job) => after_failure(context, database, &job, now).await,
    }
}

async fn after_failure(context: &Context, database: &Database, job: &Job, now: Timestamp) -> Result<Progress, Error> {
    let name = job.name_any();
    let failed_at = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == "Failed")
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map_or(now, |time| time.0);
    let failure = outcome_of(context, database, &name).await?.and_then(|outcome| outcome.failure);
    let transient = failure.as_ref().is_none_or(|failure| failure.transient);
    if transient && now.duration_since(failed_at) > RETRY_AFTER {
        remove_job(context, database, &name).await?;
        return Ok(Progress::Running);
    }
    Ok(match failure {
        Some(failure) if !failure.transient => {
            let again = format!("a changed file runs by itself; to run the same ones again, kubectl delete job {name}");
            Progress::Failed { message: format!("{} ({again})", describe(&failure)), reason: failure.reason }
        }
        Some(failure) => Progress::Waiting { reason: reason::MIGRATIONS_RUNNING, message: describe(&failure) },
        None => Progress::Waiting {
            reason: reason::MIGRATIONS_RUNNING,
            message: format!(
                "the Job {name} ended without a word; it will be tried again (see kubectl describe job {name})"
            ),
        },
    })
}

/// What the Job's last pod said as it ended.
async fn outcome_of(context: &Context, database: &Database, job: &str) -> Result<Option<Outcome>, Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let pods = api.list(&ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"))).await?;
    let mut newest: Vec<_> = pods.items.iter().collect();
    newest.sort_by_key(|pod| pod.creation_timestamp());
    let message = newest.iter().rev().find_map(|pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        status.state.as_ref()?.terminated.as_ref()?.message.clone()
    });
    Ok(message.and_then(|text| serde_json::from_str(&text).ok()))
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

async fn remove_job(context: &Context, database: &Database, name: &str) -> Result<(), Error> {
    let named = Planned::new::<Job>(&database.owner, name.to_owned(), json!({}));
    delete(&context.client, &database.owner, &named).await.map(drop)
}

/// Removes Jobs and ConfigMaps of other runs. A Job may be stopped in the middle of a file:
/// one in a transaction leaves nothing, and of one without the ledger knows that it was begun.
async fn remove_others(context: &Context, database: &Database, kept: &[String]) -> Result<(), Error> {
    let (client, names) = (&context.client, database.names());
    let labels = format!("{LABEL_NAME}={},app.kubernetes.io/component={}", names.name, migration::COMPONENT);
    for api in [erased::<Job>(client, &names.namespace), erased::<ConfigMap>(client, &names.namespace)] {
        for live in api.list(&ListParams::default().labels(&labels)).await?.items {
            let ours = controller_uid(&live.metadata) == Some(database.owner.uid.as_str());
            if ours && !kept.contains(&live.name_any()) {
                delete_exactly(&api, &live).await?;
            }
        }
    }
    Ok(())
}
