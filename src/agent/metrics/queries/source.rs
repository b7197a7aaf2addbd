//! Watches the ConfigMap with a team's own queries, which the desired state names.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::definition::{Definitions, parse};
use crate::agent::desired::{self, DesiredState, changed};
use crate::api::QueriesReference;
use crate::backoff::Backoff;

/// The first and the longest pause between two attempts to watch it.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// What is known of the queries.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Source {
    /// None are declared.
    #[default]
    Undeclared,
    /// The ConfigMap was not read yet.
    Unknown,
    /// There are none that could be run: why.
    Invalid(String),
    /// The queries.
    Read(Arc<Definitions>),
}

/// Watches from now on.
pub fn follow(config_maps: Api<ConfigMap>, mut desired: DesiredState) -> watch::Receiver<Source> {
    let (sender, receiver) = watch::channel(Source::Undeclared);
    tokio::spawn(async move {
        loop {
            let declared = desired::first(&mut desired).await.queries.clone();
            let Some(reference) = declared else {
                send(&sender, Source::Undeclared);
                changed(&mut desired).await;
                continue;
            };
            send(&sender, Source::Unknown);
            tokio::select! {
                () = watch_one(config_maps.clone(), &reference, &sender) => {}
                () = differs(&mut desired, &reference) => {}
            }
        }
    });
    receiver
}

/// Resolves once the desired state names another ConfigMap or key, or none.
async fn differs(desired: &mut DesiredState, from: &QueriesReference) {
    while desired::first(desired).await.queries.as_ref() == Some(from) {
        changed(desired).await;
    }
}

async fn watch_one(config_maps: Api<ConfigMap>, reference: &QueriesReference, sender: &watch::Sender<Source>) {
    let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
    let selected = watcher::Config::default().fields(&format!("metadata.name={}", reference.name));
    let mut events = watcher(config_maps, selected).boxed();
    let mut is_listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                backoff.reset();
                if let Some(source) = after(event, &mut is_listed, &reference.key) {
                    send(sender, source);
                }
            }
            Err(error) => {
                tracing::warn!(%error, name = reference.name, "the watch of the queries' ConfigMap was interrupted");
                backoff.wait().await;
            }
        }
    }
}

fn send(sender: &watch::Sender<Source>, source: Source) {
    sender.send_if_modified(|current| {
        let is_other = *current != source;
        *current = source;
        is_other
    });
}

/// What is known after an event; none if nothing new is. A list of the watch that ends without the ConfigMap says that
/// there is none.
fn after(event: Event<ConfigMap>, is_listed: &mut bool, key: &str) -> Option<Source> {
    let gone = || Some(Source::Invalid("it does not exist".to_owned()));
    match event {
        Event::Init => {
            *is_listed = false;
            None
        }
        Event::InitApply(config_map) | Event::Apply(config_map) => {
            *is_listed = true;
            Some(read(&config_map, key))
        }
        Event::InitDone if *is_listed => None,
        Event::InitDone | Event::Delete(_) => gone(),
    }
}

fn read(config_map: &ConfigMap, key: &str) -> Source {
    let Some(text) = config_map.data.as_ref().and_then(|data| data.get(key)) else {
        return Source::Invalid(format!("it has no key {key}"));
    };
    match parse(text) {
        Ok(definitions) => Source::Read(Arc::new(definitions)),
        Err(problem) => Source::Invalid(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(key: &str, text: &str) -> ConfigMap {
        ConfigMap { data: Some([(key.to_owned(), text.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn a_config_map_that_is_missing_or_deleted_is_told() {
        let mut is_listed = true;
        let mut next = |event| after(event, &mut is_listed, "q");
        let missing = Some(Source::Invalid("it does not exist".to_owned()));
        assert_eq!(next(Event::Init), None);
        assert_eq!(next(Event::InitDone), missing, "none with this name is listed");
        let text = "a: {query: SELECT 1 AS b, metrics: [b: {usage: GAUGE}]}";
        let Some(Source::Read(read)) = next(Event::Apply(config_map("q", text))) else { panic!("no queries") };
        assert_eq!(read.queries.len(), 1);
        assert_eq!(next(Event::Init), None, "what is known holds while the watch starts again");
        assert!(matches!(next(Event::InitApply(config_map("q", text))), Some(Source::Read(_))));
        assert_eq!(next(Event::InitDone), None);
        assert_eq!(next(Event::Delete(config_map("q", text))), missing);
        let other = next(Event::Apply(config_map("other", text)));
        assert_eq!(other, Some(Source::Invalid("it has no key q".to_owned())));
        assert!(matches!(next(Event::Apply(config_map("q", "- a"))), Some(Source::Invalid(_))));
    }
}
