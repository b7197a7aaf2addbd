//! Limits by cost: each caller has an account of units, which fills with time and pays for the caller's statements. A unit
//! is one of PostgreSQL's planner, of which a page read in sequence costs one.
//!
//! The cost of a statement is that of its generic plan. It is read once for each shape of statement and caller, after the
//! first request with it has been answered: no request waits for a plan. Until it is known, what the shape's requests
//! cost is kept, and charged with it.

mod account;
mod shapes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use self::account::{Account, Rate};
use self::shapes::{Price, Shapes};
use crate::config::Limits;
use crate::problem::Problem;
use crate::sql::{Charge, Statement};

/// The code of a request that was refused since its caller's account is empty.
pub const LIMITED: &str = "SDB409";

/// The least that a statement costs, in units; the cost of one whose plan is not available.
pub const LEAST: f64 = 1.0;

/// The rows that the planner expects of a JSON array, whatever is in it (`pg_proc.prorows`).
const EXPECTED: f64 = 100.0;

/// The units that a statement costs in any case, and how often it costs those of its plan.
///
/// The plan of an insert is one for [`EXPECTED`] rows, and has no cost for writing them: that is one unit for each.
fn parts(charge: Charge) -> (f64, f64) {
    match charge {
        Charge::Nothing => (0.0, 0.0),
        Charge::Least => (LEAST, 0.0),
        Charge::Plan => (0.0, 1.0),
        Charge::Rows(rows) => (rows as f64, rows as f64 / EXPECTED),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    service: String,
}

/// See the module.
pub struct Costs {
    rate: Rate,
    state: Mutex<State>,
    charged: Family<Service, Counter<f64, AtomicU64>>,
    /// Whether the log has said that the server gives no generic plans.
    told: AtomicBool,
}

#[derive(Default)]
struct State {
    /// By caller: those of the settings, so their number is bounded.
    accounts: HashMap<Arc<str>, Account>,
    /// The highest cost that was answered, by caller, in units.
    highest: HashMap<Arc<str>, f64>,
    shapes: Shapes,
}

impl Costs {
    /// As the settings have it; none without a limit.
    pub fn new(limits: &Limits) -> Option<Arc<Self>> {
        let rate = Rate::new(limits.cost_per_second?, limits.cost_burst);
        Some(Arc::new(Self { rate, state: Mutex::default(), charged: Family::default(), told: AtomicBool::new(false) }))
    }

    /// Adds the metric of what was charged.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("cost", "Units of the planner's cost charged, by service", self.charged.clone());
    }

    /// Whether a caller's request may begin: while its account has anything left, however much the request costs.
    ///
    /// # Errors
    /// 429 with the seconds until the account has something again.
    pub fn admit(&self, caller: &Arc<str>) -> Result<(), Problem> {
        let now = Instant::now();
        let mut state = self.lock();
        // A caller without an account has not spent anything.
        let Some(account) = state.accounts.get_mut(caller) else { return Ok(()) };
        account.admits(self.rate, now).map_err(limited)
    }

    /// Charges a statement that is about to run. If its plan is not known, or only one of before, it is to be asked for.
    pub(crate) fn charge(self: &Arc<Self>, caller: &Arc<str>, statement: &Statement, generation: u64) -> Option<Ask> {
        let (fixed, share) = parts(statement.charge);
        if share == 0.0 {
            self.spend(&mut self.lock(), caller, fixed);
            return None;
        }
        let mut state = self.lock();
        let key = state.shapes.key(caller, &statement.sql);
        let (price, is_wanted) = state.shapes.price(key, share, generation, Instant::now());
        let units = match price {
            Price::Known(cost) => fixed + share * cost,
            Price::Later => fixed,
        };
        self.spend(&mut state, caller, units);
        is_wanted.then(|| {
            let (costs, caller) = (Arc::clone(self), Arc::clone(caller));
            Ask { costs, caller, key, sql: statement.sql.clone(), generation, cost: None, otherwise: LEAST }
        })
    }

    fn spend(&self, state: &mut State, caller: &Arc<str>, units: f64) {
        if units <= 0.0 {
            return;
        }
        let (now, rate) = (Instant::now(), self.rate);
        let account = state.accounts.entry(Arc::clone(caller)).or_insert_with(|| Account::full(rate, now));
        account.spend(rate, now, units);
        self.charged.get_or_create(&Service { service: caller.to_string() }).inc_by(units);
    }

    /// Whether the log is to say that the server gives no generic plans: once.
    pub(crate) fn is_untold(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The question for the cost of a shape. Nobody else asks it in the next second. If it is dropped without an answer, what
/// the shape's requests cost until then is charged as the least.
pub(crate) struct Ask {
    costs: Arc<Costs>,
    caller: Arc<str>,
    key: u64,
    sql: String,
    generation: u64,
    /// The answer, in units.
    cost: Option<f64>,
    /// What is charged without one, in units.
    otherwise: f64,
}

impl Ask {
    /// The statement.
    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    /// Those that ask share it.
    pub(crate) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// It costs so many units.
    pub(crate) fn answer(mut self, cost: f64) {
        self.cost = Some(cost.max(LEAST));
    }

    /// It cannot be answered, and that may be its caller's doing: charged as the caller's dearest shape, and asked again
    /// by the next request.
    pub(crate) fn presume(mut self) {
        let highest = self.costs.lock().highest.get(&self.caller).copied();
        self.otherwise = highest.unwrap_or(LEAST);
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        let mut state = self.costs.lock();
        let shares = state.shapes.answer(self.key, self.cost, self.generation, Instant::now());
        if let Some(cost) = self.cost {
            let highest = state.highest.entry(Arc::clone(&self.caller)).or_insert(LEAST);
            *highest = highest.max(cost);
        }
        self.costs.spend(&mut state, &self.caller, shares * self.cost.unwrap_or(self.otherwise));
    }
}

fn limited(wait: Duration) -> Problem {
    let message = "the requests of this caller have cost more than it may spend at present";
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, LIMITED, message)
        .hint("repeat the request after Retry-After; a filter that an index serves, and a limit, cost less");
    problem.retry_after = Some(wait.as_secs() + 1);
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(per_second: u64) -> Arc<Costs> {
        Costs::new(&Limits { cost_per_second: Some(per_second), ..Limits::default() }).expect("a limit")
    }

    fn statement(sql: &str, charge: Charge) -> Statement {
        Statement::plain(sql, charge)
    }

    fn spent(costs: &Costs, caller: &str) -> f64 {
        costs.charged.get_or_create(&Service { service: caller.to_owned() }).get()
    }

    #[test]
    fn a_shape_is_asked_for_once_and_charged_afterwards() {
        let (costs, caller) = (costs(10), Arc::<str>::from("shop/app"));
        let read = statement("SELECT 1", Charge::Plan);
        let ask = costs.charge(&caller, &read, 0).expect("it is not known");
        assert!(costs.charge(&caller, &read, 0).is_none(), "it is being asked for");
        assert_eq!(spent(&costs, "shop/app"), 0.0);
        ask.answer(40.0);
        assert_eq!(spent(&costs, "shop/app"), 80.0, "of both");
        assert!(costs.admit(&caller).is_ok());
        assert!(costs.charge(&caller, &read, 0).is_none());
        assert_eq!(spent(&costs, "shop/app"), 120.0);
        let problem = costs.admit(&caller).expect_err("more than a burst");
        assert_eq!((problem.status.as_u16(), problem.code.as_str()), (429, LIMITED));
        assert_eq!(problem.retry_after, Some(2), "20 units of 10 a second");
        assert!(costs.admit(&Arc::from("shop/reader")).is_ok(), "another caller's account is its own");
        // A changed schema: charged as before, and asked for again.
        let again = costs.charge(&caller, &read, 1).expect("it may cost something else by now");
        assert_eq!(spent(&costs, "shop/app"), 160.0);
        drop(again);
        assert_eq!(spent(&costs, "shop/app"), 160.0, "there was nothing to be charged later");
        assert!(costs.charge(&caller, &read, 1).is_some(), "without an answer it is asked for again");
    }

    #[test]
    fn what_cannot_be_answered_costs_as_much_as_the_dearest() {
        let (costs, caller) = (costs(10), Arc::<str>::from("shop/app"));
        let (cheap, deep) = (statement("SELECT 1", Charge::Plan), statement("SELECT 2", Charge::Plan));
        let ask = |read: &Statement| costs.charge(&caller, read, 0).expect("it is not known");
        ask(&deep).presume();
        assert_eq!(spent(&costs, "shop/app"), LEAST, "nothing is known");
        ask(&cheap).answer(40.0);
        ask(&statement("SELECT 3", Charge::Plan)).answer(20.0);
        assert_eq!(spent(&costs, "shop/app"), LEAST + 60.0);
        ask(&deep).presume();
        assert_eq!(spent(&costs, "shop/app"), LEAST + 100.0);
        assert!(costs.charge(&caller, &deep, 0).is_some(), "it is asked for again");
    }

    #[test]
    fn what_has_no_plan_of_its_own() {
        let (costs, caller) = (costs(10), Arc::<str>::from("shop/app"));
        assert!(costs.charge(&caller, &statement("SELECT 1", Charge::Nothing), 0).is_none());
        assert_eq!(spent(&costs, "shop/app"), 0.0);
        assert!(costs.charge(&caller, &statement("EXPLAIN", Charge::Least), 0).is_none());
        assert_eq!(spent(&costs, "shop/app"), LEAST);
        // An insert: each row, and its share of a plan for a hundred.
        let insert = statement("INSERT", Charge::Rows(50));
        costs.charge(&caller, &insert, 0).expect("it is not known").answer(10.0);
        assert_eq!(spent(&costs, "shop/app"), LEAST + 50.0 + 5.0);
        // An unanswered question is charged as the least.
        drop(costs.charge(&caller, &statement("SELECT 2", Charge::Plan), 0));
        assert_eq!(spent(&costs, "shop/app"), LEAST + 50.0 + 5.0 + LEAST);
    }
}
