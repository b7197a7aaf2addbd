//! The template of the pods across versions of the operator.

use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::fixtures::{MINIMAL, database, options};
use crate::api::UpdatePolicy;
use crate::operator::apply::object::ANNOTATION_TEMPLATE;
use crate::operator::instances::{choose, is_live};
use crate::operator::validate::Database;

fn set(template: &Value) -> StatefulSet {
    serde_json::from_value(json!({
        "metadata": {"generation": 3, "annotations": {ANNOTATION_TEMPLATE: template.to_string()}},
        "spec": {"selector": {}, "serviceName": "s", "template": {"metadata": {}}},
        "status": {"observedGeneration": 3, "replicas": 1},
    }))
    .expect("a StatefulSet")
}

/// The next version of the operator has other images.
fn updated(database: &Database) -> Database {
    Database { image: "postgres:17.99".to_owned(), ..database.clone() }
}

#[test]
fn another_version_changes_nothing_by_itself_and_says_what_it_would() {
    let database = database(MINIMAL);
    let accepted = choose(&database, &options(), None, None).body;
    let live = set(&accepted);
    assert!(choose(&database, &options(), Some(&live), None).pending.is_none());

    let chosen = choose(&updated(&database), &options(), Some(&live), None);
    assert_eq!(chosen.body, accepted);
    let pending = chosen.pending.expect("something that waits");
    assert_eq!(pending.changes.len(), 1, "{pending:?}");
    let change = &pending.changes[0];
    assert!(change.starts_with("spec.containers[0].image: ") && change.ends_with("-> postgres:17.99"), "{change}");

    let mut approved = database.clone();
    approved.approved_rollout = Some(pending.id.clone());
    let taken = choose(&updated(&approved), &options(), Some(&live), None);
    assert!(taken.pending.is_none() && taken.body != accepted);
    approved.approved_rollout = Some("another".to_owned());
    assert_eq!(
        choose(&updated(&approved), &options(), Some(&live), None).body,
        accepted,
        "another update was approved"
    );
    let mut automatic = database;
    automatic.update_policy = UpdatePolicy::Automatic;
    assert_eq!(choose(&updated(&automatic), &options(), Some(&live), None).body, taken.body);
}

/// While the StatefulSet is made anew with another volume size there is none.
#[test]
fn an_update_does_not_slip_in_while_there_is_no_set() {
    let database = database(MINIMAL);
    let accepted = choose(&database, &options(), None, None).body;
    let chosen = choose(&updated(&database), &options(), None, Some(&accepted));
    assert_eq!(chosen.body, accepted);
    assert!(chosen.pending.is_some());
}

#[test]
fn what_spec_says_of_the_pods_is_followed_in_the_accepted_template() {
    let before = database(MINIMAL);
    let live = set(&choose(&before, &options(), None, None).body);
    let mut after = before;
    after.resources.requests =
        Some([("cpu".to_owned(), serde_json::from_value(json!("2")).expect("a quantity"))].into());
    after.scheduling.priority_class_name = Some("important".to_owned());
    let id_before =
        choose(&updated(&database(MINIMAL)), &options(), Some(&live), None).pending.expect("a pending update").id;
    let chosen = choose(&updated(&after), &options(), Some(&live), None);
    assert_eq!(chosen.body["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    assert_eq!(chosen.body["spec"]["priorityClassName"], "important");
    assert_ne!(chosen.body["spec"]["containers"][0]["image"], "postgres:17.99");
    assert_eq!(chosen.pending.expect("a pending update").id, id_before, "an approval outlives a change of spec");
}

#[test]
fn revisions_count_once_the_controller_has_seen_this_template() {
    let body = choose(&database(MINIMAL), &options(), None, None).body;
    let mut live = set(&body);
    assert!(is_live(&body, &live));
    assert!(!is_live(&json!({"other": 1}), &live));
    live.metadata.generation = Some(4);
    assert!(!is_live(&body, &live));
}
