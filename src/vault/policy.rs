//! The policies of one ServiceDatabase, in HCL: pure text from its names. Every path names its
//! record in full, so that none contains a wildcard.

use super::database::{PASSWORD_AUTHENTICATION, PLUGIN, connection_path};
use crate::api::names::{PostgresNames, VaultNames};

/// The mounts in the policies.
#[derive(Clone, Copy, Debug)]
pub struct Mounts<'a> {
    /// The mount of KV v2.
    pub kv: &'a str,
    /// The database secrets engine, if a client has short-lived logins.
    pub database: Option<EngineMount<'a>>,
}

/// A database secrets engine, for one database.
#[derive(Clone, Copy, Debug)]
pub struct EngineMount<'a> {
    /// Its mount.
    pub mount: &'a str,
    /// The only URL that the connection may have (`contract::clients::Engine::url`).
    pub url: &'a str,
}

type Capabilities = &'static [&'static str];
const READ: Capabilities = &["read"];
const DELETE: Capabilities = &["delete"];
/// For a record's versions, each by its number.
const DESTROY: Capabilities = &["update"];
/// Write, with check-and-set against the version that was read.
const PROMOTE: Capabilities = &["create", "read", "update"];
/// The parameters of a connection that the leader's agent chooses.
const FREE: [&str; 7] = [
    "password",
    "tls_ca",
    "allowed_roles",
    "username_template",
    "max_open_connections",
    "max_idle_connections",
    "max_connection_lifetime",
];
const RENEW: Capabilities = &["update"];

/// The policy of database pods: read `pending`, promote it to `runtime` and `migrator`, and
/// destroy the promoted version; the same for each client with a login of its own; configure the database secrets
/// engine's connection to this database, if a client has short-lived logins; and read other records, such as the keys of
/// the store for backups.
pub fn instance(mounts: &Mounts, names: &VaultNames, clients: &[&str], others: &[&str]) -> String {
    let own = [
        (data(mounts, &names.pending()), READ),
        (format!("{}/destroy/{}", mounts.kv.trim_matches('/'), names.pending()), DESTROY),
        // Needed by agents of the previous version.
        (metadata(mounts, &names.pending()), DELETE),
        (data(mounts, &names.runtime()), PROMOTE),
        (metadata(mounts, &names.runtime()), READ),
        (data(mounts, &names.migrator_record()), PROMOTE),
        (metadata(mounts, &names.migrator_record()), READ),
    ];
    let of_client = |client: &&str| {
        [
            (data(mounts, &names.client_pending(client)), READ),
            (format!("{}/destroy/{}", mounts.kv.trim_matches('/'), names.client_pending(client)), DESTROY),
            (data(mounts, &names.client_runtime(client)), PROMOTE),
            (metadata(mounts, &names.client_runtime(client)), READ),
        ]
    };
    let own = own.into_iter().chain(clients.iter().flat_map(of_client));
    let rules = render(own.chain(others.iter().map(|record| (data(mounts, record), READ))));
    match &mounts.database {
        Some(engine) => format!("{rules}\n{}", connection(engine, names)),
        None => rules,
    }
}

/// The right to configure the connection: Vault connects by the PostgreSQL plugin, to this database, as one of two logins,
/// and proves it. Any other plugin or address would let the pods use Vault against others.
fn connection(EngineMount { mount, url }: &EngineMount, names: &VaultNames) -> String {
    let fixed = |value: &str| format!("[\"{value}\"]");
    let logins = PostgresNames::ENGINES.map(|login| format!("\"{login}\"")).join(", ");
    let parameters = [
        ("plugin_name", fixed(PLUGIN)),
        ("connection_url", fixed(url)),
        ("username", format!("[{logins}]")),
        ("verify_connection", "[true]".to_owned()),
        ("password_authentication", fixed(PASSWORD_AUTHENTICATION)),
    ];
    let parameters = parameters.into_iter().chain(FREE.map(|name| (name, "[]".to_owned())));
    let parameters: String = parameters.map(|(name, values)| format!("    \"{name}\" = {values}\n")).collect();
    let rule = render([(connection_path(mount, &names.engine_connection()), PROMOTE)]);
    // A path that is left out has no parameters either.
    match rule.strip_suffix("}\n") {
        Some(open) => format!("{open}  allowed_parameters = {{\n{parameters}  }}\n}}\n"),
        None => rule,
    }
}

/// The policy of the migration Job: read its own record.
pub fn migrator(mounts: &Mounts, names: &VaultNames) -> String {
    render([(data(mounts, &names.migrator_record()), READ)])
}

/// The policy of the clients: read `runtime`.
pub fn client(mounts: &Mounts, names: &VaultNames) -> String {
    render([(data(mounts, &names.runtime()), READ)])
}

/// The policy of a client with a login of its own: read its own record.
pub fn own_client(mounts: &Mounts, names: &VaultNames, client: &str) -> String {
    render([(data(mounts, &names.client_runtime(client)), READ)])
}

/// The policy of a client with short-lived logins: get one, and renew it, with the token by which it was asked for. A lease
/// is named by a random word that only its owner knows.
pub fn short_lived(mount: &str, names: &VaultNames, client: &str) -> String {
    let login = format!("{}/creds/{}", mount.trim_matches('/'), names.engine_role(client));
    let renewals = ["sys/leases/renew", "auth/token/renew-self"].map(|path| (path.to_owned(), RENEW));
    render([(login, READ)].into_iter().chain(renewals))
}

fn data(mounts: &Mounts, record: &str) -> String {
    format!("{}/data/{record}", mounts.kv.trim_matches('/'))
}

fn metadata(mounts: &Mounts, record: &str) -> String {
    format!("{}/metadata/{record}", mounts.kv.trim_matches('/'))
}

fn render(rules: impl IntoIterator<Item = (String, Capabilities)>) -> String {
    // A path is never a pattern, and never ends its quotes.
    let is_plain = |path: &str| path.chars().all(|c| c.is_ascii_graphic() && !"\"\\*+{}".contains(c));
    let rule = |(path, capabilities): (String, Capabilities)| {
        let capabilities: Vec<_> = capabilities.iter().map(|capability| format!("\"{capability}\"")).collect();
        format!("path \"{path}\" {{\n  capabilities = [{}]\n}}\n", capabilities.join(", "))
    };
    rules.into_iter().filter(|(path, _)| is_plain(path)).map(rule).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    const MOUNTS: Mounts = Mounts { kv: "team/kv/", database: None };

    fn names() -> VaultNames {
        Names::new("messaging", "chat").vault("dev")
    }

    #[test]
    fn the_instance_promotes_and_destroys_pending_credentials() {
        let expected = r#"path "team/kv/data/dev/messaging/chat/pending" {
  capabilities = ["read"]
}

path "team/kv/destroy/dev/messaging/chat/pending" {
  capabilities = ["update"]
}

path "team/kv/metadata/dev/messaging/chat/pending" {
  capabilities = ["delete"]
}

path "team/kv/data/dev/messaging/chat/runtime" {
  capabilities = ["create", "read", "update"]
}

path "team/kv/metadata/dev/messaging/chat/runtime" {
  capabilities = ["read"]
}

path "team/kv/data/dev/messaging/chat/migrator" {
  capabilities = ["create", "read", "update"]
}

path "team/kv/metadata/dev/messaging/chat/migrator" {
  capabilities = ["read"]
}
"#;
        assert_eq!(instance(&MOUNTS, &names(), &[], &[]), expected);
    }

    #[test]
    fn the_instance_reads_the_records_of_its_store() {
        let text = instance(&MOUNTS, &names(), &[], &["backups/main"]);
        assert!(text.ends_with("\npath \"team/kv/data/backups/main\" {\n  capabilities = [\"read\"]\n}\n"), "{text}");
    }

    #[test]
    fn a_path_that_is_a_pattern_or_ends_its_quotes_is_left_out() {
        for path in ["backups/*", "a/+/b", "x\" { capabilities = [\"sudo\"] } path \"y"] {
            assert_eq!(instance(&MOUNTS, &names(), &[], &[path]), instance(&MOUNTS, &names(), &[], &[]), "{path}");
        }
    }

    #[test]
    fn the_migrator_reads_its_record_alone() {
        let expected = "path \"team/kv/data/dev/messaging/chat/migrator\" {\n  capabilities = [\"read\"]\n}\n";
        assert_eq!(migrator(&MOUNTS, &names()), expected);
    }

    #[test]
    fn the_clients_read_the_runtime_record_alone() {
        let expected = "path \"team/kv/data/dev/messaging/chat/runtime\" {\n  capabilities = [\"read\"]\n}\n";
        assert_eq!(client(&MOUNTS, &names()), expected);
    }

    #[test]
    fn a_client_of_its_own_reads_its_record_alone_and_the_instance_promotes_it() {
        let expected =
            "path \"team/kv/data/dev/messaging/chat/clients/bot/runtime\" {\n  capabilities = [\"read\"]\n}\n";
        assert_eq!(own_client(&MOUNTS, &names(), "bot"), expected);
        let instance = instance(&MOUNTS, &names(), &["bot"], &[]);
        for line in [
            "path \"team/kv/data/dev/messaging/chat/clients/bot/pending\" {\n  capabilities = [\"read\"]",
            "path \"team/kv/destroy/dev/messaging/chat/clients/bot/pending\" {\n  capabilities = [\"update\"]",
            "path \"team/kv/data/dev/messaging/chat/clients/bot/runtime\" {\n  capabilities = [\"create\", \"read\", \"update\"]",
            "path \"team/kv/metadata/dev/messaging/chat/clients/bot/runtime\" {\n  capabilities = [\"read\"]",
        ] {
            assert!(instance.contains(line), "{instance}");
        }
    }

    #[test]
    fn a_short_lived_client_gets_logins_of_its_role_alone_and_the_instance_configures_its_connection() {
        let expected = r#"path "team/database/creds/servicedb.dev.messaging.chat.bot" {
  capabilities = ["read"]
}

path "sys/leases/renew" {
  capabilities = ["update"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}
"#;
        assert_eq!(short_lived("team/database/", &names(), "bot"), expected);
        let engine = EngineMount { mount: "team/database", url: "postgresql://{{username}}:{{password}}@h/postgres" };
        let expected = r#"
path "team/database/config/servicedb.dev.messaging.chat" {
  capabilities = ["create", "read", "update"]
  allowed_parameters = {
    "plugin_name" = ["postgresql-database-plugin"]
    "connection_url" = ["postgresql://{{username}}:{{password}}@h/postgres"]
    "username" = ["servicedb_vault", "servicedb_vault2"]
    "verify_connection" = [true]
    "password_authentication" = ["scram-sha-256"]
    "password" = []
    "tls_ca" = []
    "allowed_roles" = []
    "username_template" = []
    "max_open_connections" = []
    "max_idle_connections" = []
    "max_connection_lifetime" = []
  }
}
"#;
        let text = instance(&Mounts { database: Some(engine), ..MOUNTS }, &names(), &["bot"], &[]);
        assert!(text.ends_with(expected), "{text}");
        assert!(!instance(&MOUNTS, &names(), &["bot"], &[]).contains("config/"), "only where a client needs it");
    }

    #[test]
    fn no_policy_has_a_wildcard() {
        for text in [
            instance(&MOUNTS, &names(), &[], &[]),
            migrator(&MOUNTS, &names()),
            client(&MOUNTS, &names()),
            short_lived("database", &names(), "bot"),
        ] {
            assert!(!text.contains(['*', '+']), "{text}");
        }
    }
}
