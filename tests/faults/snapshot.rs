//! A state that can be compared between namespaces: all values that must be the same, without
//! values that are generated in each run.

use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use super::scenario::NAME;
use super::{kubernetes_state, postgres_state, vault_state};
use crate::harness::Sandbox;

/// The form of the state. One that was recorded in another form is not compared with.
pub const FORM: u32 = 4;

/// The values that differ between cases, and their placeholders.
pub struct Words(Vec<(String, &'static str)>);

impl Words {
    /// Those of a case. The resource's uid is given, since the resource may be gone.
    pub fn new(sandbox: &Sandbox, uid: &str, vault_address: &str) -> Self {
        Self(vec![
            (uid.to_owned(), "UID"),
            (sandbox.namespace.clone(), "NAMESPACE"),
            (vault_address.to_owned(), "VAULT"),
        ])
    }

    /// A document with the placeholders.
    pub fn tidy(&self, document: &Value) -> Value {
        let text = |text: &str| {
            self.0
                .iter()
                .filter(|(what, _)| !what.is_empty())
                .fold(text.to_owned(), |text, (what, word)| text.replace(what, word))
        };
        match document {
            Value::String(string) => Value::String(text(string)),
            Value::Array(items) => items.iter().map(|item| self.tidy(item)).collect(),
            Value::Object(fields) => fields.iter().map(|(key, value)| (text(key), self.tidy(value))).collect(),
            other => other.clone(),
        }
    }
}

/// What a request that was refused, or given up, must leave as it was: all but the request itself and its result.
pub fn without_request(mut state: Value) -> Value {
    let objects = state["kubernetes"].as_object_mut();
    if let Some(objects) = objects {
        objects.remove(&format!("servicedatabases {NAME}"));
        objects.remove(&format!("configmaps {NAME}-db-desired"));
    }
    state
}

/// Reads the whole state.
///
/// # Errors
/// The part that could not be read; the state may be changing.
pub async fn take(sandbox: &Sandbox, words: &Words) -> Result<Value, String> {
    let resource = sandbox.api::<ServiceDatabase>().get_opt(NAME).await.map_err(|error| error.to_string())?;
    let lives = resource.is_some_and(|resource| resource.metadata.deletion_timestamp.is_none());
    let (kubernetes, vault) = tokio::join!(kubernetes_state::read(sandbox), vault_state::read(sandbox));
    let mut state = json!({"kubernetes": kubernetes?, "vault": vault});
    if lives {
        state["agree"] = vault_state::agreement(sandbox).await?;
        state["postgres"] = postgres_state::read(sandbox).await?;
    }
    Ok(words.tidy(&state))
}

#[test]
fn a_request_that_is_given_up_may_differ_in_itself_alone() {
    let state = |phase: &str, rows: &[&str]| {
        json!({"kubernetes": {"servicedatabases chat": phase, "configmaps chat-db-desired": phase, "services chat-db": 1},
               "postgres": {"rows": rows}})
    };
    assert_eq!(without_request(state("", &["1"])), without_request(state("Failed", &["1"])));
    assert_ne!(without_request(state("", &["1"])), without_request(state("Failed", &[])));
    assert_eq!(without_request(state("", &[]))["kubernetes"]["services chat-db"], 1);
}
