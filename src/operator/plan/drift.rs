//! The Job that compares the schema with the migrations: the migration Job's pod with the
//! database's image, in which a scratch server runs.

use serde_json::{Value, json};

use super::job::{JobPod, add, literal};
use crate::contract::pod;
use crate::operator::validate::Database;

/// The container that compares.
pub const DRIFT: &str = "drift";
/// The size limit of the scratch server's data.
const SCRATCH_LIMIT: &str = "2Gi";

/// Annotation: the revision and target that the schema is compared with.
pub const ANNOTATION_GOAL: &str = "servicedb.dev/goal";
/// The timeout of a comparison, in seconds.
pub const DEADLINE_SECONDS: i64 = 3600;

/// Adds the settings and volumes for a scratch server to the pod.
pub fn pod(database: &Database, mut base: JobPod) -> JobPod {
    for container in &mut base.containers {
        container["image"] = database.image.clone().into();
        if !database.extensions.is_empty() {
            add(container, "env", json!({"name": pod::ENV_EXTENSIONS, "value": database.extensions.join(",")}));
        }
        if !database.extension_options.is_empty() {
            let options = literal(&json!(database.extension_options).to_string());
            add(container, "env", json!({"name": pod::ENV_EXTENSION_OPTIONS, "value": options}));
        }
        if let Some(path) = database.parameters.get("search_path") {
            add(container, "env", json!({"name": pod::ENV_SEARCH_PATH, "value": literal(path)}));
        }
        for (name, path) in [("socket", pod::SOCKET_DIR), ("scratch", pod::SCRATCH_DIR), ("tmp", "/tmp")] {
            add(container, "volumeMounts", json!({"name": name, "mountPath": path}));
        }
    }
    let scratch: [Value; 3] = [
        json!({"name": "socket", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        json!({"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_LIMIT}}),
        json!({"name": "tmp", "emptyDir": {}}),
    ];
    base.volumes.extend(scratch);
    base
}
