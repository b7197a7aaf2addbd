//! Requests by annotation: a switchover, a restart. Each token is answered once, in status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::needs::{Need, need, restart_id};
use super::situation::{Decision, OrderState, Situation};
use crate::api::{RequestState, RequestStatus};
use crate::contract::order::{Cause, OrderId};
use crate::contract::time::seconds;

/// Starts the requested switchover, or records its result.
pub fn switchover(situation: &Situation<'_>, order_state: &OrderState, decision: &mut Decision) {
    let Some(token) = &situation.database.switchover else { return cancel(&mut decision.switchover) };
    let before = situation.status.switchover.as_ref().filter(|status| status.request == *token);
    if before.is_some_and(|status| status.state != RequestState::Running) {
        return;
    }
    let id = OrderId::first(Cause::Switchover { request: token.clone() });
    let mut status = before.cloned().unwrap_or_else(|| begun(situation, token));
    // The order is kept for the agents until status has its result: it shows that the request was
    // started.
    let given = situation.observed.desired.as_ref().and_then(|desired| desired.order.as_ref());
    if let Some(order) = given.filter(|order| order.id == id) {
        decision.order = Some(order.clone());
        match order_state {
            OrderState::InProgress(_) => {}
            OrderState::Failed(_, error) => end(&mut status, RequestState::Failed, error.clone()),
            OrderState::Absent => {
                let leads = situation.observed.primary().map(|pod| pod.name.as_str()).unwrap_or_default();
                let done = match &situation.database.switchover_to {
                    Some(wanted) => leads == wanted,
                    None => leads != order.action.pod(),
                };
                let state = if done { RequestState::Done } else { RequestState::Failed };
                end(&mut status, state, format!("{leads} is the primary"));
            }
        }
    } else if !matches!(order_state, OrderState::InProgress(_)) {
        match situation.switchover(situation.database.switchover_to.as_deref()) {
            Ok(action) => decision.order = Some(situation.order(id, action)),
            Err(why) => end(&mut status, RequestState::Failed, why),
        }
    }
    decision.switchover = Some(status);
}

/// Starts the requested restart, or records its completion. The steps are the same as for a changed
/// setting.
pub fn restart(situation: &Situation<'_>, decision: &mut Decision) {
    let Some(token) = &situation.database.restart else { return cancel(&mut decision.restart) };
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

/// Removing the annotation cancels the request.
fn cancel(status: &mut Option<RequestStatus>) {
    if let Some(status) = status.as_mut().filter(|status| status.state == RequestState::Running) {
        end(status, RequestState::Failed, "the annotation was removed".to_owned());
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
