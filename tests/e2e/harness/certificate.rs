//! Certificates of a temporary authority.

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A server's certificate and key, and their authority.
pub struct Signed {
    /// The authority, PEM.
    pub authority: String,
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: KeyPair,
}

/// A certificate for host names and addresses, by an authority of its own.
pub fn signed(names: Vec<String>) -> Signed {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::default();
    // Another name than rcgen's default, which the certificate has: OpenSSL takes one that its namesake signed for its own.
    parameters.distinguished_name.push(DnType::CommonName, "authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = parameters.self_signed(&key).expect("an authority").pem();
    let issuer = Issuer::from_ca_cert_pem(&authority, key).expect("the authority as an issuer");
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(names).expect("names");
    let certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
    Signed { authority, certificate, key }
}
