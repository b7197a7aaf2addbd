//! The drift check: its schedule and its results.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::migrations::{MIGRATIONS, WITH_MIGRATIONS, end, finish_job};
use super::world::{World, object};
use crate::api::DriftStatus;
use crate::api::conditions as kind;
use crate::api::names::ANNOTATION_CHECK_DRIFT;
use crate::contract::migration::{DriftFound, Outcome};

const JOB: &str = "chat-db-drift";
const A_DAY: SignedDuration = SignedDuration::from_hours(24);

async fn applied() -> World {
    let mut world = World::new();
    world.create(MIGRATIONS);
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    finish_job(&mut world);
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    world
}

fn job(world: &World) -> Option<Value> {
    world.get("jobs", JOB)
}

/// Simulates the Job that ends with these differences.
fn finds(world: &World, differences: &[&str], at: &str) {
    let differences: Vec<String> = differences.iter().map(|line| (*line).to_owned()).collect();
    let found = DriftFound { count: i64::try_from(differences.len()).expect("a few"), differences };
    let outcome = Outcome { revision: "r".to_owned(), drift: Some(found), ..Outcome::default() };
    let name = format!("{JOB}-x");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"batch.kubernetes.io/job-name": JOB}},
        "status": {"containerStatuses": [{
            "name": "drift", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"terminated": {"exitCode": 0, "message": json!(outcome).to_string()}},
        }]},
    });
    // The pod of an earlier Job was deleted with it.
    if world.get("pods", &name).is_some() {
        world.api.store().edit(&object("pods", &name), |old| old["status"] = pod["status"].clone());
    } else {
        world.api.store().create(&object("pods", &name), pod, "kubelet").expect("a pod");
    }
    end(world, JOB, "Complete", at);
}

fn drift(world: &World) -> DriftStatus {
    world.resource().status.and_then(|status| status.drift).expect("the schema was checked")
}

#[tokio::test]
async fn a_schema_is_compared_a_day_after_it_reached_its_target() {
    let mut world = applied().await;
    world.pass(A_DAY - SignedDuration::from_mins(5));
    world.settle().await;
    assert!(job(&world).is_none(), "not yet");
    world.pass(SignedDuration::from_mins(10));
    world.settle().await;
    let made = job(&world).expect("a Job");
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert!(container["image"].as_str().is_some_and(|image| image.contains("postgres")), "{container}");
    assert_eq!(world.condition(kind::READY), "True Ready", "a check changes nothing");

    finds(&world, &["table public.x is not in the migrations", "index public.y is missing"], "2026-06-02T00:05:00Z");
    world.settle().await;
    assert_eq!(world.condition(kind::SCHEMA_DRIFT), "True SchemaDrifted");
    assert!(world.message(kind::SCHEMA_DRIFT).starts_with("table public.x is not in the migrations, and 1 more"));
    assert_eq!(world.condition(kind::READY), "True Ready", "it is reported, and the database serves");
    world.restart();
    assert_eq!(world.settle().await, Vec::<String>::new(), "until the next day");

    world.pass(A_DAY);
    world.settle().await;
    assert_ne!(job(&world).expect("another Job")["metadata"]["uid"], made["metadata"]["uid"]);
    finds(&world, &[], "2026-06-03T00:05:00Z");
    world.settle().await;
    assert_eq!(world.condition(kind::SCHEMA_DRIFT), "False SchemaMatches");
    assert_eq!(drift(&world).count, 0);
}

#[tokio::test]
async fn a_request_is_answered_at_once_and_by_its_token() {
    let mut world = applied().await;
    world.edit(|resource| resource["metadata"]["annotations"][ANNOTATION_CHECK_DRIFT] = "monday".into());
    world.settle().await;
    finds(&world, &[], "2026-06-01T00:01:00Z");
    world.settle().await;
    assert_eq!((drift(&world).request.as_deref(), drift(&world).count), (Some("monday"), 0));

    // The result of a Job for another request does not count for this one.
    world.edit(|resource| resource["metadata"]["annotations"][ANNOTATION_CHECK_DRIFT] = "tuesday".into());
    world.settle().await;
    assert_eq!(drift(&world).request.as_deref(), Some("monday"));
    finds(&world, &["table public.x is missing"], "2026-06-01T00:02:00Z");
    world.settle().await;
    assert_eq!((drift(&world).request.as_deref(), drift(&world).count), (Some("tuesday"), 1));
}

#[tokio::test]
async fn a_schema_below_its_target_is_not_compared() {
    let mut world = World::new();
    world.create(MIGRATIONS);
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    world.edit(|resource| resource["metadata"]["annotations"][ANNOTATION_CHECK_DRIFT] = "monday".into());
    world.pass(A_DAY + A_DAY);
    world.settle().await;
    assert!(job(&world).is_none());
}
