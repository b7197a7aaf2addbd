//! Events of the watches: the resources to reconcile, and the cache entries to invalidate. Only
//! metadata is read; the apply step finds whether an object matches its plan.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};

use super::selection::{api, labelled};
use crate::api::ServiceDatabase;
use crate::api::names::{LABEL_NAME, LABEL_SCOPE, service_of_patroni_config_map};
use crate::operator::context::Context;
use crate::operator::context::cache::Cache;
use crate::operator::instances::patroni_state::fingerprint;

type Reference = ObjectRef<ServiceDatabase>;
/// Namespace and name.
type Key = (String, String);

/// The resources whose objects of a kind were changed or deleted, by any client.
pub fn objects<K>(context: &Arc<Context>, namespace: Option<&str>) -> impl Stream<Item = Reference> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
{
    let events = events::<K>(context, namespace, labelled(LABEL_NAME));
    let mut listing = Listing::new(&K::kind(&()), namespace);
    let context = context.clone();
    events.flat_map(move |event| {
        let mut touched = listing.handle(&context.cache, &event);
        if let Some(metadata) = changed(&event) {
            touched.extend(invalidate(&context.cache, &listing.kind, metadata));
        }
        stream::iter(touched)
    })
}

/// The same for ConfigMaps: resources also read them as sources of migrations, and Patroni rewrites
/// its own in every loop.
pub fn config_maps(
    context: &Arc<Context>,
    namespace: Option<&str>,
    known: Store<ServiceDatabase>,
) -> impl Stream<Item = Reference> + Send + use<> {
    // One watch for both, so that removing a label does not move an object to another watch.
    let events = events::<ConfigMap>(context, namespace, watcher::Config::default());
    let mut listing = Listing::new(&ConfigMap::kind(&()), namespace);
    let mut patronis = Patronis::default();
    let context = context.clone();
    events.flat_map(move |event| {
        let cache = &context.cache;
        let mut touched = listing.handle(cache, &event);
        touched.extend(patronis.handle(cache, &known, &event));
        if let Some(metadata) = changed(&event).filter(|metadata| service_of_patronis(&known, metadata).is_none()) {
            touched.extend(invalidate(cache, &listing.kind, metadata));
            touched.extend(readers(&known, metadata));
        }
        stream::iter(touched)
    })
}

fn events<K>(
    context: &Arc<Context>,
    namespace: Option<&str>,
    config: watcher::Config,
) -> impl Stream<Item = Event<PartialObjectMeta<K>>> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
{
    let api = api::<PartialObjectMeta<K>>(&context.client, namespace);
    watcher(api, config).default_backoff().filter_map(|event| async {
        event.inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "a watch failed; retrying")).ok()
    })
}

/// The object of an event.
fn changed<K>(event: &Event<PartialObjectMeta<K>>) -> Option<&ObjectMeta> {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => Some(&object.metadata),
        Event::Init | Event::InitDone => None,
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn reference(namespace: &str, name: &str) -> Reference {
    ObjectRef::new(name).within(namespace)
}

/// The resources that an object belongs to: by its label, and by its cache entry, in case the label
/// was changed. The cache entry is invalidated if its version differs.
fn invalidate(cache: &Cache, kind: &str, metadata: &ObjectMeta) -> Vec<Reference> {
    let (namespace, name) = key(metadata);
    let was_of = cache.invalidate(&namespace, kind, &name, metadata.resource_version.as_deref());
    let is_of = metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_NAME)).cloned();
    let before = was_of.filter(|was_of| Some(was_of) != is_of.as_ref());
    is_of.into_iter().chain(before).map(|resource| reference(&namespace, &resource)).collect()
}

/// The resources that use a ConfigMap as a source of migrations.
fn readers(known: &Store<ServiceDatabase>, metadata: &ObjectMeta) -> Vec<Reference> {
    let (namespace, name) = key(metadata);
    let reads = |resource: &Arc<ServiceDatabase>| {
        let mut sources = resource.spec.migrations.iter().flat_map(|migrations| migrations.source.references());
        resource.namespace().as_ref() == Some(&namespace) && sources.any(|source| source.name == name)
    };
    known.state().into_iter().filter(reads).map(|resource| ObjectRef::from_obj(resource.as_ref())).collect()
}

/// The objects that a watch lists when it starts or restarts: objects deleted while it did not run
/// are missing.
struct Listing {
    kind: String,
    namespace: Option<String>,
    there: HashSet<Key>,
}

impl Listing {
    fn new(kind: &str, namespace: Option<&str>) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.map(str::to_owned), there: HashSet::new() }
    }

    /// The resources with a missing object.
    fn handle<K>(&mut self, cache: &Cache, event: &Event<PartialObjectMeta<K>>) -> Vec<Reference> {
        match event {
            Event::Init => self.there.clear(),
            Event::InitApply(object) => {
                self.there.insert(key(&object.metadata));
            }
            Event::InitDone => {
                let there = std::mem::take(&mut self.there);
                let bereft = cache.invalidate_absent(self.namespace.as_deref(), &self.kind, &there);
                return bereft.iter().map(|(namespace, name)| reference(namespace, name)).collect();
            }
            Event::Apply(_) | Event::Delete(_) => {}
        }
        Vec::new()
    }
}

/// The service of a ConfigMap of Patroni.
fn service_of_patronis(known: &Store<ServiceDatabase>, metadata: &ObjectMeta) -> Option<Reference> {
    let (namespace, name) = key(metadata);
    let reference = reference(&namespace, service_of_patroni_config_map(&name)?);
    // For another object with this name, the namespace has no database of that name.
    let is_labelled = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_SCOPE));
    (is_labelled || known.get(&reference).is_some()).then_some(reference)
}

/// The last observed state of Patroni's ConfigMaps.
#[derive(Default)]
struct Patronis {
    prints: HashMap<Key, u64>,
}

impl Patronis {
    /// The resource, if the object was deleted, or changed by another client than Patroni. The content
    /// of a deleted one is stored, to recreate it.
    fn handle(
        &mut self,
        cache: &Cache,
        known: &Store<ServiceDatabase>,
        event: &Event<PartialObjectMeta<ConfigMap>>,
    ) -> Option<Reference> {
        let metadata = changed(event)?;
        let service = service_of_patronis(known, metadata)?;
        let (namespace, name) = key(metadata);
        let deleted = matches!(event, Event::Delete(_));
        // With the resource, its ConfigMaps are deleted permanently.
        let is_ending = |resource: Arc<ServiceDatabase>| resource.metadata.deletion_timestamp.is_some();
        let is_needed = !known.get(&service).is_some_and(is_ending);
        let held = (deleted && is_needed).then(|| metadata.annotations.clone().unwrap_or_default());
        if deleted && !known.state().is_empty() {
            cache.retain_deleted(|namespace, name| {
                service_of_patroni_config_map(name).is_some_and(|of| known.get(&reference(namespace, of)).is_some())
            });
        }
        let is_back = cache.keep_deleted(&namespace, &name, held) && !deleted;
        let (now, key) = (fingerprint(metadata), (namespace, name));
        let before = if deleted { self.prints.remove(&key) } else { self.prints.insert(key.clone(), now) };
        let is_changed = deleted || is_back || before.is_some_and(|before| before != now);
        if is_changed {
            let (namespace, name) = &key;
            cache.invalidate(namespace, &ConfigMap::kind(&()), name, Some("another"));
        }
        is_changed.then_some(service)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::runtime::reflector;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::names::Names;
    use crate::operator::apply::object::{ANNOTATION_UID, Owner};

    fn object<K: Resource<DynamicType = ()>>(metadata: Value) -> PartialObjectMeta<K> {
        serde_json::from_value(json!({"metadata": metadata})).expect("metadata")
    }

    fn cache() -> (Cache, Owner) {
        (Cache::new(Duration::from_secs(60)), Owner { names: Names::new("games", "chat"), uid: "u".to_owned() })
    }

    #[test]
    fn an_object_belongs_to_the_resources_of_its_cache_entry_and_its_label() {
        let (cache, owner) = cache();
        cache.begin_observation(&owner, "Role", "chat-db");
        cache.record(&owner, "Role", "chat-db", "plan".to_owned(), Some("1".to_owned()));
        let metadata = |label: &str| {
            let labels = json!({LABEL_NAME: label});
            object::<ConfigMap>(
                json!({"name": "chat-db", "namespace": "games", "resourceVersion": "2", "labels": labels}),
            )
        };
        let names = |found: Vec<Reference>| found.into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(invalidate(&cache, "Role", &metadata("shop").metadata)), ["shop", "chat"]);
        assert_eq!(names(invalidate(&cache, "Role", &metadata("chat").metadata)), ["chat"]);
    }

    #[test]
    fn patronis_own_writes_are_ignored_and_deleted_content_is_kept() {
        let (cache, owner) = cache();
        let (known, _writer) = reflector::store();
        let mut patronis = Patronis::default();
        cache.begin_observation(&owner, "ConfigMap", "chat-db-leader");
        cache.record(&owner, "ConfigMap", "chat-db-leader", "plan".to_owned(), None);
        let leader = |renewed: &str, uid: &str| {
            object::<ConfigMap>(json!({
                "name": "chat-db-leader", "namespace": "games", "uid": "1",
                "labels": {LABEL_SCOPE: "chat-db", LABEL_NAME: "chat"},
                "annotations": {"leader": "chat-db-0", "renewTime": renewed, ANNOTATION_UID: uid},
            }))
        };
        let is_cached = |cache: &Cache| cache.is_as_planned(&owner, "ConfigMap", "chat-db-leader", "plan");
        let mut handle = |event| patronis.handle(&cache, &known, &event).map(|reference| reference.name);
        assert_eq!(handle(Event::InitApply(leader("1", "u"))), None);
        assert_eq!(handle(Event::Apply(leader("2", "u"))), None, "a renewal of the lease");
        assert!(is_cached(&cache));
        assert_eq!(handle(Event::Apply(leader("2", "another"))).as_deref(), Some("chat"), "our annotation");
        assert!(!is_cached(&cache));
        assert_eq!(handle(Event::Delete(leader("3", "u"))).as_deref(), Some("chat"));
        assert_eq!(cache.deleted("games", "chat-db-leader", "u").expect("its content")["renewTime"], "3");
        assert_eq!(handle(Event::Apply(leader("3", "u"))).as_deref(), Some("chat"), "it exists again");
        assert_eq!(handle(Event::Apply(leader("4", "u"))), None);
        assert_eq!(cache.deleted("games", "chat-db-leader", "u"), None, "and will have newer content");
    }
}
