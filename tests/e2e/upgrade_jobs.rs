//! `pg_cron` and `pg_partman` in a clone, where jobs rest, and in an upgrade, after which they run, and in whose clone
//! none does. The upgrade is requested while a backup runs, and waits for it.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use servicedb::api::names::{ANNOTATION_UPGRADE, ANNOTATION_UPGRADE_ACTION};
use servicedb::api::{JobRun, RequestState, ServiceDatabase, UpgradePhase};

use crate::harness::{Cluster, READY, SOON, Sandbox, database, plugin, restarts, shared, store, until};

/// A job each second, and one that keeps the partitions of a table.
const JOBS: &str = "\
    CREATE TABLE events (at timestamptz NOT NULL) PARTITION BY RANGE (at); \
    SELECT partman.create_parent(p_parent_table := 'public.events', p_control := 'at', p_interval := '1 day'); \
    CREATE TABLE ticks (who text DEFAULT session_user, at timestamptz DEFAULT clock_timestamp()); \
    SELECT cron.schedule('tick', '1 second', 'INSERT INTO public.ticks DEFAULT VALUES'); \
    SELECT cron.schedule('partitions', '5 seconds', 'CALL partman.run_maintenance_proc()')";
const LISTED: &str =
    "SELECT string_agg(concat_ws(' ', jobname, active, username, database), '; ' ORDER BY jobname) FROM cron.job";
/// Counts the servers and the schedulers of a pod until a file is there; prints the most at once, each time that it grows.
const PROCESSES: &str = r"
python3 - <<'END'
import glob, os, time
most = [0, 0]
while not os.path.exists('/tmp/rehearsed'):
    found = [0, 0]
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            title = open(path, 'rb').read()
        except OSError:
            continue
        if title.startswith(b'postgres:'):
            found[0] += b'checkpointer' in title
            found[1] += b'pg_cron launcher' in title
    before, most = most, [max(pair) for pair in zip(most, found)]
    if most != before:
        print(*most, flush=True)
    time.sleep(0.05)
END
";

fn extensions() -> Value {
    json!({"version": "17", "extensions": [{"name": "pg_partman", "schema": "partman"}, {"name": "pg_cron"}]})
}

/// Runs the plugin, which must succeed; returns what it said.
async fn ask(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = plugin(sandbox, arguments).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Statements as the owner; the output, or the error.
async fn try_as_owner(sandbox: &Sandbox, name: &str, sql: &str) -> Result<String, String> {
    let output = plugin(sandbox, &["psql", name, "--", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

async fn as_owner(sandbox: &Sandbox, name: &str, sql: &str) -> String {
    try_as_owner(sandbox, name, sql).await.unwrap_or_else(|error| panic!("{name}: {sql}: {error}"))
}

/// A query of the superuser.
async fn as_superuser(sandbox: &Sandbox, name: &str, sql: &str) -> String {
    let output = sandbox.exec(&format!("{name}-db-0"), &format!("psql -XqAtd {name}_db -c \"{sql}\"")).await;
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The number of runs of the job each second.
async fn ticks(sandbox: &Sandbox, name: &str) -> Result<u64, String> {
    let found = try_as_owner(sandbox, name, "SELECT count(*) FROM ticks").await?;
    found.parse().map_err(|_| found.clone())
}

async fn ticks_go_on(sandbox: &Sandbox, name: &str) {
    let before = ticks(sandbox, name).await.unwrap_or_default();
    until(&format!("the job of {name} runs"), SOON, || async {
        let now = ticks(sandbox, name).await?;
        if now > before + 1 { Ok(()) } else { Err(format!("{before} runs, then {now}")) }
    })
    .await;
}

/// The partitions are kept by the job since this time.
async fn partitions_are_kept(sandbox: &Sandbox, since: &str) {
    let runs = format!(
        "SELECT count(*) || ' ' || coalesce(max(return_message) FILTER (WHERE status = 'failed'), '') \
         FROM cron.job_run_details WHERE command LIKE 'CALL partman%' AND status IN ('succeeded', 'failed') \
         AND start_time > {since}"
    );
    until("the job that keeps partitions has run", SOON, || async {
        let found = try_as_owner(sandbox, "shop", &runs).await?;
        if found.starts_with("0") { Err(found) } else { Ok(()) }
    })
    .await;
    let failed = as_owner(sandbox, "shop", &runs).await;
    // A number, and after it the message of one that failed.
    assert!(failed.parse::<u64>().is_ok(), "{failed}");
    let stored = "INSERT INTO events VALUES (now()); \
                  SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    let partitions: u64 = as_owner(sandbox, "shop", stored).await.parse().expect("a number");
    assert!(partitions > 2, "{partitions} partitions");
}

/// In a clone the scheduler runs, and no job, until the clone's owner schedules one.
async fn jobs_rest_in_a_clone(sandbox: &Sandbox) {
    let restore = json!({"source": {"name": "shop"}, "target": {"immediate": true}});
    let spec = json!({
        "storage": {"size": "1Gi"}, "postgres": extensions(), "backup": {"enabled": false},
        "bootstrap": {"restore": restore},
    });
    sandbox.create(database("copy", spec)).await;
    sandbox.ready("copy", READY * 2).await;
    let scheduler = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'";
    until("the clone's scheduler runs", READY, || async {
        let found = as_superuser(sandbox, "copy", scheduler).await;
        if found == "1" { Ok(()) } else { Err(found) }
    })
    .await;
    let resting = "partitions f copy_db_owner copy_db; tick f copy_db_owner copy_db";
    assert_eq!(as_owner(sandbox, "copy", LISTED).await, resting);
    let before = ticks(sandbox, "copy").await.expect("the runs of the source");
    assert!(before > 0, "the clone has no run of the source");
    // Five times the interval of the job.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(ticks(sandbox, "copy").await, Ok(before), "a job of the source runs in the clone");
    let own = "SELECT cron.unschedule('tick'); \
               SELECT cron.schedule('tick', '1 second', 'INSERT INTO public.ticks DEFAULT VALUES') > 0";
    assert_eq!(as_owner(sandbox, "copy", own).await, "t\nt");
    ticks_go_on(sandbox, "copy").await;
    sandbox.delete::<ServiceDatabase>("copy").await;
}

/// The most servers and schedulers at once, as [`PROCESSES`] printed them last.
fn most(output: &Output) -> (u32, u32) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().and_then(|line| line.trim().split_once(' '));
    let most = last.and_then(|(servers, schedulers)| Some((servers.parse().ok()?, schedulers.parse().ok()?)));
    most.unwrap_or_else(|| panic!("{output:?}"))
}

/// Counts in the pod of the Job that rehearses, until it ends.
async fn processes_of_the_job(sandbox: &Sandbox) -> Output {
    let pods = sandbox.api::<Pod>();
    let of_rehearsal = ListParams::default().labels("app.kubernetes.io/component=rehearsal");
    let pod = until("the rehearsal runs", READY, || async {
        let found = pods.list(&of_rehearsal).await.map_err(|error| error.to_string())?.items;
        let runs = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        found.iter().find(runs).map(ResourceExt::name_any).ok_or_else(|| format!("{} pods", found.len()))
    })
    .await;
    sandbox.exec_in(&pod, "rehearse", PROCESSES).await
}

/// A rehearsal on the restored backup, in whose pod no scheduler runs, and the primary's pod has one server alone.
async fn no_job_runs_in_a_rehearsal(sandbox: &Sandbox) {
    let rehearsed = async {
        let said = ask(sandbox, &["upgrade", "shop", "--check"]).await;
        let ended = sandbox.exec("shop-db-0", "touch /tmp/rehearsed").await;
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        said
    };
    let of_primary = sandbox.exec("shop-db-0", PROCESSES);
    let (said, of_primary, of_job) = tokio::join!(rehearsed, of_primary, processes_of_the_job(sandbox));
    assert!(said.contains("was restored, and upgraded to PostgreSQL 18 in"), "{said}");
    assert_eq!(most(&of_primary), (1, 1), "the primary's pod has a server of the rehearsal");
    let (servers, schedulers) = most(&of_job);
    assert!(servers > 0, "no server of the clone was seen: {of_job:?}");
    assert_eq!(schedulers, 0, "a scheduler ran in the clone: {of_job:?}");
}

async fn last_backup(sandbox: &Sandbox) -> Option<JobRun> {
    sandbox.get("shop").await.status?.backup?.last_run.map(|last| last.run)
}

/// A backup runs; the upgrade that is requested meanwhile begins when it has ended.
async fn upgrade_waits_for_a_backup(sandbox: &Sandbox) {
    let before = last_backup(sandbox).await.map(|run| run.job);
    ask(sandbox, &["backup", "shop", "--full", "--timeout", "0"]).await;
    let running = until("the backup runs", READY, || async {
        let last = last_backup(sandbox).await;
        let is_it = |run: &JobRun| run.state == RequestState::Running && Some(&run.job) != before.as_ref();
        last.clone().filter(is_it).ok_or_else(|| format!("{last:?}"))
    })
    .await;
    let annotations = json!({ANNOTATION_UPGRADE: "during-a-backup", ANNOTATION_UPGRADE_ACTION: "Start"});
    sandbox.patch::<ServiceDatabase>("shop", &json!({"metadata": {"annotations": annotations}})).await;
    let mut has_waited = false;
    let mut backup = None;
    let began = tokio::time::Instant::now();
    loop {
        let status = sandbox.get("shop").await.status.expect("a status");
        let last = status.backup.and_then(|backup| backup.last_run).map(|last| last.run);
        let last = last.filter(|run| run.job == running.job);
        let runs = last.as_ref().is_some_and(|run| run.state == RequestState::Running);
        let upgrade = *status.upgrade.expect("an upgrade");
        let message = upgrade.message.clone().unwrap_or_default();
        has_waited |= message.contains("waiting for a backup that is in progress");
        let is_exchanged = matches!(upgrade.phase, UpgradePhase::Stopping | UpgradePhase::Switching);
        assert!(!(runs && is_exchanged), "the data is exchanged under a backup: {upgrade:?}");
        backup = last.filter(|_| !runs).or(backup);
        match upgrade.phase {
            UpgradePhase::Upgraded => break,
            UpgradePhase::Failed => panic!("{message}"),
            _ => assert!(began.elapsed() < READY * 4, "{upgrade:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(has_waited, "the upgrade has not waited for the backup");
    let backup = backup.expect("the end of the backup");
    assert_eq!(backup.state, RequestState::Done, "{backup:?}");
}

#[test]
fn jobs_rest_in_a_clone_and_run_after_an_upgrade_that_waits_for_a_backup() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    let _restarts = restarts::excluded();
    shared("upgrade-jobs", async |sandbox: Arc<Sandbox>| {
        let backup = json!({"store": "main", "schedule": {"verification": ""}});
        let spec = json!({"storage": {"size": "1Gi"}, "postgres": extensions(), "backup": backup});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        until("pg_cron is there", READY, || async {
            let query = "SELECT count(*) FROM pg_extension WHERE extname IN ('pg_cron', 'pg_partman')";
            match try_as_owner(&sandbox, "shop", query).await?.as_str() {
                "2" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        as_owner(&sandbox, "shop", JOBS).await;
        ticks_go_on(&sandbox, "shop").await;
        partitions_are_kept(&sandbox, "'-infinity'").await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        ask(&sandbox, &["backup", "shop"]).await;
        jobs_rest_in_a_clone(&sandbox).await;

        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"version": "18"}}})).await;
        sandbox
            .wait("the upgrade is pending", "shop", SOON, |found| {
                let upgrade = found.status.as_ref().and_then(|status| status.upgrade.as_ref());
                upgrade.is_some_and(|upgrade| upgrade.phase == UpgradePhase::Pending)
            })
            .await;
        no_job_runs_in_a_rehearsal(&sandbox).await;
        ticks_go_on(&sandbox, "shop").await;
        upgrade_waits_for_a_backup(&sandbox).await;

        sandbox.ready("shop", READY).await;
        let version = as_owner(&sandbox, "shop", "SHOW server_version").await;
        assert!(version.starts_with("18."), "{version}");
        ticks_go_on(&sandbox, "shop").await;
        let upgrade = sandbox.get("shop").await.status.and_then(|status| status.upgrade).expect("an upgrade");
        let switched = upgrade.switched_at.expect("an exchange").0;
        partitions_are_kept(&sandbox, &format!("'{switched}'")).await;
        let running = "partitions t shop_db_owner shop_db; tick t shop_db_owner shop_db";
        assert_eq!(as_owner(&sandbox, "shop", LISTED).await, running);
        let others = as_owner(&sandbox, "shop", "SELECT count(*) FROM ticks WHERE who <> 'shop_db_owner'").await;
        assert_eq!(others, "0", "a job ran as another role");
        // What keeps the tenant's code, and jobs of the superuser, out of the scheduler.
        let guards = "SELECT (SELECT count(*) FROM pg_constraint WHERE conname = 'servicedb_no_superuser') || ' ' || \
                      (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase \
                       WHERE d.datname = 'shop_db' AND s.setrole = 'postgres'::regrole \
                       AND 'search_path=pg_catalog' = ANY (s.setconfig))";
        until("the scheduler is guarded", SOON, || async {
            let found = as_superuser(&sandbox, "shop", guards).await;
            if found == "1 1" { Ok(()) } else { Err(found) }
        })
        .await;
    });
}
