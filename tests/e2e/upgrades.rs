//! PostgreSQL 18, and major upgrades from 17 with the way back.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use servicedb::api::{RequestState, ServiceDatabase, UpgradePhase};

use crate::archive::archive_a_segment;
use crate::harness::{
    Cluster, Load, Operator, READY, SOON, Sandbox, Writer, alone, column, database, plugin, pooler_address, restarts,
    run, shared, store, until, with_notes,
};

/// Runs the plugin, which must succeed; returns what it said.
async fn ask(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = plugin(sandbox, arguments).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Waits until both instances serve, with this major version.
async fn whole(sandbox: &Sandbox, version: &str) {
    until(&format!("both instances serve with {version}"), READY, || async {
        let status = sandbox.get("shop").await.status.unwrap_or_default();
        let synchronous =
            status.conditions.iter().any(|it| it.type_ == "SynchronousReplication" && it.status == "True");
        match (status.instances.as_deref(), status.postgres_version.as_deref()) {
            (Some("2/2"), Some(found)) if synchronous && found.starts_with(version) => Ok(()),
            other => Err(format!("{other:?}, synchronous: {synchronous}")),
        }
    })
    .await;
}

async fn phase_is(sandbox: &Sandbox, wanted: &[UpgradePhase]) {
    until(&format!("the upgrade is {wanted:?}"), READY, || async {
        match sandbox.get("shop").await.status.and_then(|status| status.upgrade) {
            Some(upgrade) if wanted.contains(&upgrade.phase) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn rows(sandbox: &Sandbox, statement: &str) -> Vec<String> {
    let connection = sandbox.connect("shop").await;
    column(&connection, statement).await.expect("rows")
}

/// Statements of the owner on the primary.
async fn as_owner(sandbox: &Sandbox, statement: &str) {
    let command = format!("psql -XqAtd shop_db -v ON_ERROR_STOP=1 -c 'SET ROLE shop_db_owner' -c \"{statement}\"");
    let output = sandbox.exec(&sandbox.primary("shop").await, &command).await;
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A table that could not be changed after the upgrade stops it, until it has another replica identity.
async fn a_published_table_stops_it(sandbox: &Sandbox) {
    as_owner(sandbox, "ALTER TABLE sale REPLICA IDENTITY FULL").await;
    archive_a_segment(sandbox, &sandbox.primary("shop").await).await;
    let output = plugin(sandbox, &["upgrade", "shop", "--check"]).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("refuse every UPDATE and DELETE of public.sale, because"), "{said}");
    phase_is(sandbox, &[UpgradePhase::Failed]).await;
    whole(sandbox, "17.").await;
    as_owner(sandbox, "UPDATE sale SET net = net + 1").await;
    as_owner(sandbox, "ALTER TABLE sale REPLICA IDENTITY DEFAULT").await;
    archive_a_segment(sandbox, &sandbox.primary("shop").await).await;
}

/// The label of the newest full backup.
async fn newest_full(sandbox: &Sandbox) -> Option<String> {
    sandbox.get("shop").await.status?.backup?.newest_full.map(|full| full.label)
}

/// The timelines in the store: those of its segments, and of its histories.
async fn timelines(sandbox: &Sandbox) -> BTreeSet<String> {
    let list = "pgbackrest --config=/run/servicedb/archive/pgbackrest.conf repo-ls --recurse archive/db";
    let output = sandbox.exec(&sandbox.primary("shop").await, list).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let timeline = |line: &str| {
        let name = line.rsplit('/').next()?;
        let is_of_one = name.ends_with(".history") || name.as_bytes().get(24) == Some(&b'-');
        name.get(..8).filter(|_| is_of_one).map(str::to_owned)
    };
    let found: BTreeSet<_> = text.lines().filter_map(timeline).collect();
    assert!(!found.is_empty(), "{text}");
    found
}

/// Ends the pod of the Job that rehearses, as a drain does.
async fn end_rehearsal(sandbox: &Sandbox) {
    let pods = sandbox.api::<Pod>();
    let of_rehearsal = ListParams::default().labels("app.kubernetes.io/component=rehearsal");
    until("the rehearsal has a pod", READY, || async {
        let found = pods.list(&of_rehearsal).await.map_err(|error| error.to_string())?.items;
        let pod = found.first().ok_or_else(|| "none".to_owned())?;
        let deleted = pods.delete(&pod.name_any(), &DeleteParams::default()).await;
        deleted.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// A client that writes a row every 20 ms, and logs in again when it cannot.
struct Client {
    longest: Arc<Mutex<Duration>>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    fn start(sandbox: &Arc<Sandbox>) -> Self {
        let (sandbox, longest) = (sandbox.clone(), Arc::new(Mutex::new(Duration::ZERO)));
        let found = longest.clone();
        let task = tokio::spawn(async move {
            let credentials = sandbox.credentials("shop").await;
            let (mut last, mut id) = (Instant::now(), 0);
            loop {
                let Ok(connection) = sandbox.login("shop", &credentials).await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                loop {
                    id -= 1;
                    let insert = format!("INSERT INTO notes VALUES ({id}, 'x')");
                    let written = run(&connection, &insert);
                    let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), written).await else { break };
                    {
                        let mut longest = found.lock().expect("the longest");
                        *longest = longest.max(last.elapsed());
                    }
                    last = Instant::now();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self { longest, task }
    }

    /// The longest time without a row since the last call.
    fn longest(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().expect("the longest"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[test]
fn a_new_database_is_of_18_and_fails_over_migrates_and_is_backed_up() {
    let _store = Cluster::is_local().then(store::used);
    shared("eighteen", async |sandbox: Arc<Sandbox>| {
        let backup =
            if Cluster::is_local() { json!({"store": "main", "schedule": {"verification": ""}}) } else { json!({}) };
        with_notes(&sandbox, json!({"instances": 2, "backup": backup, "postgres": {"version": null}})).await;
        whole(&sandbox, "18.").await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        ask(&sandbox, &["switchover", "shop"]).await;
        writer.goes_on(20).await;
        whole(&sandbox, "18.").await;
        writer.all_are_there(&sandbox, "shop").await;
        if Cluster::is_local() {
            sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        }
        let drift = ask(&sandbox, &["drift", "shop"]).await;
        println!("{drift}");
        // Down is refused, and an absent field asks for nothing.
        let down = json!({"spec": {"postgres": {"version": "17"}}});
        let api = sandbox.api::<ServiceDatabase>();
        let refused = api.patch("shop", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&down)).await;
        let refused = refused.expect_err("18 to 17").to_string();
        assert!(refused.contains("dump the database"), "{refused}");
    });
}

#[test]
fn a_database_is_upgraded_and_taken_back() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    let _restarts = restarts::excluded();
    shared("upgraded", async |sandbox: Arc<Sandbox>| {
        let pooler =
            json!({"instances": 1, "poolSize": 8, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
        let postgres = json!({"version": "17", "extensions": [{"name": "vector"}]});
        let backup = json!({"store": "main", "schedule": {"verification": ""}});
        let spec = json!({
            "instances": 2, "storage": {"size": "1Gi"}, "postgres": postgres, "backup": backup, "pooler": pooler
        });
        with_notes(&sandbox, spec).await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        whole(&sandbox, "17.").await;
        let before_restore = newest_full(&sandbox).await;
        // What a restore in place has left is known by its timeline, and an upgraded database begins with the first.
        let moment = Timestamp::now();
        rows(&sandbox, "INSERT INTO notes VALUES (1000000002, 'before the restore') RETURNING id::text").await;
        ask(&sandbox, &["restore", "shop", "--to", &moment.to_string(), "--yes"]).await;
        assert!(rows(&sandbox, "SELECT id::text FROM notes WHERE id > 1000000000").await.is_empty());
        until("a full backup of the restored state", READY * 2, || async {
            let now = newest_full(&sandbox).await;
            if now.is_some() && now != before_restore { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        whole(&sandbox, "17.").await;
        // A function that PostgreSQL evaluates while it restores the schema.
        let made = "psql -XAtd shop_db -v ON_ERROR_STOP=1 -c 'SET ROLE shop_db_owner' \
             -c \"CREATE FUNCTION doubled(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 2 * n; END'\" \
             -c 'CREATE TABLE computed (n int, twice int GENERATED ALWAYS AS (n + doubled(1)) STORED)' \
             -c 'CREATE TABLE embedded (at vector(3))' -c 'CREATE INDEX ON embedded USING hnsw (at vector_l2_ops)' \
             -c \"INSERT INTO embedded SELECT ARRAY[n, 0, 0]::vector FROM generate_series(1, 100) n\" \
             -c 'CREATE TABLE sale (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (net * 2) STORED)' \
             -c 'CREATE PUBLICATION sales FOR TABLE sale' -c 'INSERT INTO sale VALUES (1, 10)' \
             -c 'CREATE TABLE article (body text, words tsvector)' \
             -c 'CREATE TABLE sorted (word text COLLATE \"de-x-icu\")' -c 'CREATE INDEX sorted_word ON sorted (word)'";
        let made = sandbox.exec(&sandbox.primary("shop").await, made).await;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // The new server's ICU may order otherwise than the one that the index was built with.
        let orders = "SELECT collversion || ' ' || (collversion = pg_collation_actual_version(oid))::text
                      FROM pg_collation WHERE collname = 'de-x-icu'";
        let order = rows(&sandbox, orders).await;
        assert!(order[0].ends_with(" true"), "{order:?}");
        let first = newest_full(&sandbox).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(50).await;

        // The field alone changes nothing.
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"version": "18"}}})).await;
        phase_is(&sandbox, &[UpgradePhase::Pending]).await;
        archive_a_segment(&sandbox, &sandbox.primary("shop").await).await;
        let before = timelines(&sandbox).await;
        ask(&sandbox, &["upgrade", "shop", "--check", "--timeout", "0"]).await;
        end_rehearsal(&sandbox).await;
        let rehearsed = until("the rehearsal is repeated and ends", READY * 2, || async {
            let upgrade = sandbox.get("shop").await.status.and_then(|status| status.upgrade);
            let last = upgrade.as_ref().and_then(|upgrade| upgrade.last_request.as_ref());
            match last.map(|last| last.state) {
                Some(RequestState::Done) => Ok(*upgrade.expect("an upgrade")),
                _ => Err(format!("{upgrade:?}")),
            }
        })
        .await;
        println!("{rehearsed:?}");
        let said = rehearsed.message.unwrap_or_default();
        assert!(said.contains("was restored, and upgraded to PostgreSQL 18 in"), "{said}");
        assert!(said.contains("update every row with a stored tsvector (public.article)"), "{said}");
        let backup = rehearsed.rehearsed_backup.unwrap_or_default();
        assert!(first.as_ref().is_some_and(|full| backup.starts_with(full.as_str())), "{first:?}, then {backup}");
        let (outage, whole_job) = (rehearsed.rehearsal_seconds, rehearsed.rehearsal_job_seconds);
        assert!(outage > Some(0) && outage <= whole_job, "{outage:?} of {whole_job:?}");
        // Recovery has given the clone a timeline of its own.
        assert_eq!(timelines(&sandbox).await, before, "the clone archives nothing");
        a_published_table_stops_it(&sandbox).await;
        whole(&sandbox, "17.").await;
        assert!(!writer.broke(), "the rehearsal has cut the writer");

        let (address, host) = pooler_address(&sandbox).await;
        let load = Load::start(address, &host, &sandbox.credentials("shop").await, 4);
        load.goes_on(20).await;
        let client = Client::start(&sandbox);
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!("the longest time without a row before: {:?}", client.longest());
        let said = ask(&sandbox, &["upgrade", "shop", "--yes"]).await;
        println!("{said}");
        whole(&sandbox, "18.").await;
        writer.goes_on(20).await;
        println!("the longest time without a row: {:?}", client.longest());
        drop(client);
        // Through the pooler nothing has failed: it held the queries.
        load.goes_on(20).await;
        let found = load.stop().await;
        println!("through the pooler: {} rows, longest {:?}", found.acknowledged.len(), found.longest);
        assert!(found.unexpected().is_empty(), "{:?}", found.failures);
        found.is_stored(&sandbox, "shop").await;
        let hold = sandbox.get("shop").await.status.and_then(|status| status.pooler?.last_hold).expect("a hold");
        assert!(hold.held && hold.change.starts_with("upgrade of"), "{hold:?}");
        writer.all_are_there(&sandbox, "shop").await;
        let function = "SELECT prosecdef::text || provolatile::text || coalesce(proconfig::text, '') FROM pg_proc
                        WHERE proname = 'doubled'";
        assert_eq!(rows(&sandbox, function).await, ["falsei"], "as it was before");
        let now = rows(&sandbox, orders).await;
        println!("the order of the index: {order:?}, then {now:?}");
        assert_eq!(order[0].split(' ').next(), now[0].split(' ').next(), "the version that the index was built with");
        if now[0].ends_with(" false") {
            let told = sandbox.condition("shop", "CollationsChanged", "True", "CollationVersionChanged", SOON).await;
            assert!(told.message.contains("public.sorted_word"), "{}", told.message);
        }
        as_owner(&sandbox, "UPDATE sale SET net = net + 1").await;
        let nearest = "SELECT at::text FROM embedded ORDER BY at <-> '[42.2, 0, 0]' LIMIT 1";
        assert_eq!(rows(&sandbox, nearest).await, ["[42,0,0]"], "an index of an extension's own kind");
        let version = rows(&sandbox, "SELECT split_part(version(), ' ', 2)").await;
        assert!(version[0].starts_with("18."), "{version:?}");
        until("a full backup of the new version", READY * 2, || async {
            let now = newest_full(&sandbox).await;
            if now.is_some() && now != first { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        sandbox.condition("shop", "ContinuousArchiving", "True", "Archiving", SOON).await;

        // What is written from here on is lost by the way back, and nothing else.
        let before = rows(&sandbox, "SELECT count(*)::text FROM notes WHERE id < 1000000000").await;
        let connection = sandbox.connect("shop").await;
        run(&connection, "INSERT INTO notes VALUES (1000000001, 'after the upgrade')").await.expect("a row");
        drop(connection);
        let upgraded_then = Timestamp::now();
        let kept = sandbox.get("shop").await.status.and_then(|status| status.upgrade?.kept_by).expect("a way back");
        if kept != sandbox.primary("shop").await {
            // A busy machine may have had a failover meanwhile.
            ask(&sandbox, &["switchover", "shop", "--to", &kept]).await;
        }
        let said = ask(&sandbox, &["upgrade", "shop", "--back", "--yes"]).await;
        assert!(said.contains("is LOST"), "{said}");
        whole(&sandbox, "17.").await;
        let after = rows(&sandbox, "SELECT count(*)::text FROM notes WHERE id < 1000000000").await;
        println!("rows before and after the way back: {before:?} {after:?}");
        assert!(rows(&sandbox, "SELECT id::text FROM notes WHERE id > 1000000000").await.is_empty());
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"version": null}}})).await;
        sandbox.ready("shop", READY).await;
        the_time_in_between_is_refused(&sandbox, upgraded_then).await;
    });
}

/// A state of the upgraded database is none of the present one: it is refused, and no window of the present one has it.
async fn the_time_in_between_is_refused(sandbox: &Sandbox, time: Timestamp) {
    let backup = sandbox.get("shop").await.status.and_then(|status| status.backup).expect("backups");
    let left: Vec<_> = backup.left_databases.iter().map(|left| (left.from, left.to)).collect();
    assert_eq!(left, [(Some(17), 18), (Some(18), 17)]);
    let has_it = |until: Timestamp, from: Timestamp| from <= time && time <= until;
    for window in &backup.windows {
        let until = window.until.as_ref().map_or_else(Timestamp::now, |until| until.0);
        assert!(window.postgres_major == Some(18) || !has_it(until, window.from.0), "{time}: {:?}", backup.windows);
    }
    let output = plugin(sandbox, &["restore", "shop", "--to", &time.to_string(), "--yes"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("was of PostgreSQL 18"), "{said}");
}

/// Waits for the end of an upgrade whose pod was killed. The exchange has a time limit, from two minutes on, within which a
/// busy machine may not bring the pod back: then nothing was changed, and the upgrade is requested once more.
async fn upgraded_in_the_end(sandbox: &Sandbox) {
    let is_repeated = Cell::new(false);
    until("the upgrade is made", READY * 4, || async {
        let upgrade = sandbox.get("shop").await.status.and_then(|status| status.upgrade);
        let phase = upgrade.as_ref().map(|upgrade| upgrade.phase);
        if phase == Some(UpgradePhase::Upgraded) {
            return Ok(());
        }
        if phase == Some(UpgradePhase::Failed) && !is_repeated.replace(true) {
            println!("{upgrade:?}");
            sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"paused": false}})).await;
            whole(sandbox, "17.").await;
            ask(sandbox, &["upgrade", "shop", "--yes", "--timeout", "0"]).await;
        }
        Err(format!("{upgrade:?}"))
    })
    .await;
}

/// Deletes the resource, whose data is retained, and has another one adopt it, which knows the upgrade and the way back.
async fn adopted(sandbox: &Sandbox, kept: &str) {
    sandbox.delete::<ServiceDatabase>("shop").await;
    sandbox.gone("shop", READY).await;
    let spec = json!({
        "instances": 2, "storage": {"size": "1Gi"}, "postgres": {"version": "18"}, "backup": {"enabled": false},
        "migrations": {"source": {"configMap": {"name": "migrations"}}}, "bootstrap": {"adopt": true},
    });
    sandbox.create(database("shop", spec)).await;
    whole(sandbox, "18.").await;
    until("the last upgrade is known", SOON, || async {
        match sandbox.get("shop").await.status.and_then(|status| status.upgrade) {
            Some(upgrade)
                if upgrade.phase == UpgradePhase::Upgraded
                    && (upgrade.from, upgrade.to) == (17, 18)
                    && upgrade.kept_by.as_deref() == Some(kept) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The operator and the primary's pod are killed in each stage: the upgrade ends, and nothing is lost.
#[test]
fn an_upgrade_survives_the_end_of_the_operator_and_of_the_primary() {
    alone("upgrade-killed", async |sandbox: Arc<Sandbox>| {
        let spec = json!({"instances": 2, "storage": {"size": "1Gi"}, "postgres": {"version": "17"}, "backup": {"enabled": false}});
        with_notes(&sandbox, spec).await;
        whole(&sandbox, "17.").await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        let operator = Operator::of(sandbox.cluster);
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"version": "18"}}})).await;
        phase_is(&sandbox, &[UpgradePhase::Pending]).await;
        ask(&sandbox, &["upgrade", "shop", "--yes", "--timeout", "0"]).await;
        let after = |phase: &'static [UpgradePhase]| {
            let sandbox = sandbox.clone();
            async move { phase_is(&sandbox, phase).await }
        };
        after(&[UpgradePhase::Rehearsing]).await;
        operator.delete_pods(true).await;
        after(&[UpgradePhase::Stopping, UpgradePhase::Switching, UpgradePhase::Upgraded]).await;
        // Nothing is left half done by it.
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"paused": true}})).await;
        operator.delete_pods(true).await;
        after(&[UpgradePhase::Switching, UpgradePhase::Upgraded]).await;
        operator.delete_pods(true).await;
        let primary = sandbox.get("shop").await.status.and_then(|status| status.primary).unwrap_or_default();
        let kill = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = sandbox.api::<Pod>().delete(&primary, &kill).await;
        upgraded_in_the_end(&sandbox).await;
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"paused": false}})).await;
        whole(&sandbox, "18.").await;
        writer.goes_on(20).await;
        writer.all_are_there(&sandbox, "shop").await;
        let kept = sandbox.get("shop").await.status.and_then(|status| status.upgrade?.kept_by).expect("a pod");
        adopted(&sandbox, &kept).await;
        ask(&sandbox, &["upgrade", "shop", "--finish", "--yes"]).await;
        until("the former data is removed", SOON, || async {
            let found = sandbox.exec(&kept, "ls /var/lib/postgresql/data").await;
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            if found.contains("pgdata.former") { Err(found) } else { Ok(()) }
        })
        .await;
    });
}
