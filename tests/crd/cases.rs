//! Resources that may be created, and resources that are refused.

use serde_json::{Value, json};

/// The expected answer of the API server.
#[derive(Clone, Copy)]
pub enum Expected {
    /// It accepts.
    Accepted,
    /// It refuses, and its message contains this.
    Refused(&'static str),
}

use Expected::{Accepted, Refused};

impl Expected {
    /// A line of output if the answer differs.
    pub fn mistake(&self, what: &str, answer: Result<Value, String>) -> Option<String> {
        match (self, answer) {
            (Accepted, Ok(_)) => None,
            (Accepted, Err(message)) => Some(format!("- {what}: should be accepted, but: {message}")),
            (Refused(part), Err(message)) if message.contains(part) => None,
            (Refused(part), Err(message)) => Some(format!("- {what}: the message lacks {part:?}: {message}")),
            (Refused(part), Ok(_)) => Some(format!("- {what}: should be refused with {part:?}, but is accepted")),
        }
    }
}

/// A resource of this name, and a spec: YAML that is merged over the smallest one.
pub struct Case {
    pub what: &'static str,
    pub name: &'static str,
    spec: String,
    pub expected: Expected,
}

impl Case {
    /// The whole spec.
    pub fn spec(&self) -> Value {
        let mut spec = json!({ "storage": { "size": "1Gi" } });
        let over: Value = serde_yaml::from_str(&self.spec).expect(self.what);
        for (key, value) in over.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    }
}

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(names().into_iter().map(|(what, name, expected)| Case { what, name, spec: "{}".into(), expected }));
    for (what, spec, expected) in [postgres(), storage(), pooler(), gateway(), monitoring(), the_rest()].concat() {
        cases.push(Case { what, name: "chat", spec: spec.to_owned(), expected });
    }
    cases.extend(bounds().into_iter().map(|(what, spec, expected)| Case { what, name: "chat", spec, expected }));
    cases
}

fn pooler() -> Vec<(&'static str, &'static str, Expected)> {
    let session = "needs spec.pooler.mode Transaction";
    vec![
        ("a pooler", "pooler: {}", Accepted),
        ("no pods of the pooler", "pooler: {instances: 0}", Refused("spec.pooler.instances must be from 1 to 16")),
        ("a hundred pods", "pooler: {instances: 100}", Refused("spec.pooler.instances must be from 1 to 16")),
        ("an empty pool", "pooler: {poolSize: 0}", Refused("spec.pooler.poolSize must be from 1")),
        ("no clients", "pooler: {maxClientConnections: 0}", Refused("spec.pooler.maxClientConnections must be from 1")),
        ("session mode", "pooler: {mode: Session}", Accepted),
        (
            "session mode with held changes",
            "pooler: {mode: Session, plannedChanges: {holdSeconds: 3}}",
            Refused(session),
        ),
        (
            "session mode with a held upgrade",
            "pooler: {mode: Session, plannedChanges: {upgradeHoldSeconds: 3}}",
            Refused(session),
        ),
        ("session mode without held changes", "pooler: {mode: Session, plannedChanges: {holdSeconds: 0}}", Accepted),
        ("a long hold", "pooler: {plannedChanges: {holdSeconds: 61}}", Refused("must be from 0 to 60")),
        (
            "a long hold of an upgrade",
            "pooler: {plannedChanges: {upgradeHoldSeconds: 61}}",
            Refused("must be from 0 to 60"),
        ),
        ("an allowed parameter", "pooler: {parameters: {query_timeout: '30'}}", Accepted),
        ("an owned parameter", "pooler: {parameters: {auth_type: trust}}", Refused("spec.pooler.parameters sets")),
        (
            "a line break in a parameter",
            "pooler: {parameters: {query_timeout: \"1\\nauth_type=trust\"}}",
            Refused("a value has letters"),
        ),
    ]
}

fn gateway() -> Vec<(&'static str, &'static str, Expected)> {
    let exposed = "Servicedb's own schemas and PostgreSQL's are never exposed";
    vec![
        ("a gateway", "gateway: {}", Accepted),
        (
            "a gateway with all its fields",
            "gateway: {instances: 3, schemas: [public, shop], search: {films: [title]}, searchConfiguration: english, connections: 5, maxRows: 100, costPerSecond: 5000, cache: {collections: [films, shop.orders], megabytes: 64}, statementTimeoutSeconds: 5}",
            Accepted,
        ),
        ("no pods of the gateway", "gateway: {instances: 0}", Refused("spec.gateway.instances must be from 1 to 16")),
        ("no connections", "gateway: {connections: 0}", Refused("spec.gateway.connections must be from 1 to 200")),
        ("no rows", "gateway: {maxRows: 0}", Refused("spec.gateway.maxRows must be at least 1")),
        ("no cost", "gateway: {costPerSecond: 0}", Refused("spec.gateway.costPerSecond must be at least 1")),
        ("a cache of nothing", "gateway: {cache: {collections: []}}", Refused("spec.gateway.cache.collections")),
        (
            "a cache without room",
            "gateway: {cache: {collections: [films], megabytes: 0}}",
            Refused("spec.gateway.cache.megabytes must be from 1 to 64"),
        ),
        ("no time", "gateway: {statementTimeoutSeconds: 0}", Refused("must be from 1 to 3600")),
        ("the ledger's schema", "gateway: {schemas: [public, servicedb]}", Refused(exposed)),
        ("a schema of PostgreSQL", "gateway: {schemas: [pg_catalog]}", Refused(exposed)),
        ("no schema", "gateway: {schemas: []}", Refused("spec.gateway.schemas")),
        (
            "a search configuration that is none",
            "gateway: {searchConfiguration: \"english'\"}",
            Refused("text search configuration"),
        ),
    ]
}

fn monitoring() -> Vec<(&'static str, &'static str, Expected)> {
    vec![
        ("no monitoring of its own", "monitoring: {}", Accepted),
        ("a team's queries", "monitoring: {queries: {name: chat-queries}}", Accepted),
        ("a team's queries under a key", "monitoring: {queries: {name: chat-queries, key: custom.yml}}", Accepted),
        ("queries without a name", "monitoring: {queries: {key: custom.yml}}", Refused("queries.name")),
        (
            "queries in no ConfigMap",
            "monitoring: {queries: {name: Chat/queries}}",
            Refused("a valid name of a ConfigMap"),
        ),
        ("an audit of nothing", "audit: {}", Accepted),
        ("an audit of granted relations", "audit: {grantedRelations: true}", Accepted),
        ("a list of relations", "audit: {relations: [accounts]}", Refused("unknown field")),
        ("queries under no key", "monitoring: {queries: {name: chat-queries, key: ''}}", Refused("queries.key")),
    ]
}

const NAME: &str = "metadata.name is the service's name";
const PG: &str = "metadata.name must not be 'pg' or start with 'pg-'";
/// Kubernetes' own rule for every object's name, which comes before ours.
const NOT_A_NAME: &str = "metadata.name: Invalid value";

fn names() -> Vec<(&'static str, &'static str, Expected)> {
    vec![
        ("an ordinary name", "match-maker", Accepted),
        ("a letter", "a", Accepted),
        ("a digit at the end", "auth2", Accepted),
        ("two hyphens", "a--b", Accepted),
        ("40 characters", "a123456789a123456789a123456789a123456789", Accepted),
        ("41 characters", "a123456789a123456789a123456789a1234567890", Refused(NAME)),
        ("a dot", "chat.v2", Refused(NAME)),
        ("a digit first", "2fa", Refused(NAME)),
        ("reserved by PostgreSQL", "pg-chat", Refused(PG)),
        ("its logins would be pg_a and pg_b", "pg", Refused(PG)),
        ("pg is only a beginning", "pgadmin", Accepted),
        ("upper case", "Chat", Refused(NOT_A_NAME)),
        ("an underscore", "chat_db", Refused(NOT_A_NAME)),
        ("a hyphen at the end", "chat-", Refused(NOT_A_NAME)),
        ("a hyphen first", "-chat", Refused(NOT_A_NAME)),
        ("empty", "", Refused("name or generateName is required")),
        ("a quote", "chat'--", Refused(NOT_A_NAME)),
        ("SQL", "x; DROP DATABASE postgres", Refused(NOT_A_NAME)),
        ("a path", "../secret", Refused(NOT_A_NAME)),
        ("unicode", "чат", Refused(NOT_A_NAME)),
        ("a newline", "chat\nx", Refused(NOT_A_NAME)),
    ]
}

type Row = (&'static str, &'static str, Expected);

const DATABASE: &str = "spec.database must be at most 50 characters";
const RESERVED_DATABASE: &str = "spec.database must not be a name that PostgreSQL reserves";
const VERSION: &str = "spec.postgres.version must be a major version";
const PARAMETER_NAME: &str = "spec.postgres.parameters: a parameter's name has lower-case letters";
const RESERVED: &str = "spec.postgres.parameters sets a parameter that is reserved";
const COMMIT: &str = "spec.postgres.parameters: synchronous_commit must be on, remote_write or remote_apply";
const CONNECTIONS: &str =
    "spec.postgres.parameters: max_connections must be at least 25, and max_locks_per_transaction at least 32";
const SENDERS: &str = "spec.postgres.parameters: max_wal_senders and max_replication_slots must be at least 10";
const CONTROL: &str = "spec.postgres.parameters: a value must not have control characters";
const EXTENSION: &str = "spec.postgres.extensions[].name: an extension's name has lower-case letters";
const EXTENSION_VERSION: &str = "spec.postgres.extensions[].version must be a version";
const EXTENSION_SCHEMA: &str = "spec.postgres.extensions[].schema: lower-case letters";

fn postgres() -> Vec<Row> {
    vec![
        ("a database", "database: chat_db", Accepted),
        ("an underscore first", "database: _chat", Accepted),
        ("pg in it", "database: chat_pg_1", Accepted),
        ("an empty database", "database: ''", Refused("spec.database: Invalid value")),
        ("a hyphen in the database", "database: chat-db", Refused(DATABASE)),
        ("a digit first in the database", "database: 1chat", Refused(DATABASE)),
        ("an upper-case database", "database: Chat", Refused(DATABASE)),
        ("a quoted database", r#"database: 'chat"; DROP TABLE x; --'"#, Refused(DATABASE)),
        ("a quote in the database", r#"database: "o'brien""#, Refused(DATABASE)),
        ("a unicode database", "database: чат", Refused(DATABASE)),
        ("a newline in the database", r#"database: "chat\n""#, Refused(DATABASE)),
        ("a NUL in the database", r#"database: "chat\0""#, Refused(DATABASE)),
        ("a number as the database", "database: 17", Refused("spec.database: Invalid value: \"integer\"")),
        ("postgres", "database: postgres", Refused(RESERVED_DATABASE)),
        ("template1", "database: template1", Refused(RESERVED_DATABASE)),
        ("template0", "database: template0", Refused(RESERVED_DATABASE)),
        ("pg_", "database: pg_chat", Refused(RESERVED_DATABASE)),
        ("its owner would be pg_owner", "database: pg", Refused(RESERVED_DATABASE)),
        ("another version", "postgres: {version: '18'}", Accepted),
        ("former data for a week", "postgres: {formerDataDays: 7}", Accepted),
        (
            "former data for no day",
            "postgres: {formerDataDays: 0}",
            Refused("spec.postgres.formerDataDays must be from 1 to 3650"),
        ),
        (
            "a version as a number",
            "postgres: {version: 17}",
            Refused("spec.postgres.version: Invalid value: \"integer\""),
        ),
        ("a minor version", "postgres: {version: '17.5'}", Refused(VERSION)),
        ("an empty version", "postgres: {version: ''}", Refused(VERSION)),
        ("a version of letters", "postgres: {version: latest}", Refused(VERSION)),
        ("a long version", "postgres: {version: '17171717171717171'}", Refused("spec.postgres.version: Too long")),
        ("parameters", "postgres: {parameters: {max_connections: '200', pg_stat_statements.track: all}}", Accepted),
        ("a value with quotes", r#"postgres: {parameters: {search_path: "\"$user\", 'public'"}}"#, Accepted),
        ("a value in unicode", "postgres: {parameters: {application_name: чат}}", Accepted),
        ("an empty value", "postgres: {parameters: {log_line_prefix: ''}}", Accepted),
        (
            "a number as a value",
            "postgres: {parameters: {max_connections: 200}}",
            Refused("spec.postgres.parameters.max_connections: Invalid value: \"integer\""),
        ),
        ("a reserved parameter", "postgres: {parameters: {ssl: 'off'}}", Refused(RESERVED)),
        ("one that runs code", "postgres: {parameters: {archive_command: 'rm -rf /'}}", Refused(RESERVED)),
        ("one that loses data in a crash", "postgres: {parameters: {fsync: 'off'}}", Refused(RESERVED)),
        ("commits that wait for nobody", "postgres: {parameters: {synchronous_commit: 'off'}}", Refused(COMMIT)),
        ("commits that wait for this volume", "postgres: {parameters: {synchronous_commit: local}}", Refused(COMMIT)),
        ("commits that replicas show", "postgres: {parameters: {synchronous_commit: remote_apply}}", Accepted),
        ("too few senders for replicas", "postgres: {parameters: {max_wal_senders: '2'}}", Refused(SENDERS)),
        ("too few slots for replicas", "postgres: {parameters: {max_replication_slots: '0'}}", Refused(SENDERS)),
        (
            "fewer connections than Patroni takes",
            "postgres: {parameters: {max_connections: '24'}}",
            Refused(CONNECTIONS),
        ),
        (
            "fewer locks than Patroni takes",
            "postgres: {parameters: {max_locks_per_transaction: '31'}}",
            Refused(CONNECTIONS),
        ),
        ("few connections", "postgres: {parameters: {max_connections: '25'}}", Accepted),
        ("more senders", "postgres: {parameters: {max_wal_senders: '20'}}", Accepted),
        ("one that includes a file", "postgres: {parameters: {include_if_exists: /etc/passwd}}", Refused(RESERVED)),
        ("a reserved parameter in upper case", "postgres: {parameters: {SSL: 'off'}}", Refused(PARAMETER_NAME)),
        ("a reserved parameter in mixed case", "postgres: {parameters: {Archive_Command: x}}", Refused(PARAMETER_NAME)),
        ("a reserved parameter and a space", "postgres: {parameters: {'ssl ': 'off'}}", Refused(PARAMETER_NAME)),
        ("a newline in a name", r#"postgres: {parameters: {"work_mem\nssl": 'off'}}"#, Refused(PARAMETER_NAME)),
        ("a quote in a name", r#"postgres: {parameters: {"work'mem": 'off'}}"#, Refused(PARAMETER_NAME)),
        ("an empty name", "postgres: {parameters: {'': x}}", Refused(PARAMETER_NAME)),
        ("a newline in a value", r#"postgres: {parameters: {work_mem: "8MB'\nssl = 'off"}}"#, Refused(CONTROL)),
        ("a newline at a value's end", r#"postgres: {parameters: {work_mem: "8MB\n"}}"#, Refused(CONTROL)),
        ("a NUL in a value", r#"postgres: {parameters: {work_mem: "8MB\0"}}"#, Refused(CONTROL)),
        ("a DEL in a value", r#"postgres: {parameters: {work_mem: "8MB\x7f"}}"#, Refused(CONTROL)),
        ("extensions", "postgres: {extensions: [{name: pg_trgm}, {name: uuid-ossp}]}", Accepted),
        (
            "an extension with a version and a schema",
            "postgres: {extensions: [{name: vector, version: 0.8.0, schema: vectors}, {name: pg_cron, version: '1.6'}]}",
            Accepted,
        ),
        (
            "an extension in the schema of the others",
            "postgres: {extensions: [{name: hstore, schema: servicedb_extensions}]}",
            Accepted,
        ),
        (
            "SQL as an extension's version",
            r#"postgres: {extensions: [{name: vector, version: "1' CASCADE"}]}"#,
            Refused(EXTENSION_VERSION),
        ),
        ("an empty version", "postgres: {extensions: [{name: vector, version: ''}]}", Refused(EXTENSION_VERSION)),
        (
            "a version as a number",
            "postgres: {extensions: [{name: vector, version: 1.6}]}",
            Refused("spec.postgres.extensions[0].version: Invalid value: \"number\""),
        ),
        (
            "an extension in the schema of the ledger",
            "postgres: {extensions: [{name: vector, schema: servicedb}]}",
            Refused(EXTENSION_SCHEMA),
        ),
        (
            "an extension in PostgreSQL's schema",
            "postgres: {extensions: [{name: vector, schema: pg_catalog}]}",
            Refused(EXTENSION_SCHEMA),
        ),
        (
            "an extension in the schema of pg_cron",
            "postgres: {extensions: [{name: vector, schema: cron}]}",
            Refused(EXTENSION_SCHEMA),
        ),
        (
            "a schema in upper case",
            "postgres: {extensions: [{name: vector, schema: Vectors}]}",
            Refused(EXTENSION_SCHEMA),
        ),
        ("an extension in upper case", "postgres: {extensions: [{name: PostGIS}]}", Refused(EXTENSION)),
        ("SQL as an extension", "postgres: {extensions: [{name: 'x; DROP TABLE y'}]}", Refused(EXTENSION)),
        (
            "an empty extension",
            "postgres: {extensions: [{name: ''}]}",
            Refused("spec.postgres.extensions[0].name: Invalid value"),
        ),
        (
            "an extension without a name",
            "postgres: {extensions: [{}]}",
            Refused("spec.postgres.extensions[0].name: Required value"),
        ),
        (
            "an extension twice",
            "postgres: {extensions: [{name: citext}, {name: citext}]}",
            Refused("spec.postgres.extensions[1]: Duplicate value"),
        ),
    ]
}

const QUANTITY: &str = "spec.storage.size must be a quantity";
const SIZE: &str = "spec.storage.size must be from 256Mi to 64Ti";

fn storage() -> Vec<Row> {
    vec![
        ("the smallest size", "storage: {size: 256Mi}", Accepted),
        ("a size as a number", "storage: {size: 1073741824}", Accepted),
        ("the largest size", "storage: {size: 64Ti}", Accepted),
        ("a fraction", "storage: {size: 0.5Gi}", Accepted),
        ("too small", "storage: {size: 255Mi}", Refused(SIZE)),
        ("zero", "storage: {size: 0}", Refused(SIZE)),
        ("zero with a unit", "storage: {size: 0Gi}", Refused(SIZE)),
        ("negative", "storage: {size: -1Gi}", Refused(SIZE)),
        ("thousandths", "storage: {size: 1000m}", Refused(SIZE)),
        ("too large", "storage: {size: 65Ti}", Refused(SIZE)),
        ("huge", "storage: {size: 9223372036854775807Ei}", Refused(SIZE)),
        ("no quantity", "storage: {size: banana}", Refused(QUANTITY)),
        ("a unit that is none", "storage: {size: 20GB}", Refused(QUANTITY)),
        ("an empty size", "storage: {size: ''}", Refused(QUANTITY)),
        ("unicode digits", "storage: {size: '٢Gi'}", Refused(QUANTITY)),
        ("a floating number", "storage: {size: 1.5}", Refused("spec.storage.size: Invalid value")),
        ("no size", "storage: {}", Refused("spec.storage.size: Required value")),
        ("no storage", "storage: null", Refused("spec.storage: Required value")),
        ("a class", "storage: {size: 1Gi, storageClassName: fast}", Accepted),
        (
            "an empty class",
            "storage: {size: 1Gi, storageClassName: ''}",
            Refused("spec.storage.storageClassName: Invalid"),
        ),
    ]
}

const INSTANCES: &str = "spec.instances must be from 1 to 9";
const CLIENT: &str = "spec.clients[].serviceAccountName must be the name of a ServiceAccount, or namespace/name";
const OTHER_NAMESPACE: &str = "spec.clients[].serviceAccountNamespace, or a namespace in serviceAccountName, needs an access.mode other than Shared";

const RESERVED_LABEL: &str = "spec.podMetadata.labels sets a key that is reserved";

fn the_rest() -> Vec<Row> {
    vec![
        (
            "a restore to a time",
            "bootstrap: {restore: {source: {name: game}, target: {time: '2026-11-29T10:15:00.5+01:00'}}}",
            Accepted,
        ),
        (
            "a restore of a deleted database",
            "bootstrap: {restore: {source: {store: main, path: /prod/dev/games/game/0c1d}}}",
            Accepted,
        ),
        ("a restore to a name", "bootstrap: {restore: {source: {name: game}, target: {name: before-1.2}}}", Accepted),
        (
            "a name that ends its quotes",
            "bootstrap: {restore: {source: {name: game}, target: {name: \"a'b\"}}}",
            Refused("target.name has letters"),
        ),
        ("a restore of another namespace", "bootstrap: {restore: {source: {name: game, namespace: games}}}", Accepted),
        (
            "a namespace of a folder",
            "bootstrap: {restore: {source: {store: main, path: /prod/dev/games/game/0c1d, namespace: games}}}",
            Refused("namespace belongs to name"),
        ),
        (
            "a timeline that is none",
            "bootstrap: {restore: {source: {name: game}, target: {lsn: 0/3000148, timeline: 0}}}",
            Refused("timeline"),
        ),
        ("a restore from nothing", "bootstrap: {restore: {source: {}}}", Refused("source needs either name, or path")),
        (
            "a store beside a name",
            "bootstrap: {restore: {source: {name: game, store: main}}}",
            Accepted,
        ),
        (
            "a time without its offset",
            "bootstrap: {restore: {source: {name: game}, target: {time: '2026-11-29 10:15:00'}}}",
            Refused("RFC 3339 with its offset"),
        ),
        (
            "a position in WAL that is none",
            "bootstrap: {restore: {source: {name: game}, target: {lsn: latest}}}",
            Refused("target.lsn must be a position in WAL"),
        ),
        (
            "two targets",
            "bootstrap: {restore: {source: {name: game}, target: {lsn: 0/3000148, immediate: true}}}",
            Refused("target needs exactly one of"),
        ),
        ("no full backup kept", "backup: {retentionFullBackups: 0}", Refused("spec.backup.retentionFullBackups must be from 1 to 1000")),
        ("no retention", "backup: {retentionDays: 0}", Refused("spec.backup.retentionDays must be from 1 to 3650")),
        (
            "labels and annotations of pods",
            "podMetadata: {labels: {team: games, app.kubernetes.io/part-of: shop, empty: ''}, annotations: {example.com/owner: 'Ann O. Ther'}}",
            Accepted,
        ),
        ("a label of ours", "podMetadata: {labels: {servicedb.dev/scope: x}}", Refused(RESERVED_LABEL)),
        ("a label that names the instance", "podMetadata: {labels: {app.kubernetes.io/name: x}}", Refused(RESERVED_LABEL)),
        ("a label of a controller", "podMetadata: {labels: {batch.kubernetes.io/job-name: x}}", Refused(RESERVED_LABEL)),
        (
            "the agent's annotation",
            "podMetadata: {annotations: {servicedb.dev/agent: x}}",
            Refused("spec.podMetadata.annotations sets a key that is reserved"),
        ),
        ("a label's key with a blank", "podMetadata: {labels: {'a b': x}}", Refused("spec.podMetadata.labels: a key")),
        ("a label's value with a blank", "podMetadata: {labels: {a: 'x y'}}", Refused("spec.podMetadata.labels: a label's value")),
        (
            "resources of Jobs",
            "migrations: {source: {configMap: {name: m}}, resources: {requests: {cpu: 10m}, limits: {memory: 64Mi}}}",
            Accepted,
        ),
        ("nine instances", "instances: 9", Accepted),
        ("ten instances", "instances: 10", Refused(INSTANCES)),
        ("no instances", "instances: 0", Refused(INSTANCES)),
        ("negative instances", "instances: -1", Refused(INSTANCES)),
        ("more instances than an int32", "instances: 3000000000", Refused("spec.instances")),
        ("instances as text", "instances: '3'", Refused("spec.instances: Invalid value: \"string\"")),
        ("half an instance", "instances: 1.5", Refused("spec.instances: Invalid value")),
        ("an hour", "credentials: {rotationPeriodSeconds: 3600}", Accepted),
        ("a year", "credentials: {rotationPeriodSeconds: 31536000}", Accepted),
        (
            "a period that locks services out",
            "credentials: {rotationPeriodSeconds: 3599}",
            Refused("spec.credentials.rotationPeriodSeconds must be from 3600"),
        ),
        (
            "a period of more than a year",
            "credentials: {rotationPeriodSeconds: 31536001}",
            Refused("spec.credentials.rotationPeriodSeconds must be from 3600"),
        ),
        (
            "a period as text",
            "credentials: {rotationPeriodSeconds: 1d}",
            Refused("spec.credentials.rotationPeriodSeconds: Invalid value"),
        ),
        ("a Secret", "credentials: {secret: {name: chat-credentials}}", Accepted),
        (
            "a Secret of the operator's",
            "credentials: {secret: {name: chat-db-tls}}",
            Refused("spec.credentials.secret.name must not begin with the resource's name and '-db'"),
        ),
        (
            "a Secret without a name",
            "credentials: {secret: {name: ''}}",
            Refused("spec.credentials.secret.name"),
        ),
        (
            "a Secret of a name that none can have",
            "credentials: {secret: {name: Chat_Credentials}}",
            Refused("secret.name must be a valid name of a Secret"),
        ),
        ("adoption", "bootstrap: {adopt: true}", Accepted),
        ("adoption as text", "bootstrap: {adopt: 'yes'}", Refused("spec.bootstrap.adopt: Invalid value")),
        ("no lag", "replication: {maximumLagBytes: 0}", Accepted),
        ("negative lag", "replication: {maximumLagBytes: -1}", Refused("spec.replication.maximumLagBytes must not be negative")),
        ("text for a truth", "replication: {synchronous: 'yes'}", Refused("spec.replication.synchronous: Invalid value")),
        ("resources", "resources: {requests: {cpu: 250m, memory: 512Mi}, limits: {memory: 1Gi, cpu: 2}}", Accepted),
        (
            "a quantity that is none",
            "resources: {requests: {memory: lots}}",
            Refused("spec.resources.requests.memory: Invalid value"),
        ),
        (
            "claims have no place",
            "resources: {claims: [{name: gpu}]}",
            Refused(r#"unknown field "spec.resources.claims""#),
        ),
        (
            "scheduling",
            "scheduling:
  priorityClassName: high
  tolerations: [{key: db, operator: Exists, effect: NoSchedule}]
  topologySpreadConstraints:
  - {topologyKey: zone, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {a: b}}}
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: ssd, operator: In, values: ['1']}]}]}}}",
            Accepted,
        ),
        (
            "one spread twice",
            "scheduling: {topologySpreadConstraints: [{topologyKey: z, maxSkew: 1, whenUnsatisfiable: DoNotSchedule}, {topologyKey: z, maxSkew: 2, whenUnsatisfiable: DoNotSchedule}]}",
            Refused("spec.scheduling.topologySpreadConstraints[1]: Duplicate value"),
        ),
        (
            "an empty priority class",
            "scheduling: {priorityClassName: ''}",
            Refused("spec.scheduling.priorityClassName: Invalid value"),
        ),
        ("migrations", "migrations: {source: {configMap: {name: chat-migrations}}}", Accepted),
        ("migrations of nothing", "migrations: {}", Refused("spec.migrations.source: Required value")),
        (
            "migrations of an empty source",
            "migrations: {source: {}}",
            Refused("spec.migrations.source must name exactly one source"),
        ),
        (
            "migrations of two sources",
            "migrations: {source: {configMap: {name: a}, configMaps: [{name: b}]}}",
            Refused("spec.migrations.source must name exactly one source"),
        ),
        (
            "migrations in several ConfigMaps, of which there is none",
            "migrations: {source: {configMaps: []}}",
            Refused("spec.migrations.source.configMaps"),
        ),
        (
            "migrations in several ConfigMaps, with all that can be said",
            "migrations: {source: {configMaps: [{name: a}, {name: b}]}, targetVersion: 3, rollback: Allow, outOfOrder: Allow, \
             baselineVersion: 3, dryRun: true, lockTimeoutSeconds: 60, statementTimeoutSeconds: 0, \
             dependsOn: [{name: auth, minimumVersion: 2}]}",
            Accepted,
        ),
        (
            "a rollback to nowhere",
            "migrations: {source: {configMap: {name: a}}, rollback: Allow}",
            Refused("needs an explicit spec.migrations.targetVersion"),
        ),
        (
            "a baseline above the target",
            "migrations: {source: {configMap: {name: a}}, targetVersion: 2, baselineVersion: 3}",
            Refused("spec.migrations.baselineVersion must not be above spec.migrations.targetVersion"),
        ),
        (
            "a schema without any migration",
            "migrations: {source: {configMap: {name: a}}, targetVersion: 0, rollback: Allow}",
            Accepted,
        ),
        (
            "a target below none",
            "migrations: {source: {configMap: {name: a}}, targetVersion: -1}",
            Refused("spec.migrations.targetVersion must not be negative"),
        ),
        (
            "versions that are texts",
            "migrations: {source: {configMap: {name: a}, format: Flyway}, targetVersion: '1.10', baselineVersion: '1.2', \
             dependsOn: [{name: auth, minimumVersion: '00000000000000'}]}",
            Accepted,
        ),
        (
            "a version with a fraction, which has lost what was written",
            "migrations: {source: {configMap: {name: a}}, targetVersion: 1.10}",
            Refused("spec.migrations.targetVersion: Invalid value"),
        ),
        (
            "an empty version",
            "migrations: {source: {configMap: {name: a}}, targetVersion: ''}",
            Refused("spec.migrations.targetVersion must not be empty"),
        ),
        (
            "a minimum below none",
            "migrations: {source: {configMap: {name: a}}, dependsOn: [{name: auth, minimumVersion: -1}]}",
            Refused("spec.migrations.dependsOn[].minimumVersion must not be negative"),
        ),
        (
            "a tool's own table",
            "migrations: {source: {image: {reference: team/app:1}, format: Diesel}, baseline: FromTool}",
            Accepted,
        ),
        (
            "a tool's own table and a version",
            "migrations: {source: {configMap: {name: a}}, baseline: FromTool, baselineVersion: 3}",
            Refused("spec.migrations.baseline FromTool reads the versions from the tool's own table"),
        ),
        (
            "an unknown tool",
            "migrations: {source: {configMap: {name: a}, format: Liquibase}}",
            Refused("spec.migrations.source.format: Unsupported value"),
        ),
        (
            "a wait for locks without end",
            "migrations: {source: {configMap: {name: a}}, lockTimeoutSeconds: 0}",
            Refused("spec.migrations.lockTimeoutSeconds must be from 1 to 3600"),
        ),
        (
            "a dependency named twice",
            "migrations: {source: {configMap: {name: a}}, dependsOn: [{name: b, minimumVersion: 1}, {name: b, minimumVersion: 2}]}",
            Refused("Duplicate value"),
        ),
        (
            "migrations of an image",
            "migrations: {source: {image: {reference: team/app:1, path: /db, imagePullSecrets: [{name: team}]}}, approval: Manual, \
             driftCheckSeconds: 0}",
            Accepted,
        ),
        (
            "an image's path that leads out of it",
            "migrations: {source: {image: {reference: team/app:1, path: /db/../etc}}}",
            Refused("spec.migrations.source.image.path must be absolute"),
        ),
        (
            "the whole of an image",
            "migrations: {source: {image: {reference: team/app:1, path: /}}}",
            Refused("spec.migrations.source.image.path must be absolute"),
        ),
        (
            "a tool of the team's own",
            "migrations: {source: {job: {image: team/app:1, command: [flask], args: [db, upgrade], \
             versionQuery: SELECT 1}}, approval: Manual}",
            Accepted,
        ),
        (
            "a tool with what is ours to decide",
            "migrations: {source: {job: {image: team/app:1}}, targetVersion: 3}",
            Refused("spec.migrations with source.job takes no targetVersion"),
        ),
        (
            "a tool with a dry run",
            "migrations: {source: {job: {image: team/app:1}}, dryRun: true}",
            Refused("spec.migrations with source.job takes no targetVersion"),
        ),
        (
            "a look for drift too often",
            "migrations: {source: {configMap: {name: a}}, driftCheckSeconds: 60}",
            Refused("spec.migrations.driftCheckSeconds must be 0 (never) or from 300"),
        ),
        (
            "an empty ConfigMap name",
            "migrations: {source: {configMap: {name: ''}}}",
            Refused("spec.migrations.source.configMap.name: Invalid value"),
        ),
        (
            "a client",
            "clients: [{serviceAccountName: chat, podSelector: {matchLabels: {app: chat}}}, {serviceAccountName: a.b}]",
            Accepted,
        ),
        ("every ServiceAccount", "clients: [{serviceAccountName: '*'}]", Refused(CLIENT)),
        ("two in one", "clients: [{serviceAccountName: 'chat,game'}]", Refused(CLIENT)),
        ("another namespace's", "clients: [{serviceAccountName: 'kube-system/default'}]", Refused(OTHER_NAMESPACE)),
        ("a newline in a client", r#"clients: [{serviceAccountName: "chat\n"}]"#, Refused(CLIENT)),
        ("a client without a name", "clients: [{}]", Refused("spec.clients[0].serviceAccountName: Required value")),
        (
            "an empty client",
            "clients: [{serviceAccountName: ''}]",
            Refused("spec.clients[0].serviceAccountName: Invalid value"),
        ),
        (
            "a client twice",
            "clients: [{serviceAccountName: chat}, {serviceAccountName: chat}]",
            Refused("spec.clients[1]: Duplicate value"),
        ),
        (
            "clients with logins of their own",
            "clients: [{serviceAccountName: a, access: {mode: ReadOnly}, connectionLimit: 3, statementTimeoutSeconds: 60}, {serviceAccountName: b.c, name: bot, access: {mode: Custom, grants: [{tables: ['*'], privileges: [SELECT, INSERT, UPDATE, DELETE, TRUNCATE]}, {schema: app, tables: [t], columns: [c], privileges: [SELECT], rowPolicy: NOT hidden}]}, sharedToo: true}, {serviceAccountName: d, access: {mode: Shared}}]",
            Accepted,
        ),
        ("a client's name with a quote", r#"clients: [{serviceAccountName: a, name: "x\"y"}]"#, Refused("spec.clients[].name must have")),
        ("a client's name of 21 characters", "clients: [{serviceAccountName: a, name: abcdefghijklmnopqrstu}]", Refused("spec.clients[0].name: Too long")),
        ("another mode", "clients: [{serviceAccountName: a, access: {mode: Admin}}]", Refused("spec.clients[0].access.mode: Unsupported value")),
        ("access without a mode", "clients: [{serviceAccountName: a, access: {}}]", Refused("spec.clients[0].access.mode: Required value")),
        ("custom without grants", "clients: [{serviceAccountName: a, access: {mode: Custom}}]", Refused("mode Custom needs grants")),
        ("another privilege", "clients: [{serviceAccountName: a, access: {mode: Custom, grants: [{tables: [t], privileges: [ALL]}]}}]", Refused("Unsupported value: \"ALL\"")),
        ("rights on catalogues", "clients: [{serviceAccountName: a, access: {mode: Custom, grants: [{schema: pg_catalog, tables: [pg_authid], privileges: [SELECT]}]}}]", Refused("schema is PostgreSQL's or Servicedb's own")),
        ("rights on the ledger", "clients: [{serviceAccountName: a, access: {mode: Custom, grants: [{schema: servicedb, tables: [migrations], privileges: [UPDATE]}]}}]", Refused("schema is PostgreSQL's or Servicedb's own")),
        ("all tables and one", "clients: [{serviceAccountName: a, access: {mode: Custom, grants: [{tables: ['*', t], privileges: [SELECT]}]}}]", Refused("stands for all tables")),
        ("columns of all tables", "clients: [{serviceAccountName: a, access: {mode: Custom, grants: [{tables: ['*'], columns: [c], privileges: [SELECT]}]}}]", Refused("columns need tables by name")),
        ("columns to delete", "clients: [{serviceAccountName: a, access: {mode: Custom, grants: [{tables: [t], columns: [c], privileges: [DELETE]}]}}]", Refused("columns need tables by name")),
        ("rows of all tables", "clients: [{serviceAccountName: a, access: {mode: Custom, grants: [{tables: ['*'], privileges: [SELECT], rowPolicy: 'true'}]}}]", Refused("rowPolicy needs tables by name")),
        ("a limit without a login", "clients: [{serviceAccountName: a, connectionLimit: 3}]", Refused("connectionLimit, statementTimeoutSeconds, sharedToo and secret need access")),
        ("a Secret without a login", "clients: [{serviceAccountName: a, secret: {name: a-credentials}, access: {mode: Shared}}]", Refused("need an access.mode other than Shared")),
        ("a Secret of a client", "clients: [{serviceAccountName: a, secret: {name: a-credentials}, access: {mode: ReadOnly}}]", Accepted),
        ("short-lived logins", "clients: [{serviceAccountName: a, access: {mode: ReadOnly, dynamic: {}}, sharedToo: true}, {serviceAccountName: b, access: {mode: ReadWrite, dynamic: {ttlSeconds: 60, maxTtlSeconds: 60}}}]", Accepted),
        ("a login for seconds", "clients: [{serviceAccountName: a, access: {mode: ReadOnly, dynamic: {ttlSeconds: 59}}}]", Refused("ttlSeconds must be from 60 to 86400")),
        ("a lifetime above its maximum", "clients: [{serviceAccountName: a, access: {mode: ReadOnly, dynamic: {ttlSeconds: 600, maxTtlSeconds: 599}}}]", Refused("maxTtlSeconds from ttlSeconds")),
        ("short-lived and shared", "clients: [{serviceAccountName: a, access: {mode: Shared, dynamic: {}}}]", Refused("access.dynamic needs a mode other than Shared")),
        ("a Secret of a short-lived login", "clients: [{serviceAccountName: a, secret: {name: a-credentials}, access: {mode: ReadOnly, dynamic: {}}}]", Refused("access.dynamic has none")),
        ("shared, too, and shared", "clients: [{serviceAccountName: a, access: {mode: Shared}, sharedToo: true}]", Refused("need an access.mode other than Shared")),
        ("a client of another namespace", "clients: [{serviceAccountName: a, serviceAccountNamespace: reports, access: {mode: ReadOnly}, podSelector: {}}]", Accepted),
        ("a client of all namespaces", "clients: [{serviceAccountName: a, serviceAccountNamespace: '*', access: {mode: ReadOnly}}]", Refused("serviceAccountNamespace must be the name of a namespace")),
        ("a client of two namespaces", "clients: [{serviceAccountName: a, serviceAccountNamespace: 'b,c', access: {mode: ReadOnly}}]", Refused("serviceAccountNamespace must be the name of a namespace")),
        ("a newline in a namespace", r#"clients: [{serviceAccountName: a, serviceAccountNamespace: "b\n", access: {mode: ReadOnly}}]"#, Refused("serviceAccountNamespace must be the name of a namespace")),
        ("a namespace of 64 characters", "clients: [{serviceAccountName: a, serviceAccountNamespace: abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl, access: {mode: ReadOnly}}]", Refused("spec.clients[0].serviceAccountNamespace: Too long")),
        ("the shared login in another namespace", "clients: [{serviceAccountName: a, serviceAccountNamespace: reports}]", Refused(OTHER_NAMESPACE)),
        ("the shared login, too, in another namespace", "clients: [{serviceAccountName: a, serviceAccountNamespace: reports, access: {mode: ReadOnly}, sharedToo: true}]", Refused(OTHER_NAMESPACE)),
        ("a Secret for another namespace", "clients: [{serviceAccountName: a, serviceAccountNamespace: reports, access: {mode: ReadOnly}, secret: {name: s}}]", Refused(OTHER_NAMESPACE)),
        ("accounts of one name in three namespaces", "clients: [{serviceAccountName: a}, {serviceAccountName: reports/a, name: b, access: {mode: ReadOnly}, podSelector: {}}, {serviceAccountName: web/a, name: c, access: {mode: ReadOnly}}]", Accepted),
        ("an account of another namespace twice", "clients: [{serviceAccountName: reports/a, access: {mode: ReadOnly}}, {serviceAccountName: reports/a, name: b, access: {mode: ReadOnly}}]", Refused("spec.clients[1]: Duplicate value")),
        ("a namespace in both fields", "clients: [{serviceAccountName: reports/a, serviceAccountNamespace: reports, access: {mode: ReadOnly}}]", Refused("serviceAccountName has a namespace: remove serviceAccountNamespace")),
        ("the shared login, too, for a namespace in the name", "clients: [{serviceAccountName: reports/a, access: {mode: ReadOnly}, sharedToo: true}]", Refused(OTHER_NAMESPACE)),
        ("a Secret for a namespace in the name", "clients: [{serviceAccountName: reports/a, access: {mode: ReadOnly}, secret: {name: s}}]", Refused(OTHER_NAMESPACE)),
        ("all namespaces in the name", "clients: [{serviceAccountName: '*/a', access: {mode: ReadOnly}}]", Refused(CLIENT)),
        ("two namespaces in the name", "clients: [{serviceAccountName: b/c/a, access: {mode: ReadOnly}}]", Refused(CLIENT)),
        ("no namespace before the name", "clients: [{serviceAccountName: /a, access: {mode: ReadOnly}}]", Refused(CLIENT)),
        ("no name after the namespace", "clients: [{serviceAccountName: reports/, access: {mode: ReadOnly}}]", Refused(CLIENT)),
        ("a namespace with a dot", "clients: [{serviceAccountName: re.ports/a, access: {mode: ReadOnly}}]", Refused(CLIENT)),
        ("a namespace of 64 characters in the name", "clients: [{serviceAccountName: abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl/a, access: {mode: ReadOnly}}]", Refused(CLIENT)),
        ("no connection", "clients: [{serviceAccountName: a, access: {mode: ReadOnly}, connectionLimit: 0}]", Refused("connectionLimit must be from 1")),
        ("an endless grace", "credentials: {sessionGraceSeconds: 3601}", Refused("sessionGraceSeconds must be from 0 to 3600")),
        ("policy Delete", "deletionPolicy: Delete", Accepted),
        (
            "another policy",
            "deletionPolicy: Destroy",
            Refused(r#"spec.deletionPolicy: Unsupported value: "Destroy": supported values: "Retain", "Delete""#),
        ),
        ("a policy in lower case", "deletionPolicy: retain", Refused("spec.deletionPolicy: Unsupported value")),
        ("paused", "paused: true", Accepted),
        ("text for paused", "paused: 'true'", Refused("spec.paused: Invalid value: \"string\"")),
    ]
}

/// Bounds, each reached and each exceeded by one.
fn bounds() -> Vec<(&'static str, String, Expected)> {
    let list = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let parameters = |count| format!("postgres: {{parameters: {{{}}}}}", list(count, &|n| format!("p{n}: x")));
    let extensions = |count| format!("postgres: {{extensions: [{}]}}", list(count, &|n| format!("{{name: e{n}}}")));
    let clients = |count| format!("clients: [{}]", list(count, &|n| format!("{{serviceAccountName: c{n}}}")));
    let tolerations = |count| {
        format!("scheduling: {{tolerations: [{}]}}", list(count, &|n| format!("{{key: k{n}, operator: Exists}}")))
    };
    let spreads = |count| {
        let one = |n| format!("{{topologyKey: k{n}, maxSkew: 1, whenUnsatisfiable: DoNotSchedule}}");
        format!("scheduling: {{topologySpreadConstraints: [{}]}}", list(count, &one))
    };
    // The rules of all of them must be within the API server's budget for one resource.
    let granted = |count| {
        let grants = list(32, &|n| format!("{{schema: s{n}, tables: ['*'], privileges: [SELECT, INSERT, UPDATE]}}"));
        let one = |n| format!("{{serviceAccountName: c{n}, access: {{mode: Custom, grants: [{grants}]}}}}");
        format!("clients: [{}]", list(count, &one))
    };
    let labels = |count| {
        let one = |n| format!("l{n}: x");
        format!("clients: [{{serviceAccountName: c, podSelector: {{matchLabels: {{{}}}}}}}]", list(count, &one))
    };
    let database = |length| format!("database: {}", "d".repeat(length));
    let value = |length| format!("postgres: {{parameters: {{p: '{}'}}}}", "v".repeat(length));
    let parameter = |length| format!("postgres: {{parameters: {{{}: x}}}}", "p".repeat(length));
    let extension = |length| format!("postgres: {{extensions: [{{name: {}}}]}}", "e".repeat(length));
    let class = |length| format!("storage: {{size: 1Gi, storageClassName: {}}}", "c".repeat(length));
    let config_map = |length| format!("migrations: {{source: {{configMap: {{name: {}}}}}}}", "m".repeat(length));
    let client = |length| format!("clients: [{{serviceAccountName: {}}}]", "c".repeat(length));
    let priority = |length| format!("scheduling: {{priorityClassName: {}}}", "c".repeat(length));
    vec![
        ("64 parameters", parameters(64), Accepted),
        ("65 parameters", parameters(65), Refused("spec.postgres.parameters: Too many")),
        ("32 extensions", extensions(32), Accepted),
        ("33 extensions", extensions(33), Refused("spec.postgres.extensions: Too many")),
        ("64 clients", clients(64), Accepted),
        ("64 clients with 32 grants each", granted(64), Accepted),
        ("65 clients", clients(65), Refused("spec.clients: Too many")),
        ("32 tolerations", tolerations(32), Accepted),
        ("33 tolerations", tolerations(33), Refused("spec.scheduling.tolerations: Too many")),
        ("16 spreads", spreads(16), Accepted),
        ("17 spreads", spreads(17), Refused("spec.scheduling.topologySpreadConstraints: Too many")),
        ("64 labels", labels(64), Accepted),
        ("65 labels", labels(65), Refused("spec.clients[0].podSelector.matchLabels: Too many")),
        ("a database of 50 characters", database(50), Accepted),
        ("a database of 51 characters", database(51), Refused(DATABASE)),
        ("a database of 254 characters", database(254), Refused("spec.database: Too long")),
        ("a value of 1024 characters", value(1024), Accepted),
        ("a value of 1025 characters", value(1025), Refused("spec.postgres.parameters.p: Too long")),
        ("a parameter of 63 characters", parameter(63), Accepted),
        ("a parameter of 64 characters", parameter(64), Refused(PARAMETER_NAME)),
        ("an extension of 63 characters", extension(63), Accepted),
        ("an extension of 64 characters", extension(64), Refused("spec.postgres.extensions[0].name: Too long")),
        ("a class of 253 characters", class(253), Accepted),
        ("a class of 254 characters", class(254), Refused("spec.storage.storageClassName: Too long")),
        ("a ConfigMap of 253 characters", config_map(253), Accepted),
        ("a ConfigMap of 254 characters", config_map(254), Refused("spec.migrations.source.configMap.name: Too long")),
        ("a client of 253 characters", client(253), Accepted),
        ("a client of 254 characters", client(254), Refused("spec.clients[0].serviceAccountName: Too long")),
        ("a priority class of 253 characters", priority(253), Accepted),
        ("a priority class of 254 characters", priority(254), Refused("spec.scheduling.priorityClassName: Too long")),
        (
            "a size of 33 characters",
            format!("storage: {{size: '{}1Gi'}}", "0".repeat(30)),
            Refused("spec.storage.size: Too long"),
        ),
    ]
}
