//! Endpoints of Vault's database secrets engine: vaultrs lacks `tls_ca` and `password_authentication` of a connection.

use std::marker::PhantomData;
use std::time::Duration;

use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{DatabaseConnection, DatabaseRole, KnownConnection};

/// Vault's plugin for PostgreSQL.
pub(super) const PLUGIN: &str = "postgresql-database-plugin";
/// How Vault sends PostgreSQL the password of a new login: as a verifier.
pub(super) const PASSWORD_AUTHENTICATION: &str = "scram-sha-256";
/// The kind of credentials of all roles.
const PASSWORD: &str = "password";

/// The path of a role.
pub(super) fn role_path(mount: &str, name: &str) -> String {
    format!("{}/roles/{name}", mount.trim_matches('/'))
}

/// The path of a connection.
pub(super) fn connection_path(mount: &str, name: &str) -> String {
    format!("{}/config/{name}", mount.trim_matches('/'))
}

/// The path that ends the leases of a role. Vault takes the prefix as a folder: leases of a role with a longer name are
/// not among them.
pub(super) fn leases_path(mount: &str, role: &str) -> String {
    format!("sys/leases/revoke-force/{}/creds/{role}", mount.trim_matches('/'))
}

/// A role as Vault returns it.
#[derive(Deserialize)]
pub(super) struct Role {
    db_name: String,
    creation_statements: Vec<String>,
    revocation_statements: Vec<String>,
    rollback_statements: Vec<String>,
    renew_statements: Vec<String>,
    /// Seconds, with a fraction.
    default_ttl: f64,
    max_ttl: f64,
    credential_type: String,
}

impl Role {
    /// The role, unless values that the operator never sets were changed.
    pub fn into_role(self, name: &str) -> Option<DatabaseRole> {
        if !self.rollback_statements.is_empty() || self.credential_type != PASSWORD {
            return None;
        }
        Some(DatabaseRole {
            name: name.to_owned(),
            connection: self.db_name,
            creation: self.creation_statements,
            renewal: self.renew_statements,
            revocation: self.revocation_statements,
            ttl: Duration::try_from_secs_f64(self.default_ttl).ok()?,
            max_ttl: Duration::try_from_secs_f64(self.max_ttl).ok()?,
        })
    }
}

/// A connection as Vault returns it.
#[derive(Deserialize)]
pub(super) struct Connection {
    allowed_roles: Option<Vec<String>>,
    connection_details: Details,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    connection_url: String,
    #[serde(default)]
    username: String,
}

impl Connection {
    /// The connection in Servicedb's terms.
    pub fn into_known(self) -> KnownConnection {
        let Details { connection_url: url, username } = self.connection_details;
        KnownConnection { url, username, roles: self.allowed_roles.unwrap_or_default() }
    }
}

/// The body that writes a role. A list that is absent would keep its former value.
pub(super) fn role_body(role: &DatabaseRole) -> Value {
    let DatabaseRole { name: _, connection, creation, renewal, revocation, ttl, max_ttl } = role;
    json!({
        "db_name": connection,
        "creation_statements": creation,
        "renew_statements": renewal,
        "revocation_statements": revocation,
        "rollback_statements": [],
        "default_ttl": ttl.as_secs(),
        "max_ttl": max_ttl.as_secs(),
        "credential_type": PASSWORD,
    })
}

/// The body that writes a connection. It has the password.
pub(super) fn connection_body(connection: &DatabaseConnection) -> Value {
    let DatabaseConnection { name: _, url, username, password, ca, roles, username_template, sessions } = connection;
    json!({
        "plugin_name": PLUGIN,
        "verify_connection": true,
        "connection_url": url,
        "username": username,
        "password": password.expose_secret(),
        "tls_ca": ca,
        "allowed_roles": roles,
        "username_template": username_template,
        "password_authentication": PASSWORD_AUTHENTICATION,
        "max_open_connections": sessions,
        "max_idle_connections": 1,
        "max_connection_lifetime": "300s",
    })
}

/// Reads the object at a path: a [`Role`] or a [`Connection`].
pub(super) struct Read<T> {
    path: String,
    object: PhantomData<T>,
}

impl<T> Read<T> {
    pub fn new(path: String) -> Self {
        Self { path, object: PhantomData }
    }
}

/// Writes to a path.
pub(super) struct Write {
    pub path: String,
    pub body: Option<Value>,
}

/// Deletes the object at a path.
pub(super) struct Delete {
    pub path: String,
}

impl<T: DeserializeOwned + Send + Sync> Endpoint for Read<T> {
    type Response = T;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

impl Endpoint for Write {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_string().into_bytes()))
    }
}

impl Endpoint for Delete {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::DELETE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_another_writer_changed_is_not_the_written_one() {
        let role = DatabaseRole {
            name: "r".to_owned(),
            connection: "c".to_owned(),
            creation: vec!["CREATE".to_owned()],
            renewal: Vec::new(),
            revocation: vec!["DROP".to_owned()],
            ttl: Duration::from_secs(60),
            max_ttl: Duration::from_secs(120),
        };
        let read = |change: &dyn Fn(&mut Value)| {
            let mut body = role_body(&role);
            change(&mut body);
            serde_json::from_value::<Role>(body).expect("a role").into_role("r")
        };
        assert_eq!(read(&|_| {}).as_ref(), Some(&role));
        assert_eq!(read(&|body| body["rollback_statements"] = json!(["DROP"])), None);
        assert_eq!(read(&|body| body["credential_type"] = json!("rsa_private_key")), None);
        assert_eq!(read(&|body| body["default_ttl"] = json!(-1.0)), None);
        assert_ne!(read(&|body| body["max_ttl"] = json!(0.0)), Some(role.clone()));
    }

    #[test]
    fn a_connection_is_verified_and_shows_no_password() {
        let connection = DatabaseConnection {
            name: "c".to_owned(),
            url: "postgresql://{{username}}:{{password}}@h:5432/postgres".to_owned(),
            username: "u".to_owned(),
            password: "canary".to_owned().into(),
            ca: "pem".to_owned(),
            roles: vec!["c.a".to_owned()],
            username_template: "t".to_owned(),
            sessions: 4,
        };
        assert!(!format!("{connection:?}").contains("canary"));
        let body = connection_body(&connection);
        assert_eq!(body["verify_connection"], true);
        assert_eq!(body["allowed_roles"], json!(["c.a"]), "no pattern");
        assert!(!body["connection_url"].to_string().contains("canary"), "Vault shows the URL");
    }

    #[test]
    fn a_connection_is_read_without_its_password() {
        let read: Connection = serde_json::from_value(json!({
            "plugin_name": PLUGIN, "allowed_roles": ["c.a"], "password_policy": "",
            "connection_details": {"connection_url": "postgresql://h/postgres", "username": "u", "max_open_connections": 4}
        }))
        .expect("a connection");
        let known = read.into_known();
        assert_eq!((known.url.as_str(), known.username.as_str()), ("postgresql://h/postgres", "u"));
        assert_eq!(known.roles, ["c.a"]);
    }
}
