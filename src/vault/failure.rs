//! Failed requests, before they become a [`VaultError`]: the only place that reads the errors of
//! vaultrs and Vault's messages. These may echo the request, so they are matched and never
//! printed.

use std::time::Duration;

use rustify::errors::ClientError as RestError;
use vaultrs::error::ClientError;

use super::VaultError;
use super::requests::Operation;

/// A failed request.
pub(super) enum Failure {
    /// No answer came.
    Transport {
        /// The connection's error.
        problem: String,
    },
    /// Vault answered with an error.
    Answer {
        /// The HTTP status.
        code: u16,
        /// Vault's message, in lower case.
        words: Vec<String>,
    },
    /// A success without the expected content.
    Empty,
    /// A success that could not be parsed.
    Unreadable,
}

/// The operation and path of a request, for its error.
pub(super) struct Target {
    /// The operation.
    pub operation: Operation,
    /// The API path.
    pub path: String,
}

impl Failure {
    /// Reads an error of vaultrs.
    pub fn new(error: ClientError, timeout: Duration) -> Self {
        match error {
            ClientError::APIError { code, errors } => {
                Self::Answer { code, words: errors.iter().map(|words| words.to_lowercase()).collect() }
            }
            ClientError::ResponseEmptyError | ClientError::ResponseDataEmptyError => Self::Empty,
            ClientError::RestClientError { source } => match source {
                RestError::ServerResponseError { code, .. } => Self::Answer { code, words: Vec::new() },
                RestError::RequestError { source, .. } | RestError::ResponseError { source } => {
                    Self::Transport { problem: transport_problem(source.as_ref(), timeout) }
                }
                RestError::ResponseParseError { content: Some(content), .. } if content.is_empty() => Self::Empty,
                _ => Self::Unreadable,
            },
            _ => Self::Unreadable,
        }
    }

    /// Whether Vault's message contains these words, given in lower case.
    pub fn says(&self, phrase: &str) -> bool {
        matches!(self, Self::Answer { words, .. } if words.iter().any(|said| said.contains(phrase)))
    }

    /// The HTTP status of an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Answer { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the object does not exist, in all forms in which Vault reports this.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Answer { code: 404, .. } => !self.is_missing_mount(),
            // The AppRole method answers 400 or 500 for a missing role or accessor, and 403
            // for an accessor whose secret_id has just expired.
            Self::Answer { code: 400 | 500, .. } => {
                self.says("failed to find accessor entry") || (self.says("role ") && self.says("does not exist"))
            }
            Self::Answer { code: 403, .. } => self.says("invalid secret id accessor"),
            _ => false,
        }
    }

    fn is_missing_mount(&self) -> bool {
        self.says("no handler for route")
    }

    /// Converts it to an error.
    pub fn into_error(self, address: &str, target: &Target) -> VaultError {
        let (operation, path) = (target.operation.capability(), target.path.clone());
        let address = address.to_owned();
        match self {
            Self::Transport { problem } => VaultError::Unreachable { address, problem },
            Self::Answer { code: 404, .. } if self.is_missing_mount() => VaultError::MountMissing { path },
            Self::Answer { code: 400, .. } if self.says("check-and-set parameter did not match") => {
                VaultError::CasMismatch { path }
            }
            Self::Answer { code: 403, .. } => VaultError::PermissionDenied { operation, path },
            Self::Answer { code: 429, .. } => {
                VaultError::NotServing { address, problem: "a rate limit or quota is exhausted".to_owned() }
            }
            Self::Answer { code, .. } if code >= 500 => {
                VaultError::NotServing { address, problem: self.server_problem(code, operation, &path) }
            }
            Self::Answer { code, .. } => VaultError::Unexpected { status: code, operation, path },
            Self::Empty | Self::Unreadable => VaultError::Unexpected { status: 0, operation, path },
        }
    }

    fn server_problem(&self, code: u16, operation: &str, path: &str) -> String {
        match code {
            501 => "it is not initialised".to_owned(),
            503 if self.says("sealed") => "it is sealed".to_owned(),
            503 => "it is sealed, in maintenance or without an active node".to_owned(),
            _ => format!("it answered {code} to {operation} on {path}; see its log"),
        }
    }
}

/// The innermost cause: the outer ones only repeat the URL.
fn transport_problem(error: &(dyn std::error::Error + 'static), timeout: Duration) -> String {
    if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) {
        return format!("no answer within {} s", timeout.as_secs_f32());
    }
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let problem = cause.to_string();
    if problem.contains("invalid peer certificate") {
        let advice = "give the operator the authority that signed Vault's certificate (the chart's vault.ca); pods get it from there";
        return format!("{problem}: {advice}");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, words: &str) -> Failure {
        Failure::new(ClientError::APIError { code, errors: vec![words.to_owned()] }, Duration::from_secs(1))
    }

    fn classified(failure: Failure) -> VaultError {
        failure.into_error("https://vault", &Target { operation: Operation::WriteKv, path: "secret/data/a".to_owned() })
    }

    #[test]
    fn each_class_is_recognised() {
        assert!(matches!(classified(answer(404, "no handler for route \"x\"")), VaultError::MountMissing { .. }));
        assert!(matches!(classified(answer(403, "permission denied")), VaultError::PermissionDenied { .. }));
        assert!(matches!(classified(answer(503, "Vault is sealed")), VaultError::NotServing { .. }));
        assert!(matches!(classified(answer(429, "quota")), VaultError::NotServing { .. }));
        assert!(matches!(
            classified(answer(400, "check-and-set parameter did not match the current version")),
            VaultError::CasMismatch { .. }
        ));
        assert!(matches!(classified(answer(400, "other")), VaultError::Unexpected { status: 400, .. }));
    }

    #[test]
    fn a_404_is_absence_both_ways_but_a_missing_mount_is_not() {
        let bare = RestError::ServerResponseError { code: 404, content: Some("{\"data\":{}}".to_owned()) };
        assert!(Failure::new(ClientError::RestClientError { source: bare }, Duration::ZERO).is_absent());
        assert!(answer(404, "").is_absent());
        assert!(!answer(404, "no handler for route \"x\". route entry not found.").is_absent());
    }

    #[test]
    fn absence_under_approle_is_distinguished_from_a_server_error() {
        assert!(answer(500, "1 error occurred:\n\t* failed to find accessor entry for secret_id_accessor").is_absent());
        assert!(answer(500, "1 error occurred:\n\t* role \"r\" does not exist").is_absent());
        assert!(answer(400, "role \"r\" does not exist").is_absent());
        assert!(!answer(500, "internal error").is_absent());
    }

    #[test]
    fn the_words_of_vault_are_never_shown() {
        for code in [400, 403, 404, 500, 503] {
            let error = classified(answer(code, "invalid secret_id \"hvs.canary\""));
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
