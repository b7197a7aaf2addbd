//! Sessions by client, as the report and the metrics have them.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::names::PostgresNames;
use crate::contract::clients::{Client, Sessions};

/// Sessions by login. The data gateway's have the name of the role that they act as for an application's name; the role
/// itself is in no view of the server. A function that a caller runs may change it for the time of its request. The agent's
/// own logins, which prove credentials, are left out.
pub const QUERY: &str = "\
SELECT usename::text, CASE WHEN usename = 'servicedb_gateway' THEN application_name ELSE '' END, pg_catalog.count(*)
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND usename IS NOT NULL AND application_name <> 'servicedb agent' GROUP BY 1, 2";

/// Whose a login or a role is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The clients' that share a login.
    Shared,
    /// A client's with a login of its own: its name.
    Client(String),
}

/// The logins of a database's clients, and the roles that the data gateway takes for them.
#[derive(Clone, Debug)]
pub struct Logins {
    logins: BTreeMap<String, Whose>,
    roles: BTreeMap<String, Whose>,
    /// The clients with short-lived logins.
    short_lived: BTreeSet<String>,
}

impl Logins {
    /// Those of the clients that share a login, and of these.
    pub fn of(names: &PostgresNames, clients: &[Client]) -> Self {
        let mut all = Self {
            logins: [1, 2].map(|turn| (names.login(turn), Whose::Shared)).into(),
            roles: [(names.app(), Whose::Shared)].into(),
            short_lived: BTreeSet::new(),
        };
        for client in clients {
            let whose = Whose::Client(client.name.clone());
            all.roles.insert(names.client(&client.name), whose.clone());
            if client.dynamic().is_some() {
                all.short_lived.insert(client.name.clone());
                all.logins.insert(PostgresNames::short_lived_label(&client.name), whose);
                continue;
            }
            all.logins.extend([1, 2].map(|turn| (names.client_login(&client.name, turn), whose.clone())));
        }
        all
    }

    /// Each login and whose it is; the short-lived ones of a client by their name in metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Whose)> {
        self.logins.iter().map(|(login, whose)| (login.as_str(), whose))
    }

    /// Adds up the rows of [`QUERY`]; sessions of others are left out.
    pub fn count<'a>(&self, rows: impl IntoIterator<Item = (&'a str, &'a str, i64)>) -> Sessions {
        let mut sessions = Sessions::default();
        for whose in self.roles.values() {
            if let Whose::Client(name) = whose {
                sessions.clients.insert(name.clone(), 0);
            }
        }
        for (login, role, count) in rows {
            let whose = match login {
                PostgresNames::GATEWAY => self.roles.get(role),
                _ => self.logins.get(login),
            };
            match (whose, PostgresNames::client_of_short_lived(login)) {
                (Some(Whose::Shared), _) => sessions.shared += count,
                (Some(Whose::Client(name)), _) => *sessions.clients.entry(name.clone()).or_default() += count,
                (None, Some(name)) if self.short_lived.contains(name) => {
                    *sessions.clients.entry(name.to_owned()).or_default() += count;
                }
                (None, _) => {}
            }
        }
        sessions
    }
}

/// Reads and adds up the sessions of the server.
///
/// # Errors
/// If the server refuses.
pub async fn read(client: &tokio_postgres::Client, logins: &Logins) -> Result<Sessions, tokio_postgres::Error> {
    of_rows(&client.query(QUERY, &[]).await?, logins)
}

/// Adds up rows of [`QUERY`].
///
/// # Errors
/// If their columns are others.
pub fn of_rows(rows: &[tokio_postgres::Row], logins: &Logins) -> Result<Sessions, tokio_postgres::Error> {
    let read = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    let rows = rows.iter().map(read).collect::<Result<Vec<(String, String, i64)>, tokio_postgres::Error>>()?;
    Ok(logins.count(rows.iter().map(|(login, role, count)| (login.as_str(), role.as_str(), *count))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    fn logins(clients: &[&str]) -> Logins {
        let client = |name: &&str| {
            let json = serde_json::json!({"name": name, "generation": 1, "access": {"mode": "ReadOnly"}});
            serde_json::from_value(json).expect("a client")
        };
        let clients: Vec<Client> = clients.iter().map(client).collect();
        Logins::of(&Names::new("messaging", "chat").postgres("chat_db"), &clients)
    }

    #[test]
    fn a_session_is_its_clients_by_either_login_and_by_the_role_that_the_gateway_took() {
        let sessions = logins(&["mail-bot", "shared", "idle"]).count([
            ("chat_a", "", 2),
            ("chat_b", "", 1),
            ("chat_c_mail_bot_a", "", 3),
            ("chat_c_mail_bot_b", "", 1),
            ("chat_c_shared_a", "", 7),
            ("servicedb_gateway", "chat_db_c_mail_bot", 2),
            ("servicedb_gateway", "chat_db_app", 5),
            ("servicedb_gateway", "servicedb-gateway", 2),
            ("servicedb_gateway", "chat_c_mail_bot_a", 9),
            ("chat_migrator_a", "", 1),
            ("chat_c_removed_a", "", 4),
            ("postgres", "chat_db_c_mail_bot", 4),
        ]);
        assert_eq!(sessions.shared, 8);
        let of = |name: &str| sessions.clients.get(name).copied();
        assert_eq!((of("mail-bot"), of("shared"), of("idle")), (Some(6), Some(7), Some(0)));
        assert_eq!(sessions.clients.len(), 3, "{sessions:?}");
    }

    #[test]
    fn short_lived_sessions_are_their_clients() {
        let client = |name: &str, access: &str| {
            let access: serde_json::Value = serde_json::from_str(access).expect("JSON");
            serde_json::from_value(serde_json::json!({"name": name, "generation": 1, "access": access}))
                .expect("a client")
        };
        let dynamic = r#"{"mode": "ReadOnly", "dynamic": {}}"#;
        let clients: Vec<Client> =
            vec![client("a", dynamic), client("a-b", dynamic), client("record", r#"{"mode": "ReadOnly"}"#)];
        let logins = Logins::of(&Names::new("messaging", "chat").postgres("chat_db"), &clients);
        let sessions = logins.count([
            ("servicedb.a.k3j29fhs7dk2mxqp", "", 2),
            ("servicedb.a.0000000000000000", "", 1),
            ("servicedb.a-b.k3j29fhs7dk2mxqp", "", 4),
            ("servicedb.record.k3j29fhs7dk2mxqp", "", 8),
            ("servicedb.removed.k3j29fhs7dk2mxqp", "", 16),
        ]);
        let of = |name: &str| sessions.clients.get(name).copied();
        assert_eq!((of("a"), of("a-b"), of("record"), of("removed")), (Some(3), Some(4), Some(0), None));
        assert!(logins.iter().all(|(login, _)| !login.starts_with("chat_c_a")), "{logins:?}");
    }
}
