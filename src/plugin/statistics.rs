//! Statistics of a server, read in a pod by the login that may read nothing else.

use std::process::Stdio;
use std::time::Duration;

use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;

use super::args::Connection;
use super::connection::{self, PluginError};
use super::psql::{self, Login};
use super::table::plain;
use crate::api::ServiceDatabase;
use crate::api::names::PostgresNames;

/// The longest time that kubectl and psql may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database whose statistics are read, and the connection by which they are.
pub struct Source<'a> {
    connection: &'a Connection,
    client: Client,
    namespace: String,
    resource: ServiceDatabase,
    pod: Option<String>,
}

impl<'a> Source<'a> {
    /// The statistics of a database: of an instance by its pod, or of its primary.
    ///
    /// # Errors
    /// If the resource cannot be read.
    pub async fn of(connection: &'a Connection, name: &str, pod: Option<String>) -> Result<Self, PluginError> {
        let (client, namespace) = connection::connect(connection).await?;
        let resource = connection::read(&client, &namespace, name).await?;
        Ok(Self { connection, client, namespace, resource, pod })
    }

    /// The rows of a query, each an object.
    ///
    /// # Errors
    /// If there is no such pod, kubectl cannot be run, or the server refuses.
    pub async fn rows<T: DeserializeOwned>(&self, query: &str) -> Result<Vec<T>, PluginError> {
        let statement = format!("SELECT coalesce(json_agg(r), '[]') FROM ({query}) r");
        let text = self.run(Login::Monitor, &statement).await?;
        serde_json::from_str(text.trim()).map_err(|error| self.failed(&error.to_string()))
    }

    /// Runs a statement as the superuser, in the database `postgres`.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub async fn as_superuser(&self, statement: &str) -> Result<(), PluginError> {
        self.run(Login::Cluster, statement).await.map(drop)
    }

    async fn run(&self, login: Login, statement: &str) -> Result<String, PluginError> {
        let arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement].map(Into::into);
        let (connection, client) = (self.connection, &self.client);
        let mut command = match &self.pod {
            Some(pod) => psql::command_in(connection, &self.namespace, &self.resource, pod, login, false, &arguments),
            None => {
                psql::command(connection, client, &self.namespace, &self.resource, login, false, &arguments).await?
            }
        };
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(PATIENCE, command.output()).await {
            Ok(output) => output.map_err(|source| PluginError::Kubectl { program: psql::program(), source })?,
            Err(_) => return Err(self.failed("timeout")),
        };
        if !output.status.success() {
            return Err(self.failed(&plain(&String::from_utf8_lossy(&output.stderr))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn failed(&self, problem: &str) -> PluginError {
        PluginError::Query(format!(
            "the statistics of {} cannot be read: {problem}\nIf the server does not know the login {}, an earlier \
             version's agent runs there: let the rollout to this one happen first (kubectl servicedb rollout {} -n {})",
            self.resource.name_any(),
            PostgresNames::MONITOR,
            self.resource.name_any(),
            self.namespace
        ))
    }
}
