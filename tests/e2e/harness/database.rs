//! ServiceDatabases as tests write and read them.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use super::sandbox::Sandbox;
use super::version::postgres_major;
use super::wait::until;

/// A small ServiceDatabase, with another spec merged over it. A version that is null stands for the default of a new
/// database, whatever the run's is.
pub fn database(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "servicedb.dev/v1alpha1",
        "kind": "ServiceDatabase",
        "metadata": {"name": name},
        "spec": {
            "storage": {"size": "256Mi"},
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        },
    });
    if let Some(major) = postgres_major() {
        object["spec"]["postgres"] = json!({"version": major});
    }
    merge(&mut object["spec"], spec);
    if let Some(postgres) = object.pointer_mut("/spec/postgres").and_then(Value::as_object_mut) {
        postgres.retain(|field, value| field != "version" || !value.is_null());
    }
    object
}

/// A ConfigMap of files.
pub fn config_map(name: &str, files: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = files.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A ServiceAccount.
pub fn service_account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

/// Merges one JSON document over another.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A condition of a ServiceDatabase.
pub fn condition<'a>(database: &'a ServiceDatabase, kind: &str) -> Option<&'a Condition> {
    database.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// The status of a ServiceDatabase, in one line.
pub fn describe(database: &ServiceDatabase) -> String {
    let Some(status) = &database.status else { return "no status yet".to_owned() };
    let conditions = status.conditions.iter().map(|condition| {
        format!("{}={} {} {:?}", condition.type_, condition.status, condition.reason, condition.message)
    });
    let waits = status.deletion_waits_for.iter().map(|what| format!("deletion waits for {what}"));
    conditions.chain(waits).collect::<Vec<_>>().join("; ")
}

impl Sandbox {
    /// Reads a ServiceDatabase.
    pub async fn get(&self, name: &str) -> ServiceDatabase {
        self.api::<ServiceDatabase>().get(name).await.unwrap_or_else(|error| panic!("reading {name}: {error}"))
    }

    /// Waits until a ServiceDatabase is Ready, for its present generation.
    pub async fn ready(&self, name: &str, bound: Duration) -> ServiceDatabase {
        self.wait(&format!("{name} is Ready"), name, bound, |database| {
            let current =
                database.status.as_ref().and_then(|status| status.observed_generation) == database.metadata.generation;
            current && condition(database, "Ready").is_some_and(|condition| condition.status == "True")
        })
        .await
    }

    /// Waits until a condition has this status and reason, for the present generation.
    pub async fn condition(&self, name: &str, kind: &str, status: &str, reason: &str, bound: Duration) -> Condition {
        let found = self
            .wait(&format!("{name}: {kind}={status} {reason}"), name, bound, |database| {
                condition(database, kind).is_some_and(|condition| {
                    condition.status == status
                        && condition.reason == reason
                        && condition.observed_generation == database.metadata.generation
                })
            })
            .await;
        condition(&found, kind).cloned().expect("the condition that was waited for")
    }

    /// Waits until a ServiceDatabase satisfies a test.
    pub async fn wait(
        &self,
        what: &str,
        name: &str,
        bound: Duration,
        test: impl Fn(&ServiceDatabase) -> bool,
    ) -> ServiceDatabase {
        until(what, bound, || async {
            let database = self.api::<ServiceDatabase>().get(name).await.map_err(|error| error.to_string())?;
            if test(&database) { Ok(database) } else { Err(describe(&database)) }
        })
        .await
    }

    /// Waits until a ServiceDatabase is gone.
    pub async fn gone(&self, name: &str, bound: Duration) {
        until(&format!("{name} is gone"), bound, || async {
            match self.api::<ServiceDatabase>().get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(database)) => Err(format!("finalizers {:?}; {}", database.finalizers(), describe(&database))),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }
}
