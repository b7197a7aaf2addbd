//! `kubectl servicedb`: see `servicedb::plugin`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    servicedb::plugin::run().await
}
