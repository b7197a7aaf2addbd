//! The data gateway's program.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use servicedb_gateway::auth::Authenticator;
use servicedb_gateway::cache::Cache;
use servicedb_gateway::config::Config;
use servicedb_gateway::current::{self, Current};
use servicedb_gateway::database::{Connector, Pool};
use servicedb_gateway::grpc;
use servicedb_gateway::serve::{self, App, Bodies, Certificate, Metrics, Peers, Transactions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long the gateway goes on serving after the signal to end, while clients learn that it does.
const UNLISTED: Duration = Duration::from_secs(3);
/// How long transactions that were begun by then may go on.
const TRANSACTIONS: Duration = Duration::from_secs(12);
/// How long all of the end may take: less than Kubernetes waits by default.
const END: Duration = Duration::from_secs(25);

/// REST in PostgREST's dialect, and gRPC, in front of one PostgreSQL database.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings, YAML.
    #[arg(long, env = "SERVICEDB_GATEWAY_CONFIG")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    // The driver logs each notice of the server: what a function says there may be a tenant's data.
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,tokio_postgres=warn".into());
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    // The one provider of TLS, for what asks for the process's default.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the gateway cannot run");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let config = Config::read(&arguments.config).map_err(|error| text(&error))?;
    let auth = Authenticator::new(&config.callers).map_err(|error| text(&error))?;
    let certificate =
        config.tls.as_ref().map(Certificate::read).transpose().map_err(|error| text(&error))?.map(Arc::new);
    let peers = config.peers.as_ref().map(|peers| Peers::new(peers, &config.limits));
    let peers = peers.transpose().map_err(|error| text(&error))?;
    let connector = Connector::new(config.database.clone());
    let listener = TcpListener::bind(config.listen).await.map_err(|error| format!("listen: {error}"))?;
    let present = Current::new(&config.schemas);
    let cache = Cache::new(config.cache.as_ref(), config.schemas.first().map_or("public", String::as_str));
    let pool = Pool::new(connector.clone(), config.limits.clone(), config.schemas.clone(), cache.clone());
    let replicas = Connector::of_replicas(&config.database).map(|connector| pool.of_replicas(connector));
    let app = Arc::new(App {
        current: Arc::clone(&present),
        pool: Arc::clone(&pool),
        replicas: replicas.clone(),
        auth,
        bodies: Bodies::new(&config.limits),
        metrics: Metrics::new(pool.costs().map(|costs| &**costs), cache.as_deref()),
        transactions: Transactions::default(),
        peers,
        ending: AtomicBool::new(false),
        config,
    });

    let (stop, stopped) = watch::channel(None);
    let interval = Duration::from_secs(app.config.limits.schema_seconds);
    if let Some(replicas) = replicas.clone() {
        tokio::spawn(async move { replicas.close_unused().await });
    }
    tokio::spawn(current::watch(present, connector, interval, move |catalog| {
        [Some(&pool), replicas.as_ref()].into_iter().flatten().for_each(|pool| pool.catalog_changed());
        if let Some(cache) = &cache {
            cache.catalog_changed(catalog);
        }
    }));
    let shared = Arc::clone(&app);
    tokio::spawn(async move { shared.auth.refresh().await });
    let shared = Arc::clone(&app);
    tokio::spawn(async move { shared.transactions.sweep(&shared.config.limits).await });
    let shared = Arc::clone(&app);
    tokio::spawn(async move { serve::forget(&shared).await });
    if let Some(certificate) = certificate.clone() {
        tokio::spawn(async move { certificate.renew().await });
    }
    if let Some(address) = app.config.metrics_listen {
        let listener = TcpListener::bind(address).await.map_err(|error| format!("metricsListen: {error}"))?;
        tokio::spawn(serve::serve(listener, serve::metrics_router(Arc::clone(&app)), None, 50, stopped.clone()));
    }
    tracing::info!(listen = %app.config.listen, "serving");
    let clients = app.config.limits.clients;
    let router = serve::router(Arc::clone(&app)).merge(grpc::router(Arc::clone(&app)).map_err(|error| text(&error))?);
    let serving = tokio::spawn(serve::serve(listener, router, certificate, clients, stopped));

    let mut terminate = signal(SignalKind::terminate()).map_err(|error| text(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| text(&error))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    let deadline = Instant::now() + END;
    drain(&app).await;
    let _ = stop.send(Some(deadline));
    serving.await.map_err(|error| text(&error))
}

/// Serves on until nobody is sent here any more, and until open transactions have ended.
async fn drain(app: &App) {
    let began = Instant::now();
    app.ending.store(true, Ordering::Relaxed);
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let open = app.transactions.count() > 0;
        if began.elapsed() >= TRANSACTIONS || !open && began.elapsed() >= UNLISTED {
            return;
        }
    }
}
