//! Whether a database has its place in a store.

use k8s_openapi::jiff::Timestamp;

/// The state of the stanza, pgBackRest's record of a database in a store.
#[derive(Clone, Debug)]
pub enum Stanza {
    /// It is being created or compared.
    Pending,
    /// Nothing can be archived.
    Failed(String),
    /// It exists.
    Ready {
        /// Where the archive was empty, since when.
        empty_at: Option<Timestamp>,
        /// Where the archive lacks WAL since its newest full backup, when that was found.
        gap: Option<Timestamp>,
    },
}
