//! The checks of the restricted Pod Security Standard, and two more: a read-only root filesystem,
//! and no environment from Secrets.

use serde_json::{Value, json};

/// The volume types that the standard allows.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The violations of a pod's spec.
pub fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut refuse = |bad: bool, what: String| {
        if bad {
            found.push(what);
        }
    };
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        refuse(pod[shared] == true, format!("{shared} is true"));
    }
    for volume in list(&pod["volumes"]) {
        let kind = volume.as_object().and_then(|volume| volume.keys().find(|key| *key != "name").cloned());
        let allowed = kind.as_deref().is_some_and(|kind| VOLUMES.contains(&kind));
        refuse(!allowed, format!("volume {} is a {kind:?}", volume["name"]));
    }
    let of_pod = &pod["securityContext"];
    refuse(!list(&of_pod["sysctls"]).is_empty(), "sysctls are set".to_owned());
    for name in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(&pod[name]) {
            let context = &container["securityContext"];
            let name = &container["name"];
            let setting = |key: &str| if context[key].is_null() { &of_pod[key] } else { &context[key] };
            refuse(setting("runAsNonRoot") != true, format!("{name}: runAsNonRoot is not true"));
            refuse(setting("runAsUser") == 0, format!("{name}: runAsUser is root"));
            let profile = &setting("seccompProfile")["type"];
            refuse(*profile != "RuntimeDefault" && *profile != "Localhost", format!("{name}: seccomp {profile}"));
            refuse(context["privileged"] == true, format!("{name}: privileged"));
            refuse(context["allowPrivilegeEscalation"] != false, format!("{name}: may escalate"));
            refuse(context["capabilities"]["drop"] != json!(["ALL"]), format!("{name}: keeps capabilities"));
            refuse(!list(&context["capabilities"]["add"]).is_empty(), format!("{name}: adds capabilities"));
            refuse(!context["procMount"].is_null(), format!("{name}: procMount is set"));
            refuse(context["readOnlyRootFilesystem"] != true, format!("{name}: writes to its root filesystem"));
            refuse(
                list(&container["ports"]).iter().any(|port| port.get("hostPort").is_some()),
                format!("{name}: hostPort"),
            );
            refuse(!list(&container["envFrom"]).is_empty(), format!("{name}: envFrom"));
            for variable in list(&container["env"]) {
                let from_secret = variable["valueFrom"].get("secretKeyRef").is_some();
                refuse(from_secret, format!("{name}: {} comes from a Secret", variable["name"]));
            }
        }
    }
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn an_insecure_pod_is_refused_for_every_reason() {
    let found = violations(&json!({
        "hostNetwork": true,
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "containers": [{"name": "c", "envFrom": [{}], "env": [{"name": "P", "valueFrom": {"secretKeyRef": {}}}]}],
    }));
    for part in
        ["hostNetwork", "hostPath", "runAsNonRoot", "seccomp", "escalate", "keeps", "root filesystem", "envFrom", "P"]
    {
        assert!(found.iter().any(|violation| violation.contains(part)), "{part}: {found:?}");
    }
}
