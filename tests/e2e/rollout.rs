//! Replacement of pods: after a change of spec one after another, by another version of the
//! operator, or another image, only after approval.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{
    NOTES, Operator, READY, SOON, Sandbox, Writer, alone, column, condition, config_map, database, is_ready, plugin,
    run, shared, then_restore, until,
};

async fn uids(sandbox: &Sandbox) -> Vec<Option<String>> {
    sandbox.pods("shop").await.iter().map(ResourceExt::uid).collect()
}

fn cpu(pod: &Pod) -> Option<String> {
    let resources = pod.spec.as_ref()?.containers.first()?.resources.as_ref()?;
    Some(resources.requests.as_ref()?.get("cpu")?.0.clone())
}

#[test]
fn changed_resources_come_to_one_instance_after_another() {
    shared("rolling", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 3, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(10).await;

        let (before, old) = (sandbox.primary("shop").await, uids(&sandbox).await);
        let resources = json!({"spec": {"resources": {"requests": {"cpu": "30m"}}}});
        sandbox.patch::<ServiceDatabase>("shop", &resources).await;
        sandbox.condition("shop", "Ready", "False", "RollingOut", SOON).await;
        until("all have the new template, and never two are away", 2 * READY, || async {
            let found = sandbox.pods("shop").await;
            let missing = (0..3).map(|ordinal| format!("shop-db-{ordinal}"));
            let mut away: Vec<_> = missing.filter(|name| found.iter().all(|pod| pod.name_any() != *name)).collect();
            away.extend(found.iter().filter(|pod| is_away(pod, &old)).map(describe));
            assert!(away.len() <= 1, "more than one instance is away: {}", away.join("; "));
            // The primary that was is the last.
            let is_new = |pod: &Pod| cpu(pod).as_deref() == Some("30m");
            let news = found.iter().filter(|pod| is_new(pod)).count();
            let of_primary = found.iter().find(|pod| pod.name_any() == before).is_some_and(is_new);
            assert!(!of_primary || news == 3, "the primary was replaced before the others");
            if news == 3 && away.is_empty() { Ok(()) } else { Err(format!("{news} are new, away: {away:?}")) }
        })
        .await;
        let ready = sandbox.ready("shop", READY).await;
        assert_ne!(ready.status.and_then(|status| status.primary), Some(before));
        writer.goes_on(10).await;
        writer.all_are_there(&sandbox, "shop").await;
    });
}

/// A pod's name, with why it is away.
fn describe(pod: &Pod) -> String {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").map(|condition| {
        let since = condition.last_transition_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        format!("{} since {since}", condition.reason.as_deref().unwrap_or_default())
    });
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| format!("deleted {}", time.0));
    let created = pod.creation_timestamp().map(|time| format!("created {}", time.0));
    let why: Vec<_> = created.into_iter().chain(deleted).chain(ready).collect();
    format!("{} ({})", pod.name_any(), why.join(", "))
}

/// Whether a pod is terminating, or does not serve yet. One from before the rollout whose probes fail, as on a machine
/// that stalls, was not taken away by it.
fn is_away(pod: &Pod, old: &[Option<String>]) -> bool {
    pod.metadata.deletion_timestamp.is_some() || !is_ready(pod) && !old.contains(&pod.uid())
}

/// An unschedulable pod does not block its own correction.
#[test]
fn a_mistake_in_resources_is_told_and_its_correction_followed() {
    shared("mistake", async |sandbox| {
        sandbox.create(database("shop", json!({"instances": 2}))).await;
        sandbox.ready("shop", READY).await;
        let ask = |cpu: &str| json!({"spec": {"resources": {"requests": {"cpu": cpu}}}});
        sandbox.patch::<ServiceDatabase>("shop", &ask("1000")).await;
        until("the unschedulable pod is reported", READY, || async {
            let found = sandbox.get("shop").await;
            let ready = condition(&found, "Ready").cloned().expect("a condition");
            let told = ready.reason == "RollingOut" && ready.message.contains("cannot be scheduled");
            if told { Ok(()) } else { Err(ready.message) }
        })
        .await;
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "DatabaseAvailable").expect("a condition").status, "True");
        sandbox.patch::<ServiceDatabase>("shop", &ask("30m")).await;
        sandbox.ready("shop", READY).await;
        assert!(sandbox.pods("shop").await.iter().all(|pod| cpu(pod).as_deref() == Some("30m")));
    });
}

/// Another version of the operator, or another of its settings, would make other pods.
#[test]
fn another_operator_changes_no_pod_until_somebody_says_so() {
    alone("pending", async |sandbox| {
        sandbox.create(database("shop", json!({"instances": 2}))).await;
        sandbox.ready("shop", READY).await;
        let before = uids(&sandbox).await;
        let operator = Operator::of(sandbox.cluster);
        let setting = "SERVICEDB_IMAGE_PULL_SECRETS";
        let work = async {
            operator.set(setting, "of-another-version").await;
            let told = sandbox.condition("shop", "RolloutPending", "True", "ApprovalPending", SOON).await;
            assert!(told.message.contains("imagePullSecrets"), "{}", told.message);
            let ready = sandbox.ready("shop", SOON).await;
            assert_eq!(uids(&sandbox).await, before, "a pod was made anew, and nobody had said so");
            assert_eq!(ready.status.and_then(|status| status.rollout).map(|rollout| rollout.changes.len()), Some(1));

            // What spec asks for is done in the template that was accepted.
            sandbox
                .patch::<ServiceDatabase>("shop", &json!({"spec": {"resources": {"requests": {"cpu": "30m"}}}}))
                .await;
            sandbox.condition("shop", "Ready", "False", "RollingOut", SOON).await;
            sandbox.ready("shop", READY).await;
            let secrets = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.clone());
            assert!(sandbox.pods("shop").await.iter().all(|pod| secrets(pod).is_none()));

            let refused = plugin(&sandbox, &["rollout", "shop"]).await;
            assert!(!refused.status.success(), "nobody said yes");
            let approved = plugin(&sandbox, &["rollout", "shop", "--yes"]).await;
            let said = String::from_utf8_lossy(&approved.stdout).into_owned();
            assert!(approved.status.success() && said.contains("imagePullSecrets"), "{said}");
            until("the pods are those of this operator", READY, || async {
                let all = sandbox.pods("shop").await.iter().filter(|pod| secrets(pod).is_some()).count();
                if all == 2 { Ok(()) } else { Err(format!("{all} of 2")) }
            })
            .await;
            sandbox.ready("shop", READY).await;
            sandbox.condition("shop", "RolloutPending", "False", "UpToDate", SOON).await;
        };
        then_restore(work, operator.unset(setting)).await;
    });
}

/// A database that was made by an image on another release of Debian (dev/test-image.sh builds it),
/// with other versions of glibc, ICU, PostgreSQL's minor version and Patroni.
#[test]
#[ignore = "needs an image that takes minutes to build: make test-image"]
fn a_database_moves_to_an_image_with_another_base() {
    alone("base", async |sandbox| {
        let operator = Operator::of(sandbox.cluster);
        let images = "SERVICEDB_POSTGRES_IMAGES";
        let present = operator.setting(images).await.expect("the images");
        let former = std::env::var("FORMER_IMAGE").expect("FORMER_IMAGE names the image");
        let work = async {
            operator.set(images, &format!("17={former}")).await;
            let extensions = json!([{"name": "pg_trgm"}, {"name": "citext"}]);
            let spec = json!({"instances": 2, "postgres": {"version": "17", "extensions": extensions}});
            sandbox.create(database("shop", spec)).await;
            sandbox.ready("shop", READY).await;
            let connection = sandbox.connect("shop").await;
            let fill = "CREATE TABLE words (word text, german text COLLATE \"de-x-icu\", english text COLLATE \"en_US.utf8\"); \
                        INSERT INTO words SELECT word, word, word FROM (SELECT chr(32 + n % 500) || md5(n::text) AS word \
                        FROM generate_series(1, 5000) AS n) AS made; \
                        CREATE INDEX by_word ON words (word); CREATE INDEX by_german ON words (german); \
                        CREATE INDEX by_english ON words (english); CREATE INDEX alike ON words USING gin (word gin_trgm_ops)";
            run(&connection, fill).await.expect("the application's schema");
            let content = "SELECT md5(string_agg(word, ',' ORDER BY word)) FROM words \
                           UNION ALL SELECT string_agg(extname || ' ' || extversion, ',' ORDER BY extname) FROM pg_extension \
                           UNION ALL SELECT count(*)::text FROM words WHERE word LIKE '%c4ca%'";
            let before = column(&connection, content).await.expect("a query");
            // The server's package is the same, and the library below it is not.
            let version = "SELECT pg_collation_actual_version(oid) FROM pg_collation WHERE collname = 'en_US.utf8'";
            let old = column(&connection, version).await.expect("a query");
            drop(connection);

            operator.set(images, &present).await;
            sandbox.condition("shop", "RolloutPending", "True", "ApprovalPending", SOON).await;
            let approved = plugin(&sandbox, &["rollout", "shop", "--yes"]).await;
            assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
            let image = present.split(',').find_map(|image| image.strip_prefix("17=")).expect("the image of 17");
            until("the pods have the image", READY, || async {
                let has = |pod: &Pod| {
                    pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some(image))
                };
                let pods = sandbox.pods("shop").await.iter().filter(|pod| has(pod)).count();
                if pods == 2 { Ok(()) } else { Err(format!("{pods} of 2")) }
            })
            .await;
            sandbox.ready("shop", READY).await;
            let connection = sandbox.connect("shop").await;
            assert_eq!(column(&connection, content).await.expect("a query"), before, "data, order and extensions");
            assert_ne!(column(&connection, version).await.expect("a query"), old, "the base is another release");
            // The indexes of collations that the base provides are named; those of the default, and of ICU, which comes with
            // the server, are not.
            let told = sandbox.condition("shop", "CollationsChanged", "True", "CollationVersionChanged", SOON).await;
            assert!(told.message.contains("by_english"), "{}", told.message);
            assert!(!["by_word", "by_german"].iter().any(|index| told.message.contains(index)), "{}", told.message);
        };
        then_restore(work, operator.set(images, &present)).await;
    });
}
