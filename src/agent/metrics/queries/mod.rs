//! A team's own metrics: SQL from the ConfigMap of `spec.monitoring.queries`. A task of its own runs the queries, at
//! most once in ten seconds whoever scrapes, and once a minute if nobody does, so that a wrong one is told. A page has
//! what they gave last. docs/monitoring.md describes the form and the limits.

mod definition;
mod results;
mod run;
mod source;

use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use self::definition::Definition;
use self::results::{Results, Run};
use self::run::Session;
use self::source::Source;
use super::text::Family;
use crate::agent::desired::DesiredState;
use crate::agent::report::Reporter;
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::{Report, Role};
use crate::postgres::ConnectError;

/// Interval between two rounds while nobody scrapes.
const INTERVAL: Duration = Duration::from_secs(60);
/// The longest round; queries that have no turn in it are the first of the next.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a page waits for a round.
const PATIENCE: Duration = Duration::from_secs(1);

/// The metrics of a team's queries; cheap to clone.
#[derive(Clone)]
pub struct Queries {
    results: watch::Receiver<Arc<Results>>,
    asked: Arc<Notify>,
}

impl Queries {
    /// Runs the queries of the desired state from now on.
    pub fn follow(client: kube::Client, namespace: &str, desired: DesiredState, reporter: Reporter) -> Self {
        let source = source::follow(Api::namespaced(client, namespace), desired.clone());
        let (sender, results) = watch::channel(Arc::default());
        let asked = Arc::new(Notify::new());
        tokio::spawn(keep(desired, source, reporter, sender, asked.clone()));
        Self { results, asked }
    }

    /// The metrics. A round that is due begins, and is waited for for a second.
    pub async fn families(&self) -> Vec<Family> {
        let mut results = self.results.clone();
        let is_due = !results.borrow_and_update().due(Instant::now()).is_empty();
        if is_due {
            self.asked.notify_one();
            _ = timeout(PATIENCE, results.changed()).await;
        }
        let last = results.borrow().clone();
        last.families(Instant::now())
    }
}

async fn keep(
    desired: DesiredState,
    mut source: watch::Receiver<Source>,
    reporter: Reporter,
    sender: watch::Sender<Arc<Results>>,
    asked: Arc<Notify>,
) {
    let mut report = reporter.follow();
    let mut results = Results::default();
    loop {
        results.follow(source.borrow_and_update().clone(), is_primary(&mut report));
        let database = desired.borrow().as_ref().map(|desired| desired.database.clone());
        let due = results.due(Instant::now());
        if let Some(database) = database.filter(|_| !due.is_empty()) {
            round(SOCKET_DIR, &database, due, &mut results).await;
        }
        let told = results.report();
        reporter.update(|report| report.queries = told);
        sender.send_replace(Arc::new(results.clone()));
        let has_other_role = async {
            let before = results.is_primary;
            while is_primary(&mut report) == before {
                if report.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = asked.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
            Ok(()) = source.changed() => {}
            () = has_other_role => {}
        }
    }
}

fn is_primary(report: &mut watch::Receiver<Report>) -> bool {
    report.borrow_and_update().role == Some(Role::Primary)
}

/// Runs the queries that are due, one after another, in one session. A query that has blocked its session ends it, and
/// the next one has another.
async fn round(socket: &str, database: &str, due: Vec<Definition>, results: &mut Results) {
    let began = Instant::now();
    let mut session = None::<Session>;
    for definition in due {
        if began.elapsed() > LONGEST {
            break;
        }
        let open = match session.take().filter(Session::is_open) {
            Some(open) => open,
            None => match Session::open(socket, database).await {
                Ok(open) => open,
                Err(error) => {
                    tracing::debug!(%error, "the queries of spec.monitoring.queries cannot be run");
                    results.no_session = refusal(&error);
                    break;
                }
            },
        };
        results.no_session = None;
        let begin = Instant::now();
        let result = open.run(&definition).await.map_err(|error| error.to_string());
        if let Err(problem) = &result {
            tracing::debug!(query = definition.name, problem, "a query of spec.monitoring.queries failed");
        }
        let now = Instant::now();
        results.add(&definition.name, Run { at: now, took: now - begin, result });
        session = Some(open);
    }
    results.rest(began, Instant::now());
}

/// What is told of a session that the server refuses; none while it does not run, starts, stops or is full.
fn refusal(error: &ConnectError) -> Option<String> {
    let ConnectError::Postgres { source, .. } = error else { return None };
    let code = source.as_db_error()?.code().code();
    let passes = ["57", "53", "08"].iter().any(|class| code.starts_with(class));
    (!passes).then(|| definition::clipped(&error.to_string()))
}

/// The metrics of the definitions in a text, as a page, and what is told of them: for tests.
///
/// # Errors
/// If the text is no map of definitions.
pub async fn page_of(socket: &str, database: &str, text: &str) -> Result<(String, Vec<(String, String)>), String> {
    let mut results = Results::default();
    results.follow(Source::Read(Arc::new(definition::parse(text)?)), true);
    let due = results.due(Instant::now());
    round(socket, database, due, &mut results).await;
    let mut page = String::new();
    results.families(Instant::now()).iter().for_each(|family| family.write(&mut page));
    let report = results.report().unwrap_or_default();
    let told = report.failed.into_iter().map(|failed| (failed.name, failed.message));
    Ok((page, report.problem.map(|problem| (String::new(), problem)).into_iter().chain(told).collect()))
}
