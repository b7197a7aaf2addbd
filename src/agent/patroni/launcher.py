"""Runs Patroni, which is loaded before it is needed: it starts after a line on standard input.

The agent puts lease.py, election.py, failsafe.py, aside.py, received.py, quiet.py and
structured.py before it, into one file. check.py asserts the parts of Patroni that they hook into
when the image is built.

Arguments: Patroni's configuration; the startup options of its sessions: of any login, of the
superuser, of those that receive WAL.
"""

import sys

import yaml

# Loading Patroni reads lists of PostgreSQL's settings, half of its start in Python's own
# YAML reader and a twentieth of it in libyaml's.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

if __name__ == "__main__":
    import functools
    import logging
    import time
    import types

    import patroni.__main__
    import patroni.api
    import patroni.dcs.kubernetes
    import patroni.ha
    import patroni.log
    import patroni.postgresql
    import patroni.postgresql.config
    import patroni.psycopg
    import patroni.request
    import patroni.watchdog

    # While PostgreSQL starts, stops or is promoted, which takes tenths of a second, Patroni
    # checks it once a second. A failover waits for that check, so it is made ten times as often.
    module = patroni.postgresql
    module.polling_loop = functools.partial(module.polling_loop, interval=0.1)
    module.time = types.SimpleNamespace(**vars(time))
    module.time.sleep = lambda seconds: time.sleep(min(seconds, 0.1))

    # A primary hands the lead over once PostgreSQL has ended, which waits until the replicas have
    # all of its WAL. Patroni would query them itself before that, in case a WAL archive is slow, and
    # here the query takes longer than the shutdown.
    stop = module.Postgresql.stop

    def stop_and_end(self, *args, **kwargs):
        kwargs.pop("on_shutdown", None)
        return stop(self, *args, **kwargs)

    module.Postgresql.stop = stop_and_end

    # A primary that names a synchronous standby waits two seconds until it records the standby, and
    # only a recorded one may be promoted. A standby that is not ready after the shorter pause is
    # recorded in the next loop.
    def pause(seconds):
        names_standby = sys._getframe(1).f_code.co_name == "_process_multisync_replication"
        time.sleep(0.2 if names_standby else seconds)

    patroni.ha.time = types.SimpleNamespace(**vars(time))
    patroni.ha.time.sleep = pause

    # Patroni may not create its ConfigMaps, and without one of them it would cause damage: a leader
    # whose lease or Role somebody deleted would stop PostgreSQL at once, and without the record of the
    # synchronous standbys any member could be promoted. So a missing or refused object counts as an
    # unavailable API server: no member takes the lead, and the leader continues while every member
    # agrees (failsafe mode), until the operator has restored the object with its content.
    coordination = patroni.dcs.kubernetes
    find = coordination.CoreV1ApiProxy.__getattr__

    def find_guarded(self, name):
        call = find(self, name)
        if not name.endswith("_kind") or name.startswith("list_"):
            return call

        def guarded(*args, **kwargs):
            try:
                return call(*args, **kwargs)
            except coordination.k8s_client.rest.ApiException as error:
                if error.status not in (401, 403, 404):
                    raise
                raise coordination.K8sException("{0} {1}".format(error.status, error.reason))

        return guarded

    coordination.CoreV1ApiProxy.__getattr__ = find_guarded

    # How long an object may be missing before that counts, in seconds: the operator restores it within
    # some tenths of a second.
    patience = 1.0
    load = coordination.Kubernetes._load_cluster

    def load_whole(self, path, loader):
        needed = (self.config_path, self.leader_path, self.sync_path)

        def missing(nodes):
            return [name for name in needed if name not in nodes]

        def load_if_whole(found):
            if missing(found["nodes"]):
                raise coordination.KubernetesError("missing: " + ", ".join(missing(found["nodes"])))
            return loader(found)

        until = time.monotonic() + patience
        # The original waits for a cache that is being filled.
        while self._kinds.is_ready() and missing(self._kinds.copy()):
            if time.monotonic() > until:
                gone = ", ".join(missing(self._kinds.copy()))
                coordination.logger.warning("%s: missing or not labelled; waiting for the operator", gone)
                raise coordination.KubernetesError("missing: " + gone)
            time.sleep(0.05)
        return load(self, path, load_if_whole)

    coordination.Kubernetes._load_cluster = load_whole
    keep_own_lease(patroni.dcs.kubernetes)
    decide_on_one_reading(patroni.dcs.kubernetes)
    end_failsafe_with_a_renewal(patroni.ha)
    keep_data_directory(module.Postgresql, module.logger)
    keep_received(module.Postgresql, module.logger)
    log_news_alone(logging.getLogger(patroni.__main__.__name__))
    log_as_json(patroni.log.PatroniLogger)
    # Patroni's sessions are immune to a tenant's settings for sessions: its own are handled here, and
    # those of pg_rewind, pg_basebackup and the WAL receiver in the connection string. Patroni's options
    # come last, and take precedence.
    any_login, superuser, wal_receiver = sys.argv[2:5]
    connect = patroni.psycopg.connect

    def connect_immune(*args, **kwargs):
        if kwargs:
            options = superuser if kwargs.get("user") == "postgres" else any_login
            kwargs["options"] = " ".join(filter(None, [options, kwargs.get("options")]))
        return connect(*args, **kwargs)

    patroni.psycopg.connect = connect_immune
    handler = patroni.postgresql.config.ConfigHandler
    format_dsn = handler.format_dsn

    def format_immune_dsn(self, params):
        # Only the WAL receiver's connection string has an application name.
        options = wal_receiver if "application_name" in params else any_login
        options = options.replace("\\", "\\\\").replace(" ", "\\ ")
        return format_dsn(self, params) + " options=" + options

    handler.format_dsn = format_immune_dsn
    # Patroni's API reads its files again when the server's certificate changes, and not when the
    # authorities change: a member whose certificate a new authority has signed would be refused.
    api = patroni.api.RestApiServer
    serial_number = api.get_certificate_serial_number

    def serial_number_and_authorities(self):
        with open(self._RestApiServer__ssl_options["cafile"], "rb") as authorities:
            return serial_number(self), authorities.read()

    api.get_certificate_serial_number = serial_number_and_authorities

    # The end of input means that the agent has ended.
    if sys.stdin.readline():
        sys.argv = ["patroni", sys.argv[1]]
        patroni.__main__.main()

elif __name__ == "__mp_main__":
    # The child by which Patroni starts PostgreSQL: it needs one module of this package, and
    # without the others PostgreSQL starts half a second earlier.
    import types

    import patroni

    package = types.ModuleType("patroni.postgresql")
    package.__path__ = [path + "/postgresql" for path in patroni.__path__]
    sys.modules["patroni.postgresql"] = package
