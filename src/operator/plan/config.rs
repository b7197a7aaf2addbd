//! ConfigMaps: the role_ids with Vault's address, the desired state, Patroni's own.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::inputs::Inputs;
use crate::api::names::LABEL_SCOPE;
use crate::contract::clients::Engine;
use crate::contract::desired::{self, Desired};
use crate::contract::pod;
use crate::contract::records::VaultAccess;
use crate::operator::apply::object::{ANNOTATION_SECRETS, ANNOTATION_TEMPLATE, Annotations, Planned};
use crate::operator::credentials::{DesiredCredentials, clients};
use crate::operator::validate::Database;

/// A role_id and Vault's address. The secret_id is in a Secret of the same name.
pub fn approle(database: &Database, inputs: &Inputs<'_>, name: &str, role_id: &str) -> Planned {
    let options = inputs.options;
    let access = VaultAccess {
        address: options.vault_address.clone(),
        namespace: options.vault_namespace.clone(),
        approle_mount: options.vault_approle_mount.clone(),
        kv_mount: options.vault_kv_mount.clone(),
        folder: database.vault.folder(),
        timeout_seconds: options.vault_timeout_seconds,
    };
    let mut data = json!({pod::ROLE_ID: role_id, pod::VAULT_ACCESS: json!(access).to_string()});
    if let Some(ca) = inputs.vault_ca {
        data[pod::VAULT_CA] = ca.into();
    }
    Planned::new::<ConfigMap>(&database.owner, name.to_owned(), json!({"data": data}))
}

/// The desired state for the agents.
pub fn desired(database: &Database, inputs: &Inputs<'_>) -> Planned {
    let decision = inputs.decision;
    let document = Desired {
        order: decision.order.clone(),
        authorities: inputs.authorities.clone(),
        instances: decision.members,
        system_identifier: inputs.system_identifier.map(str::to_owned),
        volume_bytes: inputs.volume_bytes,
        backup: inputs.backup.clone(),
        in_place: inputs.in_place.clone(),
        branch: inputs.branch.clone(),
        maintenance: Some(inputs.maintenance.clone()),
        // Status may not have it yet.
        postgres_major: Some(inputs.lineage.map_or(database.major, |lineage| lineage.major)),
        upgrade: inputs.upgrade.cloned().map(Box::new),
        lineage: inputs.lineage.cloned().map(Box::new),
        engine: inputs
            .options
            .vault_database_mount
            .clone()
            .filter(|_| database.has_short_lived())
            .map(|mount| Engine { mount, connection: database.vault.engine_connection() }),
        ..document(database, inputs.credentials)
    };
    let mut annotations = json!({ANNOTATION_TEMPLATE: inputs.template.to_string()});
    if !inputs.secrets.is_empty() {
        let names: Vec<_> = inputs.secrets.iter().map(String::as_str).collect();
        annotations[ANNOTATION_SECRETS] = names.join(",").into();
    }
    let body = json!({
        "metadata": {"annotations": annotations},
        "data": {desired::KEY: json!(document).to_string()},
    });
    Planned::new::<ConfigMap>(&database.owner, database.names().desired(), body)
}

/// The document with the desired state.
pub fn document(database: &Database, credentials: &DesiredCredentials) -> Desired {
    Desired {
        version: desired::VERSION,
        uid: database.owner.uid.clone(),
        database: database.postgres.database.clone(),
        postgres_major: Some(database.major),
        instances: database.instances,
        parameters: database.parameters.clone(),
        volume_bytes: database.volume_bytes,
        memory: database.memory,
        extensions: database.extensions.clone(),
        extension_options: database.extension_options.clone(),
        application_creates: database.migrations.is_none(),
        // With one instance, too: Patroni's record of the synchronous members prevents the
        // promotion of an earlier member that returns with an old volume, independent of the number
        // of instances.
        synchronous: database.synchronous,
        maximum_lag_bytes: database.maximum_lag_bytes,
        credential_generation: credentials.generation,
        prove: credentials.prove,
        requests: credentials.requests.clone(),
        order: None,
        primary_host: database.names().primary_host(),
        system_identifier: None,
        authorities: None,
        pooler: database.pooler.as_ref().map(|_| {
            let names = database.names();
            desired::Pooler { host: names.pooler_host(&names.pooler()) }
        }),
        gateway: database.gateway.as_ref().map(|_| {
            let shared = database.clients.iter().any(|client| client.own().is_none());
            desired::Gateway { shared }
        }),
        cached: database.gateway.as_ref().and_then(|gateway| {
            let collections = gateway.cache.as_ref()?.collections.clone();
            Some(desired::CachedCollections { collections, schemas: gateway.schemas.clone() })
        }),
        clients: clients::declared(database, &credentials.clients),
        client_rules: database.client_rules,
        engine: None,
        archive: database.archive.clone(),
        second_archive: database.second_archive.clone(),
        when_volume_fills: database.backups.when_volume_fills,
        backup: None,
        in_place: None,
        branch: None,
        maintenance: None,
        queries: database.queries.clone(),
        upgrade: None,
        lineage: None,
        // Only before the database exists.
        restore: database.restore.clone(),
    }
}

/// Patroni's ConfigMaps, with their content at creation. They are kept or deleted exactly with the
/// volumes: with an `initialize` key but no volumes a new cluster waits forever, with volumes but
/// no key a stale replica could win. So they are stamped, not controlled; and they belong to this
/// resource as long as its volumes do.
pub fn patroni(database: &Database, inputs: &Inputs<'_>) -> Vec<Planned> {
    let labels = json!({"metadata": {"labels": {LABEL_SCOPE: database.names().base()}}});
    let made = |(name, contents): (String, &Annotations)| {
        let mut planned = Planned::new::<ConfigMap>(&database.owner, name, labels.clone()).stamped(&database.owner);
        planned.at_creation = (!contents.is_empty()).then(|| json!({"metadata": {"annotations": contents}}));
        planned.known_to_be_ours = inputs.has_volumes;
        planned
    };
    database.names().patroni_config_maps().into_iter().zip(inputs.patroni).map(made).collect()
}
