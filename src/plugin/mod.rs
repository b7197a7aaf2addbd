//! `kubectl servicedb`: status, migrations and their approval, drift, rotation of credentials and of the
//! certificate authority, switchover, restart, rollout, major upgrades, backups, and psql in the primary. Runs on any system that
//! kubectl runs on, with the user's own rights.

mod access;
mod activity;
mod age;
mod approve;
mod args;
mod backup;
mod check;
mod confirm;
mod connection;
mod drift;
mod gateway;
mod login;
mod maintenance;
mod migrations;
mod pooler;
mod psql;
mod push;
mod queries;
mod ready;
mod renew_authority;
mod reported;
mod request;
mod restore;
mod restore_point;
mod rollout;
mod rotate;
mod statistics;
mod status;
mod table;
mod top;
mod upgrade;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

pub use migrations::LEDGER_SCRIPT;

use args::{Args, Command, MigrationsAction};
use connection::PluginError;

/// Runs the command.
pub async fn run() -> ExitCode {
    let args = Args::parse();
    // Fails only if a provider is installed already, which is sufficient.
    _ = rustls::crypto::ring::default_provider().install_default();
    let outcome: Result<ExitCode, PluginError> = match args.command {
        Command::Status { name, output } => status::run(&args.connection, &name, output).await,
        Command::Access { name, output } => access::run(&args.connection, &name, output).await,
        Command::Rotate { name, reissue, client, timeout } => {
            let request = rotate::Request { reissue, client, timeout: Duration::from_secs(timeout) };
            rotate::run(&args.connection, &name, &request).await
        }
        Command::RenewAuthority { name, overlap, timeout } => {
            let request = renew_authority::Request { overlap, timeout: Duration::from_secs(timeout) };
            renew_authority::run(&args.connection, &name, &request).await
        }
        Command::Migrations { action: Some(MigrationsAction::Push { name, folder }), .. } => {
            push::run(&args.connection, &name, &folder).await
        }
        Command::Migrations { name, follow, action: None } => {
            migrations::run(&args.connection, &name.unwrap_or_default(), follow).await
        }
        Command::Approve { name, yes } => approve::run(&args.connection, &name, yes).await,
        Command::Drift { name, timeout } => drift::run(&args.connection, &name, Duration::from_secs(timeout)).await,
        Command::Switchover { name, to, timeout } => {
            let request = request::Request::Switchover(to);
            request::run(&args.connection, &name, &request, Duration::from_secs(timeout)).await
        }
        Command::Restart { name, timeout } => {
            request::run(&args.connection, &name, &request::Request::Restart, Duration::from_secs(timeout)).await
        }
        Command::Rollout { name, yes } => rollout::run(&args.connection, &name, yes).await,
        Command::Upgrade { name, step, yes, timeout } => {
            upgrade::run(&args.connection, &name, upgrade::action(step), yes, Duration::from_secs(timeout)).await
        }
        Command::Check { name } => check::run(&args.connection, &name).await,
        Command::Backup { name, full, store, timeout } => {
            let request = backup::Request::Backup { full, store };
            backup::run(&args.connection, &name, request, Duration::from_secs(timeout)).await
        }
        Command::VerifyBackup { name, timeout } => {
            backup::run(&args.connection, &name, backup::Request::Verification, Duration::from_secs(timeout)).await
        }
        Command::Gateway { name, token } => gateway::run(&args.connection, &name, token.as_deref()).await,
        Command::Pooler { name } => pooler::run(&args.connection, &name).await,
        Command::Backups { name } => backup::list(&args.connection, &name).await,
        Command::Restore { name, target, timeline, store, yes, timeout } => {
            let wanted = restore::Wanted { target: restore::target(target, timeline), store };
            restore::run(&args.connection, &name, &wanted, yes, Duration::from_secs(timeout)).await
        }
        Command::RestorePoint { name, word } => restore_point::run(&args.connection, &name, &word).await,
        Command::Maintenance { name, now, timeout } => {
            maintenance::run(&args.connection, &name, now, Duration::from_secs(timeout)).await
        }
        Command::Queries { name, by, limit, pod, reset } => {
            queries::run(&args.connection, &name, pod, by, limit, reset).await
        }
        Command::Activity { name, pod } => activity::run(&args.connection, &name, pod).await,
        Command::Top { name, once } => top::run(&args.connection, name.as_deref(), once).await,
        Command::Login { name, client, arguments } => login::run(&args.connection, &name, &client, &arguments).await,
        Command::Psql { name, superuser, arguments } => psql::run(&args.connection, &name, superuser, &arguments).await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// The command line, for the reference page.
pub fn command() -> clap::Command {
    Args::command()
}
