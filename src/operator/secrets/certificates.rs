//! A certificate authority per ServiceDatabase, and what it signs.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use secrecy::SecretString;

use crate::api::names::{Names, PostgresNames};

/// How long the authority is good for.
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long what it signs is good for.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Clocks differ: certificates are good from a little before they are made.
const BACKDATE: SignedDuration = SignedDuration::from_hours(24);

/// A certificate and its key, PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: SecretString,
}

/// Whom a certificate is for.
pub enum Subject {
    /// The server: the names of the Services, and of the pods by the headless one.
    Server,
    /// A client that logs in to PostgreSQL as this role, or to Patroni's REST API.
    Client(&'static str),
}

/// The clients that certificates are made for, by the name of their files.
pub const CLIENTS: [&str; 3] = [PostgresNames::REPLICATOR, PostgresNames::REWINDER, "patroni"];

/// A new authority.
///
/// # Errors
/// If a key cannot be made.
pub fn authority(names: &Names, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, format!("{}/{}", names.namespace, names.base()));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut parameters, now, AUTHORITY_LIFETIME);
    Ok(Pair { certificate: parameters.self_signed(&key)?.pem(), key: key.serialize_pem().into() })
}

/// A certificate that the authority signs.
///
/// # Errors
/// If a key cannot be made, or the authority is not readable.
pub fn leaf(
    names: &Names,
    subject: &Subject,
    authority_certificate: &str,
    authority_key: &str,
    now: Timestamp,
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(authority_certificate, KeyPair::from_pem(authority_key)?)?;
    let key = KeyPair::generate()?;
    let (common_name, hosts, usage) = match subject {
        Subject::Server => (names.base(), server_hosts(names), ExtendedKeyUsagePurpose::ServerAuth),
        Subject::Client(name) => ((*name).to_owned(), Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
    };
    let mut parameters = CertificateParams::new(hosts)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![usage];
    validity(&mut parameters, now, LEAF_LIFETIME);
    Ok(Pair { certificate: parameters.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem().into() })
}

/// Members reach one another by address and check the authority alone; clients check the
/// Service's name.
fn server_hosts(names: &Names) -> Vec<String> {
    let mut hosts = Vec::new();
    for service in [names.base(), names.replicas_service(), format!("*.{}", names.peers_service())] {
        for suffix in ["", ".svc", ".svc.cluster.local"] {
            hosts.push(format!("{service}.{}{suffix}", names.namespace));
        }
    }
    hosts.extend([names.base(), names.replicas_service(), "localhost".to_owned(), "127.0.0.1".to_owned()]);
    hosts
}

fn validity(parameters: &mut CertificateParams, now: Timestamp, lifetime: SignedDuration) {
    let day = |timestamp: Timestamp| {
        let date = timestamp.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    parameters.not_before = day(now.checked_sub(BACKDATE).unwrap_or(now));
    parameters.not_after = day(now.checked_add(lifetime).unwrap_or(now));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_client_that_checks_the_name_accepts_the_services_name_and_no_other() {
        let names = Names::new("games", "chat");
        let now = Timestamp::now();
        let ca = authority(&names, now).expect("an authority");
        let server = leaf(&names, &Subject::Server, &ca.certificate, ca.key.expose_secret(), now).expect("a leaf");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("a verifier");
        let certificate = CertificateDer::from_pem_slice(server.certificate.as_bytes()).expect("PEM");
        let check = |host: &'static str| {
            let name = ServerName::try_from(host).expect("a name");
            verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
        };
        assert!(check("chat-db.games.svc").is_ok());
        assert!(check("chat-db-0.chat-db-peers.games.svc").is_ok());
        assert!(check("game-db.games.svc").is_err());
    }
}
