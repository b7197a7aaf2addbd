//! Major upgrades: when one begins, its stages, and the way back. Each stage is in the desired state of the agents, so
//! no state is lost with the operator; until the last one nothing of the running database is changed.

mod adopted;
mod known;
pub mod rehearsal;
mod state;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{RequestState, RequestStatus, UpgradeAction, UpgradePhase, UpgradeStatus};
use crate::contract::upgrade::{Lineage, RehearsalRun, Rehearsed, Stage, Upgrade, UpgradeState};
use crate::operator::observe::pods::DatabasePod;
use crate::operator::status::condition::seconds;
pub use known::{ByItself, Known};
use rehearsal::Progress;
pub use state::{Exchange, State};
use state::{HOLD_PATIENCE, action, answer, fail, tell, token};

/// How many Jobs of a rehearsal may be ended from outside until the request fails.
const JOBS: u32 = 2;
/// How the token of an upgrade begins that a maintenance window began.
const IN_WINDOW: &str = "window ";
/// The shortest time for the last stage, in seconds: a volume is slower at times than in the rehearsal.
const SHORTEST_LIMIT: u64 = 120;
/// How many times as long as the rehearsal it may take.
const LIMIT_FACTOR: u64 = 5;
/// How long after that limit status has the way out.
const SWITCH_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Decides on the next stage.
pub fn decide(known: &Known<'_>, recorded: State) -> State {
    let mut state = State {
        desired: known.desired.cloned(),
        lineage: known.lineage.cloned().or(recorded.lineage),
        status: recorded.status,
    };
    if known.adopts && state.lineage.is_none() {
        adopt(known, &mut state);
    }
    let last = state.status.as_ref().and_then(|status| status.last_request.clone());
    let runs = last.as_ref().is_some_and(|last| last.state == RequestState::Running);
    let is_switching = state.desired.as_ref().is_some_and(|upgrade| upgrade.stage == Stage::Switch);
    let answered = state.status.as_ref().and_then(|status| status.answered_request.clone());
    let is_answered =
        |token: &String| last.as_ref().is_some_and(|last| last.request == *token) || answered.as_ref() == Some(token);
    let asked = known.request.filter(|request| !is_answered(&request.token));
    if is_switching || (runs && asked.is_none()) {
        // From the last stage on only the agent knows which data the volume has.
        advance(known, &mut state);
    } else if runs {
        fail(&mut state, "another one was requested meanwhile".to_owned());
        state.desired = None;
    } else if let Some(request) = asked {
        begin(known, &mut state, &request.token, &request.action);
    } else {
        state.desired = None;
        expire(known, &mut state);
        offer(known, &mut state);
    }
    state
}

/// Takes over what the adopted data says of its last upgrade: which data was left, and the way back to it.
fn adopt(known: &Known<'_>, state: &mut State) {
    let Some((lineage, former)) = adopted::lineage(known.pods, known.primary) else { return };
    let (name, major) = (known.name, lineage.major);
    let mut status = state.status.take().unwrap_or_else(|| {
        let (phase, message) = match &lineage.kept_by {
            Some(pod) => {
                let message = format!(
                    "the adopted database is of PostgreSQL {major} since {}; {pod} keeps the data from before: kubectl \
                     servicedb upgrade {name} --back returns to it, and loses what was written since; --finish removes it",
                    lineage.at
                );
                (UpgradePhase::Upgraded, Some(message))
            }
            None => (UpgradePhase::Finished, None),
        };
        let pending = UpgradeStatus::pending(i32::from(former.unwrap_or(major)), i32::from(major));
        UpgradeStatus { phase, message, ..pending }
    });
    status.switched_at = Some(Time(seconds(lineage.at)));
    status.left_system_identifier = Some(lineage.left.clone());
    status.system_identifier = Some(lineage.current.clone());
    status.kept_by.clone_from(&lineage.kept_by);
    (state.status, state.lineage) = (Some(status), Some(lineage));
}

/// Names the upgrade that the spec declares, or begins it where the policy says so.
fn offer(known: &Known<'_>, state: &mut State) {
    let Some(to) = known.upgrade_to else {
        // Withdrawn, or done.
        let is_pending = |status: &&mut UpgradeStatus| status.phase == UpgradePhase::Pending;
        match state.status.as_mut().filter(is_pending) {
            // Status has what is known of the upgrade before, or which request was answered.
            Some(status) if status.switched_at.is_some() || status.last_request.is_some() => {
                (status.to, status.phase) = (i32::from(known.major), UpgradePhase::Finished);
                status.message = None;
            }
            Some(_) => state.status = None,
            None => {}
        }
        return;
    };
    let (name, from) = (known.name, known.major);
    let is_of_this = |status: &&UpgradeStatus| (status.from, status.to) == (i32::from(from), i32::from(to));
    let before = state.status.as_ref().filter(is_of_this);
    // A failed one is not repeated for the same spec, nor one that was taken back.
    let was_tried = before.is_some_and(|before| before.phase != UpgradePhase::Pending);
    // The rehearsal, and the upgrade after it, as far as their time is known.
    let outage = before.and_then(|before| before.rehearsal_seconds).unwrap_or_default();
    let needed = outage + before.and_then(|before| before.rehearsal_job_seconds).unwrap_or(outage);
    let token = match known.by_itself {
        ByItself::Now => Some(format!("automatic {}", known.generation)),
        in_window if in_window.has(SignedDuration::from_secs(needed), known.now) => {
            Some(format!("{IN_WINDOW}{}", known.generation))
        }
        _ => None,
    };
    if let Some(token) = token.filter(|_| !was_tried && !is_kept(state)) {
        return begin(known, state, &token, &Ok(UpgradeAction::Start));
    }
    if before.is_some() {
        return;
    }
    // One that keeps the data from before it stays in status: the way back is its.
    if let Some(status) = state.status.as_mut().filter(|status| status.kept_by.is_some()) {
        let pod = status.kept_by.as_deref().unwrap_or_default();
        status.message = Some(format!(
            "spec.postgres.version is {to}, and {pod} still keeps the data from before the last upgrade: kubectl servicedb \
             upgrade {name} --finish removes it, and the upgrade to {to} can be requested; --back returns to it"
        ));
        return;
    }
    let makes = match known.by_itself {
        ByItself::InWindow(_) => "makes it before the next maintenance window",
        _ => "makes it",
    };
    let message = format!(
        "the data is of PostgreSQL {from}, and spec.postgres.version is {to}: kubectl servicedb upgrade {name} --check \
         rehearses the upgrade on a copy, and kubectl servicedb upgrade {name} {makes}; the database is unavailable \
         meanwhile"
    );
    let former = state.status.take();
    let pending = pending(former, state.lineage.is_some(), (i32::from(from), i32::from(to)));
    state.status = Some(UpgradeStatus { message: Some(message), ..pending });
}

/// A pending upgrade; what is known of the one before stays: which request was answered, and with a lineage which data was
/// left, and which holds.
fn pending(former: Option<UpgradeStatus>, has_lineage: bool, (from, to): (i32, i32)) -> UpgradeStatus {
    let new = UpgradeStatus::pending(from, to);
    match former {
        Some(former) if has_lineage => UpgradeStatus {
            from,
            to,
            phase: new.phase,
            rehearsal_seconds: None,
            rehearsed_backup: None,
            rehearsal_job_seconds: None,
            ..former
        },
        Some(UpgradeStatus { action, last_request, answered_request, .. }) => {
            UpgradeStatus { action, last_request, answered_request, ..new }
        }
        None => new,
    }
}

fn is_kept(state: &State) -> bool {
    state.lineage.as_ref().is_some_and(|lineage| lineage.kept_by.is_some())
}

fn begin(known: &Known<'_>, state: &mut State, token: &str, action: &Result<UpgradeAction, String>) {
    let run = RequestStatus {
        request: token.to_owned(),
        state: RequestState::Running,
        started_at: Time(seconds(known.now)),
        message: None,
    };
    let (from, to) = (known.major, known.upgrade_to.unwrap_or(known.major));
    let mut status = state.status.take().unwrap_or_else(|| UpgradeStatus::pending(i32::from(from), i32::from(to)));
    status.last_request = Some(run);
    // If it is not this one, it was answered before.
    status.answered_request = known.request.map(|request| request.token.clone()).or(status.answered_request);
    status.action = action.as_ref().ok().copied();
    state.status = Some(status);
    match action {
        Err(message) => answer(state, RequestState::Failed, message.clone()),
        Ok(UpgradeAction::Check | UpgradeAction::Start) => {
            if known.upgrade_to.is_none() {
                let message = format!(
                    "the data is of PostgreSQL {from}, and spec.postgres.version names no higher version: set it first"
                );
                return answer(state, RequestState::Failed, message);
            }
            if is_kept(state) {
                let name = known.name;
                let message = format!(
                    "the data from before the last upgrade is still kept: kubectl servicedb upgrade {name} --finish removes it"
                );
                return answer(state, RequestState::Failed, message);
            }
            if let Some(status) = &mut state.status {
                (status.from, status.to, status.phase) = (i32::from(from), i32::from(to), UpgradePhase::Rehearsing);
            }
            start(known, state);
        }
        Ok(UpgradeAction::Back) => start(known, state),
        Ok(UpgradeAction::Finish) => finish(known, state),
    }
}

/// Gives the former data up, as requested.
fn finish(known: &Known<'_>, state: &mut State) {
    let Some(pod) = give_up(state) else {
        return answer(state, RequestState::Failed, format!("{} keeps no data from before an upgrade", known.name));
    };
    answer(state, RequestState::Done, format!("{pod} removes the data from before the upgrade"));
}

/// Gives the former data up; returns the pod that kept it.
fn give_up(state: &mut State) -> Option<String> {
    let pod = state.lineage.as_mut()?.kept_by.take()?;
    if let Some(status) = &mut state.status {
        (status.phase, status.kept_by) = (UpgradePhase::Finished, None);
    }
    Some(pod)
}

/// Gives the former data up after its time, while the upgraded database serves.
fn expire(known: &Known<'_>, state: &mut State) {
    let is_over = |at: Timestamp| known.keep_former.is_some_and(|time| known.now.duration_since(at) >= time);
    let serves = known.primary.is_some();
    if !state.lineage.as_ref().is_some_and(|lineage| serves && is_over(lineage.at)) {
        return;
    }
    let Some(pod) = give_up(state) else { return };
    if let Some(status) = &mut state.status {
        status.message =
            Some(format!("{pod} removes the data from before the upgrade: spec.postgres.formerDataDays is over"));
    }
}

/// Whether a window began it, and no request.
fn began_in_window(known: &Known<'_>, state: &State) -> bool {
    let is_asked = |last: &RequestStatus| known.request.is_some_and(|request| request.token == last.request);
    token(state).is_some_and(|last| last.request.starts_with(IN_WINDOW) && !is_asked(last))
}

/// The window has no time left for what follows the rehearsal, which changed nothing.
fn postpone(known: &Known<'_>, state: &mut State, rehearsed: &str) {
    state.desired = None;
    if let Some(status) = &mut state.status {
        status.phase = UpgradePhase::Pending;
    }
    let message = format!(
        "{rehearsed}, which the maintenance window has not left: it begins again in the next one that is long enough for \
         both, and kubectl servicedb upgrade {} makes it now",
        known.name
    );
    answer(state, RequestState::Failed, message);
}

fn signed(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Begins the first stage as soon as nothing is in its way.
fn start(known: &Known<'_>, state: &mut State) {
    let is_back = action(state) == Some(UpgradeAction::Back);
    let silent: Vec<_> = known.pods.iter().filter(|pod| pod.report.is_none()).map(|pod| pod.name.as_str()).collect();
    if !silent.is_empty() {
        let silent = silent.join(", ");
        return tell(state, format!("waiting for {silent}, which cannot be stopped: its agent does not report"));
    }
    let Some(primary) = known.primary.filter(|_| known.busy.is_none()) else {
        return tell(state, format!("waiting for {}", known.busy.unwrap_or("a primary")));
    };
    let (from, to, stage) = if is_back {
        let name = known.name;
        let kept = state.lineage.clone().and_then(|lineage| Some((lineage.kept_by?, lineage.major)));
        let Some((pod, major)) = kept else {
            return answer(state, RequestState::Failed, format!("{name} keeps no data from before an upgrade"));
        };
        if pod != primary.name {
            let message = format!(
                "the data from before the upgrade is on {pod}, which is not the primary: kubectl servicedb switchover {name} \
                 --to {pod}, and request it again"
            );
            return answer(state, RequestState::Failed, message);
        }
        let recorded = state.status.as_ref().and_then(|status| u16::try_from(status.from).ok());
        let before = primary.report.as_ref().and_then(|report| report.former_major).or(recorded);
        let Some(before) = before.filter(|before| (1..major).contains(before)) else {
            let message = format!(
                "the volume of {pod} has no data of a version before {major} any more: kubectl servicedb upgrade {name} \
                 --finish forgets it"
            );
            return answer(state, RequestState::Failed, message);
        };
        (major, before, Stage::Hold)
    } else {
        let Some(to) = known.upgrade_to else {
            return fail(state, "spec.postgres.version was changed meanwhile".to_owned());
        };
        (known.major, to, Stage::Rehearse)
    };
    let lacks = |pod: &&DatabasePod| {
        pod.report.as_ref().is_none_or(|report| [from, to].iter().any(|major| !report.majors.contains(major)))
    };
    if let Some(pod) = known.pods.iter().find(lacks) {
        let message = format!(
            "the image of {} has not both PostgreSQL {from} and {to}: set postgres.images of the chart to one that has, and \
             approve the rollout (kubectl servicedb rollout {})",
            pod.name, known.name
        );
        return fail(state, message);
    }
    let request = token(state).map(|last| last.request.clone()).unwrap_or_default();
    let backup = known.backup.filter(|_| stage == Stage::Rehearse);
    let message = match (stage, backup) {
        (Stage::Rehearse, Some(backup)) => {
            format!("the Job {} restores the backup {backup} and upgrades it; the database serves", known.job_name)
        }
        (Stage::Rehearse, None) => format!("{} upgrades a copy of its data, and serves", primary.name),
        _ => "the other instances are being stopped".to_owned(),
    };
    state.desired = Some(Upgrade {
        // Another attempt has another id, so that no report of an earlier one counts.
        id: format!("{request} {}", known.now),
        pod: primary.name.clone(),
        from,
        to,
        stage,
        since: known.now,
        limit_seconds: SHORTEST_LIMIT,
        rehearsal: backup.map(|_| RehearsalRun { job: known.job_name.to_owned(), attempt: 1 }),
    });
    if let Some(status) = state.status.as_mut().filter(|_| stage == Stage::Hold) {
        status.phase = UpgradePhase::Stopping;
    }
    tell(state, message);
}

fn advance(known: &Known<'_>, state: &mut State) {
    let Some(current) = state.desired.clone() else {
        // An operator that ended before status had the result; or somebody removed the stage.
        let begun = token(state).map(|last| (format!("{} ", last.request), last.started_at.0));
        let is_of_this = |lineage: &Lineage| {
            begun.as_ref().is_some_and(|(token, at)| lineage.id.starts_with(token) && lineage.at >= *at)
        };
        let lineage = state.lineage.clone().filter(is_of_this);
        return match lineage.or_else(|| known.pods.iter().find_map(switched).filter(is_of_this)) {
            Some(lineage) => done(known, state, lineage),
            None => start(known, state),
        };
    };
    let pod = known.pods.iter().find(|pod| pod.name == current.pod);
    let reported = |pod: &DatabasePod| {
        let reported = pod.report.as_ref()?.upgrade.as_deref()?.clone();
        Some(reported.state).filter(|_| reported.id == current.id)
    };
    let answered = pod.and_then(reported);
    if let Some(UpgradeState::Failed { message }) = &answered {
        return fail(state, message.clone());
    }
    let leads = known.primary.map(|primary| primary.name.as_str());
    if current.stage != Stage::Switch {
        if !current.is_back() && known.upgrade_to != Some(current.to) {
            return fail(state, "spec.postgres.version was changed meanwhile".to_owned());
        }
        if let Some(leads) = leads.filter(|leads| *leads != current.pod) {
            if current.stage == Stage::Rehearse && current.rehearsal.is_some() {
                // A backup is of no pod; the new primary says whether its volume has room.
                state.desired = Some(Upgrade { pod: leads.to_owned(), ..current });
                return;
            }
            // Another primary has other data than what was rehearsed.
            state.desired = None;
            return start(known, state);
        }
    }
    match (current.stage, answered) {
        (Stage::Rehearse, answered) if current.rehearsal.is_some() => {
            // An earlier agent rehearses beside the Job.
            let has_room = matches!(answered, Some(UpgradeState::HasRoom | UpgradeState::Rehearsed(_)));
            follow_job(known, state, current, has_room);
        }
        (Stage::Rehearse, Some(UpgradeState::Rehearsed(found))) => rehearsed(known, state, current, &found, None),
        (Stage::Rehearse, _) => {}
        (Stage::Hold, _) => {
            let runs: Vec<_> = known
                .pods
                .iter()
                .filter(|pod| pod.name != current.pod && reported(pod) != Some(UpgradeState::Held))
                .map(|pod| pod.name.as_str())
                .collect();
            if runs.is_empty() && leads == Some(&current.pod) {
                if let Some(status) = &mut state.status {
                    status.phase = UpgradePhase::Switching;
                }
                tell(state, format!("{} exchanges its data directory", current.pod));
                state.desired = Some(Upgrade { stage: Stage::Switch, since: known.now, ..current });
            } else if known.now.duration_since(current.since) > HOLD_PATIENCE {
                let who = if runs.is_empty() {
                    "no instance leads any more".to_owned()
                } else {
                    format!(
                        "{} did not stop within {} s, and could continue with the former data: if its node is gone, delete \
                         the pod (kubectl delete pod --force), and request the upgrade again",
                        runs.join(", "),
                        HOLD_PATIENCE.as_secs()
                    )
                };
                fail(state, who);
            }
        }
        (Stage::Switch, Some(UpgradeState::Switched(lineage))) if leads == Some(&current.pod) => {
            done(known, state, lineage);
        }
        (Stage::Switch, answered) => {
            let since = known.now.duration_since(current.since);
            let limit = SignedDuration::from_secs(i64::try_from(current.limit_seconds).unwrap_or(i64::MAX / 4));
            if since > limit + SWITCH_PATIENCE {
                tell(state, stuck(&current, answered.is_some(), since));
            }
        }
    }
}

/// Follows the Job of a rehearsal.
fn follow_job(known: &Known<'_>, state: &mut State, current: Upgrade, has_room: bool) {
    let (Some(progress), Some(run)) = (known.job, current.rehearsal.clone()) else { return };
    let job = &run.job;
    match progress {
        Progress::Queued => tell(state, format!("the Job {job} waits for a slot of the store, which other Jobs use")),
        // Its creation may have been refused, with a message.
        Progress::Absent => {}
        Progress::Runs(hindrance) => {
            let hindrance = hindrance.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let message =
                format!("the Job {job} restores the newest backup and upgrades it; the database serves{hindrance}");
            tell(state, message);
        }
        Progress::Rehearsed { label, rehearsed: found } if has_room => {
            rehearsed(known, state, current, found, Some(label))
        }
        Progress::Rehearsed { .. } => {
            let pod = &current.pod;
            tell(state, format!("the Job {job} has ended; waiting for {pod} to report whether its volume has room"));
        }
        Progress::NotRestored(why) => {
            start(&Known { backup: None, ..*known }, state);
            let begun = state.desired.as_ref().filter(|upgrade| upgrade.rehearsal.is_none());
            if let Some(pod) = begun.map(|upgrade| upgrade.pod.clone()) {
                let message =
                    format!("no backup could be restored ({why}): {pod} upgrades a copy of its data, and serves");
                tell(state, message);
            }
        }
        Progress::Ended(why) if run.attempt < JOBS => {
            tell(state, format!("{why}; the Job {} repeats the rehearsal", known.job_name));
            let rehearsal = Some(RehearsalRun { job: known.job_name.to_owned(), attempt: run.attempt + 1 });
            state.desired = Some(Upgrade { since: known.now, rehearsal, ..current });
        }
        Progress::Ended(why) => {
            let message = format!(
                "the Job of the rehearsal was ended {JOBS} times, at last: {why}; see its events (kubectl describe job \
                 {job}), and spec.backup.resources if it was for its memory"
            );
            fail(state, message);
        }
        Progress::Failed(why) => fail(state, format!("the restored backup cannot be upgraded: {why}")),
    }
}

/// The rehearsal has succeeded: its result for a check, the next stage for an upgrade.
fn rehearsed(known: &Known<'_>, state: &mut State, current: Upgrade, found: &Rehearsed, backup: Option<&String>) {
    let seconds = found.seconds;
    if let Some(status) = &mut state.status {
        status.rehearsal_seconds = i64::try_from(seconds).ok();
        status.rehearsed_backup = backup.cloned();
        status.rehearsal_job_seconds = backup.map(|_| known.now.duration_since(current.since).as_secs());
    }
    let what = backup.map_or_else(|| "a copy was".to_owned(), |label| format!("the backup {label} was restored, and"));
    let message = format!(
        "{what} upgraded to PostgreSQL {} in {seconds} s, of which pg_upgrade took {} s: the database will be unavailable \
         for about as long",
        current.to, found.upgrade_seconds
    );
    if action(state) == Some(UpgradeAction::Check) {
        state.desired = None;
        if let Some(status) = &mut state.status {
            status.phase = UpgradePhase::Pending;
        }
        let message = format!("{message}; kubectl servicedb upgrade {} makes the upgrade", known.name);
        return answer(state, RequestState::Done, message);
    }
    if began_in_window(known, state) && !known.by_itself.has(signed(seconds), known.now) {
        return postpone(known, state, &message);
    }
    if let Some(status) = &mut state.status {
        status.phase = UpgradePhase::Stopping;
    }
    tell(state, format!("{message}; the other instances are being stopped"));
    let limit_seconds = SHORTEST_LIMIT.max(seconds.saturating_mul(LIMIT_FACTOR));
    state.desired = Some(Upgrade { stage: Stage::Hold, since: known.now, limit_seconds, rehearsal: None, ..current });
}

/// The switch lasts, since its pod does not lead: only its volume has the answer.
fn stuck(current: &Upgrade, has_switched: bool, since: SignedDuration) -> String {
    let pod = &current.pod;
    let state = if has_switched {
        format!("its data directory is that of PostgreSQL {}, and it does not lead", current.to)
    } else {
        "it has not reported since".to_owned()
    };
    format!(
        "{pod} exchanges its data directory since {} s: {state}; see kubectl logs {pod} -c database. If its volume is lost, \
         delete its PersistentVolumeClaim and the pod: the other instances then continue with the former data",
        since.as_secs()
    )
}

/// The lineage that a pod began.
fn switched(pod: &DatabasePod) -> Option<Lineage> {
    let reported = pod.report.as_ref()?.upgrade.as_deref()?.clone();
    let UpgradeState::Switched(lineage) = reported.state else { return None };
    Some(lineage)
}

fn done(known: &Known<'_>, state: &mut State, lineage: Lineage) {
    state.desired = None;
    let name = known.name;
    let is_back = action(state) == Some(UpgradeAction::Back);
    let at = lineage.at;
    if let Some(status) = &mut state.status {
        status.phase = if is_back { UpgradePhase::TakenBack } else { UpgradePhase::Upgraded };
        status.switched_at = Some(Time(seconds(at)));
        status.left_system_identifier = Some(lineage.left.clone());
        status.system_identifier = Some(lineage.current.clone());
        status.kept_by = lineage.kept_by.clone();
    }
    let major = lineage.major;
    let message = if is_back {
        format!(
            "the database is again that of PostgreSQL {major} from before the upgrade: set spec.postgres.version to \
             \"{major}\", or remove it; otherwise an upgrade is pending again"
        )
    } else {
        format!(
            "the database is of PostgreSQL {major} since {at}; {} keeps the data from before: kubectl servicedb upgrade {name} \
             --back returns to it, and loses what was written since; --finish removes it",
            lineage.kept_by.as_deref().unwrap_or_default()
        )
    };
    state.lineage = Some(lineage);
    answer(state, RequestState::Done, message);
}
