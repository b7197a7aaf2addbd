//! Every optional object and list with keys of spec, found in the schema, and manifests that empty
//! one of them or leave it out.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

/// Between them they set everything that spec has. They are paused, so that an operator which
/// happens to run makes no objects for them.
pub fn specs() -> Vec<Value> {
    let sources = [
        "configMap: {name: m}",
        "configMaps: [{name: m}]",
        "image: {reference: i, imagePullSecrets: [{name: s}]}",
        "job: {image: i, imagePullSecrets: [{name: s}]}",
    ];
    let spec = |source: &str| serde_yaml::from_str::<Value>(&WHOLE.replace("SOURCE", source)).expect(source);
    let mut specs = sources.map(spec).to_vec();
    // A client with short-lived logins has no record that a Secret could be a copy of.
    let client = &mut specs[0]["clients"][0];
    client["access"]["dynamic"] = json!({"ttlSeconds": 600});
    client.as_object_mut().expect("a client").remove("secret");
    specs
}

const WHOLE: &str = "
paused: true
instances: 2
storage: {size: 1Gi}
postgres: {formerDataDays: 7, parameters: {work_mem: 8MB}, extensions: [{name: citext, version: '1.6', schema: types}]}
replication: {synchronous: false}
resources: {requests: {memory: 512Mi}, limits: {memory: 1Gi}}
scheduling:
  priorityClassName: high
  tolerations: [{key: db, operator: Exists, effect: NoSchedule}]
  topologySpreadConstraints:
  - {topologyKey: zone, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {a: b}}}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: ssd, operator: In, values: ['1']}]}]
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {a: b}}}]
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {a: b}}}]
podMetadata: {labels: {team: chat}, annotations: {example.com/cost-centre: '12'}}
migrations:
  source: {SOURCE}
  dependsOn: [{name: other, minimumVersion: 1}]
  resources: {requests: {memory: 64Mi}, limits: {memory: 128Mi}}
clients:
- serviceAccountName: chat
  name: bot
  secret: {name: c-credentials}
  access: {mode: Custom, grants: [{schema: public, tables: [t], columns: [c], privileges: [SELECT], rowPolicy: NOT hidden}]}
  sharedToo: true
  connectionLimit: 5
  statementTimeoutSeconds: 30
  podSelector: {matchLabels: {app: chat}}
  direct: false
- {serviceAccountName: other, serviceAccountNamespace: reports, access: {mode: ReadOnly}}
- {serviceAccountName: web/other, name: another, access: {mode: ReadOnly}}
pooler:
  instances: 3
  poolSize: 5
  replicas: true
  parameters: {query_timeout: '30'}
  resources: {requests: {cpu: 50m}, limits: {memory: 64Mi}}
  plannedChanges: {holdSeconds: 3, upgradeHoldSeconds: 30, onTimeout: Postpone}
gateway:
  instances: 3
  schemas: [public, shop]
  search: {films: [title]}
  searchConfiguration: english
  connections: 5
  maxRows: 100
  costPerSecond: 5000
  cache: {collections: [films], megabytes: 16}
  statementTimeoutSeconds: 5
  resources: {requests: {cpu: 50m}, limits: {memory: 64Mi}}
credentials: {rotationPeriodSeconds: 3600, secret: {name: chat-credentials}, undeclaredRights: Revoke, sessionGraceSeconds: 30}
monitoring: {slowQuerySeconds: 5, queries: {name: chat-queries, key: queries.yaml}}
audit: {classes: [Ddl, Role], grantedRelations: true}
maintenance: {windows: [{schedule: 0 3 * * SUN, durationMinutes: 60, timeZone: UTC}], vacuum: true, analyze: true, freeze: true, reindex: {enabled: true, bloatPercent: 60}, updateExtensions: true}
updatePolicy: Window
backup: {enabled: true, store: main, secondStore: copy, schedule: {full: 0 3 * * SUN, incremental: 0 3 * * MON-SAT, timeZone: UTC}, retentionDays: 7, retentionFullBackups: 4, whenVolumeFills: StopWrites, deletionPolicy: Delete, restorableIn: [staging], resources: {requests: {cpu: 100m}, limits: {cpu: 1}}}
bootstrap: {adopt: true, restore: {source: {name: game, namespace: games}, target: {lsn: 0/1, timeline: 2}}}
";

/// The paths below spec of every optional object and list with keys; `[]` is an item of a list.
pub fn optional() -> Vec<Vec<String>> {
    let mut versions = servicedb::api::crd::definition().spec.versions;
    let schema = versions.remove(0).schema.and_then(|schema| schema.open_api_v3_schema).expect("a schema");
    let spec = &schema.properties.as_ref().expect("properties")["spec"];
    let mut found = Vec::new();
    walk(spec, &[], &mut found);
    assert!(found.len() > 20, "only {found:?}");
    found
}

fn walk(schema: &JSONSchemaProps, path: &[String], found: &mut Vec<Vec<String>>) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, property) in schema.properties.iter().flatten() {
        let path: Vec<_> = path.iter().chain([name]).cloned().collect();
        let has_keys = property.x_kubernetes_list_type.as_deref() == Some("map");
        if property.type_.as_deref() != Some("object") && !has_keys {
            // Replaced as a whole, with all that is in it.
            continue;
        }
        if !required.contains(name) {
            found.push(path.clone());
        }
        if property.x_kubernetes_map_type.as_deref() != Some("atomic") {
            walk(property, &path, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &property.items {
            let item: Vec<_> = path.into_iter().chain(["[]".to_owned()]).collect();
            walk(items, &item, found);
        }
    }
}

/// The manifests that empty what is at this path, and that leave it out; none if the spec does not
/// set it.
pub fn variants(spec: &Value, path: &[String]) -> Option<[(&'static str, Value); 2]> {
    let pointer: String = path.iter().map(|step| format!("/{}", if step == "[]" { "0" } else { step })).collect();
    let (parent, name) = pointer.rsplit_once('/')?;
    let empty = if spec.pointer(&pointer)?.is_array() { json!([]) } else { json!({}) };
    let (mut emptied, mut without) = (spec.clone(), spec.clone());
    *emptied.pointer_mut(&pointer)? = empty;
    without.pointer_mut(parent)?.as_object_mut()?.remove(name);
    Some([("emptied", emptied), ("left out", without)])
}

/// Why an answer is wrong, if the manifest is right.
pub fn mistake(answer: Result<Value, String>) -> Option<String> {
    match answer {
        Ok(object) => serde_json::from_value::<ServiceDatabase>(object).err().map(|error| error.to_string()),
        Err(message) => Some(message),
    }
}
