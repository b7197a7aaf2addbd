//! Orders of the operator: hand the lead over, restart PostgreSQL. Patroni carries them out;
//! this pod's Patroni is asked, and the report says what came of it.

use std::time::Duration;

use tokio::time::Instant;

use super::desired::DesiredState;
use super::environment::Environment;
use super::patroni::rest::{Refusal, Rest, RestError};
use super::report::Reporter;
use crate::contract::order::{Action, Order, OrderReport};

/// For how long a handover that Patroni refuses for a reason that may pass is begun again.
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
        let stands =
            || state.borrow().as_ref().and_then(|desired| desired.order.as_ref()).is_some_and(|now| *now == order);
        let error = carry_out(&order, stands).await.err().map(|error| error.to_string());
        match &error {
            None => tracing::info!(id = ?order.id, "the order is done"),
            Some(error) => tracing::warn!(id = ?order.id, error, "the order cannot be done"),
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

/// Whether a handover that was refused is tried again.
struct Tries {
    until: Instant,
    came_about: bool,
}

impl Tries {
    fn from(now: Instant) -> Self {
        Self { until: now + PATIENCE, came_about: true }
    }

    /// What did not come about may have cost a moment without a primary, so that is tried once more and not again.
    fn again(&mut self, refusal: Option<Refusal>, now: Instant) -> bool {
        let another = match refusal {
            Some(Refusal::NotYet) => true,
            Some(Refusal::DidNotComeAbout) => std::mem::replace(&mut self.came_about, false),
            None => false,
        };
        another && now < self.until
    }
}

async fn hand_over(rest: &Rest, from: &str, to: &str, stands: impl Fn() -> bool) -> Result<(), RestError> {
    let mut tries = Tries::from(Instant::now());
    loop {
        let Err(error) = rest.switch_over(from, to).await else { return Ok(()) };
        if !tries.again(error.refusal(), Instant::now()) {
            return Err(error);
        }
        tracing::debug!(%error, "the lead is not handed over; trying again");
        // What people are told is why Patroni refused, whatever becomes of this.
        let _ = rest.wake().await;
        tokio::time::sleep(RETRY).await;
        if !stands() {
            return Err(error);
        }
    }
}

async fn carry_out(order: &Order, stands: impl Fn() -> bool) -> Result<(), RestError> {
    let rest = Rest::patient()?;
    match &order.action {
        Action::Switchover { from, to } => {
            tracing::info!(to, "handing the lead over");
            hand_over(&rest, from, to, stands).await
        }
        Action::Restart { .. } => {
            tracing::info!("restarting PostgreSQL");
            rest.restart().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_for_a_while_and_what_failed_once() {
        let now = Instant::now();
        let mut tries = Tries::from(now);
        assert!(!tries.again(None, now));
        assert!(tries.again(Some(Refusal::NotYet), now));
        assert!(tries.again(Some(Refusal::NotYet), now + PATIENCE / 2));
        assert!(tries.again(Some(Refusal::DidNotComeAbout), now));
        assert!(!tries.again(Some(Refusal::DidNotComeAbout), now));
        assert!(!tries.again(Some(Refusal::NotYet), now + PATIENCE));
    }
}
