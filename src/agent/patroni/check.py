"""Runs when the image is built. An image fails to build if the launcher's hooks in Patroni
(launcher.py, lease.py, election.py, failsafe.py, aside.py, received.py, quiet.py, structured.py) were not made for its Patroni, or if it lacks a library,
a time zone or a collation that is documented. Written for Patroni 4.1; 4.0 passes, too."""

import ast
import inspect
import json
import logging
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import types
import unittest
from pathlib import Path

import patroni.__main__
import patroni.api
import patroni.config
import patroni.daemon
import patroni.dcs.kubernetes as kubernetes
import patroni.ha
import patroni.log
import patroni.postgresql
import patroni.postgresql.config
import patroni.postgresql.postmaster
import patroni.psycopg
import patroni.utils
import patroni.version
from patroni.postgresql.mpp import Null

sys.path.insert(0, str(Path(__file__).parent))
import aside  # noqa: E402
import received  # noqa: E402
import election  # noqa: E402
import failsafe  # noqa: E402
import lease  # noqa: E402
import quiet  # noqa: E402
import structured  # noqa: E402


def parameters(function):
    return list(inspect.signature(function).parameters)


def source_of(function):
    return textwrap.dedent(inspect.getsource(function))


class Shapes(unittest.TestCase):
    """The names, parameters and statements that the hooks replace."""

    def test_postgresql(self):
        module = patroni.postgresql
        self.assertEqual(parameters(module.polling_loop), ["timeout", "interval"])
        self.assertTrue(inspect.ismodule(module.time))
        self.assertIn("on_shutdown", parameters(module.Postgresql.stop))
        self.assertEqual(parameters(module.Postgresql.stop)[0], "self")

    def test_the_child_that_starts_postgresql(self):
        # It loads the launcher as __mp_main__, which leaves most of Patroni out.
        source = source_of(patroni.postgresql.postmaster.PostmasterProcess.start)
        self.assertIn("get_context('spawn')", source)

    def test_objects_that_are_missing_or_refused(self):
        self.assertEqual(parameters(kubernetes.CoreV1ApiProxy.__getattr__), ["self", "func"])
        self.assertTrue(issubclass(kubernetes.K8sException, Exception))
        self.assertEqual(parameters(kubernetes.Kubernetes._load_cluster), ["self", "path", "loader"])
        for name in ("config_path", "leader_path", "sync_path"):
            self.assertTrue(hasattr(kubernetes.Kubernetes, name), name)
        load = source_of(kubernetes.Kubernetes._Kubernetes__load_cluster)
        self.assertIn("'nodes': nodes", load)
        self.assertTrue(callable(kubernetes.ObjectCache.is_ready) and callable(kubernetes.ObjectCache.copy))

    def test_sessions(self):
        source = source_of(patroni.psycopg.connect)
        self.assertTrue("options" not in source or "kwargs['options']" in source, "given options are kept")
        handler = patroni.postgresql.config.ConfigHandler
        self.assertEqual(parameters(handler.format_dsn), ["self", "params"])
        self.assertNotIn("'options'", source_of(handler.format_dsn), "they would stand there twice")

    def test_certificates(self):
        api = patroni.api.RestApiServer
        self.assertEqual(parameters(api.get_certificate_serial_number), ["self"])
        self.assertIn("self.get_certificate_serial_number()", source_of(api.reload_local_certificate))
        self.assertIn("__ssl_options", source_of(api))

    def test_what_the_agent_reads(self):
        """The names and messages in `patroni/rest.rs` and `lag.rs`."""
        states = [inspect.getsource(module) for module in (patroni.postgresql, patroni.postgresql.misc)]
        # Patroni 4.0 calls a server that crashed "stopped".
        is_new = tuple(map(int, patroni.version.__version__.split(".")[:2])) >= (4, 1)
        crashed = ("crashed",) if is_new else ()
        for word in ("running", "starting", "start failed", "stopped", *crashed):
            self.assertTrue(any(f"'{word}'" in source for source in states), word)
        handler = inspect.getsource(patroni.api.RestApiHandler)
        for word in ("pending_restart", "pending_restart_reason", "dcs_last_seen", "failsafe_mode_is_active",
                     "timeline", "candidate name does not match with sync_standby", "no good candidates"):
            self.assertIn(word, handler)
        members = source_of(patroni.utils.cluster_as_json)
        for word in ("members", "name", "role", "state", "host", "sync_standby", "leader"):
            self.assertIn(word, members)
        self.assertEqual(kubernetes.Kubernetes._OPTIME, "optime")
        dynamic = inspect.getsource(patroni.config)
        self.assertIn("_process_postgresql_parameters(value, True)", dynamic, "local parameters go over shared ones")

    def test_the_pause_of_a_primary_that_names_a_standby(self):
        self.assertTrue(inspect.ismodule(patroni.ha.time))
        source = textwrap.dedent(inspect.getsource(patroni.ha.Ha._process_multisync_replication))
        calls = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        self.assertIn("time.sleep(2)", calls)

    def test_what_removes_a_data_directory(self):
        postgresql = patroni.postgresql.Postgresql
        self.assertEqual(parameters(postgresql.remove_data_directory), ["self"])
        self.assertIn("self._data_dir", inspect.getsource(postgresql.remove_data_directory))
        self.assertIn("elif not os.path.exists(self._data_dir)", inspect.getsource(postgresql.remove_data_directory))
        self.assertTrue(isinstance(patroni.postgresql.logger, logging.Logger))

    def test_promotion(self):
        postgresql = patroni.postgresql.Postgresql
        self.assertEqual(parameters(postgresql._pre_promote), ["self"])
        promote = inspect.getsource(postgresql.promote)
        self.assertLess(promote.index("self._pre_promote()"), promote.index("pg_ctl('promote'"))
        self.assertIn("'pg_' + self.wal_name", inspect.getsource(postgresql.wal_dir.fget))

    def test_the_log_of_a_loop(self):
        self.assertIn("logger.info(self.ha.run_cycle())", inspect.getsource(patroni.__main__.Patroni._run_cycle))
        self.assertEqual(patroni.__main__.logger.name, patroni.__main__.__name__)
        self.assertIn("'no action. I am ({0}), the leader with the lock'", inspect.getsource(patroni.ha.Ha))

    def test_the_form_of_the_log(self):
        log = patroni.log.PatroniLogger
        self.assertEqual(parameters(log._get_formatter), ["self", "config"])
        self.assertIn("handler.setFormatter(formatter)", inspect.getsource(log.reload_config))
        self.assertIn("logging.StreamHandler()", inspect.getsource(log.reload_config))

    def test_the_leaders_record(self):
        dcs = kubernetes.Kubernetes
        wanted = ["self", "name", "annotations", "resource_version", "patch", "retry", "ips"]
        self.assertEqual(parameters(dcs._patch_or_create), wanted)
        self.assertTrue(issubclass(kubernetes.KubernetesError, patroni.ha.DCSError))
        self.assertEqual(dcs._LEADER, "leader")
        for renews in (dcs.update_leader, dcs.attempt_to_acquire_leader):
            for key in ("'renewTime': now", "'acquireTime'", "'transitions'"):
                self.assertIn(key, inspect.getsource(renews))

    def test_what_an_election_is_decided_on(self):
        reads = source_of(kubernetes.Kubernetes._cluster_from_nodes)
        for name in ("_leader_resource_version", "_leader_observed_record", "_leader_observed_time"):
            self.assertIn(f"self.{name} = ", reads)
        self.assertIn("self._leader_resource_version", source_of(kubernetes.Kubernetes.attempt_to_acquire_leader))
        self.assertIn("self._run_cycle()", source_of(patroni.daemon.AbstractPatroniDaemon.run))


    def test_failsafe_mode(self):
        module = patroni.ha
        self.assertEqual(parameters(module.Failsafe.update), ["self", "data"])
        self.assertIn("self._last_update = time.time()", inspect.getsource(module.Failsafe))
        self.assertIn("self._name = data['name']", inspect.getsource(module.Failsafe))
        self.assertIn("Leader('', '',", inspect.getsource(module.Failsafe))
        self.assertIn("self._failsafe.update_cluster(cluster)", inspect.getsource(module.Ha))

    def test_who_may_be_elected(self):
        """The agent of a single instance reads it from the record (`lease.rs`, docs/decisions/0094)."""
        election = inspect.getsource(patroni.ha.Ha.is_healthiest_node)
        self.assertIn("self.state_handler.name not in failsafe_members", election)
        self.assertEqual(kubernetes.Kubernetes._FAILSAFE, "failsafe")
        recorded = "annotations[self._FAILSAFE] = json.dumps(failsafe"
        self.assertIn(recorded, inspect.getsource(kubernetes.Kubernetes.update_leader))
        self.assertNotIn("_FAILSAFE", inspect.getsource(kubernetes.Kubernetes.attempt_to_acquire_leader))


class Launcher(unittest.TestCase):
    """The launcher as the agent writes it, on this Python and this Patroni."""

    def setUp(self):
        here = Path(__file__).parent
        # Not beside the parts: a module of this name would hide Patroni.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.launcher = Path(folder.name) / "patroni.py"
        parts = ("lease.py", "election.py", "failsafe.py", "aside.py", "received.py", "quiet.py", "structured.py",
                 "launcher.py")
        self.launcher.write_text("".join((here / part).read_text() for part in parts))

    def run_python(self, *arguments):
        ended = subprocess.run([sys.executable, "-I", "-B", *arguments], stdin=subprocess.DEVNULL, capture_output=True)
        self.assertEqual((ended.returncode, ended.stderr.decode()), (0, ""))

    def test_it_loads_and_ends_with_its_input(self):
        self.run_python(str(self.launcher), "/nonexistent.yml", "-c a=1", "-c b=1", "-c c=1")

    def test_the_child_that_starts_postgresql_loads_one_module(self):
        child = "import runpy; runpy.run_path({0!r}, run_name='__mp_main__')".format(str(self.launcher))
        child += "; from patroni.postgresql.postmaster import pg_ctl_start"
        child += "; import sys; assert 'patroni.postgresql.config' not in sys.modules"
        self.run_python("-c", child)


class Image(unittest.TestCase):
    """What the image has beside Patroni, for each version of PostgreSQL."""

    BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    # Each with the name of its extension, if another one.
    LIBRARIES = {"pg_stat_statements": None, "pgaudit": None, "vector": None, "pg_cron": None, "pg_partman_bgw": "pg_partman"}

    def test_libraries(self):
        self.assertTrue(self.BINARIES)
        for binaries in self.BINARIES:
            for name, extension in self.LIBRARIES.items():
                self.assertTrue((binaries.parent / "lib" / (name + ".so")).exists(), f"{name} of {binaries}")
                control = Path("/usr/share/postgresql", binaries.parent.name, "extension", (extension or name) + ".control")
                self.assertTrue(control.exists(), str(control))

    def test_zones(self):
        for zone in ("UTC", "Europe/Berlin", "Asia/Calcutta", "US/Pacific", "Europe/Kiev"):
            self.assertTrue(Path("/usr/share/zoneinfo", zone).exists(), zone)

    def test_locales(self):
        found = subprocess.run(["locale", "-a"], check=True, capture_output=True, text=True).stdout.split()
        for locale in ("C.utf8", "de_DE.utf8", "en_GB.utf8", "en_US.utf8", "es_ES.utf8", "fr_FR.utf8"):
            self.assertIn(locale, found)

    def test_programs(self):
        search = os.pathsep.join([os.environ["PATH"], *map(str, self.BINARIES)])
        for program in ("postgres", "initdb", "pg_ctl", "pg_rewind", "pg_basebackup", "pgbackrest", "pgbouncer",
                        "prometheus-postgres-exporter", "patroni", "tini", "locale"):
            found = any(Path(folder, program).exists() for folder in search.split(os.pathsep))
            self.assertTrue(found, program)


class Server:
    """One ConfigMap, and requests that are executed after their client has given up."""

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

    # The codes are those that Patroni 4.1 retries.
    def patch_namespaced_kind(
        self, name, namespace, body, _retry=None, _request_timeout=None, _retriable_http_codes=None
    ):
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
    dcs._leader_observed_record, dcs._leader_resource_version, dcs._leader_observed_time = {}, None, None
    dcs._build_retain_slots = lambda cluster, slots: None
    return dcs


def load(dcs, server):
    """The state at the start of a loop."""
    dcs._kinds[dcs.leader_path] = server.object()
    dcs._leader_observed_record = dict(server.annotations)
    dcs._leader_resource_version = str(server.version)


class Elections(unittest.TestCase):
    """The hook, and requests to the REST API while a member decides that it may lead."""

    def setUp(self):
        self.server = Server()
        self.server.annotations = {"leader": "", "renewTime": "", "acquireTime": "", "transitions": "3", "ttl": "20"}
        self.dcs = member(self.server, "chat-db-1")

    def read(self):
        found = self.server.object()
        self.dcs._kinds[self.dcs.leader_path] = found
        return self.dcs._cluster_from_nodes("", {self.dcs.leader_path: found}, [])

    def request(self):
        thread = threading.Thread(target=self.read)
        thread.start()
        thread.join()

    def write(self, **annotations):
        self.server.annotations.update(annotations)
        self.server.version += 1

    def test_nobody_takes_the_lease_from_one_that_has_just_got_it(self):
        self.assertEqual(self.read().leader_name, "")
        self.write(leader="chat-db-2", renewTime="now", acquireTime="now", transitions="4")
        self.request()
        self.assertFalse(self.dcs.attempt_to_acquire_leader())
        self.assertEqual((self.server.written, self.server.annotations["leader"]), (0, "chat-db-2"))
        self.assertEqual(self.read().leader_name, "chat-db-2")

    def test_a_lease_that_was_taken_and_released_meanwhile_is_decided_on_again(self):
        self.read()
        self.write(leader="chat-db-2", renewTime="now", acquireTime="now", transitions="4")
        self.request()
        self.write(leader="", renewTime="then")
        self.request()
        self.assertFalse(self.dcs.attempt_to_acquire_leader())
        self.read()
        self.assertTrue(self.dcs.attempt_to_acquire_leader())
        self.assertEqual(self.server.annotations["leader"], "chat-db-1")

    def test_a_request_alone_keeps_nobody_from_the_lease(self):
        self.read()
        self.request()
        self.assertTrue(self.dcs.attempt_to_acquire_leader())


class Failsafes(unittest.TestCase):
    """The hook, and a replica that the leader has called while the API server was away."""

    def setUp(self):
        self.server = Server()
        self.server.annotations = {"leader": "chat-db-0", "renewTime": "1", "acquireTime": "0", "transitions": "3", "ttl": "20"}
        self.ha = object.__new__(patroni.ha.Ha)
        self.ha.dcs = member(self.server, "chat-db-1")
        self.ha.dcs.get_cluster = lambda: self.ha.dcs._cluster_from_nodes(
            "", {self.ha.dcs.leader_path: self.server.object()}, []
        )
        self.ha.state_handler = types.SimpleNamespace(name="chat-db-1")
        self.ha.old_cluster = self.ha.cluster = None
        self.ha.is_failsafe_mode, self.ha.has_lock = lambda: True, lambda info: True
        self.ha._failsafe = patroni.ha.Failsafe(self.ha.dcs)

    def loop(self):
        self.ha.load_cluster_from_dcs()
        return self.ha.cluster.leader_name

    def call(self):
        self.ha._failsafe.update({"name": "chat-db-0", "conn_url": "p", "api_url": "a", "slots": None})

    def write(self, **annotations):
        self.server.annotations.update(annotations)
        self.server.version += 1

    def test_a_released_lease_counts_once_the_leader_has_renewed_it(self):
        self.assertEqual(self.loop(), "chat-db-0")
        self.call()
        self.assertEqual(self.loop(), "chat-db-0")
        self.assertTrue(self.ha._failsafe.is_active())
        self.write(renewTime="2")
        self.loop()
        self.write(leader="")
        self.assertEqual(self.loop(), "")

    def test_the_leader_is_believed_until_then(self):
        self.loop()
        self.call()
        self.write(leader="")
        self.assertEqual(self.loop(), "chat-db-0")

    def test_a_change_that_is_no_renewal_does_not_count(self):
        self.loop()
        self.call()
        self.write(slots="{}")
        self.loop()
        self.assertTrue(self.ha._failsafe.is_active())

    def test_a_call_after_the_renewal_counts(self):
        self.loop()
        self.write(renewTime="2")
        self.loop()
        self.call()
        self.loop()
        self.assertTrue(self.ha._failsafe.is_active())

    def test_a_lease_that_ends_leaves_the_leader_to_its_calls(self):
        self.loop()
        self.call()
        self.write(renewTime="2")
        self.loop()
        self.call()
        self.ha.dcs._leader_observed_time -= 30
        self.assertEqual(self.loop(), "chat-db-0", "it has the members, and not the API server")

    def test_the_renewal_of_another_leader_does_not_count(self):
        self.loop()
        self.call()
        self.write(leader="chat-db-2", renewTime="2")
        self.loop()
        self.assertTrue(self.ha._failsafe.is_active())


class Leases(unittest.TestCase):
    """The hook and a server that hangs, by Patroni's own two ways to renew."""

    def setUp(self):
        self.server = Server()
        self.dcs = member(self.server)
        load(self.dcs, self.server)
        self.assertTrue(self.dcs.attempt_to_acquire_leader(), "no member leads yet")
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


class KeptDirectories(unittest.TestCase):
    """A data directory that Patroni would remove, by Patroni's own function."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.data = Path(self.folder.name) / "pgdata"
        self.kept = Path(self.folder.name) / "pgdata.kept"
        self.volume = types.SimpleNamespace(f_blocks=1000, f_bavail=900, f_frsize=1 << 20)
        postgresql = type("Postgresql", (patroni.postgresql.Postgresql,), {"is_running": lambda self: None})
        aside.keep_data_directory(postgresql, logging.getLogger("check"))
        self.postgresql = object.__new__(postgresql)
        self.postgresql._data_dir = str(self.data)
        self.postgresql.set_role = lambda role: None

    def fill(self, *files):
        for name in files:
            (self.data / name).parent.mkdir(parents=True, exist_ok=True)
            (self.data / name).write_text(name)

    def test_it_is_kept_once_and_a_failed_clone_is_not(self):
        self.fill("PG_VERSION", "global/pg_control")
        before, aside.has_room = aside.has_room, lambda folder, volume: True
        self.addCleanup(setattr, aside, "has_room", before)
        self.postgresql.remove_data_directory()
        self.assertFalse(self.data.exists())
        self.assertTrue((self.kept / "global/pg_control").exists())
        self.fill("PG_VERSION", "global/pg_control", "later")
        self.postgresql.remove_data_directory()
        self.assertFalse(self.data.exists())
        self.assertFalse((self.kept / "later").exists(), "the first one is kept")

    def test_a_directory_that_is_being_removed_is_no_kept_one(self):
        (Path(self.folder.name) / "pgdata.removing").mkdir()
        self.fill("PG_VERSION", "global/pg_control")
        self.assertTrue(aside.set_aside(str(self.data), self.volume))
        self.assertTrue((self.kept / "global/pg_control").exists())

    def test_an_unfinished_clone_is_removed(self):
        self.fill("PG_VERSION", "backup_label")
        self.assertFalse(aside.set_aside(str(self.data), self.volume))
        self.postgresql.remove_data_directory()
        self.assertFalse(self.data.exists() or self.kept.exists())

    def test_it_is_kept_only_where_the_volume_has_room_for_a_clone(self):
        self.fill("PG_VERSION", "global/pg_control")
        self.volume.f_bavail = 200
        self.assertFalse(aside.set_aside(str(self.data), self.volume))
        self.volume.f_bavail = 900
        self.assertTrue(aside.set_aside(str(self.data), self.volume))


class Logs(unittest.TestCase):
    def test_a_loop_without_news_is_logged_once(self):
        logger = logging.Logger("loops")
        quiet.log_news_alone(logger)
        leads, follows = "no action. I am (a), the leader with the lock", "no action. I am (a), a secondary"
        said = ["promoted self", leads, leads, leads, "demoted self", "demoted self", follows, follows, leads]
        with self.assertLogs(logger) as logs:
            for message in said:
                logger.info(message)
        found = [record.getMessage() for record in logs.records]
        self.assertEqual(found, ["promoted self", leads, "demoted self", "demoted self", follows, leads])


    def test_a_record_is_one_line_of_json(self):
        logger = type("PatroniLogger", (), {})
        structured.log_as_json(logger)
        formatter = logger()._get_formatter({})
        try:
            raise ValueError("two\nlines")
        except ValueError:
            failure = sys.exc_info()
        record = logging.LogRecord("patroni.ha", logging.WARNING, "", 1, "a \"%s\"\nb", ("c",), failure)
        record.created = 1.5
        text = formatter.format(record)
        self.assertNotIn("\n", text)
        line = json.loads(text)
        self.assertIn("ValueError: two\nlines", line.pop("traceback"))
        self.assertEqual(line, {"timestamp": "1970-01-01T00:00:01.500000Z", "level": "WARN", "logger": "patroni",
                                "target": "patroni.ha", "message": "a \"c\"\nb"})


class Received(unittest.TestCase):
    """What a standby has received, as it is promoted."""

    def test_whole_segments_and_histories_are_archived(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        wal = Path(folder.name)
        status = wal / "archive_status"
        status.mkdir()
        names = ["000000010000000000000003", "000000020000000000000004", "00000002.history"]
        for name in [*names, "000000020000000000000004.00000028.backup"]:
            (wal / name).touch()
            (status / (name + ".done")).touch()
        (status / "000000010000000000000002.done").touch()
        promoted = []
        rename, vanishes = os.rename, ["000000010000000000000003.done"]

        def rename_what_is_there(before, after):
            if os.path.basename(before) in vanishes:
                vanishes.clear()
                os.unlink(before)
            rename(before, after)

        names.remove("000000010000000000000003")
        self.addCleanup(setattr, received.os, "rename", rename)
        received.os.rename = rename_what_is_there

        class Postgresql:
            wal_dir = str(wal)

            def _pre_promote(self):
                promoted.append(sorted(path.stem for path in status.glob("*.ready")))
                return True

        received.keep_received(Postgresql, logging.getLogger("check"))
        with self.assertLogs("check"):
            self.assertTrue(Postgresql()._pre_promote())
        self.assertEqual(promoted, [sorted(names)])
        Postgresql.wal_dir = str(wal / "none")
        with self.assertLogs("check", "WARNING"):
            self.assertTrue(Postgresql()._pre_promote(), "it is promoted nevertheless")


if __name__ == "__main__":
    if "--without-hook" not in sys.argv:
        lease.keep_own_lease(kubernetes)
        election.decide_on_one_reading(kubernetes)
        failsafe.end_failsafe_with_a_renewal(patroni.ha)
    unittest.main(argv=sys.argv[:1])
