//! The watched objects, and the resource that an object belongs to.

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};

use crate::api::ServiceDatabase;
use crate::api::names::LABEL_NAME;

/// The objects of a kind, in one namespace or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Watches objects with a label.
pub fn labelled(label: &str) -> watcher::Config {
    watcher::Config::default().labels(label)
}

/// The resource that a pod belongs to by its label.
pub fn resource_of(pod: &Pod) -> Option<ObjectRef<ServiceDatabase>> {
    let name = pod.labels().get(LABEL_NAME)?;
    Some(ObjectRef::new(name).within(&pod.namespace().unwrap_or_default()))
}
