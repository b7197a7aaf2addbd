//! The template of the pods across versions of the operator.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PodAffinity;
use serde_json::{Value, json};

use super::fixtures::{FULL, MINIMAL, database, options};
use crate::api::names::LABEL_SCOPE;
use crate::api::{PodMetadata, UpdatePolicy};
use crate::operator::apply::object::ANNOTATION_TEMPLATE;
use crate::operator::instances::{choose, is_live};
use crate::operator::validate::Database;

fn set(template: &Value) -> StatefulSet {
    serde_json::from_value(json!({
        "metadata": {"generation": 3, "annotations": {ANNOTATION_TEMPLATE: template.to_string()}},
        "spec": {"selector": {}, "serviceName": "s", "template": template},
        "status": {"observedGeneration": 3, "replicas": 1},
    }))
    .expect("a StatefulSet")
}

/// The next version of the operator has other images.
fn updated(database: &Database) -> Database {
    Database { image: "postgres:17.99".to_owned(), ..database.clone() }
}

#[test]
fn another_version_changes_nothing_without_approval_and_reports_the_changes() {
    let database = database(MINIMAL);
    let accepted = choose(&database, &options(), None, None, false).body;
    let live = set(&accepted);
    assert!(choose(&database, &options(), Some(&live), None, false).pending.is_none());

    let chosen = choose(&updated(&database), &options(), Some(&live), None, false);
    assert_eq!(chosen.body, accepted);
    let pending = chosen.pending.expect("pending changes");
    assert_eq!(pending.changes.len(), 1, "{pending:?}");
    let change = &pending.changes[0];
    assert!(change.starts_with("spec.containers[0].image: ") && change.ends_with("-> postgres:17.99"), "{change}");

    let mut approved = database.clone();
    approved.approved_rollout = Some(pending.id.clone());
    let taken = choose(&updated(&approved), &options(), Some(&live), None, false);
    assert!(taken.pending.is_none() && taken.body != accepted);
    approved.approved_rollout = Some("another".to_owned());
    assert_eq!(
        choose(&updated(&approved), &options(), Some(&live), None, false).body,
        accepted,
        "another update was approved"
    );
    let mut automatic = database;
    automatic.update_policy = UpdatePolicy::Automatic;
    assert_eq!(choose(&updated(&automatic), &options(), Some(&live), None, false).body, taken.body);
}

#[test]
fn an_update_waits_for_a_window_or_an_approval() {
    let mut database = database(MINIMAL);
    database.update_policy = UpdatePolicy::Window;
    let live = set(&choose(&database, &options(), None, None, false).body);
    let chosen = |database: &Database, in_window| choose(&updated(database), &options(), Some(&live), None, in_window);
    let waits = chosen(&database, false);
    let id = waits.pending.clone().expect("a pending update").id;
    assert_eq!(waits.begun, None);
    let begins = chosen(&database, true);
    assert!(begins.pending.is_none() && begins.body != waits.body);
    assert_eq!(begins.begun, Some(id.clone()));
    database.approved_rollout = Some(id);
    let approved = chosen(&database, false);
    assert!(approved.pending.is_none() && approved.begun.is_none() && approved.body == begins.body);
    // With the other policies a window changes nothing.
    (database.update_policy, database.approved_rollout) = (UpdatePolicy::Manual, None);
    assert!(chosen(&database, true).pending.is_some());
}

/// While the StatefulSet is recreated with another volume size, there is none.
#[test]
fn an_update_is_not_applied_without_approval_while_there_is_no_set() {
    let database = database(MINIMAL);
    let accepted = choose(&database, &options(), None, None, false).body;
    let chosen = choose(&updated(&database), &options(), None, Some(&accepted), false);
    assert_eq!(chosen.body, accepted);
    assert!(chosen.pending.is_some());
}

#[test]
fn changes_of_the_spec_are_applied_to_the_accepted_template() {
    let before = database(MINIMAL);
    let live = set(&choose(&before, &options(), None, None, false).body);
    let mut after = before;
    after.resources.requests =
        Some([("cpu".to_owned(), serde_json::from_value(json!("2")).expect("a quantity"))].into());
    after.scheduling.priority_class_name = Some("important".to_owned());
    let id_before = choose(&updated(&database(MINIMAL)), &options(), Some(&live), None, false)
        .pending
        .expect("a pending update")
        .id;
    let chosen = choose(&updated(&after), &options(), Some(&live), None, false);
    assert_eq!(chosen.body["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    assert_eq!(chosen.body["spec"]["priorityClassName"], "important");
    assert_ne!(chosen.body["spec"]["containers"][0]["image"], "postgres:17.99");
    assert_eq!(
        chosen.pending.expect("a pending update").id,
        id_before,
        "an approval is valid after a change of the spec"
    );
}

#[test]
fn revisions_count_once_the_controller_has_observed_this_template() {
    let body = choose(&database(MINIMAL), &options(), None, None, false).body;
    let mut live = set(&body);
    assert!(is_live(&body, &live, None));
    assert!(!is_live(&json!({"other": 1}), &live, None));
    live.metadata.generation = Some(4);
    assert!(!is_live(&body, &live, None));
    live.metadata.generation = Some(3);
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 3] = [
        ("a variable", |pod| {
            pod["containers"][0]["env"].as_array_mut().expect("env").push(json!({"name": "PGTZ", "value": "UTC"}));
        }),
        ("the image", |pod| pod["containers"][0]["image"] = "postgres:1".into()),
        ("less than a unit", |pod| pod["containers"][0]["resources"]["requests"] = json!({"cpu": "1m"})),
    ];
    for (what, edit) in edits {
        let mut changed = serde_json::to_value(&live).expect("JSON");
        edit(&mut changed["spec"]["template"]["spec"]);
        let changed: StatefulSet = serde_json::from_value(changed).expect("a StatefulSet");
        assert!(!is_live(&body, &changed, None), "{what}: the revision of a changed template does not count");
        assert!(is_live(&body, &changed, Some(3)), "{what}: an admission webhook's");
        assert!(!is_live(&body, &changed, Some(2)), "{what}");
    }
}

/// A client that removed the annotation from the StatefulSet may have changed the template too.
#[test]
fn the_recorded_template_has_priority_over_an_unrecorded_one() {
    let database = database(MINIMAL);
    let accepted = choose(&database, &options(), None, None, false).body;
    let mut live = set(&accepted);
    live.metadata.annotations = None;
    live.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()).expect("a pod").containers[0].image =
        Some("postgres:1".to_owned());
    let chosen = choose(&database, &options(), Some(&live), Some(&accepted), false);
    assert_eq!((chosen.body, chosen.pending.is_none()), (accepted, true));
}

/// A team's labels are applied at once; the operator's own only after approval.
#[test]
fn labels_and_annotations_of_the_spec_are_applied_to_the_accepted_template() {
    let before = database(MINIMAL);
    let live = set(&choose(&before, &options(), None, None, false).body);
    let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let mut after = before.clone();
    after.pod_metadata = PodMetadata { labels: map("team", "games"), annotations: map("cost", "42") };
    let chosen = choose(&after, &options(), Some(&live), None, false);
    assert!(chosen.pending.is_none(), "{:?}", chosen.pending);
    let metadata = &chosen.body["metadata"];
    assert_eq!((&metadata["labels"]["team"], &metadata["annotations"]["cost"]), (&json!("games"), &json!("42")));
    assert_eq!(metadata["labels"]["servicedb.dev/scope"], "chat-db");
    let id =
        |database: &Database| choose(&updated(database), &options(), Some(&live), None, false).pending.map(|it| it.id);
    assert_eq!(id(&after), id(&before), "an approval is valid after a change of the spec");

    let live = set(&chosen.body);
    let gone = choose(&before, &options(), Some(&live), None, false).body;
    assert!(gone["metadata"]["labels"].get("team").is_none() && gone["metadata"].get("annotations").is_none());
}

/// A former version omitted the anti-affinity if a node affinity was declared, and did not change
/// spread constraints.
#[test]
fn new_defaults_for_the_declared_scheduling_wait_for_approval() {
    let database = database(FULL);
    let mut former = choose(&database, &options(), None, None, false).body;
    let spec = &mut former["spec"];
    spec["affinity"].as_object_mut().expect("an affinity").remove("podAntiAffinity").expect("ours");
    let constraint = spec["topologySpreadConstraints"][0].as_object_mut().expect("a constraint");
    assert_eq!(
        constraint.remove("labelSelector").expect("ours"),
        json!({"matchLabels": {LABEL_SCOPE: "match-maker-db"}})
    );
    let chosen = choose(&database, &options(), Some(&set(&former)), None, false);
    assert_eq!(chosen.body, former);
    let pending = chosen.pending.expect("pending changes");
    assert_eq!(pending.changes.len(), 2, "{pending:?}");
    let mut approved = database.clone();
    approved.approved_rollout = Some(pending.id);
    let taken = choose(&approved, &options(), Some(&set(&former)), None, false);
    assert!(taken.pending.is_none() && taken.body["spec"]["affinity"]["podAntiAffinity"].is_object());
    // A team's changes are applied meanwhile.
    let mut changed = database;
    changed.scheduling.affinity.as_mut().expect("an affinity").pod_affinity = Some(PodAffinity::default());
    let followed = choose(&changed, &options(), Some(&set(&former)), None, false).body;
    assert!(followed["spec"]["affinity"]["podAffinity"].is_object());
    assert!(followed["spec"]["affinity"].get("podAntiAffinity").is_none());
}
