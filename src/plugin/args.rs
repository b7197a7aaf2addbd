//! The command line, with kubectl's own names where kubectl has one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Look at ServiceDatabases, and into them.
#[derive(Parser, Debug)]
#[command(name = "kubectl-servicedb", bin_name = "kubectl servicedb", version)]
pub struct Args {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster and namespace.
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
        /// The form of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Make new credentials, and wait until they are in Vault. The login that they replace is
    /// good until the next rotation.
    Rotate {
        /// The ServiceDatabase.
        name: String,
        /// Also if the record of the present credentials is gone from Vault (CredentialsLost).
        #[arg(long)]
        reissue: bool,
        /// How long to wait, in seconds; 0: not at all.
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Replace the certificate authority, and wait until everybody can read the new one. Clients
    /// that read the record again go on without a failed connection: both authorities are in it
    /// until the new one has signed the certificates and every instance has loaded them.
    RenewAuthority {
        /// The ServiceDatabase.
        name: String,
        /// How many seconds services have to read the new authority before it signs, and how long
        /// the former one is trusted after that; default: a week, or rotationPeriodSeconds if that
        /// is longer, up to 30 days.
        #[arg(long, value_parser = clap::value_parser!(u32).range(30..=2_592_000))]
        overlap: Option<u32>,
        /// How long to wait, in seconds; 0: not at all.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
    },
    /// Show every migration that the database knows: state, start, duration, whether it can be
    /// rolled back, and why it failed.
    Migrations {
        /// The ServiceDatabase.
        name: String,
        /// Go on until the migrations that run have come to their end; the exit code tells which.
        #[arg(short, long)]
        follow: bool,
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
    /// Look whether the schema still is what the migrations give, and say what differs. The exit
    /// code is 1 then, and 2 where it could not be found out.
    Drift {
        /// The ServiceDatabase.
        name: String,
        /// How long to wait for the answer, in seconds.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
    },
    /// Make another instance the primary, without losing what was committed, and wait until it is.
    Switchover {
        /// The ServiceDatabase.
        name: String,
        /// The pod that shall be the primary; default: the one that can take over best.
        #[arg(long)]
        to: Option<String>,
        /// How long to wait, in seconds; 0: not at all.
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Restart PostgreSQL on every instance, one after another: the replicas, then, after a
    /// switchover, the former primary.
    Restart {
        /// The ServiceDatabase.
        name: String,
        /// How long to wait, in seconds; 0: not at all.
        #[arg(long, default_value_t = 600)]
        timeout: u64,
    },
    /// Show what this version of the operator would change in the pods (RolloutPending), and let
    /// it happen.
    Rollout {
        /// The ServiceDatabase.
        name: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Open psql in the primary's pod, as the owner of the database.
    Psql {
        /// The ServiceDatabase.
        name: String,
        /// As the superuser of the server. What the migrations have made can run code of their
        /// authors' then, with the superuser's rights: name no table that you would not trust.
        #[arg(long)]
        superuser: bool,
        /// Arguments for psql, after `--`.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

/// The form of the output.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tables, for people.
    Table,
    /// One JSON document, for programs.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_where_a_user_of_kubectl_puts_them() {
        for line in
            ["x -n games status chat -o json", "x status chat -n games -o json", "x status -o json chat -n games"]
        {
            let args = Args::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(args.connection.namespace.as_deref(), Some("games"), "{line}");
            assert!(matches!(args.command, Command::Status { name, output: Output::Json } if name == "chat"), "{line}");
        }
    }

    #[test]
    fn what_follows_two_hyphens_is_psqls() {
        let args = Args::try_parse_from(["x", "psql", "chat", "--context", "dev", "--", "-c", "select 1", "--csv"]);
        let Ok(Args { connection, command: Command::Psql { name, superuser: false, arguments } }) = args else {
            panic!("{args:?}")
        };
        assert_eq!((name.as_str(), connection.context.as_deref()), ("chat", Some("dev")));
        assert_eq!(arguments, ["-c", "select 1", "--csv"]);
        assert!(Args::try_parse_from(["x", "psql", "chat", "-c", "select 1"]).is_err());
    }
}
