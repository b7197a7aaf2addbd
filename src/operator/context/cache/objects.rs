//! The objects in the cluster that were observed to match their plans, and those that were deleted.

use std::collections::HashSet;
use std::time::Instant;

use super::entries::{ABSENT, ObjectKey, Observed, Stored};
use super::{Cache, lock};
use crate::operator::apply::object::{ANNOTATION_UID, Annotations, Owner};

fn object_key(namespace: &str, kind: &str, name: &str) -> ObjectKey {
    (namespace.to_owned(), kind.to_owned(), name.to_owned())
}

impl Cache {
    /// Whether an object was recently observed with this plan, and not changed since.
    pub fn is_as_planned(&self, owner: &Owner, kind: &str, name: &str, plan: &str) -> bool {
        let objects = lock(&self.objects);
        let entry = objects.get(&object_key(&owner.names.namespace, kind, name));
        entry.is_some_and(|entry| entry.owner == owner.uid && entry.plan == plan && entry.at.elapsed() < self.lifetime)
    }

    /// Starts the observation of an object: events of a watch from now on are newer than the state
    /// that [`Self::record`] will store.
    pub fn begin_observation(&self, owner: &Owner, kind: &str, name: &str) {
        let (plan, resource_version, at) = (String::new(), None, Instant::now());
        let (owner, namespace) = (owner.clone(), owner.names.namespace.clone());
        let entry = Observed { owner: owner.uid, resource: owner.names.name, plan, resource_version, at };
        lock(&self.objects).insert(object_key(&namespace, kind, name), entry);
    }

    /// Records that an object matches its plan, if no event with another version arrived since the
    /// observation started.
    pub fn record(&self, owner: &Owner, kind: &str, name: &str, plan: String, resource_version: Option<String>) {
        let mut objects = lock(&self.objects);
        let key = object_key(&owner.names.namespace, kind, name);
        let Some(entry) = objects.get_mut(&key) else { return };
        if entry.resource_version.is_none() || entry.resource_version == resource_version {
            (entry.plan, entry.resource_version, entry.at) = (plan, resource_version, Instant::now());
        } else {
            objects.remove(&key);
        }
    }

    /// Handles an event of a watch with an object's version; if it differs from the recorded
    /// version, the entry is invalidated. Returns the ServiceDatabase that the object was recorded
    /// for, independent of its current labels.
    pub fn invalidate(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        resource_version: Option<&str>,
    ) -> Option<String> {
        let mut objects = lock(&self.objects);
        let key = object_key(namespace, kind, name);
        let entry = objects.get_mut(&key)?;
        let resource = entry.resource.clone();
        if entry.is_in_progress() {
            entry.resource_version = resource_version.map(str::to_owned);
        } else if entry.resource_version.as_deref() != resource_version {
            objects.remove(&key);
        }
        Some(resource)
    }

    /// Handles a watch's list of the objects of a kind, in one namespace or in all: entries of missing
    /// objects are invalidated. Returns namespace and name of their ServiceDatabases.
    pub fn invalidate_absent(
        &self,
        namespace: Option<&str>,
        kind: &str,
        there: &HashSet<(String, String)>,
    ) -> Vec<(String, String)> {
        let mut bereft = Vec::new();
        lock(&self.objects).retain(|(of, its_kind, name), entry| {
            let gone = its_kind == kind
                && namespace.is_none_or(|namespace| namespace == of)
                && entry.plan != ABSENT
                && !there.contains(&(of.clone(), name.clone()));
            if gone {
                bereft.push((of.clone(), entry.resource.clone()));
            }
            !gone
        });
        bereft
    }

    /// Records the stored form of an object that the API server extends with each write.
    pub fn record_stored(&self, owner: &Owner, kind: &str, name: &str, parts: String, generation: Option<i64>) {
        let stored = Stored { owner: owner.uid.clone(), parts, generation };
        lock(&self.stored).insert(object_key(&owner.names.namespace, kind, name), stored);
    }

    /// Whether an object still has the recorded stored form.
    pub fn is_as_stored(&self, owner: &Owner, kind: &str, name: &str, parts: &str) -> bool {
        let all = lock(&self.stored);
        let stored = all.get(&object_key(&owner.names.namespace, kind, name));
        stored.is_some_and(|stored| stored.owner == owner.uid && stored.parts == parts)
    }

    /// The generation of an object to which the API server adds fields.
    pub fn stored_generation(&self, owner: &Owner, kind: &str, name: &str) -> Option<i64> {
        let all = lock(&self.stored);
        let stored = all.get(&object_key(&owner.names.namespace, kind, name));
        stored.filter(|stored| stored.owner == owner.uid)?.generation
    }

    /// Removes the entry of an object that was read and is absent, in case no watch reported its deletion.
    pub fn invalidate_gone(&self, namespace: &str, kind: &str, name: &str) {
        let key = object_key(namespace, kind, name);
        let mut objects = lock(&self.objects);
        if objects.get(&key).is_some_and(|entry| entry.plan != ABSENT && !entry.is_in_progress()) {
            objects.remove(&key);
        }
    }

    /// Removes the stored content of Patroni's deleted ConfigMaps whose resources are gone; the names are those
    /// of the ConfigMaps.
    pub fn retain_deleted(&self, is_needed: impl Fn(&str, &str) -> bool) {
        lock(&self.deleted).retain(|(namespace, name), _| is_needed(namespace, name));
    }

    /// Stores the last content of a deleted ConfigMap of Patroni; none if it exists. Returns whether
    /// a content was stored before.
    pub fn keep_deleted(&self, namespace: &str, name: &str, annotations: Option<Annotations>) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let mut deleted = lock(&self.deleted);
        let before = match annotations {
            Some(annotations) => deleted.insert(key, annotations),
            None => deleted.remove(&key),
        };
        before.is_some()
    }

    /// The last content of a deleted ConfigMap of Patroni, if a watch reported the deletion; none for a
    /// ConfigMap of another resource.
    pub fn deleted(&self, namespace: &str, name: &str, uid: &str) -> Option<Annotations> {
        let deleted = lock(&self.deleted).get(&(namespace.to_owned(), name.to_owned())).cloned();
        deleted.filter(|annotations| annotations.get(ANNOTATION_UID).is_some_and(|stamp| stamp == uid))
    }

    /// Invalidates all objects of a resource: all are read again.
    pub fn invalidate_objects(&self, uid: &str) {
        for entry in lock(&self.objects).values_mut().filter(|entry| entry.owner == uid && entry.plan != ABSENT) {
            entry.plan = String::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn owner(uid: &str) -> Owner {
        Owner { names: crate::api::names::Names::new("ns", "chat"), uid: uid.to_owned() }
    }

    fn record(cache: &Cache, owner: &Owner, kind: &str, name: &str, version: Option<&str>) {
        cache.begin_observation(owner, kind, name);
        cache.record(owner, kind, name, "plan".to_owned(), version.map(str::to_owned));
    }

    #[test]
    fn an_event_during_a_read_is_newer_than_the_read() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = owner("uid");
        for (reported, counts) in [("7", true), ("8", false)] {
            cache.begin_observation(&ours, "Role", "chat-db");
            cache.invalidate("ns", "Role", "chat-db", Some(reported));
            cache.record(&ours, "Role", "chat-db", "plan".to_owned(), Some("7".to_owned()));
            assert_eq!(
                cache.is_as_planned(&ours, "Role", "chat-db", "plan"),
                counts,
                "the operator's own write does not invalidate"
            );
        }
    }

    #[test]
    fn a_watched_change_invalidates_an_entry_and_our_own_write_does_not() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = owner("uid");
        record(&cache, &ours, "Service", "chat-db", Some("7"));
        assert_eq!(cache.invalidate("ns", "Service", "chat-db", Some("7")).as_deref(), Some("chat"));
        assert!(cache.is_as_planned(&ours, "Service", "chat-db", "plan"));
        assert!(!cache.is_as_planned(&ours, "Service", "chat-db", "another plan"));
        assert!(!cache.is_as_planned(&owner("another"), "Service", "chat-db", "plan"));
        assert_eq!(
            cache.invalidate("ns", "Service", "chat-db", Some("8")).as_deref(),
            Some("chat"),
            "independent of its labels"
        );
        assert!(!cache.is_as_planned(&ours, "Service", "chat-db", "plan"));
        assert_eq!(cache.invalidate("ns", "Service", "chat-db", Some("9")), None);
    }

    #[test]
    fn a_deletion_missed_by_a_watch_is_found_by_the_next_list() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = owner("uid");
        for name in ["chat-db", "chat-db-peers"] {
            record(&cache, &ours, "Service", name, None);
        }
        record(&cache, &ours, "Role", "chat-db", None);
        cache.begin_observation(&ours, "Service", "chat-db-none");
        cache.record(&ours, "Service", "chat-db-none", ABSENT.to_owned(), None);
        let there = HashSet::from([("ns".to_owned(), "chat-db".to_owned())]);
        assert!(cache.invalidate_absent(Some("elsewhere"), "Service", &HashSet::new()).is_empty());
        assert_eq!(cache.invalidate_absent(None, "Service", &there), [("ns".to_owned(), "chat".to_owned())]);
        assert!(cache.is_as_planned(&ours, "Service", "chat-db", "plan"));
        assert!(!cache.is_as_planned(&ours, "Service", "chat-db-peers", "plan"));
        assert!(cache.is_as_planned(&ours, "Role", "chat-db", "plan"));
        assert!(cache.is_as_planned(&ours, "Service", "chat-db-none", ABSENT));
    }

    #[test]
    fn an_object_read_as_absent_does_not_count_as_created() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = owner("uid");
        record(&cache, &ours, "Job", "chat-db-migrate-1", Some("7"));
        cache.invalidate_gone("ns", "Job", "chat-db-migrate-1");
        assert!(!cache.is_as_planned(&ours, "Job", "chat-db-migrate-1", "plan"));
        cache.begin_observation(&ours, "Job", "chat-db-none");
        cache.record(&ours, "Job", "chat-db-none", ABSENT.to_owned(), None);
        cache.invalidate_gone("ns", "Job", "chat-db-none");
        assert!(cache.is_as_planned(&ours, "Job", "chat-db-none", ABSENT));
    }

    #[test]
    fn entries_expire() {
        let cache = Cache::new(Duration::ZERO);
        record(&cache, &owner("uid"), "Role", "chat-db", None);
        assert!(!cache.is_as_planned(&owner("uid"), "Role", "chat-db", "plan"));
    }
}
