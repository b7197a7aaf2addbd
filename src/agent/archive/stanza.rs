//! Whether a database has its place in a store.

use k8s_openapi::jiff::Timestamp;

/// The state of the stanza, pgBackRest's record of a database in a store.
#[derive(Clone, Debug)]
pub enum Stanza {
    /// It is being created or compared.
    Pending,
    /// Nothing can be archived.
    Failed(String),
    /// It exists. Where the archive was empty, since when.
    Ready(Option<Timestamp>),
}
