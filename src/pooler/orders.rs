//! Settings and orders: a watch of one ConfigMap by its name. The mounted copy is read first, so that a
//! pod starts without the API server.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::environment::Environment;
use crate::config_map;
use crate::contract::pooler::{HOLD_KEY, Hold, ORDERS_DIR, SETTINGS_KEY, Settings};

/// The longest pause between two attempts to watch them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The last known orders.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// The settings; none before the first.
    pub settings: Option<Settings>,
    /// The order to hold queries, if there is one.
    pub hold: Option<Hold>,
}

/// Watches the orders from now on.
pub fn follow(environment: &Environment, client: kube::Client) -> watch::Receiver<Orders> {
    // An order in the mounted copy may be a minute old, so only the settings count.
    let mounted = std::fs::read_to_string(Path::new(ORDERS_DIR).join(SETTINGS_KEY)).ok();
    let settings = mounted.and_then(|text| serde_json::from_str(&text).ok());
    let (sender, receiver) = watch::channel(Orders { settings, hold: None });
    let config_maps = Api::namespaced(client, &environment.names.namespace);
    tokio::spawn(watch_changes(config_maps, environment.names.pooler_orders(), sender));
    receiver
}

/// Waits for the first settings.
pub async fn first(orders: &mut watch::Receiver<Orders>) -> Settings {
    loop {
        if let Some(settings) = orders.borrow_and_update().settings.clone() {
            return settings;
        }
        if orders.changed().await.is_err() {
            // The watch ends only with the process.
            std::future::pending::<()>().await;
        }
    }
}

async fn watch_changes(config_maps: Api<ConfigMap>, name: String, sender: watch::Sender<Orders>) {
    config_map::follow(config_maps, name, LONGEST_PAUSE, |config_map| {
        let settings = parse::<Settings>(&config_map, SETTINGS_KEY);
        let hold = parse(&config_map, HOLD_KEY);
        sender.send_if_modified(|known| {
            let now = Orders { settings: settings.or_else(|| known.settings.clone()), hold };
            let changed = now != *known;
            *known = now;
            changed
        });
    })
    .await;
}

fn parse<T: DeserializeOwned>(config_map: &ConfigMap, key: &str) -> Option<T> {
    let text = config_map.data.as_ref()?.get(key)?;
    serde_json::from_str(text).inspect_err(|error| tracing::error!(key, %error, "the orders are not readable")).ok()
}
