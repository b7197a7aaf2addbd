//! The namespaces whose ServiceAccounts may be clients of other namespaces' databases: the platform's decision.

use std::collections::{BTreeMap, BTreeSet};

/// The chart's value.
const FIELD: &str = "clients.allowedNamespaces";
/// The key that stands for the databases of all namespaces.
const ALL: &str = "*";
/// The maximum length of a namespace's name.
const LONGEST: usize = 63;

/// The namespaces of clients by the namespace of their databases; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientNamespaces(BTreeMap<String, BTreeSet<String>>);

impl ClientNamespaces {
    /// Reads them as the chart writes them.
    ///
    /// # Errors
    /// The entry, and the way out.
    pub fn parse(text: &str) -> Result<Self, String> {
        let given: BTreeMap<String, BTreeSet<String>> =
            serde_json::from_str(text).map_err(|error| format!("{FIELD}: {error}"))?;
        for (database, clients) in &given {
            if database != ALL && !is_namespace(database) {
                return Err(format!("{FIELD}: {database:?} is no namespace; '*' stands for the databases of all"));
            }
            if let Some(wrong) = clients.iter().find(|client| !is_namespace(client)) {
                return Err(format!("{FIELD}.{database}: {wrong:?} is no namespace: each is named"));
            }
        }
        Ok(Self(given))
    }

    /// Whether a database in one namespace may have clients in another.
    pub fn allow(&self, database: &str, client: &str) -> bool {
        [database, ALL].iter().any(|key| self.0.get(*key).is_some_and(|clients| clients.contains(client)))
    }
}

/// Whether it can be the name of a namespace.
pub fn is_namespace(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=LONGEST).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_that_is_not_named() {
        let allowed =
            ClientNamespaces::parse(r#"{"messaging": ["reports", "web"], "*": ["audit"]}"#).expect("namespaces");
        for (database, client, is) in [
            ("messaging", "reports", true),
            ("messaging", "audit", true),
            ("games", "audit", true),
            ("games", "reports", false),
            ("reports", "messaging", false),
            ("*", "reports", false),
            ("messaging", "*", false),
            ("messaging", "", false),
        ] {
            assert_eq!(allowed.allow(database, client), is, "{database} {client}");
        }
        assert!(!ClientNamespaces::default().allow("messaging", "reports"));
        assert_eq!(ClientNamespaces::parse("{}"), Ok(ClientNamespaces::default()));
    }

    #[test]
    fn what_is_no_namespace_is_refused_by_the_name_of_the_value() {
        for text in [
            r#"{"messaging": ["*"]}"#,
            r#"{"messaging": ["a,b"]}"#,
            r#"{"messaging": ["-a"]}"#,
            r#"{"messaging": [""]}"#,
            r#"{"messaging": ["kube-system\n"]}"#,
            r#"{"Messaging": ["a"]}"#,
            r#"{"a/b": ["a"]}"#,
            r#"["a"]"#,
            r#"{"messaging": "a"}"#,
        ] {
            let problem = ClientNamespaces::parse(text).expect_err(text);
            assert!(problem.starts_with("clients.allowedNamespaces"), "{problem}");
        }
    }
}
