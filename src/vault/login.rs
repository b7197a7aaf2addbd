//! The login methods of Vault. Each login reads its files again, since they rotate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use vaultrs::api::AuthInfo;
use vaultrs::error::ClientError;

use super::VaultError;
use super::failure::{Failure, Target};
use super::requests::Operation;
use super::transport::{Connection, Transport};

/// A login method. The credentials are files, which are read at each login.
#[derive(Clone, Debug)]
pub enum Login {
    /// The AppRole auth method.
    AppRole {
        /// The mount, such as `approle`.
        mount: String,
        /// The file with the role_id.
        role_id_file: PathBuf,
        /// The file with the secret_id.
        secret_id_file: PathBuf,
    },
    /// The Kubernetes auth method: Vault has the API server review the token.
    Kubernetes {
        /// The mount, such as `kubernetes`.
        mount: String,
        /// Vault's role.
        role: String,
        /// The file with the ServiceAccount token.
        jwt_file: PathBuf,
    },
    /// The JWT auth method: Vault verifies the token's signature itself.
    Jwt {
        /// The mount, such as `jwt`.
        mount: String,
        /// Vault's role.
        role: String,
        /// The file with the token.
        jwt_file: PathBuf,
    },
    /// A token of Vault in a file that another program renews.
    TokenFile {
        /// The file.
        file: PathBuf,
    },
}

/// A token issued by Vault, and its lifetime.
pub(super) struct Granted {
    pub token: SecretString,
    /// `None`: the token does not expire.
    pub lease: Option<Duration>,
    pub renewable: bool,
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AppRole { mount, .. } | Self::Kubernetes { mount, .. } | Self::Jwt { mount, .. } => {
                write!(f, "auth/{}", mount.trim_matches('/'))
            }
            Self::TokenFile { file } => write!(f, "the token file {}", file.display()),
        }
    }
}

impl Login {
    /// Logs in.
    pub(super) async fn perform(&self, transport: &Transport) -> Result<Granted, VaultError> {
        match self {
            Self::AppRole { mount, role_id_file, secret_id_file } => {
                let role_id = self.read(role_id_file).await?;
                let secret_id = self.read(secret_id_file).await?;
                let connection = transport.connection(None).await?;
                let answer = vaultrs::auth::approle::login(
                    &connection,
                    mount.trim_matches('/'),
                    role_id.expose_secret(),
                    secret_id.expose_secret(),
                );
                self.granted(answer.await, transport)
            }
            Self::Kubernetes { mount, role, jwt_file } => {
                let jwt = self.read(jwt_file).await?;
                let connection = transport.connection(None).await?;
                let mount = mount.trim_matches('/');
                let answer = vaultrs::auth::kubernetes::login(&connection, mount, role, jwt.expose_secret());
                self.granted(answer.await, transport)
            }
            Self::Jwt { mount, role, jwt_file } => {
                let jwt = self.read(jwt_file).await?;
                let connection = transport.connection(None).await?;
                let mount = mount.trim_matches('/');
                let answer = vaultrs::auth::oidc::login(&connection, mount, jwt.expose_secret(), Some(role.clone()));
                self.granted(answer.await, transport)
            }
            Self::TokenFile { file } => {
                let token = self.read(file).await?;
                let connection = transport.connection(Some(&token)).await?;
                self.looked_up(&connection, token, transport).await
            }
        }
    }

    async fn looked_up(
        &self,
        connection: &Connection,
        token: SecretString,
        transport: &Transport,
    ) -> Result<Granted, VaultError> {
        match vaultrs::token::lookup_self(connection).await {
            // The program that writes the file also renews the token; here the file is read again instead.
            Ok(found) => Ok(Granted {
                token,
                lease: Some(Duration::from_secs(found.ttl)).filter(|ttl| !ttl.is_zero()),
                renewable: false,
            }),
            Err(error) => Err(self.refused(Failure::new(error, transport.timeout()), transport)),
        }
    }

    fn granted(&self, answer: Result<AuthInfo, ClientError>, transport: &Transport) -> Result<Granted, VaultError> {
        let auth = answer.map_err(|error| self.refused(Failure::new(error, transport.timeout()), transport))?;
        Ok(Granted {
            token: self.header_value(auth.client_token.into())?,
            lease: Some(Duration::from_secs(auth.lease_duration)).filter(|lease| !lease.is_zero()),
            renewable: auth.renewable,
        })
    }

    /// The error of a login that Vault answered with `failure`.
    fn refused(&self, failure: Failure, transport: &Transport) -> VaultError {
        let problem = match (self, failure.code()) {
            // These methods answer 400 to an invalid credential; Vault itself answers 403 if
            // the method does not exist.
            (Self::AppRole { .. } | Self::Jwt { .. }, Some(403)) => {
                return VaultError::MountMissing { path: self.target().path };
            }
            (_, Some(code)) if code == 400 || code == 401 || code == 403 => self.advice(&failure),
            // The Kubernetes method answers 500 to a token that does not match the role.
            (Self::Kubernetes { .. }, Some(500)) if !failure.says("internal error") => self.advice(&failure),
            _ => return failure.into_error(transport.address(), &self.target()),
        };
        VaultError::LoginRefused { mount: self.to_string(), problem }
    }

    fn advice(&self, failure: &Failure) -> String {
        match self {
            Self::AppRole { .. } => "the role_id or the secret_id is not (or no longer) valid; \
                the AppRole may be deleted, or the secret_id expired or destroyed"
                .to_owned(),
            Self::Kubernetes { role, .. } if failure.says("invalid role name") => {
                format!("the role {role} does not exist")
            }
            Self::Jwt { role, .. } if failure.says("could not be found") => format!("the role {role} does not exist"),
            Self::Kubernetes { .. } if failure.says("could not load backend configuration") => {
                "the auth method is not configured".to_owned()
            }
            Self::Kubernetes { role, .. } if failure.says("audience") => {
                format!("the role {role} requires a token for another audience")
            }
            Self::Kubernetes { role, .. } => format!(
                "the role {role} is not bound to this ServiceAccount and its namespace, or the API server does not \
                 review tokens for Vault, or there is no auth method at this mount"
            ),
            Self::Jwt { role, .. } => {
                format!("the role {role} does not accept this token (issuer, audience, subject, claims, expiry)")
            }
            Self::TokenFile { .. } => {
                "the token is not (or no longer) valid, or may not read auth/token/lookup-self".to_owned()
            }
        }
    }

    fn target(&self) -> Target {
        match self {
            Self::TokenFile { .. } => {
                Target { operation: Operation::LookupToken, path: "auth/token/lookup-self".to_owned() }
            }
            _ => Target { operation: Operation::Login, path: format!("{self}/login") },
        }
    }

    async fn read(&self, file: &Path) -> Result<SecretString, VaultError> {
        let refuse = |problem: String| VaultError::LoginRefused { mount: self.to_string(), problem };
        let content = tokio::fs::read_to_string(file)
            .await
            .map_err(|error| refuse(format!("the file {} cannot be read: {error}", file.display())))?;
        let content: SecretString = content.trim().to_owned().into();
        if content.expose_secret().is_empty() {
            return Err(refuse(format!("the file {} is empty", file.display())));
        }
        self.header_value(content)
    }

    /// A credential of one line: a token is sent as a header, which allows nothing else.
    fn header_value(&self, value: SecretString) -> Result<SecretString, VaultError> {
        if http::HeaderValue::from_str(value.expose_secret()).is_err() {
            let problem = "the credential is not a single line of printable characters".to_owned();
            return Err(VaultError::LoginRefused { mount: self.to_string(), problem });
        }
        Ok(value)
    }
}
