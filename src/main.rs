//! The command line of the binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use servicedb::agent::own_log::OwnLog;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

#[derive(Parser)]
#[command(name = "servicedb", version, about = "Isolated PostgreSQL for each service, on Kubernetes and Vault")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile ServiceDatabases.
    Operator(Box<servicedb::operator::Options>),
    /// Run in a database pod: initialise, supervise Patroni, probe, report.
    #[cfg(unix)]
    Agent {
        /// Run in a pooler pod instead, as the parent of PgBouncer.
        #[arg(long)]
        pooler: bool,
    },
    /// List the pools of this pooler pod.
    #[cfg(unix)]
    Pools,
    /// Apply the pending migrations, once; or a part of that, around a team's own tool.
    Migrate {
        #[command(subcommand)]
        part: Option<MigratePart>,
    },
    /// Back the database up, once.
    #[cfg(unix)]
    Backup,
    /// Restore the newest backup into this pod's volume, and check it, once.
    #[cfg(unix)]
    VerifyBackup,
    /// Restore the newest backup into this pod's volume, and rehearse a major upgrade on it, once.
    #[cfg(unix)]
    RehearseUpgrade,
    /// Remove the archive and the backups of a deleted resource, once.
    #[cfg(unix)]
    RemoveBackups,
    /// List the backups in the store, in a database pod.
    #[cfg(unix)]
    Backups,
    /// Check Vault, credentials and PostgreSQL once, in a database pod.
    #[cfg(unix)]
    Check,
    /// Print the CustomResourceDefinition.
    Crd,
    /// Print the reference page.
    #[command(hide = true)]
    Reference,
    /// Log in to Vault as the operator does, and print the result of each step; for `helm test`.
    VaultCheck(Box<servicedb::operator::Options>),
    /// Fail while ServiceDatabases exist; for the chart's pre-delete hook.
    UninstallCheck,
}

#[derive(Subcommand)]
enum MigratePart {
    /// Hold the lock, and write the tool's connection files.
    Hold,
    /// Check whether these files exist.
    IsHeld,
    /// Record that the tool has succeeded.
    Record,
    /// Check whether the schema still matches the migrations.
    Drift,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_agent = matches!(cli.command, Command::Agent { .. });
    // The first of all, so that it is dropped as the last: it then writes the last lines.
    let log = match is_agent.then(OwnLog::start).transpose() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("the agent's log cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(log_filter(&cli.command))
        .with_writer(log.as_ref().map_or_else(|| BoxMakeWriter::new(std::io::stderr), OwnLog::writer))
        .init();
    // It fails only if one is installed already, and nothing ran before this.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime failed to start");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match cli.command {
            Command::Operator(options) => servicedb::operator::run(*options).await,
            #[cfg(unix)]
            Command::Agent { pooler: false } => servicedb::agent::run().await,
            #[cfg(unix)]
            Command::Agent { pooler: true } => servicedb::pooler::run().await,
            #[cfg(unix)]
            Command::Pools => servicedb::pooler::list().await,
            Command::Migrate { part } => match part {
                None => servicedb::migrate::run().await,
                Some(MigratePart::Hold) => servicedb::migrate::hold().await,
                Some(MigratePart::IsHeld) => servicedb::migrate::is_held(),
                Some(MigratePart::Record) => servicedb::migrate::record().await,
                Some(MigratePart::Drift) => servicedb::migrate::drift::run().await,
            },
            #[cfg(unix)]
            Command::Backup => servicedb::backup::run().await,
            #[cfg(unix)]
            Command::VerifyBackup => servicedb::backup::verify().await,
            #[cfg(unix)]
            Command::RehearseUpgrade => servicedb::backup::rehearse().await,
            #[cfg(unix)]
            Command::RemoveBackups => servicedb::backup::remove().await,
            #[cfg(unix)]
            Command::Backups => servicedb::backup::list().await,
            #[cfg(unix)]
            Command::Check => servicedb::check::run().await,
            Command::VaultCheck(options) => servicedb::operator::checks::vault(*options).await,
            Command::UninstallCheck => servicedb::operator::checks::uninstall().await,
            Command::Crd => print(servicedb::api::crd::yaml()),
            Command::Reference => print(Ok::<_, std::convert::Infallible>(servicedb::reference::markdown())),
        }
    })
}

/// Prints a generated text, such as `crds/` and `docs/reference.md`; tests compare these with the code.
fn print<E: std::fmt::Display>(text: Result<String, E>) -> ExitCode {
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("failed to write the text: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The log filter. A check, whose output is for a terminal, logs only warnings. The PostgreSQL
/// client logs each statement and notice in full, which may contain secrets, so it never logs
/// below a warning, whatever level is configured.
fn log_filter(command: &Command) -> tracing_subscriber::EnvFilter {
    let usual = match command {
        #[cfg(unix)]
        Command::Check | Command::Backups | Command::Pools => "warn",
        _ => "info,kube=warn",
    };
    let wanted = std::env::var("SERVICEDB_LOG").unwrap_or_else(|_| usual.to_owned());
    tracing_subscriber::EnvFilter::new(format!("{wanted},tokio_postgres=warn"))
}
