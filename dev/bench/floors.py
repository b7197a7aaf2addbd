"""Workloads that Servicedb is measured against: PostgreSQL alone, and Patroni alone."""

import json

# What PostgreSQL itself costs on this cluster: a volume, initdb, a server, a probe each second.
FLOOR = """set -e
mkdir -m 0700 /data/pgdata
initdb --pgdata=/data/pgdata --data-checksums --auth=trust >/dev/null
exec postgres -D /data/pgdata -c unix_socket_directories=/tmp -c listen_addresses='*'
"""


def floor_set(name, image):
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {"runAsNonRoot": True, "runAsUser": 999, "fsGroup": 999, "seccompProfile": {"type": "RuntimeDefault"}}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": name,
            "selector": {"matchLabels": {"app": name}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": pod,
                    "containers": [
                        {
                            "name": "postgres",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["sh", "-c", FLOOR],
                            "securityContext": restricted,
                            "readinessProbe": {
                                "exec": {"command": ["pg_isready", "--quiet", "--host=/tmp"]},
                                "periodSeconds": 1,
                            },
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        }
                    ],
                },
            },
        },
    }


# Patroni's configuration, as JSON, which is YAML. The settings that decide about the time to three ready members are the
# operator's: a replica clones as soon as there is a leader, one synchronous standby, one call that flushes the volume.
PATRONI = """set -e
umask 077
sed -e "s/POD_NAME/$POD_NAME/g" -e "s/POD_IP/$POD_IP/g" >/tmp/patroni.yml <<EOF
CONFIGURATION
EOF
exec patroni /tmp/patroni.yml
"""


def patroni_objects(name, namespace, image):
    """Three members of Patroni, and what they need to reach the API server."""
    trust = ["local all all trust", "host all all all trust", "host replication all all trust"]
    configuration = {
        "scope": name,
        "name": "POD_NAME",
        "restapi": {"listen": "0.0.0.0:8008", "connect_address": "POD_IP:8008"},
        # Patroni finds the members by its scope in a label, which the pods need to have.
        "kubernetes": {
            "namespace": namespace,
            "labels": {},
            "scope_label": "app",
            "use_endpoints": False,
            "pod_ip": "POD_IP",
        },
        "bootstrap": {
            "dcs": {"ttl": 20, "loop_wait": 10, "retry_timeout": 5, "synchronous_mode": True, "postgresql": {"use_slots": True}},
            "initdb": ["data-checksums", {"auth": "trust"}],
        },
        "postgresql": {
            "listen": "*:5432",
            "connect_address": "POD_IP:5432",
            "data_dir": "/data/pgdata",
            "pgpass": "/tmp/pgpass",
            "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "postgres"}},
            "parameters": {"unix_socket_directories": "/tmp"},
            "pg_hba": trust,
            "basebackup": [{"checkpoint": "fast"}, {"sync-method": "syncfs"}],
        },
        "watchdog": {"mode": "off"},
    }
    thing = floor_set(name, image)
    thing["spec"]["replicas"] = 3
    thing["spec"]["podManagementPolicy"] = "Parallel"
    pod = thing["spec"]["template"]["spec"]
    pod["serviceAccountName"] = name
    container = pod["containers"][0]
    container["command"] = ["sh", "-c", PATRONI.replace("CONFIGURATION", json.dumps(configuration))]
    container["env"] = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container["readinessProbe"] = {"httpGet": {"path": "/readiness", "port": 8008}, "periodSeconds": 1}
    verbs = ["create", "get", "list", "patch", "update", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": [*verbs, "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": role,
            "subjects": [subject],
        },
        thing,
    ]
