//! The Job that compares the schema with what the migrations give: the migration Job's pod with
//! the database's image, in which a scratch server is started.

use serde_json::{Value, json};

use super::job::{JobPod, add};
use crate::contract::pod;
use crate::operator::validate::Database;

/// The container that compares.
pub const DRIFT: &str = "drift";
/// How much the scratch server may write.
const SCRATCH_LIMIT: &str = "2Gi";

/// Annotation: what the schema is compared with.
pub const ANNOTATION_GOAL: &str = "servicedb.dev/goal";
/// How long a comparison may take, in seconds.
pub const DEADLINE_SECONDS: i64 = 3600;

/// Adds to the pod what a scratch server needs.
pub fn pod(database: &Database, mut base: JobPod) -> JobPod {
    for container in &mut base.containers {
        container["image"] = database.image.clone().into();
        if !database.extensions.is_empty() {
            add(container, "env", json!({"name": pod::ENV_EXTENSIONS, "value": database.extensions.join(",")}));
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
