//! The command line, with kubectl's own names where they exist.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::access::Matrix;
use super::queries::By;

/// Inspect and operate ServiceDatabases.
#[derive(Parser, Debug)]
#[command(name = "kubectl-servicedb", bin_name = "kubectl servicedb", version)]
pub struct Args {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// The cluster and the namespace.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Connection {
    /// The namespace; default: the context's.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The context in the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The kubeconfig file; default: KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show a database: conditions, instances, volumes, credentials, migrations, events.
    Status {
        /// The ServiceDatabase.
        name: String,
        /// The output format.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Create new credentials, and wait until they are in Vault. The login that they replace is
    /// valid until the next rotation.
    Rotate {
        /// The ServiceDatabase.
        name: String,
        /// Also if the record of the present credentials is missing in Vault (CredentialsLost).
        #[arg(long)]
        reissue: bool,
        /// Of this client with a login of its own alone, also if its record is missing; default: all credentials.
        #[arg(long, conflicts_with = "reissue")]
        client: Option<String>,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Show what each client with a login of its own may do with which table, as the database has it, and what
    /// differs from the declaration. The exit code is 1 if something differs.
    Access {
        /// The ServiceDatabase.
        name: String,
        /// The output format.
        #[arg(short, long, value_enum, default_value_t = Matrix::Table)]
        output: Matrix,
    },
    /// Replace the certificate authority, and wait until the new one is published. Clients that
    /// read the record again have no failed connection: it contains both authorities until the new
    /// one has signed the certificates and every instance has loaded them.
    RenewAuthority {
        /// The ServiceDatabase.
        name: String,
        /// How many seconds services have to read the new authority before it signs, and how long
        /// the former one is trusted after that; default: a week, or rotationPeriodSeconds if that
        /// is longer, up to 30 days.
        #[arg(long, value_parser = clap::value_parser!(u32).range(30..=2_592_000))]
        overlap: Option<u32>,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
    },
    /// Show every migration in the database's ledger: state, start, duration, whether it can be
    /// rolled back, and its error. Or push a folder of migrations.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Migrations {
        /// The ServiceDatabase.
        #[arg(required = true)]
        name: Option<String>,
        /// Continue until the running migrations have ended; the exit code is their result.
        #[arg(short, long)]
        follow: bool,
        #[command(subcommand)]
        action: Option<MigrationsAction>,
    },
    /// Show the statements of the migrations that wait for approval, and approve them: these
    /// files, to this target, and nothing else.
    Approve {
        /// The ServiceDatabase.
        name: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Compare the schema with the migrations, and print the differences. The exit code is 1 if
    /// there are any, and 2 if the check failed.
    Drift {
        /// The ServiceDatabase.
        name: String,
        /// How long to wait for the answer, in seconds.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
    },
    /// Make another instance the primary, without losing a commit, and wait for the result.
    Switchover {
        /// The ServiceDatabase.
        name: String,
        /// The pod that becomes the primary; default: the best candidate.
        #[arg(long)]
        to: Option<String>,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Restart PostgreSQL on every instance, one after another: the replicas, then, after a
    /// switchover, the former primary.
    Restart {
        /// The ServiceDatabase.
        name: String,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 600)]
        timeout: u64,
    },
    /// Show the changes of the pods by this version of the operator (RolloutPending), and approve
    /// them.
    Rollout {
        /// The ServiceDatabase.
        name: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Upgrade to the major version in spec.postgres.version: a restored backup or a copy is upgraded first, then the
    /// database, which is unavailable meanwhile.
    Upgrade {
        /// The ServiceDatabase.
        name: String,
        #[command(flatten)]
        step: UpgradeStep,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
    /// Check Vault, the record with the credentials and the login with them in the primary's pod, one
    /// line each; the exit code is 1 if a step fails. A record whose login PostgreSQL refuses is
    /// proved and written again within half a minute.
    Check {
        /// The ServiceDatabase.
        name: String,
    },
    /// Show the pools of each pod of the pooler: clients, clients that wait, connections to
    /// PostgreSQL.
    Pooler {
        /// The ServiceDatabase.
        name: String,
    },
    /// Show the data gateway: whether it serves, its address, its callers, and a first request to
    /// copy.
    Gateway {
        /// The ServiceDatabase.
        name: String,
        /// Print a token of this client's ServiceAccount that the gateway accepts for ten minutes,
        /// and nothing else.
        #[arg(long, value_name = "CLIENT")]
        token: Option<String>,
    },
    /// Back the database up now, and follow it to its end, in each of its stores.
    Backup {
        /// The ServiceDatabase.
        name: String,
        /// A full backup; default: what changed since the last one.
        #[arg(long)]
        full: bool,
        /// One of two stores; default: both.
        #[arg(long)]
        store: Option<String>,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
    /// Restore the newest backup into a volume of its own and check it, now.
    VerifyBackup {
        /// The ServiceDatabase.
        name: String,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
    /// List the backups that the store has.
    Backups {
        /// The ServiceDatabase.
        name: String,
    },
    /// Put the database back to an earlier state, in place. What was committed after it is no longer in the database;
    /// the store keeps it. Instances are unavailable for seconds, at the end.
    Restore {
        /// The ServiceDatabase.
        name: String,
        #[command(flatten)]
        target: RestoreTo,
        /// The timeline of the state; default: the one that was alive then.
        #[arg(long, conflicts_with = "immediate", value_parser = clap::value_parser!(i64).range(1..))]
        timeline: Option<i64>,
        /// The store that the state comes from, and that keeps what is left; default: the first one, which is refused if
        /// only the second one has the state.
        #[arg(long)]
        store: Option<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// How long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
    /// Name the present state, as a target of a later restore (spec.bootstrap.restore.target.name).
    RestorePoint {
        /// The ServiceDatabase.
        name: String,
        /// The name of the state; a restore stops at the first one of this name.
        #[arg(value_parser = super::restore_point::word)]
        word: String,
    },
    /// Show the maintenance windows, what is due and what was done.
    Maintenance {
        /// The ServiceDatabase.
        name: String,
        /// Do what is due now, in no window, and follow it to its end.
        #[arg(long)]
        now: bool,
        /// With --now: how long to wait, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
    /// Show the statements that took most, of all that were run since the statistics began.
    Queries {
        /// The ServiceDatabase.
        name: String,
        /// What they are ordered by.
        #[arg(long, value_enum, default_value_t = By::Total)]
        by: By,
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
        /// The pod of an instance; default: the primary's.
        #[arg(long)]
        pod: Option<String>,
        /// Reset the statistics, as the superuser.
        #[arg(long)]
        reset: bool,
    },
    /// Show the sessions: how many there are of each login, who waits for whose lock, and the open
    /// transactions.
    Activity {
        /// The ServiceDatabase.
        name: String,
        /// The pod of an instance; default: the primary's.
        #[arg(long)]
        pod: Option<String>,
    },
    /// Show the databases of the namespace, or the work of one of them with graphs, every two seconds.
    Top {
        /// The ServiceDatabase; default: all of the namespace, from their status.
        name: Option<String>,
        /// Print once and exit, as if the output were no terminal.
        #[arg(long)]
        once: bool,
    },
    /// Get a short-lived login of a client from Vault with your own token (VAULT_ADDR, VAULT_TOKEN), open psql on this
    /// machine with it, and give it back at the end.
    Login {
        /// The ServiceDatabase.
        name: String,
        /// The client with short-lived logins whose rights the session has.
        #[arg(long = "as", value_name = "CLIENT")]
        client: String,
        /// Arguments for psql, after `--`.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Open psql in the primary's pod, as the owner of the database.
    Psql {
        /// The ServiceDatabase.
        name: String,
        /// As the superuser of the server. Objects that the migrations created can then run their
        /// authors' code with the superuser's rights: use no table that you do not trust.
        #[arg(long)]
        superuser: bool,
        /// Arguments for psql, after `--`.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

/// Another step of an upgrade than to make it.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(multiple = false)]
pub struct UpgradeStep {
    /// Upgrade a copy alone, and tell how long it takes or what stops it.
    #[arg(long)]
    pub check: bool,
    /// Return to the data from before the upgrade. What was written since is lost.
    #[arg(long)]
    pub back: bool,
    /// Remove the data from before the upgrade: there is no way back then.
    #[arg(long)]
    pub finish: bool,
}

/// The state to restore.
#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct RestoreTo {
    /// Everything that was committed before this time, with its offset from UTC: 2026-11-29T10:15:00Z.
    #[arg(long, value_parser = super::restore::time)]
    pub to: Option<String>,
    /// Everything up to this position in WAL.
    #[arg(long, value_parser = super::restore::position)]
    pub lsn: Option<String>,
    /// The state that `restore-point` named so.
    #[arg(long, value_parser = super::restore_point::word)]
    pub point: Option<String>,
    /// The newest backup alone, without the WAL after it.
    #[arg(long)]
    pub immediate: bool,
}

/// What to do with migrations instead of showing them.
#[derive(Subcommand, Debug)]
pub enum MigrationsAction {
    /// Pack a folder, compressed, into as many ConfigMaps as it takes, and name them as the source of
    /// the migrations.
    Push {
        /// The ServiceDatabase.
        name: String,
        /// The folder of migrations, as their tool has it.
        folder: PathBuf,
    },
}

/// The output format.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tables.
    Table,
    /// One JSON document.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_accepted_at_the_positions_of_kubectl() {
        for line in
            ["x -n games status chat -o json", "x status chat -n games -o json", "x status -o json chat -n games"]
        {
            let args = Args::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(args.connection.namespace.as_deref(), Some("games"), "{line}");
            assert!(matches!(args.command, Command::Status { name, output: Output::Json } if name == "chat"), "{line}");
        }
    }

    #[test]
    fn migrations_are_shown_or_pushed() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).map(|args| args.command);
        let shown = parse("x migrations chat --follow").expect("shown");
        assert!(
            matches!(shown, Command::Migrations { name: Some(name), follow: true, action: None } if name == "chat")
        );
        let pushed = parse("x migrations push chat db/migrations -n games").expect("pushed");
        let Command::Migrations { action: Some(MigrationsAction::Push { name, folder }), .. } = pushed else {
            panic!("{pushed:?}")
        };
        assert_eq!((name.as_str(), folder), ("chat", PathBuf::from("db/migrations")));
        assert!(parse("x migrations").is_err() && parse("x migrations push chat").is_err());
    }

    #[test]
    fn a_login_is_as_a_client() {
        let args = Args::try_parse_from(["x", "login", "chat", "--as", "reader", "--", "-c", "select 1"]);
        let Ok(Args { command: Command::Login { name, client, arguments }, .. }) = args else { panic!("{args:?}") };
        assert_eq!((name.as_str(), client.as_str()), ("chat", "reader"));
        assert_eq!(arguments, ["-c", "select 1"]);
        assert!(Args::try_parse_from(["x", "login", "chat"]).is_err());
    }

    #[test]
    fn a_restore_is_to_a_position_in_wal() {
        let parse = |lsn: &str| Args::try_parse_from(["x", "restore", "chat", "--lsn", lsn, "--yes"]);
        assert!(parse("0/3000148").is_ok());
        let refused = parse("0/zz").expect_err("no position").to_string();
        assert!(refused.contains("0/3000148"), "{refused}");
        assert!(Args::try_parse_from(["x", "restore", "chat", "--immediate", "--timeline", "2"]).is_err());
        assert!(Args::try_parse_from(["x", "restore", "chat", "--lsn", "0/1", "--timeline", "2"]).is_ok());
        let named = Args::try_parse_from(["x", "restore", "chat", "--immediate", "--store", "other"]);
        assert!(
            matches!(named, Ok(Args { command: Command::Restore { store: Some(store), .. }, .. }) if store == "other")
        );
    }

    #[test]
    fn arguments_after_two_hyphens_are_for_psql() {
        let args = Args::try_parse_from(["x", "psql", "chat", "--context", "dev", "--", "-c", "select 1", "--csv"]);
        let Ok(Args { connection, command: Command::Psql { name, superuser: false, arguments } }) = args else {
            panic!("{args:?}")
        };
        assert_eq!((name.as_str(), connection.context.as_deref()), ("chat", Some("dev")));
        assert_eq!(arguments, ["-c", "select 1", "--csv"]);
        assert!(Args::try_parse_from(["x", "psql", "chat", "-c", "select 1"]).is_err());
    }
}
