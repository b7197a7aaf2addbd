//! What a team's queries gave last, when they are due again, and what is told of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::definition::{Definition, Definitions};
use super::source::Source;
use crate::agent::metrics::text::{Family, Kind};
use crate::contract::report::{QueriesReport, QueryFailure};

/// The shortest pause between the end of a round and the next.
pub const PAUSE: Duration = Duration::from_secs(10);
/// A round is followed by a pause of so many times its length: queries take a fifth of a core at most.
const REST: u32 = 4;
/// How long rows are shown beyond the time after which they are due again.
const STALE: Duration = Duration::from_secs(120);
/// The most samples of all queries.
pub const MOST_SAMPLES: usize = 2000;
/// How many failures are told.
const TOLD: usize = 4;

/// The last run of a query.
#[derive(Clone, Debug)]
pub struct Run {
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// Its metrics with the number of their samples, or why there are none.
    pub result: Result<(Vec<Family>, usize), String>,
}

/// The state of all queries.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// What is known of the definitions.
    pub source: Source,
    /// Why no session could be opened.
    pub no_session: Option<String>,
    /// The last run of each query, by name.
    pub runs: BTreeMap<String, Run>,
    /// The earliest time of the next round; none before the first.
    pub rest_until: Option<Instant>,
    /// Whether this instance is the primary.
    pub is_primary: bool,
}

impl Results {
    /// Takes other definitions, or another role. What was read by the former definitions is dropped, and the next
    /// round may begin at once.
    pub fn follow(&mut self, source: Source, is_primary: bool) {
        if self.source != source {
            self.runs.clear();
            (self.rest_until, self.no_session) = (None, None);
        }
        (self.source, self.is_primary) = (source, is_primary);
        let mine: Vec<_> = self.mine().map(|definition| definition.name.clone()).collect();
        self.runs.retain(|name, _| mine.contains(name));
    }

    fn definitions(&self) -> Option<&Definitions> {
        match &self.source {
            Source::Read(definitions) => Some(definitions),
            _ => None,
        }
    }

    /// The queries that this instance runs.
    fn mine(&self) -> impl Iterator<Item = &Definition> {
        let all = self.definitions().into_iter().flat_map(|definitions| &definitions.queries);
        all.filter(|definition| self.is_primary || !definition.primary_only)
    }

    /// The queries whose time has come, those first that have waited longest; none while a round is followed by its
    /// pause.
    pub fn due(&self, now: Instant) -> Vec<Definition> {
        if self.rest_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        let last = |definition: &Definition| self.runs.get(&definition.name).map(|run| run.at);
        let is_due = |definition: &&Definition| last(definition).is_none_or(|at| at + definition.kept <= now);
        let mut due: Vec<_> = self.mine().filter(is_due).collect();
        due.sort_by_key(|definition| last(definition));
        due.into_iter().cloned().collect()
    }

    /// Adds a run; its rows are refused where all have too many.
    pub fn add(&mut self, name: &str, mut run: Run) {
        let others: usize = self.runs.iter().filter(|(other, _)| *other != name).map(|(_, run)| samples(run)).sum();
        if others + samples(&run) > MOST_SAMPLES {
            run.result = Err(format!("all queries together have more than {MOST_SAMPLES} samples"));
        }
        self.runs.insert(name.to_owned(), run);
    }

    /// Ends a round that began then.
    pub fn rest(&mut self, began: Instant, now: Instant) {
        self.rest_until = Some(now + PAUSE.max((now - began) * REST));
    }

    /// What the operator is told; none where nothing is declared, or a query has not had its first run.
    pub fn report(&self) -> Option<QueriesReport> {
        let problem = match &self.source {
            Source::Undeclared | Source::Unknown => return None,
            Source::Invalid(problem) => Some(problem.clone()),
            Source::Read(_) => self.no_session.clone(),
        };
        if problem.is_none() && self.mine().any(|definition| !self.runs.contains_key(&definition.name)) {
            return None;
        }
        let refused = self.definitions().into_iter().flat_map(|definitions| &definitions.refused);
        let failed = self.runs.iter().filter_map(|(name, run)| Some((name, run.result.as_ref().err()?)));
        let all = refused.map(|(name, message)| (name, message)).chain(failed);
        let mut failed: Vec<_> =
            all.map(|(name, message)| QueryFailure { name: name.clone(), message: message.clone() }).collect();
        let failed_count = failed.len();
        failed.truncate(TOLD);
        let count = self.definitions().map_or(0, |definitions| definitions.queries.len() + definitions.refused.len());
        Some(QueriesReport { problem, count, failed, failed_count })
    }

    /// The metrics.
    pub fn families(&self, now: Instant) -> Vec<Family> {
        if matches!(self.source, Source::Undeclared | Source::Unknown) {
            return Vec::new();
        }
        let flag = |value: bool| f64::from(u8::from(value));
        let refused = || self.definitions().into_iter().flat_map(|definitions| &definitions.refused);
        let is_valid = self.definitions().is_some() && self.no_session.is_none() && refused().next().is_none();
        let help = "Whether the ConfigMap of spec.monitoring.queries is there, and each of its queries can be run";
        let valid = Family::single("servicedb_custom_queries_valid", Kind::Gauge, help, flag(is_valid));
        let help = "Whether a query of spec.monitoring.queries gave its metrics when it was last run";
        let mut success = Family::new("servicedb_custom_query_success", Kind::Gauge, help);
        let help = "How long a query of spec.monitoring.queries took when it was last run";
        let mut duration = Family::new("servicedb_custom_query_duration_seconds", Kind::Gauge, help);
        for (name, _) in refused() {
            success.sample([("query", name.as_str())], 0.0);
        }
        let mut families = Vec::new();
        for definition in self.mine() {
            let Some(run) = self.runs.get(&definition.name) else { continue };
            let is_stale = now > run.at + definition.kept + STALE;
            success.sample([("query", definition.name.as_str())], flag(run.result.is_ok() && !is_stale));
            duration.sample([("query", definition.name.as_str())], run.took.as_secs_f64());
            if let Ok((found, _)) = &run.result
                && !is_stale
            {
                families.extend(found.iter().cloned());
            }
        }
        [valid, success, duration].into_iter().chain(families).collect()
    }
}

fn samples(run: &Run) -> usize {
    run.result.as_ref().map_or(0, |(_, samples)| *samples)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::metrics::queries::definition::parse;

    const TEXT: &str = "
a: {query: SELECT 1 AS v, metrics: [v: {usage: GAUGE}]}
b: {query: SELECT 1 AS v, metrics: [v: {usage: GAUGE}], cache_seconds: 3600}
c: {query: SELECT 1 AS v, metrics: [v: {usage: GAUGE}], primary: true}
pg: {query: SELECT 1 AS v, metrics: [v: {usage: GAUGE}]}
";

    fn results(is_primary: bool) -> Results {
        let mut results = Results::default();
        results.follow(Source::Read(Arc::new(parse(TEXT).expect("definitions"))), is_primary);
        results
    }

    fn names(due: &[Definition]) -> Vec<&str> {
        due.iter().map(|definition| definition.name.as_str()).collect()
    }

    fn run(at: Instant, samples: usize) -> Run {
        let family = Family::single("x", Kind::Gauge, "h", 1.0);
        Run { at, took: Duration::from_millis(5), result: Ok((vec![family], samples)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_scrapes_run_a_query_once_and_a_slow_round_is_followed_by_a_long_pause() {
        let (mut results, now) = (results(true), Instant::now());
        assert_eq!(names(&results.due(now)), ["a", "b", "c"]);
        ["c", "b", "a"].iter().for_each(|name| results.add(name, run(now, 1)));
        results.rest(now, now);
        for milliseconds in 0..1000 {
            assert_eq!(names(&results.due(now + Duration::from_millis(milliseconds))), [""; 0]);
        }
        assert_eq!(names(&results.due(now + PAUSE)), ["a", "c"], "the other one is kept for an hour");
        assert_eq!(names(&results.due(now + Duration::from_secs(3600))), ["a", "b", "c"]);
        // The one that has waited longest comes first.
        results.add("a", run(now + PAUSE, 1));
        assert_eq!(names(&results.due(now + PAUSE)), ["c", "a"]);
        let end = now + Duration::from_secs(8);
        results.rest(now, end);
        assert_eq!(names(&results.due(end + Duration::from_secs(31))), [""; 0]);
        assert_eq!(names(&results.due(end + Duration::from_secs(32))), ["c", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn other_definitions_and_another_role_hold_at_once() {
        let (mut results, now) = (results(false), Instant::now());
        assert_eq!(names(&results.due(now)), ["a", "b"], "of the primary alone is the third");
        ["a", "b"].iter().for_each(|name| results.add(name, run(now, 1)));
        results.rest(now, now);
        let source = results.source.clone();
        results.follow(source, true);
        assert_eq!(names(&results.due(now + PAUSE)), ["c", "a"]);
        results.follow(Source::Read(Arc::new(parse("").expect("none"))), true);
        assert!(results.runs.is_empty() && results.rest_until.is_none());
        results.follow(Source::Undeclared, true);
        assert_eq!((results.report(), results.families(now)), (None, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_with_the_querys_name_and_the_others_are_read() {
        let (mut results, now) = (results(true), Instant::now());
        results.add("a", run(now, 1));
        assert_eq!(results.report(), None, "the others have not run");
        results.add("b", Run { result: Err("it took longer".to_owned()), ..run(now, 0) });
        results.add("c", run(now, MOST_SAMPLES));
        let page = |now| {
            let mut page = String::new();
            results.families(now).iter().for_each(|family| family.write(&mut page));
            page
        };
        let text = page(now);
        for line in [
            "servicedb_custom_queries_valid 0\n",
            "servicedb_custom_query_success{query=\"a\"} 1\n",
            "servicedb_custom_query_success{query=\"b\"} 0\n",
            "servicedb_custom_query_success{query=\"c\"} 0\n",
            "servicedb_custom_query_success{query=\"pg\"} 0\n",
            "servicedb_custom_query_duration_seconds{query=\"a\"} 0.005\n",
            "\nx 1\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let late = page(now + Duration::from_secs(121));
        assert!(late.contains("success{query=\"a\"} 0\n") && !late.contains("\nx 1\n"), "rows grow old: {late}");
        let report = results.report().expect("a report");
        assert_eq!((report.count, report.failed_count, report.problem.as_deref()), (4, 3, None));
        let told: Vec<_> = report.failed.iter().map(|failed| failed.name.as_str()).collect();
        assert_eq!(told, ["pg", "b", "c"]);
        assert!(report.failed[2].message.contains("2000 samples"), "{report:?}");
    }
}
