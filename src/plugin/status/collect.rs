//! Reads the data of an overview. Only the resource itself must be readable: a user without rights
//! to pods, volumes or events sees the rest, and a list of the missing parts.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::overview::Overview;
use crate::api::names::{LABEL_NAME, LABEL_SCOPE, Names};
use crate::plugin::connection::{self, PluginError};

/// Reads all data of one database.
pub async fn collect(client: &Client, namespace: &str, name: &str) -> Result<Overview, PluginError> {
    let resource = connection::read(client, namespace, name).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);

    // By the resource's label, since the pods of its migration Jobs have events too.
    let of_resource = ListParams::default().labels(&format!("{LABEL_NAME}={name}"));
    let scope = Names::new(namespace, name).base();
    let of_scope = ListParams::default().labels(&format!("{LABEL_SCOPE}={scope}"));
    let (pods, claims) = futures::join!(pods.list(&of_resource), claims.list(&of_scope));

    let mut not_read = Vec::new();
    let mut uids: Vec<String> = resource.uid().into_iter().collect();
    let mut overview = Overview::new(resource);
    match pods {
        Ok(pods) => {
            uids.extend(pods.iter().filter_map(ResourceExt::uid));
            let database = |pod: &Pod| pod.labels().get(LABEL_SCOPE) == Some(&scope);
            overview = overview.with_pods(&pods.items.into_iter().filter(database).collect::<Vec<_>>());
        }
        Err(error) => not_read.push(format!("pods: {}", connection::reason(&error))),
    }
    match claims {
        Ok(claims) => overview = overview.with_volumes(&claims.items),
        Err(error) => not_read.push(format!("volumes: {}", connection::reason(&error))),
    }
    match events(client, namespace, &uids).await {
        Ok(events) => overview = overview.with_events(events),
        Err(error) => not_read.push(format!("events: {}", connection::reason(&error))),
    }
    overview.not_read = not_read;
    Ok(overview)
}

/// The events of these objects, which the API server selects: a namespace can have thousands.
async fn events(client: &Client, namespace: &str, uids: &[String]) -> Result<Vec<Event>, kube::Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let lists = uids.iter().map(|uid| {
        let of_object = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let api = api.clone();
        async move { api.list(&of_object).await }
    });
    let mut events = Vec::new();
    for list in join_all(lists).await {
        events.extend(list?.items);
    }
    Ok(events)
}
