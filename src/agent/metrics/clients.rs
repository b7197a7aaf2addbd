//! Metrics by client: sessions, logins, and the credentials of clients with a login of their own.

use super::text::{Family, Kind};
use crate::agent::clients::count::{Logins, Whose};
use crate::contract::clients::{ClientReport, Sessions};

/// The label of the clients that share a login.
const SHARED: &str = "shared";

/// The labels of a client. One may be named `shared`, too: `access` tells them apart.
fn labels(whose: &Whose) -> [(&'static str, &str); 2] {
    match whose {
        Whose::Shared => [("client", SHARED), ("access", SHARED)],
        Whose::Client(name) => [("client", name), ("access", "own")],
    }
}

/// The sessions of this instance.
pub fn connections(sessions: &Sessions) -> Family {
    let help = "Sessions by client, those of the pooler and of the data gateway for it included";
    let mut family = Family::new("servicedb_client_connections", Kind::Gauge, help);
    family.sample(labels(&Whose::Shared), sessions.shared as f64);
    for (name, count) in &sessions.clients {
        family.sample(labels(&Whose::Client(name.clone())), *count as f64);
    }
    family
}

/// Whose each login is.
pub fn logins(logins: &Logins) -> Family {
    let help = "Whose a login is: to join with metrics that have the label user";
    let mut family = Family::new("servicedb_client_login", Kind::Gauge, help);
    for (login, whose) in logins.iter() {
        let [client, access] = labels(whose);
        family.sample([client, access, ("user", login)], 1.0);
    }
    family
}

/// The credentials, of the primary.
pub fn credentials(clients: &[ClientReport]) -> [Family; 2] {
    let help = "Generation of a client's own credentials in Vault that a login proved";
    let mut generations = Family::new("servicedb_client_credentials_generation", Kind::Gauge, help);
    let help = "When these credentials of a client were put into Vault";
    let mut times = Family::new("servicedb_client_credentials_rotated_timestamp_seconds", Kind::Gauge, help);
    // Short-lived logins have no record.
    for client in clients.iter().filter(|client| client.dynamic.is_none()) {
        let label = [("client", client.name.as_str())];
        generations.sample(label, client.generation as f64);
        if let Some(at) = client.rotated_at.filter(|_| client.generation > 0) {
            times.sample(label, at.as_second() as f64);
        }
    }
    [generations, times]
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::names::Names;
    use crate::contract::clients::Client;

    fn page(families: &[Family]) -> String {
        let mut page = String::new();
        families.iter().for_each(|family| family.write(&mut page));
        page
    }

    #[test]
    fn a_client_that_is_named_shared_has_a_series_of_its_own() {
        let sessions = Sessions { shared: 3, clients: [("shared".to_owned(), 2), ("mail-bot".to_owned(), 0)].into() };
        let page = page(&[connections(&sessions)]);
        for line in [
            "servicedb_client_connections{client=\"shared\",access=\"shared\"} 3\n",
            "servicedb_client_connections{client=\"shared\",access=\"own\"} 2\n",
            "servicedb_client_connections{client=\"mail-bot\",access=\"own\"} 0\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }

    #[test]
    fn each_login_leads_to_its_client() {
        let client = |name: &str, access: serde_json::Value| -> Client {
            let json = serde_json::json!({"name": name, "generation": 1, "access": access});
            serde_json::from_value(json).expect("a client")
        };
        let clients = [
            client("mail-bot", serde_json::json!({"mode": "ReadOnly"})),
            client("people", serde_json::json!({"mode": "ReadOnly", "dynamic": {}})),
        ];
        let page = page(&[logins(&Logins::of(&Names::new("m", "chat").postgres("chat_db"), &clients))]);
        for line in [
            "servicedb_client_login{client=\"shared\",access=\"shared\",user=\"chat_a\"} 1\n",
            "servicedb_client_login{client=\"mail-bot\",access=\"own\",user=\"chat_c_mail_bot_b\"} 1\n",
            "servicedb_client_login{client=\"people\",access=\"own\",user=\"servicedb.people\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }

    #[test]
    fn credentials_have_an_age_once_they_were_proved() {
        let report = |name: &str, generation| ClientReport {
            name: name.into(),
            generation,
            rotated_at: Some(Timestamp::UNIX_EPOCH),
            ..ClientReport::default()
        };
        let page = page(&credentials(&[report("bot", 4), report("new", 0)]));
        assert!(page.contains("servicedb_client_credentials_generation{client=\"bot\"} 4\n"), "{page}");
        assert!(page.contains("servicedb_client_credentials_generation{client=\"new\"} 0\n"), "{page}");
        assert!(page.contains("servicedb_client_credentials_rotated_timestamp_seconds{client=\"bot\"} 0\n"), "{page}");
        assert!(!page.contains("rotated_timestamp_seconds{client=\"new\"}"), "{page}");
    }
}
