//! A certificate authority per ServiceDatabase, and its certificates.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use secrecy::{ExposeSecret, SecretString};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;

use crate::api::names::{Names, PostgresNames};

/// The lifetime of the authority.
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// The lifetime of the certificates that it signs.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Clocks differ: certificates are valid from shortly before their creation.
const BACKDATE: SignedDuration = SignedDuration::from_hours(24);

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: SecretString,
}

/// The subject of a certificate.
pub enum Subject {
    /// The server: the names of the Services, and of the pods by the headless one.
    Server,
    /// The pooler, as its clients know it: the names of its Services.
    Pooler,
    /// The data gateway, as its callers know it: the names of its Service.
    Gateway,
    /// A client that logs in to PostgreSQL as this role, or to Patroni's REST API.
    Client(&'static str),
}

/// The clients with certificates, by the name of their files.
pub const CLIENTS: [&str; 3] = [PostgresNames::REPLICATOR, PostgresNames::REWINDER, "patroni"];

/// A new authority.
///
/// # Errors
/// If a key cannot be generated.
pub fn authority(names: &Names, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, format!("{}/{}", names.namespace, names.base()));
    // While one authority replaces another, clients know both: names and keys must differ.
    parameters.distinguished_name.push(DnType::OrganizationalUnitName, format!("since {now}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut parameters, now, AUTHORITY_LIFETIME);
    Ok(Pair { certificate: parameters.self_signed(&key)?.pem(), key: key.serialize_pem().into() })
}

/// A certificate that the authority signs. It expires with the authority, if that is sooner.
///
/// # Errors
/// If a key cannot be generated, or the authority is not readable.
pub fn leaf(names: &Names, subject: &Subject, authority: &Pair, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let authority_key = KeyPair::from_pem(authority.key.expose_secret())?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, authority_key)?;
    let key = KeyPair::generate()?;
    let (common_name, hosts, usage) = content(names, subject);
    let mut parameters = CertificateParams::new(hosts)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![usage];
    validity(&mut parameters, now, leaf_lifetime(authority, now));
    Ok(Pair { certificate: parameters.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem().into() })
}

/// Name, hosts and usage of a certificate.
fn content(names: &Names, subject: &Subject) -> (String, Vec<String>, ExtendedKeyUsagePurpose) {
    match subject {
        Subject::Server => (names.base(), server_hosts(names), ExtendedKeyUsagePurpose::ServerAuth),
        Subject::Pooler => (names.pooler(), pooler_hosts(names), ExtendedKeyUsagePurpose::ServerAuth),
        Subject::Gateway => (names.gateway(), gateway_hosts(names), ExtendedKeyUsagePurpose::ServerAuth),
        Subject::Client(name) => ((*name).to_owned(), Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
    }
}

/// Whether a certificate is that of this subject: by its name and its usage.
pub fn is_of(names: &Names, subject: &Subject, certificate: &str) -> bool {
    let (common_name, _, usage) = content(names, subject);
    let fits = |certificate: &X509Certificate<'_>| {
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        let purposes = certificate.extended_key_usage().ok()??.value;
        let serves =
            if usage == ExtendedKeyUsagePurpose::ServerAuth { purposes.server_auth } else { purposes.client_auth };
        Some(name == common_name && serves)
    };
    read(certificate, fits).unwrap_or(false)
}

/// The lifetime of a certificate that this authority signs now.
fn leaf_lifetime(authority: &Pair, now: Timestamp) -> SignedDuration {
    let left = not_after(&authority.certificate).map(|end| end.duration_since(now));
    left.map_or(LEAF_LIFETIME, |left| left.min(LEAF_LIFETIME))
}

/// When a certificate expires; none if it is not readable.
pub fn not_after(certificate: &str) -> Option<Timestamp> {
    read(certificate, |certificate| Timestamp::from_second(certificate.validity().not_after.timestamp()).ok())
}

/// Whether a certificate is that of an authority.
pub fn is_authority(certificate: &str) -> bool {
    read(certificate, |certificate| Some(certificate.is_ca())).unwrap_or(false)
}

/// Whether a key belongs to a certificate.
pub fn belong_together(pair: &Pair) -> bool {
    let Ok(key) = KeyPair::from_pem(pair.key.expose_secret()) else { return false };
    let key = key.subject_public_key_info();
    read(&pair.certificate, |certificate| Some(certificate.public_key().raw == key)).unwrap_or(false)
}

/// Whether an authority signed a certificate.
pub fn is_signed_by(certificate: &str, authority: &str) -> bool {
    let signed = |certificate: &X509Certificate<'_>| {
        read(authority, |authority| certificate.verify_signature(Some(authority.public_key())).ok())
    };
    read(certificate, |certificate| signed(certificate)).is_some()
}

fn read<T>(certificate: &str, look: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
    look(&pem.parse_x509().ok()?)
}

/// Members connect to one another by address and check only the authority; clients check the
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

fn pooler_hosts(names: &Names) -> Vec<String> {
    hosts_of(names, &[names.pooler(), names.replicas_pooler()])
}

fn gateway_hosts(names: &Names) -> Vec<String> {
    hosts_of(names, &[names.gateway()])
}

/// The names of Services, and `localhost` for a port that is forwarded.
fn hosts_of(names: &Names, services: &[String]) -> Vec<String> {
    let hosts = services.iter().flat_map(|service| {
        ["", ".svc", ".svc.cluster.local"].map(|suffix| format!("{service}.{}{suffix}", names.namespace))
    });
    hosts.chain(services.iter().cloned()).chain(["localhost".to_owned()]).collect()
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

    use super::*;

    #[test]
    fn a_client_that_checks_the_name_accepts_the_services_name_and_no_other() {
        let names = Names::new("games", "chat");
        let now = Timestamp::now();
        let ca = authority(&names, now).expect("an authority");
        let server = leaf(&names, &Subject::Server, &ca, now).expect("a leaf");
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

    #[test]
    fn pairs_and_signatures_are_verified() {
        let names = Names::new("games", "chat");
        let now = Timestamp::now();
        let (one, two) = (authority(&names, now).expect("one"), authority(&names, now).expect("two"));
        let server = leaf(&names, &Subject::Server, &one, now).expect("a leaf");
        assert!(is_signed_by(&server.certificate, &one.certificate));
        assert!(!is_signed_by(&server.certificate, &two.certificate));
        assert!(belong_together(&server) && belong_together(&one));
        for key in [two.key.clone(), String::new().into(), "nonsense".to_owned().into()] {
            assert!(!belong_together(&Pair { certificate: one.certificate.clone(), key }));
        }
        assert!(is_of(&names, &Subject::Server, &server.certificate));
        let client = Subject::Client(PostgresNames::POOLER);
        let signed = leaf(&names, &client, &one, now).expect("a leaf");
        assert!(is_of(&names, &client, &signed.certificate) && !is_of(&names, &Subject::Server, &signed.certificate));
        assert!(is_authority(&one.certificate) && !is_authority(&server.certificate) && !is_authority(""));
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let names = Names::new("games", "chat");
        let made = Timestamp::now();
        let ca = authority(&names, made).expect("an authority");
        let late = made.checked_add(AUTHORITY_LIFETIME - SignedDuration::from_hours(24 * 30)).expect("a time");
        let server = leaf(&names, &Subject::Server, &ca, late).expect("a leaf");
        assert!(not_after(&server.certificate).expect("an end") <= not_after(&ca.certificate).expect("an end"));
    }
}
