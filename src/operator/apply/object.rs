//! One planned object, in the form that is sent to the API server.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Resource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::names;
use crate::operator::context::error::Error;

/// Annotation of the StatefulSet, and of the desired state, which outlives it: the accepted
/// template, as planned, without the API server's defaults.
pub const ANNOTATION_TEMPLATE: &str = "servicedb.dev/template";
/// The annotation with the names of the Secrets with credentials that were made, and of those that are about to be.
pub const ANNOTATION_SECRETS: &str = "servicedb.dev/credential-secrets";
/// A recorded template; none if the annotation was changed to something else.
pub fn parsed_template(text: &str) -> Option<Value> {
    let is_template =
        |template: &Value| template["spec"]["containers"][0].is_object() && template["metadata"].is_object();
    serde_json::from_str(text).ok().filter(is_template)
}

/// The key of `-config` with the system identifier.
pub const INITIALIZE: &str = "initialize";

/// The annotations of an object.
pub type Annotations = BTreeMap<String, String>;

/// The change that an apply made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object was created.
    Created,
    /// The object was changed.
    Updated,
    /// The object matched the plan; nothing was sent.
    Unchanged,
    /// The object was removed.
    Deleted,
}

/// Annotation: the hash of the last applied plan. It shows that a field was removed from the plan,
/// which a comparison of the plan with the live object cannot.
pub const ANNOTATION_APPLIED: &str = "servicedb.dev/applied";
/// Annotation of objects that outlive the resource: the uid of the ServiceDatabase that they were
/// created for.
pub const ANNOTATION_UID: &str = "servicedb.dev/uid";

/// Annotation of a volume claim: the name of the database on it.
pub const ANNOTATION_DATABASE: &str = "servicedb.dev/database";

/// The well-known label for the manager of an object.
const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The owner of an object, which determines whether it is deleted with the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Controlled by the resource: garbage-collected with it.
    Controlled,
    /// Stamped with the resource's uid: outlives it, according to the deletion policy.
    Stamped,
}

/// An object as planned, or its planned absence.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its kind.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub ownership: Ownership,
    /// The whole object, apiVersion and kind included.
    pub body: Value,
    /// Fields that are set at creation only, and owned by others afterwards, such as Patroni's
    /// annotations.
    pub at_creation: Option<Value>,
    /// Whether an object without the resource's uid may be stamped again: it is known from
    /// elsewhere that it belongs to this resource.
    pub known_to_be_ours: bool,
    /// Whether it must exist. If not, an object of this resource is removed: the setting that
    /// required it may have been removed.
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

    /// Planned to exist only under this condition.
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

    /// The object as it is sent: with its hash as an annotation.
    pub fn sealed(&self) -> (Value, String) {
        let hash = short_hash(&self.body);
        let mut body = self.body.clone();
        body["metadata"]["annotations"][ANNOTATION_APPLIED] = hash.clone().into();
        (body, hash)
    }
}

/// A short identifier of a document: the first eight bytes of its hash.
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

    /// The reference that makes the resource the controller of an object.
    pub fn reference(&self) -> Value {
        json!({
            "apiVersion": "servicedb.dev/v1alpha1",
            "kind": "ServiceDatabase",
            "name": self.names.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }

    /// Whether a live object belongs to this owner.
    pub fn owns(&self, ownership: &Ownership, live: &ObjectMeta) -> bool {
        match ownership {
            Ownership::Controlled => controller_uid(live) == Some(self.uid.as_str()),
            Ownership::Stamped => stamped_uid(live) == Some(self.uid.as_str()),
        }
    }

    /// Whether a live object for which [`Self::owns`] is false only lost its stamp. An object with
    /// a controller belongs to that controller.
    pub fn may_mark_again(&self, planned: &Planned, live: &ObjectMeta) -> bool {
        match planned.ownership {
            Ownership::Stamped => planned.known_to_be_ours,
            Ownership::Controlled => self.is_without_owner(live),
        }
    }

    /// Whether an object only lost its owner reference, by hand or because the resource was deleted
    /// with `--cascade=orphan`: it has no controller, and its labels and an annotation show that
    /// the operator created it for a resource of this name. Objects that outlive the resource have
    /// no owner reference; their stamp decides.
    pub fn is_without_owner(&self, live: &ObjectMeta) -> bool {
        let label = |key: &str| live.labels.as_ref().and_then(|labels| labels.get(key));
        let is_ours = |key: &String| key.split_once('/').is_some_and(|(group, _)| group == names::GROUP);
        controller(live).is_none()
            && stamped_uid(live).is_none()
            && label(names::LABEL_NAME) == Some(&self.names.name)
            && label(LABEL_MANAGED_BY).is_some_and(|manager| manager == names::FIELD_MANAGER)
            && live.annotations.as_ref().is_some_and(|all| all.keys().any(is_ours))
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

/// The error for a required object that belongs to another owner.
pub fn conflict(kind: &str, name: &str, live: &ObjectMeta) -> Error {
    let holder = match (controller(live), stamped_uid(live)) {
        (Some(controller), _) => format!("{} {}", controller.kind, controller.name),
        (None, Some(uid)) => format!("an earlier ServiceDatabase (uid {uid})"),
        (None, None) => "an unknown owner".to_owned(),
    };
    Error::ObjectConflict { kind: kind.to_owned(), name: name.to_owned(), holder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_without_a_controller_is_stamped_again() {
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
                "without {lost} the owner is unknown"
            );
        }
    }
}
