//! The PostgreSQL client: connections, quoting, SCRAM verifiers.

mod bounded;
mod connect;
pub mod immune;
pub mod preload;
mod quote;
mod scram;
pub mod servers;
pub mod stray;

pub use bounded::bounded_over_socket;
pub use connect::{
    CertificateLogin, ConnectError, Connection, TlsLogin, by_certificate, cancel_over_tls, describe, listen,
    local_console, over_socket, over_socket_as, over_socket_with, over_tls,
};
pub use quote::{ident, literal};
pub use scram::{generate_password, scram_verifier};

/// Options of initdb for collation and encoding: independent of the machine's C library.
pub const INITDB_LOCALE: [&str; 4] =
    ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8"];
