//! What the watches of objects tell: which resource is to be reconciled, and what was remembered
//! of an object that counts no more. Metadata alone is read; whether an object is as planned is
//! found out by applying it.

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

/// The resources whose objects of a kind were changed or deleted, by whomever.
pub fn objects<K>(context: &Arc<Context>, namespace: Option<&str>) -> impl Stream<Item = Reference> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
{
    let events = events::<K>(context, namespace, labelled(LABEL_NAME));
    let mut listing = Listing::new(&K::kind(&()), namespace);
    let context = context.clone();
    events.flat_map(move |event| {
        let mut touched = listing.follow(&context.cache, &event);
        if let Some(metadata) = changed(&event) {
            touched.extend(invalidate(&context.cache, &listing.kind, metadata));
        }
        stream::iter(touched)
    })
}

/// The same of ConfigMaps: these are also read, by those whose migrations they hold; and Patroni
/// rewrites its own in every loop.
pub fn config_maps(
    context: &Arc<Context>,
    namespace: Option<&str>,
    known: Store<ServiceDatabase>,
) -> impl Stream<Item = Reference> + Send + use<> {
    // One watch for both: an object does not pass from one to the other with a label that is taken off.
    let events = events::<ConfigMap>(context, namespace, watcher::Config::default());
    let mut listing = Listing::new(&ConfigMap::kind(&()), namespace);
    let mut patronis = Patronis::default();
    let context = context.clone();
    events.flat_map(move |event| {
        let cache = &context.cache;
        let mut touched = listing.follow(cache, &event);
        touched.extend(patronis.follow(cache, &known, &event));
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
        event
            .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is tried again"))
            .ok()
    })
}

/// The object that an event is of.
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

/// The resources that an object belongs to: by its label, and as it was seen last, should the
/// label have been changed. What was remembered of it is checked against its version.
fn invalidate(cache: &Cache, kind: &str, metadata: &ObjectMeta) -> Vec<Reference> {
    let (namespace, name) = key(metadata);
    let was_of = cache.invalidate(&namespace, kind, &name, metadata.resource_version.as_deref());
    let is_of = metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_NAME)).cloned();
    let before = was_of.filter(|was_of| Some(was_of) != is_of.as_ref());
    is_of.into_iter().chain(before).map(|resource| reference(&namespace, &resource)).collect()
}

/// Those whose migrations a ConfigMap holds.
fn readers(known: &Store<ServiceDatabase>, metadata: &ObjectMeta) -> Vec<Reference> {
    let (namespace, name) = key(metadata);
    let reads = |resource: &Arc<ServiceDatabase>| {
        let mut sources = resource.spec.migrations.iter().flat_map(|migrations| migrations.source.references());
        resource.namespace().as_ref() == Some(&namespace) && sources.any(|source| source.name == name)
    };
    known.state().into_iter().filter(reads).map(|resource| ObjectRef::from_obj(resource.as_ref())).collect()
}

/// What a watch lists when it begins, and begins again: what was deleted while it did not run is
/// not in it.
struct Listing {
    kind: String,
    namespace: Option<String>,
    there: HashSet<Key>,
}

impl Listing {
    fn new(kind: &str, namespace: Option<&str>) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.map(str::to_owned), there: HashSet::new() }
    }

    /// The resources of which an object is missing.
    fn follow<K>(&mut self, cache: &Cache, event: &Event<PartialObjectMeta<K>>) -> Vec<Reference> {
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

/// The service whose Patroni's ConfigMap this is.
fn service_of_patronis(known: &Store<ServiceDatabase>, metadata: &ObjectMeta) -> Option<Reference> {
    let (namespace, name) = key(metadata);
    let reference = reference(&namespace, service_of_patroni_config_map(&name)?);
    // Whoever gives an object of another sort such a name has no database of that name beside it.
    let is_labelled = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_SCOPE));
    (is_labelled || known.get(&reference).is_some()).then_some(reference)
}

/// Patroni's ConfigMaps, as they were seen last.
#[derive(Default)]
struct Patronis {
    prints: HashMap<Key, u64>,
}

impl Patronis {
    /// The resource, if the object was changed by another than Patroni, or deleted. What it held
    /// then is kept, for it to be made again.
    fn follow(
        &mut self,
        cache: &Cache,
        known: &Store<ServiceDatabase>,
        event: &Event<PartialObjectMeta<ConfigMap>>,
    ) -> Option<Reference> {
        let metadata = changed(event)?;
        let service = service_of_patronis(known, metadata)?;
        let (namespace, name) = key(metadata);
        let deleted = matches!(event, Event::Delete(_));
        let held = deleted.then(|| metadata.annotations.clone().unwrap_or_default());
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
    fn an_object_is_of_whom_it_was_seen_to_be_and_of_whom_it_says() {
        let (cache, owner) = cache();
        cache.look(&owner, "Role", "chat-db");
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
    fn patronis_own_writes_pass_and_what_is_deleted_is_kept() {
        let (cache, owner) = cache();
        let (known, _writer) = reflector::store();
        let mut patronis = Patronis::default();
        cache.look(&owner, "ConfigMap", "chat-db-leader");
        cache.record(&owner, "ConfigMap", "chat-db-leader", "plan".to_owned(), None);
        let leader = |renewed: &str, uid: &str| {
            object::<ConfigMap>(json!({
                "name": "chat-db-leader", "namespace": "games", "uid": "1",
                "labels": {LABEL_SCOPE: "chat-db", LABEL_NAME: "chat"},
                "annotations": {"leader": "chat-db-0", "renewTime": renewed, ANNOTATION_UID: uid},
            }))
        };
        let seen = |cache: &Cache| cache.is_as_planned(&owner, "ConfigMap", "chat-db-leader", "plan");
        let mut follow = |event| patronis.follow(&cache, &known, &event).map(|reference| reference.name);
        assert_eq!(follow(Event::InitApply(leader("1", "u"))), None);
        assert_eq!(follow(Event::Apply(leader("2", "u"))), None, "a renewal of the lease");
        assert!(seen(&cache));
        assert_eq!(follow(Event::Apply(leader("2", "another"))).as_deref(), Some("chat"), "our annotation");
        assert!(!seen(&cache));
        assert_eq!(follow(Event::Delete(leader("3", "u"))).as_deref(), Some("chat"));
        assert_eq!(cache.deleted("games", "chat-db-leader", "u").expect("what it held")["renewTime"], "3");
        assert_eq!(follow(Event::Apply(leader("3", "u"))).as_deref(), Some("chat"), "it is back");
        assert_eq!(follow(Event::Apply(leader("4", "u"))), None);
        assert_eq!(cache.deleted("games", "chat-db-leader", "u"), None, "and holds something newer soon");
    }
}
