//! Tenants of two databases and of two namespaces: none reads another's record, uses another's part of Vault's database
//! secrets engine, logs in to Vault or to PostgreSQL as another, or becomes another's role. The
//! database and the clients of the second namespace have the names of the first.

use std::collections::BTreeSet;
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use servicedb::api::ClientStatus;
use servicedb::postgres::Connection;

use crate::harness::{Credentials, READY, Sandbox, database, run, service_account, shared, sqlstate};
use crate::isolation::token;

/// Clients with a login of their own; beside them each database has one with the shared login, and `LEASED`.
const OWN: [(&str, &str); 2] = [("reader", "ReadOnly"), ("writer", "ReadWrite")];
/// The client with short-lived logins.
const LEASED: &str = "leased";
/// Roles that no client may become, beside those of databases.
const OF_SERVICEDB: [&str; 9] = [
    "postgres",
    "servicedb_vault",
    "servicedb_vault2",
    "servicedb_reader",
    "servicedb_local",
    "servicedb_maintainer",
    "servicedb_monitor",
    "pg_read_all_data",
    "pg_execute_server_program",
];

/// A database in a namespace.
struct Place {
    sandbox: Arc<Sandbox>,
    name: &'static str,
}

/// A client of it: one with a login of its own, or the one with the shared login.
struct Tenant<'a> {
    place: &'a Place,
    client: Option<&'static str>,
}

impl Place {
    async fn create(&self) {
        let mut clients = vec![json!({"serviceAccountName": self.name})];
        self.sandbox.create(service_account(self.name)).await;
        let own = OWN.map(|(client, mode)| (client, json!({"mode": mode})));
        for (client, access) in own.into_iter().chain([(LEASED, json!({"mode": "ReadOnly", "dynamic": {}}))]) {
            let account = format!("{}-{client}", self.name);
            self.sandbox.create(service_account(&account)).await;
            clients.push(json!({"serviceAccountName": account, "name": client, "access": access}));
        }
        self.sandbox.create(database(self.name, json!({"clients": clients}))).await;
    }

    async fn is_ready(&self) {
        self.sandbox.ready(self.name, READY).await;
        self.sandbox
            .wait("each client has its login", self.name, READY, |found| {
                let clients = found.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
                let has_login = |client: &&ClientStatus| client.generation > 0 || client.dynamic == Some(true);
                let ready = clients.iter().filter(has_login).filter(|client| client.rights == "Applied");
                let ready: BTreeSet<_> = ready.map(|client| client.name.as_str()).collect();
                OWN.iter().all(|(own, _)| ready.contains(own)) && ready.contains(LEASED)
            })
            .await;
    }

    fn tenants(&self) -> impl Iterator<Item = Tenant<'_>> {
        let own = OWN.into_iter().map(|(client, _)| Some(client));
        own.chain([None, Some(LEASED)]).map(move |client| Tenant { place: self, client })
    }

    /// All records of the database, and those that the client without a record would have.
    fn records(&self) -> Vec<String> {
        let names = self.sandbox.vault_names(self.name);
        let of_clients = OWN.iter().map(|(client, _)| *client).chain([LEASED]);
        let of_clients = of_clients.flat_map(|client| [names.client_runtime(client), names.client_pending(client)]);
        of_clients.chain([names.runtime(), names.pending(), names.migrator_record()]).collect()
    }

    /// Where a client gets its short-lived logins.
    fn creds(&self, client: &str) -> String {
        format!("database/creds/{}", self.sandbox.vault_names(self.name).engine_role(client))
    }

    /// Requests to Vault's database secrets engine about this database.
    fn attempts(&self) -> [(Method, String); 11] {
        let names = self.sandbox.vault_names(self.name);
        let (role, connection) = (names.engine_role(LEASED), names.engine_connection());
        [
            (Method::GET, self.creds(LEASED)),
            (Method::GET, self.creds("reader")),
            (Method::GET, format!("database/static-creds/{role}")),
            (Method::PUT, format!("database/static-roles/{role}")),
            (Method::GET, format!("database/roles/{role}")),
            (Method::PUT, format!("database/roles/{role}")),
            (Method::GET, format!("database/config/{connection}")),
            (Method::PUT, format!("database/config/{connection}")),
            (Method::PUT, format!("database/reset/{connection}")),
            (Method::PUT, format!("database/rotate-root/{connection}")),
            (Method::PUT, format!("sys/leases/revoke-prefix/{}", self.creds(LEASED))),
        ]
    }

    /// The roles in PostgreSQL.
    fn roles(&self) -> Vec<String> {
        let names = self.sandbox.names(self.name).postgres(&self.database());
        let of_clients = OWN.iter().flat_map(|(client, _)| {
            [names.client(client), names.client_login(client, 1), names.client_login(client, 2)]
        });
        let others =
            [names.owner(), names.app(), names.clients(), names.client(LEASED), names.login(1), names.login(2)];
        of_clients.chain(others).chain([names.migrator_login(1), names.migrator_login(2)]).collect()
    }

    fn database(&self) -> String {
        format!("{}_db", self.name)
    }
}

impl Tenant<'_> {
    fn account(&self) -> String {
        match self.client {
            Some(client) => format!("{}-{client}", self.place.name),
            None => self.place.name.to_owned(),
        }
    }

    /// For messages.
    fn described(&self) -> String {
        format!("{} of {}", self.account(), self.place.sandbox.namespace)
    }

    /// Its role of Vault's Kubernetes auth, and what it reads: its record, or where it gets its logins.
    fn role_and_path(&self) -> (String, String) {
        let names = self.place.sandbox.vault_names(self.place.name);
        match self.client {
            Some(LEASED) => (names.own_client(LEASED), self.place.creds(LEASED)),
            Some(client) => (names.own_client(client), names.client_runtime(client)),
            None => (names.client(), names.runtime()),
        }
    }

    async fn credentials(&self) -> Credentials {
        let Place { sandbox, name } = self.place;
        match self.client {
            Some(LEASED) => sandbox.leased(name, LEASED).await,
            Some(client) => sandbox.credentials_of(name, client).await.1,
            None => sandbox.credentials(name).await,
        }
    }

    /// The roles that its logins belong to, and the logins.
    fn own_roles(&self) -> [String; 3] {
        let names = self.place.sandbox.names(self.place.name).postgres(&self.place.database());
        match self.client {
            Some(client) => [names.client(client), names.client_login(client, 1), names.client_login(client, 2)],
            None => [names.app(), names.login(1), names.login(2)],
        }
    }
}

#[test]
fn tenants_of_two_databases_and_two_namespaces_are_apart() {
    shared("tenants", async |here: Arc<Sandbox>| {
        here.beside_another("tenants-beside", async |there: Arc<Sandbox>| {
            let places = [
                Place { sandbox: here.clone(), name: "shop" },
                Place { sandbox: here.clone(), name: "stock" },
                Place { sandbox: there, name: "shop" },
            ];
            for place in &places {
                place.create().await;
            }
            for place in &places {
                place.is_ready().await;
            }
            let tenants: Vec<_> = places.iter().flat_map(Place::tenants).collect();
            in_vault(&places, &tenants).await;
            in_postgres(&places, &tenants).await;
        })
        .await;
    });
}

/// Each logs in by its own role alone, and reads its own record, or gets its own logins, alone.
async fn in_vault(places: &[Place], tenants: &[Tenant<'_>]) {
    for tenant in tenants {
        let (sandbox, who) = (&tenant.place.sandbox, tenant.described());
        let vault = sandbox.vault();
        let (role, own_path) = tenant.role_and_path();
        let jwt = token(sandbox, &sandbox.namespace, &tenant.account()).await;
        for other in tenants {
            let (others, _) = other.role_and_path();
            if others != role {
                let refused = vault.kubernetes_login(&others, &jwt).await;
                assert!(refused.is_err(), "{who} logged in to Vault as {}", other.described());
            }
        }
        let auth = vault.kubernetes_login(&role, &jwt).await;
        let auth = auth.unwrap_or_else(|status| panic!("{who} cannot log in to Vault: {status}"));
        let token = auth["client_token"].as_str().expect("a token");
        let body = json!({"data": {"x": "y"}});
        for path in places.iter().flat_map(Place::records) {
            let wanted = if path == own_path { 200 } else { 403 };
            let data = format!("secret/data/{path}");
            assert_eq!(vault.status_with(token, Method::GET, &data, None).await, wanted, "{who} reads {path}");
            let written = vault.status_with(token, Method::PUT, &data, Some(&body)).await;
            assert_eq!(written, 403, "{who} writes {path}");
        }
        for (method, path) in places.iter().flat_map(Place::attempts) {
            let wanted = if method == Method::GET && path == own_path { 200 } else { 403 };
            let body = (method == Method::PUT).then(|| json!({}));
            let status = vault.status_with(token, method.clone(), &path, body.as_ref()).await;
            assert_eq!(status, wanted, "{who}: {method} {path}");
        }
        for path in ["database/roles?list=true", "database/config?list=true"] {
            assert_eq!(vault.status_with(token, Method::GET, path, None).await, 403, "{who} lists {path}");
        }
        for place in places {
            let folder = sandbox.vault_names(place.name).folder();
            let list = format!("secret/metadata/{folder}?list=true");
            assert_eq!(vault.status_with(token, Method::GET, &list, None).await, 403, "{who} lists {folder}");
        }
    }
}

/// Each logs in to its own database alone, and cannot become another role there.
async fn in_postgres(places: &[Place], tenants: &[Tenant<'_>]) {
    let roles: BTreeSet<String> = places.iter().flat_map(Place::roles).chain(OF_SERVICEDB.map(str::to_owned)).collect();
    for tenant in tenants {
        let (place, who) = (tenant.place, tenant.described());
        let own = tenant.credentials().await;
        let session = place.sandbox.login(place.name, &own).await.unwrap_or_else(|error| panic!("{who}: {error}"));
        stays_itself(&session, &who, &roles, &tenant.own_roles()).await;
        for other in places {
            let theirs = other.sandbox.credentials(other.name).await;
            // With the right authority, so that only login and database are wrong.
            for database in [theirs.database.as_str(), own.database.as_str(), "postgres", "template1"] {
                if std::ptr::eq(other, place) && database == own.database {
                    continue;
                }
                let stolen = Credentials { ca: theirs.ca.clone(), database: database.to_owned(), ..own.clone() };
                let what = format!("{who} at {} of {}, database {database}", other.name, other.sandbox.namespace);
                let Err(refused) = other.sandbox.login(other.name, &stolen).await else { panic!("{what}: logged in") };
                let code = sqlstate(&refused).unwrap_or_default();
                // 42501: the login exists, and may not connect to this database.
                assert!(code.starts_with("28") || code == "42501", "{what}: {code} {refused}");
            }
        }
    }
}

/// A session cannot become any of these roles but its own.
async fn stays_itself(session: &Connection, who: &str, roles: &BTreeSet<String>, own: &[String]) {
    for role in roles.iter().filter(|role| !own.contains(role)) {
        for statement in [format!("SET ROLE {role}"), format!("SET SESSION AUTHORIZATION {role}")] {
            // 22023: this server has no such role.
            is_refused(session, who, &statement, &["42501", "22023"]).await;
        }
        // 42704: the same. 0LP01: the grant would be a circle.
        let grant = format!("GRANT {role} TO {}", own[0]);
        is_refused(session, who, &grant, &["42501", "42704", "0LP01"]).await;
    }
}

async fn is_refused(session: &Connection, who: &str, statement: &str, codes: &[&str]) {
    let Err(refusal) = run(session, statement).await else { panic!("{who}: {statement} was allowed") };
    let code = refusal.sqlstate.clone().unwrap_or_default();
    assert!(codes.contains(&code.as_str()), "{who}: {statement}: {refusal:?}");
}
