//! The identity of this pod, from the downward API's environment.

use std::net::IpAddr;

use crate::api::names::Names;
use crate::contract::desired::Desired;
use crate::contract::pod;

/// This pod.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its name: also Patroni's name of the member.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its address.
    pub ip: IpAddr,
    /// The names of its ServiceDatabase's objects.
    pub names: Names,
}

/// A variable that is missing or invalid in the pod's template.
#[derive(Debug, thiserror::Error)]
#[error(
    "the environment variable {variable} is {problem}: the agent runs only in pods of the operator; restore the \
     template of the StatefulSet"
)]
pub struct EnvironmentError {
    variable: &'static str,
    problem: &'static str,
}

impl Environment {
    /// Reads the process environment.
    ///
    /// # Errors
    /// If a variable is missing or invalid.
    pub fn read() -> Result<Self, EnvironmentError> {
        Self::from(|variable| std::env::var(variable).ok())
    }

    fn from(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let get = |variable| {
            lookup(variable)
                .filter(|value| !value.is_empty())
                .ok_or(EnvironmentError { variable, problem: "missing or empty" })
        };
        let names = Names::new(get(pod::ENV_POD_NAMESPACE)?, get(pod::ENV_SERVICE)?);
        let pod = get(pod::ENV_POD_NAME)?;
        if names.ordinal(&pod).is_none() {
            return Err(EnvironmentError { variable: pod::ENV_POD_NAME, problem: "not a pod of this service" });
        }
        let ip = get(pod::ENV_POD_IP)?
            .parse()
            .map_err(|_| EnvironmentError { variable: pod::ENV_POD_IP, problem: "not an IP address" })?;
        Ok(Self { pod, uid: get(pod::ENV_POD_UID)?, ip, names })
    }

    /// Whether the metrics are served over TLS.
    pub fn has_metrics_over_tls() -> bool {
        std::env::var_os(pod::ENV_METRICS_TLS).is_some()
    }

    /// Whether this pod is about to be removed.
    pub fn is_leaving(&self, desired: &Desired) -> bool {
        !self.names.is_one_of(&self.pod, desired.instances)
    }

    /// Whether this is the only pod that may initialise the database.
    pub fn is_first(&self) -> bool {
        self.pod == self.names.pod(0)
    }

    /// The pod's address with a port, as in a URL.
    pub fn address(&self, port: u16) -> String {
        std::net::SocketAddr::new(self.ip, port).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(changed: &str, value: &str) -> Result<Environment, EnvironmentError> {
        let value_of = |variable: &str| match variable {
            v if v == changed => value.to_owned(),
            pod::ENV_POD_NAME => "chat-db-0".to_owned(),
            pod::ENV_POD_IP => "fd00::7".to_owned(),
            pod::ENV_SERVICE => "chat".to_owned(),
            other => other.to_lowercase(),
        };
        Environment::from(|variable| Some(value_of(variable)))
    }

    #[test]
    fn the_first_pod_is_known_and_addresses_are_bracketed() {
        let first = read("", "").expect("a complete environment");
        assert!(first.is_first());
        assert_eq!(first.address(8008), "[fd00::7]:8008");
        assert!(!read(pod::ENV_POD_NAME, "chat-db-1").expect("a complete environment").is_first());
    }

    #[test]
    fn an_invalid_variable_is_named() {
        for (variable, value) in [(pod::ENV_POD_IP, "x"), (pod::ENV_POD_UID, ""), (pod::ENV_POD_NAME, "chat-0")] {
            let message = read(variable, value).expect_err("a broken environment").to_string();
            assert!(message.contains(variable), "{message}");
        }
    }
}
