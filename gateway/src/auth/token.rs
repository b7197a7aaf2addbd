//! JSON Web Tokens: RS256 and ES256, as Kubernetes signs them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;

use super::{Key, unauthorized};
use crate::problem::Problem;

/// How far clocks may differ.
const LEEWAY: u64 = 10;
/// The largest token.
const LARGEST: usize = 16 << 10;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<serde::de::IgnoredAny>,
}

/// What a token says.
#[derive(Debug, Deserialize)]
pub struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    nbf: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Several(several) => several.iter().any(|one| one == wanted),
        }
    }
}

/// When a token is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime {
    /// Not before.
    pub(super) from: Option<u64>,
    /// Until.
    pub(super) until: u64,
}

impl Lifetime {
    /// Whether it has not ended.
    fn goes_on(self, now: u64) -> bool {
        self.until.saturating_add(LEEWAY) > now
    }

    /// Whether it has begun.
    fn has_begun(self, now: u64) -> bool {
        self.from.is_none_or(|from| from <= now + LEEWAY)
    }

    /// Whether the token is valid at this time.
    pub(super) fn includes(self, now: u64) -> bool {
        self.goes_on(now) && self.has_begun(now)
    }
}

impl Claims {
    /// When the token is valid.
    pub(super) fn lifetime(&self) -> Lifetime {
        Lifetime { from: self.nbf, until: self.exp }
    }

    /// The ServiceAccount as `<namespace>/<name>`.
    ///
    /// # Errors
    /// If the token is not a ServiceAccount's.
    pub fn service_account(&self) -> Result<String, Problem> {
        let parts = self.sub.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        let (namespace, name) = parts.ok_or_else(|| unauthorized("it is not a ServiceAccount's"))?;
        Ok(format!("{namespace}/{name}"))
    }
}

/// A token's three parts.
fn parts(token: &str) -> Result<(&str, &str, &str), Problem> {
    let malformed = || unauthorized("it is no JSON Web Token");
    if token.len() > LARGEST {
        return Err(malformed());
    }
    let (header, rest) = token.split_once('.').ok_or_else(malformed)?;
    let (payload, signature) = rest.split_once('.').ok_or_else(malformed)?;
    Ok((header, payload, signature))
}

fn decoded<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Problem> {
    let bytes = BASE64.decode(part).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| unauthorized("it cannot be read"))
}

/// The id of the key that is said to have signed it.
///
/// # Errors
/// If the token cannot be read.
pub(super) fn key_id(token: &str) -> Result<Option<String>, Problem> {
    let header: Header = decoded(parts(token)?.0)?;
    if header.crit.is_some() {
        return Err(unauthorized("it has extensions that are not known here"));
    }
    Ok(header.kid)
}

/// What a token says, if this key has signed it and it is valid now, here.
///
/// # Errors
/// Why it is not accepted.
pub fn verify(token: &str, key: &Key, issuer: &str, audience: &str, now: u64) -> Result<Claims, Problem> {
    let (header, payload, signature) = parts(token)?;
    let algorithm = decoded::<Header>(header)?.alg;
    let signature = BASE64.decode(signature).map_err(|_| unauthorized("it cannot be read"))?;
    let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
    // The key decides the algorithm, the token only names it.
    if !key.verifies(&algorithm, signed, &signature) {
        return Err(unauthorized("its signature is wrong"));
    }
    let claims: Claims = decoded(payload)?;
    if !claims.lifetime().goes_on(now) {
        return Err(expired("it has expired"));
    }
    if !claims.lifetime().has_begun(now) {
        return Err(expired("it is not valid yet"));
    }
    if claims.iss != issuer {
        return Err(unauthorized("another cluster has issued it"));
    }
    if !claims.aud.has(audience) {
        return Err(unauthorized("it is for another audience").hint(format!("request one for the audience {audience}")));
    }
    Ok(claims)
}

fn expired(why: &str) -> Problem {
    let mut problem = unauthorized(why);
    problem.code = "PGRST303".to_owned();
    problem
}
