//! Talking to PostgreSQL: connections, quoting, SCRAM verifiers.

mod connect;
mod quote;
mod scram;

pub use connect::{ConnectError, Connection, TlsLogin, cancel_over_tls, describe, listen, over_socket, over_tls};
pub use quote::{ident, literal};
pub use scram::{generate_password, scram_verifier};
