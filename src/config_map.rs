//! The watch of one ConfigMap by its name, by which a pod learns what is desired of it.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};

use crate::backoff::Backoff;

/// Passes each version of the ConfigMap on, as long as this process runs. One that is deleted is awaited: an operator
/// that is being replaced may delete and recreate it. `longest` is the longest pause between two attempts to watch it.
pub async fn follow(config_maps: Api<ConfigMap>, name: String, longest: Duration, mut pass: impl FnMut(ConfigMap)) {
    let mut backoff = Backoff::new(Duration::from_millis(100), longest);
    let selected = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(config_maps, selected).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(config_map) | Event::InitApply(config_map)) => pass(config_map),
            Ok(Event::Delete(_) | Event::Init | Event::InitDone) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, name, "the watch of the ConfigMap was interrupted; retrying");
                backoff.wait().await;
            }
        }
    }
}
