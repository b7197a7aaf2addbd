//! Patroni's local configuration, written to the pod's memory, and PostgreSQL's client authentication.
//!
//! It has no `bootstrap` section: Patroni adopts the database that the agent initialised. It has no
//! secret: local connections use peer authentication, remote ones client certificates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::agent::environment::Environment;
use crate::agent::server_log;
use crate::api::names::{LABEL_NAME, LABEL_ROLE, LABEL_SCOPE, PostgresNames, ROLE_PRIMARY, ROLE_REPLICA};
use crate::contract::desired::Desired;
use crate::contract::pod::{PATRONI_PORT, PGDATA, POSTGRES_PORT, RUN_DIR, SOCKET_DIR, TLS_DIR};
use crate::postgres::{preload, servers};

/// The user map by which the operating system's user `postgres` may use these roles on the socket.
const LOCAL_MAP: &str = "servicedb";

/// The file of client authentication, in [`RUN_DIR`].
const HBA: &str = "pg_hba.conf";
/// The file of the user maps, in [`RUN_DIR`].
const IDENT: &str = "pg_ident.conf";

/// The path of the configuration.
pub fn path() -> PathBuf {
    Path::new(RUN_DIR).join("patroni.yml")
}

/// Writes the configuration of this pod, and the client authentication of this database. Returns the former.
///
/// The agent writes the latter, not Patroni: Patroni would write it again at each start, reload, and
/// wait a second.
///
/// # Errors
/// If a file cannot be written.
pub fn write(environment: &Environment, desired: &Desired) -> std::io::Result<Value> {
    let lines = |lines: Vec<String>| lines.join("\n") + "\n";
    std::fs::write(Path::new(RUN_DIR).join(HBA), lines(hba(&environment.names.postgres(&desired.database))))?;
    std::fs::write(Path::new(RUN_DIR).join(IDENT), lines(ident()))?;
    // JSON is valid YAML, and quotes every string.
    let local = wanted(environment, desired);
    std::fs::write(path(), format!("{local:#}\n"))?;
    Ok(local)
}

/// The configuration of this pod for a desired state.
pub fn wanted(environment: &Environment, desired: &Desired) -> Value {
    let major = major(desired);
    local(environment, major, environment.is_leaving(desired), own_settings(desired, major))
}

/// The major version of the server that runs here: that of the data, or of the data that is to be cloned.
pub fn major(desired: &Desired) -> u16 {
    servers::major_of(Path::new(PGDATA)).unwrap_or_else(|| desired.major())
}

/// The settings of the local configuration, which the members do not share.
///
/// The preloaded libraries are among them because they belong to the image: an instance loads them
/// with the start of its pod. In the dynamic configuration they would wait for a restart of
/// instances that the image's rollout has just replaced, and reach instances whose image lacks them.
/// For the same reason a library of a declared extension is loaded only if the image has it.
pub fn own_settings(desired: &Desired, major: u16) -> Vec<(&'static str, String)> {
    let is_loaded = |extension: &str| desired.declares(extension) && servers::has_library(major, extension);
    let mut settings = preload::settings(&desired.database, is_loaded);
    settings.extend([
        ("hba_file", format!("{RUN_DIR}/{HBA}")),
        ("ident_file", format!("{RUN_DIR}/{IDENT}")),
        ("unix_socket_directories", SOCKET_DIR.to_owned()),
    ]);
    settings.extend(server_log::settings());
    settings
}

fn local(environment: &Environment, major: u16, leaving: bool, settings: Vec<(&'static str, String)>) -> Value {
    let tls = |file: &str| format!("{TLS_DIR}/{file}");
    let by_certificate = |role: &str| {
        json!({
            "username": role,
            "sslmode": "verify-ca",
            "sslrootcert": tls("ca.crt"),
            "sslcert": tls(&format!("{role}.crt")),
            "sslkey": tls(&format!("{role}.key")),
            "gssencmode": "disable",
        })
    };
    let any = if environment.ip.is_ipv6() { "[::]" } else { "0.0.0.0" };
    json!({
        "scope": environment.names.base(),
        "name": environment.pod,
        "log": { "level": "INFO", "traceback_level": "INFO" },
        "restapi": {
            "listen": format!("{any}:{PATRONI_PORT}"),
            "connect_address": environment.address(PATRONI_PORT),
            "certfile": tls("server.crt"),
            "keyfile": tls("server.key"),
            "cafile": tls("ca.crt"),
            "verify_client": "optional",
        },
        // With a client certificate, `insecure` disables only the check of the host name: members are
        // reached by pod IP, which no certificate names.
        "ctl": {
            "insecure": true,
            "cacert": tls("ca.crt"),
            "certfile": tls("patroni.crt"),
            "keyfile": tls("patroni.key"),
        },
        "kubernetes": {
            "namespace": environment.names.namespace,
            "use_endpoints": false,
            "bypass_api_service": false,
            "pod_ip": environment.ip.to_string(),
            "labels": { LABEL_NAME: environment.names.name },
            "scope_label": LABEL_SCOPE,
            "role_label": LABEL_ROLE,
            "leader_label_value": ROLE_PRIMARY,
            "follower_label_value": ROLE_REPLICA,
            "standby_leader_label_value": ROLE_PRIMARY,
        },
        "postgresql": {
            "listen": format!("*:{POSTGRES_PORT}"),
            "connect_address": environment.address(POSTGRES_PORT),
            "data_dir": PGDATA,
            // Empty: from the search path.
            "bin_dir": servers::programs(major).unwrap_or_default(),
            "pgpass": format!("{RUN_DIR}/pgpass"),
            "use_unix_socket": true,
            "use_unix_socket_repl": true,
            "authentication": {
                "superuser": { "username": "postgres" },
                "replication": by_certificate(PostgresNames::REPLICATOR),
                "rewind": by_certificate(PostgresNames::REWINDER),
            },
            "parameters": BTreeMap::from_iter(settings),
            // One call flushes the volume, instead of one for each of some thousand files.
            "basebackup": [{ "checkpoint": "fast" }, { "sync-method": "syncfs" }],
            "remove_data_directory_on_rewind_failure": true,
        },
        "watchdog": { "mode": "off" },
        // Not `nofailover`, too: a leader with that tag would keep no slots for the others.
        "tags": { "nosync": leaving },
    })
}

/// The lines of `pg_hba.conf`.
///
/// The logins of the application are members of `_app`, those of the migrator of `_owner`, those of
/// clients with a login of their own of `_clients`;
/// `+role` matches its members, so a rotation changes nothing here.
fn hba(names: &PostgresNames) -> Vec<String> {
    let (replicator, rewinder) = (PostgresNames::REPLICATOR, PostgresNames::REWINDER);
    let (pooler, gateway, engine) = (PostgresNames::POOLER, PostgresNames::GATEWAY, PostgresNames::ENGINES.join(","));
    let (database, app, owner, clients) = (&names.database, names.app(), names.owner(), names.clients());
    let monitor = PostgresNames::MONITOR;
    let (reader, maintainer) = (PostgresNames::READER, PostgresNames::MAINTAINER);
    let (as_owner, queries) = (PostgresNames::AS_OWNER, PostgresNames::QUERIES);
    let ours = format!("{reader},{as_owner},{monitor},{queries},{maintainer}");
    vec![
        "local all postgres peer".to_owned(),
        format!("local replication {replicator} peer map={LOCAL_MAP}"),
        format!("local \"{database}\" {ours} peer map={LOCAL_MAP}"),
        format!("local postgres {monitor} peer map={LOCAL_MAP}"),
        // A tenant's code that runs as one of these roles could set its password, and one of them is a
        // member of the owner.
        format!("host all {ours} all reject"),
        format!("hostssl replication {replicator} all cert"),
        format!("hostssl postgres {rewinder} all cert"),
        format!("hostssl postgres {pooler} all cert"),
        format!("host all {pooler} all reject"),
        // It has no password; but a session of the owner may set one, and with pg_cron it has LOGIN.
        format!("host all \"{owner}\" all reject"),
        // Before the lines of the groups: it is a member of its callers' roles.
        format!("hostssl \"{database}\" {gateway} all cert"),
        format!("host all {gateway} all reject"),
        // It calls the functions that make short-lived logins, and reaches no data.
        format!("hostssl postgres {engine} all scram-sha-256"),
        format!("host all {engine} all reject"),
        format!("hostssl \"{database}\" +\"{app}\" all scram-sha-256"),
        format!("hostssl \"{database}\" +\"{owner}\" all scram-sha-256"),
        format!("hostssl \"{database}\" +\"{clients}\" all scram-sha-256"),
        "local all all reject".to_owned(),
        "host all all all reject".to_owned(),
    ]
}

/// The lines of `pg_ident.conf`.
fn ident() -> Vec<String> {
    let roles = [
        PostgresNames::REPLICATOR,
        PostgresNames::READER,
        PostgresNames::AS_OWNER,
        PostgresNames::MONITOR,
        PostgresNames::QUERIES,
        PostgresNames::MAINTAINER,
    ];
    roles.map(|role| format!("{LOCAL_MAP} postgres {role}")).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    fn environment() -> Environment {
        Environment {
            pod: "chat-db-0".into(),
            uid: "u".into(),
            ip: "10.0.0.7".parse().expect("an address"),
            names: Names::new("messaging", "chat"),
        }
    }

    #[test]
    fn patroni_never_bootstraps_and_has_no_password() {
        let config = wanted(&environment(), &Desired::sample());
        assert!(config.get("bootstrap").is_none());
        assert!(!config.to_string().to_lowercase().contains("password"));
    }

    #[test]
    fn preloaded_libraries_belong_to_the_image_and_wait_for_no_restart() {
        let local = wanted(&environment(), &Desired::sample());
        assert_eq!(local["postgresql"]["parameters"]["shared_preload_libraries"], preload::ALWAYS);
        let shared = crate::contract::patroni::parameters(&Desired::sample());
        assert!(!shared.contains_key("shared_preload_libraries"), "an agent of an older image would remove it");
    }

    #[test]
    fn the_collector_is_the_agents_and_none_that_reads_no_files_has_it() {
        let local = wanted(&environment(), &Desired::sample());
        let parameters = &local["postgresql"]["parameters"];
        assert_eq!(
            (&parameters["logging_collector"], &parameters["log_destination"]),
            (&"on".into(), &"jsonlog".into())
        );
        let folder = parameters["log_directory"].as_str().expect("a folder");
        assert!(Path::new(folder).is_absolute() && !folder.starts_with(PGDATA), "no copy of the data has the log");
        let shared = crate::contract::patroni::parameters(&Desired::sample());
        assert_eq!(shared["logging_collector"], "off", "an agent of an older image has this one");
    }

    #[test]
    fn connections_over_tcp_are_encrypted_or_rejected() {
        for line in hba(&environment().names.postgres("chat_db")) {
            let allowed = line.starts_with("local ") || line.starts_with("hostssl ") || line.ends_with(" reject");
            assert!(allowed, "{line}");
            assert!(!line.contains("trust"), "{line}");
        }
    }

    #[test]
    fn the_engine_of_vault_never_reaches_the_tenants_database() {
        let lines = hba(&environment().names.postgres("chat_db"));
        let of_engine: Vec<_> = lines.iter().filter(|line| line.contains(PostgresNames::ENGINES[0])).collect();
        assert_eq!(of_engine[0], "hostssl postgres servicedb_vault,servicedb_vault2 all scram-sha-256");
        assert_eq!(of_engine[1], "host all servicedb_vault,servicedb_vault2 all reject");
        let place = |part: &str| lines.iter().position(|line| line.contains(part)).expect("a line");
        assert!(place("host all servicedb_vault") < place("+\"chat_db_app\""), "whatever it is a member of");
    }

    #[test]
    fn the_logins_of_the_socket_never_come_over_tcp() {
        let lines = hba(&environment().names.postgres("chat_db"));
        let first = |role: &str| {
            let names_it = |line: &&String| line.contains(role) && line.starts_with("host");
            lines.iter().position(|line| names_it(&line)).expect("a line")
        };
        let members = lines.iter().position(|line| line.contains("+\"chat_db_owner\"")).expect("a line");
        let owner = lines.iter().position(|line| line == "host all \"chat_db_owner\" all reject").expect("a line");
        assert!(owner < members, "a member of a group is matched by the group's line: {lines:?}");
        let (monitor, maintainer) = (PostgresNames::MONITOR, PostgresNames::MAINTAINER);
        for role in [PostgresNames::READER, PostgresNames::AS_OWNER, PostgresNames::QUERIES, monitor, maintainer] {
            assert!(first(role) < members && lines[first(role)].ends_with(" reject"), "{lines:?}");
            assert!(ident().iter().any(|line| line.ends_with(role)), "{role} has no line in pg_ident.conf");
        }
    }
}
