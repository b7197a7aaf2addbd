//! The spec is changed once a second while clients write: the number of instances, a setting that
//! needs a restart, a request that needs new pods. No acknowledged row may be lost, and the database
//! must become Ready after the last change.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde_json::json;
use servicedb::api::ServiceDatabase;
use tokio::time::Instant;

use crate::client::Way;
use crate::gaps::{gaps, longest};
use crate::harness::cluster::RUNTIME;
use crate::harness::{Cluster, Sandbox};
use crate::output::{leave, table};
use crate::settings::{number, say};
use crate::subject::{INSTANCES, NAME, Subject, WHOLE};
use crate::writers::{Account, Writers};
use crate::{machine, place, verdict};

/// How many runs there are, unless `CHANGES_RUNS` says otherwise.
const RUNS: u64 = 20;
/// From one change to the next.
const BETWEEN: Duration = Duration::from_secs(1);
/// How soon after the last change the database is to be Ready, in seconds. Shown beside what was
/// measured, and not asserted: a machine may be busy.
const TARGET: f64 = 60.0;
/// How long one run may take.
const ONE: Duration = Duration::from_secs(900);

/// How often the spec at rest is declared, should the API server be away.
const TRIES: usize = 30;

/// One change of the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    instances: usize,
    /// `max_connections`.
    connections: u32,
    /// The request of a processor, in thousandths of one.
    millicores: u32,
}

/// What the database has between runs.
const AT_REST: Change = Change { instances: INSTANCES, connections: 100, millicores: 20 };

/// The result of one run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    changes: Vec<Change>,
    acknowledged: usize,
    /// Seconds from the last change until the database was Ready as that change declares it.
    settled: f64,
    /// The longest time without an acknowledged write, in seconds.
    longest: f64,
    problems: Vec<String>,
}

/// Runs it, and leaves target/dev/changes.md and .json. `CHANGES_SEED` gives the same changes again.
pub fn run() {
    RUNTIME.block_on(async {
        let cluster = Cluster::get().await;
        let runs = number("CHANGES_RUNS").unwrap_or(RUNS);
        let seed = number("CHANGES_SEED").unwrap_or_else(|| rand::random::<u32>().into());
        say(&format!("CHANGES_SEED={seed}: {runs} runs"));
        let bound = ONE * u32::try_from(runs + 1).unwrap_or(u32::MAX);
        let found = place::within("changes", bound, async |place| {
            let done = all(&place, seed, runs).await?;
            let machine = machine::described(cluster).await;
            let told = format!("{}\n{machine}; `make changes CHANGES_SEED={seed}`\n", tell(&done));
            leave("changes", &told, &json!({"seed": seed, "machine": machine, "runs": done}));
            let problems: Vec<_> = done.into_iter().flat_map(|run| run.problems).collect();
            if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
        });
        if let Err(problem) = found.await {
            panic!("with CHANGES_SEED={seed}: {problem}");
        }
    });
}

async fn all(place: &Arc<Sandbox>, seed: u64, runs: u64) -> Result<Vec<Run>, String> {
    let subject = Subject::create(place.clone()).await?;
    let mut chance = StdRng::seed_from_u64(seed);
    let mut done = Vec::new();
    for number in 0..runs {
        let changes = if number == 0 { first() } else { drawn(&mut chance) };
        let run = one(&subject, changes).await?;
        let instances: Vec<_> = run.changes.iter().map(|change| change.instances).collect();
        say(&format!(
            "run {number}: {instances:?}; {} rows, settled after {:.1} s, {:.1} s without a write; {:?}",
            run.acknowledged, run.settled, run.longest, run.problems
        ));
        let stop = !run.problems.is_empty();
        done.push(run);
        if stop {
            break;
        }
    }
    Ok(done)
}

/// The sequence by which acknowledged rows were lost once.
fn first() -> Vec<Change> {
    let steps = [(2, 100, 20), (3, 150, 20), (2, 150, 25), (1, 100, 25), (3, 100, 20), (2, 150, 20), (3, 120, 25)];
    let last = Change { instances: 2, ..AT_REST };
    let of = |(instances, connections, millicores)| Change { instances, connections, millicores };
    steps.into_iter().map(of).chain([last]).collect()
}

fn drawn(chance: &mut StdRng) -> Vec<Change> {
    let mut now = AT_REST;
    let count = chance.random_range(6..=12);
    let mut changes = Vec::new();
    for _ in 0..count {
        // Always another number of instances; the other two now and then.
        now.instances = (now.instances + chance.random_range(0..INSTANCES - 1)) % INSTANCES + 1;
        if chance.random_bool(0.4) {
            now.connections = [100, 120, 150][chance.random_range(0..3)];
        }
        if chance.random_bool(0.3) {
            now.millicores = [20, 25][chance.random_range(0..2)];
        }
        changes.push(now);
    }
    changes
}

/// Changes the spec once a second, by the dice, and at last to what the database had; how often.
///
/// # Errors
/// What the API server said.
pub async fn burst(subject: &Subject, dice: usize) -> Result<usize, String> {
    let changes = drawn(&mut StdRng::seed_from_u64(dice as u64));
    let declared = declare_each(subject, &changes).await;
    put_back(subject).await?;
    declared.map(|()| changes.len())
}

/// Declares what the database had before any change.
///
/// # Errors
/// What the API server said last.
pub async fn put_back(subject: &Subject) -> Result<(), String> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        last = declare(subject, AT_REST).await;
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    last
}

async fn one(subject: &Subject, changes: Vec<Change>) -> Result<Run, String> {
    let way = Way::into(&subject.place).await;
    let (writers, begun) = (Writers::start(&way), Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    declare_each(subject, &changes).await?;
    let changed = Instant::now();
    let last = changes.last().map_or(INSTANCES, |change| change.instances);
    let mut problems = Vec::new();
    problems.extend(subject.whole_with(last, WHOLE).await.err());
    let settled = changed.elapsed().as_secs_f64();
    // Every instance there is compared; and the next run begins with all.
    declare(subject, AT_REST).await?;
    problems.extend(subject.whole(WHOLE).await.err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let accounts = writers.stop().await;
    if problems.is_empty() {
        let (_, wrong) = verdict::of(subject, &way, &accounts, begun).await;
        problems.extend(wrong);
        way.empty().await?;
    }
    Ok(Run {
        acknowledged: accounts.iter().map(|account| account.acknowledged.len()).sum(),
        longest: without_a_write(&accounts, begun),
        changes,
        settled,
        problems,
    })
}

fn without_a_write(accounts: &[Account], begun: Instant) -> f64 {
    let rows = accounts.iter().flat_map(|account| &account.acknowledged);
    let mut times: Vec<_> = rows.map(|row| (row.at - begun).as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let end = times.last().copied().unwrap_or_default();
    longest(&gaps(&times, (0.0, end))).map_or(0.0, |gap| gap.seconds())
}

/// Declares one change after another, a second apart.
async fn declare_each(subject: &Subject, changes: &[Change]) -> Result<(), String> {
    let mut next = Instant::now();
    for change in changes {
        tokio::time::sleep_until(next).await;
        declare(subject, *change).await?;
        next = Instant::now() + BETWEEN;
    }
    Ok(())
}

async fn declare(subject: &Subject, change: Change) -> Result<(), String> {
    let spec = json!({
        "instances": change.instances,
        "postgres": {"parameters": {"max_connections": change.connections.to_string()}},
        "resources": {"requests": {"cpu": format!("{}m", change.millicores)}},
    });
    let patch = Patch::Merge(json!({"spec": spec}));
    let patched = subject.place.api::<ServiceDatabase>().patch(NAME, &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(|error| format!("changing the spec to {change:?}: {error}"))
}

fn tell(done: &[Run]) -> String {
    let head = ["Instances, a change a second", "rows", "Ready after, s", "", "longest without a write, s"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for run in done {
        let instances: Vec<_> = run.changes.iter().map(|change| change.instances.to_string()).collect();
        rows.push(vec![
            instances.join(" "),
            run.acknowledged.to_string(),
            format!("{:.1}", run.settled),
            if run.settled <= TARGET { "" } else { "missed" }.to_owned(),
            format!("{:.1}", run.longest),
        ]);
    }
    let problems: Vec<_> = done.iter().flat_map(|run| run.problems.iter().map(String::as_str)).collect();
    let verdict = match problems.as_slice() {
        [] => format!("{} runs: no acknowledged row is lost, all instances hold the same.", done.len()),
        problems => format!("**{} problems**\n\n- {}", problems.len(), problems.join("\n- ")),
    };
    format!("{verdict}\n\n{}", table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_one_of_the_number_of_instances() {
        let mut chance = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let changes = drawn(&mut chance);
            assert!(changes.iter().all(|change| (1..=INSTANCES).contains(&change.instances)));
            assert!(changes.windows(2).all(|pair| pair[0].instances != pair[1].instances), "{changes:?}");
        }
    }
}
