//! PgBouncer's configuration, in the pod's memory. It has no secret.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use crate::api::names::PostgresNames;
use crate::contract::pod::POSTGRES_PORT;
use crate::contract::pooler::{POOLER_PORT, RUN_DIR, Settings, TLS_DIR};

/// The database of the admin console, and its user: a process of the same operating system's user
/// needs no password on the local socket.
pub const CONSOLE: &str = "pgbouncer";
/// The highest id of a peer.
const MAXIMUM_PEER: u64 = 16_383;
/// Server connections of a pod for the look-up of logins.
pub const LOOKUPS: i32 = 2;
/// Parameters of a client's start that PgBouncer ignores by default here: drivers send them.
const IGNORED: &str = "extra_float_digits,options";

/// Parameters that depend on nothing: a lost server is noticed, and tried again, at once.
const FIXED: &[(&str, &str)] = &[
    ("listen_addr", "*"),
    ("unix_socket_dir", RUN_DIR),
    ("unix_socket_mode", "0700"),
    ("auth_type", "hba"),
    // A failed login of the server is tried again after this time: by default after 15 s.
    ("server_login_retry", "0.2"),
    ("server_connect_timeout", "3"),
    ("server_check_delay", "5"),
    ("server_round_robin", "0"),
    ("dns_max_ttl", "1"),
    ("dns_nxdomain_ttl", "1"),
    ("tcp_keepalive", "1"),
    ("tcp_keepidle", "5"),
    ("tcp_keepintvl", "2"),
    ("tcp_keepcnt", "3"),
    ("tcp_user_timeout", "12000"),
    ("client_tls_sslmode", "require"),
    ("server_tls_sslmode", "verify-full"),
    ("log_connections", "0"),
    ("log_disconnections", "0"),
    ("log_stats", "0"),
    ("cancel_wait_timeout", "10"),
    ("max_prepared_statements", "200"),
];

/// The path of the configuration.
pub fn path() -> PathBuf {
    Path::new(RUN_DIR).join("pgbouncer.ini")
}

fn hba_path() -> PathBuf {
    Path::new(RUN_DIR).join("pooler_hba.conf")
}

/// Writes the configuration of this pod.
///
/// # Errors
/// If a file cannot be written.
pub fn write(environment: &Environment, settings: &Settings, peers: &[IpAddr]) -> std::io::Result<()> {
    std::fs::write(hba_path(), hba(&settings.database))?;
    std::fs::write(path(), ini(environment, settings, peers))
}

/// Who may log in: clients to the database, by SCRAM. The login of the pooler itself has no password;
/// as a client it is rejected whatever it sends.
fn hba(database: &str) -> String {
    let pooler = PostgresNames::POOLER;
    let mut lines = String::new();
    for any in ["0.0.0.0/0", "::/0"] {
        let _ = writeln!(lines, "host all {pooler} {any} reject\nhostssl \"{database}\" all {any} scram-sha-256");
    }
    lines
}

fn ini(environment: &Environment, settings: &Settings, peers: &[IpAddr]) -> String {
    let (host, database, pooler) = (&environment.host, &settings.database, PostgresNames::POOLER);
    let server = format!("host={host} port={POSTGRES_PORT}");
    let pool = settings.pool_size;
    let tls = |file: &str| format!("{TLS_DIR}/{file}");
    let mut all: Vec<(&str, String)> = FIXED.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    all.extend([
        ("listen_port", POOLER_PORT.to_string()),
        ("auth_hba_file", hba_path().display().to_string()),
        ("auth_user", pooler.to_owned()),
        ("auth_query", format!("SELECT usename, passwd FROM {}($1)", PostgresNames::POOLER_FUNCTION)),
        ("pool_mode", settings.mode.clone()),
        ("max_client_conn", settings.max_client_connections.to_string()),
        ("default_pool_size", pool.to_string()),
        ("max_db_connections", pool.to_string()),
        ("ignore_startup_parameters", IGNORED.to_owned()),
        ("client_tls_cert_file", tls("server.crt")),
        ("client_tls_key_file", tls("server.key")),
        ("server_tls_ca_file", tls("ca.crt")),
        ("server_tls_cert_file", tls("pooler.crt")),
        ("server_tls_key_file", tls("pooler.key")),
        ("peer_id", peer_id(environment.ip).to_string()),
    ]);
    // What the spec sets comes last, which PgBouncer takes; the list of allowed names has no owned one.
    let declared = settings.parameters.iter().map(|(key, value)| (key.as_str(), value.clone()));
    let mut text = format!(
        "[databases]\n{database} = {server} auth_dbname=postgres\n\
         postgres = {server} pool_size={LOOKUPS} max_db_connections={LOOKUPS}\n\n[peers]\n"
    );
    for peer in peers {
        let _ = writeln!(text, "{} = host={peer} port={POOLER_PORT}", peer_id(*peer));
    }
    let _ = writeln!(text, "\n[pgbouncer]");
    for (key, value) in all.into_iter().chain(declared) {
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}

/// The id of a pod among its peers, from its address. Two of a few pods have the same one once in some
/// thousand sets: a request to cancel then may reach the wrong one, which ignores it.
fn peer_id(ip: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    ip.hash(&mut hasher);
    hasher.finish() % MAXIMUM_PEER + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;
    use crate::api::pooler::POOLER_PARAMETERS;

    fn text(parameters: &[(&str, &str)]) -> String {
        let environment = Environment {
            pod: "chat-db-pooler-1".into(),
            uid: "u".into(),
            ip: "10.0.0.7".parse().expect("an address"),
            names: Names::new("messaging", "chat"),
            host: "chat-db.messaging.svc".into(),
            replicas: false,
        };
        let settings = Settings {
            version: 1,
            database: "chat_db".into(),
            mode: "transaction".into(),
            max_client_connections: 1000,
            pool_size: 20,
            parameters: parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        ini(&environment, &settings, &["10.0.0.7".parse().expect("ip"), "10.0.0.8".parse().expect("ip")])
    }

    #[test]
    fn the_own_entry_is_among_the_peers_and_no_secret_in_the_text() {
        let text = text(&[("query_timeout", "30")]);
        let own = text.lines().find_map(|line| line.strip_prefix("peer_id = ")).expect("an id");
        assert!(text.contains(&format!("{own} = host=10.0.0.7 port=6432")), "{text}");
        assert!(!text.to_lowercase().contains("password"), "{text}");
        assert!(text.trim_end().ends_with("query_timeout = 30"), "{text}");
    }

    #[test]
    fn no_allowed_parameter_is_one_that_servicedb_owns() {
        let may_be_declared =
            ["ignore_startup_parameters", "log_connections", "log_disconnections", "max_prepared_statements"];
        let text = text(&[]);
        let (_, owned) = text.split_once("[pgbouncer]").expect("the section");
        for line in owned.lines().filter_map(|line| line.split_once(" = ")) {
            assert!(!POOLER_PARAMETERS.contains(&line.0) || may_be_declared.contains(&line.0), "{}", line.0);
        }
    }

    #[test]
    fn the_poolers_own_login_is_rejected_before_any_other_line() {
        let hba = hba("chat_db");
        for any in ["0.0.0.0/0", "::/0"] {
            let lines: Vec<_> = hba.lines().filter(|line| line.contains(any)).collect();
            assert!(lines[0].contains(PostgresNames::POOLER) && lines[0].ends_with("reject"), "{hba}");
            assert_eq!(lines.len(), 2, "{hba}");
        }
        assert!(!hba.contains("trust"), "{hba}");
    }
}
