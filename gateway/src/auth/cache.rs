//! Tokens that were verified: a caller sends the same one for an hour, and its signature is most of a small request's time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ring::digest::{SHA256, digest};

use super::Jwks;
use super::token::Lifetime;
use crate::database::Caller;

/// How many tokens are remembered.
const TOKENS: usize = 4_096;

/// A token's digest: the token itself is not kept.
type Digest = [u8; 32];

/// Tokens that these keys have verified. Other keys forget them all.
#[derive(Default)]
struct Known {
    keys: Arc<Jwks>,
    tokens: HashMap<Digest, (Lifetime, Caller)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Verified(Mutex<Known>);

impl Verified {
    /// Whose token this is, if it was verified with the keys of now and is valid at this time, in seconds since 1970.
    pub(super) fn caller(&self, token: &str, keys: &Arc<Jwks>, now: u64) -> Option<Caller> {
        let known = self.lock();
        let (lifetime, caller) = known.tokens.get(&of(token)).filter(|_| Arc::ptr_eq(&known.keys, keys))?;
        lifetime.includes(now).then(|| caller.clone())
    }

    /// Remembers a token that these keys, or newer ones, have verified.
    pub(super) fn add(&self, token: &str, keys: &Arc<Jwks>, lifetime: Lifetime, caller: &Caller) {
        let mut known = self.lock();
        if !Arc::ptr_eq(&known.keys, keys) || known.tokens.len() >= TOKENS {
            known.keys = Arc::clone(keys);
            known.tokens.clear();
        }
        known.tokens.insert(of(token), (lifetime, caller.clone()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn of(token: &str) -> Digest {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_forgotten_with_its_keys_and_its_time() {
        let caller = Caller { name: Arc::from("shop/app"), role: Arc::from("app") };
        let (verified, keys, others) = (Verified::default(), Arc::new(Jwks::default()), Arc::new(Jwks::default()));
        let lifetime = Lifetime { from: Some(1_000), until: 2_000 };
        assert_eq!(verified.caller("token", &keys, 1_500), None);
        verified.add("token", &keys, lifetime, &caller);
        assert_eq!(verified.caller("token", &keys, 1_500).as_ref(), Some(&caller));
        assert_eq!(verified.caller("another", &keys, 1_500), None);
        for time in [900, 2_100] {
            assert_eq!(verified.caller("token", &keys, time), None, "{time}");
        }
        assert_eq!(verified.caller("token", &others, 1_500), None, "of other keys");
        verified.add("another", &others, lifetime, &caller);
        assert_eq!(verified.caller("token", &keys, 1_500), None);
        for number in 0..=TOKENS {
            verified.add(&number.to_string(), &others, lifetime, &caller);
        }
        assert!(verified.lock().tokens.len() <= TOKENS);
    }
}
