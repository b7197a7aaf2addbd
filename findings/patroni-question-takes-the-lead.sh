#!/usr/bin/env bash
# One would guess: GET /cluster on a member of Patroni changes nothing, least of all which member leads.
# Patroni 4.1.5 on Kubernetes (patroni/patroni issue 3718, mended on its main branch): asked while it decides that nobody leads, the member takes the lease from another one that has just got it, and both are primaries.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q 'patroni[kubernetes]==4.1.5' psycopg2-binary==2.9.11
cat >election.py <<'PYTHON'
import threading

import patroni.dcs.kubernetes as kubernetes
from patroni.api import RestApiHandler
from patroni.postgresql.mpp import Null
from patroni.version import __version__

class Server:
    """The ConfigMap of the lease, with the API server's rule: a write on an older version is a conflict."""
    use_endpoints = False
    def __init__(self):
        self.version, self.annotations = 7, {"leader": "", "ttl": "30", "renewTime": "-", "acquireTime": "-", "transitions": "3"}
    def found(self):
        return kubernetes.K8sObject({"metadata": {"name": "demo-leader", "resourceVersion": str(self.version), "annotations": dict(self.annotations)}})
    def read_namespaced_kind(self, name, namespace, **_):
        return self.found()
    def patch_namespaced_kind(self, name, namespace, body, **_):
        metadata = body.to_dict()["metadata"].to_dict()
        if metadata.get("resourceVersion") not in (None, str(self.version)):
            raise kubernetes.k8s_client.rest.ApiException(409, "Conflict")
        self.annotations.update(metadata["annotations"])
        self.version += 1
        return self.found()

class Cache(dict):
    def set(self, name, value):
        self[name] = value
        return True, None
    def kill_stream(self):
        pass

def member(server, name):
    dcs = object.__new__(kubernetes.Kubernetes)
    dcs._name, dcs._namespace, dcs._labels, dcs._ttl = name, "default", {}, 30
    dcs._api, dcs._kinds, dcs._pods = server, Cache(), Cache()
    dcs._base_path, dcs._mpp, dcs._Kubernetes__ips = "/demo", Null(), []
    dcs._retry = kubernetes.Retry(deadline=5, max_delay=1, max_tries=-1, retry_exceptions=kubernetes.KubernetesRetriableException)
    dcs._leader_observed_record, dcs._leader_observed_time, dcs._leader_resource_version = {}, None, None
    # The watch brings the ConfigMap; Patroni builds its view of the cluster from that.
    def get_cluster():
        dcs._kinds["demo-leader"] = server.found()
        return dcs._cluster_from_nodes("", {"demo-leader": server.found()}, [])
    dcs.get_cluster = get_cluster
    return dcs

def ask(dcs):
    """GET /cluster, by Patroni's own handler in a thread of its own."""
    handler = object.__new__(RestApiHandler)
    class Part:
        pass
    handler.server, handler.server.patroni = Part(), Part()
    handler.server.patroni.dcs, handler.server.patroni.postgresql = dcs, Part()
    handler.server.patroni.postgresql.scope = "demo"
    handler._write_json_response = lambda code, response: None
    thread = threading.Thread(target=handler.do_GET_cluster)
    thread.start()
    thread.join()

def race(asked):
    server = Server()
    first, second = member(server, "first"), member(server, "second")
    unlocked = [first.get_cluster().is_unlocked(), second.get_cluster().is_unlocked()]
    won = first.attempt_to_acquire_leader()
    if asked:
        ask(second)
    also = second.attempt_to_acquire_leader()
    return unlocked, won, also, server.annotations["leader"]

quiet, asked = race(False), race(True)
print(f"Patroni {__version__}: nobody leads, and both members have read that: {quiet[0]}")
print(f"the first takes the lease: {quiet[1]}; the second tries, too: {quiet[2]}; the record names {quiet[3]}")
print(f"the first takes the lease: {asked[1]}; the second is asked GET /cluster; it tries: {asked[2]}; the record names {asked[3]}")
raise SystemExit(0 if (quiet[1:], asked[1:]) == ((True, False, "first"), (True, True, "second")) else 1)
PYTHON
venv/bin/python election.py 2>/dev/null
