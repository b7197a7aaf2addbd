//! What the leader does, for as long as it leads: the old primary's label, the shared
//! settings, roles and rights, credentials, the ledger. Everything is idempotent, and
//! dropped at any point when the lead is lost.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use tokio::sync::watch;

use super::credentials::{CredentialsError, Run, authorities, fingerprint, remembered};
use super::desired::{self, DesiredState, changed};
use super::ensure;
use super::environment::Environment;
use super::extensions::Places;
use super::ledger;
use super::patroni::rest;
use super::records::{RecordsError, Source};
use super::report::{Area, Reporter};
use super::{dynamic, slots};
use crate::api::conditions::reason;
use crate::api::names::{LABEL_ROLE, LABEL_SCOPE, ROLE_PRIMARY};
use crate::backoff::Backoff;
use crate::contract::desired::Desired;
use crate::contract::pod::SOCKET_DIR;

/// When Patroni is woken after the lead was taken: once it has written the members of failsafe
/// mode, and once more should the first wake have come before that.
const FAILSAFE_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// How often it is looked whether somebody changed a login in the database.
const LOOK_AT_LOGINS: Duration = Duration::from_secs(15);

/// Credentials that were found to be, or made, as they must be.
struct Settled {
    /// The desired generation that this answers.
    wanted: i64,
    /// The generation in Vault, which may be ahead of it.
    generation: i64,
    /// The logins as the database has them.
    logins: String,
    /// The authorities of the server's certificate, which the records name.
    authorities: Option<String>,
}

impl Settled {
    /// Whether they answer this desired state.
    fn answers(&self, desired: &Desired) -> bool {
        self.wanted == desired.credential_generation && !self.knows_other_authorities(desired)
    }

    /// Whether the authorities are others. Files that cannot be read are being exchanged.
    fn knows_other_authorities(&self, desired: &Desired) -> bool {
        authorities(desired).is_ok_and(|now| Some(now) != self.authorities)
    }
}

/// Patroni goes on without the API server only once it has read back the members that it wrote as
/// the leader. Its next loop would do so, up to ten seconds later; an API server that stops
/// meanwhile demotes a primary that nobody could replace.
async fn hasten_failsafe() {
    for wait in FAILSAFE_AFTER {
        tokio::time::sleep(wait).await;
        while let Err(error) = rest::wake().await {
            tracing::debug!(%error, "Patroni cannot be woken; trying again");
            tokio::time::sleep(wait).await;
        }
    }
}

/// The leader's work.
#[derive(Clone)]
pub struct Leader {
    /// This pod.
    pub environment: Environment,
    /// The API server.
    pub client: kube::Client,
    /// The desired state.
    pub desired: DesiredState,
    /// Vault's records.
    pub records: Source,
    /// Where progress is told.
    pub reporter: Reporter,
}

impl Leader {
    /// Leads until dropped.
    pub async fn lead(self) {
        let (ensured, is_ensured) = watch::channel(false);
        tokio::join!(
            self.take_label_off_others(),
            hasten_failsafe(),
            dynamic::keep(&self.environment, self.desired.clone(), &self.reporter),
            slots::keep(&self.environment, self.desired.clone()),
            slots::let_give_way(),
            self.keep_ensured(ensured),
            self.keep_credentials(is_ensured.clone()),
            self.keep_ledger(is_ensured),
        );
    }

    /// A pod relabels only itself, and a dead one does not: without this, the Service would
    /// keep sending writes to it.
    async fn take_label_off_others(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.environment.names.namespace);
        let selector = format!("{LABEL_SCOPE}={},{LABEL_ROLE}={ROLE_PRIMARY}", self.environment.names.base());
        let no_label = serde_json::json!({ "metadata": { "labels": { LABEL_ROLE: null } } });
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let result = async {
                let found = pods.list_metadata(&ListParams::default().labels(&selector)).await?;
                let others = found.items.iter().filter_map(|pod| pod.metadata.name.as_deref());
                let patches = others.filter(|name| *name != self.environment.pod).map(|name| {
                    tracing::info!(pod = name, "taking the primary's label off the former primary");
                    let params = PatchParams::default();
                    let no_label = Patch::Merge(&no_label);
                    let pods = &pods;
                    async move { pods.patch_metadata(name, &params, &no_label).await }
                });
                join_all(patches).await.into_iter().collect::<Result<Vec<_>, _>>()
            };
            match result.await {
                Ok(_) => return,
                Err(error) => tracing::warn!(%error, "the former primary's label cannot be taken off; trying again"),
            }
            backoff.wait().await;
        }
    }

    /// Keeps roles, database, rights and extensions. What they do not depend on, such as a new
    /// generation of the credentials, is no cause to look: both would change the same rows.
    async fn keep_ensured(&self, ensured: watch::Sender<bool>) {
        let mut state = self.desired.clone();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
        let mut done = None;
        loop {
            let desired = desired::first(&mut state).await;
            let wanted = Some((desired.database.clone(), desired.extensions.clone()));
            if done == wanted {
                changed(&mut state).await;
                continue;
            }
            let names = self.environment.names.postgres(&desired.database);
            match ensure::everything(SOCKET_DIR, &names, &desired.extensions, &Places::new()).await {
                Ok(problems) => {
                    done = wanted;
                    ensured.send_replace(true);
                    backoff.reset();
                    let trouble = (!problems.is_empty()).then(|| (reason::INVALID_SPEC, problems.join("; ")));
                    self.reporter.trouble(Area::Ensure, trouble);
                }
                Err(error) => {
                    tracing::warn!(%error, "roles and rights are not ensured yet");
                    self.reporter.trouble(Area::Ensure, Some((reason::PROGRESSING, error.to_string())));
                    backoff.wait().await;
                }
            }
        }
    }

    /// Keeps the credentials settled: at every promotion, at every new generation, and when
    /// somebody changed a login in the database.
    async fn keep_credentials(&self, mut ensured: watch::Receiver<bool>) {
        let _ = ensured.wait_for(|ensured| *ensured).await;
        let mut state = self.desired.clone();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        let mut settled: Option<Settled> = None;
        loop {
            let desired = desired::first(&mut state).await;
            if let Some(known) = settled.as_ref().filter(|known| known.answers(&desired)) {
                tokio::select! {
                    () = changed(&mut state) => {}
                    () = self.something_changes(&desired, known) => settled = None,
                }
                continue;
            }
            match self.settle_credentials(&desired).await {
                Ok(now) => {
                    settled = Some(now);
                    backoff.reset();
                    self.reporter.vault(Ok(()));
                    self.reporter.trouble(Area::Credentials, None);
                }
                Err(error) => {
                    tracing::warn!(%error, "the credentials are not settled yet");
                    self.tell(&error);
                    tokio::select! {
                        () = backoff.wait() => {}
                        () = changed(&mut state) => backoff.reset(),
                    }
                }
            }
        }
    }

    async fn settle_credentials(&self, desired: &Desired) -> Result<Settled, CredentialsError> {
        let connection = ensure::connect("postgres").await?;
        let client = &connection.client;
        // What is known without Vault is told without Vault.
        if let Some(known) = remembered(client).await? {
            self.reporter.update(|report| report.credentials = Some(known));
        }
        let records = self.records.open().await?;
        let run = Run { environment: &self.environment, desired, records: &records, client };
        let report = run.settle().await?;
        let names = self.environment.names.postgres(&desired.database);
        let settled = Settled {
            wanted: desired.credential_generation,
            generation: report.generation,
            logins: fingerprint(client, &names, report.generation).await?,
            authorities: authorities(desired).ok(),
        };
        self.reporter.update(|report_of_pod| report_of_pod.credentials = Some(report));
        Ok(settled)
    }

    /// Resolves when a login in the database is not as it was left, or the authority is another;
    /// it asks the database alone, so it costs Vault nothing.
    async fn something_changes(&self, desired: &Desired, known: &Settled) {
        let names = self.environment.names.postgres(&desired.database);
        loop {
            tokio::time::sleep(LOOK_AT_LOGINS).await;
            if known.knows_other_authorities(desired) {
                tracing::info!("the certificate authorities are others; the records in Vault follow");
                return;
            }
            let now = async {
                let connection = ensure::connect("postgres").await?;
                fingerprint(&connection.client, &names, known.generation).await
            };
            match now.await {
                Ok(now) if now != known.logins => {
                    tracing::warn!("somebody changed a login in the database; what Vault holds is set again");
                    return;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the logins cannot be looked at"),
            }
        }
    }

    fn tell(&self, error: &CredentialsError) {
        let reason = match error {
            CredentialsError::Records(RecordsError::Vault(vault)) => {
                self.reporter.vault(Err(vault));
                vault.reason()
            }
            CredentialsError::Lost { .. } => reason::CREDENTIALS_LOST,
            _ => reason::CREDENTIALS_PENDING,
        };
        self.reporter.trouble(Area::Credentials, Some((reason, error.to_string())));
    }

    /// Keeps the report of the ledger.
    async fn keep_ledger(&self, mut ensured: watch::Receiver<bool>) {
        let _ = ensured.wait_for(|ensured| *ensured).await;
        let mut state = self.desired.clone();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let desired = desired::first(&mut state).await;
            if let Err(error) = ledger::follow(&desired.database, &self.reporter).await {
                tracing::warn!(%error, "the ledger cannot be followed; trying again");
            }
            backoff.wait().await;
        }
    }
}
