//! Patroni's dynamic configuration, which all members share: the leader brings what is desired to
//! it. Where PostgreSQL cannot start with what it has, there may be nobody who leads, and the
//! instance that cannot start does it, or the right spec would never come to it.

use std::time::Duration;

use super::backoff::Backoff;
use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::rest::{Rest, RestError};
use super::report::{Area, Reporter};
use super::settings;
use crate::api::conditions::reason;
use crate::contract::desired::Desired;
use crate::contract::patroni::{dynamic_configuration, patch};

/// How often it is looked whether PostgreSQL cannot start.
const INTERVAL: Duration = Duration::from_secs(5);
/// So often in a row until it is told.
const SIGHTINGS: u32 = 3;

/// Keeps it as it is desired, for as long as this pod leads.
pub async fn keep(environment: &Environment, mut state: DesiredState, reporter: &Reporter) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    loop {
        let desired = desired::first(&mut state).await;
        match bring(environment, &desired).await {
            Ok(accepted) => {
                // What runs stays as it is until the spec is right.
                let trouble = accepted.err().map(|problem| (reason::INVALID_SPEC, problem));
                reporter.trouble(Area::Settings, trouble);
                backoff.reset();
                desired::changed(&mut state).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the dynamic configuration cannot be changed; trying again");
                backoff.wait().await;
            }
        }
    }
}

/// Brings it here where PostgreSQL cannot start, and tells that.
pub async fn mend(environment: Environment, mut state: DesiredState, reporter: Reporter) {
    let mut sightings = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Ok((idle, leaderless)) = look().await else { continue };
        sightings = if idle { sightings + 1 } else { 0 };
        if sightings == SIGHTINGS {
            let message = "PostgreSQL does not start; the pod's log says why".to_owned();
            reporter.trouble(Area::Server, Some((reason::CRASH_LOOP, message)));
        }
        if !idle || !leaderless {
            continue;
        }
        let desired = desired::first(&mut state).await;
        match bring(&environment, &desired).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => reporter.trouble(Area::Server, Some((reason::INVALID_SPEC, problem))),
            Err(error) => tracing::debug!(%error, "the dynamic configuration cannot be changed; trying again"),
        }
    }
}

/// Whether PostgreSQL does not run here, nor is on its way, and whether nobody leads.
async fn look() -> Result<(bool, bool), RestError> {
    let rest = Rest::new()?;
    let idle = rest.status().await?.is_idle();
    Ok((idle, idle && rest.leader().await?.is_none()))
}

/// Brings what is desired to Patroni; inside, what PostgreSQL has against the parameters, which
/// stay as they are then.
async fn bring(environment: &Environment, desired: &Desired) -> Result<Result<(), String>, RestError> {
    let rest = Rest::new()?;
    let current = rest.config().await?;
    let mut wanted = dynamic_configuration(desired);
    if patch(&current, &wanted).is_none() {
        return Ok(Ok(()));
    }
    let accepted = settings::check_change(environment, desired).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the settings cannot be tried before they are changed");
        Ok(())
    });
    if accepted.is_err() {
        let parameters = "/postgresql/parameters";
        if let (Some(wanted), Some(current)) = (wanted.pointer_mut(parameters), current.pointer(parameters)) {
            wanted.clone_from(current);
        }
    }
    if let Some(patch) = patch(&current, &wanted) {
        tracing::info!("changing Patroni's dynamic configuration");
        rest.patch_config(&patch).await?;
    }
    Ok(accepted)
}
