//! The stages of an upgrade, and of the way back: which one follows, and what ends them.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::afterwards::taken_back;
use super::known::{IN_WINDOW, Known};
use super::rehearsal::Progress;
use super::state::{HOLD_PATIENCE, State, action, answer, fail, tell, token};
use crate::api::{RequestState, RequestStatus, UpgradeAction, UpgradePhase};
use crate::contract::time::seconds;
use crate::contract::upgrade::{Lineage, RehearsalRun, Rehearsed, RehearsedTimes, Stage, Upgrade, UpgradeState};
use crate::contract::upgrade_step::refusal;
use crate::operator::observe::pods::DatabasePod;

/// How many Jobs of a rehearsal may be ended from outside until the request fails.
const JOBS: u32 = 2;
/// After this time in which a Job waits for a slot, its stage begins anew: the time until it exists does not count.
const QUEUES: SignedDuration = SignedDuration::from_mins(15);
/// The shortest time for the last stage, in seconds: a volume is slower at times than in the rehearsal.
const SHORTEST_LIMIT: u64 = 120;
/// How many times as long as the rehearsal it may take.
const LIMIT_FACTOR: u64 = 5;
/// How long after that limit status has the way out.
const SWITCH_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Begins the first stage as soon as nothing is in its way.
pub fn start(known: &Known<'_>, state: &mut State) {
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
        if let Some(refusal) = refusal(UpgradeAction::Back, &known.facts(state)) {
            return answer(state, RequestState::Failed, refusal);
        }
        let kept = state.lineage.clone().and_then(|lineage| Some((lineage.kept_by?, lineage.major)));
        let Some((pod, major)) = kept else { return };
        let recorded = state.status.as_ref().and_then(|status| u16::try_from(status.from).ok());
        let before = primary.report.as_ref().and_then(|report| report.former_major).or(recorded);
        let Some(before) = before.filter(|before| (1..major).contains(before)) else {
            let message = format!(
                "the volume of {pod} has no data of a version before {major} any more: kubectl servicedb upgrade {} \
                 --finish forgets it",
                known.names.in_commands()
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
            pod.name,
            known.names.in_commands()
        );
        return fail(state, message);
    }
    let request = token(state).map(|last| last.request.clone()).unwrap_or_default();
    let backup = known.backup.filter(|_| stage == Stage::Rehearse);
    let message = match (stage, backup) {
        (Stage::Rehearse, Some((backup, _))) => {
            format!("the Job {} restores the backup {backup} and upgrades it; the database serves", known.job_name)
        }
        (Stage::Rehearse, None) => format!("{} upgrades a copy of its data, and serves", primary.name),
        _ if known.pods.len() > 1 => "the other instances are being stopped".to_owned(),
        _ => format!("{} exchanges its data directory", primary.name),
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
        rehearsal: backup.map(|(_, store)| RehearsalRun {
            job: known.job_name.to_owned(),
            attempt: 1,
            store: Some(store.to_owned()),
        }),
        warnings: Vec::new(),
        rehearsed: None,
    });
    if let Some(status) = state.status.as_mut().filter(|_| stage == Stage::Hold) {
        status.phase = UpgradePhase::Stopping;
    }
    tell(state, message);
}

/// Goes from the stage that the agents know to the next one, or to the result.
pub fn advance(known: &Known<'_>, state: &mut State) {
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
    recall(state, &current);
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
                         the pod (kubectl delete pod {} -n {} --force), and request the upgrade again",
                        runs.join(", "),
                        HOLD_PATIENCE.as_secs(),
                        runs.join(" "),
                        known.names.namespace
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
                tell(state, stuck(&current, &known.names.namespace, answered.is_some(), since));
            }
        }
    }
}

/// Follows the Job of a rehearsal.
fn follow_job(known: &Known<'_>, state: &mut State, current: Upgrade, has_room: bool) {
    let (Some(progress), Some(run)) = (known.job, current.rehearsal.clone()) else { return };
    let job = &run.job;
    match progress {
        Progress::Queued => {
            tell(state, format!("the Job {job} waits for a slot of the store, which other Jobs use"));
            if known.now.duration_since(current.since) > QUEUES {
                state.desired = Some(Upgrade { since: known.now, ..current });
            }
        }
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
            let (job, attempt) = (known.job_name.to_owned(), run.attempt + 1);
            let rehearsal = Some(RehearsalRun { job, attempt, ..run });
            state.desired = Some(Upgrade { since: known.now, rehearsal, ..current });
        }
        Progress::Ended(why) => {
            let message = format!(
                "the Job of the rehearsal was ended {JOBS} times, at last: {why}; see its events (kubectl describe job \
                 {job} -n {}), and spec.backup.resources if it was for its memory",
                known.names.namespace
            );
            fail(state, message);
        }
        Progress::Failed(why) => fail(state, format!("the restored backup cannot be upgraded: {why}")),
    }
}

/// The rehearsal has succeeded: its result for a check, the next stage for an upgrade.
fn rehearsed(known: &Known<'_>, state: &mut State, current: Upgrade, found: &Rehearsed, backup: Option<&String>) {
    let seconds = found.seconds;
    let times = RehearsedTimes {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        backup: backup.cloned(),
        job_seconds: backup.map(|_| known.now.duration_since(current.since).as_secs()),
    };
    record(state, &times);
    let what = backup.map_or_else(|| "a copy was".to_owned(), |label| format!("the backup {label} was restored, and"));
    let message = format!(
        "{what} upgraded to PostgreSQL {} in {seconds} s, of which pg_upgrade took {} s: the database will be unavailable \
         for about as long{}",
        current.to,
        found.upgrade_seconds,
        warned(&found.warnings)
    );
    if action(state) == Some(UpgradeAction::Check) {
        state.desired = None;
        if let Some(status) = &mut state.status {
            status.phase = UpgradePhase::Pending;
        }
        let message = format!("{message}; kubectl servicedb upgrade {} makes the upgrade", known.names.in_commands());
        return answer(state, RequestState::Done, message);
    }
    if began_in_window(known, state) && !known.by_itself.has(signed(seconds), known.now) {
        return postpone(known, state, &message);
    }
    if let Some(status) = &mut state.status {
        status.phase = UpgradePhase::Stopping;
    }
    let stopping = if known.pods.len() > 1 { "; the other instances are being stopped" } else { "" };
    tell(state, format!("{message}{stopping}"));
    let limit_seconds = SHORTEST_LIMIT.max(seconds.saturating_mul(LIMIT_FACTOR));
    // The messages of the next stages replace this one.
    let warnings = found.warnings.clone();
    let (stage, since, rehearsed) = (Stage::Hold, known.now, Some(times));
    state.desired = Some(Upgrade { stage, since, limit_seconds, rehearsal: None, warnings, rehearsed, ..current });
}

/// Status as it was to be when the stage began: the operator may have ended, or been refused, between the two.
fn recall(state: &mut State, current: &Upgrade) {
    if let Some(times) = &current.rehearsed {
        record(state, times);
    }
    if let Some(status) = &mut state.status {
        status.phase = match current.stage {
            Stage::Rehearse => UpgradePhase::Rehearsing,
            Stage::Hold => UpgradePhase::Stopping,
            Stage::Switch => UpgradePhase::Switching,
        };
    }
}

fn record(state: &mut State, times: &RehearsedTimes) {
    if let Some(status) = &mut state.status {
        status.rehearsal_seconds = Some(times.seconds);
        status.rehearsed_backup.clone_from(&times.backup);
        status.rehearsal_job_seconds = times.job_seconds;
    }
}

/// The warnings of a rehearsal, as the next part of a message.
fn warned(warnings: &[String]) -> String {
    warnings.iter().map(|warning| format!("; {warning}")).collect()
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
        known.names.in_commands()
    );
    answer(state, RequestState::Failed, message);
}

fn signed(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The switch lasts, since its pod does not lead: only its volume has the answer.
fn stuck(current: &Upgrade, namespace: &str, has_switched: bool, since: SignedDuration) -> String {
    let pod = &current.pod;
    let state = if has_switched {
        format!("its data directory is that of PostgreSQL {}, and it does not lead", current.to)
    } else {
        "it has not reported since".to_owned()
    };
    format!(
        "{pod} exchanges its data directory since {} s: {state}; see kubectl logs {pod} -n {namespace} -c database. If \
         its volume is lost, delete its PersistentVolumeClaim and the pod: the other instances then continue with the former data",
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
    let name = known.names.in_commands();
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
        // Spec still names the version that was left: only its data is of a lower one again.
        taken_back(major, true)
    } else {
        format!(
            "the database is of PostgreSQL {major} since {at}; {} keeps the data from before: kubectl servicedb upgrade {name} \
             --back returns to it, and loses what was written since; --finish removes it{}",
            lineage.kept_by.as_deref().unwrap_or_default(),
            known.desired.map(|upgrade| warned(&upgrade.warnings)).unwrap_or_default()
        )
    };
    state.lineage = Some(lineage);
    answer(state, RequestState::Done, message);
}
