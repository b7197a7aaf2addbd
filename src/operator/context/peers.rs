//! Peers of NetworkPolicies that the platform names.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;

/// The chart's value.
const FIELD: &str = "vault.databaseClients";

/// Vault's pods, which log in to the databases of clients with short-lived logins; none by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers(pub Vec<NetworkPolicyPeer>);

impl Peers {
    /// Reads a JSON list of peers.
    ///
    /// # Errors
    /// The value, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let peers: Vec<NetworkPolicyPeer> =
            serde_json::from_str(text).map_err(|error| format!("{FIELD} is not a list of peers: {error}"))?;
        // The API server would refuse the whole policy.
        if peers.contains(&NetworkPolicyPeer::default()) {
            return Err(format!("{FIELD} has a peer without namespaceSelector, podSelector and ipBlock"));
        }
        Ok(Self(peers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_names_nobody_is_refused_by_the_name_of_the_value() {
        let vault = r#"[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "vault"}}}]"#;
        assert_eq!(Peers::parse(vault).map(|peers| peers.0.len()), Ok(1));
        assert_eq!(Peers::parse("[]"), Ok(Peers::default()));
        for text in ["[{}]", "{}", r#"["vault"]"#] {
            let problem = Peers::parse(text).expect_err(text);
            assert!(problem.starts_with(FIELD), "{problem}");
        }
    }
}
