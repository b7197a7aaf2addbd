//! What the plan is made from beside the checked spec.

use serde_json::Value;

use crate::operator::apply::object::Annotations;
use crate::operator::context::options::Options;
use crate::operator::credentials::Settled;
use crate::operator::credentials::role_ids::RoleIds;
use crate::operator::instances::situation::Decision;

/// What the plan needs beside the resource, all of it observed or made before.
pub struct Inputs<'a> {
    /// The operator's settings.
    pub options: &'a Options,
    /// Vault's authority, PEM, if it is not one of the system's.
    pub vault_ca: Option<&'a str>,
    /// The role_ids that Vault gave.
    pub role_ids: RoleIds,
    /// The credentials that the runtime record shall hold.
    pub credentials: &'a Settled,
    /// The certificate authorities that clients shall know, PEM; none if they were never read.
    pub authorities: Option<String>,
    /// What is done to the instances now.
    pub decision: &'a Decision,
    /// The template of the pods.
    pub template: &'a Value,
    /// What Patroni's ConfigMaps hold if they are made now.
    pub patroni: &'a [Annotations; 4],
    /// Whether the resource has volumes already.
    pub has_volumes: bool,
    /// PostgreSQL's system identifier, once the database was initialised.
    pub system_identifier: Option<&'a str>,
    /// The size of the smallest of the volumes, in bytes.
    pub volume_bytes: Option<u64>,
}
