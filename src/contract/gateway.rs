//! Operator and data gateway: ports, files, and the audience of its callers' tokens.

/// The gateway's port, TLS.
pub const GATEWAY_PORT: u16 = 8443;
/// The port of its Service.
pub const SERVICE_PORT: u16 = 443;
/// The port of its metrics and probes, plain HTTP.
pub const METRICS_PORT: u16 = 9188;
/// The path of its requests.
pub const BASE_PATH: &str = "/api/db";

/// The key of the ConfigMap with the settings.
pub const SETTINGS_KEY: &str = "gateway.yaml";
/// The key of the same ConfigMap with the authorities of the gateway's certificate, PEM, for its callers.
pub const AUTHORITIES_KEY: &str = "ca.crt";
/// That ConfigMap as a folder.
pub const SETTINGS_DIR: &str = "/etc/servicedb/gateway";
/// A Secret as a folder: `ca.crt`, and `.crt` and `.key` of `server` (for callers) and `gateway` (for PostgreSQL).
pub const TLS_DIR: &str = "/etc/servicedb/gateway-tls";

/// The grace period of a pod, in seconds: the gateway ends within 25.
pub const GRACE_SECONDS: u64 = 30;

/// The audience of the tokens that the gateway of a database accepts.
pub fn audience(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.servicedb")
}
