//! The verification after a soak: no lost or duplicated rows, and equal instances.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;
use tokio::time::Instant;

use crate::client::Way;
use crate::faults;
use crate::harness::column;
use crate::subject::Subject;
use crate::writers::{Account, Acknowledged};

/// How long replicas may take to have everything.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How many examples are shown of what is wrong.
const SHOWN: usize = 5;
/// A hash that does not hang on the rows' order; then whether a page was read damaged.
const ALL_ROWS: &str = "SELECT count(*), coalesce(sum(hashtextextended(writer || '.' || sequence, 0)), 0), \
     (SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database) FROM written";

/// How many rows the database holds, and all that is wrong with them.
pub async fn of(subject: &Subject, way: &Way, accounts: &[Account], begun: Instant) -> (usize, Vec<String>) {
    let mut problems = two_primaries(accounts, begun);
    let mut count = 0;
    for (writer, account) in accounts.iter().enumerate() {
        match stored(way, writer).await {
            Ok(stored) => {
                count += stored.values().sum::<usize>();
                problems.extend(differences(writer, account, &stored, begun));
            }
            Err(problem) => problems.push(format!("the rows of writer {writer} cannot be read: {problem}")),
        }
    }
    problems.extend(same_everywhere(subject, way).await.err());
    (count, problems)
}

/// How often each number of a writer is there.
async fn stored(way: &Way, writer: usize) -> Result<BTreeMap<u64, usize>, String> {
    let connection = way.connect(Duration::from_secs(5)).await?;
    let sql = format!("SELECT sequence FROM written WHERE writer = {writer}");
    let rows = column(&connection, &sql).await.map_err(|refusal| refusal.message)?;
    let mut found = BTreeMap::new();
    for row in rows {
        let sequence = row.parse().map_err(|_| format!("a row that nobody wrote: {row:?}"))?;
        *found.entry(sequence).or_default() += 1;
    }
    Ok(found)
}

fn differences(writer: usize, account: &Account, stored: &BTreeMap<u64, usize>, begun: Instant) -> Vec<String> {
    let mut problems = Vec::new();
    let lost: Vec<_> = account.acknowledged.iter().filter(|row| !stored.contains_key(&row.sequence)).collect();
    if !lost.is_empty() {
        let shown: Vec<_> = lost.iter().take(SHOWN).map(|row| told(row, begun)).collect();
        let (count, of) = (lost.len(), account.acknowledged.len());
        problems.push(format!("writer {writer}: {count} of {of} acknowledged rows are lost: {}", shown.join("; ")));
    }
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).take(SHOWN).collect();
    if !twice.is_empty() {
        problems.push(format!("writer {writer}: rows that are there more than once, each with how often: {twice:?}"));
    }
    let strange: Vec<_> = stored.keys().filter(|sequence| !(1..=account.sent).contains(sequence)).collect();
    if !strange.is_empty() {
        problems.push(format!("writer {writer}: rows that nobody wrote: {strange:?}"));
    }
    problems
}

/// An acknowledgement of a timeline that another had already followed: two servers took writes.
fn two_primaries(accounts: &[Account], begun: Instant) -> Vec<String> {
    let all: Vec<_> = accounts.iter().flat_map(|account| &account.acknowledged).collect();
    let mut first: BTreeMap<u32, Instant> = BTreeMap::new();
    for row in &all {
        let at = first.entry(row.by.timeline).or_insert(row.at);
        *at = row.at.min(*at);
    }
    let after = |row: &&&Acknowledged| first.range(row.by.timeline + 1..).any(|(_, began)| *began < row.asked);
    let late: Vec<_> = all.iter().filter(after).collect();
    if late.is_empty() {
        return Vec::new();
    }
    let shown: Vec<_> = late.iter().take(SHOWN).map(|row| told(row, begun)).collect();
    let servers: BTreeSet<_> = all.iter().map(|row| (row.by.timeline, row.by.server)).collect();
    vec![format!(
        "two primaries: {} rows were acknowledged on a timeline after writes on a later one: {}; all servers: {servers:?}",
        late.len(),
        shown.join("; ")
    )]
}

fn told(row: &Acknowledged, begun: Instant) -> String {
    let at = (row.at - begun).as_secs_f64();
    format!("{} (by {} on timeline {} at {at:.2} s)", row.sequence, row.by.server, row.by.timeline)
}

/// Waits until every instance holds the same.
///
/// # Errors
/// What each holds, if that does not become the same.
async fn same_everywhere(subject: &Subject, way: &Way) -> Result<(), String> {
    let started = Instant::now();
    let script = format!("psql -XAtq -v ON_ERROR_STOP=1 -d {} -c \"{ALL_ROWS}\"", way.credentials.database);
    loop {
        let pods = subject.pods().await.map_err(|error| error.to_string())?;
        let mut told = BTreeMap::new();
        for pod in &pods {
            let said = faults::command(&subject.place, &pod.name_any(), &script).await;
            told.insert(pod.name_any(), said.map(|text| text.trim().to_owned()));
        }
        let different: BTreeSet<_> = told.values().collect();
        let sound = told.values().all(|said| said.as_ref().is_ok_and(|said| said.ends_with("|0")));
        if different.len() == 1 && sound {
            return Ok(());
        }
        if started.elapsed() > CATCH_UP {
            return Err(format!("the instances differ (rows, hash, damaged pages): {told:?}"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Written;

    fn row(sequence: u64, timeline: u32, asked: Instant) -> Acknowledged {
        let by = Written { server: [10, 0, 0, 1].into(), timeline };
        Acknowledged { sequence, asked, at: asked + Duration::from_millis(5), by }
    }

    #[test]
    fn a_write_on_an_old_timeline_tells_of_two_primaries() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let of = |rows: Vec<Acknowledged>| [Account { sent: 9, acknowledged: rows }];
        assert_eq!(two_primaries(&of(vec![row(1, 1, at(1)), row(2, 2, at(2))]), begun), [""; 0]);
        assert_eq!(two_primaries(&of(vec![row(1, 1, at(1)), row(2, 2, at(2)), row(3, 1, at(3))]), begun).len(), 1);
    }

    #[test]
    fn what_is_lost_or_there_twice_or_from_nowhere_is_told() {
        let begun = Instant::now();
        let account = Account { sent: 3, acknowledged: vec![row(1, 1, begun), row(2, 1, begun)] };
        let stored = |rows: &[(u64, usize)]| rows.iter().copied().collect();
        assert_eq!(differences(0, &account, &stored(&[(1, 1), (2, 1), (3, 1)]), begun), [""; 0]);
        assert_eq!(differences(0, &account, &stored(&[(1, 2), (9, 1)]), begun).len(), 3);
    }
}
