//! One planned object: what it shall be, as the API server will read it.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Resource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::quantity;
use crate::api::names;
use crate::operator::context::error::Error;

/// Annotation of the StatefulSet, and of the desired state, which outlives it: the template that
/// was accepted, as this operator plans it and without what the API server fills in.
pub const ANNOTATION_TEMPLATE: &str = "servicedb.dev/template";
/// The key of `-config` with the system identifier.
pub const INITIALIZE: &str = "initialize";

/// The annotations of an object.
pub type Annotations = BTreeMap<String, String>;

/// What applying did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object was made.
    Created,
    /// The object was changed.
    Updated,
    /// The object already was as planned; nothing was sent.
    Unchanged,
    /// The object was removed.
    Deleted,
}

/// Annotation: the hash of what was last applied. It tells that a field was taken out of
/// the plan, which comparing the plan with the live object cannot.
pub const ANNOTATION_APPLIED: &str = "servicedb.dev/applied";
/// Annotation on what outlives the resource: the uid of the ServiceDatabase it was made for.
pub const ANNOTATION_UID: &str = "servicedb.dev/uid";

/// Annotation of a volume claim: the database that is on it.
pub const ANNOTATION_DATABASE: &str = "servicedb.dev/database";

/// The well-known label that says by whom an object is managed.
const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Whose an object is, and so what becomes of it with the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Controlled by the resource: garbage-collected with it.
    Controlled,
    /// Stamped with the resource's uid: outlives it, as the deletion policy says.
    Stamped,
}

/// An object as it shall be, or that shall not be.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its kind.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub ownership: Ownership,
    /// The whole object, apiVersion and kind included.
    pub body: Value,
    /// Fields that are set when the object is made and are somebody else's from then on,
    /// such as Patroni's annotations.
    pub at_creation: Option<Value>,
    /// Whether an object that does not carry the resource's uid may be marked with it again: it is
    /// known otherwise to be this resource's.
    pub known_to_be_ours: bool,
    /// Whether it shall be there. If not, it is removed where it is this resource's: what asked for
    /// it may be gone.
    pub present: bool,
}

impl Planned {
    /// An object of kind `K` from its body; names, labels and ownership are filled in.
    pub fn new<K>(owner: &Owner, name: String, mut body: Value) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let resource = ApiResource::erase::<K>(&());
        body["apiVersion"] = resource.api_version.clone().into();
        body["kind"] = resource.kind.clone().into();
        let metadata = &mut body["metadata"];
        metadata["name"] = name.clone().into();
        metadata["namespace"] = owner.names.namespace.clone().into();
        for (key, value) in owner.labels() {
            metadata["labels"][key] = value.into();
        }
        metadata["ownerReferences"] = json!([owner.reference()]);
        Self {
            resource,
            name,
            ownership: Ownership::Controlled,
            body,
            at_creation: None,
            known_to_be_ours: false,
            present: true,
        }
    }

    /// There under this condition alone.
    #[must_use]
    pub fn only_if(mut self, present: bool) -> Self {
        self.present = present;
        self
    }

    /// Makes the object outlive the resource.
    #[must_use]
    pub fn stamped(mut self, owner: &Owner) -> Self {
        if let Some(metadata) = self.body["metadata"].as_object_mut() {
            metadata.remove("ownerReferences");
        }
        self.body["metadata"]["annotations"][ANNOTATION_UID] = owner.uid.clone().into();
        self.ownership = Ownership::Stamped;
        self
    }

    /// The object with the hash of itself as an annotation, as it is sent.
    pub fn sealed(&self) -> (Value, String) {
        let hash = short_hash(&self.body);
        let mut body = self.body.clone();
        body["metadata"]["annotations"][ANNOTATION_APPLIED] = hash.clone().into();
        (body, hash)
    }
}

/// What tells a document from others of its kind: the first eight bytes of its hash.
pub fn short_hash(document: &Value) -> String {
    let hash = Sha256::digest(document.to_string().as_bytes());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The resource as the owner of objects.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its names.
    pub names: names::Names,
    /// Its uid.
    pub uid: String,
}

impl Owner {
    /// The labels of every object.
    pub fn labels(&self) -> [(&'static str, String); 4] {
        [
            (LABEL_MANAGED_BY, names::FIELD_MANAGER.to_owned()),
            ("app.kubernetes.io/name", "postgresql".to_owned()),
            ("app.kubernetes.io/instance", self.names.base()),
            (names::LABEL_NAME, self.names.name.clone()),
        ]
    }

    fn reference(&self) -> Value {
        json!({
            "apiVersion": "servicedb.dev/v1alpha1",
            "kind": "ServiceDatabase",
            "name": self.names.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }

    /// Whether a live object is this owner's.
    pub fn owns(&self, ownership: &Ownership, live: &ObjectMeta) -> bool {
        match ownership {
            Ownership::Controlled => controller_uid(live) == Some(self.uid.as_str()),
            Ownership::Stamped => stamped_uid(live) == Some(self.uid.as_str()),
        }
    }

    /// Whether a live object that [`Self::owns`] denies only lost the mark of its owner. One that
    /// nobody controls, and that says in three other places that we applied it for this resource,
    /// is nobody else's; one that somebody controls is.
    pub fn may_mark_again(&self, planned: &Planned, live: &ObjectMeta) -> bool {
        match planned.ownership {
            Ownership::Stamped => planned.known_to_be_ours,
            Ownership::Controlled => {
                let label = |key: &str| live.labels.as_ref().and_then(|labels| labels.get(key));
                controller(live).is_none()
                    && label(names::LABEL_NAME) == Some(&self.names.name)
                    && label(LABEL_MANAGED_BY).is_some_and(|manager| manager == names::FIELD_MANAGER)
                    && live.annotations.as_ref().is_some_and(|all| all.contains_key(ANNOTATION_APPLIED))
            }
        }
    }
}

/// The objects of kind `K` in a namespace, as JSON.
pub fn erased<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

fn controller(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}

/// The uid of an object's controller.
pub fn controller_uid(object: &ObjectMeta) -> Option<&str> {
    controller(object).map(|reference| reference.uid.as_str())
}

/// The uid that an object is stamped with.
pub fn stamped_uid(object: &ObjectMeta) -> Option<&str> {
    object.annotations.as_ref()?.get(ANNOTATION_UID).map(String::as_str)
}

/// That an object of a name that is needed is not ours, and whose it is.
pub fn conflict(kind: &str, name: &str, live: &ObjectMeta) -> Error {
    let holder = match (controller(live), stamped_uid(live)) {
        (Some(controller), _) => format!("{} {}", controller.kind, controller.name),
        (None, Some(uid)) => format!("an earlier ServiceDatabase (uid {uid})"),
        (None, None) => "nobody that Servicedb knows".to_owned(),
    };
    Error::ObjectConflict { kind: kind.to_owned(), name: name.to_owned(), holder }
}

/// Whether `live` has all that `wanted` says: the API server adds defaults, others add
/// fields, and neither is drift.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, value)| match live.get(key) {
            Some(live) => contains(live, value),
            None => is_empty(value),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted || is_same_quantity(live, wanted),
    }
}

/// The API server writes quantities in a form of its own: `1Gi` for `1024Mi`.
fn is_same_quantity(live: &Value, wanted: &Value) -> bool {
    let bytes = |value: &Value| quantity::bytes(&Quantity(value.as_str()?.to_owned()));
    bytes(live).is_some_and(|live| Some(live) == bytes(wanted))
}

/// The API server drops empty fields.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_server_are_not_drift() {
        let wanted = json!({"spec": {"ports": [{"port": 5432}], "empty": {}, "flag": false}});
        let live = json!({"spec": {"ports": [{"port": 5432, "protocol": "TCP"}], "clusterIP": "10.0.0.1"}});
        assert!(contains(&live, &wanted));
    }

    #[test]
    fn a_changed_or_missing_field_is_drift() {
        let wanted = json!({"spec": {"ports": [{"port": 5432}], "type": "ClusterIP"}});
        assert!(!contains(&json!({"spec": {"ports": [{"port": 5433}], "type": "ClusterIP"}}), &wanted));
        assert!(!contains(&json!({"spec": {"ports": [{"port": 5432}]}}), &wanted));
        assert!(!contains(&json!({"spec": {"ports": [{"port": 5432}, {"port": 1}], "type": "ClusterIP"}}), &wanted));
    }

    #[test]
    fn only_an_object_that_nobody_controls_is_marked_again() {
        let owner = Owner { names: names::Names::new("games", "chat"), uid: "u".to_owned() };
        let planned = Planned::new::<k8s_openapi::api::core::v1::Service>(&owner, "chat-db".to_owned(), json!({}));
        let (sealed, _) = planned.sealed();
        let meta = |change: &dyn Fn(&mut Value)| {
            let mut metadata = sealed["metadata"].clone();
            change(&mut metadata);
            serde_json::from_value::<ObjectMeta>(metadata).expect("metadata")
        };
        let again = |change: &dyn Fn(&mut Value)| owner.may_mark_again(&planned, &meta(change));
        assert!(again(&|metadata| metadata["ownerReferences"] = json!([])));
        assert!(!again(&|metadata| metadata["ownerReferences"][0]["uid"] = "another".into()), "an earlier resource's");
        for lost in ["labels", "annotations"] {
            assert!(
                !again(&|metadata| {
                    metadata["ownerReferences"] = json!([]);
                    metadata[lost] = json!({});
                }),
                "without {lost} it may be anybody's"
            );
        }
    }
}
