//! The token: obtained by a login when it is first needed, shared by all callers, renewed or
//! replaced before it expires, and replaced when Vault reports that it is invalid.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use secrecy::SecretString;
use tokio::time::Instant;

use super::VaultError;
use super::failure::{Failure, Target};
use super::login::Login;
use super::requests::{Operation, Requests};
use super::transport::{Connection, Transport, unheard};

/// A refused token is considered valid within this time after its login: a denial by policy must
/// not cause a login for every request.
const TRUSTED_AFTER_LOGIN: Duration = Duration::from_secs(60);

/// The token and the login for the next one.
pub(super) struct Session {
    login: Login,
    transport: Transport,
    requests: Requests,
    state: Mutex<State>,
    /// Held during a login or a renewal, so that callers share one.
    entry: tokio::sync::Mutex<()>,
    serial: AtomicU64,
}

#[derive(Default)]
struct State {
    grant: Option<Grant>,
    failure: Option<(Instant, VaultError)>,
}

/// A token as a caller uses it.
#[derive(Clone)]
pub(super) struct Grant {
    pub connection: Arc<Connection>,
    token: SecretString,
    serial: u64,
    since: Instant,
    life: Life,
}

/// The lifetime of a token. `None`: it does not expire.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Life {
    lease: Option<Duration>,
    refresh_at: Option<Instant>,
    ends_at: Option<Instant>,
    renewable: bool,
}

impl Life {
    /// Counted from before the request, since Vault counts from a time during it.
    fn new(asked: Instant, lease: Option<Duration>, renewable: bool) -> Self {
        let part = rand::rng().random_range(0.60..0.75);
        Self {
            lease,
            refresh_at: lease.map(|lease| asked + lease.mul_f64(part)),
            ends_at: lease.map(|lease| asked + lease.mul_f64(0.97)),
            renewable,
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.refresh_at.is_none_or(|at| now < at)
    }

    fn is_alive(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|at| now < at)
    }
}

impl Session {
    pub fn new(login: Login, transport: Transport, requests: Requests) -> Self {
        Self {
            login,
            transport,
            requests,
            state: Mutex::default(),
            entry: tokio::sync::Mutex::default(),
            serial: AtomicU64::new(0),
        }
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// A valid token; logs in if there is none.
    pub async fn grant(&self) -> Result<Grant, VaultError> {
        let asked = Instant::now();
        let current = self.state().grant.clone();
        match current {
            Some(grant) if grant.life.is_fresh(asked) => return Ok(grant),
            Some(grant) if grant.life.is_alive(asked) => {
                // One caller refreshes; the others continue with the token that is still valid.
                return match self.entry.try_lock() {
                    Ok(_entry) => Ok(self.refresh(grant).await),
                    Err(_) => Ok(grant),
                };
            }
            _ => {}
        }
        self.log_in_once(asked, |grant| grant.life.is_alive(Instant::now())).await
    }

    /// A new token in place of an invalid one.
    pub async fn replace(&self, dead: &Grant) -> Result<Grant, VaultError> {
        self.log_in_once(Instant::now(), |grant| grant.serial != dead.serial).await
    }

    /// Whether a 403 means that the token is invalid, and not that a policy lacks a right.
    pub async fn is_dead(&self, grant: &Grant, failure: &Failure) -> bool {
        if failure.code() != Some(403) {
            return false;
        }
        if failure.says("invalid token") {
            return true;
        }
        let lookup = unheard(vaultrs::token::lookup_self(&*grant.connection)).await;
        match lookup.map_err(|error| Failure::new(error, self.transport.timeout())) {
            // A token may also lack the right to look itself up; then a login decides.
            Err(failure) if failure.code() == Some(403) => {
                failure.says("invalid token") || grant.since.elapsed() > TRUSTED_AFTER_LOGIN
            }
            _ => false,
        }
    }

    /// After a failed connection: loads a changed CA file. The transport's client may have it
    /// already, by a request without a token; if the file did not change, the client is the same.
    pub async fn take_up_ca(&self, grant: &Grant) {
        if let Ok(connection) = self.transport.connection(Some(&grant.token)).await
            && let Some(current) = self.state().grant.as_mut().filter(|current| current.serial == grant.serial)
        {
            current.connection = Arc::new(connection);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs in, unless another caller did so meanwhile: then its token, or its failure, is used.
    async fn log_in_once(&self, asked: Instant, is_good: impl Fn(&Grant) -> bool) -> Result<Grant, VaultError> {
        let _entry = self.entry.lock().await;
        {
            let state = self.state();
            if let Some(grant) = state.grant.as_ref().filter(|grant| is_good(grant)) {
                return Ok(grant.clone());
            }
            if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at >= asked) {
                return Err(error.clone());
            }
        }
        self.log_in().await
    }

    async fn log_in(&self) -> Result<Grant, VaultError> {
        let asked = Instant::now();
        let result = self.obtain(asked).await;
        self.requests.add(Operation::Login, &result.as_ref().map(Some).map_err(Clone::clone));
        let mut state = self.state();
        match &result {
            Ok(grant) => {
                tracing::info!(login = %self.login, lease = ?grant.life.lease, "logged in to Vault");
                *state = State { grant: Some(grant.clone()), failure: None };
            }
            Err(error) => state.failure = Some((Instant::now(), error.clone())),
        }
        result
    }

    async fn obtain(&self, asked: Instant) -> Result<Grant, VaultError> {
        let granted = unheard(self.login.perform(&self.transport)).await?;
        Ok(Grant {
            connection: Arc::new(self.transport.connection(Some(&granted.token)).await?),
            token: granted.token,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            since: asked,
            life: Life::new(asked, granted.lease, granted.renewable),
        })
    }

    /// Renews a valid token or logs in again; if both fail, the token is still used.
    async fn refresh(&self, grant: Grant) -> Grant {
        if grant.life.renewable
            && let Some(renewed) = self.renew(&grant).await
        {
            return renewed;
        }
        match self.log_in().await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(login = %self.login, %error, "the Vault token could not be renewed; it is still valid");
                self.postpone(grant)
            }
        }
    }

    async fn renew(&self, grant: &Grant) -> Option<Grant> {
        let asked = Instant::now();
        let answer = unheard(vaultrs::token::renew_self(&*grant.connection, None)).await;
        let result = answer.map_err(|error| {
            let target = Target { operation: Operation::RenewToken, path: "auth/token/renew-self".to_owned() };
            Failure::new(error, self.transport.timeout()).into_error(self.transport.address(), &target)
        });
        self.requests.add(Operation::RenewToken, &result.as_ref().map(Some).map_err(Clone::clone));
        let renewed = result.ok()?;
        let lease = Duration::from_secs(renewed.lease_duration);
        // Near its maximum lifetime each renewal is shorter: then a new token is due.
        if grant.life.lease.is_none_or(|before| lease < before / 2) {
            return None;
        }
        let life = Life { lease: grant.life.lease, ..Life::new(asked, Some(lease), renewed.renewable) };
        let grant = Grant { life, ..grant.clone() };
        self.state().grant = Some(grant.clone());
        Some(grant)
    }

    fn postpone(&self, mut grant: Grant) -> Grant {
        let now = Instant::now();
        let left = grant.life.ends_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let wait = (left / 2).min(Duration::from_secs(30)).mul_f64(rand::rng().random_range(0.8..1.2));
        grant.life.refresh_at = Some(now + wait);
        if let Some(current) = self.state().grant.as_mut().filter(|current| current.serial == grant.serial) {
            current.life.refresh_at = grant.life.refresh_at;
        }
        grant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_refreshed_before_it_ends() {
        let asked = Instant::now();
        let life = Life::new(asked, Some(Duration::from_secs(600)), true);
        assert!(life.is_fresh(asked + Duration::from_secs(359)));
        assert!(!life.is_fresh(asked + Duration::from_secs(450)));
        assert!(life.is_alive(asked + Duration::from_secs(451)));
        assert!(!life.is_alive(asked + Duration::from_secs(599)), "the answer's transmission takes time, too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_without_an_end_is_kept() {
        let asked = Instant::now();
        let life = Life::new(asked, None, false);
        assert!(life.is_fresh(asked + Duration::from_secs(10_000_000)));
    }
}
