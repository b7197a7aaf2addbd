//! Backups and their store through everything that may happen to them: changes of the lead and of the number of
//! instances while a backup and the archive are at work, after which any second comes back; a store that is damaged, and
//! stores that are none. It takes a quarter of an hour, restarts the operator, and damages what is its own in the store:
//! `dev/campaigns.sh backup_campaign`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use rand::{Rng, SeedableRng};
use serde_json::json;
use servicedb::api::{BackupStatus, JobRun, RequestState, ServiceDatabase};

use crate::archive::{archive_a_segment, none_is_missing};
use crate::harness::{
    Cluster, READY, SOON, Sandbox, Writer, column, database, plugin, shared, store, until, with_notes,
};

/// How many moments are restored.
const MOMENTS: usize = 5;
const PGBACKREST: &str = "pgbackrest --config=/run/servicedb/archive/pgbackrest.conf";

/// Runs the plugin; whether it succeeded, and what it said.
async fn ask(sandbox: &Sandbox, arguments: &[&str]) -> (bool, String) {
    let output = plugin(sandbox, arguments).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

async fn asked(sandbox: &Sandbox, arguments: &[&str]) {
    let (done, said) = ask(sandbox, arguments).await;
    assert!(done, "{arguments:?}: {said}");
}

async fn exec(sandbox: &Sandbox, pod: &str, script: &str) -> String {
    let output = sandbox.exec(pod, script).await;
    assert!(output.status.success(), "{pod}: {script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn backup(sandbox: &Sandbox) -> BackupStatus {
    sandbox.get("shop").await.status.and_then(|status| status.backup).expect("a database with a store")
}

async fn newest_full(sandbox: &Sandbox) -> Option<String> {
    backup(sandbox).await.newest_full.map(|full| full.label)
}

/// A moment of a database that is written to.
#[derive(Clone, Copy, Debug)]
struct Moment {
    time: Timestamp,
    /// How many rows were acknowledged before it.
    acknowledged: usize,
    /// The highest id that may have been sent before it.
    sent: u64,
}

/// What goes on all the time: a moment is noted each second, and a segment ended every other.
struct Background {
    stop: Arc<AtomicBool>,
    moments: Arc<Mutex<Vec<Moment>>>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Background {
    fn start(sandbox: &Arc<Sandbox>, writer: &Arc<Writer>) -> Self {
        let (stop, moments) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, noted, writer) = (stop.clone(), moments.clone(), writer.clone());
        let notes = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let acknowledged = writer.acknowledged();
                let time = Timestamp::now();
                // This thread may have stood still between the two.
                let moment = Moment { time, acknowledged, sent: writer.sent() };
                noted.lock().expect("the moments").push(moment);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let (stopped, sandbox) = (stop.clone(), sandbox.clone());
        let segments = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(primary) = sandbox.get("shop").await.status.and_then(|status| status.primary) {
                    // Nobody leads at times.
                    let _ = sandbox.exec(&primary, "psql -XqAtc 'SELECT pg_switch_wal()'").await;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        Self { stop, moments, tasks: [notes, segments] }
    }

    async fn stop(self) -> Vec<Moment> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("what goes on");
        }
        std::mem::take(&mut *self.moments.lock().expect("the moments"))
    }
}

/// What happens while a backup runs.
#[derive(Clone, Copy, Debug)]
enum Change {
    Failover,
    Switchover,
    ScaleDown,
}

/// Makes a change in the middle of a full backup. A backup that it breaks off is followed by another.
async fn during_a_backup(sandbox: &Sandbox, writer: &Writer, change: Change) {
    let (before, last) = (newest_full(sandbox).await, backup(sandbox).await.last_run.map(|last| last.run.job));
    asked(sandbox, &["backup", "shop", "--full", "--timeout", "0"]).await;
    until("the backup runs", READY, || async {
        let run = backup(sandbox).await.last_run.map(|last| last.run);
        let is_it = |run: &JobRun| run.state == RequestState::Running && Some(&run.job) != last.as_ref();
        if run.as_ref().is_some_and(is_it) { Ok(()) } else { Err(format!("{run:?}")) }
    })
    .await;
    match change {
        Change::Failover => sandbox.lose_primary("shop").await,
        Change::Switchover => asked(sandbox, &["switchover", "shop"]).await,
        Change::ScaleDown => {
            sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"instances": 2}})).await;
        }
    }
    writer.goes_on(50).await;
    sandbox.ready("shop", READY * 2).await;
    sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", READY).await;
    until(&format!("a full backup follows the {change:?}"), READY * 4, || async {
        let now = newest_full(sandbox).await;
        if now.is_some() && now != before { Ok(()) } else { Err(format!("{:?}", backup(sandbox).await.last_run)) }
    })
    .await;
    sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY).await;
    sandbox.condition("shop", "ContinuousArchiving", "True", "Archiving", READY).await;
    writer.goes_on(50).await;
}

/// A clone of that moment has each row that was acknowledged before it, and none that was sent after it.
async fn comes_back(sandbox: &Sandbox, name: &str, moment: Moment, acknowledged: &[u64]) {
    let restore = json!({"source": {"name": "shop"}, "target": {"time": moment.time.to_string()}});
    let spec = json!({
        "storage": {"size": "1Gi"}, "backup": {"enabled": false}, "bootstrap": {"restore": restore},
    });
    sandbox.create(database(name, spec)).await;
    sandbox.ready(name, READY * 2).await;
    let ids = column(&sandbox.connect(name).await, "SELECT id FROM notes").await.expect("the rows");
    let ids: BTreeSet<u64> = ids.iter().map(|id| id.parse().expect("a number")).collect();
    let lost: Vec<_> = acknowledged[..moment.acknowledged].iter().filter(|id| !ids.contains(id)).collect();
    assert!(lost.is_empty(), "{moment:?}: {} acknowledged rows are missing: {lost:?}", lost.len());
    let later: Vec<_> = ids.iter().filter(|id| **id > moment.sent).collect();
    assert!(later.is_empty(), "{moment:?}: rows that were sent after it: {later:?}");
    println!("{moment:?}: {} rows", ids.len());
    sandbox.delete::<ServiceDatabase>(name).await;
    sandbox.gone(name, READY).await;
}

#[test]
#[ignore = "takes minutes: dev/campaigns.sh backup_campaign"]
fn any_second_comes_back_through_changes_during_backups() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    let seed: u64 = std::env::var("CAMPAIGN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CAMPAIGN_SEED={seed}");
    shared("any-second", async |sandbox: Arc<Sandbox>| {
        let backup = json!({"store": "main", "schedule": {"verification": ""}});
        with_notes(&sandbox, json!({"instances": 3, "storage": {"size": "1Gi"}, "backup": backup})).await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        let writer = Arc::new(Writer::start(sandbox.clone(), "shop"));
        writer.goes_on(20).await;
        let background = Background::start(&sandbox, &writer);
        for change in [Change::Failover, Change::Switchover, Change::ScaleDown] {
            during_a_backup(&sandbox, &writer, change).await;
        }
        let moments = background.stop().await;
        let acknowledged = Arc::into_inner(writer).expect("nobody else writes").stop().await;
        let primary = sandbox.primary("shop").await;
        archive_a_segment(&sandbox, &primary).await;
        none_is_missing(&sandbox, &primary).await;
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        for number in 0..MOMENTS {
            let moment = moments[random.random_range(0..moments.len())];
            comes_back(&sandbox, &format!("moment-{number}"), moment, &acknowledged).await;
        }
    });
}

/// A test of the newest backup fails, and says so.
async fn is_found(sandbox: &Sandbox, what: &str) {
    let (done, said) = ask(sandbox, &["verify-backup", "shop"]).await;
    assert!(!done, "{what} was not found: {said}");
    println!("{what}: {said}");
    let told = sandbox.condition("shop", "RestoreVerified", "False", "VerificationFailed", SOON).await;
    assert!(!told.message.is_empty());
}

/// The file in the store of this machine that has an object of the database.
async fn in_store(sandbox: &Sandbox, object: &str) -> PathBuf {
    let folder = backup(sandbox).await.path;
    store::bucket(sandbox).await.join(folder.trim_start_matches('/')).join(object)
}

/// Overwrites the middle of a file, as a disk does that loses a block.
fn damage(file: &Path) {
    let mut content = std::fs::read(file).expect("the object's file");
    let middle = content.len() / 2;
    content[middle..].iter_mut().take(64).for_each(|byte| *byte = !*byte);
    std::fs::write(file, content).expect("the object's file is written");
}

/// A full backup, whose test succeeds.
async fn is_mended(sandbox: &Sandbox) {
    asked(sandbox, &["backup", "shop", "--full"]).await;
    asked(sandbox, &["verify-backup", "shop"]).await;
    sandbox.condition("shop", "RestoreVerified", "True", "RestoreVerified", SOON).await;
}

#[test]
#[ignore = "takes minutes: dev/campaigns.sh backup_campaign"]
fn a_damaged_object_and_a_missing_segment_are_found_by_restoring() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    shared("damaged", async |sandbox: Arc<Sandbox>| {
        let pod = "shop-db-0";
        let declared = json!({"store": "main", "schedule": {"verification": ""}});
        with_notes(&sandbox, json!({"storage": {"size": "1Gi"}, "backup": declared})).await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        is_mended(&sandbox).await;

        // Files of a backup are in bundles, and large ones beside them.
        let label = newest_full(&sandbox).await.expect("a full backup");
        let files = exec(&sandbox, pod, &format!("{PGBACKREST} repo-ls --recurse backup/db/{label}")).await;
        let is_data =
            |file: &&str| file.starts_with("bundle/") || (file.starts_with("pg_data/base/") && file.ends_with(".zst"));
        let file = files.lines().rfind(is_data).unwrap_or_else(|| panic!("no data in {files}"));
        let path = format!("backup/db/{label}/{file}");
        damage(&in_store(&sandbox, &path).await);
        is_found(&sandbox, &format!("the damaged object {path}")).await;
        is_mended(&sandbox).await;

        // Recovery needs each segment since the backup.
        let mut segments = Vec::new();
        for number in 1..=3 {
            exec(&sandbox, pod, &format!("psql -Xqd shop_db -c \"INSERT INTO notes VALUES ({number}, 'x')\"")).await;
            segments.push(archive_a_segment(&sandbox, pod).await);
        }
        let middle = segments[1].as_str();
        let archive = exec(&sandbox, pod, &format!("{PGBACKREST} repo-ls --recurse archive/db")).await;
        let object = archive.lines().find(|line| line.rsplit('/').next().is_some_and(|name| name.starts_with(middle)));
        let path = format!("archive/db/{}", object.unwrap_or_else(|| panic!("no {middle} in {archive}")));
        std::fs::remove_file(in_store(&sandbox, &path).await).expect("the segment is removed");
        is_found(&sandbox, &format!("the missing segment {path}")).await;
        is_mended(&sandbox).await;
    });
}
