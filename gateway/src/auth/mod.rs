//! Callers: ServiceAccount tokens, verified with the cluster's keys, and the role of each.

mod cache;
mod keys;
mod token;

pub use keys::{Jwks, Key, KeySource};
pub use token::{Claims, verify};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode, header};

use self::cache::Verified;
use crate::config::{Callers, ConfigError};
use crate::database::Caller;
use crate::problem::Problem;

/// Who may call, and as which role.
pub struct Authenticator {
    issuer: String,
    audience: String,
    keys: KeySource,
    roles: HashMap<String, Caller>,
    verified: Verified,
}

impl Authenticator {
    /// From the settings.
    ///
    /// # Errors
    /// If the keys cannot be used.
    pub fn new(callers: &Callers) -> Result<Self, ConfigError> {
        let roles = callers.roles.iter().map(|entry| {
            let caller =
                Caller { name: Arc::from(entry.service_account.as_str()), role: Arc::from(entry.role.as_str()) };
            (entry.service_account.clone(), caller)
        });
        Ok(Self {
            issuer: callers.issuer.clone(),
            audience: callers.audience.clone(),
            keys: KeySource::new(&callers.keys)?,
            roles: roles.collect(),
            verified: Verified::default(),
        })
    }

    /// Reads the keys again all the time.
    pub async fn refresh(&self) {
        self.keys.refresh().await;
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// 401 without a valid token, 403 with one of a ServiceAccount that has no role here.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| {
                unauthorized("no token")
                    .hint("send Authorization: Bearer <ServiceAccount token for this database's audience>")
            })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // Those of before the verification: what newer ones verify is verified again.
        let keys = self.keys.known();
        if let Some(caller) = self.verified.caller(token, &keys, now) {
            return Ok(caller);
        }
        let id = token::key_id(token)?;
        let key = self.keys.find(id.as_deref()).await?;
        let claims = verify(token, &key, &self.issuer, &self.audience, now)?;
        let account = claims.service_account()?;
        let caller = self.roles.get(&account).cloned().ok_or_else(|| {
            Problem::new(
                StatusCode::FORBIDDEN,
                "SDB303",
                format!("the ServiceAccount {account} has no role in this database"),
            )
        })?;
        self.verified.add(token, &keys, claims.lifetime(), &caller);
        Ok(caller)
    }
}

/// The answer to a token that is not accepted.
fn unauthorized(why: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "PGRST301", format!("the token is not accepted: {why}"))
}
