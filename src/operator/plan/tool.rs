//! The migration Job of a team's own tool: the tool is an init container between Servicedb's
//! sidecar, which holds the lock, and Servicedb's container, which records its success. So the tool
//! runs only while the lock is held, and only its exit code 0 is recorded.

use serde_json::{Value, json};

use super::job::{EXIT_PERMANENT, JobPod, Ours, add, in_vain, literal};
use super::workload::container_security;
use crate::api::ToolSource;
use crate::contract::pod;

/// The sidecar that holds the lock.
pub const HOLD: &str = "hold";
/// The team's container.
pub const TOOL: &str = "tool";
/// The container that records.
pub const RECORD: &str = "record";
/// The exit code of a tool for a transient failure (`EX_TEMPFAIL`).
pub const EXIT_TRANSIENT: i32 = 75;
/// The timeout of the sidecar for the lock, in seconds: it fails earlier by itself.
const START_SECONDS: i32 = 3600;

/// The pod.
pub fn pod(ours: &Ours<'_>, tool: &ToolSource) -> JobPod {
    let session = |read_only: bool| json!({"name": "session", "mountPath": pod::SESSION_DIR, "readOnly": read_only});
    let mut hold = ours.container(HOLD, Some("hold"));
    hold["restartPolicy"] = "Always".into();
    hold["startupProbe"] = json!({
        "exec": {"command": ["/usr/local/bin/servicedb", "migrate", "is-held"]},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": START_SECONDS,
    });
    add(&mut hold, "volumeMounts", session(false));

    let mut record = ours.container(RECORD, Some("record"));
    if let Some(query) = &tool.version_query {
        add(&mut record, "env", json!({"name": pod::ENV_VERSION_QUERY, "value": literal(query)}));
    }

    let mut volumes = ours.volumes();
    volumes.push(json!({"name": "session", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}));
    volumes.push(json!({"name": "tmp", "emptyDir": {}}));
    JobPod {
        init_containers: vec![hold, team(tool, session(true))],
        containers: vec![record],
        volumes,
        in_vain: vec![in_vain(TOOL, "NotIn", &[0, EXIT_TRANSIENT]), in_vain(RECORD, "In", &[EXIT_PERMANENT])],
    }
}

/// Image, command and arguments come from the team; the rest from Servicedb.
fn team(tool: &ToolSource, session: Value) -> Value {
    let file = |name: &str| format!("{}/{name}", pod::SESSION_DIR);
    let mut container = json!({
        "name": TOOL,
        "image": tool.image,
        "env": [
            {"name": "PGSERVICEFILE", "value": file(pod::SERVICE_FILE)},
            {"name": "PGSERVICE", "value": pod::SERVICE},
            {"name": "PGPASSFILE", "value": file(pod::PASSWORD_FILE)},
            {"name": "HOME", "value": "/tmp"},
        ],
        "securityContext": container_security(),
        "terminationMessagePolicy": "File",
        "volumeMounts": [session, {"name": "tmp", "mountPath": "/tmp"}],
    });
    if !tool.command.is_empty() {
        container["command"] = json!(tool.command);
    }
    if !tool.args.is_empty() {
        container["args"] = json!(tool.args);
    }
    container
}
