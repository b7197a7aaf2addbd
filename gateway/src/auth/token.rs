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

impl Claims {
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
    if claims.exp.saturating_add(LEEWAY) <= now {
        return Err(expired("it has expired"));
    }
    if claims.nbf.is_some_and(|start| start > now + LEEWAY) {
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
