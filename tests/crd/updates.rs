//! Changes of a resource that exists.

use serde_json::{Value, json};

use crate::cases::Expected::{self, Accepted, Refused};

/// A resource, and changes of it.
pub struct Base {
    pub name: &'static str,
    pub spec: Value,
    pub changes: Vec<Change>,
}

/// One change.
pub struct Change {
    pub what: &'static str,
    patch: &'static str,
    pub expected: Expected,
}

impl Change {
    /// The merge patch of spec.
    pub fn patch(&self) -> Value {
        serde_yaml::from_str(self.patch).expect(self.what)
    }
}

fn change(what: &'static str, patch: &'static str, expected: Expected) -> Change {
    Change { what, patch, expected }
}

const DATABASE: &str = "spec.database cannot be changed";
const VERSION: &str = "spec.postgres.version must not be below the major version of the data";
const CLASS: &str = "spec.storage.storageClassName cannot be changed";
const SIZE: &str = "spec.storage.size must not be below the size of the volumes";

/// The status of the volumes that the operator would set for each resource here.
pub fn status() -> Value {
    json!({ "volumeSize": "1Gi", "postgresMajor": 18 })
}

/// A resource with only the required fields. It is paused, so that a running operator creates
/// nothing for it.
pub fn plain() -> Base {
    Base {
        name: "plain",
        spec: json!({ "paused": true, "storage": { "size": "1Gi" } }),
        changes: vec![
            change("the database's default is written out", "database: plain_db", Refused(DATABASE)),
            change("the database gets another name", "database: other", Refused(DATABASE)),
            change("the version of the data is written out", "postgres: {version: '18'}", Accepted),
            change("a higher version", "postgres: {version: '19'}", Accepted),
            change("a lower version", "postgres: {version: '17'}", Refused(VERSION)),
            change("postgres is left out", "postgres: null", Accepted),
            change("a storage class is set", "storage: {storageClassName: fast}", Refused(CLASS)),
            change("the volume shrinks", "storage: {size: 512Mi}", Refused(SIZE)),
            change("the volume grows", "storage: {size: 2Gi}", Accepted),
            change("another volume's fate", "storage: {scaleDownPolicy: Delete}", Accepted),
            change("updates by themselves", "updatePolicy: Automatic", Accepted),
            change("the size in another unit", "storage: {size: 1024Mi}", Accepted),
            change("the size as a number", "storage: {size: 1073741824}", Accepted),
            change("no size", "storage: {size: null}", Refused("spec.storage.size: Required value")),
            change("a size that is none", "storage: {size: banana}", Refused("spec.storage.size must be a quantity")),
            change("no storage", "storage: null", Refused("spec.storage: Required value")),
            change("more instances", "instances: 9", Accepted),
            change("too many instances", "instances: 10", Refused("spec.instances must be from 1 to 9")),
            change("no instances", "instances: 0", Refused("spec.instances must be from 1 to 9")),
            change("a parameter", "postgres: {parameters: {work_mem: 8MB}}", Accepted),
            change(
                "a reserved parameter",
                "postgres: {parameters: {archive_command: 'true'}}",
                Refused("spec.postgres.parameters sets a parameter that is reserved"),
            ),
            change("asynchronous", "replication: {synchronous: false}", Accepted),
            change("migrations", "migrations: {source: {configMap: {name: m}}}", Accepted),
            change("a client", "clients: [{serviceAccountName: chat}]", Accepted),
            change("the other policy", "deletionPolicy: Delete", Accepted),
            change("not paused", "paused: false", Accepted),
            change("a field that does not exist", "storrage: {}", Refused(r#"unknown field "spec.storrage""#)),
        ],
    }
}

/// A resource with all immutable fields set.
pub fn explicit() -> Base {
    Base {
        name: "explicit",
        spec: json!({
            "paused": true,
            "database": "chat",
            "postgres": { "version": "18" },
            "storage": { "size": "1073741824", "storageClassName": "fast" },
            "migrations": { "source": { "configMap": { "name": "m" } } },
            "clients": [{ "serviceAccountName": "chat" }]
        }),
        changes: vec![
            change("the database is unset", "database: null", Refused(DATABASE)),
            change("the database changes", "database: chat2", Refused(DATABASE)),
            change("the database stays", "database: chat", Accepted),
            change("the storage class is unset", "storage: {storageClassName: null}", Refused(CLASS)),
            change("the storage class changes", "storage: {storageClassName: slow}", Refused(CLASS)),
            change("the size in another unit", "storage: {size: 1Gi}", Accepted),
            change("postgres is left out", "postgres: null", Accepted),
            change("the migrations are unset", "migrations: null", Accepted),
            change(
                "the migrations' source is emptied",
                "migrations: {source: {configMap: null}}",
                Refused("spec.migrations.source must name exactly one source"),
            ),
            change(
                "no migrations' source",
                "migrations: {source: null}",
                Refused("spec.migrations.source: Required value"),
            ),
            change("the clients are unset", "clients: null", Accepted),
            change(
                "a client twice",
                "clients: [{serviceAccountName: chat}, {serviceAccountName: chat}]",
                Refused("spec.clients[1]: Duplicate value"),
            ),
        ],
    }
}
