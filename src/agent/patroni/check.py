"""Run where the image is built: a Patroni in which the launcher's hooks (launcher.py, lease.py)
would find something else than they were made for fails the build, and not some night."""

import ast
import inspect
import sys
import textwrap
import unittest
from pathlib import Path

import patroni.__main__
import patroni.dcs.kubernetes as kubernetes
import patroni.ha
import patroni.postgresql
from patroni.postgresql.mpp import Null

sys.path.insert(0, str(Path(__file__).parent))
import lease  # noqa: E402


def parameters(function):
    return list(inspect.signature(function).parameters)


class Shapes(unittest.TestCase):
    """What the hooks take hold of."""

    def test_postgresql(self):
        module = patroni.postgresql
        self.assertEqual(parameters(module.polling_loop), ["timeout", "interval"])
        self.assertTrue(inspect.ismodule(module.time))
        self.assertIn("on_shutdown", parameters(module.Postgresql.stop))

    def test_the_pause_of_a_primary_that_names_a_standby(self):
        self.assertTrue(inspect.ismodule(patroni.ha.time))
        source = textwrap.dedent(inspect.getsource(patroni.ha.Ha._process_multisync_replication))
        calls = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        self.assertIn("time.sleep(2)", calls)

    def test_the_leaders_record(self):
        dcs = kubernetes.Kubernetes
        wanted = ["self", "name", "annotations", "resource_version", "patch", "retry", "ips"]
        self.assertEqual(parameters(dcs._patch_or_create), wanted)
        self.assertTrue(issubclass(kubernetes.KubernetesError, patroni.ha.DCSError))
        self.assertEqual(dcs._LEADER, "leader")
        for renews in (dcs.update_leader, dcs.attempt_to_acquire_leader):
            for key in ("'renewTime': now", "'acquireTime'", "'transitions'"):
                self.assertIn(key, inspect.getsource(renews))


class Server:
    """One ConfigMap, and requests that are carried out when nobody waits for them any more."""

    def __init__(self):
        self.version = 1
        self.annotations = {}
        self.hangs = False
        self.refuses = None
        self.late = []
        self.written = 0

    def object(self):
        metadata = {"resourceVersion": str(self.version), "annotations": dict(self.annotations)}
        return kubernetes.K8sObject({"metadata": metadata})

    def wake(self):
        self.hangs = False
        for request in self.late:
            try:
                request()
            except kubernetes.k8s_client.rest.ApiException:
                pass
        self.late.clear()

    def read_namespaced_kind(self, name, namespace, _retry=None, _request_timeout=None):
        if self.hangs:
            raise kubernetes.K8sException("timed out")
        return self.object()

    def patch_namespaced_kind(self, name, namespace, body, _retry=None, _request_timeout=None):
        metadata = body.to_dict()["metadata"].to_dict()

        def carry_out():
            if metadata.get("resourceVersion") not in (None, str(self.version)):
                raise kubernetes.k8s_client.rest.ApiException(409, "Conflict")
            self.annotations.update(metadata["annotations"])
            self.version += 1
            self.written += 1
            return self.object()

        if self.refuses:
            raise kubernetes.k8s_client.rest.ApiException(self.refuses, "refused")
        if self.hangs:
            self.late.append(carry_out)
            raise kubernetes.K8sException("timed out")
        return carry_out()

    use_endpoints = False


class Cache(dict):
    def set(self, name, value):
        self[name] = value
        return True, None

    def kill_stream(self):
        pass


def member(server, name="chat-db-0"):
    """Patroni's own code, with a server in memory."""
    dcs = object.__new__(kubernetes.Kubernetes)
    dcs._name, dcs._namespace, dcs._labels, dcs._ttl = name, "ns", {}, 20
    dcs._api, dcs._kinds, dcs._pods = server, Cache(), Cache()
    dcs._base_path, dcs._mpp = "/chat-db", Null()
    dcs._Kubernetes__ips = []
    dcs._retry = kubernetes.Retry(
        deadline=7, max_delay=1, max_tries=-1, retry_exceptions=kubernetes.KubernetesRetriableException
    )
    dcs._leader_observed_record, dcs._leader_resource_version = {}, None
    dcs._build_retain_slots = lambda cluster, slots: None
    return dcs


def load(dcs, server):
    """What a loop begins with."""
    dcs._kinds[dcs.leader_path] = server.object()
    dcs._leader_observed_record = dict(server.annotations)
    dcs._leader_resource_version = str(server.version)


class Leases(unittest.TestCase):
    """What the hook makes of a server that hangs: by Patroni's own two ways to renew."""

    def setUp(self):
        self.server = Server()
        self.dcs = member(self.server)
        load(self.dcs, self.server)
        self.assertTrue(self.dcs.attempt_to_acquire_leader(), "nobody leads yet")
        load(self.dcs, self.server)
        self.ways = (self.dcs.attempt_to_acquire_leader, lambda: self.dcs.update_leader(None, None))

    def hang(self, times=2):
        self.server.hangs = True
        for _ in range(times):
            for renew in self.ways:
                with self.assertRaises(kubernetes.KubernetesError):
                    renew()

    def test_a_renewal_that_is_carried_out_late_costs_no_lead(self):
        for renew in self.ways:
            self.hang()
            self.server.wake()
            self.assertTrue(renew(), "its own record")
            load(self.dcs, self.server)
            self.assertTrue(renew(), "and the next as always")
            load(self.dcs, self.server)

    def test_another_leader_ends_the_lead(self):
        for renew in self.ways:
            self.hang()
            self.server.late.clear()
            self.server.annotations.update(leader="chat-db-1", renewTime="then", acquireTime="then", transitions="1")
            self.server.version += 1
            self.server.wake()
            written = self.server.written
            self.assertFalse(renew())
            self.assertEqual(self.server.written, written)
            self.setUp()

    def test_another_pod_of_this_name_is_not_this_member(self):
        self.hang()
        self.server.late.clear()
        self.server.annotations.update(renewTime="the other's")
        self.server.version += 1
        self.server.wake()
        written = self.server.written
        self.assertFalse(self.dcs.attempt_to_acquire_leader())
        self.assertEqual(self.server.written, written)

    def test_a_lead_that_was_lost_meanwhile_and_won_again_is_another(self):
        self.hang()
        self.server.wake()
        self.server.annotations.update(transitions="2")
        self.server.version += 1
        self.assertFalse(self.dcs.attempt_to_acquire_leader())

    def test_a_refusal_says_not_that_another_leads(self):
        for status in (401, 403, 404, 422):
            self.server.refuses = status
            for renew in self.ways:
                with self.assertRaises(kubernetes.KubernetesError):
                    renew()
        self.server.refuses = None
        for renew in self.ways:
            self.assertTrue(renew())
            load(self.dcs, self.server)

    def test_a_candidate_is_refused_as_ever(self):
        other = member(self.server, "chat-db-1")
        load(other, self.server)
        self.server.refuses = 403
        self.assertFalse(other.attempt_to_acquire_leader())
        self.server.refuses = None
        self.server.version += 1
        self.assertFalse(other.attempt_to_acquire_leader())

    def test_what_was_sent_is_not_kept_for_ever(self):
        self.hang(10)
        self.server.wake()
        self.assertTrue(self.dcs.attempt_to_acquire_leader())
        self.assertEqual(len(self.dcs.servicedb_sent), 1)


if __name__ == "__main__":
    if "--without-hook" not in sys.argv:
        lease.keep_own_lease(kubernetes)
    unittest.main(argv=sys.argv[:1])
