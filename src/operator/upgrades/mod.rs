//! Major upgrades: when one begins, its stages, and the way back. Each stage is in the desired state of the agents, so
//! no state is lost with the operator; until the last one nothing of the running database is changed.

mod adopted;
mod afterwards;
mod history;
mod known;
pub mod rehearsal;
mod stages;
mod state;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{RequestState, RequestStatus, UpgradeAction, UpgradePhase, UpgradeStatus};
use crate::contract::time::seconds;
use crate::contract::upgrade::Stage;
use crate::contract::upgrade_step::refusal;
use afterwards::{refresh, removes};
use known::IN_WINDOW;
pub use known::{ByItself, Known};
use stages::{advance, start};
pub use state::{Exchange, State};
use state::{answer, fail};

/// Decides on the next stage.
pub fn decide(known: &Known<'_>, recorded: State) -> State {
    let mut state = State {
        desired: known.desired.cloned(),
        lineage: known.lineage.cloned().or(recorded.lineage),
        status: recorded.status,
        left: recorded.left,
    };
    if known.adopts {
        adopted::take_over(known, &mut state);
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
        refresh(known, &mut state);
    }
    // Every upgrade and every way back ends here, also one whose result only the agents' document has.
    history::note(&mut state.left, state.lineage.as_ref(), state.status.as_ref());
    state
}

/// Names the upgrade that the spec declares, or begins it where the policy says so.
fn offer(known: &Known<'_>, state: &mut State) {
    let Some(to) = known.upgrade_to else {
        // Withdrawn, or done.
        let is_pending = |status: &&mut UpgradeStatus| status.phase == UpgradePhase::Pending;
        match state.status.as_mut().filter(is_pending) {
            // Status has what is known of the upgrade before, or which request was answered.
            Some(status) if status.switched_at.is_some() || status.last_request.is_some() => {
                let was_made = status.switched_at.is_some();
                status.phase = if was_made { UpgradePhase::Finished } else { UpgradePhase::None };
                status.to = i32::from(known.major);
                status.message = None;
            }
            Some(_) => state.status = None,
            None => {}
        }
        return;
    };
    let (name, from) = (known.names.in_commands(), known.major);
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
    let mut status = state.status.take().unwrap_or_else(|| {
        let pending = UpgradeStatus::pending(i32::from(from), i32::from(to));
        let phase = if known.upgrade_to.is_some() { pending.phase } else { UpgradePhase::None };
        UpgradeStatus { phase, ..pending }
    });
    status.last_request = Some(run);
    // If it is not this one, it was answered before.
    status.answered_request = known.request.map(|request| request.token.clone()).or(status.answered_request);
    status.action = action.as_ref().ok().copied();
    state.status = Some(status);
    match action {
        Err(message) => answer(state, RequestState::Failed, message.clone()),
        Ok(UpgradeAction::Check | UpgradeAction::Start) => {
            if let Some(refusal) = refusal(UpgradeAction::Start, &known.facts(state)) {
                return answer(state, RequestState::Failed, refusal);
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
    if let Some(refusal) = refusal(UpgradeAction::Finish, &known.facts(state)) {
        return answer(state, RequestState::Failed, refusal);
    }
    let Some(pod) = give_up(state) else { return };
    answer(state, RequestState::Done, removes(&pod));
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
        status.message = Some(format!("{}: spec.postgres.formerDataDays is over", removes(&pod)));
    }
}
