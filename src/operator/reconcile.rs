//! The driver: observe → validate → plan → apply → status, as numbered steps. What is
//! missing is waited for by watches, never by sleeping here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use kube::ResourceExt;
use kube::runtime::controller::Action;
use rand::Rng;

use super::apply::{apply, ensure_absent};
use super::context::Context;
use super::error::Error;
use super::migrations::{self, Declared};
use super::observe::{self, Observation};
use super::plan::{self, Inputs, RoleIds};
use super::status::{Findings, Word};
use super::validate::{Database, validate};
use super::{cleanup, credentials, publish, secrets, vault_objects};
use crate::api::ServiceDatabase;
use crate::api::conditions::reason;
use crate::api::names::{FINALIZER, Names};

/// How soon a database is looked at again that waits for what no watch tells.
const WAITING: Duration = Duration::from_secs(15);
/// The same while Vault fails: agents and operator find out by asking.
const VAULT_FAILING: Duration = Duration::from_secs(5);

/// Reconciles one ServiceDatabase once.
///
/// # Errors
/// Whatever is to be tried again with backoff; status has been written where it could be.
pub async fn reconcile(resource: Arc<ServiceDatabase>, context: Arc<Context>) -> Result<Action, Error> {
    // 1. Deletion goes first and does not look at spec: a bad spec must not block it.
    if resource.metadata.deletion_timestamp.is_some() {
        return cleanup::clean_up(&context, &resource).await;
    }
    // 2. The finalizer is there before anything outside of the resource is.
    if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        cleanup::add_finalizer(&context, &resource).await?;
        return Ok(Action::await_change());
    }
    // 3. What is.
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    let observed = observe::observe(&context, &names, &uid).await?;

    // 4. What shall be.
    let mut findings = Findings {
        resource: &resource,
        options: &context.options,
        database: None,
        observed: &observed,
        stalled: None,
        failed: None,
        vault: None,
        credential_generation: observed.desired.as_ref().map_or(1, |desired| desired.credential_generation),
        progress: None,
        declared: None,
        now: context.now(),
    };
    let database = match validate(&resource, &context.options) {
        Ok(database) => database,
        Err(invalid) => {
            findings.stalled = Some(Word::yes(invalid.reason, invalid.message));
            publish::status(&context, &findings).await?;
            return Ok(resync(&context));
        }
    };
    findings.database = Some(&database);
    if resource.spec.paused {
        findings.stalled = Some(Word::yes(reason::PAUSED, "spec.paused is true: set it to false to go on"));
        publish::status(&context, &findings).await?;
        return Ok(resync(&context));
    }
    if let Some(word) = retained(&database, &observed) {
        findings.stalled = Some(word);
        publish::status(&context, &findings).await?;
        // Volume claims are not watched, and what to do about them was just told.
        return Ok(Action::requeue(jittered(WAITING)));
    }

    // 5. Make it so.
    let declared = migrations::declared(&context, &database).await?;
    if let Declared::Set { set, .. } = &declared {
        findings.declared = Some(set);
    }
    let made = bring_about(&context, &database, &observed, &declared, &mut findings).await;

    // 6. Tell.
    let outcome = match made {
        Ok(()) => Ok(()),
        Err(error @ Error::ObjectConflict { .. }) => {
            findings.stalled = Some(Word::yes(error.reason(), error.to_string()));
            Ok(())
        }
        Err(error) => {
            findings.failed = Some(Word::no(error.reason(), error.to_string()));
            Err(error)
        }
    };
    let vault_failing = findings.vault.as_ref().is_some_and(|word| !word.holds);
    let ready = publish::status(&context, &findings).await?;
    outcome?;
    Ok(if vault_failing {
        Action::requeue(jittered(VAULT_FAILING))
    } else if ready {
        resync(&context)
    } else {
        Action::requeue(jittered(WAITING))
    })
}

/// Data of an earlier resource of this name is never taken without being asked.
fn retained(database: &Database, observed: &Observation) -> Option<Word> {
    let claims = observed.retained_claims(&database.owner.uid);
    if claims.is_empty() {
        let lost = observed.initialized && !observed.foreign_config && observed.volume_claims.is_empty();
        return (lost && observed.stateful_set.is_none()).then(|| {
            let message = "the database was initialised, and none of its volumes is left: restore them, or delete and re-create this resource to start empty";
            Word::yes(reason::DATA_LOST, message)
        });
    }
    let message = format!(
        "the volume claims {} hold the data of an earlier ServiceDatabase {}: delete them to start empty (adopting them is not supported yet)",
        claims.join(", "),
        database.names().name,
    );
    Some(Word::yes(reason::RETAINED_DATA_FOUND, message))
}

async fn bring_about(
    context: &Context,
    database: &Database,
    observed: &Observation,
    declared: &Declared,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    // a. Leftovers of an earlier resource whose volumes are gone share the volumes' fate.
    if observed.foreign_config {
        cleanup::remove_stamped_leftovers(context, database).await?;
    }
    // b. Vault, and beside it the certificates, which do not need it. Only what was looked at
    //    may be remembered as seen: Secrets have dates, and are looked at for these, too.
    let unseen = !context.memory.secrets_seen(&database.owner.uid);
    let (vault, certified) = tokio::join!(in_vault(context, database, observed, unseen), async {
        if unseen { secrets::ensure_tls(&context.client, &database.owner, findings.now).await } else { Ok(()) }
    });
    certified?;
    let prepared = match vault {
        Ok(prepared) => {
            if unseen {
                context.memory.saw_secrets(&database.owner.uid);
            }
            findings.vault = Some(Word::yes(reason::AVAILABLE, "Vault answers"));
            Some(prepared)
        }
        Err(Error::Vault(error)) => {
            context.memory.doubt_vault(&database.owner.uid);
            findings.vault = Some(Word::no(error.reason(), error.to_string()));
            // A database that was given its role_ids before goes on without Vault.
            remembered(observed)
        }
        Err(error) => return Err(error),
    };
    let Some(prepared) = prepared else { return Ok(()) };
    findings.credential_generation = prepared.generation;

    // c. Everything that does not run, then the workload.
    let inputs = Inputs {
        options: &context.options,
        vault_ca: context.vault_ca.as_deref(),
        role_ids: prepared.role_ids,
        credential_generation: prepared.generation,
    };
    let supporting = plan::supporting(database, &inputs);
    let applied = join_all(supporting.iter().map(|planned| apply(context, &database.owner, planned))).await;
    for result in applied {
        context.metrics.applied(result?);
    }
    try_join_all(plan::unwanted(database).iter().map(|planned| ensure_absent(context, &database.owner, planned)))
        .await?;
    for planned in [plan::binding(database), plan::workload(database, &context.options)] {
        context.metrics.applied(apply(context, &database.owner, &planned).await?);
    }

    // d. The migrations, once there is a primary whose credentials were proved.
    let report = observed.primary().and_then(|pod| pod.report.as_ref());
    let proved = report.filter(|report| {
        report.credentials.as_ref().is_some_and(|credentials| credentials.generation >= prepared.generation)
    });
    let ledger = proved.map(|report| report.ledger.as_ref());
    let progress = migrations::advance(context, database, declared, ledger, findings.now).await?;
    findings.progress = Some(progress);
    Ok(())
}

/// What Vault gave: the role_ids and the credential generation.
struct Prepared {
    role_ids: RoleIds,
    generation: i64,
}

async fn in_vault(
    context: &Context,
    database: &Database,
    observed: &Observation,
    secrets_unseen: bool,
) -> Result<Prepared, Error> {
    if !context.memory.vault_answered_lately() {
        context.vault.health().await?;
        context.memory.vault_answered();
    }
    let role_ids = vault_objects::ensure(context, database).await?;
    let generation = credentials::generation(context, database, observed).await?;
    let promoted = observed
        .primary()
        .and_then(|pod| pod.report.as_ref()?.credentials.as_ref())
        .map_or(0, |credentials| credentials.generation);
    let (client, vault, owner) = (&context.client, context.vault.as_ref(), &database.owner);
    let (names, now) = (database.names(), context.now());
    let (instance, migrator) = (names.instance_approle(), names.migrator());
    let (instance_role, migrator_role) = (database.vault.instance(), database.vault.migrator());
    credentials::ensure_pending(context, database, generation, promoted).await?;
    if secrets_unseen {
        // Both to their end: a secret_id whose Secret is not written any more, because the
        // other failed, would be one more in Vault with each try.
        let (for_instance, for_migrator) = tokio::join!(
            secrets::ensure_secret_id(client, vault, owner, &instance, &instance_role, &role_ids.instance, now),
            secrets::ensure_secret_id(client, vault, owner, &migrator, &migrator_role, &role_ids.migrator, now),
        );
        for_instance.and(for_migrator)?;
    }
    Ok(Prepared { role_ids, generation })
}

fn remembered(observed: &Observation) -> Option<Prepared> {
    let (instance, migrator) = observed.role_ids.clone();
    let generation = observed.desired.as_ref()?.credential_generation;
    Some(Prepared { role_ids: RoleIds { instance: instance?, migrator: migrator? }, generation })
}

fn resync(context: &Context) -> Action {
    Action::requeue(jittered(Duration::from_secs(context.options.resync_seconds)))
}

/// From four fifths to six fifths of a time, so that a fleet does not come at once.
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.8..1.2))
}
