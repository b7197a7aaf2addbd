"""Runs Patroni, loaded ahead of its work: a line on standard input lets it go.

The agent puts lease.py before it, into one file. What both take hold of in Patroni is asserted by
check.py where the image is built.

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
    # looks at it once a second: looking ten times as often is what a failover waits for.
    module = patroni.postgresql
    module.polling_loop = functools.partial(module.polling_loop, interval=0.1)
    module.time = types.SimpleNamespace(**vars(time))
    module.time.sleep = lambda seconds: time.sleep(min(seconds, 0.1))

    # A primary hands the lead over once PostgreSQL has ended, which waits until the replicas have
    # all of its log. Patroni would ask them itself before that, for the sake of a WAL archive that
    # is slow, and here the question takes longer than the end.
    stop = module.Postgresql.stop

    def stop_and_end(self, *args, **kwargs):
        kwargs.pop("on_shutdown", None)
        return stop(self, *args, **kwargs)

    module.Postgresql.stop = stop_and_end

    # A primary that names a synchronous standby waits two seconds until it writes that down, while
    # nobody may be promoted who is not written down; what is not so far then is seen in the next
    # loop.
    def pause(seconds):
        names_standby = sys._getframe(1).f_code.co_name == "_process_multisync_replication"
        time.sleep(0.2 if names_standby else seconds)

    patroni.ha.time = types.SimpleNamespace(**vars(time))
    patroni.ha.time.sleep = pause

    # Patroni may not make its ConfigMaps, and without one of them it would do harm: a leader whose
    # lease somebody deleted, or whose Role, would stop PostgreSQL at once, and without the record of
    # the synchronous standbys anybody could be promoted. So what is missing or refused counts as an
    # API server that is away: nobody takes the lead, and who has it goes on while every member
    # agrees (failsafe mode), until the operator has put the object back as it was.
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

    # How long an object may be missing before that counts, in seconds: the operator needs some
    # tenths of one.
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
        # A cache that is being filled is what the original waits for.
        while self._kinds.is_ready() and missing(self._kinds.copy()):
            if time.monotonic() > until:
                gone = ", ".join(missing(self._kinds.copy()))
                coordination.logger.warning("%s: gone or not labelled; waiting for the operator", gone)
                raise coordination.KubernetesError("missing: " + gone)
            time.sleep(0.05)
        return load(self, path, load_if_whole)

    coordination.Kubernetes._load_cluster = load_whole
    keep_own_lease(patroni.dcs.kubernetes)
    # Patroni's sessions are immune to what a tenant sets for sessions: what it opens itself here,
    # what pg_rewind, pg_basebackup and the WAL receiver open by the connection string. Its own
    # options come after, and hold.
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
        # Of these the WAL receiver's alone has a name.
        options = wal_receiver if "application_name" in params else any_login
        options = options.replace("\\", "\\\\").replace(" ", "\\ ")
        return format_dsn(self, params) + " options=" + options

    handler.format_dsn = format_immune_dsn
    # Patroni's API reads its files again when the server's certificate is another one, and not when
    # the authorities are: a member whose certificate a new one has signed would be refused.
    api = patroni.api.RestApiServer
    serial_number = api.get_certificate_serial_number

    def serial_number_and_authorities(self):
        with open(self._RestApiServer__ssl_options["cafile"], "rb") as authorities:
            return serial_number(self), authorities.read()

    api.get_certificate_serial_number = serial_number_and_authorities

    # The end of input means that the agent is gone.
    if sys.stdin.readline():
        sys.argv = ["patroni", sys.argv[1]]
        patroni.__main__.main()

elif __name__ == "__mp_main__":
    # The child by which Patroni starts PostgreSQL: of this package it needs one module, and
    # without the others PostgreSQL starts half a second sooner.
    import types

    import patroni

    package = types.ModuleType("patroni.postgresql")
    package.__path__ = [path + "/postgresql" for path in patroni.__path__]
    sys.modules["patroni.postgresql"] = package
