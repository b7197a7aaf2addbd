//! The agent: runs in every database pod, as the parent of Patroni.
//!
//! It makes the database once, lets Patroni run it, stops it when Patroni cannot, answers the
//! kubelet, reports to the operator, and does what only the leader's pod can do. The driver
//! below reads as numbered steps; each step is a file.

mod certificates;
mod credentials;
mod desired;
mod dynamic;
pub mod ensure;
mod environment;
pub mod extensions;
mod files;
mod first_start;
mod handover;
mod initialise;
mod lag;
mod leader;
mod lease;
pub mod ledger;
mod member;
mod memory;
mod orders;
mod patroni;
mod pod;
mod postmaster;
mod probes;
mod rebuild;
mod records;
mod report;
mod secret_id;
mod server;
mod sessions;
mod settings;
mod slots;
mod stall;
mod standby;
mod state;
pub mod statement;
mod volume;
mod wal_on_leader;
mod watchdog;

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use desired::DesiredState;
use environment::Environment;
use initialise::{Initialiser, Outcome};
use leader::Leader;
use patroni::process::{Handle, Order, Prepared};
use patroni::rest;
use probes::Readiness;
use report::{Area, Reporter};
use state::State;

use crate::contract::report::{Phase, Role};

/// How long PostgreSQL has to shut down; the pod is given a minute, of which the checkpoint before
/// may take ten seconds.
const SHUTDOWN: Duration = Duration::from_secs(45);

/// Runs until the pod is told to stop.
pub async fn run() -> ExitCode {
    match Agent::start().await {
        Ok((agent, end)) => agent.run(end).await,
        Err(error) => {
            tracing::error!(%error, "the agent cannot start");
            ExitCode::FAILURE
        }
    }
}

/// What cannot go on without the pod being changed or restarted.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Environment(#[from] environment::EnvironmentError),
    #[error("the ServiceAccount's way to the API server is not readable: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    #[error("the API server's client: {0}")]
    Kubernetes(#[from] kube::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

struct Agent {
    environment: Environment,
    client: kube::Client,
    own: pod::OwnPod,
    reporter: Reporter,
    readiness: watch::Sender<Readiness>,
    desired: DesiredState,
    records: records::Source,
}

/// The kubelet's wish that this ends.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Agent {
    /// Steps 1 to 3: who, how to tell, what shall be.
    async fn start() -> Result<(Self, End), StartError> {
        // 1. Who this pod is.
        let environment = Environment::read()?;
        let end = End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        // 2. Tell that it has started, and answer the kubelet.
        let mut config = kube::Config::incluster()?;
        config.connect_timeout = Some(Duration::from_secs(5));
        let client = kube::Client::try_from(config)?;
        let own = pod::follow(&environment, client.clone());
        let reporter = Reporter::start(&environment, client.clone(), own.clone());
        tokio::spawn(secret_id::follow(reporter.clone()));
        tokio::spawn(volume::follow(environment.pod.clone(), reporter.clone()));
        let (readiness, asked) = watch::channel(Some("the agent has started"));
        probes::serve(asked).await?;
        // 3. Learn what it shall be.
        let desired = desired::follow(&environment, client.clone());
        tokio::spawn(memory::follow(environment.pod.clone(), desired.clone(), reporter.clone()));
        let records = records::Source::default();
        Ok((Self { environment, client, own, reporter, readiness, desired, records }, end))
    }

    async fn run(self, mut end: End) -> ExitCode {
        // 4. Have the volume alone; load Patroni while there is other work: it takes longer than initdb.
        // 5. Make the database, if it is this pod's to make.
        let prepared = tokio::select! {
            prepared = async {
                let volume = volume::lock().await?;
                Ok::<_, std::io::Error>((volume, self.prepare().await?))
            } => prepared,
            () = end.told() => {
                self.reporter.update(|report| report.phase = Phase::Stopping);
                return ExitCode::SUCCESS;
            }
        };
        let (_volume, (prepared, leaving)) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::error!(%error, "the database cannot be prepared");
                return ExitCode::FAILURE;
            }
        };
        // 6. Let Patroni run it, under the watchdog.
        let certificates = certificates::present();
        let (patroni, patroni_ended) = patroni::process::supervise(prepared, self.reporter.clone());
        tokio::spawn(certificates::follow(patroni.clone(), self.reporter.clone(), certificates));
        tokio::spawn(sessions::follow(self.environment.clone(), self.desired.clone(), self.reporter.clone()));
        tokio::spawn(dynamic::mend(self.environment.clone(), self.desired.clone(), self.reporter.clone()));
        tokio::spawn(orders::follow(self.environment.clone(), self.desired.clone(), self.reporter.clone()));
        tokio::spawn(member::follow(self.environment.clone(), self.desired.clone(), patroni.clone(), leaving));
        // 7. Follow what becomes of it, and lead while it leads.
        tokio::select! {
            () = self.follow(&patroni) => {}
            () = end.told() => {}
        }
        // 8. Shut down.
        self.stop(patroni, patroni_ended).await
    }

    /// Patroni, and whether it was told that this instance is about to go.
    async fn prepare(&self) -> std::io::Result<(Prepared, bool)> {
        let prepared = Prepared::new()?;
        let initialiser = Initialiser {
            environment: &self.environment,
            client: self.client.clone(),
            desired: self.desired.clone(),
            records: &self.records,
            reporter: &self.reporter,
        };
        let outcome = initialiser.run().await?;
        let desired = desired::first(&mut self.desired.clone()).await;
        patroni::config::write(&self.environment, &desired)?;
        self.reporter.update(|report| report.phase = Phase::StartingPostgres);
        if outcome == Outcome::Made {
            first_start::run().await;
        }
        Ok((prepared, self.environment.is_leaving(&desired)))
    }

    async fn follow(&self, patroni: &Handle) {
        let mut server = server::follow();
        tokio::spawn(standby::follow(server.clone(), self.desired.clone()));
        tokio::spawn(rebuild::follow(self.environment.pod.clone(), server.clone()));
        let mut standbys = standby::watch(server.clone());
        let mut behind = lag::follow(self.environment.clone(), self.client.clone(), server.clone());
        let (mut seen, attention) = watchdog::start(patroni.clone(), self.desired.clone());
        let mut stalled = stall::follow(self.stall_watch(server.clone(), patroni.clone()));
        let roles = watch::Sender::new(None);
        tokio::spawn(pod::keep_role(self.own.clone(), roles.subscribe()));
        let mut state = State::default();
        let mut leading: Option<JoinHandle<()>> = None;
        loop {
            let had_server = state.readiness().is_none();
            state.see(server.borrow_and_update().clone(), seen.borrow_and_update().clone());
            state.see_standbys(standbys.borrow_and_update().clone());
            state.see_lag(*behind.borrow_and_update(), self.maximum_lag());
            state.see_stall(*stalled.borrow_and_update());
            attention.set_busy(state.is_between_roles());
            if had_server && server.borrow().is_none() {
                wake_patroni();
            }
            self.readiness.send_replace(state.readiness());
            if server.borrow().is_some() {
                // It answers, whatever hindered it before.
                self.reporter.trouble(Area::Server, None);
            }
            match (state.role(), &leading) {
                (Some(Role::Primary), None) => leading = Some(tokio::spawn(self.leader().lead())),
                (Some(Role::Primary), Some(_)) => {}
                (_, Some(work)) => {
                    work.abort();
                    leading = None;
                    // These were the leader's, and the next one says them.
                    self.reporter.forget_leading();
                }
                (_, None) => {}
            }
            roles.send_if_modified(|role| std::mem::replace(role, state.role()) != state.role());
            self.reporter.update(|report| state.tell(report));
            tokio::select! {
                _ = server.changed() => {}
                _ = seen.changed() => {}
                _ = behind.changed() => {}
                _ = standbys.changed() => {}
                _ = stalled.changed() => {}
            }
        }
    }

    fn maximum_lag(&self) -> u64 {
        let declared = self.desired.borrow().as_ref().map_or(i64::MAX, |desired| desired.maximum_lag_bytes);
        u64::try_from(declared).unwrap_or_default()
    }

    fn stall_watch(&self, server: server::Seen, patroni: Handle) -> stall::Watch {
        stall::Watch {
            environment: self.environment.clone(),
            client: self.client.clone(),
            desired: self.desired.clone(),
            server,
            patroni,
            reporter: self.reporter.clone(),
        }
    }

    fn leader(&self) -> Leader {
        Leader {
            environment: self.environment.clone(),
            client: self.client.clone(),
            desired: self.desired.clone(),
            records: self.records.clone(),
            reporter: self.reporter.clone(),
        }
    }

    async fn stop(self, patroni: Handle, patroni_ended: JoinHandle<()>) -> ExitCode {
        tracing::info!("shutting down");
        handover::prepare(&self.environment, self.client.clone()).await;
        self.readiness.send_replace(Some("shutting down"));
        self.reporter.update(|report| report.phase = Phase::Stopping);
        // Patroni stops PostgreSQL, then gives the lease back, so that a replica leads at once.
        patroni.order(Order::Stop).await;
        if tokio::time::timeout(SHUTDOWN, patroni_ended).await.is_err() {
            tracing::error!("Patroni did not shut PostgreSQL down in time");
        }
        if postmaster::running().is_some() {
            postmaster::stop_at_once().await;
        }
        ExitCode::SUCCESS
    }
}

/// Patroni would notice the end of PostgreSQL at its next loop.
fn wake_patroni() {
    tokio::spawn(async {
        if let Err(error) = rest::wake().await {
            tracing::debug!(%error, "Patroni cannot be woken");
        }
    });
}
