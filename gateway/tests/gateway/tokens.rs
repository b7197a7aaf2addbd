//! Keys and tokens, as a cluster makes them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// The issuer of the tests' tokens.
pub const ISSUER: &str = "https://cluster.test";
/// The audience of the tests' tokens.
pub const AUDIENCE: &str = "shop.servicedb";

/// The time in seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()
}

/// A new key of P-256.
pub fn new_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).expect("a key")
}

/// A token signed by a key.
pub fn sign(key: &EcdsaKeyPair, id: &str, claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": id})), part(claims));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", BASE64.encode(signature.as_ref()))
}

/// The document that has the key.
pub fn jwks(key: &EcdsaKeyPair, id: &str) -> String {
    let point = key.public_key().as_ref();
    let key = json!({
        "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "use": "sig",
        "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65]),
    });
    json!({"keys": [key]}).to_string()
}
