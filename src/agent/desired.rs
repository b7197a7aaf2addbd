//! The desired state: a watch of one ConfigMap by its name, and a copy of the last known state on the
//! volume, so that a restart does not depend on the API server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::sync::watch;

use super::environment::Environment;
use crate::config_map;
use crate::contract::desired::{Desired, KEY};
use crate::contract::pod::VOLUME;

/// The longest pause between two attempts to watch it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Timeout of a single read of it.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The last known state; none before the first.
pub type DesiredState = watch::Receiver<Option<Arc<Desired>>>;

/// Watches the state from now on.
pub fn follow(environment: &Environment, client: kube::Client) -> DesiredState {
    let name = environment.names.desired();
    let copy = Path::new(VOLUME).join(KEY);
    let (sender, receiver) = watch::channel(read_copy(&copy).map(Arc::new));
    let config_maps = Api::namespaced(client, &environment.names.namespace);
    tokio::spawn(watch_changes(config_maps, name, copy, sender));
    receiver
}

/// Reads the present state; none if the API server does not answer at once: without it nobody is promoted, so that what
/// is known from before suffices.
pub async fn read(environment: &Environment, client: kube::Client) -> Option<Desired> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client, &environment.names.namespace);
    let name = environment.names.desired();
    let config_map = tokio::time::timeout(READ_TIMEOUT, config_maps.get(&name)).await.ok()?.ok()?;
    parse(&config_map).ok()
}

/// Whether a single instance is desired.
pub fn is_single(state: &DesiredState) -> bool {
    state.borrow().as_ref().is_some_and(|desired| desired.instances == 1)
}

/// Waits for the first known state.
pub async fn first(state: &mut DesiredState) -> Arc<Desired> {
    loop {
        if let Some(desired) = state.borrow_and_update().clone() {
            return desired;
        }
        changed(state).await;
    }
}

/// Waits for another state.
pub async fn changed(state: &mut DesiredState) {
    if state.changed().await.is_err() {
        // The watch ends only with the process.
        std::future::pending::<()>().await;
    }
}

async fn watch_changes(
    config_maps: Api<ConfigMap>,
    name: String,
    copy: PathBuf,
    sender: watch::Sender<Option<Arc<Desired>>>,
) {
    let of = name.clone();
    config_map::follow(config_maps, name, LONGEST_PAUSE, |config_map| match parse(&config_map) {
        Ok(desired) => {
            if sender.borrow().as_deref() != Some(&desired) {
                keep_copy(&copy, &config_map);
                sender.send_replace(Some(Arc::new(desired)));
            }
        }
        Err(problem) => {
            tracing::error!(name = of, problem, "the desired state is invalid; keeping the last known one");
        }
    })
    .await;
}

/// Reads the state from its ConfigMap.
///
/// # Errors
/// If it is none.
pub fn parse(config_map: &ConfigMap) -> Result<Desired, String> {
    let text = text(config_map).ok_or_else(|| format!("the ConfigMap has no key {KEY}"))?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn text(config_map: &ConfigMap) -> Option<&String> {
    config_map.data.as_ref()?.get(KEY)
}

fn read_copy(copy: &Path) -> Option<Desired> {
    serde_json::from_slice(&std::fs::read(copy).ok()?).ok()
}

fn keep_copy(copy: &Path, config_map: &ConfigMap) {
    let Some(text) = text(config_map) else { return };
    let new = copy.with_extension("new");
    if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, copy)) {
        tracing::warn!(%error, "the copy of the desired state cannot be written to the volume");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(text: &str) -> ConfigMap {
        ConfigMap { data: Some([(KEY.to_owned(), text.to_owned())].into()), ..ConfigMap::default() }
    }

    const TEXT: &str = r#"{"version":1,"uid":"u","database":"chat_db","instances":1,"synchronous":false,
        "maximumLagBytes":1,"credentialGeneration":2,"primaryHost":"h","later":{"field":true}}"#;

    #[test]
    fn unknown_fields_are_ignored_and_an_invalid_state_is_an_error() {
        assert_eq!(parse(&config_map(TEXT)).expect("a readable state").credential_generation, 2);
        assert!(parse(&config_map("{}")).is_err());
        assert!(parse(&ConfigMap::default()).expect_err("no key").contains(KEY));
    }

    #[test]
    fn the_copy_is_the_last_known_state() {
        let copy = std::env::temp_dir().join(format!("servicedb-desired-{}.json", std::process::id()));
        keep_copy(&copy, &config_map(TEXT));
        let read = read_copy(&copy);
        std::fs::remove_file(&copy).expect("the copy exists");
        assert_eq!(read.expect("a copy").database, "chat_db");
        assert!(read_copy(&copy).is_none());
    }
}
