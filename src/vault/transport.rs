//! The connection to Vault: one HTTP client, rebuilt when the CA file changes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use rustify::clients::reqwest::Client as HttpClient;
use secrecy::{ExposeSecret, SecretString};
use tracing::instrument::WithSubscriber;
use vaultrs::api::EndpointMiddleware;
use vaultrs::client::VaultClientSettings;

use super::VaultError;
use super::client::VaultSettings;

/// A connection with a token, in vaultrs' terms.
pub(super) type Connection = vaultrs::client::VaultClient;

/// Runs a call of vaultrs with its logging off: it logs Vault's answers, which may echo the
/// request, at levels that are shown by default.
pub(super) fn unheard<T>(call: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    call.with_subscriber(tracing::Dispatch::none())
}

/// Creates connections.
pub(super) struct Transport {
    address: Url,
    namespace: Option<String>,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    current: Mutex<Option<Built>>,
}

struct Built {
    client: reqwest::Client,
    ca: Option<Vec<u8>>,
}

impl Transport {
    /// Checks the settings; nothing is sent and no file is read.
    pub fn new(settings: &VaultSettings) -> Result<Self, VaultError> {
        let refuse = |problem: &str| {
            Err(VaultError::Unreachable { address: "the configured address".to_owned(), problem: problem.to_owned() })
        };
        let Ok(address) = settings.address.trim().parse::<Url>() else {
            return refuse("it is not a URL such as https://vault.example:8200");
        };
        if !matches!(address.scheme(), "http" | "https") || address.host_str().is_none() {
            return refuse("it must begin with https:// (or http://) and name a host");
        }
        if !address.username().is_empty() || address.password().is_some() {
            return refuse("it must not contain credentials");
        }
        if !matches!(address.path(), "" | "/") || address.query().is_some() || address.fragment().is_some() {
            return refuse("it must end after the host and port");
        }
        let namespace = settings.namespace.as_deref().map(str::trim).filter(|namespace| !namespace.is_empty());
        if namespace.is_some_and(|namespace| http::HeaderValue::from_str(namespace).is_err()) {
            return refuse("Vault's namespace contains characters that are invalid in a header");
        }
        Ok(Self {
            address,
            namespace: namespace.map(str::to_owned),
            ca_file: settings.ca_file.clone(),
            timeout: settings.timeout,
            current: Mutex::new(None),
        })
    }

    /// Vault's address.
    pub fn address(&self) -> &str {
        self.address.as_str().trim_end_matches('/')
    }

    /// How long one request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A connection that sends this token, or none; with the current CA file.
    pub async fn connection(&self, token: Option<&SecretString>) -> Result<Connection, VaultError> {
        let client = self.client().await?;
        let token = token.map(|token| token.expose_secret().to_owned()).unwrap_or_default();
        // Every field is set: the builder of vaultrs would take missing ones from the environment.
        let settings = VaultClientSettings {
            address: self.address.clone(),
            ca_certs: Vec::new(),
            identity: None,
            timeout: Some(self.timeout),
            token: token.clone(),
            verify: true,
            version: 1,
            wrapping: false,
            namespace: self.namespace.clone(),
            proxy: None,
        };
        let middle =
            EndpointMiddleware { token, version: "v1".to_owned(), wrap: None, namespace: self.namespace.clone() };
        Ok(Connection { http: HttpClient::new(self.address.as_str(), client), middle, settings })
    }

    async fn client(&self) -> Result<reqwest::Client, VaultError> {
        let ca = self.read_ca().await?;
        let mut current = self.lock();
        if let Some(built) = current.as_ref().filter(|built| built.ca == ca) {
            return Ok(built.client.clone());
        }
        let client = self.build(ca.as_deref())?;
        *current = Some(Built { client: client.clone(), ca });
        Ok(client)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Built>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_ca(&self) -> Result<Option<Vec<u8>>, VaultError> {
        let Some(file) = &self.ca_file else { return Ok(None) };
        match tokio::fs::read(file).await {
            Ok(content) => Ok(Some(content)),
            Err(error) => Err(self.unreachable(format!("the CA file {} cannot be read: {error}", file.display()))),
        }
    }

    fn build(&self, ca: Option<&[u8]>) -> Result<reqwest::Client, VaultError> {
        let secure = self.address.scheme() == "https";
        let mut builder = reqwest::ClientBuilder::new()
            .tls_backend_rustls()
            .https_only(secure)
            .no_proxy()
            .timeout(self.timeout)
            .connect_timeout(self.timeout.min(Duration::from_secs(5)))
            .redirect(reqwest::redirect::Policy::limited(2));
        if !secure {
            // Without TLS no root certificates are needed, and a minimal image may contain none.
            builder = builder.tls_certs_only([]);
        } else if let (Some(pem), Some(file)) = (ca, &self.ca_file) {
            builder = builder.tls_certs_only(self.certificates(pem, file)?);
        }
        builder.build().map_err(|_| self.unreachable("the TLS client failed to initialise".to_owned()))
    }

    fn certificates(&self, pem: &[u8], file: &Path) -> Result<Vec<reqwest::Certificate>, VaultError> {
        match reqwest::Certificate::from_pem_bundle(pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(self.unreachable(format!("the CA file {} contains no PEM certificate", file.display()))),
        }
    }

    fn unreachable(&self, problem: String) -> VaultError {
        VaultError::Unreachable { address: self.address().to_owned(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: &str) -> VaultSettings {
        VaultSettings {
            address: address.to_owned(),
            namespace: None,
            ca_file: None,
            kv_mount: "secret".to_owned(),
            approle_mount: "approle".to_owned(),
            kubernetes_mount: "kubernetes".to_owned(),
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_valid_address_is_accepted() {
        for address in ["https://vault.vault.svc:8200", "http://127.0.0.1:8200/", " https://vault\n"] {
            assert!(Transport::new(&settings(address)).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_bad_address_is_refused_without_being_repeated() {
        for address in [
            "",
            "vault:8200",
            "ftp://vault",
            "https://user:canary@vault",
            "https://vault/canary",
            "https://vault?canary",
        ] {
            let error = Transport::new(&settings(address)).err().unwrap_or_else(|| panic!("{address} was accepted"));
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_namespace_that_no_header_carries_is_refused() {
        let settings = VaultSettings { namespace: Some("a\nb".to_owned()), ..settings("https://vault") };
        assert!(Transport::new(&settings).is_err());
    }
}
