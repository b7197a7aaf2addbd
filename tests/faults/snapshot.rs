//! A state that can be compared between namespaces: all values that must be the same, without
//! values that are generated in each run.

use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use super::scenario::NAME;
use super::{kubernetes_state, postgres_state, vault_state};
use crate::harness::Sandbox;

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
