//! `servicedb agent --pooler`: runs in every pooler pod, as the parent of PgBouncer.
//!
//! It writes PgBouncer's configuration to the pod's memory, lets it run, reloads what changes
//! (settings, peers, certificates), holds queries during planned changes, answers the kubelet, and ends
//! in an order in which no client is cut within a transaction. It has no password: PgBouncer logs in to
//! PostgreSQL by client certificate, and its clients' logins pass through.

mod certificates;
mod config;
mod console;
mod environment;
mod hold;
mod list;
mod metrics;
mod orders;
mod peers;
mod probes;
mod process;
mod report;
mod server;

pub use list::list;

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::contract::pooler::{DRAIN_SECONDS, GRACE_SECONDS};
use environment::Environment;
use orders::Orders;
use probes::State;

/// Runs until the kubelet stops the pod.
pub async fn run() -> ExitCode {
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the pooler cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    // 1. The identity of this pod, and the end of it.
    let environment = Environment::read()?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| text(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| text(&error))?;
    let mut kube = kube::Config::incluster().map_err(|error| text(&error))?;
    kube.connect_timeout = Some(Duration::from_secs(5));
    let client = kube::Client::try_from(kube).map_err(|error| text(&error))?;
    // 2. Answer the kubelet.
    let state = watch::Sender::new(State::starting());
    probes::serve(state.clone()).await.map_err(|error| text(&error))?;
    // 3. The settings: from the mounted file, then from the API server.
    let mut orders = orders::follow(&environment, client.clone());
    let settings = orders::first(&mut orders).await;
    // 4. PgBouncer.
    let peers = peers::follow(&environment);
    config::write(&environment, &settings, &peers.borrow()).map_err(|error| text(&error))?;
    let pooler = process::supervise(state.clone());
    let reporter = report::start(&environment, client);
    tokio::spawn(reload(environment.clone(), orders.clone(), peers, pooler.clone()));
    tokio::spawn(certificates::follow(pooler.clone()));
    tokio::spawn(server::prove(environment.clone(), reporter.clone(), state.clone()));
    if !environment.replicas {
        tokio::spawn(hold::follow(environment.clone(), orders, pooler.clone(), reporter.clone(), state.clone()));
    }
    // 5. Until the end.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down: the Services lead to other pods now");
    state.send_modify(|state| state.ending = true);
    tokio::time::sleep(Duration::from_secs(DRAIN_SECONDS)).await;
    // 6. No new connection; the process ends with its last transaction, and cuts idle clients then.
    pooler.end(Duration::from_secs(GRACE_SECONDS - 2 * DRAIN_SECONDS)).await;
    reporter.leave().await;
    Ok(())
}

/// Writes the configuration again when settings or peers have changed, and has PgBouncer reload it.
async fn reload(
    environment: Environment,
    mut orders: watch::Receiver<Orders>,
    mut peers: watch::Receiver<Vec<std::net::IpAddr>>,
    pooler: process::Handle,
) {
    let mut written = orders.borrow().settings.clone();
    loop {
        let only_orders = tokio::select! {
            changed = orders.changed() => changed.is_ok(),
            changed = peers.changed() => { if changed.is_err() { return }; false }
        };
        let settings = orders.borrow_and_update().settings.clone();
        if only_orders && settings == written {
            continue;
        }
        let Some(now) = settings.clone() else { continue };
        match config::write(&environment, &now, &peers.borrow_and_update()) {
            Ok(()) => {
                written = settings;
                pooler.reload();
            }
            Err(error) => tracing::error!(%error, "the configuration cannot be written"),
        }
    }
}
