//! The measurement: several samples of each kind of fault, each kind with a separate database.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::gaps::{median, worst};
use crate::harness::Cluster;
use crate::harness::cluster::RUNTIME;
use crate::kinds::Kind;
use crate::memory;
use crate::output::{leave, table};
use crate::sample::{Sample, take};
use crate::settings::{number, say, text};
use crate::subject::Subject;
use crate::{machine, nodes, place};

/// How many samples of a kind there are, unless `OUTAGE_SAMPLES` says otherwise.
const SAMPLES: u64 = 5;
/// What the agent and Patroni may take together, in MiB.
const MEMORY: f64 = 55.0;
/// How long one sample may take, and what comes before the first and after the last.
const ONE: Duration = Duration::from_secs(600);

/// Measures, and leaves target/dev/outage.md and .json. `OUTAGE_ONLY=memory,switchover` takes a
/// part.
pub fn measure() {
    RUNTIME.block_on(run());
}

async fn run() {
    let cluster = Cluster::get().await;
    let samples = usize::try_from(number("OUTAGE_SAMPLES").unwrap_or(SAMPLES)).expect("a few samples");
    let only = text("OUTAGE_ONLY");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one.trim() == name));
    let mut problems = Vec::new();
    let machine = machine::described(cluster).await;
    say(&machine);

    let mut pods = Vec::new();
    if wanted("memory") {
        let told = place::within("memory", ONE, async |place| {
            let subject = Subject::create(place).await?;
            memory::of(&subject).await
        });
        match told.await {
            Ok(told) => pods = told,
            Err(problem) => problems.push(format!("memory: {problem}")),
        }
    }
    let mut taken = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| wanted(kind.name())) {
        if kind.is_of_the_cluster() && nodes::breakable(cluster).await.is_empty() {
            let name = kind.name();
            say(&format!("{name}: only with the local cluster, and with several nodes (make cluster NODES=3)"));
            continue;
        }
        let (found, problem) = several(kind, samples).await;
        taken.extend(found);
        problems.extend(problem.map(|problem| format!("{}: {problem}", kind.name())));
    }
    let lost = taken.iter().filter(|sample| !sample.lost.is_empty());
    problems.extend(lost.map(|sample| format!("{}: rows are lost: {:?}", sample.kind.name(), sample.lost)));

    let restarted = taken.iter().filter(|sample| !sample.started_again.is_empty());
    problems.extend(restarted.map(|sample| {
        format!("{}: PostgreSQL was started again: {}", sample.kind.name(), sample.started_again.join(", "))
    }));

    let mut told = table(&outages(&taken));
    if !pods.is_empty() {
        told = format!("{told}\n{}", table(&memories(&pods)));
    }
    let at_rest: Vec<_> = taken.iter().map(|sample| sample.at_rest).collect();
    let at_rest = worst(&at_rest).map_or(String::new(), |worst| {
        format!("the longest time between two writes while nothing was broken: {worst:.2} s; ")
    });
    let told = format!("{told}\n{at_rest}{machine}; `make bench`\n");
    let document = json!({"machine": machine, "samples": taken, "memory": pods, "problems": problems});
    leave("outage", &told, &document);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// The samples of a kind, as far as they went, and why they went no further.
async fn several(kind: Kind, count: usize) -> (Vec<Sample>, Option<String>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let bound = ONE * u32::try_from(count + 1).unwrap_or(u32::MAX);
    let result = place::within(&kind.name().replace(' ', "-"), bound, async |place| {
        let subject = Subject::create(place).await?;
        for number in 0..count {
            let sample = take(&subject, kind, number).await?;
            let service =
                sample.service.map_or(String::new(), |service| format!(", by the Service after {service:.2} s"));
            say(&format!("{} ({}): {:.2} s{service}; {:?}", kind.name(), sample.pod, sample.outage, sample.gaps));
            taken.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        }
        Ok(())
    })
    .await;
    let taken = std::mem::take(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner));
    (taken, result.err())
}

fn outages(taken: &[Sample]) -> Vec<Vec<String>> {
    let head = ["No write acknowledged, s", "median", "worst", "samples", "target", "", "CloudNativePG 1.30"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for kind in Kind::ALL {
        let of_kind: Vec<_> = taken.iter().filter(|sample| sample.kind == kind).collect();
        let outages: Vec<_> = of_kind.iter().map(|sample| sample.outage).collect();
        rows.extend(row(kind.name(), &outages, kind.target(), kind.elsewhere()));
        let service: Vec<_> = of_kind.iter().filter_map(|sample| sample.service).collect();
        rows.extend(row("… until its Service sends nobody there", &service, None, None));
    }
    rows
}

fn row(name: &str, samples: &[f64], target: Option<f64>, elsewhere: Option<f64>) -> Option<Vec<String>> {
    let (median, worst) = (median(samples)?, worst(samples)?);
    let all = samples.iter().map(|sample| format!("{sample:.2}")).collect::<Vec<_>>().join(" ");
    let met = target.map_or("", |target| if median <= target { "met" } else { "missed" });
    Some(vec![
        name.to_owned(),
        format!("{median:.2}"),
        format!("{worst:.2}"),
        all,
        target.map_or(String::new(), |target| format!("≤ {target}")),
        met.to_owned(),
        elsewhere.map_or(String::new(), |elsewhere| format!("{elsewhere:.1}")),
    ])
}

fn memories(pods: &[memory::Pod]) -> Vec<Vec<String>> {
    let head = [
        "Memory at rest, MiB",
        "agent",
        "Patroni",
        "both",
        "target",
        "",
        "unshared of both",
        "PostgreSQL",
        "working set",
        "resident set",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for pod in pods {
        let both = pod.agent + pod.patroni;
        let figure = |figure: f64| format!("{figure:.1}");
        rows.push(vec![
            pod.pod.clone(),
            figure(pod.agent),
            figure(pod.patroni),
            figure(both),
            format!("≤ {MEMORY:.0}"),
            if both <= MEMORY { "met" } else { "missed" }.to_owned(),
            figure(pod.own),
            figure(pod.postgres),
            figure(pod.working_set),
            figure(pod.resident),
        ]);
    }
    rows
}
