//! Maintenance: whether a window is open, whether its work may run, and the result. The leader's agent reads what is due
//! and does it; here is when. Pure.

pub mod exclusion;
pub mod rollout;
pub mod windows;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{
    MaintenanceRun, MaintenanceStatus, RequestState, RequestStatus, ServiceDatabaseStatus, WindowRollout,
};
use crate::contract::maintenance::{Maintenance, MaintenanceReport, Run, RunReport, Tasks};
use crate::contract::time::seconds;
use windows::Windows;

/// How long a requested run may take where no window is declared.
const REQUEST_LASTS: SignedDuration = SignedDuration::from_hours(1);

/// The summary of a run in which nothing was due.
pub const NOTHING_DONE: &str = "nothing was done";

/// The declared maintenance, and the request of a run.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// When.
    pub windows: Windows,
    /// What.
    pub tasks: Tasks,
    /// The token of the request, from an annotation.
    pub request: Option<String>,
}

/// The input of a decision.
pub struct Known<'a> {
    /// The declared maintenance.
    pub declared: &'a Declared,
    /// What status has.
    pub recorded: &'a State,
    /// What the primary's agent reports; none without a primary, and from an agent that knows no maintenance.
    pub report: Option<&'a MaintenanceReport>,
    /// What excludes any work now.
    pub hindrance: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// The maintenance of one database in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// For the agents.
    pub desired: Maintenance,
    /// For status.
    pub status: MaintenanceStatus,
    /// When to look again; no part of status.
    pub again_at: Option<Timestamp>,
}

impl State {
    /// The state in status.
    pub fn recorded(status: &ServiceDatabaseStatus) -> Self {
        Self { status: status.maintenance.as_deref().cloned().unwrap_or_default(), ..Self::default() }
    }

    /// The rollout that a window began, and that is not finished.
    pub fn rollout(&self) -> Option<&WindowRollout> {
        self.status.rollout.as_ref()
    }
}

/// Decides whether a run is open, and what status says.
pub fn decide(known: &Known<'_>) -> State {
    let (now, declared) = (known.now, known.declared);
    let opening = declared.windows.open_at(now);
    let mut status = known.recorded.status.clone();
    let lasts = declared.windows.longest().unwrap_or(REQUEST_LASTS);
    let run_of = |id: &str| known.report.and_then(|report| report.run.as_ref()).filter(|run| run.id == id);
    status.request = request(declared.request.as_deref(), status.request.take(), lasts, run_of, now);
    let requested = status.request.as_ref().filter(|request| request.state == RequestState::Running);
    let run = match (requested, opening) {
        (Some(request), _) => Some(Run { id: request.request.clone(), until: request.started_at.0 + lasts }),
        // The beginning identifies a window.
        (None, Some(opening)) => Some(Run { id: format!("window {}", opening.from), until: opening.until }),
        (None, None) => None,
    };
    let next = declared.windows.next_after(now);
    status.next_window = next.map(Time);
    status.open_until = opening.map(|opening| Time(opening.until));
    status.waits_for = None;
    if let Some(run) = &run {
        let is_over = run_of(&run.id).is_some_and(|run| run.ended);
        status.waits_for = known.hindrance.clone().filter(|_| !is_over).or_else(|| {
            let silent = "the agent of the primary has not reported what is due: it has just started, or its version \
                          knows no maintenance";
            known.report.is_none().then(|| silent.to_owned())
        });
    }
    if let Some(report) = known.report {
        status.surveyed_at = report.surveyed_at.map(|at| Time(seconds(at)));
        status.due.clone_from(&report.due);
        status.due_count = Some(report.due_count);
        status.done.clone_from(&report.done);
    }
    if let Some(last) = known.report.and_then(|report| report.run.as_ref()) {
        // One that is withdrawn for a while goes on.
        let runs = !last.ended && run.as_ref().is_some_and(|run| run.id == last.id);
        status.last_run = Some(run_status(last, runs, known.report));
    }
    let open = run.filter(|_| known.hindrance.is_none());
    let again_at = [next, opening.map(|opening| opening.until), open.as_ref().map(|run| run.until)];
    let again_at = again_at.into_iter().flatten().min();
    State { desired: Maintenance { tasks: declared.tasks, run: open }, status, again_at }
}

/// The state of the request.
fn request<'a>(
    token: Option<&str>,
    before: Option<RequestStatus>,
    lasts: SignedDuration,
    run_of: impl Fn(&str) -> Option<&'a RunReport>,
    now: Timestamp,
) -> Option<RequestStatus> {
    let Some(token) = token else {
        // Removing the annotation cancels the request.
        return before.map(|before| match before.state {
            RequestState::Running => ended(before, RequestState::Failed, "the annotation was removed".to_owned()),
            _ => before,
        });
    };
    let status = match before.filter(|before| before.request == token) {
        Some(before) if before.state != RequestState::Running => return Some(before),
        Some(before) => before,
        None => RequestStatus {
            request: token.to_owned(),
            state: RequestState::Running,
            started_at: Time(seconds(now)),
            message: None,
        },
    };
    Some(match run_of(token) {
        Some(run) if run.ended => {
            let state = if run.failed == 0 { RequestState::Done } else { RequestState::Failed };
            ended(status, state, summary(run))
        }
        _ if now >= status.started_at.0 + lasts => {
            let message = run_of(token).map_or_else(|| "it could not start in time".to_owned(), summary);
            ended(status, RequestState::Failed, message)
        }
        Some(run) => RequestStatus { message: run.doing.as_ref().map(progress), ..status },
        None => status,
    })
}

fn ended(status: RequestStatus, state: RequestState, message: String) -> RequestStatus {
    RequestStatus { state, message: Some(message), ..status }
}

fn run_status(run: &RunReport, runs: bool, report: Option<&MaintenanceReport>) -> MaintenanceRun {
    let left = report.map_or(0, |report| report.due_count);
    let state = match (runs, run.failed) {
        (true, _) => RequestState::Running,
        (false, 0) => RequestState::Done,
        (false, _) => RequestState::Failed,
    };
    let message = match &run.doing {
        Some(doing) if runs => progress(doing),
        _ if !runs && left > 0 => format!("{}; {left} are still due", summary(run)),
        _ => summary(run),
    };
    MaintenanceRun { started_at: Time(seconds(run.started_at)), state, message: Some(message) }
}

fn progress(doing: &crate::api::MaintenanceItem) -> String {
    format!("{:?} of {} ({})", doing.action, doing.object, doing.reason)
}

fn summary(run: &RunReport) -> String {
    let mut text = match run.completed {
        0 => NOTHING_DONE.to_owned(),
        1 => "1 was done".to_owned(),
        many => format!("{many} were done"),
    };
    if run.freed_bytes > 0 {
        text += &format!(", {} KiB freed", run.freed_bytes >> 10);
    }
    if let Some(failure) = run.failure.as_ref().filter(|_| run.failed > 0) {
        text += &format!("; {} failed or were broken off, the last: {failure}", run.failed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{MaintenanceAction, MaintenanceItem, MaintenanceWindow};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn declared(request: Option<&str>) -> Declared {
        let window = MaintenanceWindow { schedule: "0 3 * * SUN".to_owned(), duration_minutes: 120, time_zone: None };
        let windows = Windows::of(&[window], "u").expect("windows");
        Declared { windows, tasks: Tasks::default(), request: request.map(str::to_owned) }
    }

    fn report(run: Option<RunReport>) -> MaintenanceReport {
        let item = MaintenanceItem {
            action: MaintenanceAction::Vacuum,
            object: "public.t".to_owned(),
            reason: "9000 dead rows".to_owned(),
        };
        MaintenanceReport { due: vec![item], due_count: 1, run, ..MaintenanceReport::default() }
    }

    fn decided(
        declared: &Declared,
        now: &str,
        (recorded, report): (State, Option<&MaintenanceReport>),
        hindrance: Option<&str>,
    ) -> State {
        let hindrance = hindrance.map(str::to_owned);
        decide(&Known { declared, recorded: &recorded, report, hindrance, now: at(now) })
    }

    const BEFORE: &str = "2026-11-28T12:00:00Z";
    const WITHIN: &str = "2026-11-29T04:00:00Z";

    #[test]
    fn nothing_is_open_outside_of_a_window_and_status_says_what_would_be_due() {
        let report = report(None);
        let state = decided(&declared(None), BEFORE, (State::default(), Some(&report)), None);
        assert_eq!(state.desired.run, None);
        assert_eq!(state.status.next_window, Some(Time(at("2026-11-29T03:00:00Z"))));
        assert_eq!(state.again_at, Some(at("2026-11-29T03:00:00Z")));
        assert_eq!((state.status.due.len(), state.status.due_count), (1, Some(1)));
        let none = Declared::default();
        let state = decided(&none, WITHIN, (State::default(), Some(&report)), None);
        assert_eq!((state.desired.run, state.again_at, state.status.due_count), (None, None, Some(1)));
    }

    #[test]
    fn a_window_opens_one_run_that_ends_with_it() {
        let report = report(None);
        let state = decided(&declared(None), WITHIN, (State::default(), Some(&report)), None);
        let run = state.desired.run.expect("a run");
        assert_eq!((run.id.as_str(), run.until), ("window 2026-11-29T03:00:00Z", at("2026-11-29T05:00:00Z")));
        assert_eq!(state.again_at, Some(at("2026-11-29T05:00:00Z")));
        assert_eq!(state.status.waits_for, None);
    }

    #[test]
    fn what_excludes_it_withdraws_the_run_and_is_told() {
        let report = report(None);
        let state = decided(&declared(None), WITHIN, (State::default(), Some(&report)), Some("migrations run"));
        assert_eq!((state.desired.run, state.status.waits_for.as_deref()), (None, Some("migrations run")));
        let outside = decided(&declared(None), BEFORE, (State::default(), Some(&report)), Some("migrations run"));
        assert_eq!(outside.status.waits_for, None, "nothing waits");
    }

    #[test]
    fn a_run_that_is_withdrawn_for_a_while_has_not_ended() {
        let id = "window 2026-11-29T03:00:00Z".to_owned();
        let begun = RunReport { id, started_at: at("2026-11-29T03:00:00Z"), ..RunReport::default() };
        let report = report(Some(begun));
        let state = |now, hindrance| {
            let state = decided(&declared(None), now, (State::default(), Some(&report)), hindrance);
            state.status.last_run.expect("a run").state
        };
        assert_eq!(state(WITHIN, Some("migrations run")), RequestState::Running);
        assert_eq!(state("2026-11-29T05:00:00Z", None), RequestState::Done, "the window is over");
    }

    #[test]
    fn a_request_is_answered_once_whatever_the_windows() {
        let declared = declared(Some("t1"));
        let none = report(None);
        let state = decided(&declared, BEFORE, (State::default(), Some(&none)), None);
        let run = state.desired.run.clone().expect("a run");
        assert_eq!((run.id.as_str(), run.until), ("t1", at("2026-11-28T14:00:00Z")), "as long as the longest window");
        let started_at = at(BEFORE);
        let of = |completed, failed, ended| RunReport {
            id: "t1".to_owned(),
            started_at,
            completed,
            failed,
            ended,
            failure: (failed > 0).then(|| "public.t: it is locked".to_owned()),
            ..RunReport::default()
        };
        let running = report(Some(of(0, 0, false)));
        let state = decided(&declared, BEFORE, (state, Some(&running)), None);
        assert_eq!(state.status.last_run.as_ref().map(|run| run.state), Some(RequestState::Running));
        let done = report(Some(of(2, 0, true)));
        let after = decided(&declared, BEFORE, (state.clone(), Some(&done)), None);
        let answer = after.status.request.clone().expect("an answer");
        assert_eq!((answer.state, answer.message.as_deref()), (RequestState::Done, Some("2 were done")));
        assert_eq!(after.desired.run, None);
        assert!(after.status.last_run.expect("a run").message.expect("a message").contains("1 are still due"));
        let failed = report(Some(of(1, 1, true)));
        let after = decided(&declared, BEFORE, (state, Some(&failed)), None);
        let answer = after.status.request.clone().expect("an answer");
        assert_eq!(answer.state, RequestState::Failed);
        assert!(answer.message.expect("a message").ends_with("the last: public.t: it is locked"));
        // The same token is not worked for again.
        let later = State { status: after.status, ..State::default() };
        assert_eq!(decided(&declared, BEFORE, (later, Some(&none)), None).desired.run, None);
    }

    #[test]
    fn a_request_that_cannot_start_or_is_removed_has_failed() {
        let waiting = decided(&declared(Some("t1")), BEFORE, (State::default(), None), Some("the instances change"));
        assert_eq!(waiting.status.request.as_ref().map(|request| request.state), Some(RequestState::Running));
        let late = decided(&declared(Some("t1")), "2026-11-28T14:00:00Z", (waiting.clone(), None), None);
        assert_eq!(late.status.request.map(|request| request.state), Some(RequestState::Failed));
        let removed = decided(&declared(None), BEFORE, (waiting, None), None);
        assert_eq!(removed.status.request.map(|request| request.state), Some(RequestState::Failed));
    }

    #[test]
    fn a_primary_that_tells_nothing_is_named_and_what_was_known_stays() {
        let known = decided(&declared(None), BEFORE, (State::default(), Some(&report(None))), None);
        let state = decided(&declared(None), WITHIN, (known, None), None);
        assert!(state.status.waits_for.is_some_and(|why| why.contains("has not reported")));
        assert_eq!(state.status.due_count, Some(1));
    }
}
