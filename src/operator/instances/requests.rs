//! What people ask for by annotation: a switchover, a restart. Each token is answered once, in
//! status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::needs::{Need, need, restart_id};
use super::situation::{Decision, Ordered, Situation};
use crate::api::{RequestState, RequestStatus};
use crate::contract::order::{Cause, OrderId};
use crate::operator::status::condition::seconds;

/// Takes up the switchover that is asked for, or says what became of it.
pub fn switchover(situation: &Situation<'_>, ordered: &Ordered, decision: &mut Decision) {
    let Some(token) = &situation.database.switchover else { return take_back(&mut decision.switchover) };
    let before = situation.status.switchover.as_ref().filter(|status| status.request == *token);
    if before.is_some_and(|status| status.state != RequestState::Running) {
        return;
    }
    let id = OrderId::first(Cause::Switchover { request: token.clone() });
    let mut status = before.cloned().unwrap_or_else(|| begun(situation, token));
    // The order stays where the agents see it until status has told its end: by it the request
    // is known to have been taken up.
    let given = situation.observed.desired.as_ref().and_then(|desired| desired.order.as_ref());
    if let Some(order) = given.filter(|order| order.id == id) {
        decision.order = Some(order.clone());
        match ordered {
            Ordered::Open(_) => {}
            Ordered::Failed(_, error) => end(&mut status, RequestState::Failed, error.clone()),
            Ordered::Nothing => {
                let leads = situation.observed.primary().map(|pod| pod.name.as_str()).unwrap_or_default();
                let done = match &situation.database.switchover_to {
                    Some(wanted) => leads == wanted,
                    None => leads != order.action.pod(),
                };
                let state = if done { RequestState::Done } else { RequestState::Failed };
                end(&mut status, state, format!("{leads} is the primary"));
            }
        }
    } else if !matches!(ordered, Ordered::Open(_)) {
        match situation.switchover(situation.database.switchover_to.as_deref()) {
            Ok(action) => decision.order = Some(situation.order(id, action)),
            Err(why) => end(&mut status, RequestState::Failed, why),
        }
    }
    decision.switchover = Some(status);
}

/// Takes up the restart that is asked for, or says that it is done. The steps are the same as
/// for a changed setting.
pub fn restart(situation: &Situation<'_>, decision: &mut Decision) {
    let Some(token) = &situation.database.restart else { return take_back(&mut decision.restart) };
    let before = situation.status.restart.as_ref().filter(|status| status.request == *token);
    if before.is_some_and(|status| status.state != RequestState::Running) {
        return;
    }
    let mut status = before.cloned().unwrap_or_else(|| begun(situation, token));
    let id = restart_id(token);
    let answers = situation.members().filter_map(|pod| pod.report.as_ref()?.order.as_ref());
    if let Some(error) = answers.filter(|answer| answer.id == id).find_map(|answer| answer.error.clone()) {
        end(&mut status, RequestState::Failed, error);
    } else {
        let trial = Decision { restart: Some(status.clone()), ..Decision::default() };
        let waits = |need: Need| need == Need::Restart(id.clone()) || need == Need::Replacement;
        let members = || situation.members().filter(|pod| pod.report.is_some());
        let waiting = members().filter_map(|pod| need(situation, &trial, pod)).any(waits);
        let all_there = i32::try_from(members().count()) == Ok(situation.database.instances);
        if all_there && !waiting && before.is_some() {
            end(&mut status, RequestState::Done, "PostgreSQL was restarted on every instance".to_owned());
        }
    }
    decision.restart = Some(status);
}

/// Whoever takes the annotation off does not want it any more.
fn take_back(status: &mut Option<RequestStatus>) {
    if let Some(status) = status.as_mut().filter(|status| status.state == RequestState::Running) {
        end(status, RequestState::Failed, "the annotation was taken off".to_owned());
    }
}

fn begun(situation: &Situation<'_>, token: &str) -> RequestStatus {
    RequestStatus {
        request: token.to_owned(),
        state: RequestState::Running,
        started_at: Time(seconds(situation.now)),
        message: None,
    }
}

fn end(status: &mut RequestStatus, state: RequestState, message: String) {
    (status.state, status.message) = (state, Some(message));
}
