//! The identity of this pod, from the downward API's environment.

use std::net::IpAddr;

use crate::api::names::Names;
use crate::contract::{pod, pooler};

/// This pod.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its address.
    pub ip: IpAddr,
    /// The names of its ServiceDatabase's objects.
    pub names: Names,
    /// The host name of the PostgreSQL that it leads to.
    pub host: String,
    /// Whether that is the Service of the replicas.
    pub replicas: bool,
}

impl Environment {
    /// Reads the process environment.
    ///
    /// # Errors
    /// If a variable is missing or invalid.
    pub fn read() -> Result<Self, String> {
        let get = |variable: &str| {
            std::env::var(variable).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
                format!("the environment variable {variable} is missing: the pooler runs only in pods of the operator")
            })
        };
        let ip = get(pod::ENV_POD_IP)?;
        Ok(Self {
            pod: get(pod::ENV_POD_NAME)?,
            uid: get(pod::ENV_POD_UID)?,
            ip: ip.parse().map_err(|_| format!("the environment variable {} is no address", pod::ENV_POD_IP))?,
            names: Names::new(get(pod::ENV_POD_NAMESPACE)?, get(pod::ENV_SERVICE)?),
            host: get(pooler::ENV_HOST)?,
            replicas: get(pooler::ENV_REPLICAS)? == "true",
        })
    }

    /// The headless Service of this pod and its peers.
    pub fn peers_host(&self) -> String {
        self.names.pooler_host(&self.names.pooler_peers(self.replicas))
    }
}
