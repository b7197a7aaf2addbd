//! Talking to PostgreSQL: connections, quoting, SCRAM verifiers.

mod bounded;
mod connect;
pub mod immune;
mod quote;
mod scram;

pub use bounded::bounded_over_socket;
pub use connect::{
    ConnectError, Connection, TlsLogin, cancel_over_tls, describe, listen, over_socket, over_socket_as, over_tls,
};
pub use quote::{ident, literal};
pub use scram::{generate_password, scram_verifier};

/// How initdb sets the order and the encoding of text: the same on every machine, whatever its C
/// library.
pub const INITDB_LOCALE: [&str; 4] =
    ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8"];
