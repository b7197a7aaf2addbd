//! Orders of the operator: hand the lead over, restart PostgreSQL. This pod's Patroni executes them,
//! and the report has the result.

use std::time::Duration;

use tokio::time::Instant;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::rest::{Rest, RestError, TransientRefusal};
use super::report::Reporter;
use crate::contract::order::{Action, Order, OrderReport};

/// How long a handover is retried that Patroni refuses for a transient reason.
const PATIENCE: Duration = Duration::from_secs(12);
/// Interval between two attempts.
const RETRY: Duration = Duration::from_millis(500);

/// Executes the orders for this pod from now on.
pub async fn follow(environment: Environment, mut state: DesiredState, reporter: Reporter) {
    let order_of = |state: &mut DesiredState| {
        let desired = state.borrow_and_update().clone()?;
        desired.order.clone().filter(|order| order.action.pod() == environment.pod)
    };
    // An order from before this process started: PostgreSQL has been restarted with it, and the state that
    // a switchover was ordered for is past.
    if let Some(order) = order_of(&mut state) {
        report(&reporter, &order, result_of_start(&order.action));
    }
    loop {
        desired::changed(&mut state).await;
        let Some(order) = order_of(&mut state) else { continue };
        if reporter.has_answered(&order.id) {
            continue;
        }
        let stands =
            || state.borrow().as_ref().and_then(|desired| desired.order.as_ref()).is_some_and(|now| *now == order);
        let error = execute(&order, stands).await.err().map(|error| error.to_string());
        match &error {
            None => tracing::info!(id = ?order.id, "the order is executed"),
            Some(error) => tracing::warn!(id = ?order.id, error, "the order failed"),
        }
        report(&reporter, &order, error);
    }
}

fn result_of_start(action: &Action) -> Option<String> {
    match action {
        Action::Restart { .. } => None,
        Action::Switchover { .. } => Some("the instance was restarted meanwhile".to_owned()),
    }
}

fn report(reporter: &Reporter, order: &Order, error: Option<String>) {
    reporter.update(|report| report.order = Some(OrderReport { id: order.id.clone(), error }));
}

/// The attempts at a handover.
struct Attempts {
    until: Instant,
    /// Whether none was accepted and failed yet.
    may_fail: bool,
}

impl Attempts {
    fn from(now: Instant) -> Self {
        Self { until: now + PATIENCE, may_fail: true }
    }

    /// Whether the handover is tried again. One that was accepted and failed may have cost a moment without
    /// a primary, so it is tried once more only.
    fn again(&mut self, refusal: Option<TransientRefusal>, now: Instant) -> bool {
        let another = match refusal {
            Some(TransientRefusal::NotYet) => true,
            Some(TransientRefusal::Failed) => std::mem::replace(&mut self.may_fail, false),
            None => false,
        };
        another && now < self.until
    }
}

async fn hand_over(rest: &Rest, from: &str, to: &str, stands: impl Fn() -> bool) -> Result<(), RestError> {
    let mut attempts = Attempts::from(Instant::now());
    loop {
        let Err(error) = rest.switch_over(from, to).await else { return Ok(()) };
        if !attempts.again(error.transient_refusal(), Instant::now()) {
            return Err(error);
        }
        tracing::debug!(%error, "the lead is not handed over; retrying");
        // The report has the reason of Patroni's refusal, so an error here is not needed.
        let _ = rest.wake().await;
        tokio::time::sleep(RETRY).await;
        if !stands() {
            return Err(error);
        }
    }
}

async fn execute(order: &Order, stands: impl Fn() -> bool) -> Result<(), RestError> {
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
    fn a_transient_refusal_is_retried_for_a_while_and_a_failed_handover_once() {
        let now = Instant::now();
        let mut attempts = Attempts::from(now);
        assert!(!attempts.again(None, now));
        assert!(attempts.again(Some(TransientRefusal::NotYet), now));
        assert!(attempts.again(Some(TransientRefusal::NotYet), now + PATIENCE / 2));
        assert!(attempts.again(Some(TransientRefusal::Failed), now));
        assert!(!attempts.again(Some(TransientRefusal::Failed), now));
        assert!(!attempts.again(Some(TransientRefusal::NotYet), now + PATIENCE));
    }
}
