//! The inputs of the plan, apart from the checked spec.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::contract::desired::BackupRun;
use crate::contract::in_place::{Branch, InPlace};
use crate::contract::maintenance::Maintenance;
use crate::contract::upgrade::{Lineage, Upgrade};
use crate::operator::apply::object::Annotations;
use crate::operator::context::options::Options;
use crate::operator::credentials::DesiredCredentials;
use crate::operator::credentials::role_ids::RoleIds;
use crate::operator::instances::situation::Decision;

/// The inputs of the plan, apart from the resource: observed or created before.
pub struct Inputs<'a> {
    /// The operator's settings.
    pub options: &'a Options,
    /// Vault's authority, PEM, if it is not one of the system's.
    pub vault_ca: Option<&'a str>,
    /// The role_ids in Vault.
    pub role_ids: RoleIds,
    /// The desired credentials of the runtime record.
    pub credentials: &'a DesiredCredentials,
    /// The certificate authorities for clients, PEM; none if they were never read.
    pub authorities: Option<String>,
    /// The decision about the instances.
    pub decision: &'a Decision,
    /// The template of the pods.
    pub template: &'a Value,
    /// The names of the Secrets with credentials: those that are declared, and those that may still be there.
    pub secrets: BTreeSet<String>,
    /// The content of Patroni's ConfigMaps at creation.
    pub patroni: &'a [Annotations; 4],
    /// Whether the resource has volumes already.
    pub has_volumes: bool,
    /// PostgreSQL's system identifier, once the database was initialised.
    pub system_identifier: Option<&'a str>,
    /// The size of the smallest volume, in bytes.
    pub volume_bytes: Option<u64>,
    /// The last backup Job.
    pub backup: Option<BackupRun>,
    /// The restore in place that is in progress.
    pub in_place: Option<InPlace>,
    /// Since the last restore in place.
    pub branch: Option<Branch>,
    /// The maintenance.
    pub maintenance: Maintenance,
    /// The major upgrade that is in progress.
    pub upgrade: Option<&'a Upgrade>,
    /// Since the last major upgrade.
    pub lineage: Option<&'a Lineage>,
}
