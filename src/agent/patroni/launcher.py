"""Runs Patroni, loaded ahead of its work: a line on standard input lets it go."""

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
