//! The agent: runs in every database pod, as the parent of Patroni.
//!
//! It initialises the database once, lets Patroni run it, stops it when Patroni cannot, answers the
//! kubelet, reports to the operator, and does the leader's work. The driver below is a list of
//! numbered steps; each step is a file.

mod archive;
mod as_owner;
mod aside;
mod certificates;
pub mod clients;
pub mod collations;
mod credentials;
mod damage;
mod desired;
mod dynamic;
pub mod ensure;
mod environment;
pub mod extensions;
mod first_start;
mod handover;
mod initialise;
mod lag;
mod leader;
mod lease;
pub mod ledger;
mod lineage;
mod lone;
pub mod maintenance;
mod member;
mod memory;
pub mod metrics;
mod orders;
pub mod own_log;
mod patroni;
mod pod;
mod postmaster;
mod probes;
mod reader;
mod rebuild;
mod records;
mod report;
mod restore;
mod secret_id;
mod server;
mod server_log;
mod sessions;
mod settings;
mod slots;
mod stall;
mod standby;
mod state;
pub mod statement;
pub mod upgrade;
mod version;
mod volume;
mod wal_on_leader;
mod watchdog;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{self as signals, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use archive::Archive;
use desired::DesiredState;
use environment::Environment;
use initialise::{DataDirectory, Initialiser};
use leader::Leader;
use metrics::queries::Queries;
use metrics::{Followed, Metrics};
use patroni::process::{Handle, Prepared, Request};
use patroni::rest;
use probes::Readiness;
use report::{Area, Reporter};
use restore::in_place::{self, Start};
use server_log::ServerLog;
use state::State;

use crate::contract::report::{Phase, Role};

/// Runs until the kubelet stops the pod.
pub async fn run() -> ExitCode {
    let ended = match Agent::start().await {
        Ok((agent, end)) => agent.run(end).await,
        Err(error) => {
            tracing::error!(%error, "the agent cannot start");
            Ended::With(ExitCode::FAILURE)
        }
    };
    match ended {
        Ended::With(code) => code,
        Ended::ToStartAgain => {
            // What this process started would go on without anybody who knows it; the end of the container would end it.
            if let Err(error) = kill(Pid::from_raw(-1), signals::Signal::SIGKILL) {
                tracing::debug!(%error, "no other process was ended");
            }
            own_log::flush();
            // In place of this process: the kubelet would wait longer before each restart of the container.
            let error = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
            tracing::error!(%error, "the agent cannot start again");
            ExitCode::FAILURE
        }
    }
}

/// How the agent ended.
enum Ended {
    /// For good.
    With(ExitCode),
    /// PostgreSQL had to stop for a restore in place or a major upgrade, or is of another version than its data.
    ToStartAgain,
}

/// An error that only a change or a restart of the pod resolves.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Environment(#[from] environment::EnvironmentError),
    #[error("the ServiceAccount's configuration for the API server is not readable: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    #[error("the API server's client cannot be created: {0}")]
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
    archive: Archive,
    known: watch::Sender<Arc<maintenance::Known>>,
    log: ServerLog,
}

/// What this instance was started as.
struct Started {
    /// Patroni's configuration.
    configuration: serde_json::Value,
    /// The major version of its programs.
    major: u16,
}

/// The signals by which the kubelet ends the container.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Agent {
    /// Steps 1 to 3: identity, report, desired state.
    async fn start() -> Result<(Self, End), StartError> {
        // 1. The identity of this pod.
        let environment = Environment::read()?;
        let end = End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        let log = ServerLog::start()?;
        // 2. Report the start, and answer the kubelet.
        let mut config = kube::Config::incluster()?;
        config.connect_timeout = Some(Duration::from_secs(5));
        let client = kube::Client::try_from(config)?;
        let own = pod::follow(&environment, client.clone());
        let reporter = Reporter::start(&environment, client.clone(), own.clone());
        tokio::spawn(secret_id::follow(reporter.clone()));
        tokio::spawn(volume::follow(environment.pod.clone(), reporter.clone()));
        let (readiness, probed) = watch::channel(Some("the agent has started"));
        let metrics = Metrics::new(reporter.follow(), probed.clone());
        if Environment::has_metrics_over_tls() {
            metrics::tls::serve(metrics.router()).await?;
            probes::serve(probed, axum::Router::new()).await?;
        } else {
            probes::serve(probed, metrics.router()).await?;
        }
        // 3. Watch the desired state.
        let desired = desired::follow(&environment, client.clone());
        let (known, to_tell) = watch::channel(Arc::default());
        let capacity = metrics::capacity::follow(desired.clone(), reporter.clone());
        let namespace = &environment.names.namespace;
        let queries = Queries::follow(client.clone(), namespace, desired.clone(), reporter.clone());
        metrics.follow(Followed {
            names: environment.names.clone(),
            desired: desired.clone(),
            capacity,
            maintenance: to_tell,
            queries,
        });
        tokio::spawn(memory::follow(environment.pod.clone(), desired.clone(), reporter.clone()));
        let records = records::Source::default();
        let archive = archive::follow(desired.clone(), records.clone(), log.output());
        Ok((Self { environment, client, own, reporter, readiness, desired, records, archive, known, log }, end))
    }

    async fn run(self, mut end: End) -> Ended {
        // 4. Lock the volume; load Patroni meanwhile, which takes longer than initdb.
        // 5. Initialise the database, if this pod is the one to do it.
        let prepared = tokio::select! {
            prepared = async {
                let volume = volume::lock().await?;
                Ok::<_, std::io::Error>((volume, self.prepare().await?))
            } => prepared,
            () = end.received() => {
                self.reporter.update(|report| report.phase = Phase::Stopping);
                return Ended::With(ExitCode::SUCCESS);
            }
        };
        let (_volume, (prepared, start)) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::error!(%error, "the database cannot be prepared");
                return Ended::With(ExitCode::FAILURE);
            }
        };
        // 6. Let Patroni run it, under the watchdog.
        let certificates = certificates::present();
        let (patroni, patroni_ended) = patroni::process::supervise(prepared, self.reporter.clone(), self.log.output());
        tokio::spawn(certificates::follow(patroni.clone(), self.reporter.clone(), certificates));
        tokio::spawn(sessions::follow(self.environment.clone(), self.desired.clone(), self.reporter.clone()));
        tokio::spawn(clients::sessions::follow(self.environment.clone(), self.desired.clone()));
        tokio::spawn(dynamic::repair(self.environment.clone(), self.desired.clone(), self.reporter.clone()));
        tokio::spawn(orders::follow(self.environment.clone(), self.desired.clone(), self.reporter.clone()));
        tokio::spawn(member::follow(
            self.environment.clone(),
            self.desired.clone(),
            patroni.clone(),
            start.configuration,
        ));
        let (environment, reporter) = (self.environment.clone(), self.reporter.clone());
        tokio::spawn(in_place::follow(environment, self.desired.clone(), self.records.clone(), reporter.clone()));
        let held = in_place::must_stop(self.environment.pod.clone(), self.desired.clone(), reporter.clone());
        tokio::spawn(upgrade::follow(self.environment.clone(), self.desired.clone(), reporter.clone()));
        let upgraded = upgrade::must_stop(self.environment.pod.clone(), self.desired.clone(), reporter);
        let another_version = version::is_another(start.major, self.desired.clone());
        // 7. Follow its state, and do the leader's work while it leads.
        let starts_again = tokio::select! {
            () = self.follow(&patroni) => false,
            () = end.received() => false,
            () = held => true,
            () = upgraded => true,
            () = another_version => true,
        };
        // 8. Shut down. For a restore in place or an upgrade nobody limits the time; a shutdown that is broken off would end it.
        if starts_again {
            handover::checkpoint().await;
        }
        let code = self.stop(patroni, patroni_ended).await;
        let is_over = tokio::time::timeout(Duration::ZERO, end.received()).await.is_ok();
        if starts_again && !is_over { Ended::ToStartAgain } else { Ended::With(code) }
    }

    /// Patroni, and what its configuration says.
    async fn prepare(&self) -> std::io::Result<(Prepared, Started)> {
        let restored =
            in_place::settle(&self.environment, self.client.clone(), &self.desired, &self.archive, &self.reporter)
                .await?;
        let upgraded = upgrade::settle(&self.environment, &self.client, &self.desired, &self.reporter).await?;
        let is_primary = [restored, upgraded].contains(&Start::Restored);
        let prepared = Prepared::new(&self.log.output())?;
        let initialiser = Initialiser {
            environment: &self.environment,
            client: self.client.clone(),
            desired: self.desired.clone(),
            records: &self.records,
            reporter: &self.reporter,
        };
        let data_directory = initialiser.run().await?;
        let desired = desired::first(&mut self.desired.clone()).await;
        let configuration = patroni::config::write(&self.environment, &desired)?;
        self.reporter.update(|report| report.phase = Phase::StartingPostgres);
        if data_directory == DataDirectory::Initialised || is_primary {
            first_start::run(&self.log.output()).await;
        }
        let major = patroni::config::major(&desired);
        Ok((prepared, Started { configuration, major }))
    }

    async fn follow(&self, patroni: &Handle) {
        let (mut server, refusals) = server::follow();
        tokio::spawn(standby::follow(server.clone(), self.desired.clone()));
        let environment = self.environment.clone();
        tokio::spawn(rebuild::follow(environment, server.clone(), refusals, self.reporter.clone()));
        tokio::spawn(aside::follow(self.environment.pod.clone(), server.clone(), self.desired.clone()));
        let mut standbys = standby::watch(server.clone());
        let mut lag = lag::follow(self.environment.clone(), self.client.clone(), server.clone());
        let reader = lone::Reader::start(self.environment.clone(), self.client.clone());
        let (mut patroni_status, attention) = watchdog::start(patroni.clone(), self.desired.clone(), reader);
        let mut stalled = stall::follow(self.stall_watch(server.clone(), patroni.clone()));
        let roles = watch::Sender::new(None);
        tokio::spawn(pod::keep_role(self.own.clone(), roles.subscribe()));
        let mut state = State::default();
        let mut leading: Option<JoinHandle<()>> = None;
        loop {
            let had_server = state.readiness().is_none();
            state.update(server.borrow_and_update().clone(), patroni_status.borrow_and_update().clone());
            state.set_standbys(standbys.borrow_and_update().clone());
            state.set_lag(*lag.borrow_and_update(), self.maximum_lag());
            state.set_stall(*stalled.borrow_and_update());
            attention.set_busy(state.is_between_roles());
            if had_server && server.borrow().is_none() {
                wake_patroni();
            }
            self.readiness.send_replace(state.readiness());
            if server.borrow().is_some() {
                // It answers, so an earlier trouble is over.
                self.reporter.trouble(Area::Server, None);
            }
            match (state.role(), &leading) {
                (Some(Role::Primary), None) => leading = Some(tokio::spawn(self.leader().lead())),
                (Some(Role::Primary), Some(_)) => {}
                (_, Some(work)) => {
                    work.abort();
                    leading = None;
                    // These parts of the report are the leader's, and the next leader reports them.
                    self.reporter.forget_leading();
                }
                (_, None) => {}
            }
            roles.send_if_modified(|role| std::mem::replace(role, state.role()) != state.role());
            self.reporter.update(|report| state.write(report));
            tokio::select! {
                _ = server.changed() => {}
                _ = patroni_status.changed() => {}
                _ = lag.changed() => {}
                _ = standbys.changed() => {}
                _ = stalled.changed() => {}
            }
        }
    }

    fn maximum_lag(&self) -> u64 {
        let declared = self.desired.borrow().as_ref().map_or(i64::MAX, |desired| desired.maximum_lag_bytes);
        u64::try_from(declared).unwrap_or_default()
    }

    fn stall_watch(&self, server: server::FactsWatch, patroni: Handle) -> stall::Watch {
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
            archive: self.archive.clone(),
            known: self.known.clone(),
        }
    }

    async fn stop(self, patroni: Handle, patroni_ended: JoinHandle<()>) -> ExitCode {
        tracing::info!("shutting down");
        let until = handover::prepare(&self.environment, self.client.clone()).await;
        self.readiness.send_replace(Some("shutting down"));
        self.reporter.update(|report| report.phase = Phase::Stopping);
        // Patroni stops PostgreSQL, then gives the lease back, so that a replica leads at once.
        patroni.request(Request::Stop).await;
        if tokio::time::timeout_at(until, patroni_ended).await.is_err() {
            tracing::error!("Patroni did not shut PostgreSQL down in time");
        }
        if postmaster::running().is_some() {
            postmaster::stop_at_once().await;
        }
        self.log.end().await;
        ExitCode::SUCCESS
    }
}

/// Patroni would notice the end of PostgreSQL only in its next loop.
fn wake_patroni() {
    tokio::spawn(async {
        if let Err(error) = rest::wake().await {
            tracing::debug!(%error, "Patroni cannot be woken");
        }
    });
}
