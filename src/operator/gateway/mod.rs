//! The data gateway: whether its pods serve, its certificates, and its objects.

mod observe;
pub mod spec;

use super::apply::failures::Failures;
use super::context::Context;
use super::context::cache::Front;
use super::context::error::Error;
use super::observe::Observation;
use super::plan;
use super::status::condition::ConditionState;
use super::tls::front;
use super::validate::Database;
use crate::api::GatewayStatus;
use crate::api::conditions::reason;
use crate::contract::gateway::{BASE_PATH, audience};

use jiff::Timestamp;

/// The findings about the gateway.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whether objects of a gateway may exist, declared or not.
    exists: bool,
    /// Who issues the tokens of its callers; none without a gateway, and where it is not known.
    issuer: Option<String>,
    /// The authorities of the database, PEM.
    authorities: String,
    /// For status; none without a gateway.
    pub status: Option<GatewayStatus>,
    /// Why it does not serve; none if it does.
    pub trouble: Option<ConditionState>,
}

impl State {
    /// Applies the gateway's objects; without a declared one, removes those that may exist. `certified` is whether
    /// the authority was looked at in this reconcile.
    pub async fn apply(
        &mut self,
        context: &Context,
        database: &Database,
        (certified, now): (bool, Timestamp),
        failures: &mut Failures,
    ) {
        if !self.exists || failures.is_unanswered() {
            return;
        }
        let Some(spec) = &database.gateway else {
            failures.note(front::remove(context, &database.owner, Front::Gateway).await);
            failures.apply_all(context, &database.owner, &plan::gateway::absent(database)).await;
            if failures.is_empty() {
                self.status = None;
            }
            return;
        };
        // A pod may wait for the Secret, which is not watched.
        let doubted = certified || self.trouble.is_some();
        failures.note(front::ensure(context, &database.owner, Front::Gateway, doubted, now).await);
        // Without the issuer there is no telling who may call; what serves serves on.
        let Some(issuer) = &self.issuer else { return };
        let objects = plan::gateway::objects(database, spec, &context.options, (issuer, &self.authorities));
        failures.apply_all(context, &database.owner, &objects).await;
    }
}

/// Reads the gateway's state.
///
/// # Errors
/// Errors of the API server.
pub async fn look(
    context: &Context,
    database: &Database,
    observed: &Observation,
    previous: Option<&GatewayStatus>,
    now: Timestamp,
) -> Result<State, Error> {
    let known_to_agents = observed.desired.as_ref().is_some_and(|desired| desired.gateway.is_some());
    let Some(spec) = &database.gateway else {
        // Status has it until all of it is removed.
        let exists = known_to_agents || previous.is_some();
        return Ok(State { exists, status: previous.cloned(), ..State::default() });
    };
    let names = database.names();
    let (issuer, unknown) = match observe::issuer(context).await {
        Ok(issuer) => (Some(issuer), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let found = observe::pods(context, names, spec.instances, now).await?;
    let status = GatewayStatus {
        instances: Some(format!("{}/{}", found.ready, spec.instances)),
        url: Some(format!("https://{}{BASE_PATH}", names.gateway_host())),
        audience: Some(audience(&names.namespace, &names.name)),
        message: None,
    };
    let trouble = match (unknown, found.trouble) {
        (Some(why), _) => Some(format!("the issuer of the cluster's ServiceAccount tokens cannot be read: {why}")),
        (None, why) if found.ready == 0 => {
            let logs = || format!("kubectl logs deployment/{} -n {} may say why", names.gateway(), names.namespace);
            let why = why.unwrap_or_else(logs);
            Some(format!("the data gateway does not serve: 0/{} pods are ready; {why}", spec.instances))
        }
        (None, Some(why)) => {
            Some(format!("the data gateway serves, but not all of its pods as spec.gateway declares: {why}"))
        }
        (None, None) => None,
    };
    let trouble = trouble.map(|message| ConditionState::no(reason::GATEWAY_NOT_READY, message));
    let authorities = observed.authorities(&database.owner.uid).to_pem();
    Ok(State { exists: true, issuer, authorities, status: Some(status), trouble })
}
