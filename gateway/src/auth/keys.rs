//! The keys that sign tokens: a JWKS from a file or from the cluster.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::unauthorized;
use crate::config::{self, ConfigError, Keys};
use crate::problem::Problem;

/// How often the keys are read.
const INTERVAL: Duration = Duration::from_secs(300);
/// How often an unknown key makes them be read before that.
const UNKNOWN: Duration = Duration::from_secs(10);
/// How long keys may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A public key.
#[derive(Debug, Clone)]
pub enum Key {
    /// Of RSA.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
}

impl Key {
    /// Whether it has made this signature.
    pub fn verifies(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Rsa { n, e }, "RS256") => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
            }
            (Self::P256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// Keys with their ids.
#[derive(Debug, Clone, Default)]
pub struct Jwks {
    keys: Vec<(Option<String>, Key)>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    kty: String,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwks {
    /// Reads a JWKS. Keys of other kinds are left out.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(text)?;
        let keys = document.keys.iter().filter_map(|member| Some((member.kid.clone(), member.key()?)));
        Ok(Self { keys: keys.collect() })
    }

    /// The key with this id; without an id, the only one.
    fn find(&self, id: Option<&str>) -> Option<Key> {
        match id {
            Some(id) => self.keys.iter().find(|(known, _)| known.as_deref() == Some(id)),
            None => self.keys.first().filter(|_| self.keys.len() == 1),
        }
        .map(|(_, key)| key.clone())
    }
}

impl Member {
    fn key(&self) -> Option<Key> {
        let part = |text: &Option<String>| BASE64.decode(text.as_ref()?.trim_end_matches('=')).ok();
        match self.kty.as_str() {
            "RSA" => Some(Key::Rsa { n: part(&self.n)?, e: part(&self.e)? }),
            "EC" if self.crv.as_deref() == Some("P-256") => {
                let (x, y) = (part(&self.x)?, part(&self.y)?);
                Some(Key::P256([&[4], x.as_slice(), y.as_slice()].concat()))
            }
            _ => None,
        }
    }
}

/// Where the keys come from.
pub struct KeySource {
    keys: Keys,
    known: RwLock<Arc<Jwks>>,
    /// When an unknown key last made them be read. Locked while they are.
    asked: Mutex<Option<Instant>>,
}

impl KeySource {
    /// From the settings.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn new(keys: &Keys) -> Result<Self, ConfigError> {
        if keys.url.is_some() {
            client(keys)?;
        }
        Ok(Self { keys: keys.clone(), known: RwLock::default(), asked: Mutex::new(None) })
    }

    /// Reads the keys at an interval.
    pub async fn refresh(&self) {
        loop {
            self.read_now().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// The key with this id. An unknown one may be new.
    ///
    /// # Errors
    /// If there is none, or the keys were never read.
    pub async fn find(&self, id: Option<&str>) -> Result<Key, Problem> {
        if let Some(key) = self.known().find(id) {
            return Ok(key);
        }
        // Requests with a new key wait for the one that reads it.
        let mut asked = self.asked.lock().await;
        if self.known().find(id).is_none() && asked.is_none_or(|asked| asked.elapsed() >= UNKNOWN) {
            self.read_now().await;
            *asked = Some(Instant::now());
        }
        drop(asked);
        let known = self.known();
        if known.keys.is_empty() {
            return Err(Problem::unavailable("SDB304", "the keys that verify tokens could not be read yet"));
        }
        known.find(id).ok_or_else(|| unauthorized("its key is not one of this cluster's"))
    }

    /// The keys as they are now: another pointer after each reading.
    pub(super) fn known(&self) -> Arc<Jwks> {
        Arc::clone(&self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    async fn read_now(&self) {
        match self.fetch().await {
            Ok(keys) if !keys.keys.is_empty() => {
                *self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(keys);
            }
            Ok(_) => tracing::warn!("the JWKS has no RSA or P-256 key; the last known keys are used"),
            Err(problem) => tracing::warn!(problem, "the keys could not be read; the last known ones are used"),
        }
    }

    async fn fetch(&self) -> Result<Jwks, String> {
        let text = match (&self.keys.file, &self.keys.url) {
            (Some(file), _) => tokio::fs::read(file).await.map_err(|error| error.to_string())?,
            (None, Some(url)) => {
                // The authority's certificate is renewed, too.
                let mut request = client(&self.keys).map_err(|error| error.to_string())?.get(url);
                if let Some(path) = &self.keys.token_file {
                    let token = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())?;
                    request = request.bearer_auth(token.trim());
                }
                let response = request.send().await.and_then(reqwest::Response::error_for_status);
                let response = response.map_err(|error| error.to_string())?;
                response.bytes().await.map_err(|error| error.to_string())?.to_vec()
            }
            (None, None) => return Err("neither a file nor a URL".to_owned()),
        };
        Jwks::parse(&text).map_err(|error| error.to_string())
    }
}

fn client(keys: &Keys) -> Result<reqwest::Client, ConfigError> {
    let mut builder = reqwest::Client::builder().timeout(TIMEOUT).https_only(true);
    if let Some(path) = &keys.ca {
        let invalid = |error: reqwest::Error| ConfigError::File { path: path.clone(), problem: error.to_string() };
        let roots = reqwest::Certificate::from_pem_bundle(&config::file(path)?).map_err(invalid)?;
        builder = builder.tls_certs_only(roots);
    }
    builder.build().map_err(|error| ConfigError::Setting { setting: "callers.keys", problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7515, A.2.
    const JWKS: &str = r#"{"keys": [{"kty": "oct", "k": "AA"}, {"kty": "RSA", "kid": "rsa", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;
    const SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    #[test]
    fn rs256_as_in_the_rfc() {
        let keys = Jwks::parse(JWKS.as_bytes()).expect("a JWKS");
        let key = keys.find(Some("rsa")).expect("the key");
        let signature = BASE64.decode(SIGNATURE).expect("base64");
        assert!(key.verifies("RS256", SIGNED.as_bytes(), &signature));
        assert!(!key.verifies("ES256", SIGNED.as_bytes(), &signature), "the key decides the algorithm");
        assert!(!key.verifies("RS256", &SIGNED.as_bytes()[1..], &signature));
        assert!(keys.find(Some("other")).is_none());
        assert!(keys.find(None).is_some(), "the only one that can be used");
    }
}
