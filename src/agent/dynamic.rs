//! Patroni's dynamic configuration, which all members share: the leader brings what is desired to
//! it. With what it has PostgreSQL may not start, or may run so that nobody can lead: then each
//! instance does it, or the right spec would never come to them.

use std::time::Duration;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::rest::{Rest, RestError};
use super::report::{Area, Reporter};
use super::settings;
use crate::api::conditions::reason;
use crate::backoff::Backoff;
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

/// Brings it here while nobody leads, and tells where PostgreSQL cannot start.
pub async fn mend(environment: Environment, mut state: DesiredState, reporter: Reporter) {
    let mut sightings = Sightings::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Ok((idle, leaderless)) = look().await else { continue };
        let brings = sightings.see(idle, leaderless);
        if sightings.idle == SIGHTINGS {
            let message = "PostgreSQL does not start; the pod's log says why".to_owned();
            reporter.trouble(Area::Server, Some((reason::CRASH_LOOP, message)));
        }
        if !brings {
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

/// How often in a row it was seen.
#[derive(Default)]
struct Sightings {
    /// That PostgreSQL does not run here, nor is on its way.
    idle: u32,
    /// That nobody leads.
    leaderless: u32,
}

impl Sightings {
    /// Whether this instance brings the configuration: at once where PostgreSQL does not run and
    /// nobody leads; where it runs, once nobody has led for longer than a failover takes.
    fn see(&mut self, idle: bool, leaderless: bool) -> bool {
        self.idle = if idle { self.idle.saturating_add(1) } else { 0 };
        self.leaderless = if leaderless { self.leaderless.saturating_add(1) } else { 0 };
        leaderless && (idle || self.leaderless >= SIGHTINGS)
    }
}

/// Whether PostgreSQL does not run here, nor is on its way, and whether nobody leads.
async fn look() -> Result<(bool, bool), RestError> {
    let rest = Rest::new()?;
    let status = rest.status().await?;
    Ok((status.is_idle(), !status.leads && rest.leader().await?.is_none()))
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

#[cfg(test)]
mod tests {
    use super::Sightings;

    #[test]
    fn a_server_that_runs_and_that_nobody_leads_gets_the_right_settings_too() {
        let mut sightings = Sightings::default();
        assert!(!sightings.see(false, false), "somebody leads, who does it");
        assert!(!sightings.see(false, true) && !sightings.see(false, true), "a failover");
        assert!(sightings.see(false, true));
        assert!(sightings.see(false, true), "until it is done");
        assert!(!sightings.see(false, false));
        assert!(!sightings.see(false, true));
        assert!(sightings.see(true, true), "nobody can lead from here");
        assert!(!sightings.see(true, false) && sightings.idle == 2);
    }
}
