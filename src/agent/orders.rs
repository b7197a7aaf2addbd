//! Orders of the operator: hand the lead over, restart PostgreSQL. Patroni carries them out;
//! this pod's Patroni is asked, and the report says what came of it.

use std::time::Duration;

use tokio::time::Instant;

use super::desired::DesiredState;
use super::environment::Environment;
use super::patroni::rest::{Rest, RestError};
use super::report::Reporter;
use crate::contract::order::{Action, Order, OrderReport};

/// How long it is tried to hand over a lead that Patroni keeps for a reason that may pass.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often.
const RETRY: Duration = Duration::from_millis(500);

/// Carries out the orders for this pod from now on.
pub async fn follow(environment: Environment, mut state: DesiredState, reporter: Reporter) {
    let order_of = |state: &mut DesiredState| {
        let desired = state.borrow_and_update().clone()?;
        desired.order.clone().filter(|order| order.action.pod() == environment.pod)
    };
    // What was ordered before this process started: PostgreSQL has been restarted with it, and a
    // lead that was to be handed over is no longer what it was.
    if let Some(order) = order_of(&mut state) {
        tell(&reporter, &order, already_answered(&order.action));
    }
    loop {
        if state.changed().await.is_err() {
            return std::future::pending().await;
        }
        let Some(order) = order_of(&mut state) else { continue };
        if reporter.has_answered(&order.id) {
            continue;
        }
        let error = carry_out(&order).await.err().map(|error| error.to_string());
        match &error {
            None => tracing::info!(cause = ?order.id.cause, "the order is done"),
            Some(error) => tracing::warn!(cause = ?order.id.cause, error, "the order cannot be done"),
        }
        tell(&reporter, &order, error);
    }
}

fn already_answered(action: &Action) -> Option<String> {
    match action {
        Action::Restart { .. } => None,
        Action::Switchover { .. } => Some("the instance was restarted meanwhile".to_owned()),
    }
}

fn tell(reporter: &Reporter, order: &Order, error: Option<String>) {
    reporter.update(|report| report.order = Some(OrderReport { id: order.id.clone(), error }));
}

async fn hand_over(rest: &Rest, from: &str, to: &str) -> Result<(), RestError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rest.switch_over(from, to).await {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                tracing::info!(%error, "the lead is not handed over; trying again");
                rest.wake().await?;
                tokio::time::sleep(RETRY).await;
            }
            result => return result,
        }
    }
}

async fn carry_out(order: &Order) -> Result<(), RestError> {
    let rest = Rest::patient()?;
    match &order.action {
        Action::Switchover { from, to } => {
            tracing::info!(to, "handing the lead over");
            hand_over(&rest, from, to).await
        }
        Action::Restart { .. } => {
            tracing::info!("restarting PostgreSQL");
            rest.restart().await
        }
    }
}
