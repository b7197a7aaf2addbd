//! `servicedb check`: checks each step once, by hand in a database pod, and prints one line per
//! step: Vault, the login there, the credentials, PostgreSQL, the login with them.

mod chain;
mod links;

use std::process::ExitCode;

use chain::Chain;

/// Prints one line per step; fails if one failed.
pub async fn run() -> ExitCode {
    let pod = match links::Pod::from_environment() {
        Ok(pod) => pod,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let mut chain = Chain::new(std::io::stdout());
    let vault = chain.link("Vault answers", Some(links::vault(&pod))).await;
    let session = chain.link("Vault accepts the AppRole login", vault.map(|it| links::log_in(it, &pod))).await;
    let credentials = chain.link("credentials are in Vault", session.map(|it| links::credentials(it, &pod))).await;
    chain.link("PostgreSQL accepts connections", Some(links::local(&pod))).await;
    chain.link("credentials log in over TLS", credentials.map(|it| links::log_in_to_postgres(it, &pod))).await;
    if chain.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
